//! The policy's refusals, phrased as Kubernetes phrases its own, so that people and tools read them alike:
//! `configmaps is forbidden: User "bob" cannot create resource "configmaps" in API group "" in the
//! namespace "default": ` and then our reason.

use std::fmt::Write;

use drover_policy::{Attributes, Refusal, Resource, Target};

use super::{About, Rendered, rendered};

/// `named` is what the cluster is called in a sentence.
pub(super) fn forbidden(user: &str, refusal: &Refusal, named: &str) -> Rendered {
    match refusal {
        Refusal::ClusterUnknown(_) => {
            rendered(404, "NotFound", "ClusterUnknown", format!("{named} not found"))
        }
        Refusal::Denied(attributes) => {
            status("PolicyDenied", user, attributes, &format!("a deny rule for {named} concerns it"))
        }
        Refusal::NoRole(attributes) => {
            status("PolicyNoRole", user, attributes, &format!("the user has no role in {named}"))
        }
        Refusal::NotPermitted(attributes) => status(
            "PolicyNotPermitted",
            user,
            attributes,
            &format!("no role of the user in {named} allows it"),
        ),
        Refusal::PolicyExpired => rendered(
            503,
            "ServiceUnavailable",
            "SnapshotStale",
            "this gateway's policy is too old to decide by",
        ),
    }
}

fn status(cause: &'static str, user: &str, attributes: &Attributes, why: &str) -> Rendered {
    let mut message = String::new();
    let mut about = None;
    match attributes.target() {
        Target::NonResource(_) => message.push_str("forbidden: "),
        Target::Resource(resource) => {
            message.push_str(&subject(resource));
            message.push_str(" is forbidden: ");
            about = Some(About {
                group: resource.group().to_owned(),
                kind: resource.resource().to_owned(),
                name: resource.name().unwrap_or_default().to_owned(),
            });
        }
    }
    write!(message, "User {user:?} cannot {attributes}: {why}").expect("a String takes all");
    Rendered { about, ..rendered(403, "Forbidden", cause, message) }
}

/// `pods`, `deployments.apps "web"`.
fn subject(resource: &Resource) -> String {
    let mut text = resource.resource().to_owned();
    if !resource.group().is_empty() {
        text.push('.');
        text.push_str(resource.group());
    }
    if let Some(name) = resource.name() {
        write!(text, " {name:?}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let cases = [
            (
                ("POST", "/api/v1/namespaces/default/configmaps"),
                r#"configmaps is forbidden: User "bob" cannot create resource "configmaps" in API group "" in the namespace "default": the user has no role in cluster "one""#,
            ),
            (
                ("DELETE", "/apis/apps/v1/namespaces/web/deployments/shop"),
                r#"deployments.apps "shop" is forbidden: User "bob" cannot delete resource "deployments" in API group "apps" in the namespace "web": the user has no role in cluster "one""#,
            ),
            (
                ("GET", "/api/v1/nodes"),
                r#"nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope: the user has no role in cluster "one""#,
            ),
            (
                ("GET", "/metrics"),
                r#"forbidden: User "bob" cannot get path "/metrics": the user has no role in cluster "one""#,
            ),
        ];
        for ((method, path), expected) in cases {
            let attributes = Box::new(Attributes::parse(method, path, None).unwrap());
            let rendered = forbidden("bob", &Refusal::NoRole(attributes), "cluster \"one\"");
            assert_eq!((rendered.code.as_u16(), rendered.message.as_str()), (403, expected));
        }
    }
}
