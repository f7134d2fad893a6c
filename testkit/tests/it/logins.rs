//! Logins and tokens on somebody's machine: kubectl asks for them, and they are renewed, used and ended.

use drover_testkit::client::fetch;
use drover_testkit::fleet::output;
use drover_testkit::installation::{Installation, drawn_password};
use drover_testkit::process::until;
use jiff::Timestamp;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::control::{Installed, installed, kubectl};
use crate::system::{DEADLINE, soon};

#[tokio::test]
async fn kubectl_has_the_logins_token_from_drover_and_a_login_that_ended_says_so_in_a_line() {
    let mut installed = installed("credential").await;
    let _agent = installed.import("credential").await;
    let namespaces = ["get", "namespaces", "-o", "name"];
    kubectl(&installed.admin, "credential", &namespaces).await.unwrap();
    let kubeconfig = std::fs::read_to_string(soon(installed.admin.kubeconfig()).await.unwrap()).unwrap();
    assert!(!kubeconfig.contains("drv_"), "no token is in it: {kubeconfig}");

    // Many at once, of which each finds the login.
    let mut many = JoinSet::new();
    for _ in 0..50 {
        let mut kubectl = installed.admin.kubectl("credential").await.unwrap();
        kubectl.args(["get", "--raw", "/version"]);
        many.spawn(async move { soon(output(&mut kubectl)).await.unwrap() });
    }
    many.join_all().await;

    let shown = soon(output(&mut installed.admin.drover(["credential"]))).await.unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["apiVersion"], "client.authentication.k8s.io/v1");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&installed.admin.config).unwrap()).unwrap();
    config["expires_at"] = "2026-01-01T00:00:00Z".into();
    std::fs::write(&installed.admin.config, config.to_string()).unwrap();
    let refused = soon(installed.admin.drover(["credential"]).output()).await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{said}");
    assert!(said.contains("has ended, and nobody can be asked here: drover login https://"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    let said = kubectl(&installed.admin, "credential", &namespaces).await.unwrap_err().to_string();
    assert!(said.contains("has ended"), "{said}");
    installed.up.check().unwrap();
}

#[tokio::test]
async fn a_login_is_renewed_without_a_word_and_a_copy_of_it_ends_it() {
    let installed = installed("renewal").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let Installed { installation, up, .. } = installed;
    up.stop().await.unwrap();
    let control = installation.control("control", &["--login-lifetime=3600"]).await.unwrap();
    let _gateway = installation.gateway("gateway").await.unwrap();
    let zoe = soon(installation.login("zoe", &drawn_password(&made).unwrap())).await.unwrap();
    let read =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&zoe.config).unwrap()).unwrap() };
    let write = |config: &serde_json::Value| std::fs::write(&zoe.config, config.to_string()).unwrap();
    let at =
        |config: &serde_json::Value, what: &str| config[what].as_str().unwrap().parse::<Timestamp>().unwrap();
    let credential = async || {
        // Its time has come, by the clock of this machine.
        let mut config = read();
        config["renew_at"] = "2026-01-01T00:00:00Z".into();
        write(&config);
        let said = soon(zoe.drover(["credential"]).output()).await.unwrap();
        let credential: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        (credential["status"]["token"].clone(), String::from_utf8(said.stderr).unwrap())
    };
    let waits = |said: &str, first: &serde_json::Value| {
        assert!(
            said.starts_with("drover: the login is not renewed: ") && said.lines().count() == 1,
            "{said}"
        );
        let config = read();
        assert_eq!(config["token"], first["token"]);
        assert!(at(&config, "renew_at") > Timestamp::now(), "{config}");
    };
    let first = read();
    let left_s = at(&first, "expires_at").as_second() - Timestamp::now().as_second();
    assert!((1..=3600).contains(&left_s) && at(&first, "renew_at") < at(&first, "expires_at"), "{first}");

    // By control's clock it has not, and what there is goes on; without control as well.
    let (given, said) = credential().await;
    assert_eq!(given, first["token"]);
    waits(&said, &first);
    soon(control.stop()).await.unwrap();
    let (given, said) = credential().await;
    assert_eq!(given, first["token"]);
    waits(&said, &first);

    soon(age_logins(&installation)).await.unwrap();
    let _control = installation.control("control-again", &[]).await.unwrap();
    // A change waits a second for a gateway that is on its way back, and names it then.
    until("the gateway to follow again", DEADLINE, async || {
        let url = format!("http://127.0.0.1:{}/metrics", installation.control_admin_port);
        let (_, metrics) = fetch(&url).await?;
        let pushes = metrics.lines().filter(|line| line.starts_with("control_pushes_total{"));
        Ok(pushes.into_iter().any(|line| !line.ends_with(" 0")).then_some(()))
    })
    .await
    .unwrap();
    let (given, said) = credential().await;
    assert_eq!((given, said.as_str()), (first["token"].clone(), ""), "what gateways know already");
    let next = read();
    assert_ne!(next["token"], first["token"]);
    assert!(at(&next, "expires_at") > at(&first, "expires_at"));
    soon(output(&mut zoe.drover(["whoami"]))).await.unwrap();

    // Whoever has the first token, and is not the program that renewed it, renews it, too: it is nobody's from then on.
    let mut copied = first.clone();
    copied.as_object_mut().unwrap().remove("program").expect("the program is known by something");
    write(&copied);
    let (given, said) = credential().await;
    assert_eq!(given, serde_json::Value::Null);
    assert!(
        said.contains("a copy of its token is in use") && said.contains("nobody can be asked here"),
        "{said}"
    );
    write(&next);
    let refused = soon(output(&mut zoe.drover(["whoami"]))).await.unwrap_err().to_string();
    assert!(refused.contains("unknown, expired or revoked"), "{refused}");
}

/// Makes every login so old that it may be renewed; while control is away.
async fn age_logins(installation: &Installation) -> anyhow::Result<()> {
    let change = "import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
store.execute(\"UPDATE objects SET spec = CAST(json_set(CAST(spec AS TEXT), '$.session.renewable_at', '2026-01-01T00:00:00Z') AS BLOB) WHERE kind = 'Token' AND CAST(spec AS TEXT) LIKE '%renewable_at%'\")
store.commit()";
    let store = installation.data().join("store.db");
    output(Command::new("python3").args(["-c", change]).arg(store)).await.map(drop)
}

#[tokio::test]
async fn gateways_tell_which_tokens_were_used_and_all_of_a_user_end_at_once() {
    let installed = installed("token-uses").await;
    let token = installed.says(&["token", "create", "--idle", "14d"]).await.unwrap().trim().to_owned();
    let id = token.split('_').nth(1).unwrap().to_owned();
    let listed = async || {
        let listed = installed.says(&["token", "list", "-o", "json"]).await?;
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
        anyhow::Ok(listed.into_iter().find(|listed| listed["spec"]["id"] == id.as_str()).unwrap())
    };
    let made = listed().await.unwrap();
    assert_eq!((&made["spec"]["idle_s"], &made["last_used_at"]), (&(14 * 86400).into(), &().into()));
    // Whatever becomes of the request: the token was shown, and held.
    let client = installed.installation.client().unwrap();
    assert_eq!(soon(client.get("none", "/version", &token)).await.unwrap().0, 404);
    let told = async || Ok(listed().await?["last_used_at"].is_string().then_some(()));
    until("the use to be told", DEADLINE, told).await.unwrap();
    let said = installed.says(&["token", "revoke-all"]).await.unwrap();
    assert!(said.contains("2 tokens of admin revoked"), "{said}");
    assert_eq!(soon(client.get("none", "/version", &token)).await.unwrap().0, 401);
}
