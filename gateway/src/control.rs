//! Connections to control, on which both sides have shown certificates of its authority; and calls of its API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use drover_api::enrolment::CONTROL_NAME;
use drover_enrol::{Identity, Server};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Control's API, called as this gateway.
#[derive(Clone)]
pub(crate) struct Api {
    server: Server,
    identity: watch::Receiver<Identity>,
}

/// An answer of control's whose body is still to come, on the connection that carries it.
pub(crate) struct Answer {
    pub head: http::response::Parts,
    pub body: Incoming,
    _connection: AbortOnDropHandle<()>,
}

impl Api {
    pub(crate) fn new(server: Server, identity: watch::Receiver<Identity>) -> Self {
        Self { server, identity }
    }

    pub(crate) async fn call(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let identity = self.identity.borrow().clone();
        let connection = connect(&self.server, &identity, b"http/1.1").await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer { head, body, _connection: connection })
    }
}

pub(crate) async fn connect(
    server: &Server,
    identity: &Identity,
    protocol: &[u8],
) -> anyhow::Result<TlsStream<TcpStream>> {
    let connect = async {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(Arc::new(tls(identity, protocol)?));
        anyhow::Ok(tls.connect(ServerName::try_from(CONTROL_NAME)?, tcp).await?)
    };
    timeout(CONNECT_TIMEOUT, connect).await.context("connecting took too long")?
}

fn tls(identity: &Identity, protocol: &[u8]) -> anyhow::Result<ClientConfig> {
    let mut tls = ClientConfig::builder()
        .with_root_certificates(identity.roots()?)
        .with_client_auth_cert(identity.chain()?, identity.key()?)?;
    tls.alpn_protocols = vec![protocol.to_vec()];
    Ok(tls)
}
