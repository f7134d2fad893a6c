//! Upgraded connections: SPDY and WebSocket, and everything that is no upgrade after all.

use std::time::{Duration, Instant};

use drover_testkit::client::status;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::system::{Fleet, soon};

/// Bytes that no API server may see unless it said 101.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

fn head(fleet: &Fleet, method: &str, query: &str, upgrade: &[&str]) -> String {
    let path = format!("/k8s/clusters/one/api/v1/namespaces/default/pods/p/exec?command=sh{query}");
    let token = &fleet.admin.token;
    let lines = upgrade.join("\r\n");
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{lines}\r\n\r\n")
}

/// Reads an answer's head.
async fn answer_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const SPDY: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: SPDY/3.1",
    "X-Stream-Protocol-Version: v5.channel.k8s.io",
    "X-Stream-Protocol-Version: v4.channel.k8s.io",
];
const WEB_SOCKET: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: v5.channel.k8s.io",
];

#[tokio::test]
async fn upgraded_bytes_cross_untouched_both_ways() {
    let (fleet, server) = Fleet::with_api_server("upgrade").await;
    for (method, upgrade, value) in [("POST", SPDY, "SPDY/3.1"), ("GET", WEB_SOCKET, "websocket")] {
        let mut stream = fleet.client().connect().await.unwrap();
        let lines: Vec<_> = upgrade.into_iter().chain(["Content-Length: 0"]).collect();
        stream.write_all(head(&fleet, method, "", &lines).as_bytes()).await.unwrap();
        let head = answer_head(&mut stream).await.to_lowercase();
        assert_eq!(status(&head).unwrap(), 101, "{head}");
        // Go takes a Connection header that holds "close" for no upgrade.
        assert_eq!(head.matches("connection: upgrade\r\n").count(), 1, "{head}");
        assert!(head.contains(&format!("upgrade: {}\r\n", value.to_lowercase())), "{head}");
        let sent: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let (mut read_half, mut write_half) = tokio::io::split(stream);
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            write_half.write_all(&copy).await.unwrap();
            write_half.flush().await.unwrap();
            write_half
        });
        let mut came_back = vec![0; sent.len()];
        soon(read_half.read_exact(&mut came_back)).await.unwrap();
        assert!(came_back == sent, "bytes changed on the way");
        drop(writing.await.unwrap());
    }
    let received = server.received().concat();
    assert_eq!(received.matches("x-stream-protocol-version: v5").count(), 1, "lines stay lines");
    assert_eq!(received.matches("x-stream-protocol-version: v4").count(), 1, "lines stay lines");
}

#[tokio::test]
async fn an_upgrade_that_is_answered_otherwise_gets_that_answer_and_no_bytes_follow() {
    let (fleet, server) = Fleet::with_api_server("no-upgrade").await;
    for code in ["201", "400", "403", "500"] {
        let request = head(&fleet, "POST", &format!("&behave={code}"), &SPDY) + SMUGGLED;
        let answer = fleet.client().raw(request.as_bytes()).await.unwrap();
        assert_eq!(status(&answer).unwrap().to_string(), code, "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer: {answer}");
    }
    // Nobody answers: the bytes wait with us until the client goes.
    let mut open = server.open();
    let mut stream = fleet.client().connect().await.unwrap();
    stream.write_all((head(&fleet, "POST", "&behave=hang", &SPDY) + SMUGGLED).as_bytes()).await.unwrap();
    soon(open.wait_for(|open| *open > 0)).await.unwrap();
    drop(stream);
    soon(open.wait_for(|open| *open == 0)).await.unwrap();
    assert!(!server.has_received("smuggled"), "{:?}", server.received());
}

#[tokio::test]
async fn a_token_in_a_subprotocol_is_a_credential_and_ends_at_the_gateway() {
    use base64::Engine;
    let (fleet, server) = Fleet::with_api_server("subprotocol").await;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&fleet.admin.token);
    let protocols =
        format!("Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{token}, v4.channel.k8s.io");
    let lines = ["Connection: Upgrade", "Upgrade: websocket", &protocols];
    let with_header = head(&fleet, "GET", "", &lines);
    let request = with_header.replace(&format!("Authorization: Bearer {}\r\n", fleet.admin.token), "");
    let mut stream = fleet.client().connect().await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status(&answer_head(&mut stream).await).unwrap(), 101);
    assert!(server.has_received("sec-websocket-protocol: v4.channel.k8s.io"));
    assert!(!server.has_received(&token));
}

#[tokio::test]
async fn a_client_that_leaves_an_upgrade_ends_it_within_a_second() {
    let (fleet, server) = Fleet::with_api_server("upgrade-left").await;
    let mut stream = fleet.client().connect().await.unwrap();
    stream.write_all(head(&fleet, "POST", "", &SPDY).as_bytes()).await.unwrap();
    assert_eq!(status(&answer_head(&mut stream).await).unwrap(), 101);
    assert_eq!(*server.open().borrow(), 1);
    drop(stream);
    let left = Instant::now();
    soon(server.open().wait_for(|open| *open == 0)).await.unwrap();
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}
