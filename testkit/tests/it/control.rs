//! Drover as people use it: `drover up`, an imported cluster, colleagues, and what goes on when parts of it go.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_testkit::client::fetch;
use drover_testkit::fleet::output;
use drover_testkit::installation::{Installation, Person, drawn_password};
use drover_testkit::process::{Process, until};
use hyper::Request;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::system::{DEADLINE, clusters, folder, soon};

/// An installation with its administrator.
pub(crate) struct Installed {
    pub(crate) installation: Installation,
    pub(crate) up: Process,
    pub(crate) admin: Person,
}

pub(crate) async fn installed(test: &str) -> Installed {
    let mut installation = Installation::prepare(&folder(test)).unwrap();
    let (up, password) = soon(installation.up()).await.unwrap();
    let admin = soon(installation.login("admin", &password.unwrap())).await.unwrap();
    Installed { installation, up, admin }
}

impl Installed {
    /// A cluster of the tests', imported under a name, with its agent.
    pub(crate) async fn import(&self, name: &str) -> Process {
        self.says(&["cluster", "create", name]).await.unwrap();
        let kubeconfig = &clusters().one.plane.admin_kubeconfig;
        soon(self.installation.import(&self.admin, name, kubeconfig)).await.unwrap()
    }

    pub(crate) async fn says(&self, arguments: &[&str]) -> anyhow::Result<String> {
        soon(output(&mut self.admin.drover(arguments))).await
    }

    /// A colleague with a role in a cluster.
    pub(crate) async fn colleague(&self, name: &str, role: &str, cluster: &str) -> Person {
        let made = self.says(&["user", "create", name]).await.unwrap();
        let password = drawn_password(&made).unwrap();
        self.says(&["binding", "create", "--user", name, "--role", role, "--cluster", cluster])
            .await
            .unwrap();
        soon(self.installation.login(name, &password)).await.unwrap()
    }
}

pub(crate) async fn kubectl(person: &Person, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl: Command = soon(person.kubectl(cluster)).await?;
    soon(output(kubectl.args(arguments))).await
}

#[tokio::test]
async fn from_up_to_kubectl_and_a_colleague_and_everything_is_there_after_a_restart() {
    let mut installed = installed("control-first").await;
    let _agent = installed.import("first").await;
    let namespaces = ["get", "namespaces", "-o", "name"];
    assert!(kubectl(&installed.admin, "first", &namespaces).await.unwrap().contains("namespace/default"));

    let zoe = installed.colleague("zoe", "cluster-viewer", "first").await;
    assert!(kubectl(&zoe, "first", &namespaces).await.unwrap().contains("namespace/default"));
    let create = ["create", "namespace", "zoes"];
    let refused = kubectl(&zoe, "first", &create).await.unwrap_err().to_string();
    assert!(refused.contains("User \"zoe\" cannot create resource \"namespaces\""), "{refused}");
    let refused = soon(output(&mut zoe.drover(["user", "create", "eve"]))).await.unwrap_err().to_string();
    assert!(refused.contains("(Forbidden)"), "{refused}");
    let seen = soon(output(&mut zoe.drover(["cluster", "list"]))).await.unwrap();
    assert!(seen.contains("first"), "{seen}");

    installed.up.stop().await.unwrap();
    let (up, password) = soon(installed.installation.up()).await.unwrap();
    assert_eq!(password, None, "the administrator is there already");
    installed.up = up;
    // Its agent dials again by itself.
    until("the cluster to be served again", DEADLINE, async || {
        Ok(kubectl(&zoe, "first", &namespaces).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
    let users = installed.says(&["user", "list"]).await.unwrap();
    assert!(users.contains("admin") && users.contains("zoe"), "{users}");

    installed.says(&["user", "disable", "zoe"]).await.unwrap();
    let refused = kubectl(&zoe, "first", &namespaces).await.unwrap_err().to_string();
    assert!(refused.contains("logged in") || refused.contains("disabled"), "{refused}");
    installed.says(&["cluster", "delete", "first"]).await.unwrap();
    assert!(kubectl(&installed.admin, "first", &namespaces).await.is_err());
}

#[tokio::test]
async fn a_second_up_says_why_it_cannot_be_and_leaves_the_first_alone() {
    let mut installed = installed("control-twice").await;
    let refused = soon(installed.installation.up()).await.err().unwrap().to_string();
    assert!(refused.contains("cannot be had: is Drover up already?"), "{refused}");
    assert!(installed.says(&["whoami"]).await.unwrap().contains("admin"));
}

#[tokio::test]
async fn a_body_that_is_too_large_or_does_not_come_is_refused_by_the_gateway() {
    let installed = installed("control-bodies").await;
    let client = installed.installation.client().unwrap();
    let head = |length: usize| {
        format!(
            "POST /v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let large = [head(300_000).into_bytes(), vec![b' '; 300_000]].concat();
    let slow = head(10);
    let (large, slow) = tokio::join!(client.raw(&large), client.raw(slow.as_bytes()));
    let (large, slow) = (large.unwrap(), slow.unwrap());
    assert!(large.starts_with("HTTP/1.1 413 ") && large.contains("BodyTooLarge"), "{large}");
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("BodySlow"), "{slow}");
}

#[tokio::test]
async fn nobody_outside_writes_state_with_no_a_wrong_a_foreign_or_a_view_only_credential() {
    // Another installation, whose tokens mean nothing here.
    let other = installed("control-beside").await;
    let installed = installed("control-outside").await;
    installed.says(&["cluster", "create", "empty"]).await.unwrap();
    let viewer = installed.colleague("viewer", "cluster-viewer", "empty").await;
    let token = async |person: &Person| soon(output(&mut person.drover(["token", "create"]))).await.unwrap();
    let (viewers, foreign) = (token(&viewer).await, token(&other.admin).await);
    let client = installed.installation.client().unwrap();
    let objects = [
        "users/viewer",
        "clusters/empty",
        "rolebindings/admin",
        "roles/none",
        "tokens/none",
        "registrationtokens/none",
    ];
    for object in objects {
        let all = object.split('/').next().unwrap();
        for (method, path) in
            [("GET", object), ("PUT", object), ("DELETE", object), ("POST", all), ("GET", all)]
        {
            for (credential, viewers) in [
                (None, false),
                (Some("Bearer garbage"), false),
                (Some(&*format!("Bearer {}", foreign.trim())), false),
                (Some(&*format!("Bearer {}", viewers.trim())), true),
            ] {
                let mut request =
                    Request::builder().method(method).uri(format!("/v1/{path}")).header("host", "localhost");
                request = request.header("content-type", "application/json");
                if let Some(credential) = credential {
                    request = request.header("authorization", credential);
                }
                let response = soon(client.send(request.body(String::new()).unwrap())).await.unwrap();
                let code = response.status().as_u16();
                let sees =
                    method == "GET" && (path == all || path == "clusters/empty" || path == "users/viewer");
                // An empty body is malformed (400) to who may be told so; nothing was written in any case.
                let expected: &[u16] = match (viewers, sees) {
                    (false, _) => &[401],
                    (true, true) => &[200],
                    (true, false) => &[400, 403, 404],
                };
                assert!(expected.contains(&code), "{method} {path} with {credential:?}: {code}");
            }
        }
    }
    let acting = Request::get("/v1/users")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {}", viewers.trim()))
        .header("impersonate-user", "admin");
    let response = soon(client.send(acting.body(String::new()).unwrap())).await.unwrap();
    assert_eq!(response.status(), 400, "nobody acts as somebody here, and it is not dropped in silence");
    let users = installed.says(&["user", "list", "-o", "json"]).await.unwrap();
    assert_eq!(users.matches("\"principal\"").count(), 2, "{users}");
}

#[tokio::test]
async fn a_revoked_token_is_refused_once_the_command_returns() {
    let installed = installed("control-revoke").await;
    installed.says(&["cluster", "create", "empty"]).await.unwrap();
    let client = installed.installation.client().unwrap();
    for _ in 0..10 {
        let token = installed.says(&["token", "create"]).await.unwrap();
        let token = token.trim();
        // The token is good, and the cluster has no agent.
        assert_eq!(soon(client.get("empty", "/version", token)).await.unwrap().0, 503);
        let id = token.split('_').nth(1).unwrap();
        installed.says(&["token", "revoke", id]).await.unwrap();
        assert_eq!(soon(client.get("empty", "/version", token)).await.unwrap().0, 401);
    }
}

/// Whatever takes a right away: what runs by it ends, at once, and what runs by another goes on.
#[tokio::test]
async fn a_watch_ends_with_the_right_to_it() {
    let installed = installed("control-ended").await;
    let _agent = installed.import("watched").await;
    let mut others = watch(&installed.admin, "watched").await;
    for (number, away) in [
        ["user", "disable", "zoe-0"].as_slice(),
        &["binding", "delete", "zoe-1"],
        &["user", "delete", "zoe-2"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("zoe-{number}");
        let made = installed.says(&["user", "create", &name]).await.unwrap();
        let password = drawn_password(&made).unwrap();
        let bind = [
            "binding",
            "create",
            "--name",
            &name,
            "--user",
            &name,
            "--role",
            "cluster-viewer",
            "--cluster",
            "watched",
        ];
        installed.says(&bind).await.unwrap();
        let zoe = soon(installed.installation.login(&name, &password)).await.unwrap();
        let mut watching = watch(&zoe, "watched").await;
        installed.says(away).await.unwrap();
        let taken = std::time::Instant::now();
        soon(watching.wait()).await.unwrap();
        assert!(taken.elapsed() < std::time::Duration::from_secs(3), "{away:?}: {:?}", taken.elapsed());
    }
    assert!(others.try_wait().unwrap().is_none(), "the administrator's goes on");
    soon(others.kill()).await.unwrap();
}

/// kubectl's watch, which has begun.
pub(crate) async fn watch(person: &Person, cluster: &str) -> tokio::process::Child {
    let mut watch = soon(person.kubectl(cluster)).await.unwrap();
    watch.args(["get", "--raw", "/api/v1/namespaces?watch=true"]).stdout(Stdio::piped());
    let mut watching = watch.spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.as_mut().unwrap()).lines();
    assert!(soon(lines.next_line()).await.unwrap().is_some());
    watching
}

#[tokio::test]
async fn control_is_killed_under_load_and_a_gateway_that_restarts_meanwhile_catches_up_by_a_delta() {
    let installed = installed("control-killed").await;
    let _agent = installed.import("loaded").await;
    let token = installed.says(&["token", "create"]).await.unwrap().trim().to_owned();
    let Installed { installation, up, admin } = installed;
    up.stop().await.unwrap();
    let control = installation.control("control-1", &[]).await.unwrap();
    let gateway = installation.gateway("gateway-1").await.unwrap();
    let client = installation.client().unwrap();
    let served = async || Ok((client.get("loaded", "/version", &token).await?.0 == 200).then_some(()));
    until("the cluster to be served", DEADLINE, served).await.unwrap();
    let pushed = pushes(&installation).await;
    assert_eq!(pushed.whole, 0, "a gateway that has a state gets no whole one: {pushed:?}");

    // Under load, and nothing of it fails.
    let served_count = Arc::new(AtomicUsize::new(0));
    let (running, done) = tokio::sync::oneshot::channel::<()>();
    let reader = {
        let (client, token, count) = (client.clone(), token.clone(), served_count.clone());
        tokio::spawn(async move {
            while !running.is_closed() {
                let (status, body) = client.get("loaded", "/version", &token).await.unwrap();
                assert_eq!(status, 200, "{body}");
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    control.signal("KILL").await.unwrap();
    until("control to be missed", DEADLINE, async || {
        let refused = output(&mut admin.drover(["user", "list"])).await.err();
        Ok(refused.filter(|refused| refused.to_string().contains("control cannot be reached")))
    })
    .await
    .unwrap();
    let missed_at = served_count.load(Ordering::Relaxed);
    until("requests to go on", DEADLINE, async || {
        Ok((served_count.load(Ordering::Relaxed) > missed_at + 100).then_some(()))
    })
    .await
    .unwrap();
    drop(done);
    soon(reader).await.unwrap();

    gateway.stop().await.unwrap();
    let _gateway = installation.gateway("gateway-2").await.unwrap();
    until("the saved snapshot to serve", DEADLINE, served).await.unwrap();
    let _control = installation.control("control-2", &[]).await.unwrap();
    until("control to answer", DEADLINE, async || {
        Ok(output(&mut admin.drover(["user", "create", "late"])).await.is_ok().then_some(()))
    })
    .await
    .unwrap();
    // A gateway that is on its way back is waited for so long that nobody minds, and no longer.
    let pushed = until("the gateway to catch up", DEADLINE, async || {
        let pushed = pushes(&installation).await;
        Ok((pushed.whole + pushed.delta > 0).then_some(pushed))
    });
    let pushed = pushed.await.unwrap();
    assert!(pushed.whole == 0 && pushed.delta > 0, "{pushed:?}");
}

/// A cluster served under certificates that last seconds: control, gateway and agent as processes of their own.
struct ShortLived {
    installation: Installation,
    admin: Person,
    control: Process,
    _gateway: Process,
    _agent: Process,
}

async fn short_lived(test: &str, cluster: &str) -> ShortLived {
    let installed = installed(test).await;
    installed.import(cluster).await.stop().await.unwrap();
    let Installed { installation, up, admin } = installed;
    up.stop().await.unwrap();
    // What was given for a day is given up: all begins with short ones.
    std::fs::remove_file(installation.data().join("gateway/identity.json")).unwrap();
    std::fs::remove_file(installation.folder.join(format!("agent-{cluster}/identity.json"))).unwrap();
    let control = installation.control("control", &SHORT_LIVED).await.unwrap();
    let _gateway = installation.gateway("gateway").await.unwrap();
    let kubeconfig = &clusters().one.plane.admin_kubeconfig;
    let _agent = soon(installation.import(&admin, cluster, kubeconfig)).await.unwrap();
    ShortLived { installation, admin, control, _gateway, _agent }
}

const SHORT_LIVED: [&str; 1] = ["--certificate-lifetime=12"];

#[tokio::test]
async fn who_cannot_renew_its_certificate_is_shut_out_and_enrols_again_when_control_is_back() {
    let ShortLived { installation, admin, control, _gateway, _agent } =
        short_lived("control-expiry", "expired").await;
    let token = soon(output(&mut admin.drover(["token", "create"]))).await.unwrap().trim().to_owned();
    let client = installation.client().unwrap();
    let answered = async |code: u16| {
        let (status, _) = client.get("expired", "/version", &token).await?;
        Ok((status == code).then_some(()))
    };
    until("requests to be served", DEADLINE, async || answered(200).await).await.unwrap();
    control.stop().await.unwrap();
    until("the session to be left", DEADLINE, async || answered(503).await).await.unwrap();
    let _control = installation.control("control-again", &SHORT_LIVED).await.unwrap();
    until("requests to be served again", DEADLINE, async || answered(200).await).await.unwrap();
}

/// Every process renews its own, twice over, while a watch goes on.
#[tokio::test]
async fn certificates_renew_themselves_without_cutting_a_stream() {
    let ShortLived { installation, admin, control: _control, _gateway, _agent } =
        short_lived("control-renewal", "renewed").await;
    let mut watch = soon(admin.kubectl("renewed")).await.unwrap();
    watch.args(["get", "configmaps", "-n", "default", "-w", "-o", "name", "--request-timeout=0"]);
    let mut watching = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let renewals = async |log: &str| {
        let log = tokio::fs::read_to_string(installation.folder.join(log)).await?;
        anyhow::Ok(log.matches("certificate renewed").count())
    };
    until("two renewals of the gateway", DEADLINE, async || {
        Ok((renewals("gateway.log").await? >= 2).then_some(()))
    })
    .await
    .unwrap();
    until("two renewals of the agent", DEADLINE, async || {
        Ok((renewals("agent-renewed/agent.log").await? >= 2).then_some(()))
    })
    .await
    .unwrap();
    // Past the end of the certificates that the watch began under.
    kubectl(&admin, "renewed", &["create", "configmap", "renewed", "-n", "default"]).await.unwrap();
    while soon(lines.next_line()).await.unwrap().expect("the watch goes on") != "configmap/renewed" {}
    kubectl(&admin, "renewed", &["delete", "configmap", "renewed", "-n", "default"]).await.unwrap();
    soon(watching.kill()).await.unwrap();
}

#[derive(Debug)]
struct Pushes {
    whole: u64,
    delta: u64,
}

async fn pushes(installation: &Installation) -> Pushes {
    let url = format!("http://127.0.0.1:{}/metrics", installation.control_admin_port);
    let (_, metrics) = soon(fetch(&url)).await.unwrap();
    let of = |kind: &str| {
        let name = format!("control_pushes_total{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    };
    Pushes { whole: of("whole"), delta: of("delta") }
}

#[tokio::test]
async fn regression_an_agent_that_is_ended_is_shut_out_at_once_and_renews_nothing() {
    let ShortLived { installation, admin, control: _control, _gateway, _agent } =
        short_lived("control-ended", "ended").await;
    let token = soon(output(&mut admin.drover(["token", "create"]))).await.unwrap().trim().to_owned();
    let client = installation.client().unwrap();
    let answered = async |code: u16| {
        let (status, _) = client.get("ended", "/version", &token).await?;
        Ok((status == code).then_some(()))
    };
    until("requests to be served", DEADLINE, async || answered(200).await).await.unwrap();
    let listed = soon(output(&mut admin.drover(["cluster", "agents", "ended", "-o", "json"]))).await.unwrap();
    let agents: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert!(!agents.is_empty(), "{listed}");
    for agent in &agents {
        let id = agent["spec"]["id"].as_str().unwrap();
        soon(output(&mut admin.drover(["cluster", "agents", "--delete", id]))).await.unwrap();
    }
    // The command returns once gateways serve from it.
    assert_eq!(answered(503).await.unwrap(), Some(()));
    until("a renewal to be refused", DEADLINE, async || {
        let log = tokio::fs::read_to_string(installation.folder.join("agent-ended/agent.log")).await?;
        Ok((log.contains("not enrolled any more") || log.contains("unknown, expired")).then_some(()))
    })
    .await
    .unwrap();
    assert_eq!(answered(503).await.unwrap(), Some(()));
    let listed = soon(output(&mut admin.drover(["gateway", "list"]))).await.unwrap();
    assert!(listed.contains("follows"), "{listed}");
}
