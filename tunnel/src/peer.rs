//! Who the peer is: the path in its certificate's one URI name.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::Connection;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const PREFIX: &str = "spiffe://drover/";
/// Longest path, in bytes: a few DNS labels.
const PATH_BYTES_MAX: usize = 256;

/// A peer as its certificate names it, for example `cluster/c-1a2b/agent`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(Arc<str>);

/// Why a certificate names no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerRefused {
    #[error("the certificate is malformed")]
    CertificateMalformed,
    #[error("the certificate's one URI name is not a drover identity")]
    NameInvalid,
    #[error("the certificate does not have exactly one URI name")]
    NotOneName,
    #[error("the certificate is not for this use")]
    UsageWrong,
}

/// What a certificate must be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    Dialer,
    Listener,
}

/// When the certificate ends that the peer of a connection showed.
pub(crate) fn certificate_ends_at(connection: &Connection) -> Option<SystemTime> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

impl PeerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The peer of a connection whose certificate chain TLS has verified.
    pub(crate) fn of(connection: &Connection, usage: Usage) -> Result<Self, PeerRefused> {
        let identity = connection.peer_identity().ok_or(PeerRefused::CertificateMalformed)?;
        let chain = identity
            .downcast::<Vec<CertificateDer<'static>>>()
            .map_err(|_| PeerRefused::CertificateMalformed)?;
        Self::from_certificate(chain.first().ok_or(PeerRefused::CertificateMalformed)?, usage)
    }

    pub(crate) fn from_certificate(der: &CertificateDer<'_>, usage: Usage) -> Result<Self, PeerRefused> {
        let malformed = |_| PeerRefused::CertificateMalformed;
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerRefused::CertificateMalformed)?;
        let extended = certificate.extended_key_usage().map_err(malformed)?.ok_or(PeerRefused::UsageWrong)?;
        let allowed = match usage {
            Usage::Dialer => extended.value.client_auth,
            Usage::Listener => extended.value.server_auth,
        };
        if !allowed {
            return Err(PeerRefused::UsageWrong);
        }
        let names =
            certificate.subject_alternative_name().map_err(malformed)?.ok_or(PeerRefused::NotOneName)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _other => None,
        });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::from_uri(uri),
            (None, _) | (Some(_), Some(_)) => Err(PeerRefused::NotOneName),
        }
    }

    fn from_uri(uri: &str) -> Result<Self, PeerRefused> {
        let path = uri.strip_prefix(PREFIX).ok_or(PeerRefused::NameInvalid)?;
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        let sound = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        if path.len() <= PATH_BYTES_MAX && path.split('/').all(sound) {
            Ok(Self(path.into()))
        } else {
            Err(PeerRefused::NameInvalid)
        }
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_of_the_trust_domain_are_peers() {
        let check = |uri: &str, expected: Result<&str, PeerRefused>| {
            assert_eq!(PeerId::from_uri(uri).as_ref().map(PeerId::as_str).map_err(|e| *e), expected, "{uri}");
        };
        check("spiffe://drover/cluster/c-1a2b/agent", Ok("cluster/c-1a2b/agent"));
        let refused = Err(PeerRefused::NameInvalid);
        for uri in [
            "spiffe://drover/",
            "spiffe://drover/cluster//agent",
            "spiffe://drover/cluster/../agent",
            "spiffe://drover/Cluster/c/agent",
            "spiffe://drover/cluster/c%2d/agent",
            "spiffe://drover.evil/cluster/c/agent",
            "https://drover/cluster/c/agent",
        ] {
            check(uri, refused);
        }
        check(&format!("{PREFIX}{}", "x".repeat(PATH_BYTES_MAX + 1)), refused);
    }
}
