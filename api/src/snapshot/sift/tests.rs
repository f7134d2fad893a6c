use std::time::SystemTime;

use drover_policy::{Attributes, ClusterId, Policy, Principal, Subject};
use jiff::Timestamp;

use super::*;
use crate::kinds::{Cluster, Domain, Token, TokenKind, TokenScope, User};
use crate::token;

fn document() -> Document {
    let cluster = |name: &str| Cluster {
        name: name.into(),
        id: format!("c-{name}"),
        projects: Default::default(),
        groups_listed: None,
    };
    let user = |name: &str| User {
        principal: format!("local:user/{name}"),
        name: name.into(),
        display_name: None,
        groups: vec![],
        disabled: false,
    };
    let token = |of: &str, scope| {
        let made = token::generate();
        Token {
            id: made.id,
            hash: made.hash,
            proof_key: made.proof_key,
            user: format!("local:user/{of}"),
            kind: TokenKind::Bot,
            scope,
            expires_at: Timestamp::MAX,
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
        }
    };
    Document {
        format: 1,
        reader_min: 1,
        revision: 7,
        issued_at: Timestamp::now(),
        max_staleness_s: 60,
        clusters: vec![cluster("one"), cluster("two")],
        users: vec![user("adam"), user("zoe")],
        tokens: vec![
            token("adam", TokenScope::All),
            token("zoe", TokenScope::Clusters(vec!["c-two".into()])),
        ],
        roles: vec![role("base", "get"), Role { inherits: vec!["base".into()], ..role("heir", "list") }],
        bindings: vec![
            binding("a", "adam", "cluster-owner"),
            binding("b", "zoe", "cluster-viewer"),
            binding("c", "zoe", "heir"),
        ],
        assertions: None,
        rosters: vec![],
        enrolments: None,
    }
}

fn role(name: &str, verb: &str) -> Role {
    let rule = Rule {
        effect: Effect::Allow,
        verbs: vec![verb.into()],
        api_groups: vec![String::new()],
        resources: vec!["configmaps".into()],
        resource_names: vec![],
        non_resource_urls: vec![],
    };
    Role { name: name.into(), inherits: vec![], rules: vec![rule] }
}

fn binding(name: &str, of: &str, role: &str) -> Binding {
    Binding {
        name: name.into(),
        principal: format!("local:user/{of}"),
        role: role.into(),
        domain: Domain::Cluster("c-one".into()),
        expires_at: None,
    }
}

/// Who of the two may list pods of the first cluster.
fn may_list(snapshot: &Snapshot) -> Vec<&'static str> {
    let policy =
        Policy::new(snapshot.rules.clone(), SystemTime::now() + std::time::Duration::from_secs(60)).unwrap();
    let may = |name: &&str| {
        let subject = Subject::new(Principal::parse(&format!("local:user/{name}")).unwrap(), []);
        let attributes = Attributes::parse("GET", "/api/v1/namespaces/x/pods", None).unwrap();
        policy.decide(&subject, &ClusterId::parse("c-one").unwrap(), attributes, SystemTime::now()).is_ok()
    };
    ["adam", "zoe"].into_iter().filter(may).collect()
}

#[test]
fn what_is_sound_is_the_snapshot_and_nothing_is_set_aside() {
    let (snapshot, aside) = sift(document()).unwrap();
    assert_eq!((aside, may_list(&snapshot)), (vec![], vec!["adam", "zoe"]));
}

#[test]
fn one_unsound_object_holds_back_itself_and_what_its_owner_may_and_nothing_else() {
    type Case = (&'static str, fn(&mut Document), &'static [&'static str], &'static [&'static str], usize);
    let cases: [Case; 13] = [
        (
            "a user's name for people",
            |it| it.users[1].display_name = Some(" Zoe".into()),
            &["User zoe"],
            &["adam", "zoe"],
            1,
        ),
        (
            "a user's name",
            |it| it.users[1].name = "zoe\u{a0}".into(),
            &["User zoe\u{a0}"],
            &["adam", "zoe"],
            1,
        ),
        (
            "two of one principal",
            |it| it.users.push(User { name: "zoe-2".into(), ..it.users[1].clone() }),
            &["User zoe-2"],
            &["adam", "zoe"],
            2,
        ),
        (
            "a group",
            |it| it.users[1].groups.push("system:masters".into()),
            &["User zoe"],
            &["adam", "zoe"],
            1,
        ),
        ("a cluster", |it| it.clusters[1].id = "two".into(), &["Cluster two"], &["adam", "zoe"], 1),
        (
            "two of one cluster",
            |it| it.clusters.push(Cluster { name: "twin".into(), ..it.clusters[0].clone() }),
            &["Cluster twin"],
            &["adam", "zoe"],
            2,
        ),
        (
            "a cluster that is bound",
            |it| it.clusters[0].id = "one".into(),
            &["Cluster one", "RoleBinding a", "RoleBinding b", "RoleBinding c"],
            &[],
            2,
        ),
        ("a binding's role", |it| it.bindings[2].role = "Heir".into(), &["RoleBinding c"], &["adam"], 2),
        ("a role that is gone", |it| it.bindings[2].role = "gone".into(), &["RoleBinding c"], &["adam"], 2),
        (
            "whom a binding is for",
            |it| it.bindings[2].principal = "zoe".into(),
            &["RoleBinding c"],
            &["adam", "zoe"],
            2,
        ),
        (
            "a role that another inherits",
            |it| it.roles[0].rules[0].verbs[0] = "GET".into(),
            &["Role base"],
            &["adam"],
            2,
        ),
        (
            "roles in a circle",
            |it| it.roles[0].inherits.push("heir".into()),
            &["Role base", "Role heir"],
            &["adam"],
            2,
        ),
        (
            "a role that became a template's",
            |it| {
                it.roles[0].name = "cluster-viewer".into();
                it.roles[1].inherits[0] = "cluster-viewer".into();
            },
            &["Role cluster-viewer", "Role heir", "RoleBinding b"],
            &["adam"],
            2,
        ),
    ];
    for (what, break_it, expected, may, tokens) in cases {
        let mut broken = document();
        break_it(&mut broken);
        assert!(Snapshot::try_from(broken.clone()).is_err(), "{what}: it is sound");
        let (snapshot, aside) = sift(broken).unwrap();
        let tokens_aside = aside.iter().filter(|aside| aside.kind == Token::KIND).count();
        let named: Vec<_> = aside
            .iter()
            .filter(|aside| aside.kind != Token::KIND)
            .map(|aside| format!("{} {}", aside.kind, aside.key))
            .collect();
        assert_eq!(named, expected, "{what}");
        assert_eq!((snapshot.tokens.len(), tokens_aside), (tokens, 2 - tokens), "{what}");
        assert_eq!(may_list(&snapshot), may, "{what}");
    }
}

#[test]
fn what_no_object_can_mend_refuses_the_document() {
    let unsound = Document { max_staleness_s: 0, ..document() };
    assert!(sift(unsound).unwrap_err().to_string().contains("max_staleness_s"));
}
