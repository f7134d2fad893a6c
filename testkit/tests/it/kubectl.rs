//! What people do with kubectl, through gateway and agent, on a real API server.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::system::{Fleet, soon};

#[tokio::test]
async fn whoami_shows_the_gateways_user_and_groups() {
    let fleet = Fleet::start("whoami").await;
    let said = fleet.says(&fleet.admin, "one", &["auth", "whoami", "-o", "json"]).await.unwrap();
    let review: Value = serde_json::from_str(&said).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "admin");
    assert_eq!(user["uid"], "local:user/admin");
    let groups: Vec<_> =
        user["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap()).collect();
    assert_eq!(groups, ["drover:cluster-owner", "local:group/platform", "system:authenticated"]);
}

#[tokio::test]
async fn an_administrator_works_as_with_direct_access() {
    let fleet = Fleet::start("admin").await;
    let manifest = fleet.gateway.folder.join("configmap.json");
    let object =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"made-by-admin"},"data":{"k":"v"}}"#;
    std::fs::write(&manifest, object).unwrap();
    let manifest = manifest.to_str().unwrap();
    for (arguments, expected) in [
        (&["get", "namespaces"][..], "kube-system"),
        (&["apply", "--server-side", "-f", manifest], "made-by-admin serverside-applied"),
        (&["get", "configmap", "made-by-admin", "-o", "jsonpath={.data.k}"], "v"),
        (&["auth", "can-i", "--list"], "*.*"),
        (&["auth", "can-i", "delete", "nodes"], "yes"),
        (&["api-resources"], "deployments"),
        (&["explain", "pod.spec.containers"], "Entrypoint array"),
        (&["create", "token", "default"], "eyJ"),
        (&["delete", "configmap", "made-by-admin"], "deleted"),
        (&["get", "--raw", "/readyz"], "ok"),
        (&["get", "configmaps", "--chunk-size=1", "-A"], "kube-root-ca.crt"),
    ] {
        let said = fleet.says(&fleet.admin, "one", arguments).await;
        assert!(said.as_ref().is_ok_and(|text| text.contains(expected)), "{arguments:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_viewer_reads_and_is_told_once_why_they_cannot_write() {
    let fleet = Fleet::start("viewer").await;
    for (arguments, expected) in [
        (&["get", "configmaps", "-A"][..], "kube-root-ca.crt"),
        (&["get", "namespaces"], "kube-system"),
        (&["api-resources"], "deployments"),
        (&["auth", "can-i", "get", "pods"], "yes"),
        (&["auth", "whoami"], "drover:cluster-viewer"),
    ] {
        let said = fleet.says(&fleet.viewer, "one", arguments).await;
        assert!(said.as_ref().is_ok_and(|text| text.contains(expected)), "{arguments:?}: {said:?}");
    }
    for (arguments, expected) in [
        (
            &["create", "configmap", "no"][..],
            r#"configmaps is forbidden: User "viewer" cannot create resource "configmaps" in API group "" in the namespace "default": no role of the user in cluster "one" allows it"#,
        ),
        (
            &["delete", "configmap", "kube-root-ca.crt"],
            r#"configmaps "kube-root-ca.crt" is forbidden: User "viewer" cannot delete resource "configmaps""#,
        ),
        (&["get", "secrets"], r#"secrets is forbidden: User "viewer" cannot list resource "secrets""#),
        (&["create", "token", "default"], r#"User "viewer" cannot create resource "serviceaccounts/token""#),
        (&["get", "--raw", "/metrics"], r#"User "viewer" cannot get path "/metrics""#),
    ] {
        let said = fleet.says(&fleet.viewer, "one", arguments).await.unwrap_err();
        assert_eq!(said.matches(expected).count(), 1, "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_watch_sees_a_change_at_once() {
    let fleet = Fleet::start("watch").await;
    let arguments = ["get", "configmaps", "-w", "--field-selector", "metadata.name=watched", "-o", "name"];
    let mut watch =
        fleet.kubectl(&fleet.viewer, "two").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    fleet.says(&fleet.admin, "two", &["create", "configmap", "watched"]).await.unwrap();
    assert_eq!(soon(lines.next_line()).await.unwrap().unwrap(), "configmap/watched");
    fleet.says(&fleet.admin, "two", &["label", "configmap", "watched", "seen=yes"]).await.unwrap();
    assert_eq!(soon(lines.next_line()).await.unwrap().unwrap(), "configmap/watched");
    soon(watch.kill()).await.unwrap();
    fleet.says(&fleet.admin, "two", &["delete", "configmap", "watched"]).await.unwrap();
}

#[tokio::test]
async fn acting_as_somebody_else_is_refused() {
    let fleet = Fleet::start("as").await;
    let said = fleet.says(&fleet.admin, "one", &["get", "pods", "--as", "viewer"]).await.unwrap_err();
    assert!(said.contains("impersonation (kubectl --as) is not allowed"), "{said}");
}
