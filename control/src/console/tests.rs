use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_DISPOSITION;
use drover_api::kinds::{TokenKind, TokenScope, User};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::objects::UserSecret;
use crate::rest::tests::{Served, served};

const ORIGIN_HERE: &str = "https://console.test:8443";

struct Got {
    code: u16,
    headers: HeaderMap,
    body: String,
}

/// A browser, as far as a server knows one.
struct Browser {
    served: Served,
    origin: Option<&'static str>,
    cookie: String,
}

impl Browser {
    async fn new() -> Self {
        let served = served().await;
        let password = served.control.passwords.hash("correct horse").await.unwrap();
        let user = User {
            principal: "local:user/1".into(),
            name: "zoe".into(),
            display_name: None,
            groups: vec![],
            disabled: false,
        };
        served.control.objects.create(&user, Some(&UserSecret { password, former: vec![] })).await.unwrap();
        Self { served, origin: Some(ORIGIN_HERE), cookie: String::new() }
    }

    async fn send(&self, method: &str, path: &str, form: &str) -> Got {
        let mut request = Request::builder().method(method).uri(path).header("cookie", &self.cookie);
        if let Some(origin) = self.origin {
            request = request.header("origin", origin);
        }
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let router = crate::routes::router(self.served.control.clone());
        let response = router.oneshot(request.body(Body::from(form.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn sign_in(&mut self) -> String {
        let got = self.send("POST", SIGN_IN, "provider=local&name=zoe&password=correct+horse").await;
        assert_eq!(
            (got.code, &got.headers[LOCATION]),
            (303, &HeaderValue::from_static(HOME)),
            "{}",
            got.body
        );
        let set = got.headers[SET_COOKIE].to_str().unwrap().to_owned();
        self.cookie = set.split(';').next().unwrap().to_owned();
        set
    }

    fn csrf(&self) -> String {
        csrf(self.cookie.split_once('=').unwrap().1)
    }

    async fn begin(&self) -> Value {
        let got = self.send("POST", "/v1/device_authorization", "client_id=drover").await;
        assert_eq!(got.code, 200, "{}", got.body);
        serde_json::from_str(&got.body).unwrap()
    }

    async fn ask(&self, device_code: &str) -> (u16, Value) {
        let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        let form = format!("client_id=drover&grant_type={grant}&device_code={device_code}");
        let got = self.send("POST", "/v1/device_token", &form).await;
        (got.code, serde_json::from_str(&got.body).unwrap())
    }
}

#[tokio::test]
async fn a_person_signs_in_grants_a_terminal_its_login_and_signs_out() {
    let mut browser = Browser::new().await;
    let begun = browser.begin().await;
    let (device, code) = (begun["device_code"].as_str().unwrap(), begun["user_code"].as_str().unwrap());
    assert_eq!(begun["verification_uri"], format!("{ORIGIN_HERE}/console/device"));
    assert_eq!(browser.ask(device).await, (400, serde_json::json!({ "error": "authorization_pending" })));
    assert_eq!(browser.ask(device).await.1["error"], "slow_down");

    let path = format!("{DEVICE}?user_code={code}");
    let asked = browser.send("GET", &path, "").await;
    assert!(asked.body.contains("name=\"password\"") && asked.body.contains(code), "{}", asked.body);
    let cookie = browser.sign_in().await;
    for flag in ["__Host-drover=drv_", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    let confirm = browser.send("GET", &path, "").await;
    assert!(confirm.body.contains("Log it in") && confirm.body.contains(">zoe<"), "{}", confirm.body);
    let form = format!("csrf={}&user_code={code}&decision=grant", browser.csrf());
    let granted = browser.send("POST", DEVICE, &form).await;
    assert!(granted.body.contains("Granted."), "{}", granted.body);
    assert!(browser.send("POST", DEVICE, &form).await.body.contains("No terminal waits"));

    // Another terminal, which somebody refuses.
    let other = browser.begin().await;
    let code = other["user_code"].as_str().unwrap();
    let form = format!("csrf={}&user_code={code}&decision=deny", browser.csrf());
    assert!(browser.send("POST", DEVICE, &form).await.body.contains("Refused."));
    assert_eq!(browser.ask(other["device_code"].as_str().unwrap()).await.1["error"], "access_denied");

    let home = browser.send("GET", HOME, "").await;
    assert!(home.body.contains("this browser") && home.body.contains("Sign out"), "{}", home.body);
    let out = browser.send("POST", SIGN_OUT, &format!("csrf={}", browser.csrf())).await;
    assert!(out.headers[SET_COOKIE].to_str().unwrap().starts_with("__Host-drover=; Max-Age=0"));
    // The token itself is gone, and not the cookie alone.
    assert!(browser.send("GET", HOME, "").await.body.contains("name=\"password\""));
}

#[tokio::test]
async fn no_other_site_sends_a_form_and_no_page_may_be_framed_or_run_scripts() {
    let mut browser = Browser::new().await;
    let sign_in = "provider=local&name=zoe&password=correct+horse";
    for origin in [None, Some("https://evil.test"), Some("null"), Some("https://console.test")] {
        browser.origin = origin;
        let got = browser.send("POST", SIGN_IN, sign_in).await;
        assert!(got.code == 403 && !got.headers.contains_key(SET_COOKIE), "{origin:?}: {}", got.code);
    }
    browser.origin = Some(ORIGIN_HERE);
    browser.sign_in().await;
    let code = browser.begin().await["user_code"].as_str().unwrap().to_owned();
    let grant = |csrf: &str| format!("csrf={csrf}&user_code={code}&decision=grant");
    assert_eq!(browser.send("POST", DEVICE, &grant("00")).await.code, 403);
    let own = browser.csrf();
    browser.origin = Some("https://evil.test");
    assert_eq!(browser.send("POST", DEVICE, &grant(&own)).await.code, 403);
    assert_eq!(browser.send("POST", SIGN_OUT, &format!("csrf={own}")).await.code, 403);
    browser.origin = Some(ORIGIN_HERE);
    // Two sessions at once are nobody's.
    let cookie = browser.cookie.clone();
    browser.cookie = format!("{cookie}; {cookie}");
    assert!(browser.send("GET", HOME, "").await.body.contains("name=\"password\""));
    browser.cookie = cookie;
    assert!(browser.served.control.devices.waiting(&code, Instant::now()).is_some(), "nobody has decided");
    for path in [HOME, DEVICE, STYLE, SIGN_IN] {
        let got = browser.send(if path == SIGN_IN { "POST" } else { "GET" }, path, "").await;
        let policy = got.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(got.headers[CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(got.headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
    }
}

#[tokio::test]
async fn only_ones_own_tokens_are_shown_and_revoked() {
    let mut browser = Browser::new().await;
    let wrong = browser.send("POST", SIGN_IN, "provider=local&name=zoe&password=guessed").await;
    assert!(wrong.code == 401 && wrong.body.contains("The name or the password is wrong"), "{}", wrong.body);
    browser.sign_in().await;
    let control = &browser.served.control;
    let of = async |principal: &str| {
        let user = control.snapshots.state().user(principal).unwrap().spec;
        let made = crate::rest::tests::token(control, &user, TokenKind::Bot, TokenScope::All).await;
        made.object.spec.id.to_string()
    };
    let other = User {
        principal: "local:user/2".into(),
        name: "yan".into(),
        display_name: None,
        groups: vec![],
        disabled: false,
    };
    control
        .objects
        .create(&other, Some(&UserSecret { password: "none".into(), former: vec![] }))
        .await
        .unwrap();
    drop(Caller::of_token(control, "").await);
    let (own, anothers) = (of("local:user/1").await, of("local:user/2").await);
    let home = browser.send("GET", HOME, "").await.body;
    assert!(home.contains(&own) && !home.contains(&anothers));
    let revoke =
        async |id: &str| browser.send("POST", REVOKE, &format!("csrf={}&id={id}", browser.csrf())).await.body;
    assert!(revoke(&anothers).await.contains("You have no token"));
    assert!(revoke(&own).await.contains("is revoked"));
    let left: Vec<_> = control.objects.list::<Token>().await.unwrap();
    let left: Vec<_> = left.iter().map(|token| token.spec.id.as_str()).collect();
    assert!(left.contains(&anothers.as_str()) && !left.contains(&own.as_str()), "{left:?}");
}

#[tokio::test]
async fn a_kubeconfig_to_take_away_holds_a_token_of_its_own() {
    let mut browser = Browser::new().await;
    browser.sign_in().await;
    let refused = browser.send("POST", kubeconfig::KUBECONFIG, "csrf=wrong").await;
    assert_eq!(refused.code, 403);
    let got = browser.send("POST", kubeconfig::KUBECONFIG, &format!("csrf={}", browser.csrf())).await;
    assert_eq!(got.code, 200, "{}", got.body);
    assert_eq!(got.headers[CONTENT_DISPOSITION], "attachment; filename=\"drover.kubeconfig\"");
    assert_eq!(got.headers[CACHE_CONTROL], "no-store");
    let config: Value = serde_json::from_str(&got.body).unwrap();
    let token = config["users"][0]["user"]["token"].as_str().unwrap();
    assert!(!browser.cookie.contains(token), "the session's own");
    let tokens = browser.served.control.objects.list::<Token>().await.unwrap();
    let kinds: Vec<_> = tokens.iter().map(|token| token.spec.kind).collect();
    assert!(kinds.contains(&TokenKind::Kubeconfig) && kinds.len() == 2, "{kinds:?}");
    // No cluster is hers: none is named.
    assert_eq!(config["contexts"], serde_json::json!([]));
}

#[tokio::test]
async fn regression_signing_out_ends_what_a_copy_of_the_cookie_was_renewed_to() {
    let mut browser = Browser::new().await;
    browser.sign_in().await;
    let (objects, token) = (&browser.served.control.objects, browser.cookie.split_once('=').unwrap().1);
    let id = token.split('_').nth(1).unwrap();
    let kept = objects.get::<Token>(id).await.unwrap().unwrap().object;
    let session = kept.spec.session.clone().unwrap();
    let session = drover_api::kinds::Session { renewable_at: jiff::Timestamp::now(), ..session };
    let old = Token { session: Some(session), ..kept.spec };
    objects.update(kept.metadata.revision, &old, None).await.unwrap();
    let (code, next) = browser.served.ask(token, "POST", drover_api::rest::RENEWAL, None).await;
    assert_eq!(code, 201, "{next}");
    let next = next["secret"].as_str().unwrap();
    assert_eq!(browser.served.ask(next, "GET", "/v1/self", None).await.0, 200);
    browser.send("POST", SIGN_OUT, &format!("csrf={}", browser.csrf())).await;
    assert_eq!(browser.served.ask(next, "GET", "/v1/self", None).await.0, 401);
}
