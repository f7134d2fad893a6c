use axum::body::Body;
use axum::http::Request;
use axum::http::header::SET_COOKIE;
use drover_api::kinds::{Access, Directory, Github, Oidc, Provider};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::rest::tests::{Served, served};

const ISSUER: &str = "https://issuer.test";

async fn with_providers() -> Served {
    let served = served().await;
    let github = Github { server: None, ca: None, client_id: "app".into() };
    let oidc = Oidc {
        issuer: ISSUER.into(),
        ca: None,
        client_id: "app".into(),
        scopes: vec![],
        login_claim: "name".into(),
        groups_claim: "groups".into(),
    };
    for (name, disabled, directory) in [
        ("gh", false, Directory::Github(github.clone())),
        ("off", true, Directory::Github(github)),
        ("corp", false, Directory::Oidc(oidc)),
    ] {
        let access = Access::Unrestricted;
        let provider = Provider { name: name.into(), disabled, access, allowed: vec![], directory };
        served.control.objects.create(&provider, None).await.unwrap();
    }
    served
}

struct Got {
    code: u16,
    location: String,
    cookies: Vec<String>,
    body: String,
}

async fn get(served: &Served, path: &str, cookie: &str) -> Got {
    let request = Request::get(path).header("cookie", cookie).body(Body::empty()).unwrap();
    let response = crate::routes::router(served.control.clone()).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let texts = |name| {
        let lines = parts.headers.get_all(name).iter();
        lines.map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    Got {
        code: parts.status.as_u16(),
        location: texts(LOCATION).pop().unwrap_or_default(),
        cookies: texts(SET_COOKIE),
        body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
    }
}

/// The cookie of a browser that is away.
fn away(served: &Served, provider: &str, ends_s: u64) -> String {
    let away = Away {
        provider: provider.into(),
        state: "s1".into(),
        nonce: "n1".into(),
        verifier: "v1".into(),
        user_code: String::new(),
        ends_s,
    };
    format!("{AWAY_COOKIE}={}", sealed(&served.control, &away))
}

#[tokio::test]
async fn a_browser_is_sent_to_its_provider_with_what_it_needs_to_come_back() {
    let served = with_providers().await;
    let got = get(&served, "/console/sign-in/gh?user_code=BCDF-GHJK", "").await;
    assert_eq!(got.code, 303, "{}", got.body);
    assert!(
        got.location.starts_with("https://github.com/login/oauth/authorize?client_id=app&"),
        "{}",
        got.location
    );
    for part in [
        "redirect_uri=https%3A%2F%2Fconsole.test%3A8443%2Fconsole%2Fcallback",
        "code_challenge_method=S256",
        "scope=read%3Aorg",
    ] {
        assert!(got.location.contains(part), "{}", got.location);
    }
    let [cookie] = &got.cookies[..] else { panic!("{:?}", got.cookies) };
    for part in ["__Host-drover-away=", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    // What it comes back with is not to be read, nor found in the address that it is sent to.
    let (_, state) = got.location.split_once("state=").unwrap();
    assert!(!cookie.contains(state.split('&').next().unwrap()), "{cookie}");
    for provider in ["off", "nobody", "local"] {
        let got = get(&served, &format!("/console/sign-in/{provider}"), "").await;
        assert!(got.code == 401 && got.cookies.is_empty(), "{provider}: {}", got.body);
    }
}

#[tokio::test]
async fn a_login_ends_only_in_the_browser_that_began_it_and_with_the_provider_that_it_began_with() {
    let served = with_providers().await;
    let (gh, corp) = (away(&served, "gh", now_s() + 60), away(&served, "corp", now_s() + 60));
    let (kept, last) = gh.split_at(gh.len() - 20);
    let changed = format!("{kept}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..]);
    let twice = format!("{gh}; {gh}");
    let renamed = gh.replace(AWAY_COOKIE, "__Host-drover");
    for (cookie, query) in [
        ("", "code=c&state=s1"),
        (&gh[..], "code=c"),
        (&gh, "code=c&state="),
        (&gh, "code=c&state=s2"),
        (&gh, "error=access_denied&state=s2"),
        (&changed, "code=c&state=s1"),
        (&twice, "code=c&state=s1"),
        (&renamed, "code=c&state=s1"),
        (&away(&served, "gh", now_s()), "code=c&state=s1"),
    ] {
        let got = get(&served, &format!("/console/callback?{query}"), cookie).await;
        assert!(got.code == 403 && got.body.contains("did not begin here"), "{cookie} {query}: {}", got.body);
        assert!(got.cookies.is_empty(), "{:?}", got.cookies);
    }
    for (cookie, query, said) in [
        (&gh, "error=access_denied&error_description=no&state=s1", "The provider let nobody in: no."),
        (&gh, "error=%3Cscript%3E&state=s1", "&lt;script&gt;"),
        (&corp, "code=c&state=s1&iss=https%3A%2F%2Fother.test", "The answer is of another provider."),
        (&away(&served, "off", now_s() + 60), "code=c&state=s1", "There is no provider"),
    ] {
        let got = get(&served, &format!("/console/callback?{query}"), cookie).await;
        assert!(got.code == 401 && got.body.contains(said), "{query}: {}", got.body);
        // Whatever came of it, it is over.
        assert_eq!(
            got.cookies,
            [format!("{AWAY_COOKIE}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax")]
        );
    }
}
