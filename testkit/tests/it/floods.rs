//! Floods from peers without a credential: others are served, and memory has a bound. How much slower they are served
//! is `drover-loadtest floods`' to measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use drover_api::enrolment::GATEWAY_NAME;
use drover_testkit::client::Client;
use drover_testkit::floods::{Aim, Flood, KINDS, Kind};
use drover_testkit::pki::{Authority, Subject, Usage};
use drover_tunnel::{Dialer, Limits, Tls};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::bursts::resident;
use crate::system::{Fleet, soon};

/// Of one flood.
const LASTS: Duration = Duration::from_secs(3);
/// Of a handshake.
const PACKET: usize = 1200;
/// What a gateway may grow by, whatever comes.
const GROWTH_MAX: u64 = 192 << 20;

#[tokio::test]
async fn floods_leave_other_users_and_memory_alone() {
    let (fleet, server) = Fleet::with_api_server("floods").await;
    let aim = Aim {
        http1: Client::offering(&fleet.gateway, &[b"http/1.1"]).unwrap(),
        http2: Client::offering(&fleet.gateway, &[b"h2"]).unwrap(),
        tunnel: ([127, 0, 0, 1], fleet.gateway.tunnel_port).into(),
    };
    let client = fleet.client();
    for kind in KINDS {
        let before = resident(&fleet.running);
        let flood = Flood::start(kind, &aim);
        let (began, mut served) = (Instant::now(), 0);
        while began.elapsed() < LASTS {
            let answered = soon(client.get("one", "/version", &fleet.admin.token)).await;
            assert_eq!(answered.unwrap().0, 200, "{kind:?}");
            served += 1;
        }
        let (sent, after) = (flood.sent(), resident(&fleet.running));
        drop(flood);
        println!(
            "{kind:?}: {sent} sent, {served} of others served, {} MiB more",
            after.saturating_sub(before) >> 20
        );
        let at_least = if kind == Kind::SlowHeads { 500 } else { 20 };
        assert!(sent > at_least, "{kind:?}: {sent} are no flood");
        assert!(served > 3, "{kind:?}: {served}");
        assert!(after < before + GROWTH_MAX, "{kind:?}: {before} -> {after}");
    }
    // The tunnel that was there all the while.
    assert!(server.has_received("/version"));
}

/// RFC 9000, 8.1 allows three times what came. quinn sends the packet that reaches the limit whole, so that there is
/// less than one packet above it; under a flood a gateway asks for a proof of the address first.
#[tokio::test]
async fn an_address_that_is_not_proven_gets_about_three_times_what_it_sent() {
    let (fleet, _server) = Fleet::with_api_server("amplification").await;
    let (relay, onward) = (local_socket().await, local_socket().await);
    let dialer = dialer(&fleet, &Authority::new("another").unwrap());
    let (mut sent, mut came) = (0, 0);
    let first_packet_only = async {
        let mut packet = [0; 2048];
        sent = relay.recv(&mut packet).await.unwrap();
        onward.send_to(&packet[..sent], ("127.0.0.1", fleet.gateway.tunnel_port)).await.unwrap();
        loop {
            came += onward.recv(&mut packet).await.unwrap();
        }
    };
    tokio::select! {
        refused = dialer.dial(relay.local_addr().unwrap(), GATEWAY_NAME) => drop(refused.unwrap_err()),
        () = first_packet_only => {}
    }
    assert!(came > 0, "the gateway said nothing: this shows nothing");
    assert!(came < 3 * sent + PACKET, "{sent} bytes brought {came}");
}

async fn local_socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// An agent's, with a certificate of some authority.
fn dialer(fleet: &Fleet, authority: &Authority) -> Dialer {
    let folder = &fleet.gateway.folder;
    let uris = ["spiffe://drover/cluster/c-one1/agent".to_owned()];
    let subject = Subject { common_name: "drover-agent", uris: &uris, ..Subject::default() };
    let files = authority.issue_files(folder, "foreign", &subject, &[Usage::ClientAuth]).unwrap();
    let tls = Tls::load(&files.cert, &files.key, folder.join("tunnel-ca.crt")).unwrap();
    Dialer::new(&tls, Limits::default()).unwrap()
}

#[tokio::test]
async fn peers_of_another_authority_get_no_session_and_cost_nobody_theirs() {
    const PEERS: usize = 8;
    let (fleet, _server) = Fleet::with_api_server("foreign-peers").await;
    let dialer = Arc::new(dialer(&fleet, &Authority::new("another").unwrap()));
    let address = ([127, 0, 0, 1], fleet.gateway.tunnel_port).into();
    let refused = Arc::new(AtomicUsize::new(0));
    let before = resident(&fleet.running);
    let mut peers = JoinSet::new();
    for _ in 0..PEERS {
        let (dialer, refused) = (dialer.clone(), refused.clone());
        peers.spawn(async move {
            loop {
                assert!(dialer.dial(address, GATEWAY_NAME).await.is_err(), "a foreign peer got a session");
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (began, client, mut served) = (Instant::now(), fleet.client(), 0);
    while began.elapsed() < LASTS {
        assert_eq!(soon(client.get("one", "/version", &fleet.admin.token)).await.unwrap().0, 200);
        served += 1;
    }
    peers.abort_all();
    let (refused, after) = (refused.load(Ordering::Relaxed), resident(&fleet.running));
    println!(
        "{refused} peers refused, {served} requests served, {} MiB more",
        after.saturating_sub(before) >> 20
    );
    assert!(refused > 20 && served > 3, "{refused} {served}");
    assert!(after < before + GROWTH_MAX, "{before} -> {after}");
}
