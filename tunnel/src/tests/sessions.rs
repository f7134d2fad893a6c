//! How sessions begin, drain and end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Authority, Pair, Relay, SERVER_NAME, agent_serves, header, loopback, soon};
use crate::codec::{ControlFrame, Hello};
use crate::limits::{PROBE_TIMEOUT, SILENT_TICKS_LOST, TICK};
use crate::{
    CloseReason, Dialer, InstanceId, Limits, Listener, OpenError, OutcomeState, Owner, Tls, transport,
};

const OWNER: Owner = Owner { user: 1, cluster: 1 };

/// A raw connection of an agent that says `bytes` on its control stream, and the reason that the listener closes with.
async fn said(bytes: &[u8]) -> CloseReason {
    let authority = Authority::new();
    let listener = Listener::bind(loopback(), &authority.gateway(), Limits::default()).unwrap();
    let connection = raw(&authority.agent(), &listener).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    CloseReason::from_error(&soon(connection.closed()).await)
}

async fn raw(tls: &Tls, listener: &Listener) -> quinn::Connection {
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let config = transport::dialer(tls, &Limits::default()).unwrap();
    soon(endpoint.connect_with(config, listener.local_addr().unwrap(), SERVER_NAME).unwrap()).await.unwrap()
}

fn bytes_of(frame: ControlFrame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

#[tokio::test]
async fn a_hello_that_does_not_fit_is_refused_with_its_reason() {
    let hello = || Hello::new(InstanceId::random());
    let newer = Hello { versions: (2, 3), ..hello() };
    assert_eq!(said(&bytes_of(ControlFrame::Hello(newer))).await, CloseReason::VersionUnsupported);
    let format = Hello { format: 9, reader_min: 9, ..hello() };
    assert_eq!(said(&bytes_of(ControlFrame::Hello(format))).await, CloseReason::FormatUnsupported);
    assert_eq!(said(&bytes_of(ControlFrame::Ping([0; 8]))).await, CloseReason::ProtocolViolation);
    assert_eq!(said(&[0x08, 0x00]).await, CloseReason::ProtocolViolation);
    let twice = [bytes_of(ControlFrame::Hello(hello())), bytes_of(ControlFrame::Hello(hello()))].concat();
    assert_eq!(said(&twice).await, CloseReason::ProtocolViolation);
}

#[tokio::test]
async fn an_agent_cannot_open_streams_beside_its_control_stream() {
    let authority = Authority::new();
    let listener = Listener::bind(loopback(), &authority.gateway(), Limits::default()).unwrap();
    let connection = raw(&authority.agent(), &listener).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&bytes_of(ControlFrame::Hello(Hello::new(InstanceId::random())))).await.unwrap();
    let _session = soon(listener.accept()).await.unwrap();
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(std::pin::pin!(connection.open_bi()).poll(&mut context).is_pending());
    assert!(std::pin::pin!(connection.open_uni()).poll(&mut context).is_pending());
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn an_agent_that_drains_gets_no_further_streams_and_is_closed_after_the_last() {
    let pair = Pair::new().await;
    let (mut gateway, mut agent) = pair.stream(1).await;
    pair.agent.goaway(Some(Duration::from_secs(2)));
    assert_eq!(soon(pair.gateway.draining()).await, Some(Duration::from_secs(2)));
    assert_eq!(pair.gateway.open(&header(), OWNER).unwrap_err(), OpenError::Draining);
    agent.write_all(b"still here").await.unwrap();
    agent.shutdown().await.unwrap();
    let mut read = Vec::new();
    soon(gateway.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"still here");
    drop((gateway, agent));
    assert_eq!(soon(pair.agent.closed()).await, CloseReason::Drained);
}

#[tokio::test]
async fn a_gateway_that_drains_tells_every_agent() {
    let pair = Pair::new().await;
    let (gateway, agent) = pair.stream(1).await;
    pair.listener.goaway(None);
    assert_eq!(soon(pair.agent.draining()).await, None);
    assert_eq!(pair.gateway.open(&header(), OWNER).unwrap_err(), OpenError::Draining);
    assert_eq!(pair.agent.close_reason(), None);
    drop((gateway, agent));
    assert_eq!(soon(pair.agent.closed()).await, CloseReason::Drained);
}

#[tokio::test]
async fn regression_an_idle_agent_finds_out_within_seconds_that_its_gateway_started_again() {
    let authority = Authority::new();
    let tls = authority.gateway();
    let (first, second) = (bind(&tls), bind(&tls));
    let relay = Relay::to(first.local_addr().unwrap()).await;
    let dialer = Dialer::new(&authority.agent(), Limits::default()).unwrap();
    let (agent, _gateway) =
        soon(async { tokio::join!(dialer.dial(relay.address, SERVER_NAME), first.accept()) }).await;
    let agent = agent.unwrap();
    relay.redirect(second.local_addr().unwrap());
    // By its reset, and not by its silence, which would be `Lost`.
    assert_eq!(soon(agent.closed()).await, CloseReason::Transport);
}

#[tokio::test]
async fn a_peer_that_is_asked_and_says_nothing_is_lost_within_a_second() {
    let pair = Pair::new().await;
    // One that is there stays.
    pair.gateway.probe();
    let closed = tokio::time::timeout(2 * PROBE_TIMEOUT, pair.gateway.closed()).await;
    assert!(closed.is_err(), "{closed:?}");
    pair.relay.go_silent();
    let began = tokio::time::Instant::now();
    pair.gateway.probe();
    assert_eq!(soon(pair.gateway.closed()).await, CloseReason::Lost);
    assert!(began.elapsed() < TICK * SILENT_TICKS_LOST, "{:?}", began.elapsed());
}

fn bind(tls: &Tls) -> Listener {
    Listener::bind(loopback(), tls, Limits::default()).unwrap()
}

#[tokio::test]
async fn closing_either_endpoint_says_so_to_the_other() {
    let pair = Pair::new().await;
    soon(pair.listener.close()).await;
    assert_eq!(soon(pair.agent.closed()).await, CloseReason::Shutdown);
    assert_eq!(pair.gateway.open(&header(), OWNER).unwrap_err(), OpenError::Closed);
    let pair = Pair::new().await;
    soon(pair.dialer.close()).await;
    assert_eq!(soon(pair.gateway.closed()).await, CloseReason::Shutdown);
    assert!(soon(pair.agent.accept()).await.is_none());
}

#[tokio::test]
async fn a_close_reason_crosses_and_fails_the_streams() {
    let pair = Pair::new().await;
    let (mut gateway, _agent) = pair.stream(1).await;
    pair.gateway.close(CloseReason::Replaced);
    assert_eq!(soon(pair.agent.closed()).await, CloseReason::Replaced);
    soon(gateway.read_u8()).await.unwrap_err();
    assert_eq!(gateway.outcome().get(), OutcomeState::Lost(Some(CloseReason::Replaced)));
}

#[tokio::test]
async fn a_silent_peer_is_lost_within_seconds_while_streams_are_open() {
    let pair = Pair::new().await;
    let (mut gateway, mut agent) = pair.stream(1).await;
    pair.relay.go_silent();
    let began = tokio::time::Instant::now();
    soon(gateway.read_u8()).await.unwrap_err();
    soon(agent.read_u8()).await.unwrap_err();
    assert_eq!(gateway.outcome().get(), OutcomeState::Lost(Some(CloseReason::Lost)));
    assert!(began.elapsed() < Duration::from_secs(10), "idle timeouts take 30 s: {:?}", began.elapsed());
}

#[tokio::test]
async fn dialling_where_nobody_listens_fails_in_time() {
    let silent = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let dialer = Dialer::new(&Authority::new().agent(), Limits::default()).unwrap();
    soon(dialer.dial(silent.local_addr().unwrap(), SERVER_NAME)).await.unwrap_err();
}

#[tokio::test]
async fn a_peer_that_never_says_hello_is_let_go() {
    let authority = Authority::new();
    let listener = Listener::bind(loopback(), &authority.gateway(), Limits::default()).unwrap();
    let connection = raw(&authority.agent(), &listener).await;
    assert!(matches!(soon(connection.closed()).await, quinn::ConnectionError::ApplicationClosed(_)));
    // The listener serves others all the same.
    let dialer = Dialer::new(&authority.agent(), Limits::default()).unwrap();
    let agent = soon(dialer.dial(listener.local_addr().unwrap(), SERVER_NAME)).await.unwrap();
    let _serving = agent_serves(&agent, |_| async {});
    assert!(soon(listener.accept()).await.is_some());
}
