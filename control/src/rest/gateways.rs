//! The gateways that control knows, and those that are gone for good.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use drover_api::rest::{GatewayStatus, Gateways};
use drover_api::status::Status;
use tracing::info;

use super::caller::Caller;
use crate::placed::Place;
use crate::routes::{Control, Refused};

const PLURAL: &str = "gateways";

pub(super) async fn list(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<Gateways>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    caller.may(&control, "GET", PLURAL, None, &Place::Drover)?;
    let revision = control.snapshots.published().borrow().revision;
    Ok(Json(Gateways { items: control.gateways.list(), revision }))
}

/// One that still follows stays: it would only come back.
pub(super) async fn forget(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<GatewayStatus>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let (caller, _writing) = caller.begin_write(&control).await?;
    caller.may(&control, "DELETE", PLURAL, Some(&name), &Place::Drover)?;
    let known = control.gateways.list().into_iter().find(|gateway| gateway.name == name);
    let Some(known) = known else {
        return Err(Refused::of(Status::failure(404, "NotFound", format!("gateways {name:?} not found"))));
    };
    if !control.gateways.forget_gone(&name).await? {
        let message = format!("gateway {name:?} follows control: stop it first");
        return Err(Refused::of(Status::failure(409, "Conflict", message)));
    }
    info!(user = caller.user.spec.name, gateway = name, "gateway forgotten");
    Ok(Json(known))
}
