//! Load, every answer checked: a closed loop, whose connections ask again once they are answered, or an open one,
//! whose requests are due at a rate whatever the answers do, and are late from then on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
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

/// What is asked, and by how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub path: &'static str,
    /// The length that the answer must have.
    pub bytes: usize,
    pub connections: usize,
    /// Requests that are due per second; none in a closed loop.
    pub per_second: Option<u32>,
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

/// When the requests of a run are due.
enum Pace {
    Closed {
        until: Instant,
    },
    Open {
        began: Instant,
        every: Duration,
        requests: u32,
        next: AtomicU32,
        /// A permit for each request that is due.
        due: Semaphore,
    },
}

impl Pace {
    /// Waits for the next request to be due, and says since when it is; none at the end.
    async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed { until } => {
                let now = Instant::now();
                (now < *until).then_some(now)
            }
            Self::Open { began, every, requests, next, due } => {
                due.acquire().await.ok()?.forget();
                let number = next.fetch_add(1, Ordering::Relaxed);
                (number < *requests).then(|| *began + *every * number)
            }
        }
    }

    /// Keeps time on a thread of its own: the runtime's timers know milliseconds only.
    fn keep(self: &Arc<Self>, connections: usize) -> JoinHandle<()> {
        let pace = self.clone();
        tokio::task::spawn_blocking(move || {
            let Self::Open { began, every, requests, due, .. } = &*pace else { return };
            for number in 0..*requests {
                std::thread::sleep((*began + *every * number).saturating_duration_since(Instant::now()));
                due.add_permits(1);
            }
            // With which each connection finds the end.
            due.add_permits(connections);
        })
    }
}

impl Load {
    fn pace(&self, duration: Duration) -> Pace {
        let began = Instant::now();
        match self.per_second {
            None => Pace::Closed { until: began + duration },
            Some(per_second) => Pace::Open {
                began,
                every: Duration::from_secs(1) / per_second,
                requests: (f64::from(per_second) * duration.as_secs_f64()) as u32,
                next: AtomicU32::new(0),
                due: Semaphore::new(0),
            },
        }
    }

    /// Asks the target for a while.
    pub(crate) async fn run(self, target: &Target, duration: Duration) -> anyhow::Result<Outcome> {
        let mut ready = Vec::new();
        for _ in 0..self.connections {
            let mut connection = target.connect().await?;
            // What is slow once is not what is measured.
            connection.get(target, self.path, self.bytes).await?;
            ready.push(connection);
        }
        let began = Instant::now();
        let pace = Arc::new(self.pace(duration));
        let keeper = pace.keep(self.connections);
        let mut loops = JoinSet::new();
        for mut connection in ready {
            let (target, pace) = (target.clone(), pace.clone());
            loops.spawn(async move {
                let mut latencies = Vec::new();
                while let Some(due) = pace.next().await {
                    connection.get(&target, self.path, self.bytes).await?;
                    latencies.push(due.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(ended) = loops.join_next().await {
            latencies.extend(ended??);
        }
        let elapsed = began.elapsed();
        keeper.await?;
        latencies.sort_unstable();
        Ok(Outcome { requests: latencies.len(), elapsed, latencies })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_at_their_rate_and_each_once_and_then_every_connection_finds_the_end() {
        let load = Load { path: "/", bytes: 0, connections: 2, per_second: Some(1000) };
        let pace = Arc::new(load.pace(Duration::from_millis(5)));
        let keeper = pace.keep(load.connections);
        let mut due = Vec::new();
        while let Some(since) = pace.next().await {
            due.push(since);
        }
        assert_eq!(pace.next().await, None);
        assert_eq!(due.len(), 5);
        let apart: Vec<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(apart, [Duration::from_millis(1); 4]);
        keeper.await.unwrap();
    }
}
