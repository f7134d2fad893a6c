//! Real nodes whose pods run.

use std::path::Path;

use drover_testkit::control_plane::ControlPlane;
use drover_testkit::fleet::output;
use drover_testkit::image::BUSYBOX;
use drover_testkit::nodes;
use drover_testkit::process::until;

use crate::system::{DEADLINE, folder, soon};

/// What this machine has of nodes: namespaces, links, mounts and cgroups that are named like ours.
fn traces(mark: &Path) -> Vec<String> {
    let named = |path: &str| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mark = mark.to_string_lossy().into_owned();
    let mut traces: Vec<_> = mounts.lines().filter(|line| line.contains(&mark)).map(str::to_owned).collect();
    let index = std::fs::read_to_string(Path::new(&mark).join("index")).unwrap_or_default();
    let names = [format!("drover{}", index.trim()), format!("drv{}-", index.trim())];
    let ours = |path: &String| {
        names.iter().any(|name| path.rsplit('/').next().is_some_and(|last| last.starts_with(name.as_str())))
    };
    traces.extend(["/run/netns", "/sys/class/net"].iter().flat_map(|path| named(path)).filter(ours));
    traces
}

#[tokio::test]
async fn a_pod_runs_on_a_real_node_and_nothing_is_left_of_it() {
    if let Err(reason) = nodes::possible() {
        return eprintln!("skipped: {reason}");
    }
    let folder = folder("nodes");
    let plane = ControlPlane::start_with_nodes("noded", &folder, 1, &[]).await.unwrap();
    let kubectl = |arguments: &'static [&'static str]| {
        let mut command = plane.kubectl();
        command.args(arguments);
        command
    };
    let image = format!("--image={BUSYBOX}");
    let mut run = plane.kubectl();
    run.args(["run", "shell", &image, "--restart=Never", "--image-pull-policy=Never"]);
    soon(output(&mut run)).await.unwrap();
    until("the pod to run", DEADLINE, async || {
        let phase = output(&mut kubectl(&["get", "pod", "shell", "-o", "jsonpath={.status.phase}"])).await?;
        Ok((phase == "Running").then_some(()))
    })
    .await
    .unwrap();
    let said = soon(output(&mut kubectl(&["exec", "shell", "--", "sh", "-c", "echo here"]))).await.unwrap();
    assert_eq!(said, "here\n");
    assert!(!traces(&folder).is_empty());
    let index = std::fs::read_to_string(folder.join("index")).unwrap();
    soon(plane.stop()).await.unwrap();
    std::fs::write(folder.join("index"), index).unwrap();
    assert_eq!(traces(&folder), Vec::<String>::new());
}
