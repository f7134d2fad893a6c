//! The built-in roles, in the shape of RBAC rules: the policy decides by them, and the agent's manifest
//! renders the same rules as ClusterRoles.
//!
//! In the namespaces of [`SYSTEM_NAMESPACES`] only owners do more than read what is not secret: whoever makes a token of a
//! service account there, or runs a pod as one, has what that has.
//!
//! No read-only role holds `*/proxy` or a pod's exec, attach or portforward, and none reads Secrets.

use std::sync::Arc;

use crate::ids::{ProjectId, RoleName};
use crate::rules::{Effect, Role, Rule};

/// Where the cluster's own service accounts are, and the agent's.
pub const SYSTEM_NAMESPACES: [&str; 2] = ["drover-system", "kube-system"];

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

/// What a namespace's viewer may read of the core group: everything but Secrets.
const CORE_READ: &[&str] = &[
    "bindings",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "replicationcontrollers/status",
    "resourcequotas",
    "resourcequotas/status",
    "serviceaccounts",
    "services",
    "services/status",
];
/// Groups of namespaced workloads, none of which holds secrets.
const WORKLOAD_GROUPS: &[&str] = &[
    "apps",
    "autoscaling",
    "batch",
    "discovery.k8s.io",
    "events.k8s.io",
    "gateway.networking.k8s.io",
    "metrics.k8s.io",
    "networking.k8s.io",
    "policy",
];
/// The group of EndpointSlices. Who writes those sends other namespaces' traffic to addresses of theirs (CVE-2021-25740).
const DISCOVERY_GROUP: &str = "discovery.k8s.io";
/// Cluster-wide resources that say nothing secret.
const CLUSTER_CORE_READ: &[&str] =
    &["componentstatuses", "nodes", "nodes/status", "persistentvolumes", "persistentvolumes/status"];
const CLUSTER_GROUPS: &[&str] = &[
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
/// What a namespace's member may change, beside workloads.
const CORE_WRITE: &[&str] = &[
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/ephemeralcontainers",
    "pods/eviction",
    "pods/exec",
    "pods/portforward",
    "pods/proxy",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "secrets",
    "serviceaccounts",
    "services",
    "services/proxy",
];
const DISCOVERY_PATHS: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

/// What a template is for, where it is bound and what it is called in the cluster.
struct Template {
    name: &'static str,
    inherits: &'static [&'static str],
    rules: fn() -> Vec<Rule>,
}

const TEMPLATES: [Template; 9] = [
    Template { name: "admin", inherits: &["cluster-owner"], rules: Vec::new },
    Template { name: "cluster-member", inherits: &["cluster-viewer", "project-member"], rules: Vec::new },
    Template { name: "cluster-owner", inherits: &[], rules: everything },
    Template { name: "cluster-viewer", inherits: &["project-viewer"], rules: cluster_reads },
    Template { name: DISCOVERY, inherits: &[], rules: discovers },
    Template { name: "project-member", inherits: &["project-viewer"], rules: namespace_writes },
    Template { name: "project-owner", inherits: &["project-member"], rules: namespace_rbac },
    Template { name: "project-viewer", inherits: &[], rules: namespace_reads },
    Template { name: "user", inherits: &[], rules: Vec::new },
];

/// Comes with every other role that allows anything, and needs no group of its own: Kubernetes gives it to all who are authenticated.
const DISCOVERY: &str = "discovery";
/// The global administrator owns every cluster.
const ADMIN: &str = "admin";

/// Own roles of these names would have the groups of the templates for projects.
pub const OF_PROJECTS: [&str; 3] = ["member", "owner", "viewer"];

/// Every built-in role.
pub fn all() -> Vec<Role> {
    TEMPLATES.iter().map(role).collect()
}

/// Whether a name is a built-in role's.
pub fn is_one(name: &str) -> bool {
    TEMPLATES.iter().any(|template| template.name == name)
}

/// The built-in roles that clusters know as ClusterRoles, with all that they inherit written out.
pub fn cluster_roles() -> Vec<Role> {
    let rendered = TEMPLATES.iter().filter(|template| ![ADMIN, DISCOVERY, "user"].contains(&template.name));
    rendered
        .map(|template| Role { inherits: Vec::new(), rules: written_out(template), ..role(template) })
        .collect()
}

pub(crate) fn discovery() -> RoleName {
    name(DISCOVERY)
}

/// The group that stands for a role in a cluster, and in one of its projects.
pub fn role_group(role: &RoleName, project: Option<&ProjectId>) -> Option<Arc<str>> {
    match (role.as_str(), project) {
        (DISCOVERY, _) => None,
        (role, Some(_)) if OF_PROJECTS.contains(&role) => None,
        (ADMIN, _) => Some("drover:cluster-owner".into()),
        (role, None) => Some(format!("drover:{role}").into()),
        (role, Some(project)) => {
            Some(format!("drover:project:{project}:{}", role.strip_prefix("project-").unwrap_or(role)).into())
        }
    }
}

fn role(template: &Template) -> Role {
    let inherits = template.inherits.iter().map(|inherited| name(inherited)).collect();
    Role { name: name(template.name), inherits, rules: (template.rules)() }
}

fn written_out(template: &Template) -> Vec<Rule> {
    let inherited = TEMPLATES.iter().filter(|other| template.inherits.contains(&other.name));
    (template.rules)().into_iter().chain(inherited.flat_map(written_out)).collect()
}

fn name(text: &str) -> RoleName {
    RoleName::parse(text).expect("the templates' names are sound: a test parses them all")
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
    Rule { verbs: owned(verbs), groups: owned(groups), resources: owned(resources), ..nothing() }
}

fn paths(verbs: &[&str], paths: &[&str]) -> Rule {
    Rule { verbs: owned(verbs), paths: owned(paths), ..nothing() }
}

fn nothing() -> Rule {
    let none = Vec::new;
    Rule {
        effect: Effect::Allow,
        verbs: none(),
        groups: none(),
        resources: none(),
        names: none(),
        paths: none(),
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn everything() -> Vec<Rule> {
    vec![resources(ALL, ALL, ALL), paths(ALL, ALL)]
}

fn discovers() -> Vec<Rule> {
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    vec![
        paths(&["get", "head"], DISCOVERY_PATHS),
        resources(&["create"], &["authorization.k8s.io"], &reviews),
        resources(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
    ]
}

fn namespace_reads() -> Vec<Rule> {
    vec![resources(READ, &[""], CORE_READ), resources(READ, WORKLOAD_GROUPS, ALL)]
}

fn namespace_writes() -> Vec<Rule> {
    let written: Vec<_> = WORKLOAD_GROUPS.iter().copied().filter(|group| *group != DISCOVERY_GROUP).collect();
    vec![
        resources(
            READ,
            &[""],
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
        ),
        resources(WRITE, &[""], CORE_WRITE),
        resources(WRITE, &written, ALL),
        resources(&["patch", "update"], &[""], &["pods/resize"]),
        resources(&["create"], &[""], &["serviceaccounts/token"]),
        resources(&[READ, WRITE].concat(), &["coordination.k8s.io"], &["leases"]),
    ]
}

fn namespace_rbac() -> Vec<Rule> {
    let reviews = resources(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]);
    vec![
        resources(&[READ, WRITE].concat(), &["rbac.authorization.k8s.io"], &["rolebindings", "roles"]),
        reviews,
    ]
}

fn cluster_reads() -> Vec<Rule> {
    vec![resources(READ, &[""], CLUSTER_CORE_READ), resources(READ, CLUSTER_GROUPS, ALL)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_a_sound_name_and_sound_rules() {
        for role in all() {
            for rule in &role.rules {
                assert_eq!(rule.check(), Ok(()), "{} {rule:?}", role.name);
            }
        }
    }

    #[test]
    fn role_groups_are_named_as_clusters_bind_them() {
        let project = ProjectId::parse("web").unwrap();
        for (role, project, expected) in [
            ("cluster-viewer", None, Some("drover:cluster-viewer")),
            ("project-member", Some(&project), Some("drover:project:web:member")),
            ("admin", None, Some("drover:cluster-owner")),
            ("own", None, Some("drover:own")),
            ("discovery", None, None),
            ("owner", Some(&project), None),
            ("member", Some(&project), None),
            ("viewer", Some(&project), None),
        ] {
            assert_eq!(role_group(&name(role), project).as_deref(), expected, "{role}");
        }
    }
}
