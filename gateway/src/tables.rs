//! A snapshot in the form that requests are served from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use drover_api::roster::SignedRoster;
use drover_api::signed::Signature;
use drover_api::snapshot::assertions::{Assertions, Epoch};
use drover_api::snapshot::{self, Cluster, ClusterName, Snapshot, Token};
use drover_api::token::TokenId;
use drover_policy::{ClusterId, InvalidRules, Policy, Principal, Subject};

/// One revision of everything that a request needs: replaced whole, never changed.
#[derive(Debug)]
pub(crate) struct Tables {
    pub revision: u64,
    /// From this moment on everything refuses.
    pub stale_at: SystemTime,
    pub policy: Policy,
    tokens: HashMap<TokenId, Token>,
    users: HashMap<Principal, Arc<User>>,
    names: HashMap<ClusterName, ClusterId>,
    clusters: HashMap<ClusterId, Cluster>,
    assertions: Option<Assertions>,
    /// Groups that some cluster has listed for users who are in too many.
    groups_listed: BTreeSet<Principal>,
    rosters: BTreeMap<ClusterId, Arc<SignedRoster>>,
}

/// A user with what every request of theirs needs, made once.
#[derive(Debug)]
pub(crate) struct User {
    known: snapshot::User,
    pub subject: Subject,
}

impl Deref for User {
    type Target = snapshot::User;

    fn deref(&self) -> &snapshot::User {
        &self.known
    }
}

impl Tables {
    pub(crate) fn first(snapshot: Snapshot) -> Result<Self, InvalidRules> {
        let policy = Policy::new(snapshot.rules.clone(), snapshot.stale_at)?;
        Ok(Self::with(policy, snapshot))
    }

    /// The next revision: permissions that the change did not touch stay compiled.
    pub(crate) fn next(&self, snapshot: Snapshot) -> Result<Self, InvalidRules> {
        let policy = self.policy.next(snapshot.rules.clone(), snapshot.stale_at)?;
        Ok(Self::with(policy, snapshot))
    }

    fn with(policy: Policy, snapshot: Snapshot) -> Self {
        let user = |known: snapshot::User| {
            let subject = Subject::new(known.principal.clone(), known.groups.iter().cloned());
            (known.principal.clone(), Arc::new(User { known, subject }))
        };
        let groups_listed = snapshot.groups_listed();
        Self {
            revision: snapshot.revision,
            stale_at: snapshot.stale_at,
            policy,
            tokens: snapshot.tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
            users: snapshot.users.into_iter().map(user).collect(),
            names: snapshot
                .clusters
                .iter()
                .map(|cluster| (cluster.name.clone(), cluster.id.clone()))
                .collect(),
            clusters: snapshot.clusters.into_iter().map(|cluster| (cluster.id.clone(), cluster)).collect(),
            assertions: snapshot.assertions,
            groups_listed,
            rosters: snapshot.rosters,
        }
    }

    pub(crate) fn token(&self, id: &TokenId) -> Option<&Token> {
        self.tokens.get(id)
    }

    pub(crate) fn user(&self, principal: &Principal) -> Option<&Arc<User>> {
        self.users.get(principal)
    }

    pub(crate) fn has_cluster(&self, id: &ClusterId) -> bool {
        self.clusters.contains_key(id)
    }

    /// The cluster that a client means, by name or id.
    pub(crate) fn cluster(&self, text: &str) -> Option<&Cluster> {
        let id = match ClusterName::parse(text) {
            Ok(name) => self.names.get(&name)?,
            Err(_) => &ClusterId::parse(text).ok()?,
        };
        self.clusters.get(id)
    }

    /// Control's signature over who presents a token, and since when it is good.
    pub(crate) fn assertion(&self, token: &TokenId) -> Option<(&Epoch, &Signature)> {
        let Assertions { epoch, signatures } = self.assertions.as_ref()?;
        Some((epoch, signatures.get(token)?))
    }

    pub(crate) fn groups_listed(&self) -> &BTreeSet<Principal> {
        &self.groups_listed
    }

    pub(crate) fn roster(&self, cluster: &ClusterId) -> Option<&Arc<SignedRoster>> {
        self.rosters.get(cluster)
    }
}
