//! Who gets a certificate: a process that shows a registration token for itself, or the certificate it has.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_api::enrolment::{
    Answer, CSR_BYTES_MAX, Hex, Proof, Request, answer_mac, renewal_message, request_mac_holds,
};
use drover_api::kinds::{Cluster, ENROLMENT_KEYS_MAX, Enrolment, Holder, Object, Process, RegistrationToken};
use drover_api::token::{self, CredentialHash, TokenId};
use drover_enrol::holder_of;
use jiff::Timestamp;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, CsrRefused};
use crate::objects::{Objects, ObjectsError};

/// For so long after its last certificate an enrolment is kept.
const LEFT_AFTER_ITS_END: Duration = Duration::from_secs(3600);

pub struct Enroller {
    objects: Objects,
    authority: Arc<Authority>,
    verifier: Arc<dyn ClientCertVerifier>,
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolmentRefused {
    #[error(
        "the certificate is not one of this authority's that is valid, or the request is not signed by its key"
    )]
    CertificateInvalid,
    #[error("the process is not enrolled any more: it takes a new registration token")]
    EnrolmentGone,
    #[error("the cluster does not exist")]
    ClusterUnknown,
    #[error("the signing request has more than {CSR_BYTES_MAX} bytes")]
    CsrTooLarge,
    #[error(transparent)]
    Csr(#[from] CsrRefused),
    /// One answer to all: who guesses learns nothing.
    #[error("the registration token is unknown, expired, or not the one that made the request")]
    TokenInvalid,
    #[error(transparent)]
    Unavailable(#[from] ObjectsError),
}

impl Enroller {
    pub fn new(objects: Objects, authority: Arc<Authority>) -> anyhow::Result<Self> {
        let verifier = WebPkiClientVerifier::builder(authority.roots()?).build().context("the authority")?;
        Ok(Self { objects, authority, verifier })
    }

    pub async fn enrol(&self, request: Request, now: SystemTime) -> Result<Answer, EnrolmentRefused> {
        let csr = &request.csr.0;
        if csr.len() > CSR_BYTES_MAX {
            return Err(EnrolmentRefused::CsrTooLarge);
        }
        // What is kept is kept of a request that got its certificate.
        let (certificate, token) = match request.proof {
            Proof::Token { id, mac } => {
                let (process, hash) = self.token(&id, csr, &mac, now).await?;
                self.expect(&process).await?;
                let holder = Holder::new(process, token::random_id());
                let certificate = self.authority.sign(csr, &holder, now)?;
                self.keep_enrolled(holder, csr, now).await?;
                (certificate, Some(hash))
            }
            Proof::Certificate { certificate, signature } => {
                let holder = self.holder(&certificate, csr, &signature, now);
                let (holder, key) = holder.ok_or(EnrolmentRefused::CertificateInvalid)?;
                self.expect(&holder.process).await?;
                let kept = self.known(&holder, &key).await?;
                let certificate = self.authority.sign(csr, &holder, now)?;
                self.keep_renewed(kept, csr, now).await?;
                (certificate, None)
            }
        };
        let ca = self.authority.pem().to_owned();
        let mac = token.map(|hash| answer_mac(&hash, csr, &certificate, &ca));
        Ok(Answer { certificate, ca, mac })
    }

    /// Whether no certificate of an enrolment can be good any more.
    pub(crate) fn is_over(&self, enrolment: &Enrolment, now: Timestamp) -> bool {
        let end = SystemTime::from(enrolment.renewed_at) + self.authority.lifetime() + LEFT_AFTER_ITS_END;
        end < SystemTime::from(now)
    }

    /// Keeps that a process is enrolled, by the key of its request.
    async fn keep_enrolled(
        &self,
        holder: Holder,
        csr: &[u8],
        now: SystemTime,
    ) -> Result<(), EnrolmentRefused> {
        let now = Timestamp::try_from(now).unwrap_or_default();
        let Holder { process, enrolment } = holder;
        let enrolment = Enrolment {
            id: enrolment.unwrap_or_default(),
            process,
            enrolled_at: now,
            renewed_at: now,
            keys: vec![key_of(csr).ok_or(CsrRefused::Malformed)?],
        };
        self.objects.create(&enrolment, None).await?;
        Ok(())
    }

    /// The enrolment of a certificate, where the certificate's key is one of those that may renew.
    async fn known(&self, holder: &Holder, key: &str) -> Result<Object<Enrolment>, EnrolmentRefused> {
        let enrolment = holder.enrolment.as_deref().ok_or(EnrolmentRefused::EnrolmentGone)?;
        let kept = self.objects.get::<Enrolment>(enrolment).await?.map(|kept| kept.object);
        let knows = |kept: &Object<Enrolment>| {
            kept.spec.process == holder.process && kept.spec.keys.iter().any(|known| known == key)
        };
        kept.filter(knows).ok_or(EnrolmentRefused::EnrolmentGone)
    }

    /// Takes the key of a request among those that may renew. An enrolment that was deleted meanwhile is not made again.
    async fn keep_renewed(
        &self,
        kept: Object<Enrolment>,
        csr: &[u8],
        now: SystemTime,
    ) -> Result<(), EnrolmentRefused> {
        let mut next = kept.spec;
        next.keys.push(key_of(csr).ok_or(CsrRefused::Malformed)?);
        let surplus = next.keys.len().saturating_sub(ENROLMENT_KEYS_MAX);
        next.keys.drain(..surplus);
        next.renewed_at = Timestamp::try_from(now).unwrap_or_default();
        self.objects.update(kept.metadata.revision, &next, None).await?;
        Ok(())
    }

    /// A process whose cluster was deleted gets no next certificate; the one that it has lasts until its end.
    async fn expect(&self, process: &Process) -> Result<(), EnrolmentRefused> {
        let Process::Agent(id) = process else { return Ok(()) };
        let clusters = self.objects.list::<Cluster>().await?;
        let found = clusters.iter().any(|cluster| cluster.spec.id == id.as_str());
        if found { Ok(()) } else { Err(EnrolmentRefused::ClusterUnknown) }
    }

    /// The process that the token is for, and its hash.
    async fn token(
        &self,
        id: &TokenId,
        csr: &[u8],
        mac: &Hex,
        now: SystemTime,
    ) -> Result<(Process, CredentialHash), EnrolmentRefused> {
        let token = self.objects.get::<RegistrationToken>(id.as_str()).await?;
        let Some((spec, hash)) = token.and_then(|token| Some((token.object.spec, token.secret?.hash))) else {
            return Err(EnrolmentRefused::TokenInvalid);
        };
        if SystemTime::from(spec.expires_at) <= now || !request_mac_holds(&hash, csr, mac) {
            return Err(EnrolmentRefused::TokenInvalid);
        }
        Ok((spec.process, hash))
    }

    /// Who holds a certificate of ours and its key, and that key's fingerprint.
    fn holder(&self, pem: &str, csr: &[u8], signature: &Hex, now: SystemTime) -> Option<(Holder, String)> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let now = UnixTime::since_unix_epoch(since_epoch);
        self.verifier.verify_client_cert(&der, &[], now).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&renewal_message(csr), &signature.0)
            .ok()?;
        Some((holder_of(&certificate)?, fingerprint(key)))
    }
}

/// Of the key that a signing request is for.
fn key_of(csr: &[u8]) -> Option<String> {
    let (_, request) = X509CertificationRequest::from_der(csr).ok()?;
    Some(fingerprint(&request.certification_request_info.subject_pki.subject_public_key.data))
}

fn fingerprint(key: &[u8]) -> String {
    format!("{:x}", Sha256::digest(key))
}

#[cfg(test)]
mod tests;
