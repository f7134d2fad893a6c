//! The store in one file: SQLite in WAL mode, synced with every write, open in one process at a time.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use tokio::sync::watch;

use super::{Change, Expected, Record, Revision, Store, StoreError, Value};

/// "drvr": what tells a store from another program's file.
const APPLICATION_ID: i64 = 0x6472_7672;
/// Of the tables below.
const SCHEMA: i64 = 1;
/// Deletions that are remembered for watches; older ones make a watch begin anew.
const DELETIONS_MAX: i64 = 10_000;

const TABLES: &str = "
CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO numbers VALUES ('revision', 0), ('compacted', 0);
CREATE TABLE objects (
    kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL UNIQUE, created_at INTEGER NOT NULL,
    format INTEGER NOT NULL, spec BLOB NOT NULL, secret BLOB, PRIMARY KEY (kind, key)
) STRICT;
CREATE TABLE deletions (
    kind TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL UNIQUE, PRIMARY KEY (kind, key)
) STRICT;
";

/// In the order that `record` reads.
const COLUMNS: &str = "kind, key, revision, created_at, format, spec, secret";

#[derive(Clone)]
pub struct Sqlite {
    connection: Arc<Mutex<Connection>>,
    revision: watch::Sender<Revision>,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl Sqlite {
    /// Opens the store, and makes it where there is none.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        // SQLite would make it for all to read.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
        made.map_err(|error| StoreError::Unavailable(error.into()))?;
        let mut connection = Connection::open(file)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        match (pragma("application_id")?, pragma("user_version")?, pragma("schema_version")?) {
            (0, 0, 0) => {
                transaction.execute_batch(TABLES)?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.pragma_update(None, "user_version", SCHEMA)?;
            }
            (APPLICATION_ID, SCHEMA, _) => {}
            (APPLICATION_ID, found, _) => return Err(StoreError::TooNew { found, known: SCHEMA }),
            _ => return Err(StoreError::Foreign),
        }
        let revision = number(&transaction, "revision")?;
        transaction.commit()?;
        let (revision, _) = watch::channel(revision);
        Ok(Self { connection: Arc::new(Mutex::new(connection)), revision })
    }

    /// Runs where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.clone();
        // A panic while it was held left no transaction open: its guard rolls back.
        let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Unavailable(error.into()))?
    }

    /// One write under the next revision, told once it is on the disk.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Revision) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let told = self.revision.clone();
        let write = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let revision = number(&transaction, "revision")? + 1;
            set_number(&transaction, "revision", revision)?;
            let done = work(&transaction, revision)?;
            transaction.commit()?;
            told.send_replace(revision);
            Ok(done)
        };
        self.blocking(write).await
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        let query = format!("SELECT {COLUMNS} FROM objects WHERE kind = ?1 AND key = ?2");
        let get = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(&query)?;
            Ok(statement.query_row(params![kind, key], record).optional()?)
        };
        self.blocking(get).await
    }

    async fn list(&self, kind: &'static str) -> Result<Vec<Record>, StoreError> {
        let query = format!("SELECT {COLUMNS} FROM objects WHERE kind = ?1 ORDER BY key");
        let list = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let records = statement.query_map(params![kind], record)?;
            Ok(records.collect::<Result<_, _>>()?)
        };
        self.blocking(list).await
    }

    async fn put(
        &self,
        kind: &'static str,
        key: &str,
        value: Value,
        expected: Expected,
    ) -> Result<Record, StoreError> {
        let key = key.to_owned();
        let put = move |transaction: &Transaction<'_>, revision: Revision| {
            let created_at = match (expected, found(transaction, kind, &key)?) {
                (Expected::Absent, None) => Timestamp::now().as_millisecond(),
                (Expected::Revision(expected), Some((found, created_at))) if expected == found => created_at,
                (expected, found) => {
                    return Err(StoreError::Conflict {
                        expected,
                        found: found.map(|(revision, _)| revision),
                    });
                }
            };
            transaction.execute("DELETE FROM deletions WHERE kind = ?1 AND key = ?2", params![kind, key])?;
            let insert = format!(
                "INSERT OR REPLACE INTO objects ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING {COLUMNS}"
            );
            let mut statement = transaction.prepare_cached(&insert)?;
            let Value { format, spec, secret } = value;
            let values = params![kind, key, signed(revision), created_at, format, spec, secret];
            Ok(statement.query_row(values, record)?)
        };
        self.write(put).await
    }

    async fn delete(
        &self,
        kind: &'static str,
        key: &str,
        expected: Revision,
    ) -> Result<Revision, StoreError> {
        let key = key.to_owned();
        let delete = move |transaction: &Transaction<'_>, revision: Revision| {
            let found = found(transaction, kind, &key)?.map(|(revision, _)| revision);
            if found != Some(expected) {
                return Err(StoreError::Conflict { expected: Expected::Revision(expected), found });
            }
            transaction.execute("DELETE FROM objects WHERE kind = ?1 AND key = ?2", params![kind, key])?;
            let deleted = params![kind, key, signed(revision)];
            transaction.execute("INSERT INTO deletions VALUES (?1, ?2, ?3)", deleted)?;
            compact(transaction)?;
            Ok(revision)
        };
        self.write(delete).await
    }

    async fn changes(&self, after: Revision, max: usize) -> Result<Vec<Change>, StoreError> {
        let changes = move |connection: &mut Connection| {
            // One transaction, so that both tables are seen at one revision.
            let transaction = connection.transaction()?;
            if after < number(&transaction, "compacted")? {
                return Err(StoreError::Compacted(after));
            }
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let puts =
                format!("SELECT {COLUMNS} FROM objects WHERE revision > ?1 ORDER BY revision LIMIT ?2");
            let mut statement = transaction.prepare_cached(&puts)?;
            let puts =
                statement.query_map(params![signed(after), max], |row| Ok(Change::Put(record(row)?)))?;
            let mut changes = puts.collect::<Result<Vec<_>, _>>()?;
            let mut statement = transaction.prepare_cached(
                "SELECT kind, key, revision FROM deletions WHERE revision > ?1 ORDER BY revision LIMIT ?2",
            )?;
            let deletions = statement.query_map(params![signed(after), max], |row| {
                Ok(Change::Deleted { kind: row.get(0)?, key: row.get(1)?, revision: unsigned(row.get(2)?) })
            })?;
            changes.extend(deletions.collect::<Result<Vec<_>, _>>()?);
            changes.sort_by_key(Change::revision);
            changes.truncate(usize::try_from(max).unwrap_or(usize::MAX));
            Ok(changes)
        };
        self.blocking(changes).await
    }

    async fn oldest(&self) -> Result<Revision, StoreError> {
        self.blocking(|connection| number(&connection.transaction()?, "compacted")).await
    }

    fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}

/// Revision and creation of an object that is there.
fn found(
    transaction: &Transaction<'_>,
    kind: &str,
    key: &str,
) -> Result<Option<(Revision, i64)>, StoreError> {
    let query = "SELECT revision, created_at FROM objects WHERE kind = ?1 AND key = ?2";
    let mut statement = transaction.prepare_cached(query)?;
    let row = |row: &Row<'_>| Ok((unsigned(row.get(0)?), row.get(1)?));
    Ok(statement.query_row(params![kind, key], row).optional()?)
}

/// Forgets the oldest deletions above the limit.
fn compact(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let query = "SELECT revision FROM deletions ORDER BY revision DESC LIMIT 1 OFFSET ?1";
    let last = transaction.query_row(query, params![DELETIONS_MAX], |row| row.get::<_, i64>(0)).optional()?;
    let Some(last) = last else { return Ok(()) };
    transaction.execute("DELETE FROM deletions WHERE revision <= ?1", params![last])?;
    set_number(transaction, "compacted", unsigned(last))
}

fn number(transaction: &Transaction<'_>, name: &str) -> Result<u64, StoreError> {
    let value = transaction
        .query_row("SELECT value FROM numbers WHERE name = ?1", params![name], |row| row.get(0))?;
    Ok(unsigned(value))
}

fn set_number(transaction: &Transaction<'_>, name: &str, value: u64) -> Result<(), StoreError> {
    transaction.execute("UPDATE numbers SET value = ?2 WHERE name = ?1", params![name, signed(value)])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let created_at: i64 = row.get(3)?;
    let out_of_range = || rusqlite::Error::IntegralValueOutOfRange(3, created_at);
    Ok(Record {
        kind: row.get(0)?,
        key: row.get(1)?,
        revision: unsigned(row.get(2)?),
        created_at: Timestamp::from_millisecond(created_at).map_err(|_| out_of_range())?,
        value: Value { format: row.get(4)?, spec: row.get(5)?, secret: row.get(6)? },
    })
}

/// SQLite's integers are signed; a revision counts writes, and there are not that many.
fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
