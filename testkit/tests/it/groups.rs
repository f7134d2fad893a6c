//! Groups: what one gives its members, and what it takes from them.

use drover_api::rest::FoundPrincipal;
use drover_testkit::directories::OpenLdap;
use drover_testkit::fleet::output;
use drover_testkit::installation::drawn_password;

use crate::control::{installed, kubectl, watch};
use crate::directories::{add, skipped};
use crate::system::{folder, soon};

/// Of Drover's own users, whom `drover group` puts into groups and takes out.
#[tokio::test]
async fn a_local_group_gives_its_role_to_whoever_is_put_in_until_taken_out() {
    let installed = installed("groups-local").await;
    let _agent = installed.import("grouped").await;
    let bind = ["--group", "ops", "--role", "cluster-viewer", "--cluster", "grouped", "--name", "ops-view"];
    installed.says(&[["binding", "create"].as_slice(), &bind].concat()).await.unwrap();
    let mut people = Vec::new();
    for name in ["zoe", "yan"] {
        let made = installed.says(&["user", "create", name]).await.unwrap();
        let password = drawn_password(&made).unwrap();
        people.push(soon(installed.installation.login(name, &password)).await.unwrap());
    }

    // One who is not there, and nobody is in.
    let refused = installed.says(&["group", "add", "ops", "zoe", "nobody"]).await.unwrap_err().to_string();
    assert!(refused.contains(r#"users "nobody" not found"#), "{refused}");
    let elsewhere = installed.says(&["group", "add", "corp:group/7", "zoe"]).await.unwrap_err().to_string();
    assert!(elsewhere.contains("corp:group/7 is a directory's"), "{elsewhere}");
    let listed = installed.says(&["group", "list"]).await.unwrap();
    assert_eq!(
        cells(&listed),
        [["GROUP", "NAME", "MEMBERS", "BINDINGS"], ["local:group/ops", "-", "0", "1"]]
    );

    let added = installed.says(&["group", "add", "ops", "zoe", "yan"]).await.unwrap();
    assert_eq!(added, "User zoe is in local:group/ops.\nUser yan is in local:group/ops.\n");
    let shown = installed.says(&["group", "show", "ops"]).await.unwrap();
    assert!(shown.starts_with("Members of local:group/ops, 2:\n  yan\n  zoe\n"), "{shown}");
    let binding = "ops-view   ops   local:group/ops   cluster-viewer   grouped   never";
    assert!(shown.ends_with(&format!("{binding}\n")), "{shown}");
    let [zoe, yan] = people.as_slice() else { panic!("two people") };
    let mut watches = [watch(zoe, "grouped").await, watch(yan, "grouped").await];

    let removed = installed.says(&["group", "remove", "ops", "zoe"]).await.unwrap();
    assert_eq!(removed, "User zoe is in no group.\n");
    soon(watches[0].wait()).await.unwrap();
    assert!(kubectl(zoe, "grouped", &["get", "ns"]).await.is_err());
    assert!(watches[1].try_wait().unwrap().is_none(), "the other member's goes on");
    soon(watches[1].kill()).await.unwrap();
    let unknown = installed.says(&["group", "show", "dev"]).await.unwrap_err().to_string();
    assert!(unknown.contains("no user is in local:group/dev"), "{unknown}");
}

/// In a restricted directory nobody logs in before a group of theirs has a role, and rules name groups by ids.
#[tokio::test]
async fn who_searches_a_directory_finds_what_to_bind_before_anybody_has_logged_in() {
    if skipped() {
        return;
    }
    let installed = installed("groups-search").await;
    let ldap = soon(OpenLdap::start(&folder("groups-search-server"))).await.unwrap();
    add(&installed, &ldap, &[]).await.unwrap();
    installed.says(&["cluster", "create", "searched"]).await.unwrap();
    let search = async |text: &str| {
        let found = installed.says(&["provider", "search", "corp", text, "-o", "json"]).await.unwrap();
        serde_json::from_str::<Vec<FoundPrincipal>>(&found).unwrap()
    };
    let everybody = search("VERYBOD").await;
    let [found] = everybody.as_slice() else { panic!("{everybody:?}") };
    assert_eq!((found.name.as_str(), found.display_name.as_deref()), ("everybody", None));
    assert_eq!(found.dn, Some(format!("cn=everybody,{}", OpenLdap::GROUPS)));
    let bind = ["binding", "create", "--group", &found.principal, "--role", "cluster-viewer"];
    installed.says(&[bind.as_slice(), &["--cluster", "searched"]].concat()).await.unwrap();
    let login = async || soon(installed.installation.login_through("corp", "bob", OpenLdap::PASSWORD)).await;
    login().await.unwrap();
    let bindings = installed.says(&["binding", "list"]).await.unwrap();
    let of_everybody = cells(&bindings).into_iter().find(|row| row[2] == found.principal).unwrap();
    assert_eq!((of_everybody[1], of_everybody[4]), ("everybody", "searched"), "{bindings}");
    // Or be let in without a role, and only so.
    let set = ["provider", "set-access", "corp", "--access", "required"];
    installed.says(&set).await.unwrap();
    let refused = login().await.err().unwrap().to_string();
    assert!(refused.contains("not among those whom the provider lets in"), "{refused}");
    installed.says(&[set.as_slice(), &["--allow", &found.principal]].concat()).await.unwrap();
    login().await.unwrap();

    // By the names that the directory has for them, from the search and the login.
    let listed = installed.says(&["group", "list"]).await.unwrap();
    let named: Vec<_> = cells(&listed).into_iter().skip(1).map(|row| row[1..].concat()).collect();
    for row in ["everybody11", "engineering10", "developers10"] {
        assert!(named.contains(&row.to_owned()), "{listed}");
    }
    let shown = installed.says(&["group", "show", "engineering"]).await.unwrap();
    assert!(shown.starts_with("Members of corp:group/") && shown.contains("\n  bob@corp\n"), "{shown}");

    let theirs = installed.says(&["group", "add", "ops", "bob@corp"]).await.unwrap_err().to_string();
    assert!(theirs.contains("bob@corp is a directory's user"), "{theirs}");

    let bob = search("Bob B").await;
    let uuid = soon(ldap.uuid("(uid=bob)")).await.unwrap();
    assert_eq!((bob.len(), &bob[0].principal, &*bob[0].name), (1, &format!("corp:user/{uuid}"), "bob"));
    // What stands for anything in a filter is itself.
    assert_eq!(
        search("wild*").await.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(),
        ["wild*card"]
    );
    for none in ["*", ")(uid=*", "nobody"] {
        assert_eq!(search(none).await.len(), usize::from(none == "*"), "{none}");
    }
    let mut many = installed.admin.drover(["provider", "search", "corp", "person"]);
    let many = soon(many.output()).await.unwrap();
    let said = String::from_utf8(many.stderr).unwrap();
    assert!(said.contains("There are more than these"), "{said}");
    assert_eq!(String::from_utf8(many.stdout).unwrap().lines().count(), 51);

    for (arguments, said) in
        [(["corp", " "], "name what to search for"), (["none", "bob"], r#"providers "none" not found"#)]
    {
        let refused = installed.says(&[["provider", "search"], arguments].concat()).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    let viewer = installed.colleague("zoe", "cluster-viewer", "searched").await;
    let refused = soon(output(&mut viewer.drover(["provider", "search", "corp", "bob"]))).await;
    assert!(refused.unwrap_err().to_string().contains("not found"));
    drop(ldap);
    let away = installed.says(&["provider", "search", "corp", "bob"]).await.unwrap_err().to_string();
    assert!(away.contains("the directory did not answer") && away.contains("ServiceUnavailable"), "{away}");
}

fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}
