//! The gateways that follow: each gets the next push once it has applied the last, and all know who has what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drover_api::kinds::Holder;
use drover_api::rest::GatewayStatus;
use drover_api::snapshot::FORMAT;
use drover_api::snapshot::delta::Delta;
use drover_api::sync::{CHUNK_BYTES, FromControl, FromGateway, MESSAGE_BYTES_MAX};
use drover_sync::{Gateway, Push, Status};
use jiff::Timestamp;
use metrics::Counter;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::{self as kept, Objects, ObjectsError};
use crate::snapshots::Snapshots;
use crate::store::{Revision, StoreError};
use crate::uses::Uses;

/// How long a gateway may take to say what it has.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a gateway may take to apply a push: a large state takes seconds.
const APPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after its call a gateway is expected to call again: it tries every few seconds.
const EXPECTED_BACK_WITHIN: Duration = Duration::from_secs(10);
/// How long a change waits for one that is gone: it may be on its way back, and all who change anything wait.
const GONE_AWAITED_FOR: Duration = Duration::from_secs(1);
/// How long a gateway that was ended may take to let go.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// How often gateways that can serve no more are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// Largest delta, in bytes: a message has something around it.
const DELTA_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;

/// Who follows, and the revision that each serves from.
pub struct Gateways {
    objects: Objects,
    uses: Arc<Uses>,
    applied: watch::Sender<BTreeMap<String, Applied>>,
    calls: AtomicU64,
    /// For how long a gateway that is gone may serve from what it has.
    max_staleness: Duration,
    stopping: CancellationToken,
    deltas: Counter,
    wholes: Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Applied {
    revision: Option<Revision>,
    /// A gateway that calls again replaces its entry; what remains of the former call leaves it.
    call: u64,
    /// Since when it follows no more. It may still serve, from what it has.
    gone: Option<Instant>,
}

impl Applied {
    fn is_gone_for(&self, time: Duration) -> bool {
        self.gone.is_some_and(|gone| gone.elapsed() >= time)
    }
}

impl Gateways {
    /// With those that followed before this start. Calls end once `stopping` is cancelled.
    pub(crate) async fn load(
        objects: Objects,
        uses: Arc<Uses>,
        max_staleness: Duration,
        stopping: CancellationToken,
    ) -> anyhow::Result<Self> {
        let gone = Some(Instant::now());
        let known = objects.list::<kept::Gateway>().await?.into_iter();
        let known = known.map(|known| (known.spec.name, Applied { revision: None, call: 0, gone })).collect();
        Ok(Self {
            objects,
            uses,
            applied: watch::Sender::new(known),
            calls: AtomicU64::new(0),
            max_staleness,
            stopping,
            deltas: metrics::counter!("control_pushes_total", "kind" => "delta"),
            wholes: metrics::counter!("control_pushes_total", "kind" => "whole"),
        })
    }

    /// Waits until all that follow serve from the revision; names those that may serve from an older one still.
    pub async fn wait_applied(&self, revision: Revision, deadline: Duration) -> Vec<String> {
        let is_late = |applied: &Applied| applied.revision.is_none_or(|has| has < revision);
        let mut receiver = self.applied.subscribe();
        // One that is gone is waited for only while it may be on its way back.
        let is_awaited = |applied: &Applied| !applied.is_gone_for(EXPECTED_BACK_WITHIN);
        let all_reached = async {
            drop(receiver.wait_for(|all| !all.values().any(|one| is_awaited(one) && is_late(one))).await);
        };
        // Past the deadline, who is late is named all the same.
        if timeout(GONE_AWAITED_FOR.min(deadline), all_reached).await.is_err() {
            let here = |applied: &Applied| applied.gone.is_none();
            let reached = receiver.wait_for(|all| !all.values().any(|one| here(one) && is_late(one)));
            drop(timeout(deadline.saturating_sub(GONE_AWAITED_FOR), reached).await);
        }
        let all = self.applied.borrow();
        let may_serve = |applied: &Applied| !applied.is_gone_for(self.max_staleness);
        let late = all.iter().filter(|(_, applied)| is_late(applied) && may_serve(applied));
        late.map(|(name, _)| name.clone()).collect()
    }

    /// Those that follow, or did and are not forgotten.
    pub fn list(&self) -> Vec<GatewayStatus> {
        let gone_s = |applied: &Applied| applied.gone.map(|gone| gone.elapsed().as_secs());
        let status = |(name, applied): (&String, &Applied)| GatewayStatus {
            name: name.clone(),
            revision: applied.revision,
            gone_s: gone_s(applied),
        };
        self.applied.borrow().iter().map(status).collect()
    }

    /// Forgets a gateway that was ended, once it follows no more. Whether it does.
    pub async fn forget_once_gone(&self, name: &str) -> Result<bool, ObjectsError> {
        let is_gone = |applied: &Applied| applied.gone.is_some();
        let mut receiver = self.applied.subscribe();
        let gone = receiver.wait_for(|all| all.get(name).is_none_or(is_gone));
        drop(timeout(ENDED_WITHIN, gone).await);
        if self.applied.borrow().get(name).is_some_and(is_gone) {
            self.forget_one(name, is_gone).await?;
        }
        Ok(!self.applied.borrow().contains_key(name))
    }

    /// Forgets, until cancelled, the gateways that are gone for so long that they serve no more.
    pub async fn forget(&self, cancelled: CancellationToken) {
        loop {
            let sleep = tokio::time::sleep(FORGET_INTERVAL.min(self.max_staleness));
            if cancelled.run_until_cancelled(sleep).await.is_none() {
                return;
            }
            let is_stale = |applied: &Applied| applied.is_gone_for(self.max_staleness);
            let stale: Vec<_> = {
                let all = self.applied.borrow();
                all.iter().filter(|(_, applied)| is_stale(applied)).map(|(name, _)| name.clone()).collect()
            };
            for name in stale {
                match self.forget_one(&name, is_stale).await {
                    Ok(()) => info!(gateway = %name, "gateway forgotten: it serves no more"),
                    Err(error) => warn!(gateway = %name, %error, "failed to forget a gateway"),
                }
            }
        }
    }

    async fn forget_one(&self, name: &str, is_stale: impl Fn(&Applied) -> bool) -> Result<(), ObjectsError> {
        if let Some(known) = self.objects.get::<kept::Gateway>(name).await? {
            self.objects.delete::<kept::Gateway>(name, known.object.metadata.revision).await?;
        }
        let forgotten = self.applied.send_if_modified(|all| {
            let stale = all.get(name).is_some_and(&is_stale);
            if stale {
                all.remove(name);
            }
            stale
        });
        // One that follows again meanwhile found itself kept still.
        if forgotten { Ok(()) } else { self.keep(name).await }
    }

    async fn keep(&self, name: &str) -> Result<(), ObjectsError> {
        match self.objects.create(&kept::Gateway { name: name.to_owned() }, None).await {
            Ok(_) | Err(ObjectsError::Store(StoreError::Conflict { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sees to one call until it ends.
    pub async fn push(
        self: Arc<Self>,
        name: String,
        holder: Holder,
        snapshots: Arc<Snapshots>,
        from: Gateway,
        to: Push,
    ) {
        // Before it serves from anything: a control that starts again has to know of it.
        if let Err(error) = self.keep(&name).await {
            warn!(gateway = %name, %error, "failed to keep that a gateway follows");
            return to.refuse(Status::unavailable("the store failed")).await;
        }
        let entry = Entry::new(self.clone(), name.clone());
        info!(gateway = %name, "gateway follows");
        let ended = Call { gateways: self, entry, holder, snapshots, from, to: &to }.run().await;
        info!(gateway = %name, reason = ended.message(), "gateway follows no more");
        to.refuse(ended).await;
    }
}

struct Call<'a> {
    gateways: Arc<Gateways>,
    entry: Entry,
    holder: Holder,
    snapshots: Arc<Snapshots>,
    from: Gateway,
    to: &'a Push,
}

impl Call<'_> {
    /// Why it ended.
    async fn run(mut self) -> Status {
        let Err(ended) = self.pushes().await;
        ended
    }

    async fn pushes(&mut self) -> Result<Infallible, Status> {
        let mut published = self.snapshots.published();
        let stopping = self.gateways.stopping.clone();
        let mut has = self.hello().await?;
        self.entry.applied(has);
        let mut told_at = None;
        loop {
            // A gateway that has the revision gets its renewal.
            published.mark_unchanged();
            has = Some(self.push(has, &mut told_at).await?);
            self.entry.applied(has);
            tokio::select! {
                changed = published.changed() => {
                    changed.map_err(|_| Status::unavailable("control stops"))?;
                    let enrolment = self.holder.enrolment.as_deref();
                    if !enrolment.is_some_and(|enrolment| self.snapshots.state().has_enrolment(enrolment)) {
                        return Err(Status::permission_denied("the gateway is not enrolled any more"));
                    }
                }
                said = self.said() => return Err(unexpected(said)),
                () = stopping.cancelled() => return Err(Status::unavailable("control stops")),
            }
        }
    }

    /// What a gateway says beside the tokens that were used, which it may say at any time.
    async fn said(&mut self) -> Option<Result<FromGateway, Status>> {
        loop {
            match self.from.next().await {
                Some(Ok(FromGateway::Used { tokens })) => self.gateways.uses.note(tokens, Timestamp::now()),
                said => return said,
            }
        }
    }

    async fn hello(&mut self) -> Result<Option<Revision>, Status> {
        let said = timeout(HELLO_TIMEOUT, self.from.next()).await;
        match said.map_err(|_| Status::deadline_exceeded("the gateway said no hello"))? {
            // What this control pushes needs no newer reader than the first.
            Some(Ok(FromGateway::Hello { format: 1.., revision })) => Ok(revision),
            said => Err(unexpected(said)),
        }
    }

    /// Brings the gateway to what is published, and says what it has then.
    async fn push(
        &mut self,
        has: Option<Revision>,
        told_at: &mut Option<Timestamp>,
    ) -> Result<Revision, Status> {
        let delta = has.and_then(|has| self.snapshots.delta(has, *told_at)).filter(is_sendable);
        if let Some(delta) = delta {
            let (revision, issued_at) = (delta.revision, delta.issued_at);
            self.gateways.deltas.increment(1);
            self.to.send(FromControl::Delta(Box::new(delta))).await?;
            if self.applied(revision).await? {
                *told_at = Some(issued_at);
                return Ok(revision);
            }
            warn!(revision, "the gateway refused a delta: it gets the whole state");
        }
        let issued_at = self.snapshots.published().borrow().issued_at;
        let (revision, text) = self.snapshots.whole().map_err(|error| Status::internal(error.to_string()))?;
        self.gateways.wholes.increment(1);
        let mut rest: &str = &text;
        while !rest.is_empty() {
            let chunk = rest.split_at(rest.floor_char_boundary(CHUNK_BYTES));
            rest = chunk.1;
            let chunk = FromControl::Chunk { text: chunk.0.to_owned(), last: rest.is_empty() };
            timeout(APPLY_TIMEOUT, self.to.send(chunk))
                .await
                .map_err(|_| Status::deadline_exceeded("the gateway reads too slowly"))??;
        }
        if self.applied(revision).await? {
            *told_at = Some(issued_at);
            return Ok(revision);
        }
        Err(Status::failed_precondition(format!("the gateway refuses revision {revision}")))
    }

    /// Whether the gateway serves from the revision that was pushed.
    async fn applied(&mut self, pushed: Revision) -> Result<bool, Status> {
        let said = timeout(APPLY_TIMEOUT, self.said()).await;
        match said.map_err(|_| Status::deadline_exceeded("the gateway applied nothing in time"))? {
            Some(Ok(FromGateway::Applied { revision })) if revision == pushed => Ok(true),
            Some(Ok(FromGateway::Refused { revision, problem })) if revision == pushed => {
                warn!(revision, problem, "push refused");
                Ok(false)
            }
            said => Err(unexpected(said)),
        }
    }
}

/// What would not fit into a message goes as the whole state, in chunks.
fn is_sendable(delta: &Delta) -> bool {
    serde_json::to_vec(delta).is_ok_and(|bytes| bytes.len() <= DELTA_BYTES_MAX)
}

fn unexpected(said: Option<Result<FromGateway, Status>>) -> Status {
    match said {
        None => Status::cancelled("the gateway ended the call"),
        Some(Err(status)) => status,
        Some(Ok(_)) => Status::invalid_argument(format!(
            "the gateway said what was not asked; control speaks format {FORMAT}"
        )),
    }
}

/// A call's place among those that follow; it leaves with the call.
struct Entry {
    gateways: Arc<Gateways>,
    name: String,
    call: u64,
}

impl Entry {
    fn new(gateways: Arc<Gateways>, name: String) -> Self {
        // Above the one of gateways that are known from before.
        let call = gateways.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Self { gateways, name, call };
        // What it had when it was last here, it has at least: its hello says more.
        let known = entry.gateways.applied.borrow().get(&entry.name).and_then(|known| known.revision);
        entry.applied(known);
        entry
    }

    fn applied(&self, revision: Option<Revision>) {
        let (name, call) = (self.name.clone(), self.call);
        self.gateways.applied.send_modify(|applied| {
            // A call that was replaced is silent from then on.
            if applied.get(&name).is_none_or(|known| known.call <= call) {
                applied.insert(name, Applied { revision, call, gone: None });
            }
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.gateways.applied.send_modify(|applied| {
            if let Some(known) = applied.get_mut(&self.name)
                && known.call == self.call
            {
                known.gone = Some(Instant::now());
            }
        });
    }
}

#[cfg(test)]
mod tests;
