//! What people do with pods: exec, attach, cp, port-forward, logs, over WebSocket and over SPDY.

use std::fs::File;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use drover_testkit::control_plane::ControlPlane;
use drover_testkit::fleet::{Target, admit_agent, output};
use drover_testkit::image::BUSYBOX;
use drover_testkit::nodes;
use drover_testkit::process::until;
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{self, Winsize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::runtime::Runtime;

use crate::system::{DEADLINE, Fleet, folder, soon};

/// What kubectl asks by: WebSocket, or SPDY as it did before 1.30.
const PROTOCOLS: [(&str, &str); 2] = [("websocket", "true"), ("spdy", "false")];

/// A cluster with a node, for all tests here; none where this machine cannot have nodes.
pub(crate) struct Noded {
    pub(crate) plane: ControlPlane,
    pub(crate) target: Target,
}

pub(crate) fn noded() -> Option<&'static Noded> {
    static NODED: OnceLock<Option<Noded>> = OnceLock::new();
    let found = NODED.get_or_init(|| {
        if let Err(reason) = nodes::possible() {
            eprintln!("tests with pods are skipped: {reason}");
            return None;
        }
        let start = || {
            let runtime = Box::leak(Box::new(Runtime::new().unwrap()));
            runtime.block_on(async {
                let folder = folder("pods-cluster");
                let plane = ControlPlane::start_with_nodes("noded", &folder, 1, &[]).await.unwrap();
                let token = admit_agent(|| plane.kubectl(), &folder).await.unwrap();
                let (address, ca) = (plane.address.clone(), plane.ca.clone());
                let target =
                    Target { name: "noded".to_owned(), id: "c-noded1".to_owned(), address, ca, token };
                Noded { plane, target }
            })
        };
        Some(std::thread::spawn(start).join().expect("the cluster starts"))
    });
    found.as_ref()
}

/// A fleet in front of the cluster, and a pod of the test's own that runs.
pub(crate) async fn with_pod(test: &str) -> Option<(Fleet, String)> {
    let noded = noded()?;
    let fleet = Fleet::in_front_of(test, &[&noded.target], |_| {}).await;
    let image = format!("--image={BUSYBOX}");
    let run = ["run", test, &image, "--restart=Never", "--image-pull-policy=Never"];
    soon(output(noded.plane.kubectl().args(run))).await.unwrap();
    until("the pod to run", DEADLINE, async || {
        let phase = ["get", "pod", test, "-o", "jsonpath={.status.phase}"];
        Ok((output(noded.plane.kubectl().args(phase)).await? == "Running").then_some(()))
    })
    .await
    .unwrap();
    Some((fleet, test.to_owned()))
}

impl Fleet {
    /// The administrator's kubectl, by one of the protocols.
    pub(crate) fn by(&self, websocket: &str, arguments: &[&str]) -> Command {
        let mut command = self.kubectl(&self.admin, "noded");
        command
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket);
        command.args(arguments);
        command
    }
}

#[tokio::test]
async fn exec_carries_stdin_output_and_exit_codes() {
    let Some((fleet, pod)) = with_pod("exec").await else { return };
    let sent: Vec<u8> = (0..20_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected: String = Sha256::digest(&sent).iter().map(|byte| format!("{byte:02x}")).collect();
    for (protocol, websocket) in PROTOCOLS {
        let ended = soon(
            fleet.by(websocket, &["exec", &pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).output(),
        );
        let ended = ended.await.unwrap();
        assert_eq!(ended.status.code(), Some(7), "{protocol}: {ended:?}");
        assert_eq!(ended.stdout, b"out\n", "{protocol}");
        assert!(String::from_utf8_lossy(&ended.stderr).starts_with("err\n"), "{protocol}: {ended:?}");
        let mut command = fleet.by(websocket, &["exec", "-i", &pod, "--", "sha256sum"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        soon(input.write_all(&sent)).await.unwrap();
        drop(input);
        let ended = soon(child.wait_with_output()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&ended.stdout), format!("{expected}  -\n"), "{protocol}");
    }
}

/// A terminal of that size: our end, and the one that a program gets.
fn terminal(size: Winsize) -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let ours = pty::openpt(flags).unwrap();
    pty::unlockpt(&ours).unwrap();
    let theirs = pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
    termios::tcsetwinsize(&ours, size).unwrap();
    (File::from(ours), File::from(theirs))
}

#[tokio::test]
async fn a_terminal_has_the_size_of_the_users_and_follows_it() {
    let Some((fleet, pod)) = with_pod("terminal").await else { return };
    let sized = |ws_row, ws_col| Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    for (protocol, websocket) in PROTOCOLS {
        let (ours, theirs) = terminal(sized(31, 97));
        let show = "while :; do stty size; sleep 0.1; done";
        let mut exec = fleet.by(websocket, &["exec", "-it", &pod, "--", "sh", "-c", show]);
        exec.stdin(theirs.try_clone().unwrap()).stdout(theirs).kill_on_drop(true);
        let mut child = exec.spawn().unwrap();
        // Our copies of the program's end: ours ends with the program then.
        drop(exec);
        let mut lines = BufReader::new(tokio::fs::File::from_std(ours.try_clone().unwrap())).lines();
        let mut shows = async |expected: &str| {
            soon(async { while lines.next_line().await.unwrap().expect(protocol).trim() != expected {} })
                .await;
        };
        shows("31 97").await;
        termios::tcsetwinsize(&ours, sized(45, 120)).unwrap();
        let pid = child.id().unwrap().to_string();
        soon(output(Command::new("kill").args(["-WINCH", &pid]))).await.unwrap();
        shows("45 120").await;
        soon(child.kill()).await.unwrap();
    }
}

#[tokio::test]
async fn cp_goes_both_ways() {
    let Some((fleet, pod)) = with_pod("cp").await else { return };
    let (there, back) = (fleet.gateway.folder.join("there"), fleet.gateway.folder.join("back"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 241) as u8).collect();
    std::fs::write(&there, &bytes).unwrap();
    let inside = format!("{pod}:/tmp/file");
    for (protocol, websocket) in PROTOCOLS {
        soon(output(&mut fleet.by(websocket, &["cp", there.to_str().unwrap(), &inside]))).await.unwrap();
        soon(output(&mut fleet.by(websocket, &["cp", &inside, back.to_str().unwrap()]))).await.unwrap();
        assert!(std::fs::read(&back).unwrap() == bytes, "{protocol}: bytes changed on the way");
        std::fs::remove_file(&back).unwrap();
    }
}

#[tokio::test]
async fn port_forward_carries_many_connections() {
    let Some((fleet, pod)) = with_pod("forward").await else { return };
    let serve = "head -c 100000 /dev/zero > /tmp/file; exec httpd -f -p 8080 -h /tmp";
    let mut server = fleet.by("true", &["exec", &pod, "--", "sh", "-c", serve]).spawn().unwrap();
    let ask = ["exec", &pod, "--", "wget", "-qO/dev/null", "http://127.0.0.1:8080/file"];
    until("the server in the pod", DEADLINE, async || Ok(output(&mut fleet.by("true", &ask)).await.ok()))
        .await
        .unwrap();
    for (protocol, websocket) in PROTOCOLS {
        let mut forward = fleet.by(websocket, &["port-forward", &pod, ":8080"]);
        let mut child = forward.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon(lines.next_line()).await.unwrap().unwrap();
        let port: u16 =
            line.split(" -> ").next().and_then(|from| from.rsplit(':').next()).unwrap().parse().unwrap();
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..20 {
            connections.spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").await.unwrap();
                let mut read = Vec::new();
                stream.read_to_end(&mut read).await.unwrap();
                assert!(read.starts_with(b"HTTP/1.1 200") || read.starts_with(b"HTTP/1.0 200"));
                assert!(read.ends_with(&vec![0; 100_000]));
            });
        }
        while let Some(ended) = soon(connections.join_next()).await {
            ended.unwrap_or_else(|error| panic!("{protocol}: {error}"));
        }
        soon(child.kill()).await.unwrap();
    }
    soon(server.kill()).await.unwrap();
}

#[tokio::test]
async fn logs_follow_and_end_with_their_reader() {
    let Some((fleet, pod)) = with_pod("logs").await else { return };
    let write = "for i in 1 2 3; do echo line $i; done > /proc/1/fd/1";
    soon(output(&mut fleet.by("true", &["exec", &pod, "--", "sh", "-c", write]))).await.unwrap();
    let mut command = fleet.kubectl(&fleet.viewer, "noded");
    let mut child = command.args(["logs", "-f", &pod]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        assert_eq!(soon(lines.next_line()).await.unwrap().unwrap(), format!("line {number}"));
    }
    soon(output(&mut fleet.by("true", &["exec", &pod, "--", "sh", "-c", "echo more > /proc/1/fd/1"])))
        .await
        .unwrap();
    assert_eq!(soon(lines.next_line()).await.unwrap().unwrap(), "more");
    soon(child.kill()).await.unwrap();
}

#[tokio::test]
async fn a_killed_clients_process_in_the_pod_sees_the_end_of_its_input_within_a_second() {
    let Some((fleet, pod)) = with_pod("killed").await else { return };
    let alive = async || {
        let count = ["exec", &pod, "--", "sh", "-c", "ps | grep -c '[c]at -' || true"];
        output(&mut fleet.by("true", &count)).await.unwrap().trim() != "0"
    };
    for (protocol, websocket) in PROTOCOLS {
        // A process that reads nothing is not told, with direct access neither.
        let mut command = fleet.by(websocket, &["exec", "-i", &pod, "--", "cat", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        until("the process to run", DEADLINE, async || Ok(alive().await.then_some(()))).await.unwrap();
        soon(child.kill()).await.unwrap();
        let killed = Instant::now();
        until("the process to end", DEADLINE, async || Ok((!alive().await).then_some(()))).await.unwrap();
        // Asking takes a moment of its own.
        assert!(killed.elapsed() < Duration::from_secs(3), "{protocol}: {:?}", killed.elapsed());
    }
}

#[tokio::test]
async fn a_viewer_reads_logs_and_may_not_exec() {
    let Some((fleet, pod)) = with_pod("viewer-pods").await else { return };
    let viewer = &fleet.viewer;
    assert!(fleet.says(viewer, "noded", &["get", "pod", &pod]).await.unwrap().contains("Running"));
    fleet.says(viewer, "noded", &["logs", &pod]).await.unwrap();
    for arguments in [&["exec", &pod, "--", "true"][..], &["attach", &pod], &["port-forward", &pod, ":80"]] {
        let said = fleet.says(viewer, "noded", arguments).await.unwrap_err();
        assert!(
            said.contains("is forbidden: User \"viewer\" cannot create resource \"pods/"),
            "{arguments:?}: {said}"
        );
    }
}

#[tokio::test]
async fn an_exec_may_be_silent_for_longer_than_any_answer_may_take() {
    let Some((fleet, pod)) = with_pod("silent").await else { return };
    // The gateway gives the API server 70 s to answer what is no stream.
    let wait = ["exec", &pod, "--", "sh", "-c", "sleep 73; echo still here"];
    let mut waiting = tokio::task::JoinSet::new();
    for (protocol, websocket) in PROTOCOLS {
        let mut command = fleet.by(websocket, &wait);
        waiting.spawn(async move { (protocol, output(&mut command).await) });
    }
    let deadline = Duration::from_secs(85);
    while let Some(ended) = tokio::time::timeout(deadline, waiting.join_next()).await.unwrap() {
        let (protocol, said) = ended.unwrap();
        assert_eq!(said.unwrap(), "still here\n", "{protocol}");
    }
}

#[tokio::test]
async fn an_exec_whose_pod_or_agent_goes_ends_with_an_error() {
    let Some((fleet, pod)) = with_pod("gone").await else { return };
    let mark = |number: usize| format!("sleep 100{number}");
    let runs = async |number: usize| {
        let count = format!("ps | grep -c '[s]leep 100{number}' || true");
        let said = output(&mut fleet.by("true", &["exec", &pod, "--", "sh", "-c", &count])).await?;
        anyhow::Ok(said.trim() != "0")
    };
    let mut children = Vec::new();
    for (number, (_, websocket)) in PROTOCOLS.into_iter().enumerate() {
        let command = mark(number);
        let mut exec = fleet.by(websocket, &["exec", "-i", &pod, "--", "sh", "-c", &command]);
        children.push(exec.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        until("the exec to begin", DEADLINE, async || Ok(runs(number).await?.then_some(()))).await.unwrap();
    }
    fleet.agents[0].signal("KILL").await.unwrap();
    let killed = Instant::now();
    for (child, (protocol, _)) in children.into_iter().zip(PROTOCOLS) {
        let ended = soon(child.wait_with_output()).await.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        // Over SPDY kubectl says nothing of a connection that broke, with direct access neither.
        assert!(protocol == "spdy" || (!ended.status.success() && said.contains("unexpected EOF")), "{said}");
    }
    assert!(killed.elapsed() < Duration::from_secs(8), "{:?}", killed.elapsed());
    let noded = noded().unwrap();
    let _agent = fleet.gateway.start_agent(&noded.target, "b").await.unwrap();
    fleet.connected("noded").await;
    let mut exec = fleet.by("true", &["exec", "-i", &pod, "--", "sh", "-c", "sleep 1009"]);
    let child = exec.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the exec to begin", DEADLINE, async || Ok(runs(9).await?.then_some(()))).await.unwrap();
    soon(output(noded.plane.kubectl().args(["delete", "pod", &pod, "--grace-period=1"]))).await.unwrap();
    let ended = soon(child.wait_with_output()).await.unwrap();
    assert!(!ended.status.success(), "{ended:?}");
}

#[tokio::test]
async fn an_exec_ends_with_the_right_to_it() {
    let Some((mut fleet, pod)) = with_pod("taken").await else { return };
    for (protocol, websocket) in PROTOCOLS {
        let mut exec = fleet.by(websocket, &["exec", "-i", &pod, "--", "sh", "-c", "echo begun; exec cat"]);
        let mut child =
            exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(soon(lines.next_line()).await.unwrap().as_deref(), Some("begun"), "{protocol}");
        // Open until the end: only the stream's end can end it.
        let _input = child.stdin.take().unwrap();
        let bindings = std::mem::take(&mut fleet.roster.document.bindings);
        fleet.roster.publish().unwrap();
        soon(child.wait()).await.unwrap();
        fleet.roster.document.bindings = bindings;
        fleet.roster.publish().unwrap();
        fleet.connected("noded").await;
    }
}

#[tokio::test]
async fn attach_shows_what_the_process_says() {
    let Some((fleet, pod)) = with_pod("attached").await else { return };
    for (protocol, websocket) in PROTOCOLS {
        let mut attach = fleet.by(websocket, &["attach", &pod]);
        let mut child = attach.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let say = ["exec", &pod, "--", "sh", "-c", "echo said > /proc/1/fd/1"];
        // Said before the attach it is not shown: it is said until it is.
        let line = until("the line", DEADLINE, async || {
            output(&mut fleet.by("true", &say)).await?;
            match tokio::time::timeout(Duration::from_millis(500), lines.next_line()).await {
                Ok(line) => Ok(line?),
                Err(_) => Ok(None),
            }
        });
        assert_eq!(line.await.unwrap(), "said", "{protocol}");
        soon(child.kill()).await.unwrap();
    }
}

#[tokio::test]
async fn twenty_execs_at_once_each_get_their_own_answer() {
    let Some((fleet, pod)) = with_pod("twenty").await else { return };
    let mut execs = tokio::task::JoinSet::new();
    for number in 0..20 {
        let say = format!("echo {number}; exit {number}");
        let mut exec = fleet.by(PROTOCOLS[number % 2].1, &["exec", &pod, "--", "sh", "-c", &say]);
        execs.spawn(async move { (number, soon(exec.output()).await.unwrap()) });
    }
    while let Some(ended) = soon(execs.join_next()).await {
        let (number, output) = ended.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"), "{output:?}");
        assert_eq!(output.status.code(), Some(i32::try_from(number).unwrap()), "{output:?}");
    }
}

#[tokio::test]
async fn debug_adds_a_container_to_a_pod() {
    let Some((fleet, pod)) = with_pod("debugged").await else { return };
    let image = format!("--image={BUSYBOX}");
    let arguments = [
        "debug",
        &pod,
        &image,
        "--image-pull-policy=Never",
        "--container=look",
        "--",
        "sh",
        "-c",
        "echo looked",
    ];
    soon(output(&mut fleet.by("true", &arguments))).await.unwrap();
    until("what the container said", DEADLINE, async || {
        let said = fleet.says(&fleet.admin, "noded", &["logs", &pod, "-c", "look"]).await;
        Ok(said.ok().filter(|text| text == "looked\n"))
    })
    .await
    .unwrap();
}
