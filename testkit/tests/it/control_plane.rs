//! The launcher of real control planes.

use std::time::Duration;

use drover_testkit::control_plane::ControlPlane;
use drover_testkit::process::until;

use crate::system::DEADLINE;

#[tokio::test]
async fn a_control_plane_starts_answers_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start("one", folder.path()).await.unwrap();
    let output = plane.kubectl().args(["get", "namespaces", "-o", "name"]).output().await.unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert!(names.contains("namespace/kube-system"), "{names}");
    let api_server = plane.api_server().pid();
    let mut plane = plane;
    plane.check().unwrap();
    let etcd = plane.processes()[0].pid();
    plane.processes()[0].signal("KILL").await.unwrap();
    until("the end of etcd to be noticed", DEADLINE, async || Ok(plane.check().err())).await.unwrap();
    let said = plane.check().unwrap_err().to_string();
    assert!(said.contains("etcd ended by itself"), "{said}");
    assert!(!std::path::Path::new(&format!("/proc/{etcd}")).exists());
    tokio::time::timeout(Duration::from_secs(30), plane.stop()).await.unwrap().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{api_server}")).exists());
}
