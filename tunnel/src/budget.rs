//! A budget for bytes that readers leave unread.
//!
//! The connection's window never binds, so a reader that stops may hold a whole stream window. One that
//! waits for bytes holds none. Readers that stopped are charged a window each, per owner; where an
//! owner's budget is exceeded, the reader that stopped longest is reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::limits::{Limits, STALL_AFTER, STREAM_WINDOW};

/// Whose unread bytes a stream's are: opaque keys, equal for streams that share a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub user: u64,
    pub cluster: u64,
}

/// How often stalled readers are looked for.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// What a reader must take within [`STALL_AFTER`] not to count as stalled, in bytes: a sixteenth of its window.
const PROGRESS_BYTES: usize = STREAM_WINDOW as usize / 16;
/// Waiting for bytes, or done with them.
const WAITING: u64 = 0;

/// Every reader of one process.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    readers: DashMap<u64, Arc<Reader>>,
    keys: AtomicU64,
    began: Instant,
}

/// One stream's reader.
#[derive(Debug)]
pub(crate) struct Reader {
    owner: Owner,
    /// When it last took bytes, in milliseconds since the ledger began, plus one; or [`WAITING`].
    took_at_ms: AtomicU64,
    /// Ends the reader's stream.
    reset: Box<dyn Reset>,
}

pub(crate) trait Reset: Send + Sync + std::fmt::Debug {
    fn reset(&self);
}

/// A reader's place in the ledger, given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    ledger: Arc<Ledger>,
    reader: Arc<Reader>,
    key: u64,
    /// Bytes taken since the time of the last took was noted.
    progress: usize,
}

/// One reader that stopped, as the sum is made over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stalled {
    key: u64,
    owner: Owner,
    since_ms: u64,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, readers: DashMap::new(), keys: AtomicU64::new(0), began: Instant::now() })
    }

    pub(crate) fn enter(self: &Arc<Self>, owner: Owner, reset: Box<dyn Reset>) -> Entry {
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        let reader = Arc::new(Reader { owner, took_at_ms: AtomicU64::new(self.now_ms()), reset });
        self.readers.insert(key, reader.clone());
        Entry { ledger: self.clone(), reader, key, progress: 0 }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + 1
    }

    /// Sweeps until cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancelled: CancellationToken) {
        while cancelled.run_until_cancelled(tokio::time::sleep(SWEEP_INTERVAL)).await.is_some() {
            let reset = self.sweep();
            if reset > 0 {
                warn!(reset, "streams reset: unread for too long, over a budget");
            }
        }
    }

    /// Resets the readers that stopped longest, where a budget is exceeded. Says how many.
    fn sweep(&self) -> usize {
        let now_ms = self.now_ms();
        let stalled_after_ms = STALL_AFTER.as_millis() as u64;
        let stalled = self.readers.iter().filter_map(|entry| {
            let since_ms = entry.took_at_ms.load(Ordering::Relaxed);
            let stalled = since_ms != WAITING && now_ms.saturating_sub(since_ms) >= stalled_after_ms;
            stalled.then(|| Stalled { key: *entry.key(), owner: entry.owner, since_ms })
        });
        let victims = over_budget(stalled.collect(), &self.limits);
        for key in &victims {
            if let Some((_, reader)) = self.readers.remove(key) {
                reader.reset.reset();
            }
        }
        victims.len()
    }
}

impl Entry {
    /// The reader took bytes: more may be there. One that takes only drops counts as stalled all the same.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.progress += bytes;
        let waited = self.reader.took_at_ms.load(Ordering::Relaxed) == WAITING;
        if waited || self.progress >= PROGRESS_BYTES {
            self.progress = 0;
            self.reader.took_at_ms.store(self.ledger.now_ms(), Ordering::Relaxed);
        }
    }

    /// The reader found nothing, and waits.
    pub(crate) fn waits(&self) {
        self.reader.took_at_ms.store(WAITING, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.readers.remove(&self.key);
    }
}

/// Which readers have to go: in each owner's sum those that stopped first, until the rest fits.
fn over_budget(mut stalled: Vec<Stalled>, limits: &Limits) -> Vec<u64> {
    // The last to stop are charged first: they fit, and what does not fit stopped longer ago.
    stalled.sort_by_key(|reader| std::cmp::Reverse((reader.since_ms, reader.key)));
    let window = u64::from(STREAM_WINDOW);
    let (mut users, mut clusters) = (std::collections::HashMap::new(), std::collections::HashMap::new());
    let mut total = 0;
    let mut victims = Vec::new();
    for reader in stalled {
        let user = users.entry(reader.owner.user).or_insert(0);
        let cluster = clusters.entry(reader.owner.cluster).or_insert(0);
        let fits = *user + window <= limits.unread_bytes_user_max
            && *cluster + window <= limits.unread_bytes_cluster_max
            && total + window <= limits.unread_bytes_max;
        if fits {
            *user += window;
            *cluster += window;
            total += window;
        } else {
            victims.push(reader.key);
        }
    }
    victims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user: u64, cluster: u64, total: u64) -> Limits {
        let window = u64::from(STREAM_WINDOW);
        Limits {
            unread_bytes_user_max: user * window,
            unread_bytes_cluster_max: cluster * window,
            unread_bytes_max: total * window,
            ..Limits::default()
        }
    }

    /// Readers as (user, cluster), which stopped one after the other; expects the places of those that go.
    fn check(readers: &[(u64, u64)], limits: Limits, expected: &[u64]) {
        let stalled = readers.iter().zip(1..).map(|((user, cluster), at)| Stalled {
            key: at - 1,
            owner: Owner { user: *user, cluster: *cluster },
            since_ms: at,
        });
        let mut victims = over_budget(stalled.collect(), &limits);
        victims.sort();
        assert_eq!(victims, expected, "{readers:?}");
    }

    #[test]
    fn the_reader_that_stopped_longest_ago_goes_and_only_as_many_as_needed() {
        check(&[(1, 1), (1, 1)], limits(2, 9, 9), &[]);
        check(&[(1, 1), (1, 1), (1, 1)], limits(2, 9, 9), &[0]);
        check(&[(1, 1), (2, 1), (1, 1), (1, 1)], limits(2, 9, 9), &[0]);
        check(&[(1, 1), (2, 1), (3, 1), (4, 2)], limits(9, 2, 9), &[0]);
        check(&[(1, 1), (2, 2), (3, 3), (4, 4)], limits(9, 9, 3), &[0]);
    }

    #[test]
    fn one_users_stalls_never_cost_another_user_a_stream() {
        check(&[(2, 1), (1, 1), (1, 1), (1, 1), (1, 1)], limits(2, 4, 9), &[1, 2]);
    }
}
