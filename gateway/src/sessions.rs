//! Which sessions are up for each cluster, and the pick of one for a request.

use std::time::{Duration, Instant};

use dashmap::DashMap;
use drover_policy::ClusterId;
use drover_tunnel::{CloseReason, Session, SessionId};
use tokio::sync::watch;

/// Sessions of one cluster: two replicas, each with an old and a new session while it moves, and room.
const SESSIONS_PER_CLUSTER_MAX: usize = 16;
/// How long after its last session a cluster's agent is expected back, so that "try again" is honest.
const EXPECTED_BACK_WITHIN: Duration = Duration::from_secs(30);

/// Every session that agents opened to this gateway.
#[derive(Debug)]
pub(crate) struct Sessions {
    clusters: DashMap<ClusterId, Held>,
    /// Changes with every session that comes, for those who wait for one.
    arrivals: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    sessions: Vec<Session>,
    /// When the last session left; none while one is here.
    left: Option<Instant>,
}

/// Why no session could be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSession {
    /// An agent was here a moment ago, and is expected back within seconds.
    Reconnecting,
    /// No agent has been seen lately.
    Disconnected,
}

/// Takes a session out of the registry when it is dropped.
pub(crate) struct Registered<'a> {
    sessions: &'a Sessions,
    cluster: ClusterId,
    id: SessionId,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self { clusters: DashMap::new(), arrivals: watch::Sender::new(0) }
    }

    /// Registers a session. An older one of the same process instance is closed: its process lost it,
    /// and its requests must fail at once rather than at a timeout. Other replicas' are left alone.
    pub(crate) fn register(&self, cluster: ClusterId, session: &Session) -> Option<Registered<'_>> {
        let mut held = self.clusters.entry(cluster.clone()).or_default();
        held.sessions.retain(|other| {
            let replaced = other.instance() == session.instance();
            if replaced {
                other.close(CloseReason::Replaced);
            } else {
                // Perhaps this is its successor, and nobody has missed it yet.
                other.probe();
            }
            !replaced
        });
        if held.sessions.len() >= SESSIONS_PER_CLUSTER_MAX {
            return None;
        }
        held.sessions.push(session.clone());
        held.left = None;
        drop(held);
        self.arrivals.send_modify(|count| *count += 1);
        Some(Registered { sessions: self, cluster, id: session.id() })
    }

    /// The least busy session of a cluster, other than the one that just failed.
    pub(crate) fn pick(&self, cluster: &ClusterId, failed: Option<SessionId>) -> Result<Session, NoSession> {
        let Some(held) = self.clusters.get(cluster) else { return Err(NoSession::Disconnected) };
        // The newest of equals: an older one may be of an agent that died and was not missed yet.
        let newest_first = held.sessions.iter().rev();
        let usable = newest_first.filter(|session| Some(session.id()) != failed && !session.is_draining());
        let picked = usable.min_by_key(|session| session.in_flight()).cloned();
        picked.ok_or_else(|| held.expectation())
    }

    /// Like [`Self::pick`], but waits up to `patience` for a session to come.
    pub(crate) async fn wait(
        &self,
        cluster: &ClusterId,
        failed: Option<SessionId>,
        patience: Duration,
    ) -> Result<Session, NoSession> {
        let mut arrivals = self.arrivals.subscribe();
        let arrival = async {
            loop {
                arrivals.borrow_and_update();
                if let Ok(session) = self.pick(cluster, failed) {
                    return session;
                }
                if arrivals.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(patience, arrival).await {
            Ok(session) => Ok(session),
            Err(_) => self.pick(cluster, failed),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.clusters.iter().map(|held| held.sessions.len()).sum()
    }

    /// Every session, for a drain or a change of the snapshot.
    pub(crate) fn all(&self) -> Vec<(ClusterId, Session)> {
        let of = |held: dashmap::mapref::multiple::RefMulti<'_, ClusterId, Held>| {
            held.sessions.iter().map(|session| (held.key().clone(), session.clone())).collect::<Vec<_>>()
        };
        self.clusters.iter().flat_map(of).collect()
    }
}

impl Held {
    fn expectation(&self) -> NoSession {
        match self.left {
            Some(left) if left.elapsed() > EXPECTED_BACK_WITHIN => NoSession::Disconnected,
            Some(_) | None => NoSession::Reconnecting,
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        if let Some(mut held) = self.sessions.clusters.get_mut(&self.cluster) {
            held.sessions.retain(|session| session.id() != self.id);
            if held.sessions.is_empty() {
                held.left = Some(Instant::now());
            }
        }
    }
}
