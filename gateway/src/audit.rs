//! The audit trail: one JSON line for every end of a request, written beside the request path.
//!
//! The queue is bounded. A change or an upgrade reserves its place before it is sent anywhere, and is
//! refused when there is none; a read's record is dropped and counted instead. A disk that fails is
//! tried again with the same line, so that the queue fills and changes stop, rather than go unrecorded.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tracing::error;

use crate::metrics::Metrics;

mod event;

pub(crate) use event::{Record, Stage, Who};

/// Records that wait for the disk: a second of a busy gateway, about 60 MiB.
const QUEUE_RECORDS_MAX: usize = 65_536;
/// Records written together.
const BATCH_RECORDS_MAX: usize = 512;
/// How long the end of what has gone on for long waits for room in the queue.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a failed write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where requests leave their records.
#[derive(Clone)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Record>,
    metrics: Arc<Metrics>,
}

/// A place in the queue, kept for a request whose end must be recorded.
pub(crate) struct Slot(mpsc::OwnedPermit<Record>);

#[derive(Debug)]
pub(crate) struct QueueFull;

/// Takes records to the file. Ends when the last [`Audit`] is gone and everything is written.
pub(crate) struct Writer {
    queue: mpsc::Receiver<Record>,
    file: File,
    metrics: Arc<Metrics>,
}

/// Opens the trail. The file is for its owner's eyes only.
pub(crate) async fn open(path: &Path, metrics: Arc<Metrics>) -> anyhow::Result<(Audit, Writer)> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    let file = options
        .open(path)
        .await
        .with_context(|| format!("failed to open the audit log {}", path.display()))?;
    let (sender, queue) = mpsc::channel(QUEUE_RECORDS_MAX);
    Ok((Audit { queue: sender, metrics: metrics.clone() }, Writer { queue, file, metrics }))
}

impl Audit {
    pub(crate) fn reserve(&self) -> Result<Slot, QueueFull> {
        self.queue.clone().try_reserve_owned().map(Slot).map_err(|_| QueueFull)
    }

    /// Records the end of what has gone on for long, once there is room for it.
    pub(crate) async fn wait(&self, record: Record) {
        match tokio::time::timeout(ROOM_TIMEOUT, self.queue.send(record)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => self.metrics.audit_dropped(),
        }
    }

    /// Records what may be dropped when the queue is full.
    pub(crate) fn offer(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.metrics.audit_dropped();
        }
    }
}

impl Slot {
    pub(crate) fn record(self, record: Record) {
        self.0.send(record);
    }
}

impl Writer {
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
        while self.queue.recv_many(&mut batch, BATCH_RECORDS_MAX).await > 0 {
            let mut lines = Vec::with_capacity(batch.len() * 1024);
            for record in batch.drain(..) {
                serde_json::to_writer(&mut lines, &record.event()).expect("an event is plain data");
                lines.push(b'\n');
            }
            self.write(&lines).await;
        }
    }

    /// Writes all of it, however long that takes. A part of a line may stand twice after a failure.
    async fn write(&mut self, lines: &[u8]) {
        while let Err(failure) = self.try_write(lines).await {
            self.metrics.audit_failed();
            error!(error = %failure, "failed to write the audit log: trying again");
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    async fn try_write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        self.file.write_all(lines).await?;
        self.file.flush().await
    }
}
