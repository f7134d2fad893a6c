//! What is answered where.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use drover_api::enrolment::{self, Answer};
use drover_api::kinds::{Holder, Process};
use drover_api::status::Status;
use drover_api::sync::FOLLOW;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::attempts::Attempts;
use crate::config::Origin;
use crate::console;
use crate::devices::Devices;
use crate::enrolment::{Enroller, EnrolmentRefused};
use crate::gateways::Gateways;
use crate::group_names::GroupNames;
use crate::issuers::Issuers;
use crate::listener::Peer;
use crate::objects::Objects;
use crate::passwords::Passwords;
use crate::renewals::Renewals;
use crate::rest;
use crate::snapshots::Snapshots;
use crate::uses::Uses;

/// How long a process that enrols waits for gateways to know of it.
const ENROLLED_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 << 10;

/// Everything that requests need.
pub(crate) struct Control {
    pub objects: Objects,
    pub passwords: Passwords,
    pub attempts: Attempts,
    pub devices: Devices,
    pub issuers: Issuers,
    pub uses: Arc<Uses>,
    pub group_names: Arc<GroupNames>,
    pub logins: Logins,
    pub renewals: Renewals,
    /// Where browsers reach the console; absent where there is none.
    pub console: Option<Origin>,
    /// Where clients reach gateways; absent where control was not told.
    pub door: Option<Door>,
    /// Held by whoever writes, so that what was checked is still so when it is written.
    pub writes: Mutex<()>,
    pub enrolment: Enroller,
    pub snapshots: Arc<Snapshots>,
    pub gateways: Arc<Gateways>,
    /// Calls of gateways, which outlive the requests that began them.
    pub calls: TaskTracker,
}

/// How long they last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logins {
    /// One token.
    pub lifetime: Duration,
    /// From the login on, until which its tokens may be renewed.
    pub session: Duration,
}

/// Where clients reach gateways.
pub(crate) struct Door {
    pub url: Origin,
    /// Of its certificate, as PEM; absent where clients' systems know it.
    pub ca: Option<String>,
}

impl Control {
    /// Whether a certificate goes back to an enrolment that is kept.
    pub(crate) fn is_enrolled(&self, holder: &Holder) -> bool {
        let enrolment = holder.enrolment.as_ref();
        enrolment.is_some_and(|enrolment| self.snapshots.state().has_enrolment(enrolment))
    }
}

/// A refusal on its way out.
pub(crate) struct Refused(Box<Status>);

impl Refused {
    pub(crate) fn of(status: Status) -> Self {
        Self(Box::new(status))
    }

    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::of(Status::failure(401, "Unauthorized", message))
    }

    pub(crate) fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

pub(crate) fn router(control: Arc<Control>) -> Router {
    let console = if control.console.is_some() { console::router() } else { Router::new() };
    Router::new()
        .merge(console)
        .route(enrolment::PATH, post(certificates))
        .route(FOLLOW, post(follow))
        .merge(rest::router())
        .fallback(async || Refused::of(Status::failure(404, "NotFound", "there is nothing here")))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

async fn certificates(
    State(control): State<Arc<Control>>,
    request: Result<Json<enrolment::Request>, JsonRejection>,
) -> Result<Json<Answer>, Refused> {
    let Json(request) = request?;
    let answer = control.enrolment.enrol(request, SystemTime::now()).await?;
    // Gateways that do not know of it yet would refuse the process.
    control.gateways.wait_applied(control.written(), ENROLLED_TIMEOUT).await;
    Ok(Json(answer))
}

/// Only gateways may follow: what is pushed names every user and every rule.
async fn follow(
    State(control): State<Arc<Control>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> http::Response<drover_sync::Body> {
    let holder = peer.filter(|holder| control.is_enrolled(holder));
    let Some((Process::Gateway(name), holder)) = holder.map(|holder| (holder.process.clone(), holder)) else {
        let problem = "only a gateway may follow, by a certificate of an enrolment that is kept";
        return drover_sync::Status::permission_denied(problem).into_http();
    };
    let (calls, snapshots, gateways) =
        (control.calls.clone(), control.snapshots.clone(), control.gateways.clone());
    drover_sync::serve(request, move |from, to| {
        calls.spawn(gateways.push(name, holder, snapshots, from, to));
    })
    .await
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.code(), Json(self.0)).into_response()
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        let reason = match rejection.status().as_u16() {
            413 => "RequestEntityTooLarge",
            415 => "UnsupportedMediaType",
            _ => "BadRequest",
        };
        Self::of(Status::failure(rejection.status().as_u16(), reason, rejection.body_text()))
    }
}

impl From<EnrolmentRefused> for Refused {
    fn from(refused: EnrolmentRefused) -> Self {
        let message = refused.to_string();
        info!(problem = message, "enrolment refused");
        Self::of(match refused {
            EnrolmentRefused::CertificateInvalid | EnrolmentRefused::TokenInvalid => {
                Status::failure(401, "Unauthorized", message)
            }
            EnrolmentRefused::ClusterUnknown | EnrolmentRefused::EnrolmentGone => {
                Status::failure(403, "Forbidden", message)
            }
            EnrolmentRefused::Csr(_) | EnrolmentRefused::CsrTooLarge => Status::invalid("csr", message),
            EnrolmentRefused::Unavailable(error) => unavailable(&error),
        })
    }
}

/// What went wrong inside is for the log alone.
pub(crate) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Status {
    error!(error, "a request failed");
    Status::failure(500, "InternalError", "control failed: its log says why")
}
