//! Keeps a session with every gateway, and serves what comes down each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use drover_api::kinds::Holder;
use drover_daemon::backoff::Backoff;
use drover_tunnel::{CloseReason, Dialer, Session};
use rand::Rng;
use rand::seq::SliceRandom;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::config::Gateway;
use crate::forward::Forwarder;
use crate::metrics::Metrics;

/// A session that ended sooner was refused or replaced: dialling at once would go on for ever.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// How long the first session waits for the API server.
const READY_PATIENCE: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Tunnels {
    pub dialer: Arc<Dialer>,
    pub forwarder: Arc<Forwarder>,
    pub metrics: Arc<Metrics>,
    /// Owns every stream.
    pub streams: TaskTracker,
    /// Owns every session that is being left.
    pub sessions: TaskTracker,
    /// No further dialling.
    pub stopping: CancellationToken,
    /// Changes with each certificate that gateways are to see.
    pub renewals: watch::Receiver<u64>,
}

/// Why a session is held no longer. Its open streams go on beside the next one.
enum Left {
    /// It has ended, or its gateway or this agent stops: how long to wait, on average, before the next.
    Ended(Option<Duration>),
    /// The next one shows another certificate; requests may come down this one until that is up.
    Renewed(Session),
}

impl Tunnels {
    /// Holds a session with one gateway until told to stop.
    pub(crate) async fn keep(self: Arc<Self>, gateway: Gateway) {
        // An agent that can serve is worth a moment's wait; of one that cannot the gateway should know.
        let ready = timeout(READY_PATIENCE, self.forwarder.readiness.ready());
        self.stopping.run_until_cancelled(ready).await;
        let mut backoff = Backoff::default();
        // Serves until its successor is there.
        let mut former = None;
        loop {
            // Before the dial: a renewal after it is of the next session.
            let mut renewals = self.renewals.clone();
            renewals.mark_unchanged();
            let Some(dialled) = self.stopping.run_until_cancelled(self.dial(&gateway)).await else {
                return leave(former);
            };
            match dialled {
                Ok(session) => {
                    leave(former.take());
                    let began = Instant::now();
                    let left = self.hold(&gateway, session, renewals).await;
                    if began.elapsed() > STABLE_AFTER {
                        backoff.reset();
                    }
                    match left {
                        Left::Ended(pace) => self.pause(pace).await,
                        Left::Renewed(session) => {
                            former = Some(session);
                            continue;
                        }
                    }
                }
                Err(error) => warn!(%gateway, error = format!("{error:#}"), "failed to reach the gateway"),
            }
            if self.stopping.is_cancelled() {
                return leave(former);
            }
            let wait = backoff.next_wait(&mut rand::rng());
            self.stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    /// Tries the gateway's addresses, in random order, until one answers.
    async fn dial(&self, gateway: &Gateway) -> anyhow::Result<Session> {
        let resolve = lookup_host((gateway.host.as_str(), gateway.port));
        let mut addresses: Vec<SocketAddr> = timeout(RESOLVE_TIMEOUT, resolve).await??.collect();
        addresses.shuffle(&mut rand::rng());
        let mut failure = anyhow::anyhow!("the name has no address");
        for address in addresses {
            match self.dialer.dial(address, &gateway.server_name).await {
                Ok(session) => return Ok(session),
                Err(error) => failure = anyhow::Error::new(error).context(address),
            }
        }
        Err(failure)
    }

    /// Serves a session until it ends, its gateway wants it to, or the next one is to take its place.
    async fn hold(
        self: &Arc<Self>,
        gateway: &Gateway,
        session: Session,
        mut renewals: watch::Receiver<u64>,
    ) -> Left {
        info!(%gateway, session = %session.id(), "connected to the gateway");
        self.metrics.session_began();
        let serving = self.clone();
        let served = session.clone();
        let mut ended = self.sessions.spawn(async move { serving.serve(served).await });
        let pace = tokio::select! {
            _ = &mut ended => None,
            pace = session.draining() => {
                // Its open streams go on beside the next session.
                info!(%gateway, session = %session.id(), "the gateway is stopping");
                pace
            }
            Ok(()) = renewals.changed() => return Left::Renewed(session),
            () = self.stopping.cancelled() => {
                session.goaway(None);
                None
            }
        };
        if let Some(reason) = session.close_reason().filter(|reason| *reason == CloseReason::Unauthorized) {
            warn!(%gateway, %reason, "the gateway does not know this cluster");
        }
        Left::Ended(pace)
    }

    async fn serve(&self, session: Session) {
        // Users' credentials speak for a gateway, whichever enrolment its certificates go back to.
        let peer = session.peer().as_str();
        let gateway =
            Holder::of_path(peer).map_or_else(|_| peer.to_owned(), |holder| holder.process.to_string());
        let gateway: Arc<str> = gateway.into();
        while let Some(incoming) = session.accept().await {
            let (forwarder, gateway) = (self.forwarder.clone(), gateway.clone());
            self.streams.spawn(async move { forwarder.serve(incoming, &gateway).await });
        }
        self.metrics.session_ended();
        let reason = session.closed().await;
        info!(session = %session.id(), %reason, "session ended");
    }

    /// Waits a random time of which `pace` is the average, so that a fleet does not move at once.
    async fn pause(&self, pace: Option<Duration>) {
        if let Some(pace) = pace {
            let wait = pace.mul_f64(rand::rng().random_range(0.0..2.0));
            self.stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }
}

/// Lets a session's open streams go on, and takes no more.
fn leave(session: Option<Session>) {
    if let Some(session) = session {
        session.goaway(None);
    }
}
