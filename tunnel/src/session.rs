//! A session: one QUIC connection between a gateway and an agent, after both have said hello.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use quinn::{Connection, ConnectionError};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use crate::budget::{Ledger, Owner};
use crate::close::CloseReason;
use crate::codec::{Goaway, GoawayReason, Hello, StreamHeader};
use crate::hello::{InstanceId, clock_ms};
use crate::incoming::Incoming;
use crate::limits::CLOCK_SKEW_MAX_MS;
use crate::peer::{PeerId, certificate_ends_at};
use crate::stream::{Ends, Stream};

/// Which session of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the session is closed")]
    Closed,
    #[error("the session is draining")]
    Draining,
    #[error("the stream's header is too large")]
    HeaderTooLarge,
    #[error("the session has too many streams")]
    Overloaded,
}

/// Which end of the connection this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Dialer,
    Listener,
}

#[derive(Clone)]
pub struct Session(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) connection: Connection,
    pub(crate) end: End,
    id: SessionId,
    peer: PeerId,
    hello: Hello,
    ledger: Arc<Ledger>,
    in_flight: AtomicUsize,
    /// Told when the first stream begins and when the last one ends.
    pub(crate) busy_changed: Notify,
    /// Told when there is reason to doubt that the peer is still there.
    pub(crate) doubted: Notify,
    /// What the peer said when it wanted this side to go.
    pub(crate) peer_goaway: watch::Sender<Option<Goaway>>,
    /// Set where this side wants the peer to go.
    pub(crate) goaway: watch::Sender<Option<Goaway>>,
    /// The reason of this side, where it closed.
    closed_as: OnceLock<CloseReason>,
}

/// A stream of a session, until it is dropped.
pub(crate) struct InFlight(Arc<Inner>);

impl Session {
    pub(crate) fn new(
        connection: Connection,
        end: End,
        peer: PeerId,
        hello: Hello,
        ledger: Arc<Ledger>,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(IDS.fetch_add(1, Ordering::Relaxed));
        if let Some(skew_ms) = hello.clock_ms.map(|theirs| theirs.abs_diff(clock_ms()))
            && skew_ms > CLOCK_SKEW_MAX_MS
        {
            warn!(%peer, session = %id, skew_ms, "the peer's clock differs: identities will expire early or late");
        }
        Self(Arc::new(Inner {
            connection,
            end,
            id,
            peer,
            hello,
            ledger,
            in_flight: AtomicUsize::new(0),
            busy_changed: Notify::new(),
            doubted: Notify::new(),
            peer_goaway: watch::Sender::new(None),
            goaway: watch::Sender::new(None),
            closed_as: OnceLock::new(),
        }))
    }

    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Who the peer is by its certificate.
    pub fn peer(&self) -> &PeerId {
        &self.0.peer
    }

    /// When the certificate ends that the peer showed: who it is counts no longer then.
    pub fn certificate_ends_at(&self) -> Option<SystemTime> {
        certificate_ends_at(&self.0.connection)
    }

    /// Which process the peer is, by its own word.
    pub fn instance(&self) -> InstanceId {
        self.0.hello.instance
    }

    /// Streams on it now.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Whether either side wants no more streams on it, or it is closed.
    pub fn is_draining(&self) -> bool {
        self.0.is_going() || self.0.connection.close_reason().is_some()
    }

    /// Opens a stream: no round trip, no wait.
    pub fn open(&self, header: &StreamHeader, owner: Owner) -> Result<Stream, OpenError> {
        if self.0.connection.close_reason().is_some() {
            return Err(OpenError::Closed);
        }
        if self.0.is_going() {
            return Err(OpenError::Draining);
        }
        let header = header.encode().map_err(|_| OpenError::HeaderTooLarge)?;
        let opened = pin!(self.0.connection.open_bi()).poll(&mut Context::from_waker(Waker::noop()));
        match opened {
            Poll::Ready(Ok((send, recv))) => {
                let ends = Ends { send, recv, in_flight: self.begin(), ledger: self.0.ledger.clone() };
                Ok(Stream::opened(ends, BytesMut::from(header), owner))
            }
            Poll::Ready(Err(_)) => Err(OpenError::Closed),
            Poll::Pending => Err(OpenError::Overloaded),
        }
    }

    /// The next stream of the peer; none when the session ends.
    pub async fn accept(&self) -> Option<Incoming> {
        let (send, recv) = self.0.connection.accept_bi().await.ok()?;
        Some(Incoming::new(send, recv, self.begin(), self.0.ledger.clone()))
    }

    /// Asks the peer whether it is still there, and closes the session as lost where nothing is heard of it
    /// within a second: for when its successor has come, or something else speaks against it.
    pub fn probe(&self) {
        self.0.doubted.notify_one();
    }

    /// Tells the peer that this process ends: no more streams here, and how long to wait, on average, before dialling again.
    pub fn goaway(&self, pace: Option<Duration>) {
        self.0.goaway.send_replace(Some(Goaway { reason: GoawayReason::Shutdown, pace }));
    }

    /// Resolves when the peer wants this side to go, with the time to wait, on average, before dialling it again.
    pub async fn draining(&self) -> Option<Duration> {
        let mut said = self.0.peer_goaway.subscribe();
        loop {
            if let Some(goaway) = *said.borrow_and_update() {
                return goaway.pace;
            }
            if said.changed().await.is_err() {
                return std::future::pending().await; // the sender lives as long as the session
            }
        }
    }

    /// Closes at once: streams on it fail.
    pub fn close(&self, reason: CloseReason) {
        self.0.close(reason);
    }

    /// Why the session ended, once it has.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.close_reason()
    }

    pub async fn closed(&self) -> CloseReason {
        let error = self.0.connection.closed().await;
        self.0.reason(&error)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    fn begin(&self) -> InFlight {
        if self.0.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.busy_changed.notify_one();
        }
        InFlight(self.0.clone())
    }
}

impl Inner {
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Whether either side said GOAWAY.
    pub(crate) fn is_going(&self) -> bool {
        self.peer_goaway.borrow().is_some() || self.goaway.borrow().is_some()
    }

    pub(crate) fn close(&self, reason: CloseReason) {
        // Where the peer was first, its word stands: what ends here ends because of it.
        if self.connection.close_reason().is_some() {
            return;
        }
        if self.closed_as.set(reason).is_ok() {
            debug!(session = %self.id, %reason, "session closed by this side");
        }
        self.connection.close(reason.code(), reason.to_string().as_bytes());
    }

    fn close_reason(&self) -> Option<CloseReason> {
        self.connection.close_reason().map(|error| self.reason(&error))
    }

    fn reason(&self, error: &ConnectionError) -> CloseReason {
        self.closed_as.get().copied().unwrap_or_else(|| CloseReason::from_error(error))
    }
}

impl InFlight {
    /// Why the session ended, once it has.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        self.0.close_reason()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.busy_changed.notify_one();
        }
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InFlight({})", self.0.id)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.0.id).field("peer", &self.0.peer).finish_non_exhaustive()
    }
}
