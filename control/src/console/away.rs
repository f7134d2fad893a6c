//! Logins at a provider of their own: a browser goes there, and comes back with a code.
//!
//! What is to be known when it is back travels with it, sealed, in a cookie: nothing waits here, and another
//! browser's answer is worth nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Path, Query, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tracing::info;

use super::{
    Code, after, cookie, letters, pages, problem, sentence, session_cookie, set_cookie, sign_in_page,
};
use crate::console::pages::Notice;
use crate::providers::Begun;
use crate::rest::login::{LOGINS, come_back, opened, too_many};
use crate::routes::{Control, Refused};

/// Where browsers come back to: providers know it as the redirect URI.
pub(super) const CALLBACK: &str = "/console/callback";
pub(super) const AWAY: &str = "/console/sign-in/{provider}";
const AWAY_COOKIE: &str = "__Host-drover-away";
/// Logins that begin at once, each with a question to its provider: those that end, or have a password, wait for none.
static BEGINNINGS: Semaphore = Semaphore::const_new(16);
/// How long a person may be away.
const AWAY_MAX: Duration = Duration::from_secs(600);
/// What cookies are sealed as: nothing else that is sealed can be one.
const SEALED: (&str, &str) = ("Cookie", AWAY_COOKIE);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Away {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    user_code: String,
    ends_s: u64,
}

/// What a provider sends a browser back with (RFC 6749, 4.1.2; RFC 9207).
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

pub(super) async fn go(
    State(control): State<Arc<Control>>,
    Path(provider): Path<String>,
    Query(Code { user_code }): Query<Code>,
) -> Response {
    match begin(&control, &provider, &user_code).await {
        Ok(response) => response,
        Err(refused) => {
            let notice = Notice::Problem(sentence(refused.message()));
            let mut page = sign_in_page(&control, &user_code, "", &notice).await;
            *page.status_mut() = refused.code();
            page
        }
    }
}

async fn begin(control: &Control, provider: &str, user_code: &str) -> Result<Response, Refused> {
    let (_, directory) = opened(control, provider).await?;
    let redirect = directory.redirect().ok_or_else(|| {
        Refused::unauthorized(&format!("people log in through {provider:?} with a name and a password"))
    })?;
    let Ok(_beginning) = BEGINNINGS.try_acquire() else { return Err(too_many()) };
    let Begun { url, state, nonce, verifier } = redirect.begin(&back(control).unwrap_or_default()).await?;
    let away = Away {
        provider: provider.to_owned(),
        state,
        nonce,
        verifier,
        user_code: letters(user_code),
        ends_s: now_s() + AWAY_MAX.as_secs(),
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    let value =
        HeaderValue::from_str(&url).map_err(|_| Refused::unauthorized("the provider's URL is none"))?;
    response.headers_mut().insert(LOCATION, value);
    set_away(&mut response, &sealed(control, &away), AWAY_MAX.as_secs());
    Ok(response)
}

pub(super) async fn callback(
    State(control): State<Arc<Control>>,
    Query(answer): Query<Answer>,
    headers: HeaderMap,
) -> Response {
    let Some(away) = known(&control, &headers, &answer.state) else {
        return problem(
            StatusCode::FORBIDDEN,
            "That login did not begin here",
            "Nobody is signed in. Perhaps it took too long, or began in another browser: open the console, and try again.",
        );
    };
    let mut response = match finish(&control, &away, &answer).await {
        Ok((token, lasts)) => {
            // A cookie that is for this site alone is not sent on the way from another: the page goes on by itself.
            let mut page = Html(pages::going("Signed in", &after(&away.user_code))).into_response();
            session_cookie(&mut page, &token, lasts);
            page
        }
        Err(refused) => {
            let notice = Notice::Problem(sentence(refused.message()));
            let mut page = sign_in_page(&control, &away.user_code, "", &notice).await;
            *page.status_mut() = refused.code();
            page
        }
    };
    set_away(&mut response, "", 0);
    response
}

fn sealed(control: &Control, away: &Away) -> String {
    let bytes = serde_json::to_vec(away).expect("texts are JSON");
    URL_SAFE_NO_PAD.encode(control.objects.seal().seal(SEALED.0, SEALED.1, &bytes))
}

/// The login that the browser went away for, if it is this one.
fn known(control: &Control, headers: &HeaderMap, state: &str) -> Option<Away> {
    let sealed = URL_SAFE_NO_PAD.decode(cookie(headers, AWAY_COOKIE)?).ok()?;
    let opened = control.objects.seal().open(SEALED.0, SEALED.1, &sealed).ok()?;
    let away: Away = serde_json::from_slice(&opened).ok()?;
    let same: bool = away.state.as_bytes().ct_eq(state.as_bytes()).into();
    (same && now_s() < away.ends_s).then_some(away)
}

/// A session, and how long it lasts in seconds.
async fn finish(control: &Control, away: &Away, answer: &Answer) -> Result<(String, u64), Refused> {
    if let Some(error) = &answer.error {
        let said = answer.error_description.as_deref().filter(|said| !said.is_empty());
        let said: String =
            said.unwrap_or(error).chars().filter(|letter| !letter.is_control()).take(200).collect();
        info!(provider = away.provider, said, "login refused by the provider");
        return Err(Refused::unauthorized(&format!("the provider let nobody in: {said}")));
    }
    let began = control.written();
    let (provider, directory) = opened(control, &away.provider).await?;
    let redirect =
        directory.redirect().ok_or_else(|| Refused::unauthorized("the provider has just changed"))?;
    // Of another provider than the one that the browser was sent to, the code would be given to the wrong one.
    if answer.iss.as_deref().is_some_and(|issuer| redirect.issuer().is_some_and(|ours| ours != issuer)) {
        return Err(Refused::unauthorized("the answer is of another provider"));
    }
    let Ok(_login) = LOGINS.try_acquire() else { return Err(too_many()) };
    let begun = Begun {
        url: String::new(),
        state: away.state.clone(),
        nonce: away.nonce.clone(),
        verifier: away.verifier.clone(),
    };
    let known = redirect.finish(&back(control).unwrap_or_default(), &answer.code, &begun).await?;
    let made = come_back(control, &provider, known, began).await?;
    let lasts = SystemTime::from(made.object.spec.expires_at).duration_since(SystemTime::now());
    Ok((made.secret.unwrap_or_default(), lasts.unwrap_or_default().as_secs()))
}

/// The redirect URI; none where there is no console.
pub(crate) fn back(control: &Control) -> Option<String> {
    control.console.as_ref().map(|console| format!("{}{CALLBACK}", console.as_str()))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lax: it is to be there when another site sends the browser back.
fn set_away(response: &mut Response, sealed: &str, lasts_s: u64) {
    set_cookie(response, AWAY_COOKIE, sealed, lasts_s, "Lax");
}

#[cfg(test)]
mod tests;
