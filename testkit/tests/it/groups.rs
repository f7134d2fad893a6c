//! Groups: what one gives its members, and what it takes from them.

use drover_testkit::installation::drawn_password;

use crate::control::{installed, kubectl, watch};
use crate::system::soon;

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
    assert_eq!(cells(&listed), [["GROUP", "MEMBERS", "BINDINGS"], ["local:group/ops", "0", "1"]]);

    let added = installed.says(&["group", "add", "ops", "zoe", "yan"]).await.unwrap();
    assert_eq!(added, "User zoe is in local:group/ops.\nUser yan is in local:group/ops.\n");
    let shown = installed.says(&["group", "show", "ops"]).await.unwrap();
    assert!(shown.starts_with("Members of local:group/ops, 2:\n  yan\n  zoe\n"), "{shown}");
    assert!(shown.contains("ops-view"), "{shown}");
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

fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}
