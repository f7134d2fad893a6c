//! Nobody comes to more than they hold, or keeps it for longer: what was tried to that end, one after the other.

use std::time::SystemTime;

use drover_api::kinds::{Binding, Domain, Role, Session, Token, TokenKind, TokenScope, User};
use serde_json::{Value, json};

use super::tests::{Served, served, token};
use super::tokens;

/// Who may change users, tokens, providers and gateways, and no cluster.
async fn manager(served: &Served) -> String {
    let verbs = ["get", "list", "create", "update", "delete"];
    let plurals = ["users", "tokens", "providers", "registrationtokens", "rolebindings", "roles"];
    let rule = json!({ "effect": "allow", "verbs": verbs, "apiGroups": ["drover.io"], "resources": plurals });
    let role: Role = serde_json::from_value(json!({ "name": "manager", "rules": [rule] })).unwrap();
    served.control.objects.create(&role, None).await.unwrap();
    served.user("mia", &[("manager", Domain::Global)]).await
}

async fn bind(served: &Served, name: &str, principal: &str, role: &str, domain: Domain, ends_s: Option<i64>) {
    let expires_at = ends_s.map(|ends_s| jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ends_s));
    let (name, principal, role) = (name.into(), principal.into(), role.into());
    served
        .control
        .objects
        .create(&Binding { name, principal, role, domain, expires_at }, None)
        .await
        .unwrap();
}

async fn change_user(served: &Served, token: &str, name: &str, change: impl Fn(&mut Value)) -> u16 {
    let (_, mut user) = served.ask(token, "GET", &format!("/v1/users/{name}"), None).await;
    change(&mut user["spec"]);
    served.ask(token, "PUT", &format!("/v1/users/{name}"), Some(user)).await.0
}

#[tokio::test]
async fn regression_who_may_change_users_does_not_come_to_what_others_hold() {
    let served = served().await;
    served.user("root", &[("admin", Domain::Global)]).await;
    bind(&served, "admins", "local:group/admins", "admin", Domain::Global, None).await;
    bind(&served, "owners", "local:group/owners", "cluster-owner", Domain::Cluster("c-1".into()), None).await;
    served.user("zoe", &[]).await;
    let asleep = User {
        principal: "local:user/ann".into(),
        name: "ann".into(),
        display_name: None,
        groups: vec!["local:group/owners".into()],
        disabled: true,
    };
    served.control.objects.create(&asleep, None).await.unwrap();
    let mia = manager(&served).await;
    let ask =
        async |method: &str, path: &str, body: Value| served.ask(&mia, method, path, Some(body)).await.0;
    for name in ["mia", "zoe"] {
        for group in ["admins", "owners"] {
            let into = |spec: &mut Value| spec["groups"] = json!([format!("local:group/{group}")]);
            assert_eq!(change_user(&served, &mia, name, into).await, 403, "{name} into {group}");
        }
    }
    assert_eq!(change_user(&served, &mia, "ann", |spec| spec["disabled"] = false.into()).await, 403);
    let eve = json!({ "name": "eve", "groups": ["local:group/admins"], "password": "correct horse" });
    assert_eq!(ask("POST", "/v1/users", eve).await, 403);
    let password = || json!({ "password": "another horse" });
    assert_eq!(ask("POST", "/v1/users/root/password", password()).await, 403);
    assert_eq!(
        ask("POST", "/v1/users/root/password", json!({})).await,
        403,
        "one that is drawn is in the answer"
    );
    let bot = |user: &str| json!({ "kind": "bot", "scope": "all", "user": user });
    assert_eq!(ask("POST", "/v1/tokens", bot("root")).await, 403);
    assert_eq!(ask("POST", "/v1/registrationtokens", json!({ "process": "gateway/mine" })).await, 403);
    let issuer = json!({ "issuer": "https://mine.test", "audience": "drover", "keys": { "set": "{}" }, "rules": [{ "name": "root", "claims": { "sub": "me" } }] });
    let provider = json!({ "spec": { "name": "mine", "access": "unrestricted", "directory": { "jwt": issuer } }, "password": "" });
    assert_eq!(ask("POST", "/v1/providers", provider).await, 403);

    // And what takes nothing of others is as it was.
    assert_eq!(
        change_user(&served, &mia, "zoe", |spec| spec["groups"] = json!(["local:group/dev"])).await,
        200
    );
    assert_eq!(ask("POST", "/v1/users/zoe/password", password()).await, 200);
    assert_eq!(ask("POST", "/v1/tokens", bot("zoe")).await, 201);
    assert_eq!(change_user(&served, &mia, "zoe", |spec| spec["disabled"] = true.into()).await, 200);
    assert_eq!(change_user(&served, &mia, "zoe", |spec| spec["disabled"] = false.into()).await, 200);
}

#[tokio::test]
async fn what_lets_one_act_as_others_takes_a_login_of_the_last_minutes() {
    let served = served().await;
    served.user("zoe", &[]).await;
    served.user("root", &[("admin", Domain::Global)]).await;
    let control = &served.control;
    let root = control.objects.get::<User>("root").await.unwrap().unwrap().object.spec;
    let bot = token(control, &root, TokenKind::Bot, TokenScope::All).await.secret.unwrap();
    let acts =
        json!({ "effect": "allow", "verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"] });
    let acts: Role = serde_json::from_value(json!({ "name": "acts", "rules": [acts] })).unwrap();
    control.objects.create(&acts, None).await.unwrap();
    // Of a session whose login was long ago: the next of it, and what is granted from it in the console.
    let first =
        tokens::log_in(control, &root, tokens::Login::New, SystemTime::now()).await.ok().unwrap().object.spec;
    let long_ago = Session {
        began_at: Some(jiff::Timestamp::now() - jiff::SignedDuration::from_mins(6)),
        ..first.session.unwrap()
    };
    let of = async |login: tokens::Login<'_>| {
        let made = tokens::log_in(control, &root, login, SystemTime::now()).await.ok().unwrap();
        assert_eq!(made.object.spec.session.unwrap().ends_at, long_ago.ends_at);
        made.secret.unwrap()
    };
    let renewed = of(tokens::Login::Next(&long_ago)).await;
    let granted = of(tokens::Login::Granted(&long_ago)).await;
    let binding = json!({ "principal": "local:group/g", "role": "cluster-viewer", "domain": "global" });
    for (path, body) in [
        ("/v1/users/zoe/password", json!({ "password": "another horse" })),
        ("/v1/users", json!({ "name": "eve", "password": "another horse" })),
        ("/v1/tokens", json!({ "kind": "bot", "scope": "all", "lifetime_s": 60, "user": "zoe" })),
        ("/v1/registrationtokens", json!({ "process": "gateway/g-2" })),
        ("/v1/rolebindings", binding),
        (
            "/v1/roles",
            json!({ "name": "r", "rules": [{ "effect": "allow", "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] }),
        ),
        (
            "/v1/rolebindings",
            json!({ "principal": "local:group/g", "role": "acts", "domain": { "cluster": "c-1" } }),
        ),
    ] {
        for of_long_ago in [&bot, &renewed, &granted] {
            let (code, refused) = served.ask(of_long_ago, "POST", path, Some(body.clone())).await;
            assert_eq!((code, &refused["reason"]), (403, &json!("LoginRequired")), "{path}");
        }
        assert_eq!(
            change_user(&served, &bot, "zoe", |spec| spec["groups"] = json!(["local:group/x"])).await,
            403
        );
        let now = tokens::log_in(control, &root, tokens::Login::New, SystemTime::now())
            .await
            .ok()
            .unwrap()
            .secret
            .unwrap();
        let (code, answer) = served.ask(&now, "POST", path, Some(body)).await;
        assert!(code < 300, "{path}: {answer}");
    }
}

#[tokio::test]
async fn regression_nobody_gives_for_longer_than_they_hold() {
    let served = served().await;
    let ends = Some(3600);
    let one = || Domain::Cluster("c-1".into());
    let owner = served.user("owner", &[]).await;
    bind(&served, "owners", "local:user/owner", "cluster-owner", one(), ends).await;
    let (_, mut own) = served.ask(&owner, "GET", "/v1/rolebindings/owners", None).await;
    let until = own["spec"]["expires_at"].clone();
    let binding = |expires_at: Value| {
        let mut binding = json!({ "principal": "local:user/owner", "role": "cluster-owner", "domain": { "cluster": "c-1" } });
        if !expires_at.is_null() {
            binding["expires_at"] = expires_at;
        }
        binding
    };
    for (expires_at, expected) in [(Value::Null, 403), (json!("2099-01-01T00:00:00Z"), 403), (until, 201)] {
        let (code, answer) = served.ask(&owner, "POST", "/v1/rolebindings", Some(binding(expires_at))).await;
        assert_eq!(code, expected, "{answer}");
    }
    own["spec"].as_object_mut().unwrap().remove("expires_at");
    assert_eq!(served.ask(&owner, "PUT", "/v1/rolebindings/owners", Some(own)).await.0, 403);
    // An administrator until then makes nobody who is one for longer, and no role either.
    let acting = served.user("acting", &[]).await;
    bind(&served, "acting", "local:user/acting", "admin", Domain::Global, ends).await;
    bind(&served, "admins", "local:group/admins", "admin", Domain::Global, None).await;
    assert_eq!(
        change_user(&served, &acting, "acting", |spec| spec["groups"] = json!(["local:group/admins"])).await,
        403
    );
    let role = json!({ "name": "all", "rules": [{ "effect": "allow", "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }] });
    assert_eq!(served.ask(&acting, "POST", "/v1/roles", Some(role)).await.0, 403);
}

#[tokio::test]
async fn regression_a_token_makes_none_that_outlives_it() {
    let served = served().await;
    let login = served.user("zoe", &[]).await;
    let make = async |with: &str, lifetime_s: Option<u64>| {
        let mut body = json!({ "kind": "bot", "scope": "all" });
        if let Some(lifetime_s) = lifetime_s {
            body["lifetime_s"] = lifetime_s.into();
        }
        let (code, made) = served.ask(with, "POST", "/v1/tokens", Some(body)).await;
        (code, made)
    };
    let secret = |made: &Value| made["secret"].as_str().unwrap_or_default().to_owned();
    let id = |made: &Value| made["object"]["spec"]["id"].as_str().unwrap().to_owned();
    let ends = |made: &Value| made["object"]["spec"]["expires_at"].as_str().unwrap().to_owned();
    let (code, bot) = make(&login, Some(3600)).await;
    assert_eq!(code, 201);
    assert_eq!(make(&secret(&bot), Some(365 * 24 * 3600)).await.0, 403);
    let (code, child) = make(&secret(&bot), None).await;
    assert_eq!(code, 201, "{child}");
    assert!(ends(&child) <= ends(&bot), "{child} {bot}");
    let (_, grandchild) = make(&secret(&child), Some(60)).await;
    let (_, other) = make(&login, None).await;
    // With it go those that were made with it, and no others.
    assert_eq!(served.ask(&login, "DELETE", &format!("/v1/tokens/{}", id(&bot)), None).await.0, 200);
    let left: Vec<_> = served.control.objects.list::<Token>().await.unwrap();
    let left: Vec<_> = left.iter().map(|token| token.spec.id.to_string()).collect();
    assert!(left.contains(&id(&other)) && left.len() == 2, "{left:?}");
    assert_eq!(served.ask(&secret(&grandchild), "GET", "/v1/self", None).await.0, 401);
    assert_eq!(served.ask(&secret(&other), "GET", "/v1/self", None).await.0, 200);
}

#[tokio::test]
async fn regression_a_deny_of_a_cluster_takes_nothing_of_drovers_management() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let owner = served.user("owner", &[("cluster-owner", Domain::Cluster("c-1".into()))]).await;
    let rule = json!({ "effect": "deny", "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] });
    let role = json!({ "name": "nothing", "rules": [rule] });
    assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(role)).await.0, 201);
    let binding = |name: &str, principal: &str| json!({ "name": name, "principal": principal, "role": "nothing", "domain": { "cluster": "c-1" } });
    let post =
        async |token: &str, body: Value| served.ask(token, "POST", "/v1/rolebindings", Some(body)).await.0;
    assert_eq!(
        post(&owner, binding("to-root", "local:user/root")).await,
        403,
        "an owner denies nobody anything"
    );
    assert_eq!(post(&admin, binding("to-owner", "local:user/owner")).await, 201);
    assert_eq!(
        served.ask(&owner, "DELETE", "/v1/rolebindings/to-owner", None).await.0,
        403,
        "nor frees themselves"
    );
    let (_, mut bound) = served.ask(&owner, "GET", "/v1/rolebindings/to-owner", None).await;
    bound["spec"]["principal"] = "local:user/root".into();
    assert_eq!(served.ask(&owner, "PUT", "/v1/rolebindings/to-owner", Some(bound)).await.0, 403);
    // However it came to be, an administrator sees it, and undoes it.
    bind(&served, "to-root", "local:user/root", "nothing", Domain::Cluster("c-1".into()), None).await;
    for path in ["/v1/rolebindings/to-root", "/v1/clusters/one"] {
        assert_eq!(served.ask(&admin, "GET", path, None).await.0, 200, "{path}");
    }
    let other = json!({ "name": "other", "rules": [{ "effect": "allow", "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] });
    assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(other)).await.0, 201);
    let everywhere = json!({ "principal": "local:group/g", "role": "cluster-viewer", "domain": "global" });
    assert_eq!(post(&admin, everywhere).await, 201);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/rolebindings/to-root", None).await.0, 200);
    // And whoever is in a denied group is not taken out of it by who merely changes users.
    bind(&served, "to-group", "local:group/watched", "nothing", Domain::Cluster("c-1".into()), None).await;
    let mia = manager(&served).await;
    let watched = User {
        principal: "local:user/wes".into(),
        name: "wes".into(),
        display_name: None,
        groups: vec!["local:group/watched".into()],
        disabled: false,
    };
    served.control.objects.create(&watched, None).await.unwrap();
    assert_eq!(change_user(&served, &mia, "wes", |spec| spec["groups"] = json!([])).await, 403);
    assert_eq!(change_user(&served, &admin, "wes", |spec| spec["groups"] = json!([])).await, 200);
}

#[tokio::test]
async fn regression_who_holds_everything_does_not_thereby_act_as_others() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let everything = json!({ "effect": "allow", "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] });
    let role = json!({ "name": "everything", "rules": [everything] });
    assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(role)).await.0, 201);
    let acts =
        json!({ "effect": "allow", "verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"] });
    let role = |name: &str| json!({ "name": name, "rules": [acts] });
    let holder = served.user("holder", &[("everything", Domain::Global)]).await;
    assert_eq!(served.ask(&holder, "POST", "/v1/roles", Some(role("acts"))).await.0, 403);
    assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(role("acts"))).await.0, 201);
    let binding = json!({ "principal": "local:group/g", "role": "acts", "domain": { "cluster": "c-1" } });
    for owner in [holder, served.user("owner", &[("cluster-owner", Domain::Cluster("c-1".into()))]).await] {
        assert_eq!(served.ask(&owner, "POST", "/v1/rolebindings", Some(binding.clone())).await.0, 403);
    }
    // Nor does an own role stand for a template's group in a project.
    for name in ["owner", "member", "viewer"] {
        assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(role(name))).await.0, 422, "{name}");
    }
}

#[tokio::test]
async fn regression_people_of_any_name_are_managed_like_others() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    for (name, path) in [
        ("jörg@ad", "j%C3%B6rg@ad"),
        ("..", "%2E%2E"),
        ("zoe b", "zoe%20b"),
        ("a%;^{}|", "a%25%3B%5E%7B%7D%7C"),
        ("%61dmin", "%2561dmin"),
        ("a?b#c", "a%3Fb%23c"),
    ] {
        let token = served.user(name, &[]).await;
        let (_, all) = served.ask(&admin, "GET", "/v1/users", None).await;
        assert!(all["items"].as_array().unwrap().iter().any(|user| user["spec"]["name"] == name), "{name}");
        let path = format!("/v1/users/{path}");
        assert_eq!(served.ask(&admin, "GET", &path, None).await.1["spec"]["name"], name);
        let (_, mut user) = served.ask(&admin, "GET", &path, None).await;
        user["spec"]["disabled"] = true.into();
        assert_eq!(served.ask(&admin, "PUT", &path, Some(user)).await.0, 200, "{name}");
        assert_eq!(served.ask(&token, "GET", "/v1/self", None).await.0, 401, "{name}");
        assert_eq!(served.ask(&admin, "DELETE", &format!("{path}/tokens"), None).await.0, 200, "{name}");
        assert_eq!(served.ask(&admin, "DELETE", &path, None).await.0, 200, "{name}");
    }
    // A rule for one name is for that name.
    let names = ["admin"];
    let rule = json!({ "effect": "allow", "verbs": ["get"], "apiGroups": ["drover.io"], "resources": ["users"], "resourceNames": names });
    let role: Role = serde_json::from_value(json!({ "name": "sees-admin", "rules": [rule] })).unwrap();
    served.control.objects.create(&role, None).await.unwrap();
    served.user("admin", &[]).await;
    served.user("%61dmin", &[]).await;
    let seer = served.user("seer", &[("sees-admin", Domain::Global)]).await;
    assert_eq!(served.ask(&seer, "GET", "/v1/users/admin", None).await.0, 200);
    assert_eq!(served.ask(&seer, "GET", "/v1/users/%2561dmin", None).await.0, 404);
}

#[tokio::test]
async fn regression_who_holds_an_administrators_rules_is_none_and_makes_none() {
    let served = served().await;
    served.user("root", &[("admin", Domain::Global)]).await;
    let all = |kind: Value| {
        let mut rule = json!({ "effect": "allow", "verbs": ["*"] });
        rule.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        rule
    };
    let rules =
        [all(json!({ "apiGroups": ["*"], "resources": ["*"] })), all(json!({ "nonResourceURLs": ["*"] }))];
    let role: Role = serde_json::from_value(json!({ "name": "everything", "rules": rules })).unwrap();
    served.control.objects.create(&role, None).await.unwrap();
    let holder = served.user("holder", &[("everything", Domain::Global)]).await;
    let ask =
        async |method: &str, path: &str, body: Value| served.ask(&holder, method, path, Some(body)).await.0;
    let admin = json!({ "principal": "local:user/holder", "role": "admin", "domain": "global" });
    assert_eq!(ask("POST", "/v1/rolebindings", admin).await, 403);
    assert_eq!(ask("POST", "/v1/users/root/password", json!({ "password": "another horse" })).await, 403);
    assert_eq!(
        ask("POST", "/v1/tokens", json!({ "kind": "bot", "scope": "all", "user": "root" })).await,
        403
    );
    assert_eq!(ask("POST", "/v1/registrationtokens", json!({ "process": "gateway/mine" })).await, 403);
    // What they do hold they give.
    let own = json!({ "principal": "local:group/g", "role": "everything", "domain": "global" });
    assert_eq!(ask("POST", "/v1/rolebindings", own).await, 201);
}

#[tokio::test]
async fn regression_no_deny_is_lost_by_whom_it_binds() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let rule = json!({ "effect": "deny", "verbs": ["*"], "apiGroups": [""], "resources": ["secrets"] });
    let role: Role = serde_json::from_value(json!({ "name": "no-secrets", "rules": [rule] })).unwrap();
    served.control.objects.create(&role, None).await.unwrap();
    let one = || Domain::Cluster("c-1".into());
    let in_web = Domain::Project { cluster: "c-1".into(), project: "web".into() };
    let mia = manager(&served).await;
    bind(&served, "mias", "local:user/mia", "no-secrets", one(), None).await;
    let owner = served.user("owner", &[("cluster-owner", one())]).await;
    let (_, mut cluster) = served.ask(&owner, "GET", "/v1/clusters/one", None).await;
    cluster["spec"]["projects"] = json!({ "shop": "web" });
    let put = async |token: &str, object: &Value| {
        served.ask(token, "PUT", "/v1/clusters/one", Some(object.clone())).await.0
    };
    assert_eq!(put(&owner, &cluster).await, 200, "nothing is denied in a project yet");
    bind(&served, "owners", "local:user/owner", "no-secrets", in_web.clone(), None).await;

    // In the role, by the binding, with the user, and by what the project has.
    let (_, mut role) = served.ask(&mia, "GET", "/v1/roles/no-secrets", None).await;
    role["spec"]["rules"] = json!([]);
    assert_eq!(served.ask(&mia, "PUT", "/v1/roles/no-secrets", Some(role.clone())).await.0, 403);
    for path in ["/v1/rolebindings/mias", "/v1/users/mia"] {
        assert_eq!(served.ask(&mia, "DELETE", path, None).await.0, 403, "{path}");
    }
    let (_, mut cluster) = served.ask(&owner, "GET", "/v1/clusters/one", None).await;
    cluster["spec"]["projects"] = json!({});
    assert_eq!(put(&owner, &cluster).await, 403);
    let system = {
        let mut system = cluster.clone();
        system["spec"]["projects"] = json!({ "kube-system": "web" });
        system
    };
    assert_eq!(put(&admin, &system).await, 422);
    assert_eq!(put(&admin, &cluster).await, 200);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/rolebindings/mias", None).await.0, 200);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/users/mia", None).await.0, 200);
    assert_eq!(served.ask(&admin, "PUT", "/v1/roles/no-secrets", Some(role)).await.0, 200);
}

#[tokio::test]
async fn regression_an_owner_for_an_hour_lets_no_agent_in_for_a_month() {
    let served = served().await;
    let owner = served.user("owner", &[]).await;
    bind(&served, "owners", "local:user/owner", "cluster-owner", Domain::Cluster("c-1".into()), Some(3600))
        .await;
    for (lifetime_s, expected) in [(30 * 24 * 3600, 403), (1800, 201)] {
        let agent = json!({ "process": "cluster/c-1/agent", "lifetime_s": lifetime_s });
        assert_eq!(served.ask(&owner, "POST", "/v1/registrationtokens", Some(agent)).await.0, expected);
    }
    // Nor who may merely make registration tokens.
    let mia = manager(&served).await;
    let agent = json!({ "process": "cluster/c-1/agent" });
    assert_eq!(served.ask(&mia, "POST", "/v1/registrationtokens", Some(agent)).await.0, 403);
}
