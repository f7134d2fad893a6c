//! The API server: connections to it that are kept for the next request, and the agent's credential.
//!
//! HTTP/1.1, one request at a time on each connection: an HTTP/2 connection stalls at the server's 100
//! streams, and whoever waits behind 100 watches waits for hours.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use drover_daemon::keepalive;
use http::HeaderValue;
use http_body_util::{Either, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::credentials::Credentials;

pub(crate) mod credentials;
pub(crate) mod readiness;

/// TCP and TLS together; the API server is in the same cluster, most often on the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections kept: what a burst needs again a moment later.
const IDLE_MAX: usize = 256;
/// Below the 90 s after which API servers close idle connections, so that none closes under a request.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to come to rest after its response has been sent on.
const REST_TIMEOUT: Duration = Duration::from_millis(100);
/// Header fields of a response; the API server relays those of services, hyper's default is 100.
const RESPONSE_HEADERS_MAX: usize = 256;

/// Where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

pub(crate) struct Upstream {
    address: Address,
    credentials: Arc<Credentials>,
    idle: Mutex<Vec<(Connection, Instant)>>,
    /// Owns the task that drives each connection.
    tasks: TaskTracker,
}

/// A connection that serves one request at a time.
pub(crate) type Connection = SendRequest<Either<Incoming, Empty<Bytes>>>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("failed to reach the API server: {0}")]
    Io(#[from] std::io::Error),
    #[error("failed to begin HTTP with the API server: {0}")]
    Http(#[from] hyper::Error),
    #[error("the API server did not answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
}

impl Upstream {
    pub(crate) fn new(address: Address, credentials: Arc<Credentials>, tasks: TaskTracker) -> Self {
        Self { address, credentials, idle: Mutex::new(Vec::new()), tasks }
    }

    /// A connection at rest, or a new one.
    pub(crate) async fn connection(&self) -> Result<Connection, ConnectError> {
        match self.rested() {
            Some(connection) => Ok(connection),
            None => self.connect().await,
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        timeout(CONNECT_TIMEOUT, self.handshake()).await.map_err(|_| ConnectError::Timeout)?
    }

    /// Keeps a connection for the next request, once it has come to rest.
    pub(crate) async fn keep(&self, mut connection: Connection) {
        if !matches!(timeout(REST_TIMEOUT, connection.ready()).await, Ok(Ok(()))) {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((connection, Instant::now()));
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What the agent shows the API server of itself.
    pub(crate) fn credential(&self) -> HeaderValue {
        self.credentials.bearer()
    }

    /// The connection used last: the others come of age and are dropped.
    fn rested(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((connection, since)) = idle.pop() {
            if since.elapsed() > IDLE_AGE_MAX {
                idle.clear();
                return None;
            }
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    pub(crate) async fn handshake<B>(&self) -> Result<SendRequest<B>, ConnectError>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let tcp = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        keepalive::tend(&tcp)?;
        let (connector, name) = self.credentials.tls(&self.address.host)?;
        let tls = connector.connect(name, tcp).await?;
        let (sender, driver) = http1::Builder::new()
            .max_headers(RESPONSE_HEADERS_MAX)
            .handshake::<_, B>(TokioIo::new(tls))
            .await?;
        self.tasks.spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                debug!(%error, "connection to the API server ended");
            }
        });
        Ok(sender)
    }
}
