//! Who may do what by the API, in one table; and what a write leaves behind.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::{Method, Request};
use drover_api::kinds::Domain;
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt;

use super::tokens::Lasts;
use super::*;
use crate::attempts::Attempts;
use crate::authority::Authority;
use crate::devices::Devices;
use crate::enrolment::Enroller;
use crate::gateways::Gateways;
use crate::group_names::GroupNames;
use crate::issuers::Issuers;
use crate::objects::{Objects, UserSecret};
use crate::passwords::Passwords;
use crate::routes::{Door, Logins};
use crate::seal::Seal;
use crate::signer::Signers;
use crate::snapshots::Snapshots;
use crate::store::Sqlite;
use crate::uses::Uses;

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Served {
    pub(crate) control: Arc<Control>,
    _follow: AbortOnDropHandle<()>,
    _folder: tempfile::TempDir,
}

pub(crate) async fn served() -> Served {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
    let objects = Objects::new(store.clone(), Seal::new(&[7; 32]));
    let authority = Arc::new(Authority::load(&objects, HOUR).await.unwrap());
    let signers = Signers::new(objects.clone(), authority.clone());
    let snapshots = Arc::new(Snapshots::load(&*store, signers, HOUR, Timestamp::now()).await.unwrap());
    let uses = Arc::new(Uses::load(objects.clone()).await.unwrap());
    let group_names = GroupNames::load(objects.clone()).await.unwrap();
    let gateways =
        Gateways::load(objects.clone(), uses.clone(), HOUR, CancellationToken::new()).await.unwrap();
    let control = Arc::new(Control {
        enrolment: Enroller::new(objects.clone(), authority).unwrap(),
        objects,
        passwords: Passwords::new(),
        attempts: Attempts::default(),
        devices: Devices::default(),
        issuers: Issuers::default(),
        uses,
        group_names: Arc::new(group_names),
        logins: Logins { lifetime: HOUR * 12, session: HOUR * 24 * 7 },
        renewals: crate::renewals::Renewals::default(),
        console: Some("https://console.test:8443".parse().unwrap()),
        door: Some(Door { url: "https://drover.test".parse().unwrap(), ca: Some("the authority".into()) }),
        writes: Mutex::new(()),
        snapshots: snapshots.clone(),
        gateways: Arc::new(gateways),
        calls: TaskTracker::new(),
    });
    let follow = async move { snapshots.follow(&*store, CancellationToken::new()).await };
    let served = Served { control, _follow: AbortOnDropHandle::new(tokio::spawn(follow)), _folder: folder };
    served
        .put(&Cluster {
            name: "one".into(),
            id: "c-1".into(),
            projects: Default::default(),
            groups_listed: None,
        })
        .await;
    served
        .put(&Cluster {
            name: "two".into(),
            id: "c-2".into(),
            projects: Default::default(),
            groups_listed: None,
        })
        .await;
    served
}

/// A token of a user's.
pub(crate) async fn token(
    control: &Control,
    user: &User,
    kind: drover_api::kinds::TokenKind,
    scope: drover_api::kinds::TokenScope,
) -> drover_api::rest::Created<Token> {
    let now = SystemTime::now();
    let login = tokens::log_in(control, user, tokens::Login::New, now).await.ok().unwrap().object;
    let made = tokens::make(control, &login.spec, user, kind, scope, Lasts::default(), now).await;
    control.objects.delete::<Token>(login.spec.id.as_str(), login.metadata.revision).await.unwrap();
    made.ok().unwrap()
}

impl Served {
    async fn put<K: Kept>(&self, spec: &K) {
        self.control.objects.create(spec, None).await.unwrap();
    }

    /// A user who holds roles; and a token of theirs.
    pub(crate) async fn user(&self, name: &str, roles: &[(&str, Domain)]) -> String {
        let principal = format!("local:user/{name}");
        let user = User {
            principal: principal.clone(),
            name: name.into(),
            display_name: None,
            groups: vec![],
            disabled: false,
        };
        let secret = UserSecret { password: "none".into(), former: vec![] };
        self.control.objects.create(&user, Some(&secret)).await.unwrap();
        for (role, domain) in roles {
            let name = format!("{name}-{role}-{}", drover_api::token::random_id());
            let (role, domain) = ((*role).into(), domain.clone());
            self.put(&Binding { name, principal: principal.clone(), role, domain, expires_at: None }).await;
        }
        // Of a login of now, by which they may do all that their roles allow.
        let made = tokens::log_in(&self.control, &user, tokens::Login::New, SystemTime::now()).await;
        made.ok().unwrap().secret.unwrap()
    }

    pub(crate) async fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let router = router().with_state(self.control.clone());
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

fn cluster(id: &str) -> Domain {
    Domain::Cluster(id.into())
}

/// What makes an object of each kind: in cluster one where it is in a cluster.
fn creations() -> [(&'static str, Value); 8] {
    let binding =
        |role: &str, domain: Value| json!({ "principal": "local:group/g", "role": role, "domain": domain });
    [
        ("users", json!({ "name": "eve", "password": "correct horse" })),
        ("clusters", json!({ "name": "three" })),
        (
            "roles",
            json!({ "name": "pod-reader", "rules": [{ "effect": "allow", "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] }),
        ),
        ("rolebindings", binding("cluster-viewer", json!({ "cluster": "c-1" }))),
        ("rolebindings", binding("admin", json!("global"))),
        ("registrationtokens", json!({ "process": "cluster/c-1/agent" })),
        ("registrationtokens", json!({ "process": "gateway/g-2" })),
        ("tokens", json!({ "kind": "bot", "scope": "all", "user": "nobody-special" })),
    ]
}

#[tokio::test]
async fn every_role_may_make_what_the_table_says() {
    let served = served().await;
    served.user("nobody-special", &[]).await;
    let global = Domain::Global;
    // In the order of `creations`: u(ser) c(luster) r(ole) b(inding) B(inding everywhere) a(gent) g(ateway) t(oken)
    let project = Domain::Project { cluster: "c-1".into(), project: "web".into() };
    for (name, roles, may) in [
        ("admin", vec![("admin", global.clone())], "ucrbBagt"),
        ("owner-one", vec![("cluster-owner", cluster("c-1"))], "ba"),
        ("owner-two", vec![("cluster-owner", cluster("c-2"))], ""),
        ("owner-all", vec![("cluster-owner", global.clone())], "ba"),
        ("member-one", vec![("cluster-member", cluster("c-1"))], ""),
        ("viewer-one", vec![("cluster-viewer", cluster("c-1"))], ""),
        ("viewer-all", vec![("cluster-viewer", global.clone())], ""),
        ("project-owner", vec![("project-owner", project)], ""),
        ("user", vec![("user", global)], ""),
        ("none", vec![], ""),
    ] {
        let token = served.user(name, &roles).await;
        for ((plural, body), letter) in creations().into_iter().zip("ucrbBagt".chars()) {
            let (code, answer) =
                served.ask(&token, "POST", &format!("/v1/{plural}"), Some(body.clone())).await;
            let expected = if may.contains(letter) { 201 } else { 403 };
            assert_eq!(code, expected, "{name} makes {plural} of {body}: {answer}");
        }
    }
}

#[tokio::test]
async fn every_role_sees_changes_and_deletes_what_the_table_says() {
    let served = served().await;
    served.user("zoe", &[("cluster-viewer", cluster("c-1"))]).await;
    let role = json!({ "name": "r", "rules": [{ "effect": "allow", "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] });
    served.put(&serde_json::from_value::<Role>(role).unwrap()).await;
    let binding = |name: &str, domain| Binding {
        name: name.into(),
        principal: "local:user/zoe".into(),
        role: "r".into(),
        domain,
        expires_at: None,
    };
    served.put(&binding("in-one", cluster("c-1"))).await;
    served.put(&binding("everywhere", Domain::Global)).await;
    let zoes = served.control.objects.list::<Token>().await.unwrap()[0].spec.id.clone();
    let paths = [
        "users/zoe".to_owned(),
        "clusters/one".to_owned(),
        "roles/r".to_owned(),
        "rolebindings/in-one".to_owned(),
        "rolebindings/everywhere".to_owned(),
        format!("tokens/{}", zoes.as_str()),
    ];
    // Of each path: - is not seen, r is read, w is written as well.
    for (name, roles, may) in [
        ("owner-one", vec![("cluster-owner", cluster("c-1"))], "-w-w--"),
        ("owner-two", vec![("cluster-owner", cluster("c-2"))], "------"),
        ("owner-all", vec![("cluster-owner", Domain::Global)], "-w-w--"),
        ("member-one", vec![("cluster-member", cluster("c-1"))], "-r----"),
        ("viewer-one", vec![("cluster-viewer", cluster("c-1"))], "-r----"),
        ("none", vec![], "------"),
        ("admin", vec![("admin", Domain::Global)], "wwwwww"),
    ] {
        let token = served.user(name, &roles).await;
        for (path, may) in paths.iter().zip(may.chars()) {
            let path = format!("/v1/{path}");
            let (code, object) = served.ask(&token, "GET", &path, None).await;
            assert_eq!(code, if may == '-' { 404 } else { 200 }, "{name} reads {path}: {object}");
            let put = if may == '-' {
                json!({ "metadata": { "revision": 1, "created_at": "2026-11-25T00:00:00Z" }, "spec": {} })
            } else {
                object
            };
            let (code, answer) = served.ask(&token, "PUT", &path, Some(put)).await;
            let expected: &[u16] = match may {
                '-' => &[404, 422],
                'r' => &[403],
                // Tokens do not change, whoever asks.
                _ => &[200, 405],
            };
            assert!(expected.contains(&code), "{name} writes {path}: {code} {answer}");
            if may != 'w' {
                let (code, answer) = served.ask(&token, "DELETE", &path, None).await;
                assert_eq!(code, if may == '-' { 404 } else { 403 }, "{name} deletes {path}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn nobody_without_a_good_token_is_served_anything() {
    let served = served().await;
    let token = served.user("zoe", &[("admin", Domain::Global)]).await;
    let stranger = drover_api::token::generate();
    let mut wrong = token.clone();
    wrong.replace_range(20..21, if &token[20..21] == "a" { "b" } else { "a" });
    for credential in ["", "drv_", "garbage", stranger.secret.expose(), &wrong] {
        for (method, path) in [
            ("GET", "users"),
            ("POST", "users"),
            ("GET", "self"),
            ("PUT", "users/zoe"),
            ("DELETE", "users/zoe"),
        ] {
            let (code, _) = served.ask(credential, method, &format!("/v1/{path}"), Some(json!({}))).await;
            assert_eq!(code, 401, "{method} {path} with {credential:?}");
        }
    }
    let (code, made) = served
        .ask(&token, "POST", "/v1/tokens", Some(json!({ "kind": "bot", "scope": { "clusters": ["c-1"] } })))
        .await;
    assert_eq!(code, 201);
    let scoped = made["secret"].as_str().unwrap();
    assert_eq!(served.ask(scoped, "GET", "/v1/users", None).await.0, 403);

    let (_, zoe) = served.ask(&token, "GET", "/v1/users/zoe", None).await;
    let mut disabled = zoe.clone();
    disabled["spec"]["disabled"] = true.into();
    assert_eq!(served.ask(&token, "PUT", "/v1/users/zoe", Some(disabled)).await.0, 200);
    assert_eq!(served.ask(&token, "GET", "/v1/users", None).await.0, 401);
}

#[tokio::test]
async fn a_write_leaves_nothing_that_names_what_is_gone() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let zoe =
        served.user("zoe", &[("cluster-viewer", cluster("c-1")), ("cluster-viewer", cluster("c-2"))]).await;
    for scope in [json!({ "clusters": ["c-1"] }), json!({ "clusters": ["c-1", "c-2"] })] {
        assert_eq!(
            served.ask(&zoe, "POST", "/v1/tokens", Some(json!({ "kind": "bot", "scope": scope }))).await.0,
            201
        );
    }
    served
        .ask(&admin, "POST", "/v1/registrationtokens", Some(json!({ "process": "cluster/c-1/agent" })))
        .await;
    assert_eq!(served.ask(&admin, "DELETE", "/v1/clusters/one", None).await.0, 200);
    let (_, tokens) = served.ask(&zoe, "GET", "/v1/tokens", None).await;
    let scopes: Vec<_> =
        tokens["items"].as_array().unwrap().iter().map(|token| token["spec"]["scope"].clone()).collect();
    assert_eq!(scopes.len(), 2, "{scopes:?}");
    assert!(scopes.contains(&json!({ "clusters": ["c-2"] })), "{scopes:?}");
    assert_eq!(served.ask(&admin, "GET", "/v1/registrationtokens", None).await.1["items"], json!([]));

    let again = json!({ "name": "zoe", "password": "correct horse" });
    assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(again.clone())).await.0, 409);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/users/zoe", None).await.0, 200);
    let (code, answer) = served.ask(&admin, "POST", "/v1/users", Some(again)).await;
    assert_eq!(
        (code, &answer["reason"]),
        (409, &json!("AlreadyExists")),
        "a name is not given twice: {answer}"
    );
    assert_eq!(served.ask(&zoe, "GET", "/v1/self", None).await.0, 401);
    let (_, bindings) = served.ask(&admin, "GET", "/v1/rolebindings", None).await;
    assert_eq!(bindings["items"].as_array().unwrap().len(), 1, "{bindings}");
    assert_eq!(served.control.snapshots.document().clusters.len(), 1);
}

#[tokio::test]
async fn what_has_ended_is_swept_and_what_has_not_stays() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    for lifetime_s in [3600, 3 * 24 * 3600] {
        let token = json!({ "kind": "bot", "scope": "all", "lifetime_s": lifetime_s });
        assert_eq!(served.ask(&admin, "POST", "/v1/tokens", Some(token)).await.0, 201);
        let registration = json!({ "process": "gateway/g", "lifetime_s": lifetime_s });
        assert_eq!(served.ask(&admin, "POST", "/v1/registrationtokens", Some(registration)).await.0, 201);
    }
    let in_two_days = Timestamp::try_from(SystemTime::now() + 48 * HOUR).unwrap();
    assert_eq!(crate::sweep::sweep(&served.control, Timestamp::now()).await.unwrap(), 0);
    assert_eq!(crate::sweep::sweep(&served.control, in_two_days).await.unwrap(), 3);
    // The admin's login and the one that lasts.
    assert_eq!(served.control.objects.list::<Token>().await.unwrap().len(), 1);
    assert_eq!(served.control.objects.list::<RegistrationToken>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_login_gives_a_token_and_too_many_failures_a_wait() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let zoe = json!({ "name": "zoe", "password": "correct horse" });
    assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(zoe.clone())).await.0, 201);
    let (code, login) = served.ask("", "POST", "/v1/login", Some(zoe.clone())).await;
    assert_eq!((code, &login["object"]["spec"]["kind"]), (201, &json!("login")));
    let token = login["secret"].as_str().unwrap();
    assert_eq!(served.ask(token, "GET", "/v1/self", None).await.1["user"]["spec"]["name"], "zoe");
    for name in ["zoe", "nobody"] {
        let wrong = json!({ "name": name, "password": "wrong horse!" });
        let (code, first) = served.ask("", "POST", "/v1/login", Some(wrong.clone())).await;
        assert_eq!((code, &first["reason"]), (401, &json!("Unauthorized")));
        let mut last = first;
        while last["code"] == 401 {
            last = served.ask("", "POST", "/v1/login", Some(wrong.clone())).await.1;
        }
        assert_eq!(last["code"], 429, "{last}");
    }
    assert_eq!(served.ask("", "POST", "/v1/login", Some(zoe)).await.0, 429);
    // Who is in stays in.
    assert_eq!(served.ask(token, "GET", "/v1/self", None).await.0, 200);
}

#[tokio::test]
async fn nobody_is_decided_about_by_less_than_what_was_written() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    assert_eq!(served.ask(&admin, "GET", "/v1/self", None).await.0, 200);
    // Nothing is published any more.
    served._follow.abort();
    served.user("zoe", &[]).await;
    tokio::time::pause();
    for (method, path) in [("GET", "/v1/self"), ("DELETE", "/v1/users/zoe")] {
        let (code, refused) = served.ask(&admin, method, path, None).await;
        assert_eq!((code, &refused["reason"]), (503, &json!("ServiceUnavailable")), "{refused}");
    }
}

#[tokio::test]
async fn regression_a_name_of_any_length_is_refused_before_it_is_counted_or_logged() {
    let served = served().await;
    let long = "x".repeat(drover_api::texts::USER_NAME_BYTES_MAX + 1);
    for login in
        [json!({ "name": long, "password": "p" }), json!({ "name": "p", "provider": long, "password": "p" })]
    {
        let (code, refused) = served.ask("", "POST", "/v1/login", Some(login)).await;
        assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("name")), "{refused}");
        assert!(refused.to_string().len() < 1024, "{refused}");
    }
}

#[tokio::test]
async fn bad_input_is_answered_with_the_field_that_is_wrong() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let binding = |principal: &str, role: &str, domain: Value| json!({ "principal": principal, "role": role, "domain": domain });
    for (plural, body, field) in [
        ("users", json!({ "name": "" }), "spec.name"),
        ("users", json!({ "name": "system:admin" }), "spec.name"),
        ("users", json!({ "name": "a/b" }), "spec.name"),
        ("users", json!({ "name": "eve", "password": "short" }), "password"),
        ("users", json!({ "name": "eve", "groups": ["system:masters"] }), "spec.groups"),
        ("users", json!({ "name": "eve", "groups": ["ldap:group/x"] }), "spec.groups"),
        ("clusters", json!({ "name": "One" }), "name"),
        ("clusters", json!({ "name": "c-1" }), "name"),
        ("tokens", json!({ "kind": "login", "scope": "all" }), "kind"),
        ("tokens", json!({ "kind": "bot", "scope": { "clusters": [] } }), "scope.clusters"),
        ("tokens", json!({ "kind": "bot", "scope": { "clusters": ["c-9"] } }), "scope.clusters"),
        ("tokens", json!({ "kind": "bot", "scope": "all", "lifetime_s": 0 }), "lifetime_s"),
        ("tokens", json!({ "kind": "bot", "scope": "all", "lifetime_s": u64::MAX }), "lifetime_s"),
        ("tokens", json!({ "kind": "bot", "scope": "all", "user": "none" }), "user"),
        ("registrationtokens", json!({ "process": "cluster/c-9/agent" }), "process"),
        ("registrationtokens", json!({ "process": "gateway/g", "lifetime_s": 0 }), "lifetime_s"),
        ("rolebindings", binding("local:user/none", "admin", json!("global")), "principal"),
        ("rolebindings", binding("nobody", "admin", json!("global")), "principal"),
        ("rolebindings", binding("local:group/g", "none", json!("global")), "role"),
        ("rolebindings", binding("local:group/g", "admin", json!({ "cluster": "c-9" })), "domain"),
        ("roles", json!({ "name": "admin", "rules": [] }), "spec"),
        ("roles", json!({ "name": "a/b", "rules": [] }), "name"),
    ] {
        let (code, answer) = served.ask(&admin, "POST", &format!("/v1/{plural}"), Some(body.clone())).await;
        assert_eq!(
            (code, &answer["details"]["causes"][0]["field"]),
            (422, &json!(field)),
            "{body}: {answer}"
        );
    }
    for (plural, body) in [
        ("users", json!({ "name": "eve", "admin": true })),
        ("clusters", json!({ "name": 7 })),
        ("registrationtokens", json!({ "process": "machine/m" })),
        ("tokens", json!([])),
    ] {
        let (code, answer) = served.ask(&admin, "POST", &format!("/v1/{plural}"), Some(body.clone())).await;
        assert_eq!((code, &answer["kind"]), (422, &json!("Status")), "{body}: {answer}");
    }
    assert_eq!(served.ask(&admin, "POST", "/v1/clusters", Some(json!({ "name": "one" }))).await.0, 409);
    let (_, mut one) = served.ask(&admin, "GET", "/v1/clusters/one", None).await;
    one["metadata"]["revision"] = 1.into();
    let (code, answer) = served.ask(&admin, "PUT", "/v1/clusters/one", Some(one)).await;
    assert_eq!((code, &answer["reason"]), (409, &json!("Conflict")), "{answer}");
    let many: Vec<_> = (0..=256).map(|number| format!("local:group/g{number}")).collect();
    for groups in [json!(["nobody"]), json!(many)] {
        let (_, mut one) = served.ask(&admin, "GET", "/v1/clusters/one", None).await;
        one["spec"]["groups_listed"] = groups;
        let (code, answer) = served.ask(&admin, "PUT", "/v1/clusters/one", Some(one)).await;
        let field = &answer["details"]["causes"][0]["field"];
        assert_eq!((code, field), (422, &json!("spec.groups_listed")), "{answer}");
    }
}

#[tokio::test]
async fn all_tokens_of_a_user_end_at_once_by_themselves_or_by_a_rule() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let (zoe, yan) = (served.user("zoe", &[]).await, served.user("yan", &[]).await);
    let bot = json!({ "kind": "bot", "scope": "all", "idle_s": 7200 });
    assert_eq!(served.ask(&zoe, "POST", "/v1/tokens", Some(bot)).await.0, 201);
    let short = json!({ "kind": "bot", "scope": "all", "idle_s": 60 });
    let (code, refused) = served.ask(&zoe, "POST", "/v1/tokens", Some(short)).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (422, &json!("idle_s")), "{refused}");
    // Of another, whom one does not even see.
    assert_eq!(served.ask(&yan, "DELETE", "/v1/users/zoe/tokens", None).await.0, 404);
    let uses = served.ask(&zoe, "GET", "/v1/tokenuses", None).await.1;
    assert_eq!(uses["last_used_at"].as_object().unwrap().len(), 1, "the bot's is not used yet: {uses}");
    let (code, revoked) = served.ask(&zoe, "DELETE", "/v1/users/zoe/tokens", None).await;
    assert_eq!((code, revoked["tokens"].as_array().unwrap().len()), (200, 2), "{revoked}");
    assert_eq!(served.ask(&zoe, "GET", "/v1/self", None).await.0, 401);
    assert_eq!(served.ask(&yan, "GET", "/v1/self", None).await.0, 200);
    assert_eq!(served.ask(&admin, "DELETE", "/v1/users/yan/tokens", None).await.0, 200);
    assert_eq!(served.ask(&yan, "GET", "/v1/self", None).await.0, 401);
}

#[tokio::test]
async fn guesses_make_their_own_client_wait_and_only_a_gateway_says_which_one_it_is() {
    let served = served().await;
    served.user("zoe", &[]).await;
    let login = async |client: &str, by_gateway: bool| {
        let request = Request::post("/v1/login").header("content-type", "application/json");
        let body = Body::from(json!({ "name": "zoe", "password": "guessed" }).to_string());
        let mut request = request.header("drover-client", client).body(body).unwrap();
        let peer = by_gateway.then(|| drover_api::kinds::Holder::of_path("gateway/g-1/e1").unwrap());
        request.extensions_mut().insert(crate::listener::Peer(peer));
        router().with_state(served.control.clone()).oneshot(request).await.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        assert_eq!(login("192.0.2.1", true).await, 401);
    }
    assert_eq!(login("192.0.2.1", true).await, 429);
    assert_eq!(login("192.0.2.2", true).await, 401, "zoe herself, elsewhere");
    // Whoever is no gateway may say what they like, and is one client.
    for number in 0..10 {
        assert_eq!(login(&format!("198.51.100.{number}"), false).await, 401);
    }
    assert_eq!(login("198.51.100.99", false).await, 429);
}
