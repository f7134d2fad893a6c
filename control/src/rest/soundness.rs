//! Whatever people, directories and issuers bring, the state can be published, and what is taken away is gone.

use std::collections::BTreeMap;

use drover_api::kinds::{Access, Token};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{Served, served};
use crate::people::tests::provider;
use crate::people::{self, NotTaken};
use crate::providers::Person;
use crate::routes::Control;

/// Texts with all that headers, paths and people's editors make of them.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(String::new()),
        Just(" ".to_owned()),
        Just("\u{a0}".to_owned()),
        Just("\u{2003}".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("\n".to_owned()),
        Just("\u{85}".to_owned()),
        Just("\0".to_owned()),
        Just("/".to_owned()),
        Just("system:".to_owned()),
        Just("drover:".to_owned()),
        Just("x".repeat(300)),
        "[a-zé%;^{}|.]{1,6}",
        "\\PC{1,4}",
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

#[derive(Clone, Debug)]
enum Brought {
    Person { id: String, login: String, display_name: Option<String>, group: String },
    User { name: String, display_name: Option<String>, group: String },
    Change { display_name: Option<String>, group: String },
    Cluster { name: String },
    Project { namespace: String, project: String },
    Role { name: String, inherits: String, verb: String, resource: String },
    Binding { name: String, principal: String, role: String, cluster: String },
    GroupsListed { group: String },
}

fn brought() -> impl Strategy<Value = Brought> {
    let name =
        || prop_oneof![text(), Just("zoe".to_owned()), Just("admin".to_owned()), Just("one".to_owned())];
    let group = || prop_oneof![text(), text().prop_map(|id| format!("local:group/{id}"))];
    let shown = || proptest::option::of(text());
    prop_oneof![
        (name(), name(), shown(), text()).prop_map(|(id, login, display_name, group)| Brought::Person {
            id,
            login,
            display_name,
            group
        }),
        (name(), shown(), group()).prop_map(|(name, display_name, group)| Brought::User {
            name,
            display_name,
            group
        }),
        (shown(), group()).prop_map(|(display_name, group)| Brought::Change { display_name, group }),
        name().prop_map(|name| Brought::Cluster { name }),
        (text(), name()).prop_map(|(namespace, project)| Brought::Project { namespace, project }),
        (name(), name(), name(), text()).prop_map(|(name, inherits, verb, resource)| Brought::Role {
            name,
            inherits,
            verb,
            resource
        }),
        (name(), group(), name(), name()).prop_map(|(name, principal, role, cluster)| Brought::Binding {
            name,
            principal,
            role,
            cluster
        }),
        group().prop_map(|group| Brought::GroupsListed { group }),
    ]
}

impl Brought {
    /// Brings it as its kind comes.
    async fn bring(self, served: &Served, admin: &str) {
        let control = &served.control;
        let object = async |path: &str, change: &dyn Fn(&mut Value)| {
            let (code, mut object) = served.ask(admin, "GET", path, None).await;
            assert_eq!(code, 200, "{path}");
            change(&mut object["spec"]);
            served.ask(admin, "PUT", path, Some(object)).await
        };
        let (code, answer) = match self {
            Self::Person { id, login, display_name, group } => {
                return log_in(
                    control,
                    Person { id, login, display_name, groups: BTreeMap::from([(group, None)]) },
                )
                .await;
            }
            Self::User { name, display_name, group } => {
                let user = json!({ "name": name, "display_name": display_name, "groups": [group], "password": "correct horse" });
                served.ask(admin, "POST", "/v1/users", Some(user)).await
            }
            Self::Change { display_name, group } => {
                object("/v1/users/bob", &|spec| {
                    spec["display_name"] = json!(display_name);
                    spec["groups"] = json!([group]);
                })
                .await
            }
            Self::Cluster { name } => {
                served.ask(admin, "POST", "/v1/clusters", Some(json!({ "name": name }))).await
            }
            Self::Project { namespace, project } => {
                object("/v1/clusters/one", &|spec| spec["projects"] = json!({ namespace.as_str(): project }))
                    .await
            }
            Self::GroupsListed { group } => {
                object("/v1/clusters/one", &|spec| spec["groups_listed"] = json!([group])).await
            }
            Self::Role { name, inherits, verb, resource } => {
                let rule =
                    json!({ "effect": "allow", "verbs": [verb], "apiGroups": [""], "resources": [resource] });
                let role = json!({ "name": name, "inherits": [inherits], "rules": [rule] });
                served.ask(admin, "POST", "/v1/roles", Some(role)).await
            }
            Self::Binding { name, principal, role, cluster } => {
                let binding = json!({ "name": name, "principal": principal, "role": role, "domain": { "cluster": cluster } });
                served.ask(admin, "POST", "/v1/rolebindings", Some(binding)).await
            }
        };
        assert!(code < 500, "{code}: {answer}");
    }
}

async fn log_in(control: &Control, person: Person) {
    let provider = provider(Access::Unrestricted, &[]);
    let _writing = control.begin_write().await.unwrap();
    let known = control.snapshots.state().user(&people::principal(&provider.name, &person.id));
    match people::take_in(control, &provider, known, &person).await {
        Ok(_) | Err(NotTaken::Id(_) | NotTaken::Name(_)) => {}
        Err(refused) => panic!("{person:?}: {refused}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_brought_the_state_is_published_and_a_revocation_works(all in proptest::collection::vec(brought(), 1..16)) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let served = served().await;
            let admin = served.user("root", &[("admin", drover_api::kinds::Domain::Global)]).await;
            let bob = served.user("bob", &[]).await;
            for brought in all {
                brought.bring(&served, &admin).await;
            }
            let control = &served.control;
            assert_eq!(served.ask(&bob, "GET", "/v1/self", None).await.0, 200);
            assert_eq!(control.snapshots.state().aside().summary(), None);
            // Which waits for what was written to be published.
            drop(control.begin_write().await.unwrap());
            let written = *control.objects.store().revision().borrow();
            assert!(control.snapshots.published().borrow().revision >= written);
            assert_eq!(served.ask(&admin, "DELETE", "/v1/users/bob/tokens", None).await.0, 200);
            drop(control.begin_write().await.unwrap());
            let left = control.snapshots.document().tokens.into_iter().filter(|token: &Token| token.user == "local:user/bob");
            assert_eq!(left.count(), 0);
            assert_eq!(served.ask(&bob, "GET", "/v1/self", None).await.0, 401);
        });
    }
}

#[tokio::test]
async fn regression_no_name_for_people_freezes_what_is_published() {
    let served = served().await;
    let admin = served.user("root", &[("admin", drover_api::kinds::Domain::Global)]).await;
    for (number, (display_name, expected)) in
        [(" Zoe", Some("Zoe")), ("", None), ("Zoe ", Some("Zoe")), ("\u{a0}", None)].into_iter().enumerate()
    {
        let user = json!({ "name": format!("u{number}"), "display_name": display_name, "password": "correct horse" });
        let (code, made) = served.ask(&admin, "POST", "/v1/users", Some(user)).await;
        assert_eq!(
            (code, made["object"]["spec"]["display_name"].as_str()),
            (201, expected),
            "{display_name:?}: {made}"
        );
    }
    let user = json!({ "name": "u", "display_name": "Z\noe" });
    let (code, refused) = served.ask(&admin, "POST", "/v1/users", Some(user)).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("display_name")));
    drop(served.control.begin_write().await.unwrap());
    let names: Vec<_> = served.control.snapshots.document().users.into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["root", "u0", "u1", "u2", "u3"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_deleted_by_administrators_and_remembered_as_others_are() {
    use drover_api::kinds::{Domain, Kind, User};

    use crate::store::{Expected, Value};
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let value = Value { format: 1, spec: b"{}".to_vec(), secret: None };
    served.control.objects.store().put(User::KIND, "zoe", value, Expected::Absent).await.unwrap();
    drop(served.control.begin_write().await.unwrap());
    let (code, status) = served.ask(&admin, "GET", "/v1/status", None).await;
    assert_eq!(
        (code, &status["set_aside"][0]["key"], &status["set_aside_total"]),
        (200, &json!("zoe"), &json!(1))
    );
    // The others are there as ever.
    assert_eq!(served.ask(&admin, "GET", "/v1/users", None).await.1["items"].as_array().unwrap().len(), 1);
    let owner = served.user("owner", &[("cluster-owner", Domain::Global)]).await;
    assert_eq!(served.ask(&owner, "GET", "/v1/status", None).await.0, 403);
    assert_eq!(served.ask(&owner, "DELETE", "/v1/users/zoe", None).await.0, 403);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/users/zoe", None).await.0, 200);
    let (_, status) = served.ask(&admin, "GET", "/v1/status", None).await;
    assert_eq!(status, json!({ "set_aside": [], "set_aside_total": 0 }));
    let again = json!({ "name": "zoe", "password": "correct horse" });
    assert_eq!(
        served.ask(&admin, "POST", "/v1/users", Some(again)).await.0,
        409,
        "a name is not given twice"
    );
}
