//! Accepts gateways and what they relay: TLS, a certificate where the peer has one, HTTP/2 or HTTP/1.1.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Extension, FromRequestParts};
use axum::http::request::Parts;
use drover_api::kinds::{Holder, Process};
use drover_api::rest;
use drover_enrol::holder_of;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Authority;

/// Connections at once: gateways keep theirs.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a connection that says nothing is asked whether it still is one, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(10);
const H2_STREAMS_MAX: u32 = 256;
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// How long to rest when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is at the other end, by its certificate; none has shown none.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub Option<Holder>);

/// Where a request came from, as the gateway says that passed it on; none came past the gateways.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let by_gateway =
            matches!(parts.extensions.get(), Some(Peer(Some(Holder { process: Process::Gateway(_), .. }))));
        let said = parts.headers.get(rest::CLIENT).filter(|_| by_gateway);
        Ok(Self(said.and_then(|address| address.to_str().ok()?.parse().ok())))
    }
}

pub(crate) struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener {
    pub(crate) async fn bind(address: SocketAddr, tls: ServerConfig) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(address).await;
        let tcp = tcp.with_context(|| format!("failed to listen on {address}"))?;
        Ok(Self { tcp, tls: TlsAcceptor::from(Arc::new(tls)) })
    }

    pub(crate) fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts until cancelled; connections are told to end then.
    pub(crate) async fn serve(self, router: Router, connections: TaskTracker, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.ok();
                (place, self.tcp.accept().await)
            };
            let Some((place, accepted)) = stop.run_until_cancelled(accepted).await else { return };
            let Ok((tcp, peer)) = accepted else {
                warn!("failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (tls, router, stop) = (self.tls.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                if let Err(error) = connection(tcp, tls, router, stop).await {
                    debug!(%peer, error = format!("{error:#}"), "connection ended");
                }
                drop(place);
            });
        }
    }
}

/// Who has no certificate is let in: what it may do then is up to what it asks for.
pub(crate) fn tls(authority: &Authority, now: std::time::SystemTime) -> anyhow::Result<ServerConfig> {
    let (certificate, key) = authority.control(now)?;
    let verifier = WebPkiClientVerifier::builder(authority.roots()?).allow_unauthenticated().build()?;
    let mut config = ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(
        vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
        PrivateKeyDer::from_pem_slice(key.as_bytes())?,
    )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed connection would outlive the certificate that began it.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

async fn connection(
    tcp: TcpStream,
    tls: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let stream =
        timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)).await.context("the handshake took too long")??;
    let service = TowerToHyperService::new(router.layer(Extension(peer(&stream))));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = served.as_mut() => return ended.map_err(anyhow::Error::from_boxed),
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    served.await.map_err(anyhow::Error::from_boxed)
}

fn peer(stream: &TlsStream<TcpStream>) -> Peer {
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.and_then(<[_]>::first).and_then(|der| X509Certificate::from_der(der).ok());
    Peer(certificate.and_then(|(_, certificate)| holder_of(&certificate)))
}
