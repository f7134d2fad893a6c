//! A certificate with its key and the authority of all.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_api::enrolment::CLOCK_SKEW_S;
use drover_api::kinds::{Holder, Process};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// All PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
    pub ca: String,
}

impl Identity {
    /// Checks that an authority's certificate is for the key, and says which process it names.
    pub fn check(&self, now: SystemTime) -> anyhow::Result<Process> {
        let (chain, key) = (self.chain()?, self.key()?);
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        rustls::sign::CertifiedKey::new(chain.clone(), key)
            .keys_match()
            .context("the certificate is not for the key")?;
        let verifier = WebPkiClientVerifier::builder(self.roots()?).build()?;
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH)?);
        let leaf = chain.first().context("there is no certificate")?;
        verifier.verify_client_cert(leaf, &[], now).context("the certificate is not the authority's")?;
        let (_, certificate) = X509Certificate::from_der(leaf)?;
        let holder = holder_of(&certificate).context("the certificate does not name one process")?;
        Ok(holder.process)
    }

    /// Whether its certificate names what it goes back to: one from before does not, and nobody takes it.
    pub fn is_enrolled(&self) -> bool {
        let named = |chain: Vec<CertificateDer<'static>>| {
            let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
            holder_of(&certificate)?.enrolment
        };
        self.chain().ok().and_then(named).is_some()
    }

    /// Whether it is that process's, be it valid or not any more.
    pub fn names(&self, process: &Process) -> bool {
        self.renew_at().and_then(|valid| self.check(valid)).is_ok_and(|named| named == *process)
    }

    /// Half of the certificate's time: from then on there is time for many attempts.
    pub fn renew_at(&self) -> anyhow::Result<SystemTime> {
        let chain = self.chain()?;
        let (_, certificate) = X509Certificate::from_der(chain.first().context("there is no certificate")?)?;
        let validity = certificate.validity();
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let (from, to) = (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        let lifetime = to.checked_sub(from).context("the certificate ends before it begins")?;
        let left = lifetime.saturating_sub(CLOCK_SKEW_S) / 2;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(to - left))
    }

    pub fn chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        Ok(chain.collect::<Result<_, _>>()?)
    }

    pub fn key(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_slice(self.key.as_bytes())?)
    }

    /// What trusts the authority alone.
    pub fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca()?)?;
        Ok(roots.into())
    }

    pub fn ca(&self) -> anyhow::Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_slice(self.ca.as_bytes())?)
    }
}

/// What the certificate's one URI name says.
pub fn holder_of(certificate: &X509Certificate<'_>) -> Option<Holder> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _other => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Holder::of_uri(uri).ok(),
        _ => None,
    }
}
