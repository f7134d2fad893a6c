//! People who log in in a browser, at a provider of their company's.

use drover_testkit::directories::{Glewlwyd, OidcProvider};
use drover_testkit::fleet::{output, output_of};
use drover_testkit::installation::Installation;
use drover_testkit::process::until;
use serde_json::json;

use crate::browser::{Chromium, terminal};
use crate::control::{Installed, installed};
use crate::directories::skipped;
use crate::system::{DEADLINE, folder, soon};

fn callback(installation: &Installation) -> String {
    format!("https://console.localhost:{}/console/callback", installation.port)
}

async fn add(
    installed: &Installed,
    oidc: &OidcProvider,
    client: &str,
    secret: &str,
) -> anyhow::Result<String> {
    let mut command =
        installed.admin.drover(["provider", "add-oidc", "corp", "--issuer", &oidc.issuer, "--ca"]);
    command.arg(&oidc.ca).args(["--client-id", client, "--secret-stdin"]);
    command.args(["--scope", "profile", "--scope", "groups", "--scope", "offline_access"]);
    soon(output_of(&mut command, secret)).await
}

/// Signs in at the provider's own pages.
async fn sign_in(chromium: &Chromium, name: &str, password: &str) {
    chromium.click("input[name=login]").await;
    chromium.types(&format!("{name}\u{e004}")).await;
    chromium.types(&format!("{password}\u{e007}")).await;
}

#[tokio::test]
async fn somebody_of_an_openid_provider_logs_in_and_goes_with_their_group() {
    if skipped() {
        return;
    }
    let installed = installed("oidc").await;
    let installation = &installed.installation;
    let oidc = soon(OidcProvider::start(&folder("oidc-provider"), &callback(installation))).await.unwrap();
    let _agent = installed.import("oidc").await;
    let refused = add(&installed, &oidc, "drover", "another").await.unwrap_err().to_string();
    assert!(refused.contains("does not know the client, its secret is another"), "{refused}");
    add(&installed, &oidc, "drover", OidcProvider::SECRET).await.unwrap();
    let bind = [
        "binding",
        "create",
        "--group",
        "corp:group/engineering",
        "--role",
        "cluster-viewer",
        "--cluster",
        "oidc",
    ];
    installed.says(&bind).await.unwrap();

    let chromium = Chromium::start(&folder("oidc-chromium")).await;
    let (login, url, _lines) = terminal(installation, "alice").await;
    chromium.open(&url).await;
    chromium.click("a[href^='/console/sign-in/corp']").await;
    sign_in(&chromium, "alice", "wrong").await;
    chromium.says("Wrong login or password").await;
    sign_in(&chromium, "alice", "of-alice").await;
    chromium.says("Allow Drover?").await;
    chromium.click("button[value=allow]").await;
    chromium.says("A program asks to be logged in as alice@corp").await;
    chromium.click("button[value=grant]").await;
    chromium.says("Granted.").await;
    let output_of_login = soon(login.wait_with_output()).await.unwrap();
    let said = String::from_utf8(output_of_login.stdout).unwrap();
    assert!(output_of_login.status.success() && said.contains("as alice@corp until"), "{said}");
    let alice = installation.person("alice");
    let namespaces = ["get", "namespaces", "-o", "name"];
    let kubectl = async || soon(output(soon(alice.kubectl("oidc")).await.unwrap().args(namespaces))).await;
    assert!(kubectl().await.unwrap().contains("namespace/default"));

    // Her groups follow the provider, with other keys as well.
    oidc.rotate().await.unwrap();
    installed.says(&["user", "refresh", "alice@corp"]).await.unwrap();
    assert!(kubectl().await.is_ok());
    oidc.set("alice", &json!({ "groups": ["engineering", "on-call"] })).await.unwrap();
    installed.says(&["user", "refresh", "alice@corp"]).await.unwrap();
    let users = installed.says(&["user", "list", "-o", "json"]).await.unwrap();
    assert!(users.contains("corp:group/on-call"), "{users}");
    oidc.set("alice", &json!({ "groups": ["on-call"] })).await.unwrap();
    installed.says(&["user", "refresh", "alice@corp"]).await.unwrap();
    until("alice to be refused", DEADLINE, async || Ok(kubectl().await.err())).await.unwrap();
    installed
        .says(&["binding", "create", "--user", "alice@corp", "--role", "cluster-viewer", "--cluster", "oidc"])
        .await
        .unwrap();
    oidc.set("alice", &json!({ "disabled": true })).await.unwrap();
    installed.says(&["user", "refresh", "alice@corp"]).await.unwrap();
    assert!(installed.says(&["token", "list"]).await.is_ok());
    soon(chromium.page.clone().close()).await.unwrap();
}

#[tokio::test]
async fn another_openid_provider_whose_refresh_tokens_are_good_for_one_use() {
    if skipped() {
        return;
    }
    let installed = installed("glewlwyd").await;
    let installation = &installed.installation;
    let server = soon(Glewlwyd::start(&folder("glewlwyd-server"), &callback(installation))).await.unwrap();
    let (id, secret) = Glewlwyd::CLIENT;
    let mut add =
        installed.admin.drover(["provider", "add-oidc", "corp", "--issuer", &server.issuer, "--ca"]);
    add.arg(&server.ca).args(["--client-id", id, "--secret-stdin", "--access", "unrestricted"]);
    add.args(["--scope", "openid", "--login-claim", "name"]);
    soon(output_of(&mut add, secret)).await.unwrap();

    let chromium = Chromium::start(&folder("glewlwyd-chromium")).await;
    // Its own pages take a session by its API, and remember what was allowed.
    chromium.open(&format!("{}/.well-known/openid-configuration", server.issuer)).await;
    let (name, password) = Glewlwyd::PERSON;
    let script = format!(
        "const done = arguments[0]; const send = (method, path, body) => fetch('/api/' + path, {{ method, credentials: 'include', \
         headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify(body) }}).then(answer => answer.status); \
         (async () => done([await send('POST', 'auth/', {{ username: '{name}', password: '{password}' }}), \
         await send('PUT', 'auth/grant/{id}', {{ scope: 'openid' }})]))()"
    );
    assert_eq!(chromium.script(&script).await, json!([200, 200]));
    let (login, url, _lines) = terminal(installation, "carol").await;
    chromium.open(&url).await;
    chromium.click("a[href^='/console/sign-in/corp']").await;
    // Where its page for signing in goes on once somebody has.
    let next = until("the provider's page", DEADLINE, async || {
        let at = chromium.page.current_url().await?;
        Ok(at.query_pairs().find_map(|(name, value)| (name == "callback_url").then(|| value.into_owned())))
    });
    chromium.open(&format!("{}&g_continue", next.await.unwrap())).await;
    chromium.says("A program asks to be logged in as carol@corp").await;
    chromium.click("button[value=grant]").await;
    chromium.says("Granted.").await;
    assert!(soon(login.wait_with_output()).await.unwrap().status.success());
    for _ in 0..3 {
        installed.says(&["user", "refresh", "carol@corp"]).await.unwrap();
    }
    let users = installed.says(&["user", "list", "-o", "json"]).await.unwrap();
    assert!(users.contains("corp:group/engineering") && users.contains("corp:group/dev"), "{users}");
    let who = async || soon(output(&mut installation.person("carol").drover(["whoami"]))).await;
    assert!(who().await.unwrap().contains("carol@corp"));
    // It has no word for a refresh token whose person is gone: what it answers says nothing about anybody.
    server.forget().await.unwrap();
    let said = installed.says(&["user", "refresh", "carol@corp"]).await.unwrap_err().to_string();
    assert!(said.contains("the directory does not answer"), "{said}");
    assert!(who().await.is_ok());
    soon(chromium.page.clone().close()).await.unwrap();
}
