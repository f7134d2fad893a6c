//! Logins whose token is in a keyring: GNOME's, on a session bus of the test's own.

use drover_testkit::fleet::{output, output_of};
use drover_testkit::installation::{Installation, Person, drawn_password};
use drover_testkit::keyring::{Keyring, Lock};

use crate::control::{Installed, installed};
use crate::directories::skipped;
use crate::system::{folder, soon};

/// What the login says besides.
async fn login(installation: &Installation, person: &Person, password: &str) -> String {
    let ca = installation.data().join("ca.crt");
    let mut login = person.drover(["login", &installation.url(), "--user", &person.name, "--password-stdin"]);
    let said = soon(output_of(login.arg("--ca").arg(ca), password)).await.unwrap();
    assert!(said.contains("Logged in"), "{said}");
    read(person)
}

fn read(person: &Person) -> String {
    std::fs::read_to_string(&person.config).unwrap()
}

async fn says(person: &Person, arguments: &[&str]) -> anyhow::Result<String> {
    soon(output(&mut person.drover(arguments))).await
}

#[tokio::test]
async fn a_token_is_in_the_keyring_where_one_takes_it_and_gone_from_there_with_the_login() {
    if skipped() {
        return;
    }
    let installed = installed("keyring").await;
    let _agent = installed.import("keyring").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let bind = ["binding", "create", "--user", "zoe", "--role", "cluster-viewer", "--cluster", "keyring"];
    installed.says(&bind).await.unwrap();
    let password = drawn_password(&made).unwrap();
    let Installed { installation, up: _up, .. } = &installed;
    let kept = folder("keyring-kept");
    let keyring = soon(Keyring::start(&kept, Lock::Unlocked)).await.unwrap();
    let mut zoe = installation.person("zoe");
    zoe.name = "zoe".to_owned();
    zoe.environment = keyring.environment();
    let config = login(installation, &zoe, &password).await;
    assert!(config.contains("\"keyring\": \"https://127.0.0.1:") && !config.contains("drv_"), "{config}");
    says(&zoe, &["whoami"]).await.unwrap();
    let mut kubectl = zoe.kubectl("keyring").await.unwrap();
    soon(output(kubectl.args(["get", "namespaces"]))).await.unwrap();

    // Away, and then locked: one line says so, and nothing is lost.
    drop(keyring);
    let refused = soon(zoe.drover(["credential"]).output()).await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{said}");
    assert!(said.contains("in the keyring, which does not give it") && said.lines().count() == 1, "{said}");
    let keyring = soon(Keyring::start(&kept, Lock::Locked)).await.unwrap();
    zoe.environment = keyring.environment();
    let said = says(&zoe, &["whoami"]).await.unwrap_err().to_string();
    assert!(said.contains("in the keyring, which does not give it"), "{said}");
    drop(keyring);
    let keyring = soon(Keyring::start(&kept, Lock::Unlocked)).await.unwrap();
    zoe.environment = keyring.environment();
    says(&zoe, &["whoami"]).await.unwrap();

    // Another login, into the file: the keyring has nothing of it any more.
    zoe.environment.push(("DROVER_KEYRING".to_owned(), "off".to_owned()));
    let in_file = login(installation, &zoe, &password).await;
    assert!(in_file.contains("\"token\": \"drv_") && !in_file.contains("keyring"), "{in_file}");
    std::fs::write(&zoe.config, &config).unwrap();
    let said = says(&zoe, &["whoami"]).await.unwrap_err().to_string();
    assert!(said.contains("No matching"), "{said}");

    zoe.environment = keyring.environment();
    let config = login(installation, &zoe, &password).await;
    assert!(config.contains("\"keyring\""), "{config}");
    says(&zoe, &["logout"]).await.unwrap();
    std::fs::write(&zoe.config, &config).unwrap();
    let said = says(&zoe, &["whoami"]).await.unwrap_err().to_string();
    assert!(said.contains("No matching"), "{said}");
}

#[tokio::test]
async fn a_keyring_that_takes_nothing_leaves_the_token_in_the_file() {
    if skipped() {
        return;
    }
    let installed = installed("keyring-locked").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drawn_password(&made).unwrap();
    let Installed { installation, up: _up, .. } = &installed;
    let keyring = soon(Keyring::start(&folder("keyring-locked-kept"), Lock::Locked)).await.unwrap();
    let mut zoe = installation.person("zoe");
    zoe.name = "zoe".to_owned();
    zoe.environment = keyring.environment();
    let config = login(installation, &zoe, &password).await;
    assert!(config.contains("\"token\": \"drv_"), "{config}");
    says(&zoe, &["whoami"]).await.unwrap();
    zoe.environment.push(("DROVER_KEYRING".to_owned(), "sometimes".to_owned()));
    let mut login = zoe.drover(["login", "--user", "zoe", "--password-stdin"]);
    let said = soon(output_of(&mut login, &password)).await.unwrap_err().to_string();
    assert!(said.contains("DROVER_KEYRING must be auto or off"), "{said}");
    assert_eq!(read(&zoe), config, "nothing is lost");
}
