//! Groups, which nobody makes: they are where a user is in one, or a binding names one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use drover_api::kinds::{Binding, User};
use drover_api::rest::{Group, Groups};
use drover_policy::Principal;

use super::caller::Caller;
use crate::routes::{Control, Refused};

/// Those of the users and bindings that the caller sees.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<Groups>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let users = control.objects.list::<User>().await?.into_iter().map(|user| user.spec);
    let bindings = control.objects.list::<Binding>().await?.into_iter().map(|binding| binding.spec);
    let users = users.filter(|user| caller.sees(&control, user));
    let bindings = bindings.filter(|binding| caller.sees(&control, binding));
    let mut groups = gather(users, bindings);
    for group in &mut groups {
        group.name = control.group_names.name(&group.principal);
    }
    Ok(Json(Groups { items: groups }))
}

/// By principal; names within one are sorted, too.
fn gather(users: impl Iterator<Item = User>, bindings: impl Iterator<Item = Binding>) -> Vec<Group> {
    let mut groups: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for User { name, groups: of, .. } in users {
        for group in of {
            groups.entry(group).or_default().0.push(name.clone());
        }
    }
    for Binding { name, principal, .. } in bindings {
        if Principal::parse(&principal).is_ok_and(|principal| principal.is_group()) {
            groups.entry(principal).or_default().1.push(name);
        }
    }
    let group = |(principal, (mut members, mut bindings)): (String, (Vec<String>, Vec<String>))| {
        members.sort_unstable();
        bindings.sort_unstable();
        Group { principal, name: None, members, bindings }
    };
    groups.into_iter().map(group).collect()
}
