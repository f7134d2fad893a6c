//! What clients see when an agent, a gateway or a snapshot fails, and how soon it is over.

use std::time::{Duration, Instant};

use drover_testkit::client::{self, Client, fetch};
use drover_testkit::fleet::Target;
use drover_testkit::process::until;
use http::header::RETRY_AFTER;
use hyper::{Method, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::system::{DEADLINE, Fleet, clusters, soon};

/// Of each kind of request in flight when the agent is killed.
const IN_FLIGHT: usize = 8;

#[tokio::test]
async fn a_killed_agent_costs_reads_nothing_and_writes_a_clear_answer() {
    let mut fleet = Fleet::start("agent-killed").await;
    let client = fleet.client();
    let token = fleet.admin.token.clone();
    // A server that stands still keeps every request in flight.
    let server = clusters().two.plane.api_server();
    server.signal("STOP").await.unwrap();
    let (mut reads, mut writes) = (JoinSet::new(), JoinSet::new());
    for number in 0..IN_FLIGHT {
        let (reader, writer, token) = (client.clone(), client.clone(), token.clone());
        let path = format!("/api/v1/namespaces/default?killed={number}");
        let request = post(&format!("/k8s/clusters/two/api/v1/namespaces/none/pods?killed={number}"), &token);
        reads.spawn(async move { reader.get("two", &path, &token).await });
        writes.spawn(async move { answer(&writer, request).await });
    }
    in_flight(&fleet, 2 * IN_FLIGHT).await;
    fleet.agents[1].signal("KILL").await.unwrap();
    server.signal("CONT").await.unwrap();
    let target = &clusters().two.target;
    fleet.agents.push(fleet.gateway.start_agent(target, "b").await.unwrap());
    let restarted = Instant::now();

    while let Some(write) = soon(writes.join_next()).await {
        let (status, retry_after, body) = write.unwrap();
        assert_eq!((status, retry_after), (502, false), "{body}");
        assert_eq!(body["details"]["name"], "two", "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
    }
    while let Some(read) = soon(reads.join_next()).await {
        let (status, body) = read.unwrap().unwrap();
        assert_eq!(status, 200, "{body}");
    }
    fleet.connected("two").await;
    assert!(restarted.elapsed() < Duration::from_secs(10), "{:?}", restarted.elapsed());
}

#[tokio::test]
async fn one_of_two_agents_may_go_without_a_read_noticing() {
    let (mut fleet, server) = Fleet::with_api_server("two-agents").await;
    fleet.agents.push(fleet.gateway.start_agent(&server.target, "b").await.unwrap());
    metric(&fleet, "gateway_tunnel_sessions", 2.0).await;
    let client = fleet.client();
    let mut reads = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, token) = (client.clone(), fleet.admin.token.clone());
        reads.spawn(async move { client.get("one", "/api/v1/pods?behave=gate", &token).await });
    }
    soon(server.open().wait_for(|open| *open == IN_FLIGHT)).await.unwrap();
    fleet.agents[0].signal("KILL").await.unwrap();
    server.open_gate();
    let killed = Instant::now();
    while let Some(read) = soon(reads.join_next()).await {
        let (status, body) = read.unwrap().unwrap();
        assert_eq!(status, 200, "{body}");
    }
    // Three silent seconds make a session lost.
    assert!(killed.elapsed() < Duration::from_secs(6), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn a_new_agent_serves_at_once_where_the_old_one_died_without_a_word() {
    let (mut fleet, server) = Fleet::with_api_server("agent-replaced").await;
    fleet.agents[0].signal("KILL").await.unwrap();
    fleet.agents.push(fleet.gateway.start_agent(&server.target, "b").await.unwrap());
    until("the new agent to be there", DEADLINE, async || {
        Ok((fleet.running.log_tail().matches("agent connected").count() == 2).then_some(()))
    })
    .await
    .unwrap();
    let request = post("/k8s/clusters/one/api/v1/namespaces/default/pods", &fleet.admin.token);
    let began = Instant::now();
    let (status, _, body) = until("the API server to be ready", DEADLINE, async || {
        let answer = answer(&fleet.client(), request.clone()).await;
        Ok((answer.2["details"]["causes"][0]["reason"] != "ClusterNotReady").then_some(answer))
    })
    .await
    .unwrap();
    assert_eq!(status, 200, "{body}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn regression_a_read_that_one_agent_turns_away_is_sent_to_the_other() {
    let (mut fleet, server) = Fleet::with_api_server("turned-away").await;
    // Nothing listens there.
    let unreachable = Target { address: "127.0.0.1:1".to_owned(), ..server.target.clone() };
    fleet.agents.push(fleet.gateway.start_agent(&unreachable, "b").await.unwrap());
    metric(&fleet, "gateway_tunnel_sessions", 2.0).await;
    for _ in 0..10 {
        let (status, body) = fleet.client().get("one", "/api/v1/pods", &fleet.admin.token).await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    metric(&fleet, "gateway_requests_retried_total", 1.0).await;
}

#[tokio::test]
async fn a_gateway_that_stops_finishes_what_it_has() {
    let (fleet, server) = Fleet::with_api_server("gateway-stops").await;
    let mut stream = fleet.client().connect().await.unwrap();
    let idle = fleet.client().connect().await.unwrap();
    let path = "/k8s/clusters/one/api/v1/namespaces/default/pods";
    let token = &fleet.admin.token;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n\r\na"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    soon(server.open().wait_for(|open| *open == 1)).await.unwrap();
    fleet.running.signal("TERM").await.unwrap();
    until("the port to be closed", DEADLINE, async || {
        Ok(fleet.client().connect().await.is_err().then_some(()))
    })
    .await
    .unwrap();
    stream.write_all(b"b").await.unwrap();
    let mut answer = vec![0; 4096];
    let length = soon(stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stopped = Instant::now();
    soon(fleet.running.stop()).await.unwrap();
    assert!(
        stopped.elapsed() < Duration::from_secs(10),
        "an idle client does not hold it: {:?}",
        stopped.elapsed()
    );
    drop(idle);
}

#[tokio::test]
async fn without_an_agent_nothing_is_sent_and_clients_are_told_so() {
    let mut fleet = Fleet::start("no-agent").await;
    let client = fleet.client();
    fleet.agents.remove(1).stop().await.unwrap();
    let request = || post("/k8s/clusters/two/api/v1/namespaces/default/configmaps", &fleet.admin.token);
    let refused = until("the session to be gone", DEADLINE, async || {
        let answer = answer(&client, request()).await;
        Ok((answer.0 == 503).then_some(answer))
    });
    let (_, retry_after, body) = refused.await.unwrap();
    assert!(retry_after, "an agent that was here a moment ago is expected back: {body}");
    assert_eq!(body["details"]["causes"][0]["reason"], "SessionReconnecting", "{body}");
    assert_eq!(body["details"]["name"], "two", "{body}");
    // The other cluster is none the wiser.
    assert_eq!(client.get("one", "/version", &fleet.admin.token).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_gateway_that_starts_again_serves_from_its_snapshot() {
    let fleet = Fleet::start("restart").await;
    let Fleet { gateway, admin, running, agents, .. } = &fleet;
    let _agents = agents;
    running.signal("KILL").await.unwrap();
    let _running = gateway.start().await.unwrap();
    let client = fleet.client();
    // It knows users at once, and agents come back by themselves. What the old one left in the kernel may reset first.
    until("the new one to answer", DEADLINE, async || {
        let answered = client.get("one", "/version", "drv_nobody").await.ok();
        Ok(answered.inspect(|(status, _)| assert_eq!(*status, 401)).map(drop))
    })
    .await
    .unwrap();
    until("the agent to be back", DEADLINE, async || {
        Ok((client.get("one", "/version", &admin.token).await?.0 == 200).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_changed_snapshot_is_taken_up_and_a_malformed_one_is_refused_whole() {
    let mut fleet = Fleet::start("snapshot").await;
    let client = fleet.client();
    let token = fleet.viewer.token.clone();
    let status = async || client.get("one", "/version", &token).await.map(|(status, _)| status);
    assert_eq!(status().await.unwrap(), 200);

    fleet.roster.document.users[1].disabled = true;
    fleet.roster.publish().unwrap();
    let changed = Instant::now();
    until("the user to be locked out", DEADLINE, async || Ok((status().await? == 401).then_some(())))
        .await
        .unwrap();
    assert!(changed.elapsed() < Duration::from_secs(3), "{:?}", changed.elapsed());

    // One unsound object, beside a change that would let the user in again.
    fleet.roster.document.users[1].disabled = false;
    fleet.roster.document.bindings[0].role = "no-such-role".to_owned();
    fleet.roster.publish().unwrap();
    metric(&fleet, "gateway_snapshots_refused_total", 1.0).await;
    assert_eq!(status().await.unwrap(), 401, "the last good snapshot stays");
    std::fs::write(fleet.roster.path(), "{").unwrap();
    metric(&fleet, "gateway_snapshots_refused_total", 2.0).await;
    assert_eq!(client.get("one", "/version", &fleet.admin.token).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_token_that_control_has_not_signed_for_is_refused_for_the_moment() {
    let mut fleet = Fleet::start("unasserted").await;
    fleet.roster.publish().unwrap();
    fleet.roster.document.revision += 1;
    fleet.roster.document.assertions = None;
    let document = serde_json::to_string(&fleet.roster.document).unwrap();
    std::fs::write(fleet.roster.path(), document).unwrap();
    let client = fleet.client();
    let refused = until("the snapshot without signatures to be taken up", DEADLINE, async || {
        let (status, body) = client.get("one", "/version", &fleet.admin.token).await?;
        Ok((status == 503).then_some(body))
    });
    assert_eq!(refused.await.unwrap()["details"]["causes"][0]["reason"], "Unasserted");
}

#[tokio::test]
async fn beyond_its_staleness_a_snapshot_serves_nobody() {
    let mut fleet = Fleet::start("stale").await;
    let client = fleet.client();
    fleet.roster.document.max_staleness_s = 1;
    fleet.roster.publish().unwrap();
    let refused = until("the snapshot to be stale", DEADLINE, async || {
        let (status, body) = client.get("one", "/version", &fleet.admin.token).await?;
        Ok((status == 503).then_some(body))
    });
    assert_eq!(refused.await.unwrap()["details"]["causes"][0]["reason"], "SnapshotStale");
    let ready = fleet.gateway.metrics_url().replace("/metrics", "/readyz");
    assert_eq!(fetch(&ready).await.unwrap(), (503, "not ready: snapshot\n".to_owned()));
    fleet.roster.document.max_staleness_s = 3600;
    fleet.roster.publish().unwrap();
    fleet.connected("one").await;
}

fn post(path: &str, token: &str) -> Request<http_body_util::Empty<bytes::Bytes>> {
    let request = Request::builder().method(Method::POST).uri(path).header("host", "localhost");
    request.header("authorization", format!("Bearer {token}")).body(Default::default()).unwrap()
}

/// Status, whether a client may try again by itself, and the body.
async fn answer(
    client: &Client,
    request: Request<http_body_util::Empty<bytes::Bytes>>,
) -> (u16, bool, Value) {
    use http_body_util::BodyExt;
    let response = client.send(request).await.unwrap();
    let (status, retry) = (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER));
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    (status, retry, serde_json::from_slice(&body).unwrap_or_default())
}

/// Waits until that many requests are on their way.
async fn in_flight(fleet: &Fleet, count: usize) {
    metric(fleet, "gateway_requests_in_flight", count as f64).await;
}

async fn metric(fleet: &Fleet, name: &str, at_least: f64) {
    let url = fleet.gateway.metrics_url();
    until(name, DEADLINE, async || {
        let value = client::metric(&url, name).await?;
        Ok(value.filter(|value| *value >= at_least))
    })
    .await
    .unwrap();
}
