//! An API server of the test's own, which shows exactly what reached it and behaves as badly as asked.
//!
//! It answers 200 with what it was sent, unless the query says otherwise: `behave=watch` sends a line and
//! then nothing, `behave=break` closes the connection in an answer's place, the first time that it is asked to,
//! `behave=switch` answers 101 whether asked for it or not, `behave=hang` never answers, `behave=gate` waits
//! until the test opens the gate, `behave=burst` sends many objects as fast as they are taken, `behave=trailers`
//! ends its answer with a trailer, `behave=<code>` answers with that code. A request to upgrade
//! that is to be answered with 200 gets 101, and its bytes come back.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy, split};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::Target;
use crate::pki::{self, Authority, LOOPBACK, Subject, Usage};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The token that the agent shows.
pub const AGENT_TOKEN: &str = "token-of-the-agent";

/// Of a burst.
pub const BURST_OBJECTS: usize = 50_000;

/// A running server; ends when dropped.
pub struct ApiServer {
    pub target: Target,
    seen: Arc<Seen>,
    _accepting: AbortOnDropHandle<()>,
}

/// What reached the server.
struct Seen {
    /// Every byte of every connection, in the order of their beginnings.
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    /// Requests that are being answered.
    open: watch::Sender<usize>,
    gate: watch::Sender<bool>,
    burst_bytes: AtomicU64,
    broke: AtomicBool,
}

impl ApiServer {
    pub async fn start(folder: &Path, name: &str, id: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let authority = Authority::new(name)?;
        let subject = Subject { common_name: "kube-apiserver", addresses: &LOOPBACK, ..Subject::default() };
        let (cert, key) = authority.issue(&subject, &[Usage::ServerAuth])?;
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let tls = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key)?));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let target = target(folder, name, id, &authority, listener.local_addr()?.to_string())?;
        let seen = Arc::new(Seen {
            connections: Mutex::default(),
            open: watch::Sender::new(0),
            gate: watch::Sender::new(false),
            burst_bytes: AtomicU64::new(0),
            broke: AtomicBool::new(false),
        });
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, tls, seen.clone())));
        Ok(Self { target, seen, _accepting: accepting })
    }

    /// Every byte that reached the server after TLS, as text, connection by connection.
    pub fn received(&self) -> Vec<String> {
        let connections = lock(&self.seen.connections);
        connections.iter().map(|bytes| String::from_utf8_lossy(&lock(bytes)).into_owned()).collect()
    }

    /// Whether any connection's bytes have `text` in them.
    pub fn has_received(&self, text: &str) -> bool {
        self.received().iter().any(|bytes| bytes.contains(text))
    }

    /// Lets requests through that wait at the gate.
    pub fn open_gate(&self) {
        self.seen.gate.send_replace(true);
    }

    /// How much of bursts was asked of the server so far.
    pub fn burst_bytes(&self) -> u64 {
        self.seen.burst_bytes.load(Ordering::Relaxed)
    }

    /// How many requests are being answered, as it changes.
    pub fn open(&self) -> watch::Receiver<usize> {
        self.seen.open.subscribe()
    }
}

fn target(
    folder: &Path,
    name: &str,
    id: &str,
    authority: &Authority,
    address: String,
) -> anyhow::Result<Target> {
    let ca = authority.write(folder, "ca.crt")?;
    let token: PathBuf = folder.join("agent.token");
    pki::write_secret(&token, AGENT_TOKEN)?;
    Ok(Target { name: name.to_owned(), id: id.to_owned(), address, ca, token })
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Seen>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, seen) = (tls.clone(), seen.clone());
        connections.spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let bytes = Arc::new(Mutex::new(Vec::new()));
            lock(&seen.connections).push(bytes.clone());
            let answer = service_fn(move |request| answer(request, seen.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .max_headers(512)
                .serve_connection(TokioIo::new(Recorded { stream, bytes }), answer);
            // Clients that go away are what tests are about.
            _ = connection.with_upgrades().await;
        });
    }
}

async fn answer(mut request: Request<Incoming>, seen: Arc<Seen>) -> io::Result<Response<Body>> {
    let open = Open::new(seen);
    let query = request.uri().query().unwrap_or_default();
    let behave = query.split('&').find_map(|pair| pair.strip_prefix("behave=")).unwrap_or("200").to_owned();
    match behave.as_str() {
        "break" if !open.0.broke.swap(true, Ordering::Relaxed) => {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        "break" => Ok(echo(StatusCode::OK, request).await),
        "hang" => std::future::pending().await,
        "switch" => {
            let mut response = Response::new(Full::default().boxed_unsync());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Ok(response)
        }
        "gate" => {
            // The sender lives as long as the server.
            _ = open.0.gate.subscribe().wait_for(|is_open| *is_open).await;
            Ok(echo(StatusCode::OK, request).await)
        }
        "watch" => Ok(Response::new(endless(open))),
        "burst" => Ok(Response::new(burst(open))),
        "trailers" => Ok(Response::new(ended_by_a_trailer())),
        code => {
            let code = code.parse().unwrap_or(StatusCode::IM_A_TEAPOT);
            if code == StatusCode::OK && request.headers().contains_key(header::UPGRADE) {
                return Ok(upgrade(&mut request, open));
            }
            Ok(echo(code, request).await)
        }
    }
}

/// One line, and then nothing until the client goes.
fn endless(open: Open) -> Body {
    let line = Frame::data(Bytes::from_static(b"{\"type\":\"BOOKMARK\"}\n"));
    let frames = futures_util::stream::unfold((open, Some(line)), |(open, line)| async {
        match line {
            Some(line) => Some((Ok(line), (open, None))),
            None => std::future::pending().await,
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Objects of a WatchList, each made when there is room for it.
fn burst(open: Open) -> Body {
    let frames = futures_util::stream::unfold((open, 0), |(open, number)| async move {
        if number == BURST_OBJECTS {
            return None;
        }
        let line = json!({ "type": "ADDED", "object": { "number": number, "data": "x".repeat(1000) } });
        let line = Bytes::from(format!("{line}\n"));
        open.0.burst_bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
        Some((Ok(Frame::data(line)), (open, number + 1)))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn ended_by_a_trailer() -> Body {
    let trailers = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("x-ended"),
        http::HeaderValue::from_static("well"),
    )]);
    let frames = [Frame::data(Bytes::from_static(b"{}")), Frame::trailers(trailers)];
    StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync()
}

fn upgrade(request: &mut Request<Incoming>, open: Open) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in [header::UPGRADE, header::CONNECTION] {
        if let Some(value) = request.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let upgraded = hyper::upgrade::on(request);
    // Ends with its connection.
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let (mut read, mut write) = split(TokioIo::new(upgraded));
        _ = copy(&mut read, &mut write).await;
        drop(open);
    });
    response
}

async fn echo(code: StatusCode, request: Request<Incoming>) -> Response<Body> {
    let body = Full::from(said(request).await.to_string()).boxed_unsync();
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    response.body(body).expect("the parts are sound")
}

/// What a client gets to see of its request: method, target, header lines and the body's length.
async fn said(request: Request<Incoming>) -> Value {
    let (head, body) = request.into_parts();
    let lines = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    let lines: Vec<_> = lines.collect();
    let bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    json!({ "method": head.method.as_str(), "target": head.uri.to_string(), "headers": lines, "bytes": bytes })
}

/// One request that is being answered.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: Arc<Seen>) -> Self {
        seen.open.send_modify(|open| *open += 1);
        Self(seen)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// A stream that keeps a copy of what was read.
struct Recorded<S> {
    stream: S,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        lock(&self.bytes).extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
