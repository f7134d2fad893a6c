//! The REST API: what every kind is asked, and what is the same for all of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::header::WARNING;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete as delete_method, get, post};
use axum::{Json, Router};
use drover_api::kinds::{
    Binding, Cluster, Enrolment, Kind, Object, Provider, RegistrationToken, Role, Token, User,
};
use drover_api::openapi;
use drover_api::rest::{
    Created, DEVICE_AUTHORIZATION, DEVICE_TOKEN, GATEWAY, GATEWAYS, GROUPS, JWT, LOGIN, List, PASSWORD,
    PREFIX, PRINCIPALS, PROVIDER_SECRET, REFRESH_USER, RENEWAL, SELF, STATUS, Served, TEST_PROVIDER,
    TOKEN_USES, USER_TOKENS,
};
use drover_api::status::Status;
use serde::Serialize;
use tracing::info;

use crate::objects::{Kept, ObjectsError, Stored};
use crate::placed::{Place, Placed};
use crate::routes::{Control, Refused, unavailable};
use crate::store::{Expected, Revision, StoreError};

mod access;
pub(crate) mod caller;
mod device;
mod gateways;
mod groups;
mod jwt;
pub(crate) mod login;
mod password;
mod principals;
mod providers;
mod registration;
pub(crate) mod renewal;
mod status;
pub(crate) mod tokens;
mod users;

use caller::Caller;

/// How long an answer waits for gateways to serve from what was written.
const APPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How a kind is written. Whoever calls these holds the lock of all writes, but for those that try first.
trait Writes: Served + Kept + Placed {
    /// What is asked of others before one is made, and may take a while: nobody's write waits for it.
    fn try_to_create(
        _control: &Control,
        _caller: &Caller,
        _create: &Self::Create,
    ) -> impl Future<Output = Result<(), Refused>> + Send {
        std::future::ready(Ok(()))
    }

    /// The same before one is replaced, by a caller who may.
    fn try_to_replace(
        _control: &Control,
        _caller: &Caller,
        _current: &Stored<Self>,
        _next: &Self,
    ) -> impl Future<Output = Result<(), Refused>> + Send {
        std::future::ready(Ok(()))
    }

    fn create(
        control: &Control,
        caller: &Caller,
        create: Self::Create,
    ) -> impl Future<Output = Result<Created<Self>, Refused>> + Send;

    /// What may be replaced, and by what; of some kinds nothing.
    fn replace(
        _control: &Control,
        _caller: &Caller,
        _current: Stored<Self>,
        _next: Self,
    ) -> impl Future<Output = Result<Object<Self>, Refused>> + Send {
        let message = format!("a {} does not change: delete it and make another", Self::KIND);
        std::future::ready(Err(Refused::of(Status::failure(405, "MethodNotAllowed", message))))
    }

    /// Removes what means nothing without the object, or refuses where it must stay.
    fn before_delete(
        _control: &Control,
        _caller: &Caller,
        _object: &Self,
    ) -> impl Future<Output = Result<(), Refused>> + Send {
        std::future::ready(Ok(()))
    }

    /// What is remembered of an object that cannot be read, where it is remembered of others.
    fn before_delete_unread(
        _control: &Control,
        _key: &str,
    ) -> impl Future<Output = Result<(), Refused>> + Send {
        std::future::ready(Ok(()))
    }
}

pub(crate) fn router() -> Router<Arc<Control>> {
    Router::new()
        .route(LOGIN, post(login::login))
        .route(RENEWAL, post(renewal::renew))
        .route(JWT, post(jwt::log_in))
        .route(SELF, get(login::who_am_i))
        .route(openapi::PATH, get(async || Json(openapi::describe())))
        .route(DEVICE_AUTHORIZATION, post(device::begin))
        .route(DEVICE_TOKEN, post(device::token))
        .route(PASSWORD, post(password::change))
        .route(GROUPS, get(groups::list))
        .route(STATUS, get(status::read))
        .route(&format!("{PREFIX}/{}", Enrolment::PLURAL), get(list::<Enrolment>))
        .route(
            &format!("{PREFIX}/{}/{{key}}", Enrolment::PLURAL),
            get(read::<Enrolment>).delete(delete::<Enrolment>),
        )
        .route(GATEWAYS, get(gateways::list))
        .route(GATEWAY, delete_method(gateways::forget))
        .route(TOKEN_USES, get(tokens::uses))
        .route(USER_TOKENS, delete_method(tokens::revoke_all))
        .route(TEST_PROVIDER, post(providers::test))
        .route(PRINCIPALS, get(principals::search))
        .route(PROVIDER_SECRET, post(providers::change_secret))
        .route(REFRESH_USER, post(users::refresh))
        .merge(kind::<Binding>())
        .merge(kind::<Cluster>())
        .merge(kind::<Provider>())
        .merge(kind::<RegistrationToken>())
        .merge(kind::<Role>())
        .merge(kind::<Token>())
        .merge(kind::<User>())
}

fn kind<K: Writes>() -> Router<Arc<Control>> {
    let all = format!("{PREFIX}/{}", K::PLURAL);
    let one = format!("{all}/{{key}}");
    Router::new()
        .route(&all, get(list::<K>).post(create::<K>))
        .route(&one, get(read::<K>).put(replace::<K>).delete(delete::<K>))
}

async fn list<K: Writes>(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<List<K>>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let objects = control.objects.list::<K>().await?;
    let seen = objects.into_iter().filter(|object| caller.sees(&control, &object.spec));
    Ok(Json(List { items: seen.collect() }))
}

async fn read<K: Writes>(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Object<K>>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    Ok(Json(seen::<K>(&control, &caller, &key).await?.object))
}

async fn create<K: Writes>(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    body: Result<Json<K::Create>, JsonRejection>,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let Json(create) = body?;
    K::try_to_create(&control, &caller, &create).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    let created = K::create(&control, &caller, create).await?;
    drop(writing);
    let revision = created.object.metadata.revision;
    caller.wrote("created", &created.object.spec);
    Ok(applied(&control, revision, StatusCode::CREATED, created).await)
}

async fn replace<K: Writes>(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Object<K>>, JsonRejection>,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let Json(next) = body?;
    let current = replaceable::<K>(&control, &caller, &key, next.metadata.revision).await?;
    K::try_to_replace(&control, &caller, &current, &next.spec).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    let current = replaceable::<K>(&control, &caller, &key, next.metadata.revision).await?;
    if next.spec.key() != key {
        return Err(Refused::of(Status::invalid("spec", format!("is not {key:?}: a name does not change"))));
    }
    let replaced = K::replace(&control, &caller, current, next.spec).await?;
    drop(writing);
    let revision = replaced.metadata.revision;
    caller.wrote("replaced", &replaced.spec);
    Ok(applied(&control, revision, StatusCode::OK, replaced).await)
}

/// What the caller sees, and may change.
async fn changeable<K: Writes>(control: &Control, caller: &Caller, key: &str) -> Result<Stored<K>, Refused> {
    let current = seen::<K>(control, caller, key).await?;
    caller.may(control, "PUT", K::PLURAL, Some(key), &current.object.spec.place())?;
    Ok(current)
}

/// What the caller may replace, as it was at a revision: what was tried first is what is replaced.
async fn replaceable<K: Writes>(
    control: &Control,
    caller: &Caller,
    key: &str,
    revision: Revision,
) -> Result<Stored<K>, Refused> {
    let current = changeable::<K>(control, caller, key).await?;
    let found = current.object.metadata.revision;
    if revision == found {
        return Ok(current);
    }
    let expected = Expected::Revision(revision);
    Err(ObjectsError::from(StoreError::Conflict { expected, found: Some(found) }).into())
}

async fn delete<K: Writes>(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    let (revision, deleted) = {
        if let Err(ObjectsError::Malformed { .. } | ObjectsError::TooNew { .. }) =
            control.objects.get::<K>(&key).await
        {
            // It says neither where it is nor whose it is.
            caller.may(&control, "DELETE", K::PLURAL, Some(&key), &Place::Drover)?;
            caller.must_administer_for_good(&control)?;
            K::before_delete_unread(&control, &key).await?;
            let revision = control.objects.delete_unread::<K>(&key).await?;
            info!(user = caller.user.spec.name, kind = K::KIND, key, "deleted unread");
            drop(writing);
            return Ok(applied(&control, revision, StatusCode::OK, serde_json::json!({})).await);
        }
        let Stored { object, .. } = seen::<K>(&control, &caller, &key).await?;
        if !(K::OWNER_DELETES && caller.owns(&object.spec)) {
            caller.may(&control, "DELETE", K::PLURAL, Some(&key), &object.spec.place())?;
        }
        K::before_delete(&control, &caller, &object.spec).await?;
        (control.objects.delete::<K>(&key, object.metadata.revision).await?, object)
    };
    drop(writing);
    caller.wrote("deleted", &deleted.spec);
    Ok(applied(&control, revision, StatusCode::OK, deleted).await)
}

/// An object that the caller sees; of another, not even whether it is there is told.
async fn seen<K: Writes>(control: &Control, caller: &Caller, key: &str) -> Result<Stored<K>, Refused> {
    let found = control.objects.get::<K>(key).await?;
    found.filter(|found| caller.sees(control, &found.object.spec)).ok_or_else(|| {
        Refused::of(Status::failure(404, "NotFound", format!("{} {key:?} not found", K::PLURAL)))
    })
}

/// Answers once gateways serve from what was written; names those that do not yet.
async fn applied(control: &Control, revision: Revision, code: StatusCode, body: impl Serialize) -> Response {
    let late = control.gateways.wait_applied(revision, APPLY_TIMEOUT).await;
    let mut response = (code, Json(body)).into_response();
    if !late.is_empty() {
        warn(&mut response, &format!("gateways that have not applied it yet: {}", late.join(", ")));
    }
    if control.snapshots.state().aside().iter().next().is_some() {
        warn(&mut response, "objects in Drover's store are set aside as unsound: drover status names them");
    }
    response
}

fn warn(response: &mut Response, text: &str) {
    if let Ok(warning) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
        response.headers_mut().append(WARNING, warning);
    }
}

/// A field that has to be one of ours.
fn field<T, E: std::fmt::Display>(field: &str, parsed: Result<T, E>) -> Result<T, Refused> {
    parsed.map_err(|error| Refused::of(Status::invalid(field, error.to_string())))
}

impl From<ObjectsError> for Refused {
    fn from(error: ObjectsError) -> Self {
        match &error {
            ObjectsError::Store(StoreError::Conflict { expected, .. }) => {
                let reason = match expected {
                    Expected::Absent => "AlreadyExists",
                    Expected::Revision(_) => "Conflict",
                };
                Self::of(Status::failure(409, reason, error.to_string()))
            }
            ObjectsError::Behind => {
                let message = "control is behind with what was written before: try again in a moment";
                Self::of(Status::failure(503, "ServiceUnavailable", message))
            }
            ObjectsError::Unsound { unsound, .. } => {
                let field = match unsound.field {
                    "" => "spec".to_owned(),
                    field => format!("spec.{field}"),
                };
                Self::of(Status::invalid(&field, unsound.problem.clone()))
            }
            ObjectsError::Malformed { .. }
            | ObjectsError::Sealed { .. }
            | ObjectsError::Store(_)
            | ObjectsError::TooNew { .. } => Self::of(unavailable(&error)),
        }
    }
}

#[cfg(test)]
mod races;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod soundness;
#[cfg(test)]
pub(crate) mod tests;
