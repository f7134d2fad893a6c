//! What tokens refer to. It stays the same while nothing but tokens changes, which is what changes most.

use std::collections::{BTreeSet, HashMap, HashSet};

use drover_api::kinds;
use drover_api::snapshot::{Snapshot, SnapshotInvalid, Token, User, changed_tokens};
use drover_policy::{ClusterId, Principal};

#[derive(Debug, Default)]
pub(super) struct Around {
    users: HashMap<Principal, User>,
    clusters: HashSet<ClusterId>,
    /// Groups that some cluster has listed for users who are in too many.
    pub listed: BTreeSet<Principal>,
}

impl Around {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { users, clusters, .. } = snapshot;
        Self {
            users: users.iter().map(|user| (user.principal.clone(), user.clone())).collect(),
            clusters: clusters.iter().map(|cluster| cluster.id.clone()).collect(),
            listed: snapshot.groups_listed(),
        }
    }

    pub(super) fn user(&self, principal: &Principal) -> Option<&User> {
        self.users.get(principal)
    }

    /// The tokens as they are served, where all of them can be.
    pub(super) fn check(&self, written: &[kinds::Token]) -> Result<Vec<Token>, SnapshotInvalid> {
        changed_tokens(
            written,
            |user| self.users.contains_key(user),
            |cluster| self.clusters.contains(cluster),
        )
    }
}
