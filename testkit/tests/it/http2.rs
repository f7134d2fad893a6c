//! One HTTP/2 connection, as kubectl and controllers use it, and as an attacker might.

use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_testkit::client::Client;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio_util::task::AbortOnDropHandle;

use crate::system::{Fleet, soon};

/// A connection, and the task that drives it.
struct Connection {
    sender: SendRequest<Bytes>,
    _driver: AbortOnDropHandle<()>,
}

impl Connection {
    async fn open(fleet: &Fleet) -> Self {
        let client = Client::offering(&fleet.gateway, &[b"h2"]).unwrap();
        let (sender, driver) = h2::client::handshake(client.connect().await.unwrap()).await.unwrap();
        let driver = tokio::spawn(async move { drop(driver.await) });
        Self { sender, _driver: AbortOnDropHandle::new(driver) }
    }

    async fn get(
        &mut self,
        fleet: &Fleet,
        path: &str,
        more: HeaderMap,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut request =
            Request::get(format!("{}{path}", fleet.gateway.cluster_url("one"))).body(()).unwrap();
        let token = format!("Bearer {}", fleet.admin.token);
        request.headers_mut().insert("authorization", token.parse().unwrap());
        request.headers_mut().extend(more);
        let mut sender = soon(self.sender.clone().ready()).await?;
        soon(sender.send_request(request, true)?.0).await
    }
}

#[tokio::test]
async fn more_watches_than_servers_allow_on_one_connection_stall_nobody() {
    let (fleet, server) = Fleet::with_api_server("h2-watches").await;
    let mut connection = Connection::open(&fleet).await;
    let mut watches = Vec::new();
    // Of 250 that the gateway allows on a connection; API servers allow 100.
    for _ in 0..240 {
        let path = "/api/v1/pods?watch=true&behave=watch";
        let mut watch = connection.get(&fleet, path, HeaderMap::new()).await.unwrap().into_body();
        soon(watch.data()).await.unwrap().unwrap();
        watches.push(watch);
    }
    assert_eq!(*server.open().borrow(), watches.len());
    let answer = connection.get(&fleet, "/version", HeaderMap::new()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_its_watch_at_the_api_server_within_a_second() {
    let (fleet, server) = Fleet::with_api_server("h2-reset").await;
    let mut connection = Connection::open(&fleet).await;
    let mut open = server.open();
    let kept =
        connection.get(&fleet, "/api/v1/pods?watch=true&behave=watch", HeaderMap::new()).await.unwrap();
    let left =
        connection.get(&fleet, "/api/v1/pods?watch=true&behave=watch", HeaderMap::new()).await.unwrap();
    soon(open.wait_for(|open| *open == 2)).await.unwrap();
    drop(left);
    let reset = Instant::now();
    soon(open.wait_for(|open| *open == 1)).await.unwrap();
    assert!(reset.elapsed() < Duration::from_secs(1), "{:?}", reset.elapsed());
    assert_eq!(connection.get(&fleet, "/version", HeaderMap::new()).await.unwrap().status(), 200);
    drop(kept);
}

#[tokio::test]
async fn a_header_list_has_a_limit_and_large_tokens_are_below_it() {
    let (fleet, server) = Fleet::with_api_server("h2-headers").await;
    let mut connection = Connection::open(&fleet).await;
    let with = |bytes: usize| {
        let mut headers = HeaderMap::new();
        headers.insert("x-large", "x".repeat(bytes).parse().unwrap());
        headers
    };
    let answer = connection.get(&fleet, "/api/v1/pods", with(60 << 10)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let long = format!("/api/v1/pods?labelSelector={}", "a".repeat(60 << 10));
    let answer = connection.get(&fleet, &long, HeaderMap::new()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let before = server.received().concat().len();
    let refused = Connection::open(&fleet).await.get(&fleet, "/api/v1/pods", with(400 << 10)).await;
    assert!(refused.as_ref().map_or(true, |answer| answer.status() == 431), "{refused:?}");
    assert_eq!(server.received().concat().len(), before);
}

#[tokio::test]
async fn identity_in_http2_fields_is_refused() {
    let (fleet, server) = Fleet::with_api_server("h2-identity").await;
    let mut connection = Connection::open(&fleet).await;
    let mut headers = HeaderMap::new();
    headers.insert("impersonate-user", "root".parse().unwrap());
    assert_eq!(connection.get(&fleet, "/api/v1/pods", headers).await.unwrap().status(), 403);
    assert!(!server.has_received("root"));
}
