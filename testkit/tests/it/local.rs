//! The newcomer's command, as they type it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use drover_testkit::control_plane;
use drover_testkit::fleet::Programs;
use drover_testkit::local::Up;
use drover_testkit::process::{kill, repository, until};
use tokio::process::Command;
use tokio::time::timeout;

use crate::system::{DEADLINE, clusters, folder, soon};

/// Two control planes on a busy machine.
const UP_TIMEOUT: Duration = Duration::from_secs(85);

/// A fleet that is taken down when dropped, whatever the test came to.
struct Down(PathBuf);

impl Drop for Down {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(repository().join("deploy/local/down"));
        command.arg("--folder").arg(&self.0).env("DROVER_BIN", programs());
        assert!(command.status().is_ok_and(|status| status.success()), "the fleet is not down");
        assert!(!self.0.exists(), "files are left");
    }
}

/// Process ids and command lines that name a folder.
fn processes(folder: &Path) -> Vec<(u32, String)> {
    let mark = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    let command = |pid: u32| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?));
    pids.filter_map(command).filter(|(_, command)| command.contains(&mark)).collect()
}

/// The process of a program itself, and not its supervisor.
fn running(folder: &Path, program: &str) -> Option<(u32, String)> {
    let runs = |command: &str| command.split('\0').next().is_some_and(|first| first.ends_with(program));
    processes(folder).into_iter().find(|(_, command)| runs(command))
}

fn programs() -> PathBuf {
    Programs::of_this_build().unwrap().gateway.parent().unwrap().to_owned()
}

async fn up(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(repository().join("deploy/local/up"));
    command.arg("--folder").arg(folder).args(arguments).env("DROVER_BIN", programs());
    timeout(UP_TIMEOUT, command.output()).await.unwrap().unwrap()
}

async fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Output {
    let mut command = control_plane::kubectl(&control_plane::binaries().unwrap(), kubeconfig);
    soon(command.args(arguments).output()).await.unwrap()
}

#[tokio::test]
async fn one_command_gives_a_newcomer_two_clusters_and_two_users() {
    let down = Down(folder("up").join("fleet"));
    let output = up(&down.0, &["--clusters", "2", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let up_said: Up = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(up_said.clusters.len(), 2);
    for cluster in &up_said.clusters {
        let who = kubectl(&up_said.admin.kubeconfig, &["--context", &cluster.name, "auth", "whoami"]).await;
        assert!(String::from_utf8_lossy(&who.stdout).contains("drover:cluster-owner"), "{who:?}");
        let refused =
            kubectl(&up_said.viewer.kubeconfig, &["--context", &cluster.name, "create", "configmap", "x"])
                .await;
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("is forbidden: User \"viewer\""),
            "{refused:?}"
        );
        let direct = kubectl(&cluster.direct_kubeconfig, &["get", "--raw", "/readyz"]).await;
        assert_eq!(direct.stdout, b"ok");
    }
    let again = up(&down.0, &["--clusters", "1"]).await;
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("up already"), "{again:?}");
}

#[tokio::test]
async fn the_gateway_stands_in_front_of_a_cluster_that_exists() {
    let kubeconfig = clusters().one.plane.admin_kubeconfig.clone();
    let down = Down(folder("existing").join("fleet"));
    let output = up(&down.0, &["--kubeconfig", kubeconfig.to_str().unwrap(), "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let up_said: Up = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(up_said.clusters[0].name, "one");
    for program in ["drover-agent", "drover-gateway"] {
        let (before, _) = running(&down.0, program).expect(program);
        kill(before, "KILL").await.unwrap();
        until("it to run again", DEADLINE, async || {
            Ok(running(&down.0, program).filter(|(pid, _)| *pid != before))
        })
        .await
        .unwrap();
    }
    until("requests to be served again", DEADLINE, async || {
        let version = kubectl(&up_said.viewer.kubeconfig, &["get", "--raw", "/version"]).await;
        Ok(version.status.success().then_some(()))
    })
    .await
    .unwrap();
    let who = kubectl(&up_said.viewer.kubeconfig, &["auth", "whoami"]).await;
    assert!(String::from_utf8_lossy(&who.stdout).contains("drover:cluster-viewer"), "{who:?}");
}

#[tokio::test]
async fn nothing_outlives_a_fleet_that_was_killed() {
    let kubeconfig = clusters().two.plane.admin_kubeconfig.clone();
    let down = Down(folder("killed").join("fleet"));
    let output = up(&down.0, &["--kubeconfig", kubeconfig.to_str().unwrap(), "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ours = || {
        let mark = down.0.to_string_lossy().into_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let commands =
            processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        commands.filter(|command| command.contains(&mark)).count()
    };
    assert!(ours() >= 5, "the holder, a gateway, an agent and their supervisors");
    let holder: u32 = std::fs::read_to_string(down.0.join("pid")).unwrap().parse().unwrap();
    kill(holder, "KILL").await.unwrap();
    until("everything to end", DEADLINE, async || Ok((ours() == 0).then_some(()))).await.unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let folder = folder("bad-up").join("fleet");
    for (arguments, expected) in [
        (&["--clusters", "0"][..], "0 is not in 1..=16"),
        (&["--kubeconfig", "/no/such/file"], "no such file"),
        (&["--clusters", "1", "--kubeconfig", "x"], "cannot be used with"),
    ] {
        let output = up(&folder, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{arguments:?}: {said}");
    }
    assert!(!folder.exists(), "files are left");
}

#[tokio::test]
async fn without_go_a_newcomer_is_pointed_to_a_cluster_that_exists() {
    let folder = folder("no-go");
    let tools = folder.join("tools");
    std::fs::create_dir(&tools).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for tool in ["bash", "basename", "cat", "cut", "dirname", "flock", "mkdir", "sha256sum", "tail", "uname"]
    {
        let mut places = std::env::split_paths(&path).map(|place| place.join(tool));
        let found = places.find(|place| place.is_file()).expect(tool);
        std::os::unix::fs::symlink(found, tools.join(tool)).unwrap();
    }
    let mut command = Command::new(repository().join("deploy/local/up"));
    command.env_clear().env("PATH", &tools).env("DROVER_CACHE", folder.join("cache"));
    let output = soon(command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("deploy/local/up --kubeconfig FILE"), "{said}");
}
