//! A fast TLS server in the API server's place: it answers without thinking, so that what is measured is the way to it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The answer to a get, as long as a small pod.
pub(crate) const POD_BYTES: usize = 1024;
/// The answer to a list, as long as several thousand pods.
pub(crate) const LIST_BYTES: usize = 10 << 20;
const LIST_PART_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Upstream {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    cert: PathBuf,
    #[arg(long)]
    key: PathBuf,
}

impl Upstream {
    /// Serves until the process ends.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let tls = acceptor(&self.cert, &self.key, &[b"http/1.1"])?;
        let listener = TcpListener::bind(self.listen).await.context("failed to listen")?;
        let connections = TaskTracker::new();
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let tls = tls.clone();
            connections.spawn(async move {
                // Clients end connections as they like: that is no failure here.
                let Ok(stream) = tls.accept(tcp).await else { return };
                let answer = service_fn(answer);
                _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    }
}

pub(crate) fn acceptor(cert: &Path, key: &Path, protocols: &[&[u8]]) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path().ends_with("/exec") {
        // Neither read nor answered.
        std::future::pending::<()>().await;
    }
    Ok(answer_at_once(&request))
}

fn answer_at_once(request: &Request<Incoming>) -> Response<Body> {
    static PART: [u8; LIST_PART_BYTES] = [b'x'; LIST_PART_BYTES];
    let query = request.uri().query().unwrap_or_default();
    Response::new(if query.contains("watch=") {
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"{}\n")))]);
        StreamBody::new(first.chain(stream::pending())).boxed_unsync()
    } else if let Some(bytes) = listed(request.uri().path()) {
        let parts = (0..bytes / LIST_PART_BYTES).map(|_| Ok(Frame::data(Bytes::from_static(&PART))));
        StreamBody::new(stream::iter(parts)).boxed_unsync()
    } else {
        Full::new(Bytes::from_static(&PART[..POD_BYTES])).boxed_unsync()
    })
}

/// How long a list is.
fn listed(path: &str) -> Option<usize> {
    match path.rsplit('/').next() {
        Some("pods") => Some(LIST_BYTES),
        Some("secrets") => Some(10 * LIST_BYTES),
        _ => None,
    }
}
