//! Accepts clients: TCP, TLS, then HTTP/2 or HTTP/1.1 by ALPN.
//!
//! A client without ALPN speaks HTTP/1.1: kubectl's exec, attach, cp and port-forward do that.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use drover_daemon::keepalive;
use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::listeners::tls::Acceptor;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::socket::SocketAddr as L4Address;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::TlsStream;
use pingora::protocols::{ALPN, GetSocketDigest, SocketDigest, Ssl};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::ServerConf;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::refusal::Refusal;

pub(crate) mod certificates;
pub(crate) mod head;

use certificates::Certificates;
use head::Head;

/// Client connections at once: each takes up to 150 KiB.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer to an unreadable head may take to write.
const ANSWER_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to rest when the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection: client-go opens more than 100 watches on one.
const H2_STREAMS_MAX: u32 = 250;
/// Fields of one HTTP/2 request, in bytes as HPACK counts them: tokens with many groups must fit.
const H2_HEADER_LIST_BYTES_MAX: u32 = 160 << 10;
/// Upload window of one HTTP/2 stream, in bytes.
const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Upload window of one HTTP/2 connection, in bytes.
const H2_CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Idle time after which an HTTP/2 connection is closed.
const H2_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Idle time between HTTP/1.1 requests, in seconds; `head` enforces the same.
const KEEPALIVE_S: u64 = head::IDLE_TIMEOUT.as_secs();

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))
}

/// The clients' side of the gateway.
pub(crate) struct Listener {
    acceptor: Arc<Acceptor>,
    app: Arc<HttpProxy<Proxy>>,
    connections: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    stopping: watch::Sender<bool>,
}

impl Listener {
    pub(crate) fn new(certificates: Arc<Certificates>, proxy: Proxy, threads: usize) -> Self {
        let mut tls = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificates);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let metrics = proxy.metrics.clone();
        Self {
            acceptor: Arc::new(Acceptor::from_server_config(Arc::new(tls))),
            app: Arc::new(app(proxy, threads)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            metrics,
            stopping: watch::Sender::new(false),
        }
    }

    /// Accepts until cancelled, and then closes the port, so that clients are refused rather than left
    /// waiting in the kernel's queue. Each connection has a task of its own in `tasks`.
    pub(crate) async fn accept(&self, tcp: TcpListener, tasks: &TaskTracker, cancelled: &CancellationToken) {
        let accept = async {
            loop {
                // Beyond the limit clients wait in the kernel's queue, not in our memory.
                let permit =
                    self.connections.clone().acquire_owned().await.expect("the semaphore is never closed");
                match tcp.accept().await {
                    Ok((stream, address)) => {
                        let connection = self.connection();
                        tasks.spawn(async move {
                            connection.serve(stream, address).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        warn!(%error, "failed to accept a client");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        cancelled.run_until_cancelled(accept).await;
    }

    /// Tells every client to go elsewhere: GOAWAY on HTTP/2, `Connection: close` on HTTP/1.1.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Ends connections that wait for a next request.
    pub(crate) async fn end_idle(&self) {
        self.app.http_cleanup().await;
    }

    fn connection(&self) -> Connection {
        Connection {
            acceptor: self.acceptor.clone(),
            app: self.app.clone(),
            metrics: self.metrics.clone(),
            stopping: self.stopping.subscribe(),
        }
    }
}

fn app(proxy: Proxy, threads: usize) -> HttpProxy<Proxy> {
    let conf = ServerConf { threads, max_retries: 4, ..ServerConf::default() };
    let mut app = HttpProxy::new(proxy, Arc::new(conf));
    app.handle_init_modules();
    app.h2_options = Some(h2_options());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(H2_IDLE_TIMEOUT);
    app.server_options = Some(options);
    app
}

fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .initial_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES);
    options
}

/// One client's connection.
struct Connection {
    acceptor: Arc<Acceptor>,
    app: Arc<HttpProxy<Proxy>>,
    metrics: Arc<Metrics>,
    stopping: ShutdownWatch,
}

impl Connection {
    async fn serve(self, stream: TcpStream, address: SocketAddr) {
        self.metrics.connection_began();
        match timeout(HANDSHAKE_TIMEOUT, self.handshake(stream, address)).await {
            Ok(Ok(stream)) if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) => {
                self.app.process_new(Box::new(stream), &self.stopping).await;
            }
            Ok(Ok(stream)) => self.serve_http1(Box::new(stream)).await,
            Ok(Err(error)) => {
                self.metrics.handshake_failed();
                debug!(%address, error, "handshake failed");
            }
            Err(_) => self.metrics.handshake_failed(),
        }
        self.metrics.connection_ended();
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr) -> Result<TlsStream<L4Stream>, String> {
        keepalive::tend(&stream).map_err(|error| error.to_string())?;
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // A fresh cell: nothing else can have set it.
        let _first = digest.peer_addr.set(Some(L4Address::Inet(address)));
        let mut stream = L4Stream::from(stream);
        stream.set_socket_digest(digest);
        self.acceptor.tls_handshake(stream).await.map_err(|error| error.to_string())
    }

    /// Requests one after the other. Pingora gets each head as bytes that `head` has judged sound.
    async fn serve_http1(&self, mut stream: pingora::protocols::Stream) {
        let mut settings = None;
        loop {
            let mut bytes = BytesMut::new();
            let mut stopping = self.stopping.clone();
            let head = tokio::select! {
                biased;
                head = head::read(&mut stream, &mut bytes) => head,
                // Idle, and about to stop: the client may take its next request elsewhere.
                Ok(_) = stopping.wait_for(|stopping| *stopping) => return,
            };
            match head {
                Head::Sound => {}
                Head::Ended => return,
                Head::Refused(refused) => return self.refuse(stream, &Refusal::Head(refused)).await,
            }
            let mut session = ServerSession::new_http1(stream);
            session.set_keepalive(if *self.stopping.borrow() { None } else { Some(KEEPALIVE_S) });
            if let Some(settings) = settings.take() {
                pingora::apps::HttpPersistentSettings::apply_to_session(settings, &mut session);
            }
            session.set_pipelined_prefix(bytes);
            let Some(reused) = self.app.process_new_http(session, &self.stopping).await else { return };
            (stream, settings) = reused.consume();
        }
    }

    async fn refuse(&self, mut stream: pingora::protocols::Stream, refusal: &Refusal) {
        self.metrics.refused(refusal);
        self.metrics.answered(refusal.code());
        let answer = refusal.wire(&Uuid::new_v4().to_string());
        let write = async {
            stream.write_all(&answer).await?;
            stream.flush().await
        };
        if let Ok(Ok(())) = timeout(ANSWER_WRITE_TIMEOUT, write).await {
            linger(&mut stream).await;
        }
    }
}

/// Reads on for a moment: closing with unread bytes would reset the connection under the answer.
async fn linger(stream: &mut pingora::protocols::Stream) {
    use tokio::io::AsyncReadExt;
    let mut scratch = [0; 4096];
    let mut left = LINGER_BYTES_MAX;
    let read_on = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        while left > 0 {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    if timeout(LINGER_TIMEOUT, read_on).await.is_err() {
        debug!("a refused client went on sending");
    }
}

/// How long a refused client's bytes are read after the answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How many of them, in bytes.
const LINGER_BYTES_MAX: usize = 1 << 20;
