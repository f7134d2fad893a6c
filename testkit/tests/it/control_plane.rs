//! The launcher of real control planes.

use std::time::Duration;

use drover_testkit::control_plane::ControlPlane;

#[tokio::test]
async fn a_control_plane_starts_answers_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let plane = ControlPlane::start("one", folder.path()).await.unwrap();
    let output = plane.kubectl().args(["get", "namespaces", "-o", "name"]).output().await.unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert!(names.contains("namespace/kube-system"), "{names}");
    let api_server = plane.api_server().pid();
    tokio::time::timeout(Duration::from_secs(30), plane.stop()).await.unwrap().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{api_server}")).exists());
}
