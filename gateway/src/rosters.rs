//! Brings agents the rosters that control signed for them: a gateway can withhold one, and cannot make one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use drover_api::roster::SignedRoster;
use drover_policy::ClusterId;
use drover_tunnel::{Owner, Session, StreamHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::snapshot::Current;

/// How long an agent may take to take a roster in.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait after a delivery that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// One session's agent, and the roster that it was brought last.
pub(crate) struct Courier {
    session: Session,
    cluster: ClusterId,
    delivered: Option<Arc<SignedRoster>>,
}

impl Courier {
    pub(crate) fn new(session: Session, cluster: ClusterId) -> Self {
        Self { session, cluster, delivered: None }
    }

    /// Brings each new roster, for as long as there are any; whoever holds the session drops this with it.
    pub(crate) async fn run(mut self, current: &Current) {
        let mut changes = current.changes();
        loop {
            let wait = if self.deliver(current).await { Duration::MAX } else { RETRY_INTERVAL };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Brings the roster of this moment, where the agent has not had it. False where that is to be tried again.
    pub(crate) async fn deliver(&mut self, current: &Current) -> bool {
        let roster = current.tables().and_then(|tables| tables.roster(&self.cluster).cloned());
        let Some(roster) = roster else { return true };
        if self.delivered.as_ref().is_some_and(|delivered| Arc::ptr_eq(delivered, &roster)) {
            return true;
        }
        let (cluster, revision) = (&self.cluster, roster.revision);
        match tokio::time::timeout(DELIVERY_TIMEOUT, self.send(&roster)).await {
            Ok(Ok(held)) if held < revision => {
                warn!(%cluster, revision, held, "the agent did not take the roster: its log says why");
            }
            Ok(Ok(held)) => debug!(%cluster, revision, held, "roster delivered"),
            Ok(Err(error)) => {
                debug!(%cluster, error = format!("{error:#}"), "roster not delivered");
                return false;
            }
            Err(_) => {
                warn!(%cluster, revision, "the agent did not take the roster in time");
                return false;
            }
        }
        self.delivered = Some(roster);
        true
    }

    /// The revision that the agent holds then.
    async fn send(&self, roster: &SignedRoster) -> anyhow::Result<u64> {
        let header =
            StreamHeader { audit_id: Uuid::new_v4().to_string(), roster: true, ..StreamHeader::default() };
        let bytes = serde_json::to_vec(roster)?;
        let mut stream = self.session.open(&header, Owner { user: 0, cluster: 0 })?;
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        stream.read_u64().await.context("the agent did not say what it holds")
    }
}
