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
        };
        served.control.objects.create(&token, None).await.unwrap();
    }
    let (code, refused) = show(&served, &jwt(&key, 2)).await;
    assert_eq!(code, 429, "{refused}");
    // What is known goes on.
    assert_eq!(show(&served, &shown).await.0, 200);
}
