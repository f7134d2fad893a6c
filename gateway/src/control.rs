//! A connection to control, on which both sides have shown certificates of its authority.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use drover_api::enrolment::CONTROL_NAME;
use drover_enrol::{Identity, Server};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
