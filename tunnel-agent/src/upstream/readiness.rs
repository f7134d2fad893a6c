//! Whether the API server is ready for requests of others.
//!
//! A server that has just started refuses everybody's rights until it has read its RBAC rules, and a
//! client takes such a 403 for an answer. So nothing is sent before its `/readyz` says ok, and after a
//! connection to it failed.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Upstream;

const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as this a server that is not ready is expected to be so soon: a restart takes seconds.
const EXPECTED_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    NotReadySince(Instant),
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::NotReadySince(Instant::now()))))
    }

    pub(crate) fn state(&self) -> State {
        *self.0.borrow()
    }

    /// Resolves once the server has said that it is ready.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as this.
        _ = self.0.subscribe().wait_for(|state| *state == State::Ready).await;
    }

    /// The server could not be reached: it must say that it is ready before it gets another request.
    pub(crate) fn lost(&self) {
        self.0.send_if_modified(|state| {
            let was_ready = *state == State::Ready;
            if was_ready {
                *state = State::NotReadySince(Instant::now());
            }
            was_ready
        });
    }

    /// Asks until the server is ready, each time that it is not, until cancelled.
    pub(crate) async fn watch(self, upstream: Arc<Upstream>, cancelled: CancellationToken) {
        let mut changes = self.0.subscribe();
        let watch = async {
            loop {
                if changes.wait_for(|state| *state != State::Ready).await.is_err() {
                    return;
                }
                self.until_ready(&upstream).await;
                self.0.send_replace(State::Ready);
                info!("the API server is ready");
            }
        };
        cancelled.run_until_cancelled(watch).await;
    }

    async fn until_ready(&self, upstream: &Upstream) {
        let mut told = None;
        loop {
            let why = match timeout(PROBE_TIMEOUT, upstream.readyz()).await {
                Ok(Ok(StatusCode::OK)) => return,
                Ok(Ok(code)) => format!("/readyz answers {code}"),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("/readyz does not answer within {PROBE_TIMEOUT:?}"),
            };
            if told.as_ref() != Some(&why) {
                warn!(%why, "the API server is not ready");
                told = Some(why);
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }
}

impl State {
    /// Whether a client does well to try again in a moment; none where it is ready.
    pub(crate) fn is_expected_soon(self) -> Option<bool> {
        match self {
            Self::Ready => None,
            Self::NotReadySince(since) => Some(since.elapsed() < EXPECTED_WITHIN),
        }
    }
}

impl Upstream {
    /// Asks with the agent's own identity, over a connection of its own.
    async fn readyz(&self) -> anyhow::Result<StatusCode> {
        let mut connection = self.handshake::<Empty<Bytes>>().await?;
        let request = Request::get("/readyz")
            .header(HOST, self.address.to_string())
            .header(ACCEPT, "text/plain")
            .header(AUTHORIZATION, self.credential())
            .body(Empty::new())?;
        Ok(connection.send_request(request).await?.status())
    }
}
