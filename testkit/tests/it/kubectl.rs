//! What people do with kubectl, through gateway and agent, on a real API server.

use std::process::Stdio;
use std::time::Duration;

use drover_api::kinds::{Domain, Effect, Role, Rule};
use drover_testkit::process::until;
use drover_testkit::roster::Member;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::system::{DEADLINE, Fleet, clusters, soon};

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

/// kubectl's HTTP/2 asks for a sign of life after 30 s of silence, and gives up 15 s later: the gateway answers for
/// an API server that does nothing, stopped or not.
#[tokio::test]
async fn a_watch_on_which_nothing_comes_for_long_stays_open() {
    const SILENCE: Duration = Duration::from_secs(50);
    let (fleet, server) = Fleet::with_api_server("silence").await;
    let arguments = ["get", "--raw", "/api/v1/pods?watch=true&behave=watch"];
    let mut watch = fleet.kubectl(&fleet.admin, "one").args(arguments).spawn().unwrap();
    let mut open = server.open();
    soon(open.wait_for(|open| *open == 1)).await.unwrap();
    let ended = tokio::time::timeout(SILENCE, open.wait_for(|open| *open == 0)).await;
    assert!(ended.is_err(), "the watch ended");
    assert!(watch.try_wait().unwrap().is_none(), "kubectl has given up");
    soon(watch.kill()).await.unwrap();
}

#[tokio::test]
async fn kubectl_proxy_serves_a_socket_with_what_its_user_may() {
    let fleet = Fleet::start("proxy").await;
    let socket = fleet.gateway.folder.join("proxy.sock");
    let mut proxy = fleet.kubectl(&fleet.viewer, "one");
    // Without the flag kubectl forgets the path of the server's URL.
    let proxy =
        proxy.args(["proxy", "--append-server-path", "--unix-socket"]).arg(&socket).stdout(Stdio::null());
    let _proxy = proxy.kill_on_drop(true).spawn().unwrap();
    let connected = until("the socket", DEADLINE, async || Ok(UnixStream::connect(&socket).await.ok()));
    drop(connected.await.unwrap());
    for (path, expected) in [
        ("/healthz", "200 OK"),
        ("/api/v1/namespaces/kube-system", "200 OK"),
        ("/api/v1/namespaces/kube-system/secrets", "403 Forbidden"),
    ] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn acting_as_somebody_else_is_refused_to_an_administrator_too() {
    let fleet = Fleet::start("as").await;
    for arguments in
        [&["--as", "viewer"][..], &["--as", "system:admin"], &["--as", "a", "--as-group", "system:masters"]]
    {
        let said =
            fleet.says(&fleet.admin, "one", &[&["get", "pods"], arguments].concat()).await.unwrap_err();
        assert!(said.contains("\"admin\" may not act as user"), "{said}");
    }
}

fn actor() -> Role {
    let rule = |resource: &str, names: &[&str]| Rule {
        effect: Effect::Allow,
        verbs: vec!["impersonate".to_owned()],
        api_groups: vec!["".to_owned(), "authentication.k8s.io".to_owned()],
        resources: vec![resource.to_owned()],
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        non_resource_urls: Vec::new(),
    };
    let rules = vec![
        rule("users", &["dev", "system:node:a"]),
        rule("groups", &["dev-team", "system:masters"]),
        rule("serviceaccounts", &["default:default"]),
        rule("uids", &["7"]),
    ];
    Role { name: "actor".to_owned(), inherits: Vec::new(), rules }
}

#[tokio::test]
async fn who_has_the_right_acts_as_exactly_whom_they_name_and_both_are_recorded() {
    let fleet = Fleet::start_with("acting", |roster| {
        roster.document.roles.push(actor());
        roster.bind("local:user/admin", "actor", Domain::Cluster("c-one1".to_owned()));
    })
    .await;
    let whoami = async |cluster: &str, arguments: &[&str]| {
        let command = [&["auth", "whoami", "-o", "json"], arguments].concat();
        let said = fleet.says(&fleet.admin, cluster, &command).await?;
        Ok::<_, String>(serde_json::from_str::<Value>(&said).unwrap()["status"]["userInfo"].clone())
    };
    let dev = ["--as", "dev", "--as-group", "dev-team", "--as-uid", "7"];
    let seen = whoami("one", &dev).await.unwrap();
    assert_eq!((&seen["username"], &seen["uid"]), (&"dev".into(), &"7".into()));
    assert_eq!(seen["groups"], serde_json::json!(["dev-team", "system:authenticated"]));
    assert_eq!(seen["extra"]["drover.io/original-user"], serde_json::json!(["admin"]));
    let account = "system:serviceaccount:default:default";
    let seen = whoami("one", &["--as", account]).await.unwrap();
    assert_eq!(seen["username"], account);
    for (arguments, part) in [
        (&["--as", "viewer"][..], "user \"viewer\""),
        (&["--as", "dev", "--as-group", "others"], "group \"others\""),
        (&["--as", "dev", "--as-uid", "8"], "uid \"8\""),
        (&["--as", "system:serviceaccount:default:other"], "service account \"default/other\""),
        // The rules allow it; the agent never does.
        (&["--as", "system:node:a"], "are the cluster's own"),
        (&["--as", "dev", "--as-group", "system:masters"], "are the cluster's own"),
    ] {
        // Of a review, kubectl would not show the words.
        let pods = [&["get", "pods"], arguments].concat();
        let said = fleet.says(&fleet.admin, "one", &pods).await.unwrap_err();
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    let pods = [&["get", "pods"], &dev[..]].concat();
    let said = fleet.says(&fleet.admin, "two", &pods).await.unwrap_err();
    assert!(said.contains("may not act as user"), "the right is of one cluster: {said}");

    // The request is decided for dev by the cluster, for whom nothing is bound.
    let asked = ["get", "configmaps", "--field-selector=metadata.name=acted", "--as", "dev"];
    let said = fleet.says(&fleet.admin, "one", &asked).await.unwrap_err();
    assert!(said.contains("User \"dev\" cannot list resource \"configmaps\""), "{said}");
    let recorded = until("both records", DEADLINE, async || {
        let ours = std::fs::read_to_string(fleet.gateway.audit_log())?;
        let ours = ours.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut ours =
            ours.filter(|event| event["requestURI"].as_str().is_some_and(|uri| uri.contains("acted")));
        Ok(ours.next_back().zip(clusters().one.audited("acted").pop()))
    });
    let (ours, theirs) = recorded.await.unwrap();
    assert_eq!(ours["auditID"], theirs["auditID"]);
    assert_eq!(
        (&ours["user"]["username"], &ours["impersonatedUser"]["username"]),
        (&"admin".into(), &"dev".into())
    );
    assert_eq!(theirs["impersonatedUser"]["username"], "dev");
    assert_eq!(theirs["impersonatedUser"]["extra"]["drover.io/original-user"][0], "admin");
}

#[tokio::test]
async fn groups_travel_whole_or_as_the_cluster_lists_them_or_the_request_is_refused() {
    let groups =
        |count: usize| (0..count).map(|number| format!("ad:group/S-1-5-{number}")).collect::<Vec<_>>();
    let mut members = Vec::new();
    let fleet = Fleet::start_with("groups", |roster| {
        for (name, count) in [("many", 1000), ("most", 256)] {
            let groups = groups(count);
            let groups: Vec<_> = groups.iter().map(String::as_str).collect();
            let member = roster.user(name, &groups).unwrap();
            // By a group that no cluster is sent.
            roster.bind(&member.principal, "cluster-viewer", Domain::Global);
            members.push(member);
        }
        let listed = ["ad:group/S-1-5-7", "ad:group/S-1-5-999", "ad:group/of-others"];
        roster.document.clusters[0].groups_listed = Some(listed.map(str::to_owned).into());
    })
    .await;
    let [many, most] = &members[..] else { unreachable!() };
    let seen = async |member: &Member, cluster: &str| {
        let said = fleet.says(member, cluster, &["auth", "whoami", "-o", "json"]).await.unwrap();
        let review: Value = serde_json::from_str(&said).unwrap();
        let groups = review["status"]["userInfo"]["groups"].as_array().unwrap().clone();
        groups.iter().map(|group| group.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected =
        ["ad:group/S-1-5-7", "ad:group/S-1-5-999", "drover:cluster-viewer", "system:authenticated"];
    assert_eq!(seen(many, "one").await, expected);
    let refused = fleet.says(many, "two", &["get", "pods"]).await.unwrap_err();
    assert!(refused.contains("in 1000 groups, more than the 256"), "{refused}");
    let log = std::fs::read_to_string(fleet.gateway.audit_log()).unwrap();
    assert!(log.contains(r#""drover.io/groups-in-all":"1000""#), "that some were left out is recorded");
    for cluster in ["one", "two"] {
        assert_eq!(seen(most, cluster).await.len(), 256 + 2, "{cluster}");
    }
}
