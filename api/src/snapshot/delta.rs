//! What changed between two revisions of a snapshot.

use std::collections::{BTreeSet, HashSet};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problems::Problems;
use super::{Assertions, Document, FORMAT, SnapshotInvalid, Version, check};
use crate::kinds::{Binding, Cluster, Kind, Role, Token, User};
use crate::roster::SignedRoster;

/// A delta as written. One from a revision to itself says that the state is still the one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    pub format: u32,
    pub reader_min: u32,
    /// The revision that it changes.
    pub from: u64,
    pub revision: u64,
    pub issued_at: Timestamp,
    pub max_staleness_s: u64,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub clusters: Changes<Cluster>,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub users: Changes<User>,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub tokens: Changes<Token>,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub roles: Changes<Role>,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub bindings: Changes<Binding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertions: Option<Assertions>,
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub rosters: Changes<SignedRoster>,
    /// All that there are, where they changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolments: Option<BTreeSet<String>>,
}

/// Of one kind: objects as they are now, and the keys of those that are gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes<K> {
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<K>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deleted: Vec<String>,
}

/// What a delta does not change: the whole state has to be asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delta changes revision {from}, and {found} is here")]
pub struct Gap {
    pub from: u64,
    pub found: u64,
}

impl Delta {
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotInvalid> {
        let Version { format, reader_min } = serde_json::from_slice(bytes)?;
        if reader_min > FORMAT {
            return Err(SnapshotInvalid::TooNew { format, reader_min });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// From when on nothing may be served from what it makes.
    pub fn stale_at(&self) -> Result<SystemTime, SnapshotInvalid> {
        let mut problems = Problems::default();
        let stale_at = check::stale_at(self.issued_at.into(), self.max_staleness_s);
        stale_at.map_err(|problem| {
            problems.of_document("max_staleness_s", problem);
            problems.into()
        })
    }

    /// Whether it changes nothing but tokens, and their signatures.
    pub fn is_of_tokens(&self) -> bool {
        self.clusters.is_empty()
            && self.users.is_empty()
            && self.roles.is_empty()
            && self.bindings.is_empty()
            && self.rosters.is_empty()
            && self.enrolments.is_none()
    }

    /// Whether it says no more than that the state is still the one.
    pub fn is_renewal(&self) -> bool {
        self.from == self.revision
    }
}

impl Document {
    /// Makes it the delta's revision, or leaves it as it is.
    pub fn apply(&mut self, delta: Delta) -> Result<(), Gap> {
        if delta.from != self.revision || delta.revision < delta.from {
            return Err(Gap { from: delta.from, found: self.revision });
        }
        let Delta { format, reader_min, revision, issued_at, max_staleness_s, .. } = delta;
        (self.format, self.reader_min, self.revision) = (format, reader_min, revision);
        (self.issued_at, self.max_staleness_s) = (issued_at, max_staleness_s);
        let clusters_go = !delta.clusters.deleted.is_empty();
        delta.clusters.apply(&mut self.clusters);
        delta.users.apply(&mut self.users);
        delta.tokens.apply(&mut self.tokens);
        delta.roles.apply(&mut self.roles);
        delta.bindings.apply(&mut self.bindings);
        delta.rosters.apply(&mut self.rosters);
        if clusters_go {
            let ids: HashSet<_> = self.clusters.iter().map(|cluster| cluster.id.as_str()).collect();
            self.rosters.retain(|roster| ids.contains(roster.cluster.as_str()));
        }
        if delta.enrolments.is_some() {
            self.enrolments = delta.enrolments;
        }
        if let Some(assertions) = delta.assertions {
            assertions.apply(&mut self.assertions);
        }
        Ok(())
    }
}

impl<K: Kind> Changes<K> {
    fn apply(self, objects: &mut Vec<K>) {
        if self.is_empty() {
            return;
        }
        let put = self.put.iter().map(Kind::key);
        let changed: HashSet<&str> = put.chain(self.deleted.iter().map(String::as_str)).collect();
        objects.retain(|object| !changed.contains(object.key()));
        objects.extend(self.put);
    }
}

impl<K> Changes<K> {
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.deleted.is_empty()
    }
}

impl<K> Default for Changes<K> {
    fn default() -> Self {
        Self { put: Vec::new(), deleted: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(revision: u64, clusters: &[(&str, &str)]) -> Document {
        let cluster = |(name, id): &(&str, &str)| format!(r#"{{"name":"{name}","id":"{id}"}}"#);
        let clusters: Vec<_> = clusters.iter().map(cluster).collect();
        let text = format!(
            r#"{{"format":1,"reader_min":1,"revision":{revision},"issued_at":"2026-11-25T12:00:00Z","max_staleness_s":60,
            "clusters":[{}],"users":[],"tokens":[],"roles":[],"bindings":[]}}"#,
            clusters.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    fn delta(from: u64, revision: u64, changes: &str) -> Delta {
        let text = format!(
            r#"{{"format":1,"reader_min":1,"from":{from},"revision":{revision},"issued_at":"2026-11-25T13:00:00Z",
            "max_staleness_s":90{changes}}}"#
        );
        Delta::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_delta_puts_replaces_and_deletes_by_key() {
        let mut document = document(3, &[("a", "c-1"), ("b", "c-2"), ("c", "c-3")]);
        let changes =
            r#","clusters":{"put":[{"name":"b","id":"c-9"},{"name":"d","id":"c-4"}],"deleted":["a","x"]}"#;
        document.apply(delta(3, 5, changes)).unwrap();
        let clusters: Vec<_> =
            document.clusters.iter().map(|cluster| (cluster.name.as_str(), cluster.id.as_str())).collect();
        assert_eq!(clusters, [("c", "c-3"), ("b", "c-9"), ("d", "c-4")]);
        assert_eq!((document.revision, document.max_staleness_s), (5, 90));
        let renewal = delta(5, 5, "");
        assert!(renewal.is_renewal());
        document.apply(renewal).unwrap();
    }

    #[test]
    fn a_delta_of_another_revision_or_back_changes_nothing() {
        let mut document = document(3, &[("a", "c-1")]);
        for (from, revision) in [(2, 4), (4, 5), (3, 2)] {
            let gap = document.apply(delta(from, revision, r#","clusters":{"deleted":["a"]}"#));
            assert_eq!(gap, Err(Gap { from, found: 3 }));
        }
        assert_eq!((document.revision, document.clusters.len()), (3, 1));
    }

    #[test]
    fn a_delta_for_a_newer_reader_or_with_unknown_fields_is_refused() {
        let newer = br#"{"format":2,"reader_min":2,"more":true}"#;
        assert!(matches!(Delta::parse(newer), Err(SnapshotInvalid::TooNew { .. })));
        let unknown = serde_json::to_string(&delta(1, 2, "")).unwrap().replacen('{', r#"{"more":1,"#, 1);
        assert!(matches!(Delta::parse(unknown.as_bytes()), Err(SnapshotInvalid::Json(_))));
    }
}
