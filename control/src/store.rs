//! Where objects are kept: one trait, so that one file and a management cluster serve alike.
//!
//! Every write has a revision of its own, counted over all kinds, and says which one it was made from. A watch
//! tells the latest state of what changed after a revision, in their order: who applies it all has the whole.

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

mod sqlite;

pub use sqlite::Sqlite;

pub type Revision = u64;

/// Changes that are read at once.
const CHANGES_MAX: usize = 1000;

/// What a kind keeps of an object, as bytes that the store does not look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub format: u32,
    pub spec: Vec<u8>,
    /// Sealed: the store's owner cannot read it without the key.
    pub secret: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: String,
    pub key: String,
    pub revision: Revision,
    pub created_at: Timestamp,
    pub value: Value,
}

/// What a write was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Revision(Revision),
}

/// The latest that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Record),
    Deleted { kind: String, key: String, revision: Revision },
}

impl Change {
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(record) => record.revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("revision {0} is too long ago: what was deleted since is no longer known")]
    Compacted(Revision),
    #[error("{}", conflict(*.expected, *.found))]
    Conflict { expected: Expected, found: Option<Revision> },
    #[error("the file is no store of drover's")]
    Foreign,
    #[error("another process has the store open")]
    Locked,
    #[error("the store has schema {found}, and this program knows {known}: use the newer program")]
    TooNew { found: i64, known: i64 },
    #[error("the store failed: {0}")]
    Unavailable(#[source] anyhow::Error),
}

fn conflict(expected: Expected, found: Option<Revision>) -> String {
    match (expected, found) {
        (Expected::Absent, _) => "it exists already".to_owned(),
        (Expected::Revision(_), None) => "it does not exist".to_owned(),
        (Expected::Revision(expected), Some(found)) => {
            format!("it was changed meanwhile: revision {found}, and {expected} was expected")
        }
    }
}

/// All of it is whole or not at all, and on the disk once it returns.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Record>, StoreError>;

    /// All of a kind in the order of their keys.
    async fn list(&self, kind: &'static str) -> Result<Vec<Record>, StoreError>;

    async fn put(
        &self,
        kind: &'static str,
        key: &str,
        value: Value,
        expected: Expected,
    ) -> Result<Record, StoreError>;

    async fn delete(&self, kind: &'static str, key: &str, expected: Revision)
    -> Result<Revision, StoreError>;

    /// Up to `max` of what changed after a revision, in order.
    async fn changes(&self, after: Revision, max: usize) -> Result<Vec<Change>, StoreError>;

    /// The oldest revision from which all changes are known.
    async fn oldest(&self) -> Result<Revision, StoreError>;

    /// The revision of the last write.
    fn revision(&self) -> watch::Receiver<Revision>;
}

/// Follows a store from a revision.
pub struct Watch<'a> {
    store: &'a dyn Store,
    after: Revision,
    revision: watch::Receiver<Revision>,
}

impl<'a> Watch<'a> {
    pub fn new(store: &'a dyn Store, after: Revision) -> Self {
        Self { store, after, revision: store.revision() }
    }

    /// What changed since the last call, and waits while that is nothing.
    pub async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            let after = self.after;
            if self.revision.wait_for(|revision| *revision > after).await.is_err() {
                return Err(StoreError::Unavailable(anyhow::anyhow!("it was closed")));
            }
            let changes = self.store.changes(self.after, CHANGES_MAX).await?;
            if let Some(last) = changes.last() {
                self.after = last.revision();
                return Ok(changes);
            }
        }
    }
}

#[cfg(test)]
mod suite;
