//! People who log in in a browser, at a provider of their company's.

use drover_api::rest::FoundPrincipal;
use drover_testkit::directories::{Github, Glewlwyd, OidcProvider};
use drover_testkit::fleet::{output, output_of};
use drover_testkit::installation::Installation;
use drover_testkit::process::until;
use serde_json::{Value, json};

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
    access: &str,
) -> anyhow::Result<String> {
    let mut command =
        installed.admin.drover(["provider", "add-oidc", "corp", "--issuer", oidc.issuer(), "--ca"]);
    command.arg(oidc.ca()).args(["--client-id", client, "--secret-stdin", "--access", access]);
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
    let refused = add(&installed, &oidc, "drover", "another", "restricted").await.unwrap_err().to_string();
    assert!(refused.contains("does not know the client, its secret is another"), "{refused}");
    add(&installed, &oidc, OidcProvider::CLIENTS[0], OidcProvider::SECRET, "restricted").await.unwrap();
    let none = installed.says(&["provider", "search", "corp", "engineering"]).await.unwrap_err().to_string();
    assert!(none.contains("its groups are as it writes them, corp:group/GROUP"), "{none}");
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
    chromium.grants(login, "alice@corp").await;
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
    soon(chromium.page.clone().close()).await.unwrap();
}

#[tokio::test]
async fn what_an_openid_provider_says_makes_nobody_more_than_they_are() {
    if skipped() {
        return;
    }
    let installed = installed("oidc-claims").await;
    let installation = &installed.installation;
    let oidc =
        soon(OidcProvider::start(&folder("oidc-claims-provider"), &callback(installation))).await.unwrap();
    // Signed with an elliptic curve.
    add(&installed, &oidc, OidcProvider::CLIENTS[1], OidcProvider::SECRET, "unrestricted").await.unwrap();
    let console = format!("https://console.localhost:{}/console", installation.port);
    for (name, said) in [
        ("mallory", "System:admin has a name that Kubernetes or Drover keeps for itself"),
        ("newline", "cannot be a principal"),
    ] {
        let chromium = Chromium::start(&folder(&format!("oidc-claims-{name}"))).await;
        chromium.open(&console).await;
        chromium.click("a[href^='/console/sign-in/corp']").await;
        sign_in(&chromium, name, &format!("of-{name}")).await;
        chromium.click("button[value=allow]").await;
        chromium.says(said).await;
        soon(chromium.page.clone().close()).await.unwrap();
    }
    let users = installed.says(&["user", "list"]).await.unwrap();
    assert!(!users.contains("corp"), "{users}");

    // Who says no at the provider is told so, and who is gone there is logged out at the next refresh.
    let chromium = Chromium::start(&folder("oidc-claims-chromium")).await;
    chromium.open(&console).await;
    chromium.click("a[href^='/console/sign-in/corp']").await;
    sign_in(&chromium, "bob", "of-bob").await;
    chromium.click("button[value=deny]").await;
    chromium.says("The provider let nobody in: the person said no.").await;
    chromium.click("a[href^='/console/sign-in/corp']").await;
    chromium.click("button[value=allow]").await;
    chromium.says("Sign out").await;
    let users = installed.says(&["user", "list", "-o", "json"]).await.unwrap();
    assert!(users.contains("bob@corp") && users.contains("corp:group/single-text"), "{users}");
    oidc.set("bob", &json!({ "disabled": true })).await.unwrap();
    installed.says(&["user", "refresh", "bob@corp"]).await.unwrap();
    chromium.open(&console).await;
    chromium.says("Sign in with corp").await;
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
    chromium.grants(login, "carol@corp").await;
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

#[tokio::test]
async fn somebody_of_github_has_the_roles_of_their_teams_and_of_those_above() {
    if skipped() {
        return;
    }
    let installed = installed("github").await;
    let installation = &installed.installation;
    let github = soon(Github::start(&folder("github-server"), &callback(installation))).await.unwrap();
    let add = async |secret: &str| {
        let mut add =
            installed.admin.drover(["provider", "add-github", "gh", "--server", github.url(), "--ca"]);
        add.arg(github.ca()).args([
            "--client-id",
            Github::APP.0,
            "--secret-stdin",
            "--access",
            "unrestricted",
        ]);
        soon(output_of(&mut add, secret)).await
    };
    let refused = add("another").await.unwrap_err().to_string();
    assert!(refused.contains("GitHub does not know the client, or its secret is another"), "{refused}");
    add(Github::APP.1).await.unwrap();
    for (name, kind) in [("corp", "gh:group/org-"), ("alice", "gh:user/"), ("nobody", ""), ("../user", "")] {
        let found = installed.says(&["provider", "search", "gh", name, "-o", "json"]).await.unwrap();
        let found: Vec<FoundPrincipal> = serde_json::from_str(&found).unwrap();
        assert_eq!(found.len(), usize::from(!kind.is_empty()), "{name}: {found:?}");
        assert!(
            found.iter().all(|found| found.name == name && found.principal.starts_with(kind)),
            "{found:?}"
        );
    }

    github.limit().await.unwrap();
    let limited = installed.says(&["provider", "search", "gh", "corp"]).await.unwrap_err().to_string();
    assert!(limited.contains("the directory did not answer") && limited.contains("rate limit"), "{limited}");
    let set = ["provider", "set-servers", "gh", "--server", "ldaps://ldap.invalid", "--password-stdin"];
    let none = installed.says(&set).await.unwrap_err().to_string();
    assert!(none.contains("gh is no Active Directory and no LDAP server"), "{none}");

    let chromium = Chromium::start(&folder("github-chromium")).await;
    let log_in = async || {
        let (login, url, _lines) = terminal(installation, "alice").await;
        chromium.open(&url).await;
        chromium.click("a[href^='/console/sign-in/gh']").await;
        chromium.click("form:has(input[value=alice]) button").await;
        chromium.grants(login, "alice@gh").await;
    };
    log_in().await;
    let groups = async || {
        let users = installed.says(&["user", "list", "-o", "json"]).await.unwrap();
        let users: Value = serde_json::from_str(&users).unwrap();
        let alice = users.as_array().unwrap().iter().find(|user| user["spec"]["name"] == "alice@gh").unwrap();
        let all: Vec<_> =
            alice["spec"]["groups"].as_array().unwrap().iter().map(ToString::to_string).collect();
        let of = |kind: &str| all.iter().filter(|group| group.contains(kind)).count();
        (of("gh:group/org-"), of("gh:group/team-"))
    };
    // More than a page of organisations; her team, and the two that it is in.
    assert_eq!(groups().await, (131, 3));
    let named = installed.says(&["group", "list"]).await.unwrap();
    assert!(["corp/dev", "corp/everybody", "org129"].iter().all(|name| named.contains(name)), "{named}");
    let refresh = async || installed.says(&["user", "refresh", "alice@gh"]).await;
    github.limit().await.unwrap();
    let said = refresh().await.unwrap_err().to_string();
    assert!(said.contains("the directory does not answer"), "{said}");
    assert_eq!(groups().await, (131, 3));
    github.remove("alice", "dev").await.unwrap();
    refresh().await.unwrap();
    assert_eq!(groups().await, (131, 0));
    let who = async || soon(output(&mut installation.person("alice").drover(["whoami"]))).await;
    assert!(who().await.unwrap().contains("alice@gh"));
    github.revoke("alice").await.unwrap();
    refresh().await.unwrap();
    assert!(who().await.is_err());
    log_in().await;
    assert!(who().await.is_ok());
    github.suspend("alice").await.unwrap();
    refresh().await.unwrap();
    assert!(who().await.is_err());
    assert_eq!(github.invalid().await.unwrap(), "[]");
    soon(chromium.page.clone().close()).await.unwrap();
}
