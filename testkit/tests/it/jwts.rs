//! Programs that show JWTs of an issuer that is trusted: here a real API server, for its service accounts.

use std::path::{Path, PathBuf};

use drover_testkit::client::{Client, status};
use drover_testkit::control_plane;
use drover_testkit::fleet::output;
use drover_testkit::process::until;
use serde_json::{Value, json};

use crate::control::{Installed, installed};
use crate::request_path::body as body_of;
use crate::system::{DEADLINE, clusters, folder, soon};

const SERVED: &str = "/api/v1/namespaces/default/configmaps";

/// What the API server signs for a service account of its own.
async fn minted(account: &str, audience: &str, lasts: &str) -> String {
    let plane = &clusters().one.plane;
    let mut kubectl = plane.kubectl();
    let minted =
        soon(output(kubectl.args(["create", "token", account, "--audience", audience, "--duration", lasts])));
    minted.await.unwrap().trim().to_owned()
}

async fn cluster_says(arguments: &[&str]) -> String {
    soon(output(clusters().one.plane.kubectl().args(arguments))).await.unwrap()
}

/// The API server's keys, in a file.
async fn keys(test: &str) -> PathBuf {
    let file = folder(test).join("jwks.json");
    std::fs::write(&file, cluster_says(&["get", "--raw", "/openid/v1/jwks"]).await).unwrap();
    file
}

/// Trusts the API server's service account, by what nobody else can come to be.
async fn trust(installed: &Installed, keys: &Path, account: &str) {
    let discovered: Value =
        serde_json::from_str(&cluster_says(&["get", "--raw", "/.well-known/openid-configuration"]).await)
            .unwrap();
    let uid = cluster_says(&["get", "serviceaccount", account, "-o", "jsonpath={.metadata.uid}"]).await;
    let rule =
        format!("runner:sub=system:serviceaccount:default:{account},/kubernetes.io/serviceaccount/uid={uid}");
    let keys = keys.to_string_lossy();
    let issuer = discovered["issuer"].as_str().unwrap();
    let add = ["provider", "add-issuer", "ci", "--issuer", issuer, "--keys-file", &keys, "--rule", &rule];
    installed.says(&add).await.unwrap();
}

async fn get(client: &Client, cluster: &str, token: &str) -> (u16, String) {
    let request = format!(
        "GET /k8s/clusters/{cluster}{SERVED} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let answer = soon(client.raw(request.as_bytes())).await.unwrap();
    (status(&answer).unwrap(), answer)
}

#[tokio::test]
async fn a_service_accounts_jwt_is_who_its_claims_say_and_goes_with_its_issuer() {
    let installed = installed("jwts").await;
    let _agent = installed.import("builds").await;
    let account = "jwts-runner";
    cluster_says(&["create", "serviceaccount", account]).await;
    trust(&installed, &keys("jwts-keys").await, account).await;
    let client = installed.installation.client().unwrap();
    let jwt = minted(account, "drover", "1h").await;

    // Known, and no role: a provider lets in by default whoever has one.
    let (code, said) = get(&client, "builds", &jwt).await;
    assert!(code == 401 && said.contains("runner is not among those whom the provider lets in"), "{said}");
    let bind =
        ["binding", "create", "--user", "ci:user/runner", "--role", "cluster-viewer", "--cluster", "builds"];
    installed.says(&bind).await.unwrap();
    let another = minted(account, "drover", "1h").await;
    let (code, said) = get(&client, "builds", &another).await;
    assert_eq!(code, 200, "{said}");
    let listed = installed.says(&["token", "list"]).await.unwrap();
    assert!(listed.contains("jwt"), "{listed}");
    let users = installed.says(&["user", "list"]).await.unwrap();
    assert!(users.contains("runner@ci") && users.contains("ci:user/runner"), "{users}");

    // The job's own kubectl, with its JWT in a file.
    let job = folder("jwts-job");
    let (file, kubeconfig) = (job.join("jwt"), job.join("kubeconfig"));
    std::fs::write(&file, minted(account, "drover", "1h").await).unwrap();
    let mut write = installed.installation.person("job").drover(["kubeconfig", "--ci", "--server"]);
    write.arg(installed.installation.url()).arg("--ca").arg(installed.installation.data().join("ca.crt"));
    write.arg("--jwt-file").arg(&file).arg("--kubeconfig").arg(&kubeconfig);
    soon(output(&mut write)).await.unwrap();
    let kubectl = || control_plane::kubectl(&control_plane::binaries().unwrap(), &kubeconfig);
    let said = soon(output(kubectl().args(["--context", "builds", "get", "configmaps", "-o", "name"]))).await;
    assert!(said.unwrap().contains("kube-root-ca.crt"));
    let refused = soon(output(kubectl().args(["--context", "builds", "get", "secrets"]))).await.unwrap_err();
    assert!(refused.to_string().contains("User \"runner@ci\" cannot list resource"), "{refused}");
    std::fs::write(&file, minted("default", "drover", "1h").await).unwrap();
    let refused =
        soon(output(kubectl().args(["--context", "builds", "get", "configmaps"]))).await.unwrap_err();
    assert!(refused.to_string().contains("no rule of the provider \"ci\" matches"), "{refused}");
    // What outlives its JWT is not made by it.
    let create = json!({ "kind": "bot", "scope": "all" }).to_string();
    let (head, length) = ("POST /v1/tokens HTTP/1.1\r\nHost: localhost", create.len());
    let create = format!(
        "{head}\r\nAuthorization: Bearer {another}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{create}"
    );
    let refused = soon(client.raw(create.as_bytes())).await.unwrap();
    assert!(status(&refused).unwrap() == 403 && refused.contains("a JWT makes no tokens"), "{refused}");

    // Of another account, for another audience, changed, and not of the issuer.
    let default = minted("default", "drover", "1h").await;
    let (code, said) = get(&client, "builds", &default).await;
    assert!(code == 401 && said.contains("no rule of the provider"), "{said}");
    let elsewhere = minted(account, "https://elsewhere", "1h").await;
    let (code, said) = get(&client, "builds", &elsewhere).await;
    assert!(code == 401 && said.contains("its audience is not Drover's"), "{said}");
    let mut changed = another.clone();
    changed.pop();
    changed.pop();
    let (code, said) = get(&client, "builds", &changed).await;
    assert!(code == 401 && said.contains("JwtRefused"), "{said}");

    // Its issuer goes: what is known ends at once, and nothing new is let in.
    installed.says(&["provider", "disable", "ci"]).await.unwrap();
    until("the JWT to be refused", DEADLINE, async || {
        Ok((get(&client, "builds", &another).await.0 == 401).then_some(()))
    })
    .await
    .unwrap();
    installed.says(&["provider", "enable", "ci"]).await.unwrap();
    until("the JWT to be let in again", DEADLINE, async || {
        Ok((get(&client, "builds", &another).await.0 == 200).then_some(()))
    })
    .await
    .unwrap();
    installed.says(&["provider", "delete", "ci"]).await.unwrap();
    until("the JWT to be refused for good", DEADLINE, async || {
        Ok((get(&client, "builds", &another).await.0 == 401).then_some(()))
    })
    .await
    .unwrap();
    cluster_says(&["delete", "serviceaccount", account]).await;
}

#[tokio::test]
async fn without_control_known_jwts_go_on_and_new_ones_are_told_when_to_come_again() {
    let installed = installed("jwts-alone").await;
    let _agent = installed.import("alone").await;
    let account = "jwts-alone";
    cluster_says(&["create", "serviceaccount", account]).await;
    trust(&installed, &keys("jwts-alone-keys").await, account).await;
    let bind =
        ["binding", "create", "--user", "ci:user/runner", "--role", "cluster-viewer", "--cluster", "alone"];
    installed.says(&bind).await.unwrap();
    let client = installed.installation.client().unwrap();
    let Installed { installation, up, .. } = installed;
    up.stop().await.unwrap();
    let control = installation.control("control", &[]).await.unwrap();
    let _gateway = installation.gateway("gateway").await.unwrap();
    let probe = minted(account, "drover", "1h").await;
    until("the cluster to be served", DEADLINE, async || {
        Ok((get(&client, "alone", &probe).await.0 == 200).then_some(()))
    })
    .await
    .unwrap();
    let (known, new) = (minted(account, "drover", "1h").await, minted(account, "drover", "2h").await);
    // Many at once are one login.
    let (first, second, third) = tokio::join!(
        get(&client, "alone", &known),
        get(&client, "alone", &known),
        get(&client, "alone", &known)
    );
    assert_eq!([first.0, second.0, third.0], [200; 3], "{}", first.1);

    control.stop().await.unwrap();
    assert_eq!(get(&client, "alone", &known).await.0, 200);
    let (code, said) = get(&client, "alone", &new).await;
    assert!(code == 503 && said.to_lowercase().contains("retry-after: 2"), "{said}");
    assert_eq!(body_of(&said)["details"]["causes"][0]["reason"], "JwtUnanswered");
    assert_eq!(get(&client, "alone", &known).await.0, 200);

    let _control = installation.control("control-again", &[]).await.unwrap();
    until("the new one to be let in", DEADLINE, async || {
        Ok((get(&client, "alone", &new).await.0 == 200).then_some(()))
    })
    .await
    .unwrap();
    // A flood of JWTs that are nobody's reaches control so often, and makes those that are known wait for nothing.
    let mut answers = Vec::new();
    for number in 0..40 {
        let forged = format!("{}.{}{number:02}", known.rsplit_once('.').unwrap().0, "A".repeat(40));
        answers.push(get(&client, "alone", &forged).await.0);
    }
    let refused = answers.iter().filter(|code| **code == 401).count();
    assert!((1..=30).contains(&refused) && answers.ends_with(&[429; 5]), "{answers:?}");
    assert_eq!(get(&client, "alone", &known).await.0, 200);
    cluster_says(&["delete", "serviceaccount", account]).await;
}
