//! The certificate that clients see: read from files, taken up again when they change.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How often the files are looked at: cert-manager and kubelet replace them long before they expire.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate with its key and the hosts that it is for.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// The certificate in use. Handshakes see a whole pair, old or new, never a mixture.
#[derive(Debug)]
pub(crate) struct Certificates {
    chain: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<Loaded>,
}

impl Certificates {
    pub(crate) fn load(chain: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        let loaded = ArcSwap::from_pointee(load(chain, key)?);
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), loaded }))
    }

    /// Whether a client that asked for `host` could have verified this certificate.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let loaded = self.loaded.load();
        match host.parse::<IpAddr>() {
            Ok(address) => loaded.addresses.contains(&address),
            Err(_) => loaded.names.iter().any(|name| matches(name, host)),
        }
    }

    /// Takes up replaced files until cancelled. What cannot be used is reported, and the old pair stays.
    pub(crate) async fn reload(self: Arc<Self>, cancelled: CancellationToken) {
        let mut seen = self.modified();
        while cancelled.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_some() {
            let modified = self.modified();
            if modified == seen {
                continue;
            }
            seen = modified;
            match load(&self.chain, &self.key) {
                Ok(loaded) => {
                    self.loaded.store(Arc::new(loaded));
                    info!(file = %self.chain.display(), "certificate taken up");
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "new certificate refused: the old one stays")
                }
            }
        }
    }

    fn modified(&self) -> [Option<SystemTime>; 2] {
        [&self.chain, &self.key]
            .map(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.loaded.load().key.clone())
    }
}

fn load(chain: &Path, key: &Path) -> anyhow::Result<Loaded> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("failed to read certificates from {}", chain.display()))?;
    let Some(leaf) = certificates.first() else { bail!("{} holds no certificate", chain.display()) };
    let (names, addresses) = hosts(leaf).with_context(|| format!("failed to read {}", chain.display()))?;
    let der = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("failed to read a key from {}", key.display()))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&der).context("failed to use the key")?;
    let certified = CertifiedKey::new(certificates, signer);
    certified
        .keys_match()
        .with_context(|| format!("{} is not the key of {}", key.display(), chain.display()))?;
    Ok(Loaded { key: Arc::new(certified), names, addresses })
}

fn hosts(leaf: &CertificateDer<'_>) -> anyhow::Result<(Vec<String>, Vec<IpAddr>)> {
    let (_, certificate) = X509Certificate::from_der(leaf)?;
    let names = certificate
        .subject_alternative_name()?
        .context("the certificate has no subject alternative names")?;
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => hosts.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Ok((hosts, addresses))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// RFC 9525 section 6.3: a wildcard stands for one whole leftmost label.
fn matches(name: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match name.strip_prefix("*.") {
        Some(parent) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (name, host, expected) in [
            ("gw.test", "GW.test", true),
            ("gw.test", "gw.test.", true),
            ("gw.test", "a.gw.test", false),
            ("*.gw.test", "a.gw.test", true),
            ("*.gw.test", "gw.test", false),
            ("*.gw.test", ".gw.test", false),
            ("*.gw.test", "b.a.gw.test", false),
        ] {
            assert_eq!(matches(name, host), expected, "{name} {host}");
        }
    }
}
