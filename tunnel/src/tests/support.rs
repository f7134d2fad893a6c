//! A listener and a dialer with certificates of one authority, and a relay that can go silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{Dialer, Incoming, Limits, Listener, Owner, Session, Stream, StreamHeader, Tls};

pub(super) const SERVER_NAME: &str = "gateway.drover";
pub(super) const GATEWAY: &str = "spiffe://drover/gateway/g1";
pub(super) const AGENT: &str = "spiffe://drover/cluster/c-1/agent";
/// Far above what anything here takes, so that only a hang meets it.
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it happens before the deadline")
}

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub(super) fn tls(&self, uris: &[&str], usage: ExtendedKeyUsagePurpose) -> Tls {
        self.tls_that_trusts(uris, usage, &self.root)
    }

    pub(super) fn tls_that_trusts(
        &self,
        uris: &[&str],
        usage: ExtendedKeyUsagePurpose,
        root: &CertificateDer<'static>,
    ) -> Tls {
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Tls::new(vec![leaf], PrivateKeyDer::Pkcs8(key.serialize_der().into()), [root.clone()]).unwrap()
    }

    pub(super) fn gateway(&self) -> Tls {
        self.tls(&[GATEWAY], ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(super) fn agent(&self) -> Tls {
        self.tls(&[AGENT], ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub(super) fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }
}

pub(super) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Both ends of one session, with the endpoints that keep it up.
pub(super) struct Pair {
    pub(super) listener: Listener,
    pub(super) dialer: Dialer,
    pub(super) gateway: Session,
    pub(super) agent: Session,
    pub(super) relay: Relay,
}

impl Pair {
    pub(super) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(super) async fn with(limits: Limits) -> Self {
        let authority = Authority::new();
        let listener = Listener::bind(loopback(), &authority.gateway(), limits).unwrap();
        let relay = Relay::to(listener.local_addr().unwrap()).await;
        let dialer = Dialer::new(&authority.agent(), limits).unwrap();
        let (agent, gateway) =
            soon(async { tokio::join!(dialer.dial(relay.address, SERVER_NAME), listener.accept()) }).await;
        Self { agent: agent.unwrap(), gateway: gateway.unwrap(), listener, dialer, relay }
    }

    pub(super) fn open(&self, user: u64) -> Stream {
        self.gateway.open(&header(), Owner { user, cluster: 1 }).unwrap()
    }

    /// A stream that the agent accepted, both ends of it.
    pub(super) async fn stream(&self, user: u64) -> (Stream, Stream) {
        use tokio::io::AsyncWriteExt;
        let mut gateway = self.open(user);
        gateway.flush().await.unwrap();
        let received = soon(self.agent.accept()).await.unwrap().receive().await.unwrap();
        (gateway, received.accept(Owner { user, cluster: 1 }))
    }
}

pub(super) fn header() -> StreamHeader {
    StreamHeader {
        audit_id: "id".to_owned(),
        assertion: Bytes::from_static(b"who"),
        ..StreamHeader::default()
    }
}

/// Serves every stream of an agent's session with `serve`, until dropped.
pub(super) fn agent_serves<F>(
    session: &Session,
    serve: impl Fn(Incoming) -> F + Send + Sync + 'static,
) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let session = session.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut streams = tokio::task::JoinSet::new();
        while let Some(incoming) = session.accept().await {
            streams.spawn(serve(incoming));
        }
    }))
}

/// Forwards datagrams of one dialer, until it is told to lose them all.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    silent: watch::Sender<bool>,
    listener: watch::Sender<SocketAddr>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    pub(super) async fn to(listener: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        let back = UdpSocket::bind(loopback()).await.unwrap();
        let address = front.local_addr().unwrap();
        let (silent, is_silent) = watch::channel(false);
        let (listener, current) = watch::channel(listener);
        let task = async move {
            let (mut out, mut into) = (vec![0; 65536], vec![0; 65536]);
            let mut dialer = None;
            loop {
                tokio::select! {
                    Ok((length, from)) = front.recv_from(&mut out) => {
                        dialer = Some(from);
                        if !*is_silent.borrow() { let to = *current.borrow();
                        _ = back.send_to(&out[..length], to).await; }
                    }
                    Ok((length, _)) = back.recv_from(&mut into) => {
                        if let Some(to) = dialer && !*is_silent.borrow() { _ = front.send_to(&into[..length], to).await; }
                    }
                }
            }
        };
        Self { address, silent, listener, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// Sends what follows to another listener, whose answers look as if they came from the first.
    pub(super) fn redirect(&self, listener: SocketAddr) {
        self.listener.send_replace(listener);
    }

    pub(super) fn go_silent(&self) {
        self.silent.send_replace(true);
    }
}
