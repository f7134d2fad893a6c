//! What operators rely on: certificates that bind clusters, records, metrics, reloads, secrets that stay secret.

use std::path::Path;

use drover_testkit::api_server::{AGENT_TOKEN, ApiServer};
use drover_testkit::client::{Client, fetch};
use drover_testkit::fleet::Target;
use drover_testkit::pki::{Authority, LOOPBACK, Subject, Usage};
use drover_testkit::process::until;
use serde_json::Value;

use crate::system::{DEADLINE, Fleet, folder, soon};

#[tokio::test]
async fn an_agents_certificate_decides_which_cluster_it_serves() {
    let (mut fleet, _one) = Fleet::with_api_server("swapped").await;
    let other = ApiServer::start(&folder("other"), "other", "c-other").await.unwrap();
    // Of a cluster that the snapshot does not have, whatever it is called.
    let stranger = Target { name: "one".to_owned(), ..other.target.clone() };
    fleet.agents.push(fleet.gateway.start_agent(&stranger, "stranger").await.unwrap());
    until("the stranger to be turned away", DEADLINE, async || {
        Ok(fleet.agents[1].log_tail().contains("does not know this cluster").then_some(()))
    })
    .await
    .unwrap();
    for _ in 0..20 {
        assert_eq!(fleet.client().get("one", "/version", &fleet.admin.token).await.unwrap().0, 200);
    }
    assert!(!other.has_received("impersonate"), "{:?}", other.received());
    let (status, body) = fleet.client().get("c-other", "/version", &fleet.admin.token).await.unwrap();
    assert_eq!((status, body["reason"].as_str()), (404, Some("NotFound")));
}

#[tokio::test]
async fn every_end_is_recorded_with_who_what_and_why() {
    let (fleet, _server) = Fleet::with_api_server("audit").await;
    let (client, admin, viewer) = (fleet.client(), &fleet.admin.token, &fleet.viewer.token);
    client.get("one", "/api/v1/namespaces/web/pods/p/log?audit=a", admin).await.unwrap();
    client.get("one", "/api/v1/secrets?audit=b", viewer).await.unwrap();
    client.get("one", "/api/v1/pods?audit=c", "drv_nobody").await.unwrap();
    client.get("none", "/api/v1/pods?audit=d", admin).await.unwrap();
    let ended = |event: &Value, mark: &str| {
        let uri = event["requestURI"].as_str().unwrap_or_default();
        event["stage"] == "ResponseComplete" && uri.ends_with(&format!("audit={mark}"))
    };
    let recorded = until("four records", DEADLINE, async || {
        let log = std::fs::read_to_string(fleet.gateway.audit_log())?;
        let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let found = ["a", "b", "c", "d"].map(|mark| events.iter().find(|event| ended(event, mark)).cloned());
        Ok(found.into_iter().collect::<Option<Vec<_>>>())
    });
    let [read, refused, unknown, nowhere] = recorded.await.unwrap().try_into().unwrap();
    assert_eq!(read["kind"], "Event");
    assert_eq!(read["user"]["username"], "admin");
    assert_eq!(read["user"]["groups"], serde_json::json!(["local:group/platform", "drover:cluster-owner"]));
    assert_eq!(read["objectRef"]["resource"], "pods");
    assert_eq!(read["objectRef"]["subresource"], "log");
    assert_eq!(read["objectRef"]["namespace"], "web");
    assert_eq!(read["responseStatus"]["code"], 200);
    assert_eq!(read["annotations"]["drover.io/cluster"], "one");
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["user"]["username"]),
        (&403.into(), &"viewer".into())
    );
    assert_eq!(refused["annotations"]["drover.io/reason"], "PolicyNotPermitted");
    assert_eq!(refused["objectRef"]["resource"], "secrets", "{refused}");
    assert_eq!(
        (&unknown["responseStatus"]["code"], &unknown["user"]["username"]),
        (&401.into(), &Value::Null)
    );
    assert_eq!(
        (&nowhere["responseStatus"]["code"], &nowhere["user"]["username"]),
        (&404.into(), &"admin".into())
    );
}

#[tokio::test]
async fn metrics_are_histograms_that_can_be_added_up_and_name_nobody() {
    let (fleet, _server) = Fleet::with_api_server("metrics").await;
    fleet.client().get("one", "/api/v1/pods", &fleet.viewer.token).await.unwrap();
    fleet.client().get("one", "/api/v1/secrets", &fleet.viewer.token).await.unwrap();
    let text = scrape(&fleet.gateway.metrics_url()).await;
    for expected in [
        "gateway_request_duration_seconds_bucket{le=\"0.005\"}",
        "gateway_requests_total{code=\"2xx\"}",
        "gateway_requests_refused_total{reason=\"PolicyNotPermitted\"} 1",
        "gateway_tunnel_sessions 1",
        "gateway_snapshot_revision 1",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    for name in ["viewer", "c-one1", "/api/v1", "secrets"] {
        assert!(!text.contains(name), "{name} is in\n{text}");
    }
    let admin = |path: &str| fleet.gateway.metrics_url().replace("/metrics", path);
    assert_eq!(scrape(&admin("/readyz")).await, "ok\n");
    assert_eq!(scrape(&admin("/livez")).await, "ok\n");
    assert_eq!(fetch(&admin("/elsewhere")).await.unwrap().0, 404);
}

#[tokio::test]
async fn a_replaced_certificate_is_served_without_a_restart() {
    let (mut fleet, _server) = Fleet::with_api_server("reload").await;
    let authority = Authority::new("the next authority").unwrap();
    let subject =
        Subject { common_name: "next", addresses: &LOOPBACK, names: &["localhost"], ..Subject::default() };
    authority.issue_files(&fleet.gateway.folder, "serving", &subject, &[Usage::ServerAuth]).unwrap();
    fleet.gateway.authority = authority;
    let client = Client::new(&fleet.gateway).unwrap();
    until("the certificate to be taken up", DEADLINE, async || Ok(client.connect().await.ok().map(drop)))
        .await
        .unwrap();
    assert_eq!(client.get("one", "/version", &fleet.admin.token).await.unwrap().0, 200);
}

#[tokio::test]
async fn an_agents_renewed_token_is_taken_up_without_a_restart() {
    let (fleet, server) = Fleet::with_api_server("renewed").await;
    std::fs::write(&server.target.token, "token-renewed").unwrap();
    until("the token to be taken up", DEADLINE, async || {
        let (_, said) = fleet.client().get("one", "/api/v1/pods", &fleet.admin.token).await?;
        Ok(said["headers"].to_string().contains("Bearer token-renewed").then_some(()))
    })
    .await
    .unwrap();
    // What is no token leaves the last good one.
    std::fs::write(&server.target.token, "").unwrap();
    until("the file to be looked at", DEADLINE, async || {
        Ok(fleet.agents[0].log_tail().contains("credentials not renewed").then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(fleet.client().get("one", "/api/v1/pods", &fleet.admin.token).await.unwrap().0, 200);
}

#[tokio::test]
async fn no_secret_is_in_any_file_but_its_owners() {
    let (fleet, _server) = Fleet::with_api_server("secrets").await;
    let Fleet { gateway, admin, running, agents, .. } = fleet;
    let client = Client::new(&gateway).unwrap();
    for path in ["/api/v1/pods", "/api/v1/pods?behave=500", "/nowhere/%2e%2e"] {
        client.get("one", path, &admin.token).await.unwrap();
    }
    client.raw(format!("NONSENSE {} HTTP/1.1\r\n\r\n", admin.token).as_bytes()).await.unwrap();
    for agent in agents {
        soon(agent.stop()).await.unwrap();
    }
    soon(running.stop()).await.unwrap();
    let secret = admin.token.rsplit('_').next().unwrap().to_owned();
    let mut files = Vec::new();
    collect(&gateway.folder, &mut files);
    assert!(files.iter().any(|file| file.ends_with("audit.log")) && files.len() > 5, "{files:?}");
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(&secret), "a user's secret is in {}", file.display());
        assert!(!text.contains(AGENT_TOKEN), "the agent's token is in {}", file.display());
    }
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

async fn scrape(url: &str) -> String {
    let (status, body) = soon(fetch(url)).await.unwrap();
    assert_eq!(status, 200, "{body}");
    body
}
