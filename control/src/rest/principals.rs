//! Searches of directories: who gives a role to somebody who has not logged in yet needs the principal.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use drover_api::kinds::Provider;
use drover_api::rest::{FoundPrincipal, Principals};
use drover_api::status::Status;
use serde::Deserialize;
use tokio::time::timeout;

use super::caller::Caller;
use super::changeable;
use crate::people;
use crate::providers::{self, Match, Matches, NotSearched, Unavailable};
use crate::routes::{Control, Refused};

const TEXT_BYTES_MAX: usize = 256;
/// Users that are shown, and groups.
const SHOWN_MAX: usize = 50;
/// Of the whole search.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    name: String,
}

/// For those who may change the provider: it is asked with a password that is not the caller's.
pub(super) async fn search(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    query: Result<Query<Search>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Json<Principals>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let kept = changeable::<Provider>(&control, &caller, &key).await?;
    let text = query.map(|Query(search)| search.name).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let problem = format!("name what to search for, as ?name=TEXT of 1 to {TEXT_BYTES_MAX} bytes");
        return Err(Refused::of(Status::invalid("name", problem)));
    }
    let (name, password) = (&kept.object.spec.name, kept.secret.map(|secret| secret.password));
    let search = async {
        let directory = providers::open(&kept.object.spec, &password.unwrap_or_default())?;
        directory.search(text, SHOWN_MAX + 1).await
    };
    let searched = timeout(TIMEOUT, search).await;
    let searched = searched.unwrap_or_else(|_| Err(Unavailable(format!("none within {TIMEOUT:?}")).into()));
    let Matches { users, groups } = searched.map_err(|refused| not_searched(name, &refused))?;
    control.group_names.note(name, groups.iter().map(|group| (group.id.as_str(), group.name.as_str())));
    let more = users.len() > SHOWN_MAX || groups.len() > SHOWN_MAX;
    let users = users.into_iter().take(SHOWN_MAX).map(|user| (people::principal(name, &user.id), user));
    let groups = groups.into_iter().take(SHOWN_MAX).map(|group| (people::group(name, &group.id), group));
    let found = |(principal, Match { name, display_name, dn, .. })| FoundPrincipal {
        principal,
        name,
        display_name,
        dn,
    };
    Ok(Json(Principals { items: groups.chain(users).map(found).collect(), more }))
}

fn not_searched(name: &str, refused: &NotSearched) -> Refused {
    Refused::of(match refused {
        NotSearched::NoSearch(why) => Status::invalid("key", why.replace("NAME", name)),
        NotSearched::Unavailable(_) => Status::failure(503, "ServiceUnavailable", refused.to_string()),
    })
}
