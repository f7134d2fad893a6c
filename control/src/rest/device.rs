//! Logins that a person grants in the console: a program asks here (RFC 8628), or shows the code that a browser
//! brought it (RFC 8252).

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use drover_api::rest::{CLIENT_ID, CODE_GRANT, DEVICE_GRANT, DeviceAuthorization, DeviceError, DeviceToken};
use drover_api::status::Status;
use serde::Deserialize;
use tracing::info;

use super::caller::Writing;
use super::tokens::Login;
use super::{applied, tokens};
use crate::console;
use crate::devices::{Asked, Grant, INTERVAL, LIFETIME};
use crate::listener::Client;
use crate::routes::{Control, Refused};

#[derive(Deserialize)]
pub(super) struct Begin {
    client_id: String,
}

#[derive(Deserialize)]
pub(super) struct Ask {
    client_id: String,
    grant_type: String,
    #[serde(default)]
    device_code: String,
    /// Of a program that a browser brought a code.
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
}

pub(super) async fn begin(
    State(control): State<Arc<Control>>,
    Client(client): Client,
    form: Result<Form<Begin>, FormRejection>,
) -> Response {
    let Some(console) = &control.console else {
        let message = "there is no console to grant a login in: log in with a name and a password";
        return Refused::of(Status::failure(404, "NotFound", message)).into_response();
    };
    match form {
        Ok(Form(Begin { client_id })) if client_id == CLIENT_ID => {}
        Ok(_) => return refused("invalid_client"),
        Err(_) => return refused("invalid_request"),
    }
    let Some(begun) = control.devices.begin(client, None, Instant::now()) else {
        let retry = [(RETRY_AFTER, LIFETIME.as_secs().to_string())];
        let status = Status::failure(429, "TooManyRequests", "too many logins wait to be granted");
        return (retry, Refused::of(status)).into_response();
    };
    let verification_uri = format!("{}{}", console.as_str(), console::DEVICE);
    let authorization = DeviceAuthorization {
        verification_uri_complete: format!("{verification_uri}?user_code={}", begun.user_code),
        verification_uri,
        device_code: begun.device_code,
        user_code: begun.user_code,
        expires_in: LIFETIME.as_secs(),
        interval: INTERVAL.as_secs(),
    };
    ([(CACHE_CONTROL, "no-store")], Json(authorization)).into_response()
}

pub(super) async fn token(
    State(control): State<Arc<Control>>,
    form: Result<Form<Ask>, FormRejection>,
) -> Response {
    let Ok(Form(Ask { client_id, grant_type, device_code, code, redirect_uri, code_verifier })) = form else {
        return refused("invalid_request");
    };
    let (code_grant, now) = (grant_type == CODE_GRANT, Instant::now());
    // With the lock, nothing takes the grant back before its login is there to be ended.
    let writing = if control.devices.is_granted(if code_grant { &code } else { &device_code }) {
        match control.begin_write().await {
            Ok(writing) => Some(writing),
            Err(error) => return Refused::from(error).into_response(),
        }
    } else {
        None
    };
    if client_id == CLIENT_ID && code_grant {
        let grant = control.devices.exchange(&code, &redirect_uri, &code_verifier, now);
        return match grant.zip(writing) {
            Some((grant, writing)) => {
                granted(&control, &grant, writing).await.unwrap_or_else(Refused::into_response)
            }
            None => refused("invalid_grant"),
        };
    }
    if client_id != CLIENT_ID {
        return refused("invalid_client");
    }
    if grant_type != DEVICE_GRANT {
        return refused("unsupported_grant_type");
    }
    match control.devices.ask(&device_code, writing.is_some(), now) {
        Asked::Denied => refused("access_denied"),
        Asked::Expired => refused("expired_token"),
        Asked::Pending => refused("authorization_pending"),
        Asked::TooSoon => refused("slow_down"),
        Asked::Granted(grant) => match writing {
            Some(writing) => granted(&control, &grant, writing).await.unwrap_or_else(Refused::into_response),
            None => refused("authorization_pending"),
        },
    }
}

async fn granted(control: &Control, grant: &Grant, writing: Writing<'_>) -> Result<Response, Refused> {
    let now = SystemTime::now();
    let made = {
        let user =
            control.snapshots.state().published_user(&grant.principal).filter(|user| !user.spec.disabled);
        let Some(user) = user else { return Ok(refused("access_denied")) };
        {
            let login = grant.session.as_ref().map_or(Login::New, Login::Granted);
            (tokens::log_in(control, &user.spec, login, now).await?, user.spec.name)
        }
    };
    drop(writing);
    let (made, user) = made;
    let spec = &made.object.spec;
    info!(user, token = %spec.id, "login granted to a program");
    let lasts = SystemTime::from(spec.expires_at).duration_since(now).unwrap_or_default();
    let token = DeviceToken {
        access_token: made.secret.unwrap_or_default(),
        token_type: "Bearer".to_owned(),
        expires_in: lasts.as_secs(),
        expires_at: spec.expires_at,
        renewable_at: spec.renewable_at(),
        user,
    };
    let mut response = applied(control, made.object.metadata.revision, StatusCode::OK, token).await;
    response.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    Ok(response)
}

fn refused(error: &str) -> Response {
    let error = DeviceError { error: error.to_owned() };
    (StatusCode::BAD_REQUEST, [(CACHE_CONTROL, "no-store")], Json(error)).into_response()
}
