//! Accepts agents' sessions and keeps them in the registry for as long as they live.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_api::kinds::{Holder, Process};
use drover_policy::ClusterId;
use drover_tunnel::{CloseReason, Listener, PeerId, Session};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::rosters::Courier;
use crate::sessions::Sessions;
use crate::snapshot::Current;
use crate::tables::Tables;

/// How often the clock is looked at: a machine that slept is late.
const CLOCK_INTERVAL: Duration = Duration::from_secs(30);

/// Accepts until cancelled. Every session has a task of its own in `tasks`, which ends with it.
pub(crate) async fn accept(
    listener: Arc<Listener>,
    sessions: Arc<Sessions>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    cancelled: CancellationToken,
) {
    while let Some(Some(session)) = cancelled.run_until_cancelled(listener.accept()).await {
        let (sessions, current, metrics) = (sessions.clone(), current.clone(), metrics.clone());
        tasks.spawn(async move { hold(session, &sessions, &current, &metrics).await });
    }
}

/// Closes the sessions of clusters that the snapshot no longer has.
pub(crate) async fn follow(current: Arc<Current>, sessions: Arc<Sessions>, cancelled: CancellationToken) {
    let mut changes = current.changes();
    while let Some(Ok(())) = cancelled.run_until_cancelled(changes.changed()).await {
        let tables = current.tables();
        for (cluster, session) in sessions.all() {
            if !tables.as_ref().is_some_and(|tables| is_known(tables, &cluster, session.peer())) {
                warn!(%cluster, session = %session.id(), "cluster or enrolment deleted: session closed");
                session.close(CloseReason::Unauthorized);
            }
        }
    }
}

async fn hold(session: Session, sessions: &Sessions, current: &Current, metrics: &Metrics) {
    let Some(cluster) = cluster_of(session.peer()) else {
        warn!(peer = %session.peer(), "session refused: the certificate is not an agent's");
        return session.close(CloseReason::Unauthorized);
    };
    // First, so that the first request does not wait for it. Where it fails, another gateway may have brought one.
    let mut courier = Courier::new(session.clone(), cluster.clone());
    courier.deliver(current).await;
    let Some(registered) = sessions.register(cluster.clone(), &session) else {
        warn!(%cluster, "session refused: the cluster has too many");
        return session.close(CloseReason::Overloaded);
    };
    // Looked up after it was registered: a snapshot that drops the cluster meets one or the other.
    if !current.tables().is_some_and(|tables| is_known(&tables, &cluster, session.peer())) {
        warn!(%cluster, peer = %session.peer(), "session refused: the snapshot has no such cluster or enrolment");
        return session.close(CloseReason::Unauthorized);
    }
    metrics.sessions_changed(sessions.count());
    info!(%cluster, session = %session.id(), instance = %session.instance(), "agent connected");
    let reason = tokio::select! {
        () = courier.run(current) => session.closed().await,
        reason = session.closed() => reason,
        () = certificate_end(&session) => {
            // An agent that has renewed its certificate is here by another session: this one's streams end in peace.
            info!(%cluster, session = %session.id(), "the certificate has ended: no more requests go there");
            session.goaway(None);
            session.closed().await
        }
    };
    drop(registered);
    metrics.sessions_changed(sessions.count());
    info!(%cluster, session = %session.id(), %reason, "agent disconnected");
}

async fn certificate_end(session: &Session) {
    // Of a certificate that TLS has taken: it has an end.
    let Some(end) = session.certificate_ends_at() else { return };
    while let Ok(left) = end.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(CLOCK_INTERVAL)).await;
    }
}

/// The cluster that a certificate speaks for: `cluster/<id>/agent`, whatever the agent says of itself.
fn cluster_of(peer: &PeerId) -> Option<ClusterId> {
    match Holder::of_path(peer.as_str()).ok()?.process {
        Process::Agent(cluster) => Some(cluster),
        Process::Gateway(_) => None,
    }
}

/// Whether an agent's cluster is there still, and what its certificate goes back to.
fn is_known(tables: &Tables, cluster: &ClusterId, peer: &PeerId) -> bool {
    let enrolment = Holder::of_path(peer.as_str()).ok().and_then(|holder| holder.enrolment);
    tables.has_cluster(cluster) && tables.has_enrolment(enrolment.as_deref())
}
