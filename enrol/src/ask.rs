//! Asks for a certificate. TLS only hides what is said: what proves an answer is in it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use drover_api::enrolment::{Answer, Hex, PATH, Proof, Request, renewal_message, request_mac};
use drover_api::kinds::Process;
use drover_api::status::Status;
use drover_api::token::Presented;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SigningKey};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::identity::Identity;
use crate::server::Server;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes: two certificates.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The first identity, for a registration token, which never leaves this process.
pub async fn enrol(server: &Server, token: &str, now: SystemTime) -> anyhow::Result<(Identity, Process)> {
    let Presented { id, hash } = Presented::parse(token.trim()).context("the registration token")?;
    let (key, csr) = request()?;
    let proof = Proof::Token { id, mac: request_mac(&hash, &csr) };
    let answer = ask(server, Request { csr: Hex(csr.clone()), proof }).await?;
    ensure!(
        answer.is_of(&hash, &csr),
        "the answer is not of who made the registration token: is {server} the right address?"
    );
    let identity = Identity { certificate: answer.certificate, key: key.serialize_pem(), ca: answer.ca };
    let process = identity.check(now)?;
    Ok((identity, process))
}

/// The next identity of the same process, from the authority that it knows.
pub async fn renew(server: &Server, current: &Identity, now: SystemTime) -> anyhow::Result<Identity> {
    let (key, csr) = request()?;
    let signature = Hex(KeyPair::from_pem(&current.key)?.sign(&renewal_message(&csr))?);
    let proof = Proof::Certificate { certificate: current.certificate.clone(), signature };
    let answer = ask(server, Request { csr: Hex(csr), proof }).await?;
    let next = Identity { certificate: answer.certificate, key: key.serialize_pem(), ca: current.ca.clone() };
    let process = next.check(now)?;
    ensure!(current.names(&process), "the answer is for {process}, which this is not");
    Ok(next)
}

fn request() -> anyhow::Result<(KeyPair, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

async fn ask(server: &Server, request: Request) -> anyhow::Result<Answer> {
    let asked = tokio::time::timeout(TIMEOUT, post(server, serde_json::to_vec(&request)?)).await;
    let context = || format!("failed to get a certificate from {server}");
    asked.context("it took too long").and_then(|answer| answer).with_context(context)
}

async fn post(server: &Server, body: Vec<u8>) -> anyhow::Result<Answer> {
    let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
    let name = ServerName::try_from(server.host.clone())?;
    let tls = TlsConnector::from(Arc::new(unverified()?)).connect(name, tcp).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(tls)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
    let request = http::Request::post(PATH)
        .header("host", server.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
    if !code.is_success() {
        match serde_json::from_slice::<Status>(&body) {
            Ok(status) => bail!("{}", status.message),
            Err(_) => bail!("the answer is {code}"),
        }
    }
    serde_json::from_slice(&body).context("the answer is malformed")
}

/// Trusts no certificate and refuses none: a process that enrols knows no authority yet.
fn unverified() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
