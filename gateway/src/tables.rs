//! A snapshot in the form that requests are served from.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use drover_api::snapshot::{ClusterName, Snapshot, Token};
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
    clusters: HashMap<ClusterId, ClusterName>,
}

/// A user with what every request of theirs needs, made once.
#[derive(Debug)]
pub(crate) struct User {
    pub name: String,
    pub principal: Principal,
    pub display_name: Option<String>,
    pub groups: Vec<Principal>,
    pub disabled: bool,
    pub subject: Subject,
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
        let user = |user: drover_api::snapshot::User| {
            let subject = Subject::new(user.principal.clone(), user.groups.iter().cloned());
            let drover_api::snapshot::User { principal, name, display_name, groups, disabled } = user;
            (principal.clone(), Arc::new(User { name, principal, display_name, groups, disabled, subject }))
        };
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
            clusters: snapshot.clusters.into_iter().map(|cluster| (cluster.id, cluster.name)).collect(),
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
    pub(crate) fn cluster(&self, text: &str) -> Option<(&ClusterId, &ClusterName)> {
        if let Ok(name) = ClusterName::parse(text) {
            return self.names.get_key_value(&name).map(|(name, id)| (id, name));
        }
        self.clusters.get_key_value(&ClusterId::parse(text).ok()?)
    }
}
