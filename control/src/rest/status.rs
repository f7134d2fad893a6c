//! What keeps Drover itself from being whole, for whoever may mend it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use drover_api::kinds::{Kind, Token};
use drover_api::rest::{DroverStatus, SetAside};

use super::caller::Caller;
use crate::placed::Place;
use crate::routes::{Control, Refused};

/// Objects that are named in one answer.
const NAMED_MAX: usize = 100;
const PLURAL: &str = "status";

pub(super) async fn read(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<DroverStatus>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    caller.may(&control, "GET", PLURAL, None, &Place::Drover)?;
    let state = control.snapshots.state();
    let mut all: Vec<_> = state.aside().iter().collect();
    // Tokens are set aside with their users.
    all.sort_by_key(|aside| aside.kind == Token::KIND);
    let named = all.iter().take(NAMED_MAX).map(|aside| SetAside {
        kind: aside.kind.to_owned(),
        key: aside.key.clone(),
        problem: aside.unsound.to_string(),
    });
    Ok(Json(DroverStatus { set_aside: named.collect(), set_aside_total: all.len() }))
}
