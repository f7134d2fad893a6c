//! From a password to a token.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{TokenKind, TokenScope, User};
use drover_api::rest::{self, Login};
use drover_api::status::Status;
use tracing::info;

use super::caller::Caller;
use super::{applied, tokens};
use crate::passwords::PasswordRefused;
use crate::routes::{Control, Refused};

pub(super) async fn login(
    State(control): State<Arc<Control>>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(Login { name, password }) = body?;
    wait(&control, &name)?;
    let found = control.objects.get::<User>(&name).await?;
    let kept = found.as_ref().and_then(|user| Some(user.secret.as_ref()?.password.as_str()));
    let is = check_password(&control, &password, kept).await?;
    // One answer to all: who guesses learns nothing.
    let user = found.map(|user| user.object.spec).filter(|user| is && !user.disabled).ok_or_else(|| {
        info!(user = name, "login refused");
        control.attempts.failed(&name, Instant::now());
        Refused::of(Status::failure(
            401,
            "Unauthorized",
            "the name or the password is wrong, or the user is disabled",
        ))
    })?;
    control.attempts.succeeded(&name);
    let made = {
        let _writes = control.begin_write().await;
        tokens::make(&control, &user, TokenKind::Login, TokenScope::All, None, SystemTime::now()).await?
    };
    info!(user = name, token = %made.object.spec.id, "login");
    let revision = made.object.metadata.revision;
    Ok(applied(&control, revision, StatusCode::CREATED, made).await)
}

pub(super) async fn who_am_i(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<rest::Caller>, Refused> {
    let Caller { user, token, .. } = Caller::of(&control, &headers).await?;
    Ok(Json(rest::Caller { user, token }))
}

/// Refuses a name with too many failures behind it.
pub(super) fn wait(control: &Control, name: &str) -> Result<(), Refused> {
    let Some(wait) = control.attempts.wait(name, Instant::now()) else { return Ok(()) };
    let message = format!("too many failed logins as {name:?}: try again in {} s", wait.as_secs() + 1);
    Err(Refused::of(Status::failure(429, "TooManyRequests", message)))
}

pub(super) async fn check_password(
    control: &Control,
    password: &str,
    kept: Option<&str>,
) -> Result<bool, Refused> {
    control.passwords.is(password, kept).await.map_err(|refused| match refused {
        PasswordRefused::Busy => Refused::of(Status::failure(429, "TooManyRequests", refused.to_string())),
        PasswordRefused::Length => Refused::of(Status::invalid("password", refused.to_string())),
    })
}
