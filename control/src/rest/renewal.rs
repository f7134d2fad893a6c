//! The next token of a login, for a program that nobody sits at.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{Provider, Session, Token, User};
use drover_api::rest::{Created, RenewLogin};
use drover_api::status::Status;
use jiff::Timestamp;
use tracing::{info, warn};

use super::caller::Caller;
use super::{applied, field, tokens};
use crate::objects::ObjectsError;
use crate::people::{end_tokens, is_local};
use crate::renewals::{self, Program};
use crate::routes::{Control, Refused};

const PROGRAM_BYTES_MAX: usize = 128;

/// The one before lasts until its own end: programs hold it still.
pub(super) async fn renew(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    // Programs from before say nothing.
    let RenewLogin { program: said } = match &body[..] {
        [] => RenewLogin::default(),
        body => field("body", serde_json::from_slice(body))?,
    };
    if said.as_ref().is_some_and(|said| said.is_empty() || said.len() > PROGRAM_BYTES_MAX) {
        return Err(Refused::of(Status::invalid("program", "must be 1 to 128 bytes")));
    }
    let program = said.map(|said| renewals::program(&said));
    let (caller, writing) = caller.begin_write(&control).await?;
    let made = next(&control, &caller, program.as_ref()).await?;
    drop(writing);
    info!(user = caller.user.spec.name, token = %made.object.spec.id, of = %caller.token.spec.id, "a login's next token is given out");
    Ok(applied(&control, made.object.metadata.revision, StatusCode::CREATED, made).await)
}

async fn next(
    control: &Control,
    caller: &Caller,
    program: Option<&Program>,
) -> Result<Created<Token>, Refused> {
    let forbidden = |message: &str| Refused::of(Status::failure(403, "Forbidden", message));
    let (token, user) = (&caller.token, &caller.user.spec);
    let Some(session) = &token.spec.session else {
        return Err(forbidden("only the token of a login is renewed: drover token create makes others"));
    };
    let again = || control.renewals.again(&token.spec.id, program?, Instant::now());
    if session.renewed
        && let Some(next) = again()
        && control.snapshots.state().token(next.object.spec.id.as_str()).is_some()
    {
        return Ok(next);
    }
    if session.renewed {
        let ended = end_tokens(control, |other| is_of(other, session)).await?;
        warn!(
            user = user.name,
            tokens = ended.len(),
            "a login was renewed twice, and has ended: it was copied"
        );
        let message = "the login was renewed before: a copy of its token is in use somewhere, so it has ended \
                       everywhere. drover login begins another";
        return Err(Refused::unauthorized(message));
    }
    if Timestamp::try_from(caller.now).unwrap_or_default() < session.renewable_at {
        let message = if session.renewable_at < session.ends_at {
            format!("the token may be renewed from {} on", session.renewable_at)
        } else {
            format!("the login ends at {}: drover login begins another", session.ends_at)
        };
        return Err(Refused::of(Status::failure(409, "Conflict", message)));
    }
    if !is_on(control, user).await? {
        return Err(forbidden("nobody logs in through the user's provider now"));
    }
    let made = tokens::log_in(control, user, tokens::Login::Next(session), caller.now).await?;
    let renewed = Session { renewed: true, ..session.clone() };
    let renewed = Token { session: Some(renewed), ..token.spec.clone() };
    control.objects.update(token.metadata.revision, &renewed, None).await?;
    if let Some(program) = program {
        control.renewals.note(token.spec.id.clone(), *program, made.clone(), Instant::now());
    }
    Ok(made)
}

/// With a token those end that were made with it, and with a login's the others of its session. Whoever calls it holds
/// the lock of all writes.
pub(crate) async fn end_others(control: &Control, token: &Token) -> Result<(), ObjectsError> {
    let has_made = control.snapshots.state().has_made(&token.id);
    if has_made {
        end_tokens(control, |other| other.made_by.as_ref() == Some(&token.id)).await?;
    }
    let Some(session) = &token.session else { return Ok(()) };
    // Of one that was never renewed there are none.
    if session.renewed || session.id != token.id {
        end_tokens(control, |other| is_of(other, session) && other.id != token.id).await?;
    }
    Ok(())
}

fn is_of(token: &Token, session: &Session) -> bool {
    token.session.as_ref().is_some_and(|of| of.id == session.id)
}

/// Whether people may log in where the user comes from.
async fn is_on(control: &Control, user: &User) -> Result<bool, Refused> {
    if is_local(user) {
        return Ok(true);
    }
    let name = user.principal.split_once(':').map(|(name, _)| name).unwrap_or_default();
    let provider = control.objects.get::<Provider>(name).await?;
    Ok(provider.is_some_and(|provider| !provider.object.spec.disabled))
}

#[cfg(test)]
mod tests;
