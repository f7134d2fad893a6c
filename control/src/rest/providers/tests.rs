use drover_api::kinds::{Domain, Provider};
use serde_json::{Value, json};

use crate::objects::ProviderSecret;
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

/// Whoever manages providers is not thereby given their passwords: what was kept for one server is not shown to another.
#[tokio::test]
async fn regression_a_password_that_is_kept_goes_to_no_other_server() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let providers = [
        (
            "ldap",
            json!({ "servers": ["ldaps://d.invalid"], "bind_name": "cn=d", "user_base": "dc=test" }),
            json!({
                "servers": [format!("ldaps://{here}")],
                "referrals": [format!("ldaps://{here}")],
                "ca": "an authority",
                "bind_name": "cn=e",
            }),
            json!({}),
        ),
        (
            "oidc",
            json!({ "issuer": "https://id.invalid", "client_id": "drover" }),
            json!({ "client_id": "another", "ca": "an authority" }),
            json!({ "issuer": format!("https://{here}") }),
        ),
        (
            "github",
            json!({ "client_id": "drover" }),
            json!({ "client_id": "another", "ca": "an authority" }),
            json!({ "server": format!("https://{here}") }),
        ),
    ];
    for (kind, directory, elsewhere, others) in providers {
        let spec = json!({ "name": kind, "directory": { kind: directory } });
        let spec: Provider = serde_json::from_value(spec).unwrap();
        let secret = ProviderSecret { password: "kept".into() };
        served.control.objects.create(&spec, Some(&secret)).await.unwrap();
        let path = format!("/v1/providers/{kind}");
        let (_, object) = served.ask(&admin, "GET", &path, None).await;
        let changed = |(field, value): (&String, &Value)| {
            let mut next = object.clone();
            next["spec"]["directory"][kind][field] = value.clone();
            next
        };
        for next in elsewhere.as_object().unwrap().iter().map(changed) {
            let (code, answer) = served.ask(&admin, "PUT", &path, Some(next)).await;
            let message = answer["message"].as_str().unwrap();
            assert!(code == 422 && message.contains("give it along"), "{kind}: {answer}");
        }
        let jwt = json!({ "jwt": { "issuer": "https://ci.test", "audience": "drover", "rules": [{ "name": "a", "claims": { "sub": "a" } }] } });
        let mut another = object.clone();
        another["spec"]["directory"] = jwt;
        let others = others.as_object().unwrap().iter().map(changed);
        for next in others.chain([another]) {
            let with_password = json!({ "password": "another", "object": next.clone() });
            let secret = format!("{path}/secret");
            for (method, path, body) in [("PUT", &path, next), ("POST", &secret, with_password)] {
                let (code, answer) = served.ask(&admin, method, path, Some(body.clone())).await;
                let message = answer["message"].as_str().unwrap();
                assert!(code == 422 && message.contains("add another provider"), "{body}: {answer}");
            }
        }
        // Of a revision that is not the one that is there, and of another name.
        for (pointer, value, expected) in
            [("/metadata/revision", json!(1), 409), ("/spec/name", json!("ldap-2"), 422)]
        {
            let mut next = object.clone();
            *next.pointer_mut(pointer).unwrap() = value;
            let body = json!({ "password": "another", "object": next });
            let (code, answer) = served.ask(&admin, "POST", &format!("{path}/secret"), Some(body)).await;
            assert_eq!(code, expected, "{pointer}: {answer}");
        }
        let kept = served.control.objects.get::<Provider>(kind).await.unwrap().unwrap();
        assert_eq!((&kept.object.spec, &*kept.secret.unwrap().password), (&spec, "kept"));
    }
    assert!(listener.accept().is_err(), "nobody was asked");
}

#[tokio::test]
async fn only_who_may_change_a_provider_searches_it_and_says_for_what() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let jwt = json!({ "issuer": "https://ci.test", "audience": "drover", "rules": [{ "name": "a", "claims": { "sub": "a" } }] });
    let spec = json!({ "name": "ci", "directory": { "jwt": jwt } });
    let spec: Provider = serde_json::from_value(spec).unwrap();
    served.control.objects.create(&spec, None).await.unwrap();
    let reads = json!({ "name": "reader", "rules": [{ "effect": "allow", "verbs": ["get"], "apiGroups": ["drover.io"], "resources": ["providers"] }] });
    assert_eq!(served.ask(&admin, "POST", "/v1/roles", Some(reads)).await.0, 201);
    let reader = served.user("reader", &[("reader", Domain::Global)]).await;
    let nobody = served.user("nobody", &[]).await;
    let path = "/v1/providers/ci/principals";
    assert_eq!(served.ask(&reader, "GET", "/v1/providers/ci", None).await.0, 200);
    for (token, code) in [(&reader, 403), (&nobody, 404), (&String::new(), 401)] {
        assert_eq!(served.ask(token, "GET", &format!("{path}?name=a"), None).await.0, code);
    }
    let long = format!("?name={}", "a".repeat(257));
    for query in ["", "?name=", "?name=%20", "?name=a%0Ab", "?text=a", "?name=a&more=b", &long] {
        let (code, answer) = served.ask(&admin, "GET", &format!("{path}{query}"), None).await;
        assert_eq!(
            (code, &answer["details"]["causes"][0]["field"]),
            (422, &json!("name")),
            "{query}: {answer}"
        );
    }
    let (code, answer) = served.ask(&admin, "GET", &format!("{path}?name=a"), None).await;
    let message = answer["message"].as_str().unwrap();
    assert!(code == 422 && message.contains("they name as ci:user/RULE"), "{answer}");
}
