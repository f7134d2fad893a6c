//! Much at once: long lists on one stream, readers that do not read, and thousands of requests.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use drover_api::kinds::Domain;
use drover_testkit::api_server::{ApiServer, BURST_OBJECTS};
use drover_testkit::client::Client;
use drover_testkit::process::{Process, memory, until};
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;

use crate::system::{DEADLINE, Fleet, soon};

const WATCH_LIST: &str =
    "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
/// Of what a stalled stream holds on its way: kernel buffers, the stream's window, the hops' copies.
const HELD_MAX: u64 = 24 << 20;

pub(crate) fn resident(process: &Process) -> u64 {
    memory(process.pid()).unwrap()
}

async fn watch(fleet: &Fleet, query: &str) -> hyper::Response<Incoming> {
    watch_of(fleet, &fleet.admin.token, query).await
}

async fn watch_of(fleet: &Fleet, token: &str, query: &str) -> hyper::Response<Incoming> {
    let request = Request::get(format!("/k8s/clusters/one/api/v1/configmaps?{query}"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"))
        .header("accept-encoding", "gzip")
        .body(String::new())
        .unwrap();
    let response = soon(fleet.client().send(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn fifty_thousand_objects_wait_for_their_reader_and_arrive_whole() {
    let (fleet, server) = Fleet::with_api_server("burst").await;
    let (gateway, agent) = (resident(&fleet.running), resident(&fleet.agents[0]));
    let mut response = watch(&fleet, &format!("{WATCH_LIST}&behave=burst")).await;
    let first = soon(response.frame()).await.unwrap().unwrap().into_data().unwrap();
    // Nobody reads on: the server comes to a halt, far from the end.
    let mut before = 0;
    until("the server to be held back", DEADLINE, async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sent = server.burst_bytes();
        Ok((std::mem::replace(&mut before, sent) == sent).then_some(()))
    })
    .await
    .unwrap();
    assert!(before < HELD_MAX, "{before} bytes are on their way");
    assert!(resident(&fleet.running) < gateway + HELD_MAX);
    assert!(resident(&fleet.agents[0]) < agent + HELD_MAX);
    let rest = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let lines = first.iter().chain(&rest).filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, BURST_OBJECTS);
    assert_eq!((first.len() + rest.len()) as u64, server.burst_bytes());
    assert!(resident(&fleet.running) < gateway + HELD_MAX, "{}", resident(&fleet.running));
}

#[tokio::test]
async fn a_real_watch_list_ends_with_its_bookmark_and_goes_on() {
    let fleet = Fleet::start("watch-list").await;
    let mut response = watch(&fleet, WATCH_LIST).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut decoder = flate2::write::MultiGzDecoder::new(Vec::new());
    let end = r#""k8s.io/initial-events-end":"true""#;
    while !String::from_utf8_lossy(decoder.get_ref()).contains(end) {
        let data: Bytes = soon(response.frame()).await.unwrap().unwrap().into_data().unwrap();
        decoder.write_all(&data).unwrap();
        decoder.flush().unwrap();
    }
    assert!(String::from_utf8_lossy(decoder.get_ref()).contains("kube-root-ca.crt"));
}

#[tokio::test]
async fn five_thousand_requests_of_many_clients_lose_none_to_goaway() {
    const CLIENTS: usize = 20;
    let fleet = Fleet::start("goaway").await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Client::offering(&fleet.gateway, &[b"h2"]).unwrap();
        let request = Request::get(format!("{}/version", fleet.gateway.cluster_url("one")))
            .header("authorization", format!("Bearer {}", fleet.admin.token))
            .body(())
            .unwrap();
        clients.spawn(async move {
            let (sender, driver) = h2::client::handshake(client.connect().await.unwrap()).await.unwrap();
            // Ends with its connection.
            tokio::spawn(driver);
            for _ in 0..5000 / CLIENTS {
                let mut sender = soon(sender.clone().ready()).await.unwrap();
                let (answer, _) = sender.send_request(request.clone(), true).unwrap();
                let answer = soon(answer).await.unwrap();
                assert_eq!(answer.status(), 200);
                let mut body = answer.into_body();
                while let Some(part) = soon(body.data()).await {
                    let part = part.unwrap();
                    body.flow_control().release_capacity(part.len()).unwrap();
                }
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn readers_and_uploads_that_stall_cost_only_themselves() {
    const STALLED: usize = 32;
    let folder = crate::system::folder("stalled");
    let server = ApiServer::start(&folder, "one", "c-one1").await.unwrap();
    let mut members = Vec::new();
    let fleet = Fleet::in_front_of("stalled", &[&server.target], |roster| {
        for name in ["first", "second", "third"] {
            let member = roster.user(name, &[]).unwrap();
            roster.bind(&member.principal, "cluster-owner", Domain::Global);
            members.push(member);
        }
    })
    .await;
    let [first, second, third] = &members[..] else { unreachable!() };
    let (gateway, agent) = (resident(&fleet.running), resident(&fleet.agents[0]));
    let mut stalled = Vec::new();
    let path = "/k8s/clusters/one/api/v1/namespaces/default/pods";
    for user in [first, second] {
        for _ in 0..STALLED {
            let mut reader = fleet.client().connect().await.unwrap();
            let head = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", user.token);
            let get = format!("GET {path}?watch=true&behave=burst HTTP/1.1\r\n{head}\r\n");
            reader.write_all(get.as_bytes()).await.unwrap();
            let mut upload = fleet.client().connect().await.unwrap();
            let post =
                format!("POST {path}/p/exec?behave=hang HTTP/1.1\r\n{head}Content-Length: 100000000\r\n\r\n");
            upload.write_all(post.as_bytes()).await.unwrap();
            // As much as fits on the way.
            let part = vec![b'x'; 64 << 10];
            while tokio::time::timeout(Duration::from_millis(20), upload.write_all(&part)).await.is_ok() {}
            stalled.push((reader, upload));
        }
    }
    soon(server.open().wait_for(|open| *open == 4 * STALLED)).await.unwrap();
    for _ in 0..200 {
        let (status, _) = soon(fleet.client().get("one", "/version", &third.token)).await.unwrap();
        assert_eq!(status, 200);
    }
    // One of the users who stall gets whole what they do read.
    let mut response = watch_of(&fleet, &first.token, &format!("{WATCH_LIST}&behave=burst")).await;
    let mut lines = 0;
    while let Some(frame) = soon(response.frame()).await {
        lines += frame.unwrap().into_data().unwrap().iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, BURST_OBJECTS);
    // A stream that stalls holds its window at each end of the tunnel, and what the kernel holds for its sockets.
    let held_max = STALLED as u64 * 4 * (4 << 20);
    assert!(resident(&fleet.running) < gateway + held_max, "{}", resident(&fleet.running));
    assert!(resident(&fleet.agents[0]) < agent + held_max, "{}", resident(&fleet.agents[0]));
}

#[tokio::test]
async fn who_runs_too_many_at_once_is_told_so_and_others_go_on() {
    let (mut fleet, server) = Fleet::with_api_server("busy").await;
    fleet.running.signal("TERM").await.unwrap();
    until("the gateway to end", DEADLINE, async || Ok(fleet.running.check().is_err().then_some(())))
        .await
        .unwrap();
    fleet.gateway.more = vec!["--user-requests-max=3".to_owned(), "--cluster-requests-max=4".to_owned()];
    let _running = fleet.gateway.start().await.unwrap();
    fleet.connected("one").await;
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(watch(&fleet, "watch=true&behave=watch").await);
    }
    let cause = async |token: &str| {
        let (status, body) = soon(fleet.client().get("one", "/version", token)).await.unwrap();
        (status, body["details"]["causes"][0]["reason"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(cause(&fleet.admin.token).await, (429, "UserBusy".to_owned()));
    assert_eq!(cause(&fleet.viewer.token).await.0, 200);
    watches.push(watch_of(&fleet, &fleet.viewer.token, "watch=true&behave=watch").await);
    assert_eq!(cause(&fleet.viewer.token).await, (429, "ClusterBusy".to_owned()));
    watches.clear();
    soon(server.open().wait_for(|open| *open == 0)).await.unwrap();
    until("there to be room again", DEADLINE, async || {
        Ok((cause(&fleet.admin.token).await.0 == 200).then_some(()))
    })
    .await
    .unwrap();
}
