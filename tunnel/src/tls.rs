//! TLS of both sides: 1.3 only, ring, our own authority, certificates on both sides, nothing resumed.

use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;

use crate::codec::ALPN;
use crate::peer::{PeerId, Usage};

/// A process's certificate and key, and the authority that peers' certificates come from.
pub struct Tls {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("no certificate in {0}")]
    CertificateAbsent(String),
    #[error("certificate, key or authority refused")]
    Config(#[from] rustls::Error),
    #[error("no cipher suite for QUIC's first packets")]
    InitialSuite(#[from] NoInitialCipherSuite),
    #[error("failed to read {0}")]
    Pem(String, #[source] rustls::pki_types::pem::Error),
    #[error("authority refused")]
    Verifier(#[from] VerifierBuilderError),
}

impl Tls {
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        roots.into_iter().try_for_each(|root| store.add(root))?;
        Ok(Self { chain, key, roots: Arc::new(store) })
    }

    /// Reads PEM files.
    pub fn load(
        chain: impl AsRef<Path>,
        key: impl AsRef<Path>,
        roots: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let key_path = key.as_ref();
        let key = PrivateKeyDer::from_pem_file(key_path)
            .map_err(|e| TlsError::Pem(key_path.display().to_string(), e))?;
        Self::new(certificates(chain.as_ref())?, key, certificates(roots.as_ref())?)
    }

    /// What peers' certificates must come from.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// What this process's own certificate calls it.
    pub fn own_id(&self) -> Option<PeerId> {
        let certificate = self.chain.first()?;
        let as_either = [Usage::Dialer, Usage::Listener];
        as_either.into_iter().find_map(|usage| PeerId::from_certificate(certificate, usage).ok())
    }

    /// What to derive other secrets of the process from; never to be shown.
    pub(crate) fn key_bytes(&self) -> &[u8] {
        self.key.secret_der()
    }

    pub(crate) fn listener(&self) -> Result<QuicServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = 0;
        // A resumed session would outlive the certificate that began it.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config.try_into()?)
    }

    pub(crate) fn dialer(&self) -> Result<QuicClientConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config.try_into()?)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = || path.display().to_string();
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| TlsError::Pem(named(), e))?;
    if found.is_empty() { Err(TlsError::CertificateAbsent(named())) } else { Ok(found) }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("certificates", &self.chain.len())
            .field("roots", &self.roots.len())
            .finish()
    }
}
