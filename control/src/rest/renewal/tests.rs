use std::time::{Duration, SystemTime};

use drover_api::kinds::{Access, Kind};

use super::*;
use crate::people::tests::provider;
use crate::rest::tests::{Served, served};

const HOUR: Duration = Duration::from_secs(3600);
const RENEWAL: &str = drover_api::rest::RENEWAL;

async fn person(served: &Served, name: &str, principal: &str) -> User {
    let user = User {
        principal: principal.into(),
        name: name.into(),
        display_name: None,
        groups: vec![],
        disabled: false,
    };
    served.control.objects.create(&user, None).await.unwrap();
    user
}

/// A login of some hours ago.
async fn login(served: &Served, user: &User, hours_ago: u32) -> (Token, String) {
    let then = SystemTime::now() - hours_ago * HOUR;
    let made = tokens::log_in(&served.control, user, tokens::Login::New, then).await.ok().unwrap();
    (made.object.spec, made.secret.unwrap())
}

async fn renewed(served: &Served, secret: &str) -> (u16, serde_json::Value) {
    served.ask(secret, "POST", RENEWAL, None).await
}

async fn lasts(served: &Served, secret: &str) -> bool {
    served.ask(secret, "GET", "/v1/self", None).await.0 == 200
}

#[tokio::test]
async fn a_login_is_renewed_in_its_second_half_and_both_tokens_end_together() {
    let served = served().await;
    let user = person(&served, "zoe", "local:user/zoe").await;
    let (_, early) = login(&served, &user, 5).await;
    let (code, refused) = renewed(&served, &early).await;
    assert_eq!(code, 409, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("may be renewed from"), "{refused}");
    assert!(lasts(&served, &early).await);

    let (first, secret) = login(&served, &user, 7).await;
    let (code, next) = renewed(&served, &secret).await;
    assert_eq!(code, 201, "{next}");
    let next_secret = next["secret"].as_str().unwrap().to_owned();
    let next: Token = serde_json::from_value(next["object"]["spec"].clone()).unwrap();
    let (before, after) = (first.session.unwrap(), next.session.clone().unwrap());
    assert_eq!((&after.id, after.ends_at, after.renewed), (&first.id, before.ends_at, false));
    assert!(next.expires_at > first.expires_at);
    assert!(lasts(&served, &secret).await, "programs hold the one before still");
    assert_eq!(renewed(&served, &next_secret).await.0, 409, "the next is young");
    // Whoever logs out holds the newest, and means the login.
    let path = format!("/v1/tokens/{}", next.key());
    assert_eq!(served.ask(&next_secret, "DELETE", &path, None).await.0, 200);
    assert!(!lasts(&served, &next_secret).await && !lasts(&served, &secret).await);
    assert!(lasts(&served, &early).await, "another login");
}

#[tokio::test]
async fn a_copy_that_is_renewed_ends_the_login_everywhere() {
    let served = served().await;
    let user = person(&served, "zoe", "local:user/zoe").await;
    let (_, secret) = login(&served, &user, 7).await;
    let (_, other) = login(&served, &user, 7).await;
    let (_, next) = renewed(&served, &secret).await;
    let (code, refused) = renewed(&served, &secret).await;
    assert_eq!(code, 401, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("a copy of its token"), "{refused}");
    assert!(!lasts(&served, &secret).await && !lasts(&served, next["secret"].as_str().unwrap()).await);
    assert!(lasts(&served, &other).await);
}

#[tokio::test]
async fn a_session_ends_when_it_was_said_to() {
    let mut served = served().await;
    let user = person(&served, "zoe", "local:user/zoe").await;
    let (first, _) = login(&served, &user, 0).await;
    let before = first.session.unwrap();
    let in_an_hour = tokens::seconds(SystemTime::now() + HOUR).unwrap();
    let before = Session { ends_at: in_an_hour, ..before };
    let last = tokens::log_in(&served.control, &user, tokens::Login::Next(&before), SystemTime::now())
        .await
        .ok()
        .unwrap();
    let spec = last.object.spec;
    assert_eq!((spec.expires_at, spec.session.unwrap().renewable_at), (in_an_hour, in_an_hour));
    let (code, refused) = renewed(&served, &last.secret.unwrap()).await;
    assert_eq!(code, 409, "{refused}");
    assert!(refused["message"].as_str().unwrap().starts_with("the login ends at"), "{refused}");
    // As long as a token: none is renewed.
    Arc::get_mut(&mut served.control).unwrap().logins.session = HOUR;
    let (only, secret) = login(&served, &user, 11).await;
    let session = only.session.unwrap();
    assert_eq!((session.ends_at, session.renewable_at), (only.expires_at, only.expires_at));
    assert_eq!(renewed(&served, &secret).await.0, 409);
}

#[tokio::test]
async fn only_logins_of_people_who_may_log_in_are_renewed() {
    let served = served().await;
    let (user, kind) = (person(&served, "bot", "local:user/bot").await, drover_api::kinds::TokenKind::Bot);
    let bot =
        crate::rest::tests::token(&served.control, &user, kind, drover_api::kinds::TokenScope::All).await;
    let bot = bot.secret.unwrap();
    assert_eq!(renewed(&served, &bot).await.0, 403);
    assert!(lasts(&served, &bot).await);

    let user = person(&served, "zoe", "corp:user/1").await;
    let (_, secret) = login(&served, &user, 7).await;
    assert_eq!(renewed(&served, &secret).await.0, 403, "there is no such provider");
    let off = Provider { disabled: true, ..provider(Access::Unrestricted, &[]) };
    let made = served.control.objects.create(&off, None).await.unwrap();
    assert_eq!(renewed(&served, &secret).await.0, 403);
    let on = Provider { disabled: false, ..off };
    served.control.objects.update(made.metadata.revision, &on, None).await.unwrap();
    assert_eq!(renewed(&served, &secret).await.0, 201);

    let (_, secret) = login(&served, &user, 7).await;
    let kept = served.control.objects.get::<User>("zoe").await.unwrap().unwrap().object;
    let disabled = User { disabled: true, ..user };
    served.control.objects.update(kept.metadata.revision, &disabled, None).await.unwrap();
    assert_eq!(renewed(&served, &secret).await.0, 401);
}

#[tokio::test]
async fn regression_a_program_whose_answer_was_lost_gets_it_again_and_nobody_else_does() {
    let served = served().await;
    let user = person(&served, "zoe", "local:user/zoe").await;
    let renew = async |secret: &str, program: serde_json::Value| {
        served.ask(secret, "POST", RENEWAL, Some(serde_json::json!({ "program": program }))).await
    };
    for (other, expected) in [("ours", 201), ("theirs", 401)] {
        let (_, secret) = login(&served, &user, 7).await;
        let (code, first) = renew(&secret, "ours".into()).await;
        assert_eq!(code, 201, "{first}");
        let (code, second) = renew(&secret, other.into()).await;
        assert_eq!(code, expected, "{second}");
        let next = first["secret"].as_str().unwrap();
        if expected == 201 {
            assert_eq!(second, first);
            // Without a word it is anybody, and with what was renewed once more it is over.
            assert!(lasts(&served, next).await);
            assert_eq!(renewed(&served, &secret).await.0, 401);
        }
        assert!(!lasts(&served, next).await && !lasts(&served, &secret).await);
    }
    // What was given meanwhile and revoked is not given again.
    let (_, secret) = login(&served, &user, 7).await;
    let (_, next) = renew(&secret, "ours".into()).await;
    let id: drover_api::token::TokenId =
        serde_json::from_value(next["object"]["spec"]["id"].clone()).unwrap();
    let kept = served.control.objects.get::<Token>(id.as_str()).await.unwrap().unwrap().object;
    served.control.objects.delete::<Token>(id.as_str(), kept.metadata.revision).await.unwrap();
    assert_eq!(renew(&secret, "ours".into()).await.0, 401);
    let (_, secret) = login(&served, &user, 7).await;
    assert_eq!(renew(&secret, "x".repeat(129).into()).await.0, 422);
}
