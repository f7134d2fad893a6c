//! Follows control: takes up what it pushes, keeps it, and says so.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use drover_api::snapshot::delta::Delta;
use drover_api::snapshot::{DOCUMENT_BYTES_MAX, Document, FORMAT, Snapshot};
use drover_api::sync::{FromControl, FromGateway};
use drover_daemon::backoff::Backoff;
use drover_enrol::{Identity, Server};
use drover_sync::Following;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::control;
use crate::metrics::Metrics;
use crate::saved::Saved;
use crate::snapshot::Current;
use crate::uses::Uses;

/// Between attempts: the first wait, and the longest. A control that starts again waits for its gateways.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// How often control is told which tokens were used, and how many by one message.
const USES_INTERVAL: Duration = Duration::from_secs(30);
const USES_MAX: usize = 10_000;

pub(crate) struct Follower {
    server: Server,
    identity: watch::Receiver<Identity>,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    held: Arc<Mutex<Held>>,
}

/// What was pushed so far, as it came; requests are served from what `Current` made of it.
struct Held {
    saved: Saved,
    document: Option<Document>,
}

impl Follower {
    /// Takes up what was kept before: requests are served from it until control is there.
    pub(crate) async fn open(
        server: Server,
        identity: watch::Receiver<Identity>,
        folder: &Path,
        current: Arc<Current>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let (saved, document) = Saved::open(folder)?;
        let mut held = Held { saved, document: None };
        let taken_up = document.and_then(|document| {
            let Some(document) = document else { return Ok(()) };
            let revision = current.take_up(Snapshot::try_from(document.clone())?, SystemTime::now())?;
            metrics.snapshot_taken_up(revision);
            info!(revision, "saved snapshot taken up");
            held.document = Some(document);
            Ok(())
        });
        if let Err(error) = taken_up {
            metrics.snapshot_refused();
            error!(
                error = format!("{error:#}"),
                "saved snapshot refused: nothing is served before control pushes one"
            );
        }
        Ok(Self { server, identity, current, metrics, held: Arc::new(Mutex::new(held)) })
    }

    /// Follows until cancelled, from one call to the next.
    pub(crate) async fn run(self, uses: Arc<Uses>, cancelled: CancellationToken) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut first = true;
        loop {
            let mut pushed = false;
            let Some(Err(error)) = cancelled.run_until_cancelled(self.call(&uses, &mut pushed)).await else {
                return;
            };
            self.metrics.control_connected(false);
            let error = format!("{error:#}");
            if pushed {
                backoff.reset();
            }
            // Once for all attempts of an outage.
            if pushed || std::mem::take(&mut first) {
                warn!(error, "control is not connected: requests are served from the last snapshot");
            } else {
                debug!(error, "control is not connected");
            }
            let wait = backoff.next_wait(&mut rand::rng());
            if cancelled.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn call(&self, uses: &Uses, pushed: &mut bool) -> anyhow::Result<()> {
        let identity = self.identity.borrow().clone();
        let connection = control::connect(&self.server, &identity, b"h2").await?;
        let revision = self.held.lock().unwrap_or_else(PoisonError::into_inner).revision();
        let hello = FromGateway::Hello { format: FORMAT, revision };
        let mut following = drover_sync::follow(connection, hello).await?;
        let mut whole = String::new();
        let mut tell = tokio::time::interval(USES_INTERVAL);
        loop {
            let said = tokio::select! {
                said = following.next() => said?,
                _ = tell.tick() => {
                    tell_uses(&following, uses).await?;
                    continue;
                }
            };
            let push = match said {
                FromControl::Delta(delta) => Push::Delta(delta),
                FromControl::Chunk { text, last } => {
                    if whole.len() + text.len() > DOCUMENT_BYTES_MAX {
                        bail!("control pushes more than {DOCUMENT_BYTES_MAX} bytes");
                    }
                    whole.push_str(&text);
                    if !last {
                        continue;
                    }
                    Push::Whole(std::mem::take(&mut whole))
                }
            };
            let answer = self.take_up(push).await?;
            following.answer(answer).await?;
            self.metrics.control_connected(true);
            *pushed = true;
        }
    }

    /// A large state takes a while: it happens beside the threads that serve.
    async fn take_up(&self, push: Push) -> anyhow::Result<FromGateway> {
        let (current, held) = (self.current.clone(), self.held.clone());
        let take_up = move || {
            // Of a panic in the middle only the disk knows more than the lock: it is read at the next start.
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            held.take_up(push, &current)
        };
        let (revision, taken_up) =
            tokio::task::spawn_blocking(take_up).await.context("failed to take up a push")?;
        Ok(match taken_up {
            Ok(()) => {
                self.metrics.snapshot_taken_up(revision);
                debug!(revision, "snapshot taken up");
                FromGateway::Applied { revision }
            }
            Err(error) => {
                self.metrics.snapshot_refused();
                let problem = format!("{error:#}");
                error!(revision, error = problem, "push refused");
                FromGateway::Refused { revision, problem }
            }
        })
    }
}

/// Served all the same where the disk fails: what was revoked is refused, if only until a restart.
const NOT_KEPT: &str = "failed to keep it";

enum Push {
    Delta(Box<Delta>),
    Whole(String),
}

impl Held {
    fn revision(&self) -> Option<u64> {
        self.document.as_ref().map(|document| document.revision)
    }

    /// Which revision was pushed, and whether requests are served from it and a restart finds it.
    fn take_up(&mut self, push: Push, current: &Current) -> (u64, anyhow::Result<()>) {
        match push {
            Push::Whole(text) => match Document::parse(text.as_bytes()) {
                Ok(document) => (document.revision, self.replace(document, None, current)),
                Err(error) => (0, Err(error.into())),
            },
            Push::Delta(delta) => (delta.revision, self.change(&delta, current)),
        }
    }

    fn change(&mut self, delta: &Delta, current: &Current) -> anyhow::Result<()> {
        let document = self.document.as_mut().context("there is nothing that a delta could change")?;
        if document.revision == delta.from && current.take_up_tokens(delta, SystemTime::now())? {
            document.apply(delta.clone())?;
            return self.saved.append(delta, document).context(NOT_KEPT);
        }
        let mut document = document.clone();
        document.apply(delta.clone())?;
        self.replace(document, Some(delta), current)
    }

    fn replace(
        &mut self,
        document: Document,
        delta: Option<&Delta>,
        current: &Current,
    ) -> anyhow::Result<()> {
        current.take_up(Snapshot::try_from(document.clone())?, SystemTime::now())?;
        let document = self.document.insert(document);
        match delta {
            Some(delta) => self.saved.append(delta, document),
            None => self.saved.keep(document),
        }
        .context(NOT_KEPT)
    }
}

/// What cannot be told is told by the next call.
async fn tell_uses(following: &Following, uses: &Uses) -> anyhow::Result<()> {
    loop {
        let tokens = uses.take(USES_MAX);
        if tokens.is_empty() {
            return Ok(());
        }
        if let Err(error) = following.answer(FromGateway::Used { tokens: tokens.clone() }).await {
            uses.put_back(tokens);
            return Err(error.into());
        }
    }
}

#[cfg(test)]
mod tests;
