use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW_S: u64 = 1_800_000_000;

/// A key of an issuer's.
pub(crate) struct Key(EcdsaKeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self(pair.unwrap())
    }

    pub(crate) fn public(&self, id: &str) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": x, "y": y })
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(keys: &[Value]) -> CoreJsonWebKeySet {
    serde_json::from_value(json!({ "keys": keys })).unwrap()
}

fn issuer() -> kinds::Jwt {
    kinds::Jwt {
        issuer: "https://ci.test".into(),
        audience: "drover".into(),
        keys: Keys::Discovery,
        ca: None,
        rules: Vec::new(),
    }
}

/// The claims of a good one, with others.
fn claims(others: Value) -> Value {
    let mut claims = json!({
        "iss": "https://ci.test", "aud": "drover", "sub": "repo:corp/app", "iat": NOW_S - 10, "nbf": NOW_S - 10, "exp": NOW_S + 300,
    });
    let Value::Object(others) = others else { panic!("an object") };
    for (name, value) in others {
        claims[name] = value;
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
}

#[test]
fn a_jwt_holds_by_its_issuers_key_for_drover_and_in_its_time() {
    use JwtRefused as R;
    let (key, other) = (Key::new(), Key::new());
    let keys = set(&[key.public("a"), other.public("b")]);
    let header = json!({ "alg": "ES256", "kid": "a", "typ": "JWT" });
    for (others, expected) in [
        (json!({}), None),
        (json!({ "aud": ["https://api", "drover"] }), None),
        (json!({ "nbf": null }), None),
        // Clocks are not exact.
        (json!({ "exp": NOW_S - 30 }), None),
        (json!({ "iat": NOW_S + 30, "nbf": NOW_S + 30 }), None),
        (json!({ "exp": NOW_S - 61 }), Some(R::Expired)),
        (json!({ "iat": NOW_S + 61 }), Some(R::NotYet)),
        (json!({ "nbf": NOW_S + 61 }), Some(R::NotYet)),
        (json!({ "nbf": "now" }), Some(R::NotYet)),
        (json!({ "aud": "https://api" }), Some(R::Audience)),
        (json!({ "aud": [] }), Some(R::Audience)),
        (json!({ "iss": "https://ci.test/" }), Some(R::Issuer)),
        (json!({ "aud": null }), Some(R::Audience)),
        (json!({ "exp": null }), Some(R::Malformed)),
        (json!({ "iss": null }), Some(R::Malformed)),
        (json!({ "sub": null }), Some(R::Malformed)),
    ] {
        let said = verify(&issuer(), &keys, &key.sign(&header, &claims(others.clone())), now());
        assert_eq!(said.err(), expected, "{others}");
    }
    let good = verify(&issuer(), &keys, &key.sign(&header, &claims(json!({}))), now()).unwrap();
    assert_eq!(good.expires_at, now() + Duration::from_secs(300));
    assert_eq!(good.claims["sub"], "repo:corp/app");
}

#[test]
fn nothing_that_the_issuers_keys_did_not_sign_is_a_jwt_of_its() {
    let (key, stranger) = (Key::new(), Key::new());
    let public = key.public("a");
    let keys = set(std::slice::from_ref(&public));
    let header = json!({ "alg": "ES256", "kid": "a" });
    let good = key.sign(&header, &claims(json!({})));
    let parts: Vec<_> = good.split('.').collect();
    let unsigned = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
    let other_claims = URL_SAFE_NO_PAD.encode(claims(json!({ "sub": "repo:corp/other" })).to_string());
    // Signed with the public key, as if it were a secret that both sides know.
    let hmac = {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": "a" }).to_string());
        let signed = format!("{header}.{}", parts[1]);
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.to_string().as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&secret, signed.as_bytes())))
    };
    // With its own key in the header, where some would look.
    let embedded = json!({ "alg": "ES256", "jwk": stranger.public("a"), "kid": "a" });
    let fetched = json!({ "alg": "ES256", "jku": "https://evil.test/keys", "kid": "b" });
    for forged in [
        stranger.sign(&header, &claims(json!({}))),
        stranger.sign(&embedded, &claims(json!({}))),
        stranger.sign(&fetched, &claims(json!({}))),
        format!("{}.{other_claims}.{}", parts[0], parts[2]),
        format!("{}.{}.", unsigned, parts[1]),
        format!("{}.{}.{}", unsigned, parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        hmac,
        good.replacen('.', "", 1),
        format!("{good}.{good}"),
    ] {
        let said = verify(&issuer(), &keys, &forged, now());
        assert!(matches!(said, Err(JwtRefused::Malformed | JwtRefused::Signature)), "{forged}: {said:?}");
    }
    assert!(verify(&issuer(), &keys, &good, now()).is_ok());
    // A key that the issuer has no more.
    let said = verify(&issuer(), &set(&[stranger.public("b")]), &good, now());
    assert_eq!(said.err(), Some(JwtRefused::Signature));
}

#[test]
fn the_first_rule_whose_claims_all_match_says_who_it_is() {
    let rule = |name: &str, claims: &[(&str, &str)]| JwtRule {
        name: name.into(),
        claims: claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let rules = [
        rule("release", &[("repository_id", "42"), ("ref", "refs/heads/main")]),
        rule("build", &[("repository_id", "42")]),
        rule("runner", &[("/kubernetes.io/serviceaccount/uid", "u-1")]),
        rule("odd", &[("/a~1b", "true")]),
        rule("nobody", &[]),
    ];
    for (claims, expected) in [
        (json!({ "repository_id": "42", "ref": "refs/heads/main" }), Some("release")),
        (json!({ "repository_id": 42, "ref": "refs/heads/x" }), Some("build")),
        (json!({ "repository_id": "42 " }), None),
        (json!({ "repository_id": "4" }), None),
        (json!({ "repository_id": ["42"] }), None),
        (json!({ "repository_id": null }), None),
        (json!({ "kubernetes.io": { "serviceaccount": { "uid": "u-1" } } }), Some("runner")),
        (json!({ "/kubernetes.io/serviceaccount/uid": "u-1" }), None),
        (json!({ "kubernetes.io": { "serviceaccount": "u-1" } }), None),
        (json!({ "a/b": true }), Some("odd")),
        (json!({}), None),
    ] {
        let Value::Object(object) = claims.clone() else { panic!("an object") };
        assert_eq!(identity(&rules, &object), expected, "{claims}");
    }
}
