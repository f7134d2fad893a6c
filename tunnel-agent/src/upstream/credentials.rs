//! What the agent shows the API server and what it trusts: files that the kubelet renews.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail};
use http::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Well within the minutes that a renewed token's predecessor is still good for.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Longest token, in bytes: service accounts' have about one thousand.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Paths of the files, as pods find them mounted.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub token: PathBuf,
    pub ca: PathBuf,
}

pub(crate) struct Credentials {
    files: Files,
    current: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    bearer: HeaderValue,
    ca: Vec<u8>,
    tls: Arc<ClientConfig>,
}

impl Credentials {
    pub(crate) fn load(files: Files) -> anyhow::Result<Self> {
        let current = RwLock::new(read(&files, None)?);
        Ok(Self { files, current })
    }

    /// The value of `Authorization`.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.current.read().unwrap_or_else(PoisonError::into_inner).bearer.clone()
    }

    pub(crate) fn tls(&self, host: &str) -> io::Result<(TlsConnector, ServerName<'static>)> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = self.current.read().unwrap_or_else(PoisonError::into_inner).tls.clone();
        Ok((TlsConnector::from(tls), name))
    }

    /// Takes up renewed files until cancelled. Files that cannot be used leave the last good ones.
    pub(crate) async fn reload(self: Arc<Self>, cancelled: CancellationToken) {
        let mut failing = false;
        while cancelled.run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL)).await.is_some() {
            let own = self.clone();
            let loaded = match tokio::task::spawn_blocking(move || own.look()).await {
                Ok(loaded) => loaded,
                Err(error) => Err(error.into()),
            };
            match loaded {
                Ok(changed) => {
                    failing = false;
                    if changed {
                        info!("credentials for the API server renewed");
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    warn!(error = format!("{error:#}"), "credentials not renewed: the last good ones stay");
                }
                Err(_) => {}
            }
        }
    }

    fn look(&self) -> anyhow::Result<bool> {
        let before = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let loaded = read(&self.files, Some(&before))?;
        let changed = loaded.bearer != before.bearer || loaded.ca != before.ca;
        if changed {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
        Ok(changed)
    }
}

fn read(files: &Files, before: Option<&Loaded>) -> anyhow::Result<Loaded> {
    let named = |path: &PathBuf| format!("failed to read {}", path.display());
    let token = std::fs::read_to_string(&files.token).with_context(|| named(&files.token))?;
    let ca = std::fs::read(&files.ca).with_context(|| named(&files.ca))?;
    let bearer = bearer(token.trim()).with_context(|| files.token.display().to_string())?;
    let tls = match before.filter(|before| before.ca == ca) {
        Some(before) => before.tls.clone(),
        None => trusting(&ca).with_context(|| files.ca.display().to_string())?,
    };
    Ok(Loaded { bearer, ca, tls })
}

fn bearer(token: &str) -> anyhow::Result<HeaderValue> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic())
    {
        bail!("the file holds no token");
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn trusting(ca: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        bail!("the file holds no certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_makes_a_credential() {
        assert_eq!(bearer("abc.def").unwrap(), "Bearer abc.def");
        for text in ["", "two words", "line\nline", "ö"] {
            assert!(bearer(text).is_err(), "{text:?}");
        }
        assert!(bearer(&"x".repeat(TOKEN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(format!("{:?}", bearer("abc.def").unwrap()), "Sensitive");
    }
}
