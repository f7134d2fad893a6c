//! Requests that go on for long, and the end of those whose right is taken away meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use drover_api::impersonate::Wanted;
use drover_api::token::Presented;
use drover_policy::{Attributes, ClusterId};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::audit::Who;
use crate::authenticate::authenticate;
use crate::impersonate::forbidden;
use crate::snapshot::Current;
use crate::tables::Tables;

/// How often tokens and bindings that end by themselves are looked at.
const REVIEW_INTERVAL: Duration = Duration::from_secs(5);

/// Watches, execs, port-forwards and the like: as many as the gateway has streams.
#[derive(Default)]
pub(crate) struct Live {
    requests: DashMap<u64, Request>,
    next: AtomicU64,
}

/// What a request was admitted by.
struct Request {
    presented: Presented,
    cluster: ClusterId,
    attributes: Arc<Attributes>,
    wanted: Option<Arc<Wanted>>,
    ended: CancellationToken,
}

/// A request's place, for as long as it goes on.
pub(crate) struct Registered {
    live: Arc<Live>,
    id: u64,
    ended: CancellationToken,
}

impl Live {
    pub(crate) fn register(
        self: &Arc<Self>,
        who: &Who,
        cluster: &ClusterId,
        attributes: &Arc<Attributes>,
    ) -> Registered {
        let Who { authenticated: who, wanted, .. } = who;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let ended = CancellationToken::new();
        let presented = Presented { id: who.token.clone(), hash: who.credential };
        let (cluster, attributes, wanted) = (cluster.clone(), attributes.clone(), wanted.clone());
        self.requests.insert(id, Request { presented, cluster, attributes, wanted, ended: ended.clone() });
        Registered { live: self.clone(), id, ended }
    }

    /// Ends what would not be admitted any more, until cancelled.
    pub(crate) async fn follow(self: Arc<Self>, current: Arc<Current>, cancelled: CancellationToken) {
        let mut changes = current.changes();
        loop {
            let next = async {
                // Its sender is what `current` holds.
                drop(tokio::time::timeout(REVIEW_INTERVAL, changes.changed()).await);
            };
            if cancelled.run_until_cancelled(next).await.is_none() {
                return;
            }
            let (live, current) = (self.clone(), current.clone());
            // Thousands of decisions: beside the threads that serve.
            let review = move || current.tables().map(|tables| live.review(&tables, SystemTime::now()));
            match tokio::task::spawn_blocking(review).await {
                Ok(Some(ended)) if ended > 0 => info!(ended, "requests ended: their right was taken away"),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// How many were ended.
    fn review(&self, tables: &Tables, now: SystemTime) -> usize {
        let refused = self.requests.iter().filter(|request| !request.is_admitted(tables, now));
        refused.map(|request| request.ended.cancel()).count()
    }
}

impl Request {
    /// A state that is too old to admit by is too old to end by, too: nothing is known to have changed.
    fn is_admitted(&self, tables: &Tables, now: SystemTime) -> bool {
        if tables.stale_at <= now {
            return true;
        }
        let Ok((who, token)) = authenticate(tables, &self.presented, now) else { return false };
        let attributes = Attributes::clone(&self.attributes);
        if let Some(wanted) = &self.wanted {
            let rights = tables.policy.impersonation(&who.user.subject, &self.cluster, now);
            if forbidden(rights, wanted).is_some() {
                return false;
            }
        }
        token.scope.covers(&self.cluster)
            && tables.policy.decide(&who.user.subject, &self.cluster, attributes, now).is_ok()
    }
}

impl Registered {
    pub(crate) fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Ends it where a state came between its admission and its registration that does not admit it.
    pub(crate) fn review(&self, tables: &Tables, now: SystemTime) {
        if let Some(request) = self.live.requests.get(&self.id)
            && !request.is_admitted(tables, now)
        {
            request.ended.cancel();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.live.requests.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
