//! The agent under a gateway of the test's own, which sends what a sound one would not.

use std::net::Ipv4Addr;

use bytes::Bytes;
use drover_api::identity::Identity;
use drover_testkit::api_server::ApiServer;
use drover_testkit::fleet::Gateway;
use drover_testkit::process::Process;
use drover_tunnel::{Limits, Listener, OutcomeState, Owner, RefusalCode, Session, StreamHeader, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::system::{folder, soon};

const OWNER: Owner = Owner { user: 1, cluster: 1 };
const GET: &[u8] = b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n";

/// An agent and the end of its session that a gateway would have.
struct Harness {
    session: Session,
    server: ApiServer,
    agent: Process,
    _listener: Listener,
    _gateway: Gateway,
}

impl Harness {
    async fn start(test: &str) -> Self {
        let folder = folder(test);
        let server = ApiServer::start(&folder.join("api-server"), "one", "c-one1").await.unwrap();
        let gateway = Gateway::prepare(&folder, &folder.join("none")).unwrap();
        let file = |name: &str| folder.join(name);
        let tls = Tls::load(file("tunnel.crt"), file("tunnel.key"), file("tunnel-ca.crt")).unwrap();
        let address = (Ipv4Addr::LOCALHOST, gateway.tunnel_port).into();
        let listener = Listener::bind(address, &tls, Limits::default()).unwrap();
        let agent = gateway.start_agent(&server.target, "a").await.unwrap();
        let session = soon(listener.accept()).await.unwrap();
        let harness = Self { session, server, agent, _listener: listener, _gateway: gateway };
        harness.ready().await;
        harness
    }

    /// Waits until the agent serves.
    async fn ready(&self) {
        soon(async {
            while let Err(refused) = self.send(&zoe(&[]), GET).await {
                assert_eq!(refused.code, RefusalCode::ClusterNotReady);
            }
        })
        .await;
    }

    /// Sends bytes as whoever `identity` says, and reads all that comes back.
    async fn send(&self, identity: &[u8], bytes: &[u8]) -> Result<String, drover_tunnel::StreamRefusal> {
        let identity = Bytes::copy_from_slice(identity);
        let header = StreamHeader { audit_id: "test".to_owned(), identity, ..StreamHeader::default() };
        let mut stream = self.session.open(&header, OWNER).unwrap();
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

fn zoe(groups: &[&str]) -> Vec<u8> {
    named("zoe", groups)
}

fn named(user: &str, groups: &[&str]) -> Vec<u8> {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let identity = Identity {
        user: user.to_owned(),
        uid: "local:user/7".to_owned(),
        groups,
        extras: Default::default(),
    };
    identity.encode().unwrap()
}

#[tokio::test]
async fn without_a_sound_identity_nothing_is_sent() {
    let harness = Harness::start("agent-identity").await;
    let before = harness.server.received().concat().len();
    for (identity, code) in [
        (Vec::new(), RefusalCode::IdentityMissing),
        (b"\x01\x00".to_vec(), RefusalCode::IdentityMalformed),
        ([zoe(&[]), vec![0]].concat(), RefusalCode::IdentityMalformed),
        (named("system:admin", &[]), RefusalCode::IdentityRefused),
        (zoe(&["system:masters"]), RefusalCode::IdentityRefused),
    ] {
        let refused = harness.send(&identity, GET).await.unwrap_err();
        assert_eq!(refused.code, code, "{identity:?}");
        assert_eq!(refused.delivered, drover_tunnel::Delivered::No);
    }
    assert_eq!(harness.server.received().concat().len(), before);
}

#[tokio::test]
async fn identity_in_the_requests_headers_is_dropped() {
    let harness = Harness::start("agent-headers").await;
    let request = "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\nimpersonate_group: a\r\n\
        Authorization: Bearer stolen\r\nX-Remote-User: root\r\nConnection: Impersonate-User\r\n\r\n";
    let answer = harness.send(&zoe(&["drover:user"]), request.as_bytes()).await.unwrap();
    assert!(answer.contains(r#"["impersonate-user","zoe"]"#), "{answer}");
    for foreign in ["root", "stolen", "impersonate_group", "x-remote-user"] {
        assert!(!answer.contains(foreign), "{foreign}: {answer}");
    }
}

#[tokio::test]
async fn a_stream_carries_one_request() {
    let harness = Harness::start("agent-second").await;
    let second = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = harness.send(&zoe(&[]), &[GET, second].concat()).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(!harness.server.has_received("/second"));
}

#[tokio::test]
async fn what_is_no_http_costs_only_its_stream() {
    let harness = Harness::start("agent-garbage").await;
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9\r\n\r\n"] {
        let answer = harness.send(&zoe(&[]), garbage.as_bytes()).await.unwrap();
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    assert!(harness.send(&zoe(&[]), GET).await.unwrap().contains("200 OK"));
}

#[tokio::test]
async fn an_agent_that_stops_finishes_what_it_has() {
    let harness = Harness::start("agent-drain").await;
    let header =
        StreamHeader { audit_id: "test".to_owned(), identity: zoe(&[]).into(), ..StreamHeader::default() };
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
        let answer = harness.send(&zoe(&[]), request.as_bytes()).await.unwrap();
        assert_eq!(answer.contains("200 OK"), answers, "{method}: {answer}");
        let sent = harness.server.received().concat().matches("behave=break").count();
        assert_eq!(sent, if answers { 2 } else { 1 }, "{method}");
    }
}

#[tokio::test]
async fn a_server_that_switches_protocols_unasked_gets_no_bytes() {
    let harness = Harness::start("agent-switch").await;
    let request = b"GET /api/v1/pods?behave=switch HTTP/1.1\r\nHost: x\r\n\r\nsmuggled";
    let answer = harness.send(&zoe(&[]), request).await.unwrap();
    assert!(!answer.contains("101"), "{answer}");
    assert!(!harness.server.has_received("smuggled"));
}
