//! The gateway's end of tunnels: accepts agents, bounded and timed until they have said hello.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use quinn::{Endpoint, TokioRuntime};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::budget::Ledger;
use crate::close::CloseReason;
use crate::control::{self, Control};
use crate::hello::InstanceId;
use crate::limits::{
    CLOSE_LINGER, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_RETRY_ABOVE, Limits, SESSIONS_WAITING_MAX,
};
use crate::peer::{PeerId, Usage};
use crate::session::{End, Session, SessionId};
use crate::socket::{self, BindError};
use crate::tls::{Tls, TlsError};
use crate::transport;

pub struct Listener {
    shared: Arc<Shared>,
    sessions: Mutex<mpsc::Receiver<Session>>,
    tasks: TaskTracker,
    cancelled: CancellationToken,
}

struct Shared {
    endpoint: Endpoint,
    ledger: Arc<Ledger>,
    instance: InstanceId,
    /// Handshakes that have begun and neither succeeded nor failed.
    handshakes: AtomicUsize,
    waiting: mpsc::Sender<Session>,
    /// Every session that is up, for a drain.
    up: DashMap<SessionId, Session>,
    /// Held while the endpoint's certificate changes: a drain takes it away for good.
    draining: std::sync::Mutex<bool>,
}

impl Listener {
    /// Binds and begins to accept. Must be called within a Tokio runtime, which drives the endpoint.
    pub fn bind(address: SocketAddr, tls: &Tls, limits: Limits) -> Result<Self, BindError> {
        let config = transport::listener(tls)?;
        let socket = socket::bind(address)?;
        let endpoint =
            Endpoint::new(transport::listening_endpoint(tls), Some(config), socket, Arc::new(TokioRuntime))?;
        let (waiting, sessions) = mpsc::channel(SESSIONS_WAITING_MAX);
        let shared = Arc::new(Shared {
            endpoint,
            ledger: Ledger::new(limits),
            instance: InstanceId::random(),
            handshakes: AtomicUsize::new(0),
            waiting,
            up: DashMap::new(),
            draining: std::sync::Mutex::new(false),
        });
        let (tasks, cancelled) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(run(shared.clone(), tasks.clone(), cancelled.clone()));
        tasks.spawn(shared.ledger.clone().run(cancelled.clone()));
        Ok(Self { shared, sessions: Mutex::new(sessions), tasks, cancelled })
    }

    /// The next session whose peer is authenticated and has said hello; none after a close.
    pub async fn accept(&self) -> Option<Session> {
        self.sessions.lock().await.recv().await
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Shows another certificate from the next handshake on; sessions that are up stay.
    pub fn renew(&self, tls: &Tls) -> Result<(), TlsError> {
        let config = transport::listener(tls)?;
        let draining = self.shared.draining.lock().unwrap_or_else(PoisonError::into_inner);
        if !*draining {
            self.shared.endpoint.set_server_config(Some(config));
        }
        Ok(())
    }

    /// Takes no further agents and asks those that are here to go elsewhere; their open streams go on.
    pub fn goaway(&self, pace: Option<Duration>) {
        *self.shared.draining.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.endpoint.set_server_config(None);
        for session in &self.shared.up {
            session.goaway(pace);
        }
    }

    /// Closes every session and lets the last packets leave.
    pub async fn close(&self) {
        self.cancelled.cancel();
        for session in &self.shared.up {
            session.close(CloseReason::Shutdown);
        }
        self.shared.endpoint.close(CloseReason::Shutdown.code(), b"");
        self.tasks.close();
        let ended = async { (self.shared.endpoint.wait_idle().await, self.tasks.wait().await) };
        if timeout(CLOSE_LINGER, ended).await.is_err() {
            debug!("tunnels cut off: they did not end in time");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}

async fn run(shared: Arc<Shared>, tasks: TaskTracker, cancelled: CancellationToken) {
    while let Some(Some(incoming)) = cancelled.run_until_cancelled(shared.endpoint.accept()).await {
        let handshakes = shared.handshakes.load(Ordering::Relaxed);
        if handshakes >= HANDSHAKES_MAX {
            incoming.refuse();
        } else if handshakes >= HANDSHAKES_RETRY_ABOVE && incoming.may_retry() {
            // Fails only where a retry is not allowed, which was just asked.
            _ = incoming.retry();
        } else {
            shared.handshakes.fetch_add(1, Ordering::Relaxed);
            let shared = shared.clone();
            tasks.spawn(async move {
                let met = timeout(HANDSHAKE_TIMEOUT, meet(&shared, incoming)).await;
                shared.handshakes.fetch_sub(1, Ordering::Relaxed);
                match met {
                    Ok(Some((session, control))) => keep(&shared, session, control).await,
                    Ok(None) => {}
                    Err(_) => debug!("handshake gave up: it took too long"),
                }
            });
        }
    }
}

async fn meet(shared: &Shared, incoming: quinn::Incoming) -> Option<(Session, Control)> {
    let remote = incoming.remote_address();
    let connection = match incoming.accept() {
        Ok(connecting) => connecting.await,
        Err(error) => Err(error),
    };
    let connection = connection.inspect_err(|error| debug!(%remote, %error, "handshake failed")).ok()?;
    let refuse = |reason: CloseReason| connection.close(reason.code(), reason.to_string().as_bytes());
    let peer = match PeerId::of(&connection, Usage::Dialer) {
        Ok(peer) => peer,
        Err(error) => {
            debug!(%remote, %error, "session refused");
            refuse(CloseReason::IdentityInvalid);
            return None;
        }
    };
    match control::greet(&connection, End::Listener, shared.instance).await {
        Ok((control, hello)) => {
            let ledger = shared.ledger.clone();
            Some((Session::new(connection, End::Listener, peer, hello, ledger), control))
        }
        Err(reason) => {
            debug!(%remote, %peer, %reason, "hello failed");
            refuse(reason);
            None
        }
    }
}

/// Hands a session to the caller and serves its control stream until it ends.
async fn keep(shared: &Shared, session: Session, control: Control) {
    shared.up.insert(session.id(), session.clone());
    if shared.waiting.try_send(session.clone()).is_err() {
        session.close(CloseReason::Overloaded);
    }
    tokio::select! {
        () = control.run(session.inner().clone()) => {}
        _reason = session.closed() => {}
    }
    shared.up.remove(&session.id());
}
