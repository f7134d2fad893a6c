//! How soon a right that goes is gone: at every gateway, for what begins and for what runs.

use std::time::{Duration, Instant};

use drover_testkit::client::{Client, status};
use drover_testkit::installation::AnotherGateway;
use drover_testkit::process::until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::control::{Installed, installed};
use crate::request_path::body as body_of;
use crate::system::{DEADLINE, clusters, soon};

const SAMPLES: usize = 200;
/// For the 99th of a hundred, from the change's being asked for.
const SOON: Duration = Duration::from_secs(1);
const CLUSTER: &str = "revoked";
const GROUP: &str = "local:group/on-call";
const WATCH: &str = "/k8s/clusters/revoked/api/v1/namespaces?watch=true";

/// Drover's API, as the administrator.
struct Api {
    client: Client,
    token: String,
}

impl Api {
    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let body = body.map_or_else(String::new, Value::to_string);
        let head = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.token,
            body.len()
        );
        let answer = soon(self.client.raw(format!("{head}{body}").as_bytes())).await.unwrap();
        assert!((200..300).contains(&status(&answer).unwrap()), "{method} {path}: {answer}");
        body_of(&answer)
    }

    async fn disable(&self, user: &str, disabled: bool) -> Value {
        let mut object = self.call("GET", &format!("users/{user}"), None).await;
        object["spec"]["disabled"] = disabled.into();
        self.call("PUT", &format!("users/{user}"), Some(&object)).await
    }

    /// Into the group that a role is bound to, or out of it.
    async fn group(&self, user: &str, groups: &[&str]) -> Value {
        let mut object = self.call("GET", &format!("users/{user}"), None).await;
        object["spec"]["groups"] = json!(groups);
        self.call("PUT", &format!("users/{user}"), Some(&object)).await
    }

    /// Changes a rule, so that a role which denied nothing that anybody does denies everything.
    async fn stop(&self, everything: bool) -> Value {
        let mut role = self.call("GET", "roles/stop", None).await;
        role["spec"]["rules"][0]["resources"][0] = if everything { "*" } else { "nothing" }.into();
        self.call("PUT", "roles/stop", Some(&role)).await
    }

    /// A token of somebody's, and the id that it is revoked by.
    async fn token(&self, user: &str) -> (String, String) {
        let made =
            self.call("POST", "tokens", Some(&json!({ "user": user, "kind": "bot", "scope": "all" }))).await;
        let token = made["secret"].as_str().unwrap_or_else(|| panic!("no token: {made}")).to_owned();
        let id = token.split('_').nth(1).unwrap().to_owned();
        (token, id)
    }
}

/// The token of the administrator's login: a gateway is let in by no other.
async fn login(installed: &Installed) -> String {
    let said = installed.says(&["credential"]).await.unwrap();
    let credential: Value = serde_json::from_str(&said).unwrap();
    credential["status"]["token"].as_str().unwrap().to_owned()
}

/// A watch at a gateway that has begun.
async fn watch(client: &Client, token: &str) -> impl Future<Output = ()> {
    let mut stream = client.connect().await.unwrap();
    let request = format!("GET {WATCH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = vec![0; 64 << 10];
    let length = soon(stream.read(&mut read)).await.unwrap();
    assert_eq!(status(&String::from_utf8_lossy(&read[..length])).unwrap(), 200);
    async move { while soon(stream.read(&mut read)).await.is_ok_and(|count| count > 0) {} }
}

async fn refused(client: &Client, token: &str) {
    let gone = async || {
        let (status, _) = client.get(CLUSTER, "/api/v1/namespaces", token).await?;
        Ok([401, 403].contains(&status).then_some(()))
    };
    until("a new request to be refused", DEADLINE, gone).await.unwrap();
}

async fn registration(api: &Api, name: &str) -> String {
    let body = json!({ "process": format!("gateway/{name}") });
    let made = api.call("POST", "registrationtokens", Some(&body)).await;
    made["secret"].as_str().unwrap_or_else(|| panic!("no token: {made}")).to_owned()
}

/// A way to control that can be cut.
async fn detour(to: u16) -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut onward = TcpStream::connect(("127.0.0.1", to)).await?;
                copy_bidirectional(&mut from, &mut onward).await
            });
        }
    });
    (port, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn what_is_taken_away_is_gone_within_a_second_at_every_gateway() {
    let installed = installed("revocation").await;
    installed.says(&["cluster", "create", CLUSTER]).await.unwrap();
    installed.says(&["user", "create", "zoe"]).await.unwrap();
    let token = login(&installed).await;
    let Installed { installation, up: _up, admin } = installed;
    let api = Api { client: installation.client().unwrap(), token };
    let drawn = registration(&api, "gateway-2").await;
    let second = installation.another_gateway("gateway-2", &drawn, installation.control_port).await.unwrap();
    let ports = [installation.tunnel_port, second.tunnel_port];
    let kubeconfig = &clusters().one.plane.admin_kubeconfig;
    let _agent = soon(installation.import_through(&admin, CLUSTER, kubeconfig, &ports)).await.unwrap();
    let gateways = [installation.client().unwrap(), second.client.clone()];
    for client in &gateways {
        let served = async || Ok((client.get(CLUSTER, "/version", &api.token).await?.0 == 200).then_some(()));
        until("the cluster to be served", DEADLINE, served).await.unwrap();
    }
    let user = api.call("GET", "users/zoe", None).await;
    let principal = user["spec"]["principal"].as_str().unwrap().to_owned();
    let cluster = api.call("GET", &format!("clusters/{CLUSTER}"), None).await["spec"]["id"].clone();
    let binding = json!({ "name": "of-zoe", "principal": principal, "role": "cluster-viewer", "domain": { "cluster": cluster } });
    api.call("POST", "rolebindings", Some(&binding)).await;
    let rule = json!({ "effect": "deny", "verbs": ["*"], "apiGroups": ["*"], "resources": ["nothing"] });
    api.call("POST", "roles", Some(&json!({ "name": "stop", "rules": [rule] }))).await;
    let stop = json!({ "name": "stop-zoe", "principal": principal, "role": "stop", "domain": { "cluster": cluster } });
    api.call("POST", "rolebindings", Some(&stop)).await;
    api.call("POST", "users", Some(&json!({ "name": "kim", "groups": [GROUP] }))).await;
    let of_group = json!({ "name": "of-group", "principal": GROUP, "role": "cluster-viewer", "domain": { "cluster": cluster } });
    api.call("POST", "rolebindings", Some(&of_group)).await;
    let mut took = Vec::new();
    for sample in 0..SAMPLES {
        let (token, id) = api.token(if sample % 6 == 5 { "kim" } else { "zoe" }).await;
        let mut watches = Vec::new();
        for client in &gateways {
            watches.push(watch(client, &token).await);
        }
        let began = Instant::now();
        let taken = async {
            match sample % 6 {
                0 | 1 => api.call("DELETE", &format!("tokens/{id}"), None).await,
                2 => api.disable("zoe", true).await,
                3 => api.stop(true).await,
                4 => api.call("DELETE", "rolebindings/of-zoe", None).await,
                _ => api.group("kim", &[]).await,
            }
        };
        let gone = async {
            futures_util::future::join_all(watches).await;
            for client in &gateways {
                refused(client, &token).await;
            }
            began.elapsed()
        };
        let (_, elapsed) = tokio::join!(taken, gone);
        took.push(elapsed);
        match sample % 6 {
            2 => drop(api.disable("zoe", false).await),
            3 => drop(api.stop(false).await),
            4 => drop(api.call("POST", "rolebindings", Some(&binding)).await),
            5 => drop(api.group("kim", &[GROUP]).await),
            _ => {}
        }
    }
    took.sort();
    let at = |share: usize| took[took.len() * share / 100];
    println!(
        "{SAMPLES} rights taken away, gone at both gateways: p50 {:?}, p99 {:?}, longest {:?}",
        at(50),
        at(99),
        took[SAMPLES - 1]
    );
    assert!(at(99) < SOON, "{:?}", at(99));
}

#[tokio::test]
async fn a_gateway_that_is_cut_off_serves_for_as_long_as_was_said_and_then_nobody() {
    let installed = installed("revocation-cut").await;
    installed.says(&["cluster", "create", CLUSTER]).await.unwrap();
    let token = login(&installed).await;
    let api = Api { client: installed.installation.client().unwrap(), token };
    let drawn = registration(&api, "gateway-3").await;
    let Installed { installation, up, .. } = installed;
    up.stop().await.unwrap();
    let _control = installation.control("control", &["--max-staleness=6"]).await.unwrap();
    let (port, way) = detour(installation.control_port).await;
    let AnotherGateway { process: _process, client, .. } =
        installation.another_gateway("gateway-3", &drawn, port).await.unwrap();
    // The token is good, and the cluster has no agent.
    let cause = async || {
        let (status, body) = client.get(CLUSTER, "/version", &api.token).await?;
        anyhow::Ok((status, body["details"]["causes"][0]["reason"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(cause().await.unwrap(), (503, "SessionDisconnected".to_owned()));
    drop(way);
    let cut = Instant::now();
    until("it to be stale", DEADLINE, async || Ok((cause().await?.1 == "SnapshotStale").then_some(())))
        .await
        .unwrap();
    assert!(cut.elapsed() < Duration::from_secs(8), "{:?}", cut.elapsed());
}
