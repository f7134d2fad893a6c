//! A closed loop: so many connections, each with one request at a time, every answer checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// A server under load, and how to ask it.
#[derive(Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    /// Before the path of every request.
    pub prefix: String,
    pub token: Option<String>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub requests: usize,
    pub elapsed: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

/// A connection, and the task that drives it.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) fn trusting(ca_pem: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

impl Target {
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(tls)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
        Ok(Connection { sender, _driver: driver })
    }

    pub(crate) fn request(&self, path: &str) -> anyhow::Result<Request<Empty<Bytes>>> {
        let request = Request::get(format!("{}{path}", self.prefix)).header("host", self.address.to_string());
        let request = match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        Ok(request.body(Empty::new())?)
    }
}

impl Connection {
    /// One request, whose answer must be 200 and of that length.
    pub(crate) async fn get(&mut self, target: &Target, path: &str, bytes: usize) -> anyhow::Result<()> {
        self.sender.ready().await?;
        let response = self.sender.send_request(target.request(path)?).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame?.data_ref().map_or(0, Bytes::len);
        }
        if status != StatusCode::OK || read != bytes {
            bail!("{status} with {read} bytes, and {bytes} were expected");
        }
        Ok(())
    }

    /// Begins a watch, and returns once its first bytes are there.
    pub(crate) async fn watch(
        &mut self,
        target: &Target,
        path: &str,
    ) -> anyhow::Result<hyper::body::Incoming> {
        let mut body = self.sender.send_request(target.request(path)?).await?.into_body();
        body.frame().await.context("the watch ended")??;
        Ok(body)
    }
}

/// Asks for `path` on `connections` connections for a while.
pub(crate) async fn run(
    target: &Target,
    path: &'static str,
    bytes: usize,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Outcome> {
    let mut ready = Vec::new();
    for _ in 0..connections {
        let mut connection = target.connect().await?;
        // What is slow once is not what is measured.
        connection.get(target, path, bytes).await?;
        ready.push(connection);
    }
    let began = Instant::now();
    let mut loops = JoinSet::new();
    for mut connection in ready {
        let target = target.clone();
        loops.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < duration {
                let sent = Instant::now();
                connection.get(&target, path, bytes).await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(ended) = loops.join_next().await {
        latencies.extend(ended??);
    }
    latencies.sort_unstable();
    Ok(Outcome { requests: latencies.len(), elapsed: began.elapsed(), latencies })
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the requests stayed within, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}
