//! Passwords of users who are there: one's own with the one that it replaces, another's by a rule.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{Kind, Token, TokenKind, User};
use drover_api::rest::{ChangePassword, Created};
use drover_api::status::Status;

use super::caller::{Caller, subject};
use super::login::{check_password, wait};
use super::{applied, field, seen};
use crate::attempts::Try;
use crate::listener::Client;
use crate::objects::{Stored, UserSecret};
use crate::passwords;
use crate::people::{end_tokens, is_local};
use crate::placed::Place;
use crate::routes::{Control, Refused};

/// Passwords that a user had and does not get again, beside the one that is: each costs a slow hash to compare.
const FORMER_MAX: usize = 4;

/// Whoever is logged in by the former password is not any more, but for the caller.
pub(super) async fn change(
    State(control): State<Arc<Control>>,
    Client(client): Client,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Result<Json<ChangePassword>, JsonRejection>,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let Json(ChangePassword { current, password }) = body?;
    let user = seen::<User>(&control, &caller, &key).await?;
    if !is_local(&user.object.spec) {
        let message = "the password is the directory's: it is changed there";
        return Err(Refused::of(Status::failure(400, "BadRequest", message)));
    }
    if user.object.spec.principal == caller.user.spec.principal {
        let Some(current) = current else {
            return Err(Refused::of(Status::invalid(
                "current",
                "one's own password is changed with the one that is",
            )));
        };
        let who = Try::new(&key, client);
        wait(&control, &key, &who)?;
        let kept = user.secret.as_ref().map(|secret| secret.password.as_str());
        if !check_password(&control, &current, kept).await? {
            control.attempts.failed(&who, Instant::now());
            return Err(Refused::of(Status::invalid("current", "is not the password")));
        }
    } else {
        caller.may(&control, "PUT", User::PLURAL, Some(&key), &Place::Drover)?;
    }
    if let (Some(next), Some(kept)) = (&password, &user.secret) {
        for before in [&kept.password].into_iter().chain(&kept.former) {
            if check_password(&control, next, Some(before)).await? {
                return Err(Refused::of(Status::invalid(
                    "password",
                    "was the user's before: choose another",
                )));
            }
        }
    }
    let (mut secret, drawn) = given_or_drawn(&control, password).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    let object = {
        let Stored { object: now, secret: before } = seen::<User>(&control, &caller, &key).await?;
        if now.spec.principal != caller.user.spec.principal {
            caller.may(&control, "PUT", User::PLURAL, Some(&key), &Place::Drover)?;
            caller.must_have_just_logged_in()?;
            let theirs =
                subject(&now.spec).ok_or_else(|| Refused::of(Status::invalid("spec", "is not sound")))?;
            caller.must_hold_all_of(&control, &theirs)?;
        }
        let is = |secret: &Option<UserSecret>| secret.as_ref().map(|secret| secret.password.clone());
        if now.spec.principal != user.object.spec.principal || is(&before) != is(&user.secret) {
            let message = "the password was changed meanwhile: try again";
            return Err(Refused::of(Status::failure(409, "Conflict", message)));
        }
        let user = now;
        let former = before.into_iter().flat_map(|before| [before.password].into_iter().chain(before.former));
        secret.former = former.take(FORMER_MAX).collect();
        let object = control.objects.update(user.metadata.revision, &user.spec, Some(&secret)).await?;
        let other_logins = |token: &Token| {
            let logged_in = token.kind == TokenKind::Login && token.user == user.spec.principal;
            logged_in && token.id != caller.token.spec.id
        };
        end_tokens(&control, other_logins).await?;
        control.devices.forget(&user.spec.principal);
        object
    };
    drop(writing);
    caller.wrote("password changed", &object.spec);
    let revision = control.written();
    Ok(applied(&control, revision, StatusCode::OK, Created { object, secret: drawn }).await)
}

/// A password as it is kept; and, where none was given, the one that was drawn, to be shown.
pub(super) async fn given_or_drawn(
    control: &Control,
    password: Option<String>,
) -> Result<(UserSecret, Option<String>), Refused> {
    let drawn = password.is_none().then(passwords::generate);
    let password = password.or_else(|| drawn.clone()).unwrap_or_default();
    let kept = field("password", control.passwords.hash(&password).await)?;
    Ok((UserSecret { password: kept, former: Vec::new() }, drawn))
}

#[cfg(test)]
mod tests;
