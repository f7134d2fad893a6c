//! The agent's end of tunnels: dials gateways.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use quinn::{ClientConfig, ConnectError, ConnectionError, Endpoint, EndpointConfig, TokioRuntime};
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::budget::Ledger;
use crate::close::CloseReason;
use crate::control;
use crate::hello::InstanceId;
use crate::limits::{CLOSE_LINGER, HANDSHAKE_TIMEOUT, Limits};
use crate::peer::{PeerId, PeerRefused, Usage};
use crate::session::{End, Session};
use crate::socket::{self, BindError};
use crate::tls::{Tls, TlsError};
use crate::transport;

/// Why a gateway could not be dialled.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("failed to begin")]
    Begin(#[from] ConnectError),
    #[error("the handshake failed: {0}")]
    Handshake(#[from] ConnectionError),
    #[error("the hello failed: {0}")]
    Hello(CloseReason),
    #[error("the gateway's certificate was refused: {0}")]
    Peer(#[from] PeerRefused),
    #[error("no answer within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

/// Dials with one certificate, as one process instance.
pub struct Dialer {
    endpoint: Endpoint,
    shown: RwLock<Shown>,
    limits: Limits,
    ledger: Arc<Ledger>,
    tasks: TaskTracker,
    cancelled: CancellationToken,
}

/// What gateways see of this process from the next dial on.
#[derive(Clone)]
struct Shown {
    config: ClientConfig,
    instance: InstanceId,
}

impl Dialer {
    /// Must be called within a Tokio runtime, which drives the connections.
    pub fn new(tls: &Tls, limits: Limits) -> Result<Self, BindError> {
        let config = transport::dialer(tls, &limits)?;
        let socket = socket::bind_any()?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        let shown = RwLock::new(Shown { config, instance: InstanceId::random() });
        let (ledger, tasks, cancelled) = (Ledger::new(limits), TaskTracker::new(), CancellationToken::new());
        tasks.spawn(ledger.clone().run(cancelled.clone()));
        Ok(Self { endpoint, shown, limits, ledger, tasks, cancelled })
    }

    /// Shows another certificate from the next dial on, as another instance: a gateway replaces the sessions of
    /// the same one, and those that are up here are to stay until their streams have ended.
    pub fn renew(&self, tls: &Tls) -> Result<(), TlsError> {
        let config = transport::dialer(tls, &self.limits)?;
        let shown = Shown { config, instance: InstanceId::random() };
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// Opens a session with the gateway at `address`, whose certificate must be for `server_name`.
    pub async fn dial(&self, address: SocketAddr, server_name: &str) -> Result<Session, DialError> {
        timeout(HANDSHAKE_TIMEOUT, self.meet(address, server_name)).await.map_err(|_| DialError::Timeout)?
    }

    async fn meet(&self, address: SocketAddr, server_name: &str) -> Result<Session, DialError> {
        let Shown { config, instance } = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
        let connecting = self.endpoint.connect_with(config, self.reachable(address), server_name)?;
        let connection = connecting.await?;
        let refuse = |reason: CloseReason| connection.close(reason.code(), reason.to_string().as_bytes());
        let peer =
            PeerId::of(&connection, Usage::Listener).inspect_err(|_| refuse(CloseReason::IdentityInvalid))?;
        let greeted = control::greet(&connection, End::Dialer, instance).await;
        let (control, hello) = greeted.inspect_err(|reason| refuse(*reason)).map_err(DialError::Hello)?;
        let session = Session::new(connection, End::Dialer, peer, hello, self.ledger.clone());
        self.tasks.spawn(control.run(session.inner().clone()));
        Ok(session)
    }

    /// A socket of both families reaches IPv4 by mapped addresses.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        let own_is_v6 = self.endpoint.local_addr().is_ok_and(|own: SocketAddr| own.is_ipv6());
        match address {
            SocketAddr::V4(v4) if own_is_v6 => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => address,
        }
    }

    /// The address that gateways see, before any translation on the way.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Closes every session and lets the last packets leave.
    pub async fn close(&self) {
        self.cancelled.cancel();
        self.endpoint.close(CloseReason::Shutdown.code(), b"");
        self.tasks.close();
        let ended = async { (self.endpoint.wait_idle().await, self.tasks.wait().await) };
        if timeout(CLOSE_LINGER, ended).await.is_err() {
            debug!("tunnels cut off: they did not end in time");
        }
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}
