//! What a cluster must hold for its agent: a service account that may impersonate and nothing else, and
//! the built-in roles, each bound to the group that stands for it.
//!
//! Users get their rights in a cluster from these groups alone. The gateway decides by the same rules, so
//! both layers allow the same; a request that lost its identity on the way runs as the agent, which may do
//! nothing.

use drover_policy::{Effect, Role, Rule, templates};
use serde_json::{Value, json};

use crate::identity::EXTRA_KEYS;

pub const NAMESPACE: &str = "drover-system";
pub const SERVICE_ACCOUNT: &str = "drover-agent";
/// The agent's ClusterRole and its binding.
const AGENT: &str = "drover:agent";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Every object, in the order in which to apply them, as a `v1` List.
pub fn rbac() -> Value {
    let mut items =
        vec![namespace(), service_account(), cluster_role(AGENT, vec![impersonates()]), agent_binding()];
    for role in templates::cluster_roles() {
        let name = format!("drover:{}", role.name);
        items.push(cluster_role(&name, rules(&role)));
        let group = json!({ "apiGroup": RBAC, "kind": "Group", "name": name });
        items.push(cluster_role_binding(&name, group));
    }
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn namespace() -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata(NAMESPACE) })
}

fn service_account() -> Value {
    let mut metadata = metadata(SERVICE_ACCOUNT);
    metadata["namespace"] = NAMESPACE.into();
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })
}

/// Extras are listed one by one: RBAC knows no pattern for them.
fn impersonates() -> Value {
    let extras = EXTRA_KEYS.iter().map(|key| format!("userextras/{key}"));
    let resources: Vec<_> =
        ["groups", "uids", "users"].map(str::to_owned).into_iter().chain(extras).collect();
    json!({ "apiGroups": ["", "authentication.k8s.io"], "resources": resources, "verbs": ["impersonate"] })
}

fn agent_binding() -> Value {
    let subject = json!({ "kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE });
    cluster_role_binding(AGENT, subject)
}

fn cluster_role(name: &str, rules: Vec<Value>) -> Value {
    let api_version = format!("{RBAC}/v1");
    json!({ "apiVersion": api_version, "kind": "ClusterRole", "metadata": metadata(name), "rules": rules })
}

fn cluster_role_binding(role: &str, subject: Value) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": metadata(role),
        "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": role },
        "subjects": [subject],
    })
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "labels": { "app.kubernetes.io/part-of": "drover" } })
}

/// RBAC only adds: the templates hold no deny.
fn rules(role: &Role) -> Vec<Value> {
    role.rules.iter().filter(|rule| rule.effect == Effect::Allow).map(rule).collect()
}

fn rule(rule: &Rule) -> Value {
    if rule.paths.is_empty() {
        let Rule { groups, resources, verbs, .. } = rule;
        json!({ "apiGroups": groups, "resources": resources, "verbs": verbs })
    } else {
        json!({ "nonResourceURLs": rule.paths, "verbs": rule.verbs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that people apply; `DROVER_WRITE=1` writes it anew.
    #[test]
    fn the_manifest_in_deploy_is_the_one_that_is_rendered() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent/rbac.json");
        let rendered = format!("{:#}\n", rbac());
        if std::env::var_os("DROVER_WRITE").is_some() {
            std::fs::write(path, &rendered).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == rendered, "run this test with DROVER_WRITE=1");
    }

    #[test]
    fn the_agent_may_impersonate_and_nothing_else() {
        let manifest = rbac();
        let items = manifest["items"].as_array().unwrap();
        let named =
            |kind: &str| items.iter().find(|item| item["kind"] == kind && item["metadata"]["name"] == AGENT);
        let rules = named("ClusterRole").unwrap()["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| rule["verbs"] == json!(["impersonate"])), "{rules:?}");
        let of_agent = |item: &&Value| item["subjects"][0]["name"] == SERVICE_ACCOUNT;
        let bindings: Vec<_> =
            items.iter().filter(of_agent).map(|item| item["roleRef"]["name"].as_str()).collect();
        assert_eq!(bindings, [Some(AGENT)]);
    }

    #[test]
    fn every_role_is_bound_to_its_own_group_and_to_nobody_else() {
        let manifest = rbac();
        for binding in
            manifest["items"].as_array().unwrap().iter().filter(|item| item["kind"] == "ClusterRoleBinding")
        {
            let role = binding["roleRef"]["name"].as_str().unwrap();
            if role != AGENT {
                assert_eq!(binding["subjects"], json!([{ "apiGroup": RBAC, "kind": "Group", "name": role }]));
            }
        }
    }
}
