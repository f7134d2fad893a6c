//! References of directories to other servers (RFC 4511, 4.5.3).

use drover_testkit::directories::OpenLdap;
use drover_testkit::fleet::{output, output_of};

use crate::control::installed;
use crate::directories::{add, login, skipped};
use crate::system::{folder, soon};

#[tokio::test]
async fn references_are_followed_to_servers_that_the_provider_names_and_to_no_others() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-referrals").await;
    let own = soon(OpenLdap::start(&folder("ldap-referrals-own"))).await.unwrap();
    let other = soon(OpenLdap::start(&folder("ldap-referrals-other"))).await.unwrap();
    let part = "dc=sub,dc=corp,dc=example";
    let carol = format!("uid=carol,{part}");
    let entries = [
        format!(
            "dn: {part}\nchangetype: add\nobjectClass: dcObject\nobjectClass: organization\no: Sub\ndc: sub\n"
        ),
        format!(
            "dn: {carol}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: carol\ncn: carol\nsn: C\nuserPassword: {}\n",
            OpenLdap::PASSWORD
        ),
        format!(
            "dn: cn=subs,{part}\nchangetype: add\nobjectClass: groupOfNames\ncn: subs\nmember: {carol}\n"
        ),
    ];
    soon(other.modify(&entries.join("\n"))).await.unwrap();
    let reference = format!(
        "dn: {part}\nchangetype: add\nobjectClass: referral\nobjectClass: extensibleObject\ndc: sub\n\
         ref: ldap://127.0.0.1:{}/{part}\n\n\
         dn: cn=others,{}\nchangetype: modify\nadd: member\nmember: {carol}\n",
        other.port,
        OpenLdap::GROUPS
    );
    soon(own.modify(&reference)).await.unwrap();
    let authorities = folder("ldap-referrals-own").join("both.pem");
    let both = [&own.ca, &other.ca].map(|file| std::fs::read_to_string(file).unwrap()).concat();
    std::fs::write(&authorities, both).unwrap();
    let add_at = async |base: &str, more: &[&str]| {
        let (searcher, password) = OpenLdap::SEARCHER;
        let server = format!("ldaps://127.0.0.1:{}", own.tls_port);
        let mut command =
            installed.admin.drover(["provider", "add-ldap", "corp", "--schema", "inet-org-person"]);
        command.args([
            "--server",
            &server,
            "--user-base",
            base,
            "--group-base",
            "dc=corp,dc=example",
            "--ca",
        ]);
        command.arg(&authorities).args([
            "--bind-name",
            searcher,
            "--password-stdin",
            "--access",
            "unrestricted",
        ]);
        soon(output_of(command.args(more), password)).await
    };
    // A base that is elsewhere as a whole.
    let refused = add_at(part, &[]).await.unwrap_err().to_string();
    assert!(refused.contains("which is none of the provider's servers for referrals"), "{refused}");
    // A part of what is below.
    add_at("dc=corp,dc=example", &[]).await.unwrap();
    login(&installed, "alice", OpenLdap::PASSWORD).await.unwrap();
    let refused = login(&installed, "carol", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(refused.contains("the name or the password is wrong"), "{refused}");
    installed.says(&["user", "delete", "alice@corp"]).await.unwrap();
    installed.says(&["provider", "delete", "corp"]).await.unwrap();

    let referral = format!("ldap://127.0.0.1:{}", other.port);
    let gone =
        add_at("dc=corp,dc=example", &["--referral", "ldap://127.0.0.1:1"]).await.unwrap_err().to_string();
    assert!(gone.contains("ldap://127.0.0.1:1: "), "{gone}");
    for base in [part, "dc=corp,dc=example"] {
        add_at(base, &["--referral", &referral]).await.unwrap();
        login(&installed, "carol", OpenLdap::PASSWORD).await.unwrap();
        installed.says(&["user", "delete", "carol@corp"]).await.unwrap();
        installed.says(&["provider", "delete", "corp"]).await.unwrap();
    }
    add_at("dc=corp,dc=example", &["--referral", &referral]).await.unwrap();
    login(&installed, "alice", OpenLdap::PASSWORD).await.unwrap();
    let wrong = login(&installed, "carol", "guessed").await.err().unwrap().to_string();
    assert!(wrong.contains("the name or the password is wrong"), "{wrong}");
    let carol = login(&installed, "carol", OpenLdap::PASSWORD).await.unwrap();
    let groups = async || {
        let said = soon(output(&mut carol.drover(["whoami", "-o", "json"]))).await.unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        said[0]["user"]["spec"]["groups"].as_array().unwrap().len()
    };
    assert_eq!(groups().await, 2, "one of each server");
    installed.says(&["user", "refresh", "carol@corp"]).await.unwrap();
    assert_eq!(groups().await, 2);

    // A part that cannot be asked makes no answer: nobody is less than they were.
    drop(other);
    let down = installed.says(&["user", "refresh", "carol@corp"]).await.unwrap_err().to_string();
    assert!(down.contains("does not answer"), "{down}");
    assert_eq!(groups().await, 2);
    let down = login(&installed, "alice", OpenLdap::PASSWORD).await.err().unwrap().to_string();
    assert!(down.contains("does not answer"), "{down}");
}

/// A server that refers to itself and on and on keeps nobody busy.
#[tokio::test]
async fn a_search_follows_so_many_references_and_no_more() {
    if skipped() {
        return;
    }
    let installed = installed("ldap-references-max").await;
    let ldap = soon(OpenLdap::start(&folder("ldap-references-max-server"))).await.unwrap();
    let own = format!("ldap://127.0.0.1:{}", ldap.port);
    let refer = async |number: usize| {
        let reference = format!(
            "dn: ou=elsewhere{number},{}\nchangetype: add\nobjectClass: referral\nobjectClass: extensibleObject\n\
             ou: elsewhere{number}\nref: {own}/ou=nothing{number},{}\n",
            OpenLdap::PEOPLE,
            OpenLdap::PEOPLE
        );
        soon(ldap.modify(&reference)).await.unwrap();
    };
    for number in 0..32 {
        refer(number).await;
    }
    add(&installed, &ldap, &["--access", "unrestricted", "--referral", &own]).await.unwrap();
    login(&installed, "alice", OpenLdap::PASSWORD).await.unwrap();
    refer(32).await;
    let refused = installed.says(&["user", "refresh", "alice@corp"]).await.unwrap_err().to_string();
    assert!(refused.contains("more than 32 references to other servers"), "{refused}");
}
