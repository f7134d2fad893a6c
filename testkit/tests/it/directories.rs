//! People whom a company's directory knows, from their password to a cluster and out again.

use std::process::Stdio;

use drover_api::rest::FoundPrincipal;
use drover_testkit::directories::{OpenLdap, SKIP_VARIABLE, Samba};
use drover_testkit::fleet::{output, output_of};
use drover_testkit::installation::Person;
use drover_testkit::process::until;
use tokio::io::{AsyncBufReadExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::browser::{Chromium, terminal};
use crate::control::{Installed, installed};
use crate::system::{DEADLINE, folder, soon};

pub(crate) fn skipped() -> bool {
    let skipped = std::env::var_os(SKIP_VARIABLE).is_some();
    if skipped {
        eprintln!("skipped: testkit/packages says what is missing");
    }
    skipped
}

/// A provider of the directory, and more arguments for it.
pub(crate) async fn add(installed: &Installed, ldap: &OpenLdap, more: &[&str]) -> anyhow::Result<String> {
    let server = format!("ldaps://127.0.0.1:{}", ldap.tls_port);
    let (searcher, password) = OpenLdap::SEARCHER;
    let mut command = installed.admin.drover(["provider", "add-ldap", "corp", "--schema", "inet-org-person"]);
    command.args(["--user-base", OpenLdap::PEOPLE, "--group-base", OpenLdap::GROUPS, "--ca"]).arg(&ldap.ca);
    command.args(["--bind-name", searcher, "--password-stdin"]);
    if !more.contains(&"--server") {
        command.args(["--server", &server]);
    }
    soon(output_of(command.args(more), password)).await
}

pub(crate) async fn login(installed: &Installed, name: &str, password: &str) -> anyhow::Result<Person> {
    soon(installed.installation.login_through("corp", name, password)).await
}

async fn kubectl(person: &Person, cluster: &str, arguments: &[&str]) -> anyhow::Result<String> {
    soon(output(soon(person.kubectl(cluster)).await?.args(arguments))).await
}

#[tokio::test]
async fn a_member_of_a_nested_group_works_until_the_directory_says_otherwise() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-member").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-member-server"))).await.unwrap();
    let _agent = installed.import("ldap").await;
    add(&installed, &ldap, &[]).await.unwrap();
    // Nobody with a role: nobody of the directory is let in.
    let refused = login(&installed, "bob", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(refused.contains("not among those whom the provider lets in"), "{refused}");
    let everybody = format!("corp:group/{}", soon(ldap.uuid("(cn=everybody)")).await.unwrap());
    let bind = ["binding", "create", "--group", &everybody, "--role", "cluster-viewer", "--cluster", "ldap"];
    installed.says(&bind).await.unwrap();

    // Three groups up, with a circle on the way.
    let bob = login(&installed, "bob", OpenLdap::PASSWORD).await.unwrap();
    let who = soon(output(&mut bob.drover(["whoami"]))).await.unwrap();
    let uuid = soon(ldap.uuid("(uid=bob)")).await.unwrap();
    assert!(who.contains("bob@corp") && who.contains(&format!("corp:user/{uuid}")), "{who}");
    assert!(kubectl(&bob, "ldap", &["get", "namespaces"]).await.unwrap().contains("default"));
    let create = kubectl(&bob, "ldap", &["create", "namespace", "bobs"]).await.unwrap_err().to_string();
    assert!(create.contains("User \"bob@corp\" cannot create"), "{create}");
    let mut watch = soon(bob.kubectl("ldap")).await.unwrap();
    let mut watch =
        watch.args(["get", "namespaces", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    soon(lines.next_line()).await.unwrap().unwrap();

    let group = format!("cn=developers,{}", OpenLdap::GROUPS);
    let member = format!("uid=bob,{}", OpenLdap::PEOPLE);
    soon(ldap.modify(&format!("dn: {group}\nchangetype: modify\ndelete: member\nmember: {member}\n")))
        .await
        .unwrap();
    installed.says(&["user", "refresh", "bob@corp"]).await.unwrap();
    while soon(lines.next_line()).await.unwrap().is_some() {}
    let refused = kubectl(&bob, "ldap", &["get", "namespaces"]).await.unwrap_err().to_string();
    assert!(refused.contains("Unauthorized") || refused.contains("logged in"), "{refused}");
    let again = login(&installed, "bob", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(again.contains("not among those"), "{again}");
}

#[tokio::test]
async fn each_state_of_an_account_gets_its_own_answer_and_a_wrong_password_none() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-states").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-states-server"))).await.unwrap();
    add(&installed, &ldap, &["--access", "unrestricted"]).await.unwrap();
    let answer = async |name: &str, password: &str| {
        login(&installed, name, password).await.map_or_else(|error| error.to_string(), |_| "in".to_owned())
    };
    let good = OpenLdap::PASSWORD;
    assert_eq!(answer("alice", good).await, "in");
    assert_eq!(answer("wild*card", good).await, "in");
    let wrong = "the name or the password is wrong";
    for (name, password, expected) in [
        ("expired", good, "the password has expired"),
        ("must-change", good, "has to be changed first"),
        ("alice", "guessed", wrong),
        ("expired", "guessed", wrong),
        ("nobody", good, wrong),
        ("alice", "", wrong),
        ("*", good, wrong),
        ("wild*", good, wrong),
        ("alice)(uid=*", good, wrong),
        ("person000*", good, wrong),
    ] {
        let said = answer(name, password).await;
        assert!(said.contains(expected), "{name} {password:?}: {said}");
    }
    for _ in 0..3 {
        assert!(answer("locked", "guessed").await.contains(wrong));
    }
    assert!(answer("locked", good).await.contains("the account is locked"));
    // Two people of one name are two users.
    installed.says(&["user", "create", "alice"]).await.unwrap();
    let users = installed.says(&["user", "list"]).await.unwrap();
    assert!(users.contains("alice@corp") && users.contains("alice  "), "{users}");
    let refused = installed.says(&["user", "reset-password", "alice@corp"]).await.unwrap_err().to_string();
    assert!(refused.contains("the password is the directory's"), "{refused}");
}

#[tokio::test]
async fn what_does_not_work_is_not_kept_and_says_what_is_wrong() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-wrong").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-wrong-server"))).await.unwrap();
    let plain = format!("ldap://127.0.0.1:{}", ldap.port);
    let with_tls = format!("ldaps://127.0.0.1:{}", ldap.tls_port);
    for (more, expected) in [
        (&["--server", "ldaps://127.0.0.1:1"][..], "ldaps://127.0.0.1:1"),
        (&["--server", "http://127.0.0.1"], "must be ldaps://host"),
        (
            &["--server", &with_tls, "--bind-name", "cn=nobody,dc=corp,dc=example"],
            "who searches, is not let in",
        ),
        (&["--server", &with_tls, "--user-base", "ou=nowhere,dc=corp,dc=example"], "is not there"),
        (&["--server", &with_tls, "--user-filter", "(uid=nobody)"], "no user below"),
        (&["--server", &with_tls, "--user-filter", "uid=nobody"], "must be in parentheses"),
        (&["--server", &with_tls, "--allow", "ad:group/1"], "must be users and groups of this provider"),
    ] {
        // What is given last holds.
        let refused = add_over(&installed, &ldap, more).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{more:?}: {refused}");
    }
    let listed = installed.says(&["provider", "list"]).await.unwrap();
    assert!(!listed.contains("corp"), "{listed}");
    // StartTLS, and a first server that is not there.
    add(
        &installed,
        &ldap,
        &["--server", "ldaps://127.0.0.1:1", "--server", &plain, "--access", "unrestricted"],
    )
    .await
    .unwrap_err();
    add(&installed, &ldap, &["--server", &plain, "--access", "unrestricted"]).await.unwrap();
    installed.says(&["provider", "test", "corp"]).await.unwrap();
    login(&installed, "bob", OpenLdap::PASSWORD).await.unwrap();
    // Of a directory that has gone nobody is logged out.
    drop(ldap);
    let refused = installed.says(&["user", "refresh", "bob@corp"]).await.unwrap_err().to_string();
    assert!(refused.contains("does not answer"), "{refused}");
    let refused = installed.says(&["provider", "delete", "corp"]).await.unwrap_err().to_string();
    assert!(refused.contains("users and bindings of it are left"), "{refused}");
    installed.says(&["provider", "disable", "corp"]).await.unwrap();
    let refused = login(&installed, "bob", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(refused.contains("there is no provider"), "{refused}");
}

/// The same, where an argument replaces the one that works.
#[tokio::test]
async fn a_password_of_who_searches_is_changed_once_it_works() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-secret").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-secret-server"))).await.unwrap();
    add(&installed, &ldap, &["--access", "unrestricted"]).await.unwrap();
    let set = async |password: &str| {
        let mut set = installed.admin.drover(["provider", "set-password", "corp", "--password-stdin"]);
        soon(output_of(&mut set, password)).await
    };
    let refused = set("another").await.unwrap_err().to_string();
    assert!(refused.contains("does not work"), "{refused}");
    assert!(login(&installed, "bob", OpenLdap::PASSWORD).await.is_ok());
    let (searcher, _) = OpenLdap::SEARCHER;
    let change =
        format!("dn: {searcher}\nchangetype: modify\nreplace: userPassword\nuserPassword: changed-there\n");
    soon(ldap.modify(&change)).await.unwrap();
    // Its policy has whoever is given a password change it.
    let kept = format!("dn: {searcher}\nchangetype: modify\ndelete: pwdReset\n");
    soon(ldap.modify(&kept)).await.unwrap();
    let refused = login(&installed, "bob", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(refused.contains("the directory does not answer"), "{refused}");
    set("changed-there").await.unwrap();
    assert!(login(&installed, "bob", OpenLdap::PASSWORD).await.is_ok());

    // Elsewhere only with it: by another name of the same server.
    let server = format!("ldaps://localhost:{}", ldap.tls_port);
    let move_to = async |password: &str| {
        let mut set = installed.admin.drover(["provider", "set-servers", "corp", "--server", &server]);
        soon(output_of(set.arg("--password-stdin"), password)).await
    };
    let refused = move_to("guessed").await.unwrap_err().to_string();
    assert!(refused.contains("is not let in"), "{refused}");
    let servers = async || installed.says(&["provider", "list"]).await.unwrap();
    assert!(!servers().await.contains(&server));
    move_to("changed-there").await.unwrap();
    assert!(servers().await.contains(&server));
    assert!(login(&installed, "bob", OpenLdap::PASSWORD).await.is_ok());
}

#[tokio::test]
async fn the_next_server_is_asked_where_the_first_is_gone() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-failover").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-failover-server"))).await.unwrap();
    // The first server is a port that leads to the second, until it does not any more.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first, tls_port) = (listener.local_addr().unwrap().port(), ldap.tls_port);
    let relay = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(("127.0.0.1", tls_port)).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut client, &mut server).await) });
        }
    }));
    let servers = [format!("ldaps://127.0.0.1:{first}"), format!("ldaps://127.0.0.1:{tls_port}")];
    add(&installed, &ldap, &["--access", "unrestricted", "--server", &servers[0], "--server", &servers[1]])
        .await
        .unwrap();
    assert!(login(&installed, "bob", OpenLdap::PASSWORD).await.is_ok());
    drop(relay);
    until("the first server to be gone", DEADLINE, async || {
        Ok(TcpStream::connect(("127.0.0.1", first)).await.is_err().then_some(()))
    })
    .await
    .unwrap();
    assert!(login(&installed, "bob", OpenLdap::PASSWORD).await.is_ok());
    installed.says(&["user", "refresh", "bob@corp"]).await.unwrap();
    // A wrong password is asked about once, at whichever server answers.
    let refused = login(&installed, "bob", "guessed").await.err().unwrap().to_string();
    assert!(refused.contains("the name or the password is wrong"), "{refused}");
}

async fn add_over(installed: &Installed, ldap: &OpenLdap, more: &[&str]) -> anyhow::Result<String> {
    let given = |flag: &str| more.iter().skip_while(|given| **given != flag).nth(1).copied();
    let (searcher, password) = OpenLdap::SEARCHER;
    let mut command = installed.admin.drover(["provider", "add-ldap", "corp", "--schema", "inet-org-person"]);
    command.arg("--ca").arg(&ldap.ca).arg("--password-stdin");
    command.args(["--user-base", given("--user-base").unwrap_or(OpenLdap::PEOPLE)]);
    command.args(["--bind-name", given("--bind-name").unwrap_or(searcher)]);
    for flag in ["--server", "--user-filter", "--allow"] {
        command.args(given(flag).map(|value| [flag, value]).into_iter().flatten());
    }
    soon(output_of(&mut command, password)).await
}

/// Active Directory, with a provider of it.
async fn active_directory(installed: &Installed, test: &str) -> Samba {
    let samba = soon(Samba::start(&folder(test))).await.unwrap();
    let mut command = installed.admin.drover(["provider", "add-ldap", "ad", "--user-base", Samba::BASE]);
    command.args(["--server", &samba.server(), "--bind-name", Samba::SEARCHER, "--domain", "CORP"]);
    command.args(["--password-stdin", "--ca"]).arg(&samba.ca);
    soon(output_of(&mut command, Samba::PASSWORD)).await.unwrap();
    samba
}

#[tokio::test]
async fn active_directory_lets_in_members_of_nested_groups_by_every_name_and_nobody_else() {
    if skipped() {
        return;
    }
    let installed = installed("ad").await;
    let samba = active_directory(&installed, "ad-server").await;
    let _agent = installed.import("ad").await;
    let login = async |name: &str, password: &str| {
        soon(installed.installation.login_through("ad", name, password)).await
    };
    let said = async |name: &str, password: &str| {
        login(name, password).await.map_or_else(|error| error.to_string(), |_| "in".to_owned())
    };
    let engineering = format!("ad:group/{}", soon(samba.sid("engineering")).await.unwrap());
    for (text, expected) in [
        ("ngineer", vec![engineering.clone()]),
        ("smith@brand", vec![format!("ad:user/{}", soon(samba.sid("alice")).await.unwrap())]),
        ("s (EU)*", vec![format!("ad:group/{}", soon(samba.sid("k8s-admins-eu")).await.unwrap())]),
        ("s (EU)**", vec![]),
    ] {
        let found = installed.says(&["provider", "search", "ad", text, "-o", "json"]).await.unwrap();
        let found: Vec<FoundPrincipal> = serde_json::from_str(&found).unwrap();
        let principals: Vec<_> = found.iter().map(|found| found.principal.clone()).collect();
        assert_eq!(principals, expected, "{text}");
    }
    let bind = ["binding", "create", "--group", &engineering, "--role", "cluster-viewer", "--cluster", "ad"];
    installed.says(&bind).await.unwrap();
    for name in
        ["bob", "BOB", "bob@corp.example", "CORP\\bob", "alice.smith@brand.example", "alice@corp.example"]
    {
        assert_eq!(said(name, Samba::PASSWORD).await, "in", "{name}");
    }
    let wrong = "the name or the password is wrong";
    for (name, password, expected) in [
        ("disabled", Samba::PASSWORD, "the account is disabled"),
        ("mustchange", Samba::PASSWORD, "has to be changed first"),
        ("accountexpired", Samba::PASSWORD, "the account has expired"),
        ("passwordexpired", Samba::PASSWORD, "the password has expired"),
        ("disabled", "guessed", wrong),
        ("OTHER\\bob", Samba::PASSWORD, wrong),
        ("bob@other.example", Samba::PASSWORD, wrong),
        ("b*b", Samba::PASSWORD, wrong),
        ("bob", "", wrong),
        ("searcher", Samba::PASSWORD, "not among those whom the provider lets in"),
    ] {
        let answer = said(name, password).await;
        assert!(answer.contains(expected), "{name} {password:?}: {answer}");
    }
    for _ in 0..3 {
        assert!(said("locked", "guessed").await.contains(wrong));
    }
    assert!(said("locked", Samba::PASSWORD).await.contains("the account is locked"));

    let bob = login("bob", Samba::PASSWORD).await.unwrap();
    let (user, group) = (soon(samba.sid("bob")).await.unwrap(), soon(samba.sid("developers")).await.unwrap());
    let who = soon(output(&mut bob.drover(["whoami"]))).await.unwrap();
    // 513 is Domain Users, where everybody is without being listed.
    for expected in ["bob@ad", &format!("ad:user/{user}"), &format!("ad:group/{group}"), &engineering, "-513"]
    {
        assert!(who.contains(expected), "{expected}: {who}");
    }
    let shown = installed.says(&["group", "show", "developers"]).await.unwrap();
    assert!(shown.starts_with(&format!("Members of ad:group/{group}, 1:\n  bob@ad\n")), "{shown}");
    // As the directory has him, he stays.
    let refreshed = installed.says(&["user", "refresh", "bob@ad"]).await.unwrap();
    assert!(refreshed.contains("in 3 groups"), "{refreshed}");
    let mut watch = soon(bob.kubectl("ad")).await.unwrap();
    let mut watch =
        watch.args(["get", "namespaces", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    soon(lines.next_line()).await.unwrap().unwrap();
    // Disabled there: by the next refresh nobody here.
    let entry = format!("CN=bob Test,CN=Users,{}", Samba::BASE);
    let disable =
        format!("dn: {entry}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n");
    soon(samba.modify(&disable)).await.unwrap();
    installed.says(&["user", "refresh", "bob@ad"]).await.unwrap();
    while soon(lines.next_line()).await.unwrap().is_some() {}
    let refused = kubectl(&bob, "ad", &["get", "namespaces"]).await.unwrap_err().to_string();
    assert!(refused.contains("Unauthorized") || refused.contains("logged in"), "{refused}");
    assert!(said("bob", Samba::PASSWORD).await.contains("the account is disabled"));
}

#[tokio::test]
async fn groups_follow_the_directory_by_themselves_and_its_outage_logs_nobody_out() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-refresh").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-refresh-server"))).await.unwrap();
    add(&installed, &ldap, &["--access", "unrestricted"]).await.unwrap();
    let bob = login(&installed, "bob", OpenLdap::PASSWORD).await.unwrap();
    let Installed { installation, up, .. } = installed;
    up.stop().await.unwrap();
    let _control = installation.control("control", &["--refresh-interval=1"]).await.unwrap();
    let _gateway = installation.gateway("gateway").await.unwrap();
    let groups = async || {
        let said = soon(output(&mut bob.drover(["whoami", "-o", "json"]))).await?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        anyhow::Ok(said[0]["user"]["spec"]["groups"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(groups().await.unwrap(), 3);
    let change = |what: &str| {
        let (group, member) =
            (format!("cn=others,{}", OpenLdap::GROUPS), format!("uid=bob,{}", OpenLdap::PEOPLE));
        format!("dn: {group}\nchangetype: modify\n{what}: member\nmember: {member}\n")
    };
    soon(ldap.modify(&change("add"))).await.unwrap();
    until("the new group", DEADLINE, async || Ok((groups().await? == 4).then_some(()))).await.unwrap();
    soon(ldap.modify(&change("delete"))).await.unwrap();
    until("the group to go", DEADLINE, async || Ok((groups().await? == 3).then_some(()))).await.unwrap();
    drop(ldap);
    let log = installation.folder.join("control.log");
    let noticed =
        async || Ok(std::fs::read_to_string(&log)?.contains("they keep what they have").then_some(()));
    until("the outage to be noticed", DEADLINE, noticed).await.unwrap();
    assert_eq!(groups().await.unwrap(), 3);
}

#[tokio::test]
async fn a_member_of_active_directory_logs_a_terminal_in_and_works_until_taken_out_of_the_group() {
    if skipped() {
        return;
    }
    let installed = installed("ad-terminal").await;
    let samba = active_directory(&installed, "ad-terminal-server").await;
    let _agent = installed.import("ad").await;
    // Bob is in developers, which is in engineering.
    let engineering = format!("ad:group/{}", soon(samba.sid("engineering")).await.unwrap());
    let bind = ["binding", "create", "--group", &engineering, "--role", "cluster-viewer", "--cluster", "ad"];
    installed.says(&bind).await.unwrap();
    let chromium = Chromium::start(&folder("ad-terminal-chromium")).await;
    let (login, url, _lines) = terminal(&installed.installation, "bob").await;
    chromium.open(&url).await;
    chromium.click("#provider option[value=ad]").await;
    chromium.click("#name").await;
    chromium.types("bob\u{e004}").await;
    chromium.types(&format!("{}\u{e007}", Samba::PASSWORD)).await;
    chromium.grants(login, "bob@ad").await;
    let bob = installed.installation.person("bob");
    let listed = kubectl(&bob, "ad", &["get", "namespaces", "-o", "name"]).await.unwrap();
    assert!(listed.contains("namespace/default"), "{listed}");
    let refused = kubectl(&bob, "ad", &["create", "namespace", "bobs"]).await.unwrap_err().to_string();
    assert!(refused.contains("User \"bob@ad\" cannot create resource"), "{refused}");
    let mut watch = soon(bob.kubectl("ad")).await.unwrap();
    let mut watch =
        watch.args(["get", "namespaces", "-w", "-o", "name"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    soon(lines.next_line()).await.unwrap().unwrap();

    let base = Samba::BASE;
    let leave = format!(
        "dn: CN=developers,CN=Users,{base}\nchangetype: modify\ndelete: member\nmember: CN=bob Test,CN=Users,{base}\n"
    );
    soon(samba.modify(&leave)).await.unwrap();
    installed.says(&["user", "refresh", "bob@ad"]).await.unwrap();
    while soon(lines.next_line()).await.unwrap().is_some() {}
    assert!(kubectl(&bob, "ad", &["get", "namespaces"]).await.is_err());
    soon(chromium.page.clone().close()).await.unwrap();
}
