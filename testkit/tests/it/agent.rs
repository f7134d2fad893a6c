//! The agent under a gateway of the test's own, which sends what a sound one would not.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use drover_api::assertion::{Assertion, Delegation, proof_signer, sent};
use drover_api::identity::Identity;
use drover_api::kinds::Domain;
use drover_api::roster::SignedRoster;
use drover_api::signed::{Context, Signer};
use drover_testkit::api_server::ApiServer;
use drover_testkit::fleet::Gateway;
use drover_testkit::process::Process;
use drover_testkit::roster::{Member, Roster};
use drover_tunnel::{
    Limits, Listener, OutcomeState, Owner, RefusalCode, Session, StreamHeader, StreamRefusal, Tls,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::system::{folder, soon};

const OWNER: Owner = Owner { user: 1, cluster: 1 };
pub(crate) const GET: &[u8] = b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n";

/// An agent and the end of its session that a gateway would have.
pub(crate) struct Harness {
    pub(crate) session: Session,
    pub(crate) server: ApiServer,
    pub(crate) agent: Process,
    /// In place of control.
    pub(crate) roster: Roster,
    pub(crate) zoe: Member,
    pub(crate) agent_metrics: String,
    _listener: Listener,
    _gateway: Gateway,
}

/// What a gateway shows for a user, sound until a test changes it.
pub(crate) struct Word {
    pub(crate) assertion: Assertion,
    pub(crate) delegation: Delegation,
    /// Control's, if it is sound.
    pub(crate) signer: Signer,
    /// Of the credential, if it is sound.
    pub(crate) proof: Signer,
    pub(crate) impersonate: Vec<u8>,
    /// Signed by another key than it says.
    pub(crate) forged: bool,
}

impl Word {
    pub(crate) fn header(&self) -> StreamHeader {
        let bytes = self.assertion.encode().unwrap();
        let forger = Signer::from_seed(&[9; 32]);
        let signer = if self.forged { &forger } else { &self.signer };
        let signature = signer.sign(Context::Assertion, &bytes);
        StreamHeader {
            audit_id: "test".to_owned(),
            assertion: sent(self.signer.id(), &signature, &bytes).into(),
            proof: self.delegation.sign(&self.proof).unwrap().into(),
            impersonate: self.impersonate.clone().into(),
            ..StreamHeader::default()
        }
    }
}

impl Harness {
    pub(crate) async fn start(test: &str) -> Self {
        let harness = Self::without_roster(test).await;
        harness.deliver(&harness.signed_roster()).await;
        harness.ready().await;
        harness
    }

    pub(crate) async fn without_roster(test: &str) -> Self {
        let folder = folder(test);
        let server = ApiServer::start(&folder.join("api-server"), "one", "c-one1").await.unwrap();
        let mut roster = Roster::new(&folder.join("snapshot.json"), &[("one", "c-one1")]).unwrap();
        let zoe = roster.user("zoe", &["local:group/ops"]).unwrap();
        roster.bind(&zoe.principal, "cluster-viewer", Domain::Global);
        roster.publish().unwrap();
        let gateway = Gateway::prepare(&folder, &roster).unwrap();
        let file = |name: &str| folder.join(name);
        let tls = Tls::load(file("tunnel.crt"), file("tunnel.key"), file("tunnel-ca.crt")).unwrap();
        let address = (Ipv4Addr::LOCALHOST, gateway.tunnel_port).into();
        let listener = Listener::bind(address, &tls, Limits::default()).unwrap();
        let agent = gateway.start_agent(&server.target, "a").await.unwrap();
        let session = soon(listener.accept()).await.unwrap();
        let log = agent.log_tail();
        let (_, admin) = log.split_once(r#""admin":""#).expect("the agent says where its metrics are");
        let agent_metrics = format!("http://{}/metrics", admin.split('"').next().unwrap());
        Self { session, server, agent, roster, zoe, agent_metrics, _listener: listener, _gateway: gateway }
    }

    pub(crate) fn signed_roster(&self) -> SignedRoster {
        self.roster.document.rosters[0].clone()
    }

    pub(crate) fn unsigned_roster(&self) -> drover_api::roster::Roster {
        serde_json::from_str(&self.signed_roster().payload).unwrap()
    }

    /// Brings the agent a roster, and returns the revision that it holds then.
    pub(crate) async fn deliver(&self, roster: &SignedRoster) -> u64 {
        let header = StreamHeader { audit_id: "test".to_owned(), roster: true, ..StreamHeader::default() };
        let mut stream = self.session.open(&header, OWNER).unwrap();
        stream.write_all(&serde_json::to_vec(roster).unwrap()).await.unwrap();
        stream.shutdown().await.unwrap();
        soon(stream.read_u64()).await.unwrap()
    }

    /// Zoe's, as a sound gateway shows it.
    pub(crate) fn word(&self) -> Word {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let proof = proof_signer(self.zoe.token.as_bytes());
        let identity = Identity {
            user: "zoe".to_owned(),
            uid: self.zoe.principal.clone(),
            groups: ["local:group/ops".to_owned()].into(),
            extras: Default::default(),
        };
        Word {
            assertion: Assertion {
                proof_key: proof.public(),
                issued_at_s: now,
                expires_at_s: now + 3600,
                groups_left_out: false,
                identity,
            },
            delegation: Delegation {
                cluster: "c-one1".to_owned(),
                gateway: "gateway/local".to_owned(),
                issued_at_s: now,
                expires_at_s: now + 600,
            },
            signer: self.roster.control(),
            proof,
            impersonate: Vec::new(),
            forged: false,
        }
    }

    /// Waits until the agent serves.
    async fn ready(&self) {
        soon(async {
            while let Err(refused) = self.send(GET).await {
                assert_eq!(refused.code, RefusalCode::ClusterNotReady, "{}", refused.message);
            }
        })
        .await;
    }

    async fn send(&self, bytes: &[u8]) -> Result<String, StreamRefusal> {
        self.send_as(&self.word().header(), bytes).await
    }

    /// Sends bytes as whoever the header says, and reads all that comes back.
    pub(crate) async fn send_as(&self, header: &StreamHeader, bytes: &[u8]) -> Result<String, StreamRefusal> {
        let mut stream = self.session.open(header, OWNER).unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut read = Vec::new();
        // How it ended is the outcome's to say.
        _ = soon(stream.read_to_end(&mut read)).await;
        match stream.outcome().get() {
            OutcomeState::Refused(refusal) => Err(refusal),
            OutcomeState::Accepted | OutcomeState::Lost(_) | OutcomeState::Waiting => {
                Ok(String::from_utf8(read).unwrap())
            }
        }
    }
}

#[tokio::test]
async fn identity_in_the_requests_headers_is_dropped() {
    let harness = Harness::start("agent-headers").await;
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\nimpersonate_group: a\r\n\
        Authorization: Bearer stolen\r\nX-Remote-User: root\r\nConnection: Impersonate-User\r\n\r\n";
    let answer = harness.send(request.as_bytes()).await.unwrap();
    assert!(answer.contains(r#"["impersonate-user","zoe"]"#), "{answer}");
    for foreign in ["root", "stolen", "impersonate_group", "x-remote-user"] {
        assert!(!answer.contains(foreign), "{foreign}: {answer}");
    }
}

#[tokio::test]
async fn a_stream_carries_one_request() {
    let harness = Harness::start("agent-second").await;
    let second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = harness.send(&[GET, second].concat()).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(!harness.server.has_received("/second"));
}

#[tokio::test]
async fn what_is_no_http_costs_only_its_stream() {
    let harness = Harness::start("agent-garbage").await;
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9\r\n\r\n"] {
        let answer = harness.send(garbage.as_bytes()).await.unwrap();
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert!(harness.send(GET).await.unwrap().contains("200 OK"));
}

#[tokio::test]
async fn an_agent_that_stops_finishes_what_it_has() {
    let harness = Harness::start("agent-drain").await;
    let header = harness.word().header();
    let mut stream = harness.session.open(&header, OWNER).unwrap();
    let request = b"POST /api/v1/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na";
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    soon(harness.server.open().wait_for(|open| *open == 1)).await.unwrap();
    harness.agent.signal("TERM").await.unwrap();
    soon(harness.session.draining()).await;
    assert!(harness.session.open(&header, OWNER).is_err(), "no further stream is begun");
    stream.write_all(b"b").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.contains("\"bytes\":2"), "{answer}");
    drop(stream);
    assert_eq!(soon(harness.session.closed()).await, drover_tunnel::CloseReason::Drained);
}

#[tokio::test]
async fn a_read_whose_connection_ends_under_it_is_sent_once_more_and_a_change_is_not() {
    for (method, answers) in [("GET", true), ("POST", false)] {
        let harness = Harness::start(&format!("agent-break-{method}")).await;
        let request =
            format!("{method} /api/v1/pods?behave=break HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = harness.send(request.as_bytes()).await.unwrap();
        assert_eq!(answer.contains("200 OK"), answers, "{method}: {answer}");
        let sent = harness.server.received().concat().matches("behave=break").count();
        assert_eq!(sent, if answers { 2 } else { 1 }, "{method}");
    }
}

#[tokio::test]
async fn a_server_that_switches_protocols_unasked_gets_no_bytes() {
    let harness = Harness::start("agent-switch").await;
    let request = b"GET /api/v1/pods?behave=switch HTTP/1.1\r\nHost: x\r\n\r\nsmuggled";
    let answer = harness.send(request).await.unwrap();
    assert!(!answer.contains("101"), "{answer}");
    assert!(!harness.server.has_received("smuggled"));
}
