//! What the cluster itself keeps from members, whatever a gateway asks for: its own admission decides.

use drover_testkit::process::until;

use crate::system::{DEADLINE, clusters, soon};

/// What kubectl says to a request as somebody of a role, straight at the API server: no rule of a gateway's decides.
async fn says(group: &str, arguments: &[&str]) -> Result<String, String> {
    let mut kubectl = clusters().one.plane.kubectl();
    kubectl.args(["--as", "zoe", "--as-group", group]).args(arguments);
    let output = soon(kubectl.output()).await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[tokio::test]
async fn regression_members_come_to_nothing_by_way_of_system_namespaces() {
    let (member, owner) = ("drover:cluster-member", "drover:cluster-owner");
    let refused = "only owners of the cluster change anything in this namespace";
    let token = ["create", "token", "default", "-n", "kube-system"];
    // Admission learns of policies a moment after they are applied.
    until("the policy", DEADLINE, async || Ok(says(member, &token).await.is_err().then_some(())))
        .await
        .unwrap();
    for arguments in [
        &token[..],
        &["create", "token", "drover-agent", "-n", "drover-system"],
        &["create", "token", "clusterrole-aggregation-controller", "-n", "kube-system"],
        &["create", "secret", "generic", "mine", "-n", "drover-system"],
        &["create", "configmap", "mine", "-n", "kube-system"],
        &["delete", "configmap", "kube-root-ca.crt", "-n", "kube-system"],
        &["run", "mine", "--image=x", "-n", "kube-system"],
    ] {
        let said = says(member, arguments).await.unwrap_err();
        assert!(said.contains(refused), "{arguments:?}: {said}");
    }
    let of_project = says("drover:project-member", &token).await.unwrap_err();
    assert!(of_project.contains(refused), "{of_project}");
    // Elsewhere members are what they were, and owners everywhere.
    says(member, &["create", "token", "default", "-n", "default"]).await.unwrap();
    says(member, &["create", "configmap", "members", "-n", "default"]).await.unwrap();
    says(member, &["delete", "configmap", "members", "-n", "default"]).await.unwrap();
    says(member, &["get", "configmaps", "-n", "kube-system"]).await.unwrap();
    says(owner, &token).await.unwrap();
}

#[tokio::test]
async fn regression_nobody_makes_a_token_that_may_do_more_than_they() {
    let plane = &clusters().one.plane;
    for arguments in [
        &["create", "serviceaccount", "mighty"][..],
        &[
            "create",
            "clusterrolebinding",
            "mighty",
            "--clusterrole=cluster-admin",
            "--serviceaccount=default:mighty",
        ],
        &["create", "serviceaccount", "reader"],
        &["create", "clusterrole", "reader", "--verb=get,list", "--resource=secrets"],
        &[
            "create",
            "clusterrolebinding",
            "reader",
            "--clusterrole=reader",
            "--serviceaccount=default:reader",
        ],
    ] {
        let made = soon(plane.kubectl().args(arguments).output()).await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let refused = "nobody makes a token that may do more than they";
    let mighty = ["create", "token", "mighty"];
    let said = until("the policy", DEADLINE, async || Ok(says("drover:cluster-member", &mighty).await.err()));
    let said = said.await.unwrap();
    assert!(said.contains(refused), "{said}");
    // Nor a Secret that the cluster writes one into.
    let secret = |account: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let annotations = serde_json::json!({ "kubernetes.io/service-account.name": account });
        let metadata = serde_json::json!({ "name": format!("of-{account}"), "namespace": "default", "annotations": annotations });
        let secret = serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": metadata });
        std::fs::write(file.path(), secret.to_string()).unwrap();
        file
    };
    let create = async |group: &str, account: &str| {
        let file = secret(account);
        says(group, &["create", "-f", file.path().to_str().unwrap()]).await
    };
    let said = create("drover:cluster-member", "mighty").await.unwrap_err();
    assert!(said.contains(refused), "{said}");
    create("drover:cluster-member", "reader").await.unwrap();
    create("drover:cluster-owner", "mighty").await.unwrap();
    says("drover:cluster-member", &["create", "secret", "generic", "members"]).await.unwrap();
    // A member reads secrets as it does.
    says("drover:cluster-member", &["create", "token", "reader"]).await.unwrap();
    says("drover:cluster-owner", &mighty).await.unwrap();
}
