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

#[cfg(test)]
mod tests {
    use drover_api::kinds::Domain;
    use serde_json::json;

    use super::*;
    use crate::rest::tests::served;

    #[tokio::test]
    async fn groups_are_those_of_the_users_and_bindings_that_one_sees() {
        let served = served().await;
        let admin = served.user("root", &[("admin", Domain::Global)]).await;
        let owner = served.user("owner", &[("cluster-owner", Domain::Cluster("c-1".into()))]).await;
        for (name, groups) in [("zoe", ["dev", "ops"].as_slice()), ("adam", &["ops"]), ("none", &[])] {
            let groups: Vec<_> = groups.iter().map(|group| format!("local:group/{group}")).collect();
            let user = json!({ "name": name, "groups": groups, "password": "correct horse" });
            assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(user)).await.0, 201);
        }
        for (name, principal, domain) in [
            ("everywhere", "local:group/ops", Domain::Global),
            ("corps", "corp:group/S-1-5-21-7", Domain::Cluster("c-1".into())),
            ("users", "oidc:user/a:group/b", Domain::Cluster("c-1".into())),
        ] {
            let (name, principal) = (name.to_owned(), principal.to_owned());
            let binding =
                Binding { name, principal, role: "cluster-viewer".into(), domain, expires_at: None };
            served.control.objects.create(&binding, None).await.unwrap();
        }
        let login = json!({ "name": "zoe", "password": "correct horse" });
        let zoe =
            served.ask("", "POST", "/v1/login", Some(login)).await.1["secret"].as_str().unwrap().to_owned();
        let group = |principal: &str, members: &[&str], bindings: &[&str]| json!({ "principal": principal, "members": members, "bindings": bindings });
        let corps = group("corp:group/S-1-5-21-7", &[], &["corps"]);
        for (token, groups) in [
            (
                &admin,
                vec![
                    corps.clone(),
                    group("local:group/dev", &["zoe"], &[]),
                    group("local:group/ops", &["adam", "zoe"], &["everywhere"]),
                ],
            ),
            (&owner, vec![corps]),
            (&zoe, vec![group("local:group/dev", &["zoe"], &[]), group("local:group/ops", &["zoe"], &[])]),
        ] {
            assert_eq!(served.ask(token, "GET", "/v1/groups", None).await, (200, json!({ "items": groups })));
        }
        assert_eq!(served.ask("", "GET", "/v1/groups", None).await.0, 401);
    }
}
