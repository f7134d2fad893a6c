//! A snapshot in the form that requests are served from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use drover_api::roster::SignedRoster;
use drover_api::signed::Signature;
use drover_api::snapshot::assertions::Epoch;
use drover_api::snapshot::delta::Delta;
use drover_api::snapshot::{self, Cluster, ClusterName, Snapshot, SnapshotInvalid, Token};
use drover_api::token::TokenId;
use drover_policy::{ClusterId, InvalidRules, Policy, Principal, Subject};

use crate::tokens::Tokens;

/// One revision of everything that a request needs: replaced whole, never changed.
#[derive(Debug)]
pub(crate) struct Tables {
    pub revision: u64,
    /// From this moment on everything refuses.
    pub stale_at: SystemTime,
    pub policy: Policy,
    tokens: Tokens,
    around: Arc<Around>,
}

/// What stays where nothing but tokens changes.
#[derive(Debug)]
struct Around {
    users: HashMap<Principal, Arc<User>>,
    names: HashMap<ClusterName, ClusterId>,
    clusters: HashMap<ClusterId, Cluster>,
    /// Groups that some cluster has listed for users who are in too many.
    groups_listed: BTreeSet<Principal>,
    rosters: BTreeMap<ClusterId, Arc<SignedRoster>>,
    enrolments: Option<BTreeSet<String>>,
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
        let (revision, stale_at) = (snapshot.revision, snapshot.stale_at);
        let tokens = Tokens::new(snapshot.tokens, snapshot.assertions);
        let around = Around {
            users: snapshot.users.into_iter().map(user).collect(),
            names: snapshot
                .clusters
                .iter()
                .map(|cluster| (cluster.name.clone(), cluster.id.clone()))
                .collect(),
            clusters: snapshot.clusters.into_iter().map(|cluster| (cluster.id.clone(), cluster)).collect(),
            groups_listed,
            rosters: snapshot.rosters,
            enrolments: snapshot.enrolments,
        };
        Self { revision, stale_at, policy, tokens, around: Arc::new(around) }
    }

    /// What a delta makes that changes nothing but tokens; none where it has to be made anew.
    pub(crate) fn with_tokens_of(&self, delta: &Delta) -> Result<Option<Self>, SnapshotInvalid> {
        if !delta.is_of_tokens() || delta.from != self.revision || delta.revision < delta.from {
            return Ok(None);
        }
        let Around { users, clusters, .. } = &*self.around;
        let put = snapshot::changed_tokens(
            &delta.tokens.put,
            |user| users.contains_key(user),
            |cluster| clusters.contains_key(cluster),
        )?;
        let stale_at = delta.stale_at()?;
        let changed = self.tokens.changed(put, &delta.tokens.deleted, delta.assertions.as_ref());
        Ok(changed.map(|tokens| Self {
            revision: delta.revision,
            stale_at,
            policy: self.policy.until(stale_at),
            tokens,
            around: self.around.clone(),
        }))
    }

    /// Whether they differ in nothing but tokens.
    #[cfg(test)]
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.around, &other.around)
    }

    pub(crate) fn token(&self, id: &TokenId) -> Option<&Token> {
        self.tokens.token(id)
    }

    pub(crate) fn user(&self, principal: &Principal) -> Option<&Arc<User>> {
        self.around.users.get(principal)
    }

    pub(crate) fn has_cluster(&self, id: &ClusterId) -> bool {
        self.around.clusters.contains_key(id)
    }

    /// Whether certificates of an enrolment are good: all are, where nobody keeps enrolments.
    pub(crate) fn has_enrolment(&self, enrolment: Option<&str>) -> bool {
        let kept = self.around.enrolments.as_ref();
        kept.is_none_or(|kept| enrolment.is_some_and(|enrolment| kept.contains(enrolment)))
    }

    /// The cluster that a client means, by name or id.
    pub(crate) fn cluster(&self, text: &str) -> Option<&Cluster> {
        let id = match ClusterName::parse(text) {
            Ok(name) => self.around.names.get(&name)?,
            Err(_) => &ClusterId::parse(text).ok()?,
        };
        self.around.clusters.get(id)
    }

    /// Control's signature over who presents a token, and since when it is good.
    pub(crate) fn assertion(&self, token: &TokenId) -> Option<(&Epoch, &Signature)> {
        self.tokens.assertion(token)
    }

    pub(crate) fn groups_listed(&self) -> &BTreeSet<Principal> {
        &self.around.groups_listed
    }

    pub(crate) fn roster(&self, cluster: &ClusterId) -> Option<&Arc<SignedRoster>> {
        self.around.rosters.get(cluster)
    }
}
