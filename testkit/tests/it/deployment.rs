//! The agent as users will have it: two pods inside the cluster.

use std::process::Stdio;
use std::time::{Duration, Instant};

use drover_testkit::control_plane::ControlPlane;
use drover_testkit::fleet::{Programs, output};
use drover_testkit::image::{self, BUSYBOX};
use drover_testkit::installation::{Installation, Person};
use drover_testkit::nodes;
use drover_testkit::process::until;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::system::{DEADLINE, folder, soon};

const READERS: usize = 4;
const READ: &str = "/api/v1/namespaces/default";

#[tokio::test]
async fn one_of_two_agent_pods_goes_under_load_without_a_read_failing_and_its_execs_end_with_an_error() {
    if let Err(reason) = nodes::possible() {
        return eprintln!("skipped: {reason}");
    }
    let folder = folder("deployment");
    let mut installation = Installation::prepare(&folder).unwrap();
    let agent = folder.join("agent.tar");
    image::write_agent(&agent, &Programs::of_this_build().unwrap().agent).unwrap();
    let plane = ControlPlane::start_with_nodes("podded", &folder.join("cluster"), 1, &[agent]).await.unwrap();
    installation.nodes_host = plane.nodes_host();
    let (_up, password) = soon(installation.up()).await.unwrap();
    let admin = soon(installation.login("admin", &password.unwrap())).await.unwrap();
    soon(output(&mut admin.drover(["cluster", "create", "podded"]))).await.unwrap();
    soon(installation.deploy(&admin, "podded", || plane.kubectl())).await.unwrap();
    the_replicas_share_one_identity(&plane).await;
    reads_go_on_while_a_pod_is_deleted(&installation, &plane, &admin).await;
    execs_through_a_killed_pod_end_and_others_live_on(&plane, &admin).await;
    soon(output(plane.kubectl().args(["get", "--raw", "/livez"]))).await.unwrap();
    soon(plane.stop()).await.unwrap();
}

/// The agent's pods that run and do not end.
async fn agent_pods(plane: &ControlPlane) -> Vec<String> {
    let pods = ["-n", "drover-system", "get", "pods", "-o"];
    let living = r#"go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{"\n"}}{{end}}{{end}}"#;
    let names = soon(output(plane.kubectl().args(pods).arg(living))).await.unwrap();
    names.lines().map(str::to_owned).collect()
}

/// What the first one got is in the Secret that the others read.
async fn the_replicas_share_one_identity(plane: &ControlPlane) {
    let logs = ["-n", "drover-system", "logs", "-l", "app.kubernetes.io/name=proxy", "--tail=-1"];
    let logs = soon(output(plane.kubectl().args(logs))).await.unwrap();
    assert!(logs.contains("agent running"), "{logs}");
    let secret = ["-n", "drover-system", "get", "secret", "drover-agent", "-o", "jsonpath={.data}"];
    let secret = soon(output(plane.kubectl().args(secret))).await.unwrap();
    assert!(secret.contains("identity.json"), "the identity is kept");
}

async fn reads_go_on_while_a_pod_is_deleted(
    installation: &Installation,
    plane: &ControlPlane,
    admin: &Person,
) {
    let client = installation.client().unwrap();
    let token = soon(output(&mut admin.drover(["token", "create"]))).await.unwrap().trim().to_owned();
    let get = async || client.get("podded", READ, &token).await;
    until("requests to be served", DEADLINE, async || Ok((get().await?.0 == 200).then_some(())))
        .await
        .unwrap();
    let names = agent_pods(plane).await;
    assert_eq!(names.len(), 2, "{names:?}");
    let until_then = Instant::now() + Duration::from_secs(6);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (client, token) = (client.clone(), token.clone());
        readers.spawn(async move {
            let mut served = 0;
            while Instant::now() < until_then {
                let (status, body) = client.get("podded", READ, &token).await.unwrap();
                assert_eq!(status, 200, "{body}");
                served += 1;
            }
            served
        });
    }
    let delete = ["-n", "drover-system", "delete", "pod", "--wait=false", &names[0]];
    soon(output(plane.kubectl().args(delete))).await.unwrap();
    let mut served = 0;
    while let Some(ended) = soon(readers.join_next()).await {
        served += ended.unwrap();
    }
    assert!(served > READERS * 10, "{served} reads");
}

async fn execs_through_a_killed_pod_end_and_others_live_on(plane: &ControlPlane, admin: &Person) {
    let image = format!("--image={BUSYBOX}");
    let run = ["run", "work", &image, "--restart=Never", "--image-pull-policy=Never"];
    soon(output(plane.kubectl().args(run))).await.unwrap();
    let ready = ["wait", "pod/work", "--for=condition=Ready", "--timeout=60s"];
    soon(output(plane.kubectl().args(ready))).await.unwrap();
    let rollout = ["-n", "drover-system", "rollout", "status", "deployment", "proxy", "--timeout=60s"];
    soon(output(plane.kubectl().args(rollout))).await.unwrap();

    let mut execs = Vec::new();
    // Each goes to the session that carries the least: both carry some.
    for _ in 0..4 {
        let mut exec = admin.kubectl("podded").await.unwrap();
        exec.args(["exec", "-i", "work", "--", "sh", "-c", "echo begun; exec cat"]);
        exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        execs.push(Exec::begin(exec).await);
    }
    let victim = agent_pods(plane).await.remove(0);
    let kill = ["-n", "drover-system", "delete", "pod", "--force", "--grace-period=0", &victim];
    soon(output(plane.kubectl().args(kill))).await.unwrap();
    let ended = until("the execs of the killed pod to end", Duration::from_secs(15), async || {
        let mut ended = 0;
        for exec in &mut execs {
            ended += usize::from(exec.child.try_wait()?.is_some());
        }
        Ok((ended > 0).then_some(ended))
    });
    ended.await.unwrap();
    let mut lived = 0;
    for exec in execs {
        match soon(exec.echo()).await {
            Ok(()) => lived += 1,
            Err(said) => assert!(said.contains("unexpected EOF"), "{said}"),
        }
    }
    assert_eq!(lived, 2);
}

/// A running `kubectl exec -i` of a shell that says `begun` and then what it is told.
struct Exec {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Exec {
    async fn begin(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(soon(lines.next_line()).await.unwrap().as_deref(), Some("begun"));
        Self { child, lines }
    }

    /// Whether it still says what it is told, and then ends well; else what kubectl said of it.
    async fn echo(mut self) -> Result<(), String> {
        let mut input = self.child.stdin.take().unwrap();
        let told = input.write_all(b"told\n").await;
        drop(input);
        let said = self.lines.next_line().await.unwrap();
        let ended = self.child.wait_with_output().await.unwrap();
        if told.is_ok() && said.as_deref() == Some("told") && ended.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}
