//! Answers without an end, bodies without a size, and clients that go away.

use std::time::{Duration, Instant};

use drover_testkit::client::{Client, status};
use http_body_util::BodyExt;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::system::{DEADLINE, Fleet, clusters, soon};

const WATCHES: usize = 250;

fn watch(fleet: &Fleet, path: &str) -> String {
    let token = &fleet.admin.token;
    format!(
        "GET /k8s/clusters/one{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_watch_at_the_api_server_within_a_second() {
    let (fleet, server) = Fleet::with_api_server("watch-left").await;
    let mut open = server.open();
    for behave in ["watch", "hang"] {
        let mut stream = fleet.client().connect().await.unwrap();
        let request = watch(&fleet, &format!("/api/v1/pods?watch=true&behave={behave}"));
        stream.write_all(request.as_bytes()).await.unwrap();
        soon(open.wait_for(|open| *open == 1)).await.unwrap();
        if behave == "watch" {
            // The first line comes at once, although no second one follows.
            let mut read = vec![0; 4096];
            let length = soon(stream.read(&mut read)).await.unwrap();
            assert_eq!(status(&String::from_utf8_lossy(&read[..length])).unwrap(), 200);
        }
        drop(stream);
        let left = Instant::now();
        soon(open.wait_for(|open| *open == 0)).await.unwrap();
        assert!(left.elapsed() < Duration::from_secs(1), "{behave}: {:?}", left.elapsed());
    }
}

#[tokio::test]
async fn kubectl_that_leaves_ends_its_watch_at_a_real_api_server_within_a_second() {
    let fleet = Fleet::start("kubectl-left").await;
    let marked = "metadata.name=left-by-kubectl";
    let arguments = ["get", "configmaps", "-w", "--field-selector", marked];
    // kubectl speaks HTTP/2.
    let mut watch = fleet.kubectl(&fleet.viewer, "one").args(arguments).spawn().unwrap();
    let one = &clusters().one;
    let events = |stage: &str| {
        let events = one.events("left-by-kubectl");
        let watching = |event: &&serde_json::Value| event["verb"] == "watch" && event["stage"] == stage;
        events.iter().filter(watching).count()
    };
    let until = async |what: &str, stage: &str| {
        drover_testkit::process::until(what, DEADLINE, async || Ok((events(stage) > 0).then_some(())))
            .await
            .unwrap();
    };
    until("the watch to begin", "ResponseStarted").await;
    watch.kill().await.unwrap();
    let left = Instant::now();
    until("the watch to end", "ResponseComplete").await;
    assert!(left.elapsed() < Duration::from_secs(1), "{:?}", left.elapsed());
}

#[tokio::test]
async fn hundreds_of_watches_stall_nobody() {
    let (fleet, server) = Fleet::with_api_server("watches").await;
    let mut streams = Vec::new();
    for _ in 0..WATCHES {
        let mut stream = fleet.client().connect().await.unwrap();
        stream.write_all(watch(&fleet, "/api/v1/pods?watch=true&behave=watch").as_bytes()).await.unwrap();
        streams.push(stream);
    }
    soon(server.open().wait_for(|open| *open == WATCHES)).await.unwrap();
    for _ in 0..20 {
        let (status, _) = soon(fleet.client().get("one", "/version", &fleet.admin.token)).await.unwrap();
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn bodies_of_every_framing_arrive_whole() {
    let (fleet, _server) = Fleet::with_api_server("bodies").await;
    let client = fleet.client();
    let token = &fleet.admin.token;
    let head = |lines: &str| {
        let path = "/k8s/clusters/one/api/v1/namespaces/default/configmaps";
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{lines}\r\n")
    };
    let size = 5 << 20;
    let large = "x".repeat(size);
    for (name, request, expected) in [
        ("counted", format!("{}{large}", head(&format!("Content-Length: {size}\r\n"))), size),
        (
            "chunked",
            format!("{}{size:x}\r\n{large}\r\n0\r\n\r\n", head("Transfer-Encoding: chunked\r\n")),
            size,
        ),
        ("expected", head("Expect: 100-continue\r\nContent-Length: 3\r\n") + "abc", 3),
        ("none", head("Content-Length: 0\r\n"), 0),
    ] {
        let answer = client.raw(request.as_bytes()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(answer.contains(&format!("\"bytes\":{expected}")), "{name}: {answer}");
    }
    // Framed twice, a body could be read in two ways.
    let twice = head("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n") + "0\r\n\r\n";
    let answer = client.raw(twice.as_bytes()).await.unwrap();
    assert_eq!(status(&answer).unwrap(), 400, "{answer}");
}

#[tokio::test]
async fn a_refused_upload_gets_its_answer_and_leaves_no_second_request_behind() {
    let (fleet, server) = Fleet::with_api_server("refused-upload").await;
    let path = "/k8s/clusters/one/api/v1/namespaces/default/configmaps";
    let hidden = "GET /k8s/clusters/one/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let body = hidden.repeat(20_000);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        fleet.viewer.token,
        body.len()
    );
    let answer = fleet.client().raw(format!("{head}{body}").as_bytes()).await.unwrap();
    assert_eq!(status(&answer).unwrap(), 403, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(!server.has_received("hidden"));
}

#[tokio::test]
async fn a_large_answer_arrives_whole_on_either_protocol() {
    let fleet = Fleet::start("large").await;
    let client = Client::offering(&fleet.gateway, &[b"http/1.1"]).unwrap();
    let request = Request::get("/k8s/clusters/one/openapi/v2")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {}", fleet.viewer.token))
        .body(String::new())
        .unwrap();
    let response = client.send(request).await.unwrap();
    let over_h1 = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let over_h2 = fleet.says(&fleet.viewer, "one", &["get", "--raw", "/openapi/v2"]).await.unwrap();
    assert!(over_h1.len() > 1 << 20, "{} bytes", over_h1.len());
    let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    assert_eq!(parse(&over_h1), parse(over_h2.as_bytes()));
}
