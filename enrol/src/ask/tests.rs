//! Whoever answers in control's place is found out by what it answers.

use drover_api::enrolment::answer_mac;
use drover_api::token::{self, CredentialHash};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
    SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An authority, good or false, and what it knows of the token.
struct Somebody {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// With which it proves that it knows the token; none proves nothing.
    mac_key: Option<CredentialHash>,
    /// The process that it signs for.
    process: &'static str,
}

fn somebody(mac_key: Option<CredentialHash>, process: &'static str) -> Arc<Somebody> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    Arc::new(Somebody { issuer, mac_key, process })
}

impl Somebody {
    fn answer(&self, request: &Request) -> Answer {
        let csr = &request.csr.0;
        let key = CertificateSigningRequestParams::from_der(&csr.as_slice().into()).unwrap().public_key;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("spiffe://drover/{}", self.process);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let ca = self.issuer.pem();
        let mac = self.mac_key.map(|key| answer_mac(&key, csr, &certificate, &ca));
        Answer { certificate, ca, mac }
    }

    /// Answers one request; says where, and then what it was asked.
    async fn serve(self: Arc<Self>) -> (Server, tokio::task::JoinHandle<Request>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let served = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let stream = TlsAcceptor::from(Arc::new(tls)).accept(tcp).await.unwrap();
            let (sender, mut asked) = tokio::sync::mpsc::channel(1);
            let answer = service_fn(|http: http::Request<hyper::body::Incoming>| async {
                let body = http.into_body().collect().await.unwrap().to_bytes();
                let request: Request = serde_json::from_slice(&body).unwrap();
                let answer = serde_json::to_vec(&self.answer(&request)).unwrap();
                sender.send(request).await.unwrap();
                Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(Bytes::from(answer))))
            });
            // A client that does not like the answer hangs up.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
            asked.recv().await.unwrap()
        });
        (server, served)
    }
}

#[tokio::test]
async fn only_who_knows_the_token_gives_an_identity_and_the_token_does_not_travel() {
    let token = token::generate();
    let text = token.secret.expose();
    let other = token::generate().hash;
    for (mac_key, refused) in [
        (Some(token.hash), None),
        (Some(other), Some("not of who made the registration token")),
        (None, Some("not of who made the registration token")),
    ] {
        let (server, served) = somebody(mac_key, "gateway/g").serve().await;
        let enrolled = enrol(&server, text, SystemTime::now()).await;
        let asked = serde_json::to_string(&served.await.unwrap()).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        assert!(!asked.contains(secret) && !asked.contains(&String::from(token.hash)), "{asked}");
        match (enrolled, refused) {
            (Ok((_, process)), None) => assert_eq!(process.to_string(), "gateway/g"),
            (Err(error), Some(refused)) => assert!(error.to_string().contains(refused), "{error}"),
            (enrolled, _) => panic!("{:?}", enrolled.map(|(_, process)| process)),
        }
    }
    let malformed = enrol(&Server { host: "127.0.0.1".into(), port: 1 }, "garbage", SystemTime::now()).await;
    assert!(malformed.err().unwrap().to_string().contains("registration token"));
}

#[tokio::test]
async fn a_renewal_is_taken_of_the_known_authority_for_the_same_process_only() {
    let token = token::generate();
    let ours = somebody(Some(token.hash), "gateway/g");
    let (server, _) = ours.clone().serve().await;
    let (current, _) = enrol(&server, token.secret.expose(), SystemTime::now()).await.unwrap();
    let (server, _) = ours.serve().await;
    assert!(renew(&server, &current, SystemTime::now()).await.is_ok());
    let (server, _) = somebody(Some(token.hash), "gateway/g").serve().await;
    let foreign = renew(&server, &current, SystemTime::now()).await.err().unwrap();
    assert!(format!("{foreign:#}").contains("not the authority's"), "{foreign:#}");
}
