//! The console: what people do in a browser. It has an origin of its own, where nothing of a cluster is ever served.
//!
//! A session is a login token in a cookie that scripts cannot read and other sites cannot send. Every form carries
//! what only a page of the session's could know, and comes from the console's own origin.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderName, LOCATION, ORIGIN,
    REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use drover_api::kinds::{Cluster, Directory, Kind, Object, Provider, Token, TokenKind};
use drover_api::rest::{AUTHORIZE, Login};
use drover_api::status::Status;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::info;

use crate::devices::{Decided, Decision, Grant};
use crate::listener::Client;
use crate::rest::caller::Caller;
use crate::rest::login::log_in;
use crate::rest::tokens;
use crate::routes::{Control, Refused};

mod authorize;
pub(crate) mod away;
mod kubeconfig;
mod pages;

use pages::{Notice, Session, Ways};

const HOME: &str = "/console";
pub(crate) const DEVICE: &str = "/console/device";
const REVOKE: &str = "/console/tokens/revoke";
const SIGN_IN: &str = "/console/sign-in";
const SIGN_OUT: &str = "/console/sign-out";
const STYLE: &str = "/console/style.css";
/// Browsers take a cookie of such a name from its own host only, for the whole host, and over HTTPS.
const SESSION_COOKIE: &str = "__Host-drover";
const STYLES: &str = include_str!("console/style.css");
/// Nothing but our own styles and forms; no scripts, and in nobody's frame.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, POLICY),
    // Without an origin, forms could not be told from other sites'.
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];
/// Of a code in an address: above any that is given out.
const USER_CODE_CHARS_MAX: usize = 16;
/// Clusters and tokens that a page shows.
const SHOWN_MAX: usize = 1000;

pub(crate) fn router() -> Router<Arc<Control>> {
    Router::new()
        .route("/", get(async || go(HOME)))
        .route(HOME, get(home))
        .route(AUTHORIZE, get(authorize::authorize))
        .route(DEVICE, get(device).post(decide))
        .route(kubeconfig::KUBECONFIG, post(kubeconfig::take))
        .route(REVOKE, post(revoke))
        .route(SIGN_IN, post(sign_in))
        .route(away::AWAY, get(away::go))
        .route(away::CALLBACK, get(away::callback))
        .route(SIGN_OUT, post(sign_out))
        .route(STYLE, get(async || ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLES)))
        .layer(map_response(async |mut response: Response| {
            for (name, value) in HEADERS {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }))
}

#[derive(Deserialize)]
struct Code {
    #[serde(default)]
    user_code: String,
}

#[derive(Deserialize)]
struct SignIn {
    provider: String,
    name: String,
    password: String,
    #[serde(default)]
    user_code: String,
}

#[derive(Deserialize)]
struct Decide {
    csrf: String,
    user_code: String,
    decision: Answer,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Deny,
    Grant,
}

#[derive(Deserialize)]
struct Revoke {
    csrf: String,
    id: String,
}

#[derive(Deserialize)]
struct SignOut {
    csrf: String,
}

/// Whoever is signed in, and what their forms carry.
struct Signed {
    caller: Caller,
    csrf: String,
}

impl Signed {
    async fn of(control: &Control, headers: &HeaderMap) -> Option<Self> {
        let token = cookie(headers, SESSION_COOKIE)?;
        let caller = Caller::of_token(control, token).await.ok()?;
        // What a session grants is a login: nothing that lasts shorter, or can do less, comes to one.
        if caller.token.spec.kind != TokenKind::Login {
            return None;
        }
        Some(Self { caller, csrf: csrf(token) })
    }

    /// Names of the clusters that they see, in order.
    async fn clusters(&self, control: &Control) -> Result<Vec<String>, Refused> {
        let clusters = control.objects.list::<Cluster>().await?.into_iter().map(|cluster| cluster.spec);
        Ok(pages::names(clusters.filter(|cluster| self.caller.sees(control, cluster)).take(SHOWN_MAX)))
    }

    fn session(&self) -> Session<'_> {
        Session { name: &self.caller.user.spec.name, csrf: &self.csrf }
    }
}

async fn home(State(control): State<Arc<Control>>, headers: HeaderMap) -> Response {
    match Signed::of(&control, &headers).await {
        Some(signed) => shown(&control, &signed, &Notice::None).await,
        None => sign_in_page(&control, "", "", &Notice::None).await,
    }
}

async fn device(
    State(control): State<Arc<Control>>,
    Query(Code { user_code }): Query<Code>,
    headers: HeaderMap,
) -> Response {
    let Some(signed) = Signed::of(&control, &headers).await else {
        return sign_in_page(&control, &user_code, "", &Notice::None).await;
    };
    if user_code.is_empty() {
        return Html(pages::enter_code(&signed.session(), "", &Notice::None)).into_response();
    }
    if let Some(waiting) = control.devices.waiting(&user_code, Instant::now()) {
        return Html(pages::confirm(&signed.session(), &waiting)).into_response();
    }
    let problem = Notice::Problem(
        "No terminal waits for this code. It may have waited too long: begin anew there.".into(),
    );
    Html(pages::enter_code(&signed.session(), &user_code, &problem)).into_response()
}

async fn decide(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    form: Result<Form<Decide>, FormRejection>,
) -> Response {
    let Ok(Form(Decide { csrf, user_code, decision })) = form else { return foreign() };
    let Some(signed) = theirs(&control, &headers, &csrf).await else { return foreign() };
    let (principal, session) =
        (signed.caller.user.spec.principal.clone(), signed.caller.token.spec.session.clone());
    let (made, done) = match decision {
        Answer::Grant => (
            Decision::Granted(Grant { principal, session }),
            "Granted. Your terminal goes on by itself within seconds.",
        ),
        Answer::Deny => (Decision::Denied, "Refused. The program gets nothing."),
    };
    // Behind what takes the session away, there is nobody who could grant.
    let Ok((_, writing)) = signed.caller.clone().begin_write(&control).await else { return foreign() };
    let decided = control.devices.decide(&user_code, made, Instant::now());
    drop(writing);
    if decided != Decided::Nothing {
        let granted = decision == Answer::Grant;
        info!(user = signed.caller.user.spec.name, granted, "login of a program decided");
    }
    let notice = match decided {
        Decided::Brought(to) => return Html(pages::going("Back to the program", &to)).into_response(),
        Decided::Nothing => {
            Notice::Problem("No terminal waits for this code any more: begin anew there.".to_owned())
        }
        Decided::Told => Notice::Done(done.to_owned()),
    };
    shown(&control, &signed, &notice).await
}

async fn revoke(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    form: Result<Form<Revoke>, FormRejection>,
) -> Response {
    let Ok(Form(Revoke { csrf, id })) = form else { return foreign() };
    let Some(signed) = theirs(&control, &headers, &csrf).await else { return foreign() };
    let caller = signed.caller.clone();
    let notice = match delete(&control, caller, &id).await {
        Ok(true) => Notice::Done(format!("Token {id} is revoked: gateways refuse it from now on.")),
        Ok(false) => Notice::Problem(format!("You have no token {id}.")),
        Err(_) => Notice::Problem("The token was not revoked: try again in a moment.".to_owned()),
    };
    if signed.caller.token.spec.id.as_str() == id {
        return go(HOME);
    }
    shown(&control, &signed, &notice).await
}

async fn sign_in(
    State(control): State<Arc<Control>>,
    client: Client,
    headers: HeaderMap,
    form: Result<Form<SignIn>, FormRejection>,
) -> Response {
    let Ok(Form(SignIn { provider, name, password, user_code })) = form else { return foreign() };
    if !is_own_origin(&control, &headers) {
        return foreign();
    }
    let login = Login { provider: Some(provider), name: name.clone(), password };
    match log_in(&control, &login, client).await {
        Ok(made) => {
            let token = made.secret.unwrap_or_default();
            let lasts = SystemTime::from(made.object.spec.expires_at).duration_since(SystemTime::now());
            let lasts = lasts.unwrap_or_default().as_secs();
            let mut response = go(&after(&user_code));
            session_cookie(&mut response, &token, lasts);
            response
        }
        Err(refused) => {
            let notice = Notice::Problem(sentence(refused.message()));
            let mut page = sign_in_page(&control, &user_code, &name, &notice).await;
            *page.status_mut() = refused.code();
            page
        }
    }
}

async fn sign_out(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    form: Result<Form<SignOut>, FormRejection>,
) -> Response {
    let Ok(Form(SignOut { csrf })) = form else { return foreign() };
    let Some(signed) = theirs(&control, &headers, &csrf).await else { return foreign() };
    if delete(&control, signed.caller.clone(), signed.caller.token.spec.key()).await.is_err() {
        let notice = Notice::Problem("You are still signed in: try again in a moment.".to_owned());
        return shown(&control, &signed, &notice).await;
    }
    let mut response = go(HOME);
    session_cookie(&mut response, "", 0);
    response
}

/// One of the caller's own tokens. Whether there was one.
async fn delete(control: &Control, caller: Caller, id: &str) -> Result<bool, Refused> {
    let (caller, _writing) = caller.begin_write(control).await?;
    let found = control.objects.get::<Token>(id).await?.filter(|found| caller.owns(&found.object.spec));
    let Some(found) = found else { return Ok(false) };
    tokens::before_revoking(control, &found.object.spec).await?;
    control.objects.delete::<Token>(id, found.object.metadata.revision).await?;
    info!(user = caller.user.spec.name, token = id, "token revoked in the console");
    Ok(true)
}

async fn shown(control: &Control, signed: &Signed, notice: &Notice) -> Response {
    let listed = async {
        let clusters = signed.clusters(control).await?;
        let mut tokens: Vec<Object<Token>> = control.objects.list::<Token>().await?;
        tokens.retain(|token| signed.caller.owns(&token.spec));
        tokens.truncate(SHOWN_MAX);
        Ok::<_, Refused>((clusters, tokens))
    };
    match listed.await {
        Ok((clusters, tokens)) => {
            let own = signed.caller.token.spec.id.as_str();
            let downloads = control.door.is_some();
            Html(pages::home(&signed.session(), &clusters, downloads, &tokens, own, notice)).into_response()
        }
        Err(refused) => problem(refused.code(), "Drover does not answer", &sentence(refused.message())),
    }
}

async fn sign_in_page(control: &Control, user_code: &str, name: &str, notice: &Notice) -> Response {
    // However it was written on the way here.
    let waiting = control.devices.waiting(user_code, Instant::now());
    let for_here = waiting.as_ref().is_some_and(|waiting| waiting.is_here);
    let user_code = waiting.as_ref().map_or(user_code, |waiting| &waiting.user_code);
    match control.objects.list::<Provider>().await {
        Ok(providers) => {
            let on =
                providers.into_iter().map(|provider| provider.spec).filter(|provider| !provider.disabled);
            let (mut passwords, mut browsers) = (Vec::new(), Vec::new());
            for provider in on {
                match provider.directory {
                    Directory::Ldap(_) => passwords.push(provider.name),
                    Directory::Github(_) | Directory::Oidc(_) => browsers.push(provider.name),
                    Directory::Jwt(_) => {}
                }
            }
            let ways = Ways { passwords: &passwords, browsers: &browsers, for_here };
            Html(pages::sign_in(&ways, user_code, name, notice)).into_response()
        }
        Err(error) => {
            let refused = Refused::from(error);
            problem(refused.code(), "Drover does not answer", &sentence(refused.message()))
        }
    }
}

/// Whoever is signed in, if a page of theirs sent the form.
async fn theirs(control: &Control, headers: &HeaderMap, csrf: &str) -> Option<Signed> {
    let signed = Signed::of(control, headers).await?;
    let same: bool = signed.csrf.as_bytes().ct_eq(csrf.as_bytes()).into();
    (same && is_own_origin(control, headers)).then_some(signed)
}

fn is_own_origin(control: &Control, headers: &HeaderMap) -> bool {
    let own = control.console.as_ref().map(|console| console.as_str().as_bytes());
    own.is_some() && headers.get(ORIGIN).map(HeaderValue::as_bytes) == own
}

/// The value of a cookie. Two of the name are nobody's.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(of, _)| *of == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn csrf(token: &str) -> String {
    let digest = Sha256::new().chain_update(b"drover console form\0").chain_update(token).finalize();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Where whoever has signed in goes on: to the device that it was for, if there is one.
fn after(user_code: &str) -> String {
    if user_code.is_empty() {
        return HOME.to_owned();
    }
    format!("{DEVICE}?user_code={}", letters(user_code))
}

/// A code that somebody typed or sent, as an address or a cookie may have it.
fn letters(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).take(USER_CODE_CHARS_MAX).collect()
}

/// To another page.
fn go(to: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn session_cookie(response: &mut Response, token: &str, lasts_s: u64) {
    set_cookie(response, SESSION_COOKIE, token, lasts_s, "Strict");
}

/// For this host alone, over HTTPS, and for no script.
fn set_cookie(response: &mut Response, name: &str, value: &str, lasts_s: u64, same_site: &str) {
    let cookie = format!("{name}={value}; Max-Age={lasts_s}; Path=/; Secure; HttpOnly; SameSite={same_site}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn foreign() -> Response {
    let status = Status::failure(
        403,
        "Forbidden",
        "The form is not of this session: open the console, and try again.",
    );
    problem(StatusCode::FORBIDDEN, "That did not come from here", &status.message)
}

fn problem(code: StatusCode, title: &str, text: &str) -> Response {
    (code, Html(pages::message(title, &Notice::Problem(text.to_owned())))).into_response()
}

/// As people write one.
fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests;
