use drover_api::kinds::Domain;
use serde_json::{Value, json};

use crate::rest::tests::served;

#[tokio::test]
async fn a_provider_that_cannot_be_one_is_refused_before_anybody_is_asked() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let rule = json!({ "name": "deploy", "claims": { "sub": "job" } });
    let jwt = |change: Value| {
        let mut jwt = json!({ "issuer": "https://ci.test", "audience": "drover", "rules": [rule] });
        jwt.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "jwt": jwt })
    };
    let oidc = |change: Value| {
        let mut oidc = json!({ "issuer": "https://id.test", "client_id": "drover" });
        oidc.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "oidc": oidc })
    };
    let ldap = |change: Value| {
        let mut ldap = json!({ "servers": ["ldaps://d.test"], "bind_name": "cn=d", "user_base": "dc=test" });
        ldap.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "ldap": ldap })
    };
    let many = vec!["ldaps://d.test"; super::LDAP_SERVERS_MAX + 1];
    let rules = |rule: Value| jwt(json!({ "rules": [rule] }));
    for (directory, field) in [
        (jwt(json!({ "issuer": "" })), "jwt.issuer"),
        (jwt(json!({ "issuer": "no URL" })), "jwt.issuer"),
        (jwt(json!({ "issuer": "http://ci.test" })), "jwt.keys"),
        (jwt(json!({ "keys": { "url": "http://ci.test/keys" } })), "jwt.keys.url"),
        (jwt(json!({ "audience": "" })), "jwt.audience"),
        (jwt(json!({ "rules": [] })), "jwt.rules"),
        (jwt(json!({ "rules": vec![rule.clone(); super::RULES_MAX + 1] })), "jwt.rules"),
        (rules(json!({ "name": "", "claims": { "sub": "x" } })), "jwt.rules.name"),
        (rules(json!({ "name": "system:x", "claims": { "sub": "x" } })), "jwt.rules.name"),
        (rules(json!({ "name": "a/b", "claims": { "sub": "x" } })), "jwt.rules.name"),
        (rules(json!({ "name": "a", "claims": {} })), "jwt.rules.claims"),
        (rules(json!({ "name": "a", "claims": { "sub": "" } })), "jwt.rules.claims"),
        (jwt(json!({ "keys": { "set": "{\"keys\":[]}" } })), ""),
        (jwt(json!({ "keys": { "set": "no keys" } })), ""),
        (ldap(json!({ "servers": [] })), "ldap.servers"),
        (ldap(json!({ "servers": ["d.test"] })), "ldap.servers"),
        (ldap(json!({ "servers": many })), "ldap.servers"),
        (ldap(json!({ "referrals": ["ldapi://d.test"] })), "ldap.referrals"),
        (ldap(json!({ "referrals": many })), "ldap.referrals"),
        (ldap(json!({ "user_filter": "x=y" })), "ldap.user_filter"),
        (ldap(json!({ "user_base": "" })), "ldap"),
        (oidc(json!({ "issuer": "http://id.test" })), "oidc.issuer"),
        (oidc(json!({ "client_id": "" })), "oidc.client_id"),
        (oidc(json!({ "scopes": ["a b"] })), "oidc.scopes"),
        (oidc(json!({ "scopes": vec!["a"; super::SCOPES_MAX + 1] })), "oidc.scopes"),
        (oidc(json!({ "login_claim": "" })), "oidc.login_claim"),
        (json!({ "github": { "client_id": "" } }), "github.client_id"),
        (json!({ "github": { "client_id": "app", "server": "http://gh.test" } }), "github.server"),
    ] {
        let spec = json!({ "name": "corp", "directory": directory });
        let (code, answer) = served.ask(&admin, "POST", "/v1/providers", Some(json!({ "spec": spec }))).await;
        let field = format!("spec.directory.{field}");
        let expected = json!(field.trim_end_matches('.'));
        assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &expected), "{spec}: {answer}");
    }
}
