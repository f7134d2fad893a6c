//! Who gets a certificate: a process that shows a registration token for itself, or the certificate it has.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use drover_api::enrolment::{
    Answer, CSR_BYTES_MAX, Hex, Proof, Request, answer_mac, renewal_message, request_mac_holds,
};
use drover_api::kinds::{Cluster, Process, RegistrationToken};
use drover_api::token::{CredentialHash, TokenId};
use drover_enrol::process_of;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{Authority, CsrRefused};
use crate::objects::{Objects, ObjectsError};

pub struct Enrolment {
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

impl Enrolment {
    pub fn new(objects: Objects, authority: Arc<Authority>) -> anyhow::Result<Self> {
        let verifier = WebPkiClientVerifier::builder(authority.roots()?).build().context("the authority")?;
        Ok(Self { objects, authority, verifier })
    }

    pub async fn enrol(&self, request: Request, now: SystemTime) -> Result<Answer, EnrolmentRefused> {
        let csr = &request.csr.0;
        if csr.len() > CSR_BYTES_MAX {
            return Err(EnrolmentRefused::CsrTooLarge);
        }
        let (process, token) = match request.proof {
            Proof::Token { id, mac } => {
                let (process, hash) = self.token(&id, csr, &mac, now).await?;
                (process, Some(hash))
            }
            Proof::Certificate { certificate, signature } => {
                let holder = self.holder(&certificate, csr, &signature, now);
                (holder.ok_or(EnrolmentRefused::CertificateInvalid)?, None)
            }
        };
        self.expect(&process).await?;
        let certificate = self.authority.sign(csr, &process, now)?;
        let ca = self.authority.pem().to_owned();
        let mac = token.map(|hash| answer_mac(&hash, csr, &certificate, &ca));
        Ok(Answer { certificate, ca, mac })
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

    /// The process that holds a certificate of ours and its key.
    fn holder(&self, pem: &str, csr: &[u8], signature: &Hex, now: SystemTime) -> Option<Process> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let now = UnixTime::since_unix_epoch(since_epoch);
        self.verifier.verify_client_cert(&der, &[], now).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&renewal_message(csr), &signature.0)
            .ok()?;
        process_of(&certificate)
    }
}

#[cfg(test)]
mod tests;
