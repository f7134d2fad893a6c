//! A client cannot tell the gateway from the API server: the same requests to both, the same answers.

use std::time::Duration;

use bytes::Bytes;
use drover_api::manifest::Impersonation;
use drover_testkit::client::{Client, metric, status};
use http::header::HeaderMap;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::system::{Fleet, clusters, soon};

/// Questions until an API server answers the same before and after.
const ANSWERS_MAX: usize = 10;
/// What differs between any two answers of one server, or belongs to one connection.
const OF_THE_MOMENT: [&str; 4] = ["audit-id", "connection", "date", "transfer-encoding"];

const CLUSTER: &str = "/k8s/clusters/one";

/// One request, whoever it is sent to.
struct Asked {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// The same user, at the API server itself and at the gateway.
struct Both {
    fleet: Fleet,
    direct: Client,
    agent_token: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: Bytes::new() }
    }

    fn accept(self, media_type: &str) -> Self {
        self.with("accept", media_type)
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn sends(mut self, method: Method, media_type: &str, body: impl Into<Bytes>) -> Self {
        (self.method, self.body) = (method, body.into());
        self.with("content-type", media_type)
    }

    fn request(&self, prefix: &str) -> http::request::Builder {
        let mut request = Request::builder().method(&self.method).uri(format!("{prefix}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.header("host", "localhost")
    }
}

impl Both {
    async fn start(test: &str) -> Self {
        let fleet = Fleet::start(test).await;
        let one = &clusters().one;
        let port = one.target.address.rsplit(':').next().unwrap().parse().unwrap();
        let ca = std::fs::read_to_string(&one.target.ca).unwrap();
        let direct = Client::at(port, &ca, &[b"http/1.1"]).unwrap();
        let agent_token = std::fs::read_to_string(&one.target.token).unwrap().trim().to_owned();
        Self { fleet, direct, agent_token }
    }

    async fn open_direct(&self, asked: &Asked) -> Response<Incoming> {
        let request = asked
            .request("")
            .header("authorization", format!("Bearer {}", self.agent_token))
            .header("impersonate-user", "admin")
            .header("impersonate-group", "drover:cluster-owner")
            .body(Full::<Bytes>::new(asked.body.clone()))
            .unwrap();
        soon(self.direct.send(request)).await.unwrap()
    }

    async fn open(&self, asked: &Asked) -> Response<Incoming> {
        let request = asked
            .request(CLUSTER)
            .header("authorization", format!("Bearer {}", self.fleet.admin.token))
            .body(Full::<Bytes>::new(asked.body.clone()))
            .unwrap();
        soon(self.fleet.client().send(request)).await.unwrap()
    }

    /// The direct answer and the gateway's.
    async fn answers(&self, asked: &Asked) -> (Answer, Answer) {
        let direct = async || Answer::read(self.open_direct(asked).await).await;
        let mut before = direct().await;
        for _ in 0..ANSWERS_MAX {
            let through = Answer::read(self.open(asked).await).await;
            let after = direct().await;
            // Where it is another, somebody wrote in between: lists say the latest revision of the cluster.
            if before.body == after.body {
                return (after, through);
            }
            before = after;
        }
        panic!("{} {} is answered otherwise each time", asked.method, asked.path);
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?}\n{body:.400}", self.status, self.lasting())
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = soon(body.collect()).await.unwrap().to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Field lines that both answers must have, in an order of our own.
    fn lasting(&self) -> Vec<String> {
        let lasting = self.headers.iter().filter(|(name, _)| !OF_THE_MOMENT.contains(&name.as_str()));
        let mut lines: Vec<_> =
            lasting.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }
}

#[tokio::test]
async fn answers_are_the_api_servers_byte_for_byte() {
    let both = Both::start("wire-answers").await;
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut differences = Vec::new();
    for asked in [
        Asked::get("/version"),
        Asked::get("/api").accept(discovery),
        Asked::get("/apis").accept(discovery),
        Asked::get("/openapi/v2").with("accept-encoding", "gzip"),
        Asked::get("/openapi/v3"),
        Asked::get("/openapi/v3/api/v1?hash=unknown"),
        Asked::get(maps),
        Asked::get(maps).accept(table),
        Asked::get(maps).accept("application/vnd.kubernetes.protobuf"),
        Asked::get(maps).accept("application/cbor"),
        Asked::get(maps).accept("application/yaml"),
        Asked::get(maps).accept("text/nothing"),
        Asked::get(&format!("{maps}?limit=1&fieldSelector=metadata.name%3Dkube-root-ca.crt")),
        Asked::get(&format!("{maps}/absent")),
        Asked::get(&format!("{maps}?limit=nonsense")),
        Asked::get(&format!("{maps}?continue=nonsense")),
        Asked::get(&format!("{maps}?resourceVersion=1&resourceVersionMatch=Exact")),
        Asked::get(&format!("{maps}?watch=true&resourceVersion=nonsense")),
        Asked::get("/apis/nothing.example/v1/things"),
        Asked::get("/nothing"),
        Asked::get("/readyz?verbose"),
        Asked::get(&format!("{maps}?labelSelector=a%20in%20%28{}%29", "b%2C".repeat(15_000))),
        Asked::get(maps).with("x-large", "x".repeat(60 << 10)),
        Asked::get(maps).sends(Method::POST, "application/json", "{"),
        Asked::get(maps).sends(Method::POST, "application/nonsense", "{}"),
        Asked::get(maps).sends(Method::POST, "application/json", vec![b' '; (3 << 20) + 1]),
        Asked::get(&format!("{maps}/absent")).sends(Method::PUT, "application/json", "{}"),
        Asked::get(&format!("{maps}/absent")).sends(Method::PATCH, "application/json-patch+json", "[]"),
        Asked::get(&format!("{maps}/absent")).sends(Method::DELETE, "application/json", ""),
        Asked::get("/version").sends(Method::OPTIONS, "application/json", ""),
    ] {
        let (mut direct, through) = both.answers(&asked).await;
        if let Some(location) = direct.headers.get_mut("location") {
            *location = format!("{CLUSTER}{}", location.to_str().unwrap()).parse().unwrap();
        }
        if (through.status, through.lasting(), &through.body)
            != (direct.status, direct.lasting(), &direct.body)
        {
            differences.push(format!(
                "{} {:.80} {:.80?}\n{direct:?}\n{through:?}",
                asked.method, asked.path, asked.headers
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[tokio::test]
async fn large_lists_come_compressed_as_the_server_compressed_them() {
    let both = Both::start("wire-gzip").await;
    let (direct, through) = both
        .answers(&Asked::get("/openapi/v2").with("accept-encoding", "gzip").accept("application/json"))
        .await;
    assert_eq!(through.headers["content-encoding"], "gzip");
    assert!(through.body.starts_with(&[0x1f, 0x8b]) && through.body.len() > 100_000);
    assert_eq!(through.body, direct.body);
}

#[tokio::test]
async fn one_audit_id_joins_the_answer_and_both_records() {
    let both = Both::start("wire-audit").await;
    let asked =
        Asked::get("/api/v1/namespaces/default/configmaps/wire-audit").with("audit-id", "a-clients-own");
    let answer = Answer::read(both.open(&asked).await).await;
    let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
    assert_ne!(id, "a-clients-own");
    let recorded = drover_testkit::process::until("both records", Duration::from_secs(10), async || {
        let ours = std::fs::read_to_string(both.fleet.gateway.audit_log())?;
        let ours = ours.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours: Vec<_> = ours.filter(|event| event["auditID"] == id.as_str()).collect();
        let theirs = clusters().one.audited("configmaps/wire-audit");
        let theirs: Vec<_> = theirs.into_iter().filter(|event| event["auditID"] == id.as_str()).collect();
        Ok((ours.len() == 1 && theirs.len() == 1).then(|| (ours[0].clone(), theirs[0].clone())))
    });
    let (ours, theirs) = recorded.await.unwrap();
    assert_eq!(theirs["impersonatedUser"]["username"], ours["user"]["username"]);
    assert_eq!(theirs["responseStatus"]["code"], ours["responseStatus"]["code"]);
}

#[tokio::test]
async fn beyond_its_own_limits_the_gateway_answers_with_a_status() {
    let (fleet, server) = Fleet::with_api_server("wire-limits").await;
    let (path, token) = (format!("{CLUSTER}/api/v1/pods"), &fleet.admin.token);
    let long = "a".repeat(400 << 10);
    for (target, more, expected) in [
        (format!("{path}?labelSelector={long}"), String::new(), 414),
        (path, format!("X-Large: {long}\r\n"), 431),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
        let answer = fleet.client().raw(format!("{head}{more}\r\n").as_bytes()).await.unwrap();
        assert_eq!(status(&answer).unwrap(), expected, "{answer}");
        assert!(answer.contains(r#""kind":"Status""#), "{answer}");
    }
    assert!(!server.has_received("/api/v1/pods"));
}

#[tokio::test]
async fn what_an_api_server_says_of_its_load_and_history_passes() {
    let (fleet, server) = Fleet::with_api_server("wire-codes").await;
    for code in [403, 410, 418, 429, 500, 503, 504] {
        let path = format!("/api/v1/pods?behave={code}");
        let (status, said) = soon(fleet.client().get("one", &path, &fleet.admin.token)).await.unwrap();
        assert_eq!((status, &said["target"]), (code, &path.into()));
    }
    // Each was sent once: whether to ask again is the client's to say.
    assert_eq!(server.received().concat().matches("behave=429").count(), 1);
}

#[tokio::test]
async fn trailers_end_an_answer_or_a_request_and_hang_nobody() {
    let (fleet, _server) = Fleet::with_api_server("wire-trailers").await;
    let head = |line: &str, more: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{more}\r\n",
            fleet.admin.token
        )
    };
    let path = format!("{CLUSTER}/api/v1/namespaces/default/configmaps");
    let answer = head(&format!("GET {path}?behave=trailers"), "TE: trailers\r\n");
    let answer = soon(fleet.client().raw(answer.as_bytes())).await.unwrap();
    assert!(answer.ends_with("0\r\n\r\n") || answer.ends_with("x-ended: well\r\n\r\n"), "{answer}");
    // A trailer that would be somebody else is no header of the request.
    let trailing = "Transfer-Encoding: chunked\r\nTrailer: Impersonate-User\r\n";
    let request = head(&format!("POST {path}"), trailing) + "2\r\n{}\r\n0\r\nImpersonate-User: root\r\n\r\n";
    let answer = soon(fleet.client().raw(request.as_bytes())).await.unwrap();
    assert!(answer.contains(r#""bytes":2"#) && !answer.contains("root"), "{answer}");
}

#[tokio::test]
async fn a_watch_over_websocket_carries_events() {
    let both = Both::start("wire-websocket").await;
    let path =
        "/api/v1/namespaces/kube-system/configmaps?watch=true&fieldSelector=metadata.name%3Dkube-root-ca.crt";
    let asked = Asked::get(path)
        .with("connection", "Upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-version", "13")
        .with("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with("origin", "https://localhost");
    for response in [both.open_direct(&asked).await, both.open(&asked).await] {
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut upgraded = TokioIo::new(soon(hyper::upgrade::on(response)).await.unwrap());
        let mut seen = vec![0; 400];
        soon(upgraded.read_exact(&mut seen)).await.unwrap();
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains(r#"{"type":"ADDED","object":"#), "{seen}");
    }
}

#[tokio::test]
async fn a_credential_signs_once_for_a_cluster_and_not_for_each_request() {
    let (fleet, _server) = Fleet::with_api_server("wire-signed").await;
    let ask = async || {
        let (status, _) = soon(fleet.client().get("one", "/version", &fleet.viewer.token)).await.unwrap();
        assert_eq!(status, 200);
    };
    let signed = async || {
        let url = fleet.gateway.metrics_url();
        metric(&url, "gateway_delegations_signed_total").await.unwrap().unwrap()
    };
    ask().await;
    let before = signed().await;
    for _ in 0..50 {
        ask().await;
    }
    assert_eq!(signed().await, before);
}

#[tokio::test]
async fn a_service_behind_the_proxy_subresource_gets_every_method_and_body() {
    let (fleet, server) = Fleet::with_api_server("services-proxy").await;
    let path = "/k8s/clusters/one/api/v1/namespaces/default/services/http:web:80/proxy/a/b?d=%2F&e";
    // API servers proxy OPTIONS, too, under a verb without a name, which no rule can allow.
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", fleet.admin.token))
            .body(Full::new(Bytes::from_static(b"<any/>")))
            .unwrap();
        let answer = Answer::read(soon(fleet.client().send(request)).await.unwrap()).await;
        assert_eq!(answer.status, 200, "{method}: {:?}", answer.body);
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&seen["method"], &seen["bytes"]), (&method.into(), &6.into()));
        assert_eq!(seen["target"], path.strip_prefix(CLUSTER).unwrap());
    }
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        fleet.admin.token
    );
    let mut stream = fleet.client().connect().await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = vec![0; 4096];
    let length = soon(stream.read(&mut read)).await.unwrap();
    assert_eq!(status(&String::from_utf8_lossy(&read[..length])).unwrap(), 101);
    stream.write_all(b"whatever it speaks").await.unwrap();
    let length = soon(stream.read(&mut read)).await.unwrap();
    assert_eq!(&read[..length], b"whatever it speaks");
    assert!(server.has_received("upgrade: websocket"));
}

/// The role that `drover cluster import --constrained-impersonation` gives, under another name: the agent's own role
/// in these clusters is the other one.
#[tokio::test]
async fn constrained_the_agents_role_is_enough_for_users_and_too_little_for_masters() {
    let plane = &clusters().one.plane;
    let manifest = drover_api::manifest::rbac(Impersonation::Constrained);
    let mut role = manifest["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["kind"] == "ClusterRole")
        .cloned()
        .unwrap();
    role["metadata"]["name"] = "constrained".into();
    let account = serde_json::json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "constrained", "namespace": "default" } });
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [account, role] });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), list.to_string()).unwrap();
    let run = async |arguments: &[&str]| {
        let output = soon(plane.kubectl().args(arguments).output()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(&["apply", "-f", file.path().to_str().unwrap()]).await;
    run(&[
        "create",
        "clusterrolebinding",
        "constrained",
        "--clusterrole=constrained",
        "--serviceaccount=default:constrained",
    ])
    .await;
    let token = run(&["create", "token", "constrained"]).await;
    let both = Both::start("constrained").await;
    let ask = async |user: &str, group: &str, path: &str| {
        let request = Asked::get(path).request("").header("authorization", format!("Bearer {token}"));
        let request = request.header("impersonate-user", user).header("impersonate-group", group);
        let request = request
            .header("impersonate-uid", "local:user/x")
            .header("impersonate-extra-drover.io%2ftoken-id", "1");
        Answer::read(soon(both.direct.send(request.body(Full::<Bytes>::default()).unwrap())).await.unwrap())
            .await
    };
    for path in [
        "/api/v1/namespaces",
        "/api/v1/namespaces/default/secrets/none",
        "/version",
        "/apis/apps/v1/deployments?watch=true&timeoutSeconds=1",
    ] {
        let answer = ask("admin", "drover:cluster-owner", path).await;
        assert!([200, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(ask("admin", "nobody", "/api/v1/namespaces").await.status, 403);
    for (user, group) in [("admin", "system:masters"), ("system:node:one", "system:nodes")] {
        let answer = ask(user, group, "/api/v1/namespaces").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains("impersonate"), "{answer:?}");
    }
}
