//! A client that sends exactly the bytes it is given: what kubectl would never send, too.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fleet::Gateway;

const DEADLINE: Duration = Duration::from_secs(30);

/// Speaks HTTP/1.1 to one gateway.
#[derive(Clone)]
pub struct Client {
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Client {
    /// A client that offers no ALPN, as kubectl's upgrades do.
    pub fn new(gateway: &Gateway) -> anyhow::Result<Self> {
        Self::offering(gateway, &[])
    }

    pub fn offering(gateway: &Gateway, alpn: &[&[u8]]) -> anyhow::Result<Self> {
        Self::at(gateway.port, &gateway.authority.pem(), alpn)
    }

    /// Of whatever listens at a port of this machine, with a certificate of that authority.
    pub fn at(port: u16, ca: &str, alpn: &[&[u8]]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut tls = builder.with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self { port, tls: Arc::new(tls) })
    }

    pub async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(self.tls.clone()).connect(name, tcp).await?)
    }

    /// A GET in a cluster: its status and its body as JSON, or null.
    pub async fn get(&self, cluster: &str, path: &str, token: &str) -> anyhow::Result<(u16, Value)> {
        let request = Request::get(format!("/k8s/clusters/{cluster}{path}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())?;
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = timeout(DEADLINE, response.into_body().collect()).await??.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    pub async fn send<B>(&self, request: Request<B>) -> anyhow::Result<Response<Incoming>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (mut sender, driver) = http1::Builder::new()
            .max_headers(512)
            .max_buf_size(1 << 20)
            .handshake(TokioIo::new(self.connect().await?))
            .await?;
        // Ends with its connection: when the sender and the body are gone.
        tokio::spawn(driver.with_upgrades());
        timeout(DEADLINE, sender.send_request(request)).await?.map_err(Into::into)
    }

    /// Sends bytes and reads until the other side closes, or says nothing more for a moment.
    pub async fn raw(&self, bytes: &[u8]) -> anyhow::Result<String> {
        const QUIET: Duration = Duration::from_millis(500);
        let mut stream = self.connect().await?;
        // A gateway that refuses early may close before it has read everything.
        // TLS may still hold the last record when `write_all` ends.
        if stream.write_all(bytes).await.is_ok() {
            _ = stream.flush().await;
        }
        let mut read = Vec::new();
        let mut part = vec![0; 64 * 1024];
        let mut wait = DEADLINE;
        loop {
            match timeout(wait, stream.read(&mut part)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(count)) => read.extend_from_slice(&part[..count]),
                Err(_) if read.is_empty() => anyhow::bail!("no answer within {DEADLINE:?}"),
                Err(_) => break,
            }
            wait = QUIET;
        }
        Ok(String::from_utf8_lossy(&read).into_owned())
    }
}

/// What a plain HTTP URL of an admin port answers: status and body.
pub async fn fetch(url: &str) -> anyhow::Result<(u16, String)> {
    plain("GET", url, "").await
}

/// Posts to a plain HTTP URL, which has to like it.
pub async fn post(url: &str, body: &str) -> anyhow::Result<()> {
    let (code, said) = plain("POST", url, body).await?;
    anyhow::ensure!((200..300).contains(&code), "{code}: {said}");
    Ok(())
}

async fn plain(method: &str, url: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().context("no authority")?.as_str();
    let (mut sender, driver) = http1::handshake(TokioIo::new(TcpStream::connect(authority).await?)).await?;
    tokio::spawn(driver);
    let request = Request::builder().method(method).uri(uri.path()).header("host", authority);
    let answer = timeout(DEADLINE, sender.send_request(request.body(body.to_owned())?)).await??;
    let code = answer.status().as_u16();
    let body = timeout(DEADLINE, answer.into_body().collect()).await??.to_bytes();
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}

/// What a process counts under a name, with its labels: of an admin port's URL of metrics.
pub async fn metric(url: &str, name: &str) -> anyhow::Result<Option<f64>> {
    let (_, text) = fetch(url).await?;
    Ok(text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()))
}

/// The status code of a raw answer.
pub fn status(answer: &str) -> anyhow::Result<u16> {
    let line = answer.lines().next().unwrap_or_default();
    line.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("no status in {line:?}"))
}
