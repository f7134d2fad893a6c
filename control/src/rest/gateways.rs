//! The gateways that control knows, and those that are gone for good.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use drover_api::kinds::{Enrolment, Kind, Process};
use drover_api::rest::{GatewayStatus, Gateways};
use drover_api::status::Status;
use tracing::info;

use super::caller::Caller;
use super::registration::end_registrations;
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

/// Ends a gateway: what it enrolled with, what it follows by, and what is known of it.
pub(super) async fn forget(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<GatewayStatus>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    caller.may(&control, "DELETE", PLURAL, Some(&name), &Place::Drover)?;
    let enrolments = control.objects.list::<Enrolment>().await?.into_iter();
    let its = enrolments.filter(|of| matches!(&of.spec.process, Process::Gateway(of) if *of == name));
    let its: Vec<_> = its.collect();
    let known = control.gateways.list().into_iter().find(|gateway| gateway.name == name);
    if known.is_none() && its.is_empty() {
        return Err(Refused::of(Status::failure(404, "NotFound", format!("gateways {name:?} not found"))));
    }
    for enrolment in its {
        end_registrations(&control, &enrolment.spec.process).await?;
        control.objects.delete::<Enrolment>(enrolment.spec.key(), enrolment.metadata.revision).await?;
    }
    drop(writing);
    info!(user = caller.user.spec.name, gateway = name, "gateway ended");
    if !control.gateways.forget_once_gone(&name).await? {
        let message = format!("gateway {name:?} is ended, and has not let go yet: try again in a moment");
        return Err(Refused::of(Status::failure(503, "ServiceUnavailable", message)));
    }
    Ok(Json(known.unwrap_or(GatewayStatus { name, revision: None, gone_s: None })))
}
