use std::time::Duration;

use drover_api::enrolment::request_mac;
use drover_api::token::{self, Generated};
use drover_policy::ClusterId;
use jiff::Timestamp;
use rcgen::{CertificateParams, DnType, KeyPair, SanType, SigningKey};

use super::*;
use crate::objects::RegistrationSecret;
use crate::seal::Seal;
use crate::store::Sqlite;

const HOUR: Duration = Duration::from_secs(3600);

struct Control {
    objects: Objects,
    enrolment: Enroller,
    now: SystemTime,
    _folder: tempfile::TempDir,
}

async fn control() -> Control {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
    let objects = Objects::new(store, Seal::new(&[7; 32]));
    let authority = Arc::new(Authority::load(&objects, HOUR).await.unwrap());
    let enrolment = Enroller::new(objects.clone(), authority).unwrap();
    let control = Control { objects, enrolment, now: SystemTime::now(), _folder: folder };
    let cluster = Cluster {
        name: "one".to_owned(),
        id: "c-1".to_owned(),
        projects: Default::default(),
        groups_listed: None,
    };
    control.objects.create(&cluster, None).await.unwrap();
    control
}

fn agent(id: &str) -> Process {
    Process::Agent(ClusterId::parse(id).unwrap())
}

/// A signing request that says of itself what it likes.
fn csr(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "cluster/c-2/agent");
    params.subject_alt_names = vec![SanType::URI("spiffe://drover/gateway/g".try_into().unwrap())];
    params.serialize_request(key).unwrap().der().to_vec()
}

impl Control {
    async fn token(&self, process: &Process) -> Generated {
        let token = token::generate();
        let expires_at = Timestamp::try_from(self.now + HOUR).unwrap();
        let spec = RegistrationToken { id: token.id.clone(), process: process.clone(), expires_at };
        self.objects.create(&spec, Some(&RegistrationSecret { hash: token.hash })).await.unwrap();
        token
    }

    async fn show(&self, token: &Generated, csr: &[u8]) -> Result<Answer, EnrolmentRefused> {
        let proof = Proof::Token { id: token.id.clone(), mac: request_mac(&token.hash, csr) };
        self.enrolment.enrol(Request { csr: Hex(csr.to_vec()), proof }, self.now).await
    }

    async fn renew(&self, certificate: &str, key: &KeyPair) -> Result<Answer, EnrolmentRefused> {
        let csr = csr(&KeyPair::generate().unwrap());
        let signature = Hex(key.sign(&renewal_message(&csr)).unwrap());
        let proof = Proof::Certificate { certificate: certificate.to_owned(), signature };
        self.enrolment.enrol(Request { csr: Hex(csr), proof }, self.now).await
    }
}

fn process(pem: &str) -> Option<Process> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    holder_of(&X509Certificate::from_der(&der).unwrap().1).map(|holder| holder.process)
}

#[tokio::test]
async fn a_token_enrols_the_process_that_it_is_for_whatever_the_request_says() {
    let control = control().await;
    for expected in [agent("c-1"), Process::Gateway("g-1".to_owned())] {
        let token = control.token(&expected).await;
        let csr = csr(&KeyPair::generate().unwrap());
        let answer = control.show(&token, &csr).await.unwrap();
        assert_eq!(process(&answer.certificate), Some(expected));
        assert!(answer.is_of(&token.hash, &csr));
    }
}

#[tokio::test]
async fn a_token_that_is_unknown_expired_deleted_or_only_guessed_enrols_nothing() {
    let mut control = control().await;
    let csr = csr(&KeyPair::generate().unwrap());
    let refused = |answer: Result<_, _>| assert!(matches!(answer, Err(EnrolmentRefused::TokenInvalid)));
    let known = control.token(&agent("c-1")).await;
    refused(control.show(&token::generate(), &csr).await);
    let guessed = Generated { id: known.id.clone(), ..token::generate() };
    refused(control.show(&guessed, &csr).await);
    let mac = request_mac(&known.hash, b"another request");
    let proof = Proof::Token { id: known.id.clone(), mac };
    refused(control.enrolment.enrol(Request { csr: Hex(csr.clone()), proof }, control.now).await);

    control.now += HOUR;
    refused(control.show(&known, &csr).await);
    control.now -= HOUR;
    assert!(control.show(&known, &csr).await.is_ok());
    let stored = control.objects.get::<RegistrationToken>(known.id.as_str()).await.unwrap().unwrap();
    let revision = stored.object.metadata.revision;
    control.objects.delete::<RegistrationToken>(known.id.as_str(), revision).await.unwrap();
    refused(control.show(&known, &csr).await);
}

#[tokio::test]
async fn a_certificate_renews_itself_until_it_ends_or_its_cluster_goes() {
    let mut control = control().await;
    let key = KeyPair::generate().unwrap();
    let token = control.token(&agent("c-1")).await;
    let first = control.show(&token, &csr(&key)).await.unwrap().certificate;
    control.now += HOUR / 2;
    let second = control.renew(&first, &key).await.unwrap();
    assert_eq!((process(&second.certificate), second.mac), (Some(agent("c-1")), None));

    let invalid = |answer: Result<_, _>| assert!(matches!(answer, Err(EnrolmentRefused::CertificateInvalid)));
    invalid(control.renew(&first, &KeyPair::generate().unwrap()).await);
    invalid(control.renew("none", &key).await);
    let foreign = CertificateParams::default().self_signed(&key).unwrap().pem();
    invalid(control.renew(&foreign, &key).await);
    invalid(control.renew(control.enrolment.authority.pem(), &key).await);

    let cluster = control.objects.get::<Cluster>("one").await.unwrap().unwrap().object;
    control.objects.delete::<Cluster>("one", cluster.metadata.revision).await.unwrap();
    assert!(matches!(control.renew(&first, &key).await, Err(EnrolmentRefused::ClusterUnknown)));
    assert!(matches!(control.show(&token, &csr(&key)).await, Err(EnrolmentRefused::ClusterUnknown)));
    control.objects.create(&cluster.spec, None).await.unwrap();
    control.now += HOUR;
    invalid(control.renew(&first, &key).await);
}

#[tokio::test]
async fn a_signing_request_that_is_not_sound_is_refused() {
    let control = control().await;
    let token = control.token(&agent("c-1")).await;
    let sound = csr(&KeyPair::generate().unwrap());
    let mut changed = sound.clone();
    *changed.last_mut().unwrap() ^= 1;
    let refused = control.show(&token, &changed).await.err().unwrap();
    assert!(matches!(refused, EnrolmentRefused::Csr(CsrRefused::Malformed)), "{refused}");
    let refused = control.show(&token, b"garbage").await.err().unwrap();
    assert!(matches!(refused, EnrolmentRefused::Csr(CsrRefused::Malformed)), "{refused}");
    let other = csr(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
    let refused = control.show(&token, &other).await.err().unwrap();
    assert!(matches!(refused, EnrolmentRefused::Csr(CsrRefused::KeyOfAnotherKind)), "{refused}");
    assert!(control.objects.list::<Enrolment>().await.unwrap().is_empty(), "nobody is enrolled by them");
    let refused = control.show(&token, &vec![0; CSR_BYTES_MAX + 1]).await.err().unwrap();
    assert!(matches!(refused, EnrolmentRefused::CsrTooLarge), "{refused}");
}

#[tokio::test]
async fn a_door_has_the_names_that_it_is_called_by_and_none_of_drovers_own() {
    let control = control().await;
    let door = |host: &str| control.enrolment.authority.door(&[host.to_owned()], control.now);
    assert!(door("localhost").is_ok() && door("::1").is_ok());
    for own in ["control.drover", "gateway.drover", "CONTROL.Drover", "control.drover."] {
        assert!(door(own).unwrap_err().to_string().contains("Drover's own"), "{own}");
    }
    assert!(door("é").is_err());
}

#[tokio::test]
async fn the_authority_is_made_once_and_its_key_is_sealed() {
    let control = control().await;
    let again = Authority::load(&control.objects, HOUR).await.unwrap();
    assert_eq!(again.pem(), control.enrolment.authority.pem());
    let record = control.objects.store().get("CertificateAuthority", "ca").await.unwrap().unwrap();
    let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("PRIVATE KEY");
    assert!(!plain(&record.value.spec) && !plain(&record.value.secret.unwrap()));
}

#[tokio::test]
async fn regression_an_enrolment_that_is_deleted_renews_nothing_and_no_key_but_its_own_does() {
    let control = control().await;
    let enrolment = async |pem: &str| {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let id = holder_of(&X509Certificate::from_der(&der).unwrap().1).unwrap().enrolment.unwrap();
        control.objects.get::<Enrolment>(&id).await.unwrap()
    };
    let gone = |answer: Result<Answer, _>| assert!(matches!(answer, Err(EnrolmentRefused::EnrolmentGone)));
    let (key, token) = (KeyPair::generate().unwrap(), control.token(&agent("c-1")).await);
    let first = control.show(&token, &csr(&key)).await.unwrap().certificate;
    let other = control.show(&token, &csr(&KeyPair::generate().unwrap())).await.unwrap().certificate;
    assert_ne!(
        enrolment(&first).await.unwrap().object.spec.id,
        enrolment(&other).await.unwrap().object.spec.id
    );
    // So many renewals by the first key, as replicas may, and then it is one of long ago.
    for _ in 1..ENROLMENT_KEYS_MAX {
        let next = control.renew(&first, &key).await.unwrap().certificate;
        assert_eq!(
            enrolment(&next).await.unwrap().object.spec.id,
            enrolment(&first).await.unwrap().object.spec.id
        );
    }
    control.renew(&first, &key).await.unwrap();
    gone(control.renew(&first, &key).await);
    let kept = enrolment(&other).await.unwrap().object;
    assert!(kept.spec.process == agent("c-1") && kept.spec.keys.len() == 1);

    let (key, token) = (KeyPair::generate().unwrap(), control.token(&Process::Gateway("g".into())).await);
    let of_gateway = control.show(&token, &csr(&key)).await.unwrap().certificate;
    control.renew(&of_gateway, &key).await.unwrap();
    let kept = enrolment(&of_gateway).await.unwrap().object;
    control.objects.delete::<Enrolment>(&kept.spec.id, kept.metadata.revision).await.unwrap();
    gone(control.renew(&of_gateway, &key).await);
    // A certificate that names no enrolment is of nobody.
    let holder = Holder { process: agent("c-1"), enrolment: None };
    let without = control.enrolment.authority.sign(&csr(&key), &holder, control.now).unwrap();
    gone(control.renew(&without, &key).await);
}

/// As OpenSSL reads chains: Python, Node, Ruby and curl do by it.
#[tokio::test]
async fn regression_no_certificate_of_ours_is_taken_for_signed_by_itself() {
    let control = control().await;
    let authority = &control.enrolment.authority;
    let (door, _) =
        authority.door(&["drover.example".to_owned(), "127.0.0.1".to_owned()], control.now).unwrap();
    let (own, _) = authority.control(control.now).unwrap();
    let key = KeyPair::generate().unwrap();
    let agent = authority.sign(&csr(&key), &Holder::new(agent("c-1"), "e1"), control.now).unwrap();
    for pem in [door, own, agent] {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_ne!(certificate.subject(), certificate.issuer());
        let named = certificate.extensions().iter().any(|extension| {
            matches!(
                extension.parsed_extension(),
                x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(_)
            )
        });
        assert!(named, "{}", certificate.subject());
        let folder = tempfile::tempdir().unwrap();
        let (ca, leaf) = (folder.path().join("ca.pem"), folder.path().join("leaf.pem"));
        std::fs::write(&ca, authority.pem()).unwrap();
        std::fs::write(&leaf, &pem).unwrap();
        let mut verify = std::process::Command::new("openssl");
        // Where there is one: what it looks at is asserted above.
        let Ok(said) = verify.args(["verify", "-x509_strict", "-CAfile"]).arg(&ca).arg(&leaf).output() else {
            continue;
        };
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
}
