//! One request's bytes, its refusal, and its end from either side.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Pair, agent_serves, soon};
use crate::{Delivered, OutcomeState, Owner, RefusalCode, StreamRefusal};

const OWNER: Owner = Owner { user: 1, cluster: 1 };

fn refusal() -> StreamRefusal {
    StreamRefusal {
        code: RefusalCode::ClusterNotReady,
        delivered: Delivered::No,
        retry_after: Some(Duration::from_secs(1)),
        message: "not yet".to_owned(),
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_end() {
    let pair = Pair::new().await;
    let (mut gateway, mut agent) = pair.stream(1).await;
    gateway.write_all(b"request").await.unwrap();
    gateway.shutdown().await.unwrap();
    let mut read = Vec::new();
    soon(agent.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"request");
    agent.write_all(b"response").await.unwrap();
    agent.shutdown().await.unwrap();
    drop(agent);
    read.clear();
    soon(gateway.read_to_end(&mut read)).await.unwrap();
    assert_eq!((read.as_slice(), gateway.outcome().get()), (&b"response"[..], OutcomeState::Accepted));
    drop(gateway);
    assert_eq!((pair.gateway.in_flight(), pair.agent.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_request_and_its_header_arrive_without_waiting_for_an_answer() {
    let pair = Pair::new().await;
    let mut gateway = pair.open(1);
    assert_eq!(gateway.outcome().get(), OutcomeState::Waiting);
    gateway.write_all(b"request").await.unwrap();
    gateway.shutdown().await.unwrap();
    let received = soon(pair.agent.accept()).await.unwrap().receive().await.unwrap();
    assert_eq!(received.header(), &super::support::header());
    let mut read = Vec::new();
    soon(received.accept(OWNER).read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"request");
}

#[tokio::test]
async fn a_refusal_reaches_the_gateway_whole() {
    let pair = Pair::new().await;
    let _agent = agent_serves(&pair.agent, |incoming| async {
        incoming.receive().await.unwrap().refuse(refusal()).await
    });
    let mut gateway = pair.open(1);
    gateway.flush().await.unwrap();
    soon(gateway.read_u8()).await.unwrap_err();
    assert_eq!(gateway.outcome().get(), OutcomeState::Refused(refusal()));
}

#[tokio::test]
async fn a_refusal_is_read_while_a_large_request_is_still_being_sent() {
    let pair = Pair::new().await;
    let _agent = agent_serves(&pair.agent, |incoming| async {
        incoming.receive().await.unwrap().refuse(refusal()).await
    });
    let mut gateway = pair.open(1);
    soon(gateway.write_all(&vec![0; 8 << 20])).await.unwrap();
    soon(gateway.read_u8()).await.unwrap_err();
    assert_eq!(gateway.outcome().get(), OutcomeState::Refused(refusal()));
}

#[tokio::test]
async fn a_response_that_needs_no_more_of_the_request_is_read_to_its_end() {
    let pair = Pair::new().await;
    let _agent = agent_serves(&pair.agent, |incoming| async {
        let mut stream = incoming.receive().await.unwrap().accept(OWNER);
        stream.write_all(b"enough").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut gateway = pair.open(1);
    let cancelled = gateway.cancelled();
    soon(gateway.write_all(&vec![0; 8 << 20])).await.unwrap();
    let mut read = Vec::new();
    soon(gateway.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"enough");
    assert!(futures_poll(cancelled).is_none(), "an answer is no cancellation");
}

fn futures_poll<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(ready) => Some(ready),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_gateway_that_gives_up_ends_the_agents_side() {
    let pair = Pair::new().await;
    let (gateway, mut agent) = pair.stream(1).await;
    let cancelled = agent.cancelled();
    drop(gateway);
    tokio::time::timeout(Duration::from_secs(1), cancelled)
        .await
        .expect("the other side ends within a second");
    soon(agent.read_u8()).await.unwrap_err();
    soon(async { while agent.write_all(b"more").await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_agent_that_gives_up_ends_the_gateways_side() {
    let pair = Pair::new().await;
    let (mut gateway, mut agent) = pair.stream(1).await;
    agent.write_all(b"begun").await.unwrap();
    soon(gateway.read_exact(&mut [0; 5])).await.unwrap();
    let cancelled = gateway.cancelled();
    drop(agent);
    tokio::time::timeout(Duration::from_secs(1), cancelled)
        .await
        .expect("the other side ends within a second");
    soon(gateway.read_u8()).await.unwrap_err();
    assert_eq!(gateway.outcome().get(), OutcomeState::Lost(None));
}

#[tokio::test]
async fn a_stream_that_both_sides_completed_is_never_cancelled() {
    let pair = Pair::new().await;
    let (mut gateway, mut agent) = pair.stream(1).await;
    let (of_gateway, of_agent) = (gateway.cancelled(), agent.cancelled());
    gateway.shutdown().await.unwrap();
    agent.shutdown().await.unwrap();
    soon(gateway.read_to_end(&mut Vec::new())).await.unwrap();
    soon(agent.read_to_end(&mut Vec::new())).await.unwrap();
    drop((gateway, agent));
    // Another stream's round trip: by then the first one's acknowledgements have come.
    let (mut gateway, mut agent) = pair.stream(1).await;
    agent.write_all(b"x").await.unwrap();
    soon(gateway.read_u8()).await.unwrap();
    assert!(futures_poll(of_gateway).is_none() && futures_poll(of_agent).is_none());
}

#[tokio::test]
async fn hundreds_of_streams_share_a_session_without_sharing_bytes() {
    let pair = Pair::new().await;
    let _agent = agent_serves(&pair.agent, |incoming| async {
        let mut stream = incoming.receive().await.unwrap().accept(OWNER);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        stream.write_all(&read).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut streams = tokio::task::JoinSet::new();
    for number in 0..500_u32 {
        let mut stream = pair.open(u64::from(number));
        streams.spawn(async move {
            stream.write_u32(number).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, number.to_be_bytes());
        });
    }
    soon(streams.join_all()).await;
}
