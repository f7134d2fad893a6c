//! Who decides, decides now: each request here was sound when it came, and is not when its turn to write comes.

use drover_api::kinds::{Binding, Domain, Token, User};
use futures_util::future::{join, join_all, join3};
use serde_json::{Value, json};

use super::tests::{Served, served};
use crate::objects::{Stored, UserName, UserSecret};
use crate::people;
use crate::people::tests::provider;
use crate::providers::{Known, Person};
use crate::rest::login::come_back;

const REQUESTS: usize = 24;

type Asked<'a> = (&'a str, &'a str, Option<Value>);

/// Holds the lock of all writes until one request and many others behind it wait for it; the code of the one, and
/// those of the others.
async fn behind(served: &Served, first: (&str, Asked<'_>), then: (&str, Asked<'_>)) -> (u16, Vec<u16>) {
    let ask = async |(token, (method, path, body)): (&str, Asked<'_>)| {
        served.ask(token, method, path, body).await.0
    };
    let held = served.control.writes.lock().await;
    let release = async {
        // The lock goes to who asked for it first, and all have come as far as they can.
        for _ in 0..REQUESTS {
            tokio::task::yield_now().await;
        }
        drop(held);
    };
    let others = join_all((0..REQUESTS).map(|_| ask(then.clone())));
    let (first, others, ()) = join3(ask(first), others, release).await;
    (first, others)
}

async fn tokens_of(served: &Served, user: &str) -> usize {
    let tokens = served.control.objects.list::<Token>().await.unwrap();
    tokens.iter().filter(|token| token.spec.user == format!("local:user/{user}")).count()
}

#[tokio::test]
async fn regression_nobody_writes_behind_what_took_their_right_away() {
    let global = Domain::Global;
    let token = || json!({ "kind": "bot", "scope": "all", "lifetime_s": 365 * 24 * 3600 });
    let binding = || json!({ "principal": "local:group/mine", "role": "admin", "domain": "global" });
    type Case<'a> = (&'a str, (&'a str, &'a str), Asked<'a>, u16);
    let cases: [Case<'_>; 7] = [
        (
            "deleted, and makes tokens",
            ("DELETE", "/v1/users/zoe"),
            ("POST", "/v1/tokens", Some(token())),
            401,
        ),
        (
            "revoked, and makes tokens",
            ("DELETE", "/v1/users/zoe/tokens"),
            ("POST", "/v1/tokens", Some(token())),
            401,
        ),
        (
            "not bound any more, and binds",
            ("DELETE", "/v1/rolebindings/zoes"),
            ("POST", "/v1/rolebindings", Some(binding())),
            403,
        ),
        (
            "not bound any more, and makes a token of another's",
            ("DELETE", "/v1/rolebindings/zoes"),
            ("POST", "/v1/tokens", Some(json!({ "kind": "bot", "scope": "all", "user": "root" }))),
            403,
        ),
        (
            "not bound any more, and deletes",
            ("DELETE", "/v1/rolebindings/zoes"),
            ("DELETE", "/v1/users/root", None),
            404,
        ),
        (
            "not bound any more, and ends others' tokens",
            ("DELETE", "/v1/rolebindings/zoes"),
            ("DELETE", "/v1/users/root/tokens", None),
            404,
        ),
        (
            "revoked, and imports a cluster",
            ("DELETE", "/v1/users/zoe/tokens"),
            ("POST", "/v1/clusters", Some(json!({ "name": "three" }))),
            401,
        ),
    ];
    for (what, (method, path), then, expected) in cases {
        let served = served().await;
        let admin = served.user("root", &[("admin", global.clone())]).await;
        let zoe = served.user("zoe", &[]).await;
        let zoes = Binding {
            name: "zoes".into(),
            principal: "local:user/zoe".into(),
            role: "admin".into(),
            domain: global.clone(),
            expires_at: None,
        };
        served.control.objects.create(&zoes, None).await.unwrap();
        let (first, others) = behind(&served, (&admin, (method, path, None)), (&zoe, then)).await;
        assert_eq!((first, others), (200, vec![expected; REQUESTS]), "{what}");
        let left = if path.contains("users") { 0 } else { 1 };
        assert_eq!(tokens_of(&served, "zoe").await, left, "{what}");
        assert_eq!(served.ask(&admin, "GET", "/v1/self", None).await.0, 200, "{what}");
        assert_eq!(served.control.snapshots.state().aside().summary(), None, "{what}");
    }
}

#[tokio::test]
async fn regression_a_login_that_runs_while_its_user_goes_or_gets_another_password_ends_in_nothing() {
    let served = served().await;
    let admin = served.user("root", &[("admin", Domain::Global)]).await;
    let control = &served.control;
    type Change = fn(&mut User, &mut UserSecret);
    let changes: [(&str, Option<Change>); 3] = [
        ("another password", Some(|_, secret| secret.password = "$argon2id$of-another".into())),
        ("disabled", Some(|user, _| user.disabled = true)),
        ("deleted", None),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let name = format!("zoe-{number}");
        let user = json!({ "name": name, "password": "correct horse" });
        assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(user.clone())).await.0, 201);
        let held = control.begin_write().await.unwrap();
        let changes = async {
            // The password is compared, and found to be right; then the login waits for the lock.
            while control.passwords.is_idle() {
                tokio::task::yield_now().await;
            }
            while !control.passwords.is_idle() {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
            let Stored { object, secret } = control.objects.get::<User>(&name).await.unwrap().unwrap();
            let (mut spec, mut secret) = (object.spec, secret.unwrap());
            match change {
                Some(change) => {
                    change(&mut spec, &mut secret);
                    control.objects.update(object.metadata.revision, &spec, Some(&secret)).await.unwrap();
                }
                None => drop(control.objects.delete::<User>(&name, object.metadata.revision).await.unwrap()),
            }
            drop(held);
        };
        let ((code, _), ()) = join(served.ask("", "POST", "/v1/login", Some(user)), changes).await;
        assert_eq!(code, 401, "{what}");
    }
    let logins = control.objects.list::<Token>().await.unwrap();
    assert!(logins.iter().all(|token| token.spec.user == "local:user/root"), "{logins:?}");
}

#[tokio::test]
async fn regression_two_first_logins_of_one_person_make_one_user() {
    let served = served().await;
    let control = &served.control;
    let provider = provider(drover_api::kinds::Access::Unrestricted, &[]);
    control.objects.create(&provider, None).await.unwrap();
    let log_in = async |began| {
        let person =
            Person { id: "1".into(), login: "zoe".into(), display_name: None, groups: Default::default() };
        come_back(control, &provider, Known { person, grant: None }, began).await
    };
    let began = control.written();
    let made = join_all((0..REQUESTS).map(|_| log_in(began))).await;
    assert!(made.iter().all(Result::is_ok));
    let users: Vec<_> =
        control.objects.list::<User>().await.unwrap().into_iter().map(|user| user.spec.name).collect();
    assert_eq!(users, ["zoe@corp"]);

    // Deleted while one of theirs runs: the one that runs is over, and another brings them back.
    let began = control.written();
    let Stored { object: zoe, .. } = control.objects.get::<User>("zoe@corp").await.unwrap().unwrap();
    people::end_tokens(control, |token| token.user == "corp:user/1").await.unwrap();
    let gone = UserName { name: "zoe@corp".into(), principal: "corp:user/1".into(), disabled: false };
    control.objects.create(&gone, None).await.unwrap();
    control.objects.delete::<User>("zoe@corp", zoe.metadata.revision).await.unwrap();
    assert_eq!(log_in(began).await.err().unwrap().code(), 401);
    let now = control.written();
    assert!(log_in(now).await.is_ok());

    // And a provider that was changed while it was asked says nothing.
    let Stored { object, .. } =
        control.objects.get::<drover_api::kinds::Provider>("corp").await.unwrap().unwrap();
    let disabled = drover_api::kinds::Provider { disabled: true, ..object.spec };
    control.objects.update(object.metadata.revision, &disabled, None).await.unwrap();
    assert_eq!(log_in(control.written()).await.err().unwrap().code(), 401);
}

#[tokio::test]
async fn regression_what_was_granted_and_not_taken_goes_with_what_takes_logins_away() {
    use std::time::Instant;

    use crate::devices::{Asked, Decision};
    let changes = [
        ("DELETE", "/v1/users/zoe/tokens", None),
        ("POST", "/v1/users/zoe/password", Some(json!({ "password": "another horse" }))),
        ("DELETE", "/v1/users/zoe", None),
    ];
    for (method, path, body) in changes {
        let served = served().await;
        let admin = served.user("root", &[("admin", Domain::Global)]).await;
        served.user("zoe", &[]).await;
        let devices = &served.control.devices;
        let begun = devices.begin(None, None, Instant::now()).unwrap();
        devices.decide(&begun.user_code, Decision::Granted("local:user/zoe".into()), Instant::now());
        assert_eq!(served.ask(&admin, method, path, body).await.0, 200, "{path}");
        assert_eq!(devices.ask(&begun.device_code, true, Instant::now()), Asked::Expired, "{path}");
    }
}
