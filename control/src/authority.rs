//! The certificate authority: one key, kept sealed, that names every process of a Drover.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use drover_api::enrolment::{CLOCK_SKEW_S, CONTROL_NAME, GATEWAY_NAME};
use drover_api::kinds::{Holder, Kind, Process};
use drover_api::signed::PublicKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::objects::{Kept, Objects, ObjectsError};
use crate::store::StoreError;

const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const KEY: &str = "ca";

/// The authority as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateAuthority {
    name: String,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySecret {
    key: String,
}

impl Kind for CertificateAuthority {
    const KIND: &'static str = "CertificateAuthority";
    const PLURAL: &'static str = "certificateauthorities";

    fn key(&self) -> &str {
        &self.name
    }
}

impl Kept for CertificateAuthority {
    type Secret = KeySecret;
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Of the certificates of processes.
    lifetime: Duration,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefused {
    #[error("the signing request's key must be for ECDSA with P-256 and SHA-256")]
    KeyOfAnotherKind,
    #[error("the signing request is malformed, or not signed by its own key")]
    Malformed,
}

impl Authority {
    /// The store's authority, made where there is none.
    pub async fn load(objects: &Objects, lifetime: Duration) -> anyhow::Result<Self> {
        let (certificate, key) = loop {
            if let Some(kept) = objects.get::<CertificateAuthority>(KEY).await? {
                let secret = kept.secret.context("the authority's key is not in the store")?;
                break (kept.object.spec.certificate, secret.key);
            }
            let (certificate, key) = make(SystemTime::now())?;
            let made = CertificateAuthority { name: KEY.to_owned(), certificate };
            match objects.create(&made, Some(&KeySecret { key })).await {
                // Another control was faster: its authority is the one.
                Ok(_) | Err(ObjectsError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
        Ok(Self { issuer, pem: certificate, lifetime })
    }

    /// Of the certificates of processes.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a process with the key of its signing request, of which nothing else counts.
    pub fn sign(&self, csr: &[u8], holder: &Holder, now: SystemTime) -> Result<String, CsrRefused> {
        let csr =
            CertificateSigningRequestParams::from_der(&csr.into()).map_err(|_| CsrRefused::Malformed)?;
        if *csr.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(CsrRefused::KeyOfAnotherKind);
        }
        let params = self.params(holder, now).map_err(|_| CsrRefused::Malformed)?;
        let certificate =
            params.signed_by(&csr.public_key, &self.issuer).map_err(|_| CsrRefused::Malformed)?;
        Ok(certificate.pem())
    }

    /// A certificate in DER for a key that signs assertions and rosters.
    pub fn signer(
        &self,
        key: PublicKey,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Vec<u8>, rcgen::Error> {
        let mut params = leaf(now, lifetime);
        params.distinguished_name.push(DnType::CommonName, key.id().to_string());
        // What agents tell it by: no process gets this usage.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let key = SubjectPublicKeyInfo::from_der(&key.to_spki())?;
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }

    /// What trusts this authority alone.
    pub fn roots(&self) -> anyhow::Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes())?)?;
        Ok(roots.into())
    }

    /// Control's own, with its key, for as long as this process runs.
    pub fn control(&self, now: SystemTime) -> anyhow::Result<(String, String)> {
        self.server(CONTROL_NAME, vec![SanType::DnsName(CONTROL_NAME.try_into()?)], now)
    }

    /// A certificate with its key for the port of clients, under the names that they call it by.
    pub fn door(&self, hosts: &[String], now: SystemTime) -> anyhow::Result<(String, String)> {
        let name = |host: &String| {
            // Names by which processes know each other are nobody's to choose.
            let folded = host.trim_end_matches('.').to_ascii_lowercase();
            ensure!(!folded.ends_with(".drover"), "host {host:?} ends with .drover, which is Drover's own");
            Ok(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    SanType::DnsName(host.as_str().try_into().with_context(|| format!("host {host:?}"))?)
                }
            })
        };
        // Named by its host: of a name that is its issuer's too, OpenSSL takes it for signed by itself.
        let name_of = |host: &String| host.trim_end_matches('.').to_owned();
        let common_name = hosts.first().map_or_else(|| "drover door".to_owned(), name_of);
        self.server(&common_name, hosts.iter().map(name).collect::<anyhow::Result<_>>()?, now)
    }

    fn server(
        &self,
        common_name: &str,
        names: Vec<SanType>,
        now: SystemTime,
    ) -> anyhow::Result<(String, String)> {
        let mut params = leaf(now, CA_LIFETIME);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names;
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn params(&self, holder: &Holder, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
        let mut params = leaf(now, self.lifetime);
        params.distinguished_name.push(DnType::CommonName, holder.process.to_string());
        params.subject_alt_names = vec![SanType::URI(holder.uri().as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        match &holder.process {
            Process::Agent(_) => {}
            Process::Gateway(_) => {
                params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
                params.subject_alt_names.push(SanType::DnsName(GATEWAY_NAME.try_into()?));
            }
        }
        Ok(params)
    }
}

fn leaf(now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - Duration::from_secs(CLOCK_SKEW_S)).into();
    params.not_after = (now + lifetime).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    // Which key of the authority's signed it (RFC 5280, 4.2.1.1): strict verifiers want to be told.
    params.use_authority_key_identifier_extension = true;
    params
}

fn make(now: SystemTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = leaf(now, CA_LIFETIME);
    params.distinguished_name.push(DnType::CommonName, "drover");
    params.use_authority_key_identifier_extension = false;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}
