use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_api::kinds::{Access, Directory, Domain, Jwt, JwtRule, Keys};
use drover_api::signed::PublicKey;
use drover_api::token::generate;
use serde_json::{Value, json};

use super::*;
use crate::providers::jwt::tests::Key;
use crate::rest::tests::{Served, served};

/// A provider whose keys are given, and that knows one identity.
fn provider(key: &Value) -> Provider {
    let claims = [("sub".to_owned(), "job".to_owned())].into();
    let jwt = Jwt {
        issuer: "https://ci.test".into(),
        audience: "drover".into(),
        keys: Keys::Set(json!({ "keys": [key] }).to_string()),
        ca: None,
        rules: vec![JwtRule { name: "deploy".into(), claims }],
    };
    let (name, access) = ("ci".to_owned(), Access::Unrestricted);
    Provider { name, disabled: false, access, allowed: vec![], directory: Directory::Jwt(jwt) }
}

fn jwt(key: &Key, number: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "https://ci.test", "aud": "drover", "sub": "job", "iat": now, "exp": now + 3600, "number": number,
    });
    key.sign(&json!({ "alg": "ES256", "kid": "a" }), &claims)
}

async fn show(served: &Served, jwt: &str) -> (u16, Value) {
    served.ask("", "POST", "/v1/jwt", Some(json!({ "jwt": jwt }))).await
}

#[tokio::test]
async fn a_jwt_is_one_token_however_often_it_is_shown_and_ends_with_its_user_and_its_issuer() {
    let (served, key) = (served().await, Key::new());
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let provider = provider(&key.public("a"));
    served.control.objects.create(&provider, None).await.unwrap();
    let shown = jwt(&key, 1);
    let (code, first) = show(&served, &shown).await;
    assert_eq!((code, &first["user"]), (200, &json!("deploy@ci")), "{first}");
    assert_eq!(show(&served, &shown).await.1, first);
    let tokens = served.control.objects.list::<Token>().await.unwrap();
    assert_eq!(tokens.iter().filter(|token| token.spec.kind == TokenKind::Jwt).count(), 1);
    // It is a token for control as well, and makes no others.
    assert_eq!(served.ask(&shown, "GET", "/v1/self", None).await.0, 200);
    let made = served.ask(&shown, "POST", "/v1/tokens", Some(json!({ "kind": "bot", "scope": "all" }))).await;
    assert_eq!(made.0, 403, "{}", made.1);
    let (code, refused) = show(&served, &jwt(&Key::new(), 1)).await;
    assert!(code == 401 && refused["message"].as_str().unwrap().contains("signature"), "{refused}");
    assert_eq!(show(&served, "no JWT").await.0, 401);

    let (_, mut user) = served.ask(&admin, "GET", "/v1/users/deploy@ci", None).await;
    user["spec"]["disabled"] = true.into();
    assert_eq!(served.ask(&admin, "PUT", "/v1/users/deploy@ci", Some(user.clone())).await.0, 200);
    let (code, refused) = show(&served, &jwt(&key, 2)).await;
    assert!(code == 401 && refused["message"].as_str().unwrap().contains("disabled"), "{refused}");
    assert_eq!(served.ask(&admin, "DELETE", "/v1/providers/ci", None).await.0, 200);
    assert_eq!(served.ask(&shown, "GET", "/v1/self", None).await.0, 401);
    assert_eq!(show(&served, &shown).await.0, 401);
}

#[tokio::test]
async fn an_identity_has_so_many_jwts_at_once() {
    let (served, key) = (served().await, Key::new());
    served.control.objects.create(&provider(&key.public("a")), None).await.unwrap();
    let shown = jwt(&key, 1);
    assert_eq!(show(&served, &shown).await.0, 200);
    for _ in 1..TOKENS_PER_USER_MAX {
        let drawn = generate();
        let (id, hash, proof_key): (_, _, PublicKey) = (drawn.id, drawn.hash, drawn.proof_key);
        let expires_at = jiff::Timestamp::now() + Duration::from_secs(3600);
        let (user, kind, scope) = ("ci:user/deploy".to_owned(), TokenKind::Jwt, TokenScope::All);
        let token = Token {
            id,
            hash,
            proof_key,
            user,
            kind,
            scope,
            expires_at,
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
        };
        served.control.objects.create(&token, None).await.unwrap();
    }
    let (code, refused) = show(&served, &jwt(&key, 2)).await;
    assert_eq!(code, 429, "{refused}");
    // Those that have ended, and are kept for a day, are none of them.
    let control = &served.control;
    let of_identity = control.objects.list::<Token>().await.unwrap();
    let one = of_identity
        .into_iter()
        .find(|token| token.spec.jwt_ends_at.is_none() && token.spec.kind == TokenKind::Jwt);
    let one = one.unwrap();
    let ended = Token { expires_at: jiff::Timestamp::now() - Duration::from_secs(1), ..one.spec };
    control.objects.update(one.metadata.revision, &ended, None).await.unwrap();
    assert_eq!(show(&served, &jwt(&key, 2)).await.0, 200);
    // What is known goes on.
    assert_eq!(show(&served, &shown).await.0, 200);
}

/// The other signature that holds for the same: `s` becomes `n - s`.
fn with_the_other_signature(jwt: &str) -> String {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i32::from(ORDER[at]) - i32::from(signature[32 + at]) - borrow;
        borrow = i32::from(difference < 0);
        signature[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn regression_a_revoked_jwt_stays_revoked_however_it_is_signed_until_it_ends() {
    let (served, key) = (served().await, Key::new());
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    served.control.objects.create(&provider(&key.public("a")), None).await.unwrap();
    let other = with_the_other_signature(&jwt(&key, 9));
    assert_eq!(show(&served, &other).await.0, 200, "it is one that holds");
    for (number, revoke) in
        [(1, "/v1/tokens/ID"), (2, "/v1/users/deploy@ci/tokens"), (3, "/v1/users/deploy@ci")]
    {
        let shown = jwt(&key, number);
        let again = with_the_other_signature(&shown);
        let (code, known) = show(&served, &shown).await;
        assert_eq!(code, 200, "{known}");
        assert_eq!(show(&served, &again).await.0, 401, "one of the two is enough");
        let path = revoke.replace("ID", known["id"].as_str().unwrap());
        assert_eq!(served.ask(&admin, "DELETE", &path, None).await.0, 200);
        for jwt in [&shown, &again] {
            let (code, refused) = show(&served, jwt).await;
            assert_eq!(code, 401, "{path}: {refused}");
        }
        let (code, next) = show(&served, &jwt(&key, number + 10)).await;
        assert_eq!(code, 200, "another of the identity's: {next}");
    }
    assert_eq!(show(&served, &other).await.0, 401, "revoked with all");
    // What is remembered goes when the JWT would have.
    let in_two_days = jiff::Timestamp::now() + Duration::from_secs(48 * 3600);
    crate::sweep::sweep(&served.control, in_two_days).await.unwrap();
    assert!(served.control.objects.list::<crate::objects::RevokedJwt>().await.unwrap().is_empty());
}
