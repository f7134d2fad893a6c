//! The snapshot in use, and the file that it comes from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwapOption;
use drover_api::snapshot::delta::Delta;
use drover_api::snapshot::{CLOCK_SKEW_MAX, DOCUMENT_BYTES_MAX, Snapshot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::tables::Tables;

const FROM_THE_FUTURE: &str = "it was issued in the future: check the clocks";
/// How often the file is looked at: a change is served within a second.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The revision in use; none before the first good one.
#[derive(Debug)]
pub(crate) struct Current {
    tables: ArcSwapOption<Tables>,
    changes: watch::Sender<u64>,
}

impl Current {
    pub(crate) fn new() -> Self {
        Self { tables: ArcSwapOption::empty(), changes: watch::Sender::new(0) }
    }

    pub(crate) fn tables(&self) -> Option<Arc<Tables>> {
        self.tables.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether requests can be served at `now`.
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        self.tables().is_some_and(|tables| now < tables.stale_at)
    }

    /// Takes up a snapshot whole, or leaves everything as it was.
    pub(crate) fn take_up(&self, snapshot: Snapshot, now: SystemTime) -> anyhow::Result<u64> {
        let revision = snapshot.revision;
        if snapshot.issued_at > now + CLOCK_SKEW_MAX {
            bail!(FROM_THE_FUTURE);
        }
        let tables = match self.tables() {
            Some(before) if revision < before.revision => {
                bail!("revision {revision} is older than {}, which is in use", before.revision)
            }
            Some(before) => before.next(snapshot),
            None => Tables::first(snapshot),
        };
        self.serve(tables.context("the rules are not sound")?);
        Ok(revision)
    }

    /// Takes up a delta where it changes nothing but tokens; whether it did.
    pub(crate) fn take_up_tokens(&self, delta: &Delta, now: SystemTime) -> anyhow::Result<bool> {
        if SystemTime::from(delta.issued_at) > now + CLOCK_SKEW_MAX {
            bail!(FROM_THE_FUTURE);
        }
        let Some(before) = self.tables() else { return Ok(false) };
        let next = before.with_tokens_of(delta)?;
        Ok(next.map(|next| self.serve(next)).is_some())
    }

    fn serve(&self, tables: Tables) {
        let revision = tables.revision;
        self.tables.store(Some(Arc::new(tables)));
        self.changes.send_replace(revision);
    }
}

/// What of a file shows that it changed; none where it cannot be seen.
type Stamp = Option<(SystemTime, u64)>;

/// The file that control's pushes are replaced by where there is no control.
pub(crate) struct File {
    path: PathBuf,
    /// None before the first look.
    seen: Option<Stamp>,
}

impl File {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: None }
    }

    /// Follows the file until cancelled. A version that cannot be used is reported once, and the last good one stays.
    pub(crate) async fn follow(
        mut self,
        current: Arc<Current>,
        metrics: Arc<Metrics>,
        cancelled: CancellationToken,
    ) {
        loop {
            self.look(&current, &metrics).await;
            if cancelled.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    pub(crate) async fn look(&mut self, current: &Arc<Current>, metrics: &Metrics) {
        let stamp = stamp(&self.path).await;
        if self.seen.replace(stamp) == Some(stamp) {
            return;
        }
        match self.take_up(current.clone()).await {
            Ok(revision) => {
                metrics.snapshot_taken_up(revision);
                info!(revision, file = %self.path.display(), "snapshot taken up");
            }
            Err(error) => {
                metrics.snapshot_refused();
                error!(file = %self.path.display(), error = format!("{error:#}"), "snapshot refused: the last good one stays");
            }
        }
    }

    /// Parsing a large snapshot takes a while: it happens beside the threads that serve.
    async fn take_up(&self, current: Arc<Current>) -> anyhow::Result<u64> {
        let path = self.path.clone();
        let parse = move || {
            let size = std::fs::metadata(&path).context("failed to look at the file")?.len();
            if size > DOCUMENT_BYTES_MAX as u64 {
                bail!("the file has {size} bytes, more than {DOCUMENT_BYTES_MAX}");
            }
            let bytes = std::fs::read(&path).context("failed to read the file")?;
            current.take_up(Snapshot::parse(&bytes)?, SystemTime::now())
        };
        tokio::task::spawn_blocking(parse).await.context("failed to parse the file")?
    }
}

async fn stamp(path: &Path) -> Stamp {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
