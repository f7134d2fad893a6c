//! The admin port: `/metrics`, `/livez` and `/readyz`, over plain HTTP.
//!
//! `/livez` is about the process alone, so that nothing outside it can have it restarted; `/readyz`
//! names every check that fails, as Kubernetes' own servers do.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Probes and scrapers are few; more than this is somebody else.
const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Between two tries after the process ran out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

type Check = Box<dyn Fn() -> bool + Send + Sync>;
type Note = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Whether the process can do its work: every check passes, and it is not stopping.
#[derive(Clone, Default)]
pub struct Readiness(Arc<State>);

#[derive(Default)]
struct State {
    checks: Mutex<Vec<(&'static str, Check)>>,
    notes: Mutex<Vec<(&'static str, Note)>>,
    stopping: AtomicBool,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn check(&self, name: &'static str, passes: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).push((name, Box::new(passes)));
    }

    /// What whoever asks is told as well, where there is something: it makes nothing less ready.
    pub fn note(&self, name: &'static str, note: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).push((name, Box::new(note)));
    }

    /// From here on the process is not ready, whatever its checks say.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    fn failing(&self) -> Vec<&'static str> {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = checks.iter().filter(|(_, passes)| !passes()).map(|(name, _)| *name);
        let stopping = self.0.stopping.load(Ordering::Relaxed).then_some("shutdown");
        failing.chain(stopping).collect()
    }

    /// A line each.
    fn notes(&self) -> String {
        let notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().filter_map(|(name, note)| Some(format!("{name}: {}\n", note()?))).collect()
    }
}

/// The open admin port; closes when dropped.
pub struct Admin {
    local_addr: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Admin {
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

pub async fn serve(
    listen: SocketAddr,
    readiness: Readiness,
    prometheus: PrometheusHandle,
    cancelled: CancellationToken,
) -> anyhow::Result<Admin> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("failed to listen for admin on {listen}"))?;
    let local_addr = listener.local_addr()?;
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, readiness, prometheus) => {}
            () = cancelled.cancelled() => {}
        }
    }));
    Ok(Admin { local_addr, _task: task })
}

async fn accept(listener: TcpListener, readiness: Readiness, prometheus: PrometheusHandle) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (readiness, prometheus) = (readiness.clone(), prometheus.clone());
        let answer = service_fn(move |request| {
            let answer = answer(&request, &readiness, &prometheus);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        connections.spawn(async move {
            // A scraper that goes away in the middle is nobody's failure.
            drop(tokio::time::timeout(CONNECTION_TIMEOUT, connection).await);
            drop(place);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    readiness: &Readiness,
    prometheus: &PrometheusHandle,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/metrics" => text(StatusCode::OK, prometheus.render()),
        "/readyz" => match readiness.failing() {
            failing if failing.is_empty() => text(StatusCode::OK, format!("ok\n{}", readiness.notes())),
            failing => {
                let failing = failing.join(", ");
                text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {failing}\n{}", readiness.notes()))
            }
        },
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /metrics and /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(TEXT));
    response
}
