//! What a cluster must hold for its agent: a service account that may impersonate and keep its own Secret, and
//! the built-in roles, each bound to the group that stands for it.
//!
//! Users get their rights in a cluster from these groups alone. The gateway decides by the same rules, so
//! both layers allow the same; a request that lost its identity on the way runs as the agent, which may do
//! nothing.

use drover_policy::{Effect, Role, Rule, templates};
use serde_json::{Value, json};

use crate::identity::EXTRA_KEYS;

mod admission;

pub const NAMESPACE: &str = "drover-system";
pub const SERVICE_ACCOUNT: &str = "drover-agent";
/// The Deployment that forwards; what it holds is the right to impersonate.
pub const DEPLOYMENT: &str = "proxy";
/// What the agent's pods share: what they enrol with, and the certificate that they get.
pub const SECRET: &str = "drover-agent";
/// The agent's ClusterRole and its binding.
const AGENT: &str = "drover:agent";
const RBAC: &str = "rbac.authorization.k8s.io";

/// How far the agent's right to impersonate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impersonation {
    /// Whoever the request names: `system:masters`, too, but for what the agent itself refuses.
    Any,
    /// By Kubernetes' constrained impersonation, on from 1.36: the API server itself refuses `system:masters` and
    /// nodes.
    Constrained,
}

/// What the agent's Deployment is made from.
#[derive(Clone, Debug)]
pub struct Agent {
    pub image: String,
    /// `host:port` of each gateway.
    pub gateways: Vec<String>,
    /// Name in the gateways' certificates.
    pub gateway_name: String,
    /// `host:port` of who gives it its certificate, and the registration token that it gets that with.
    pub server: String,
    pub token: String,
}

/// The agent as pods: two, so that one can go without a request noticing, under the `restricted` pod security
/// standard. Apply [`rbac`] first.
pub fn agent(agent: &Agent) -> Value {
    let labels = json!({ "app.kubernetes.io/name": DEPLOYMENT, "app.kubernetes.io/part-of": "drover" });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": namespaced(SECRET),
        "stringData": { "token": agent.token },
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": namespaced(DEPLOYMENT),
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            // The next pod is there before one goes.
            "strategy": { "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "template": { "metadata": { "labels": labels }, "spec": pod(agent, &labels) },
        },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [secret, deployment] })
}

fn pod(agent: &Agent, labels: &Value) -> Value {
    let probe = |path: &str, period: u32| json!({ "httpGet": { "path": path, "port": "admin" }, "periodSeconds": period, "timeoutSeconds": 5 });
    let env = [
        ("DROVER_GATEWAYS", agent.gateways.join(",")),
        ("DROVER_GATEWAY_NAME", agent.gateway_name.clone()),
        ("DROVER_ADMIN_LISTEN", "[::]:8446".to_owned()),
        ("DROVER_SERVER", agent.server.clone()),
        ("DROVER_REGISTRATION_TOKEN_FILE", "/secret/token".to_owned()),
        ("DROVER_IDENTITY_SECRET", format!("{NAMESPACE}/{SECRET}")),
    ];
    let env: Vec<_> = env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let container = json!({
        "name": "agent",
        "image": agent.image,
        "imagePullPolicy": "IfNotPresent",
        "env": env,
        "ports": [{ "name": "admin", "containerPort": 8446 }],
        "livenessProbe": probe("/livez", 10),
        "readinessProbe": probe("/readyz", 2),
        "resources": { "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "256Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{ "name": "secret", "mountPath": "/secret", "readOnly": true }],
    });
    let apart = json!({
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": labels },
    });
    json!({
        "serviceAccountName": SERVICE_ACCOUNT,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 45,
        "topologySpreadConstraints": [apart],
        "containers": [container],
        "volumes": [{ "name": "secret", "secret": { "secretName": SECRET } }],
    })
}

/// Every object, in the order in which to apply them, as a `v1` List.
pub fn rbac(impersonation: Impersonation) -> Value {
    let mut items = vec![
        namespace(),
        service_account(),
        cluster_role(AGENT, impersonation.rules()),
        agent_binding(),
        secret_role(),
        secret_binding(),
    ];
    for role in templates::cluster_roles() {
        let name = format!("drover:{}", role.name);
        items.push(cluster_role(&name, rules(&role)));
        let group = json!({ "apiGroup": RBAC, "kind": "Group", "name": name });
        items.push(cluster_role_binding(&name, group));
    }
    items.extend(admission::policies());
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn namespace() -> Value {
    let mut metadata = metadata(NAMESPACE);
    metadata["labels"]["pod-security.kubernetes.io/enforce"] = "restricted".into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
}

fn service_account() -> Value {
    json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": namespaced(SERVICE_ACCOUNT) })
}

/// What may be asked of a cluster on somebody's behalf, as constrained impersonation names it. `*` would be the right
/// to impersonate without constraints, too.
const VERBS: [&str; 17] = [
    "approve",
    "attest",
    "bind",
    "create",
    "delete",
    "deletecollection",
    "escalate",
    "get",
    "head",
    "list",
    "options",
    "patch",
    "post",
    "put",
    "sign",
    "update",
    "watch",
];

impl Impersonation {
    fn rules(self) -> Vec<Value> {
        // Extras are listed one by one: RBAC knows no pattern for them.
        let extras = EXTRA_KEYS.iter().map(|key| format!("userextras/{key}"));
        let of_users = ["groups", "uids", "users"].map(str::to_owned).into_iter().chain(extras);
        let identities: Vec<_> = of_users.collect();
        match self {
            Self::Any => {
                let resources: Vec<_> =
                    identities.into_iter().chain(["serviceaccounts".to_owned()]).collect();
                vec![
                    json!({ "apiGroups": ["", "authentication.k8s.io"], "resources": resources, "verbs": ["impersonate"] }),
                ]
            }
            Self::Constrained => {
                let authentication = ["authentication.k8s.io"];
                let on = |mode: &str| VERBS.map(|verb| format!("impersonate-on:{mode}:{verb}")).to_vec();
                let on = [on("user-info"), on("serviceaccount")].concat();
                vec![
                    json!({ "apiGroups": authentication, "resources": identities, "verbs": ["impersonate:user-info"] }),
                    json!({ "apiGroups": authentication, "resources": ["serviceaccounts"], "verbs": ["impersonate:serviceaccount"] }),
                    json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": on }),
                    json!({ "nonResourceURLs": ["*"], "verbs": on }),
                ]
            }
        }
    }
}

fn agent_binding() -> Value {
    let subject = json!({ "kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE });
    cluster_role_binding(AGENT, subject)
}

/// The replicas share what they enrol with and the certificate that they get, in one Secret of this name.
fn secret_role() -> Value {
    let rule = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get", "update"] });
    json!({ "apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": namespaced(AGENT), "rules": [rule] })
}

fn secret_binding() -> Value {
    let mut binding = agent_binding();
    binding["kind"] = "RoleBinding".into();
    binding["metadata"] = namespaced(AGENT);
    binding["roleRef"]["kind"] = "Role".into();
    binding
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

fn namespaced(name: &str) -> Value {
    let mut metadata = metadata(name);
    metadata["namespace"] = NAMESPACE.into();
    metadata
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
        let rendered = format!("{:#}\n", rbac(Impersonation::Any));
        if std::env::var_os("DROVER_WRITE").is_some() {
            std::fs::write(path, &rendered).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == rendered, "run this test with DROVER_WRITE=1");
    }

    #[test]
    fn the_agent_may_impersonate_keep_its_own_secret_and_nothing_else() {
        let manifest = rbac(Impersonation::Any);
        let items = manifest["items"].as_array().unwrap();
        let named =
            |kind: &str| items.iter().find(|item| item["kind"] == kind && item["metadata"]["name"] == AGENT);
        let rules = named("ClusterRole").unwrap()["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| rule["verbs"] == json!(["impersonate"])), "{rules:?}");
        let of_agent = |item: &&Value| item["subjects"][0]["name"] == SERVICE_ACCOUNT;
        let bindings: Vec<_> =
            items.iter().filter(of_agent).map(|item| item["roleRef"]["name"].as_str()).collect();
        assert_eq!(bindings, [Some(AGENT), Some(AGENT)]);
        let own = named("Role").unwrap();
        let expected = json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get", "update"] }]);
        assert_eq!((&own["metadata"]["namespace"], &own["rules"]), (&json!(NAMESPACE), &expected));
    }

    #[test]
    fn constrained_every_verb_of_the_agent_is_one_of_impersonation() {
        let rules = Impersonation::Constrained.rules();
        let verbs = rules.iter().flat_map(|rule| rule["verbs"].as_array().unwrap());
        let constrained =
            |verb: &str| ["impersonate:", "impersonate-on:"].iter().any(|name| verb.starts_with(name));
        assert!(verbs.map(|verb| verb.as_str().unwrap()).all(constrained), "{rules:?}");
    }

    #[test]
    fn every_role_is_bound_to_its_own_group_and_to_nobody_else() {
        let manifest = rbac(Impersonation::Any);
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
