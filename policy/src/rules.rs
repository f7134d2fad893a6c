//! What a policy is made of: clusters with their projects, roles, and bindings.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::ids::{ClusterId, IdInvalid, Principal, ProjectId, RoleName};

/// Everything that decisions are made from.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub clusters: Vec<ClusterRules>,
    /// Roles beside the built-in templates.
    pub roles: Vec<Role>,
    pub bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRules {
    pub id: ClusterId,
    /// Namespace to project; a namespace that is not here belongs to the cluster alone.
    pub projects: BTreeMap<String, ProjectId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: RoleName,
    pub inherits: Vec<RoleName>,
    pub rules: Vec<Rule>,
}

/// An RBAC PolicyRule with an effect: either resources or non-resource paths. `*` stands for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub effect: Effect,
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Vec<String>,
    /// Empty: every name.
    pub names: Vec<String>,
    /// `/healthz`, `/openapi/*`.
    pub paths: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    Allow,
    Deny,
}

/// Who holds a role, where, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    pub principal: Principal,
    pub role: RoleName,
    pub domain: Domain,
    pub expires_at: Option<SystemTime>,
}

/// Where a binding holds: a cluster's holds in its projects too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    Cluster(ClusterId),
    Global,
    Project(ClusterId, ProjectId),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRules {
    #[error("casbin refused the rules: {0}")]
    Casbin(String),
    #[error("cluster {0} is given twice")]
    ClusterTwice(ClusterId),
    #[error("a binding of {principal} names cluster {cluster}, which does not exist")]
    ClusterUnknown { principal: Principal, cluster: ClusterId },
    #[error(transparent)]
    Id(#[from] IdInvalid),
    #[error("role {0} inherits itself")]
    RoleCycle(RoleName),
    #[error("role {0} is given twice, or is a built-in template")]
    RoleTwice(RoleName),
    #[error("role {0} does not exist, and is inherited or bound")]
    RoleUnknown(RoleName),
    #[error("a rule of role {role} is not sound: {problem}")]
    Rule { role: RoleName, problem: &'static str },
}

impl Role {
    /// The first of what is wrong with its rules.
    pub fn problem(&self) -> Option<&'static str> {
        self.rules.iter().find_map(|rule| rule.check().err())
    }
}

impl Rule {
    /// A rule that reads as something else than it says would widen a right.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let on_resources = !self.resources.is_empty() || !self.groups.is_empty();
        let on_paths = !self.paths.is_empty();
        if on_resources == on_paths {
            return Err("it must have either groups with resources, or non-resource paths");
        }
        if on_resources && (self.resources.is_empty() || self.groups.is_empty()) {
            return Err("it must have groups and resources (\"\" is the core group)");
        }
        if self.verbs.is_empty()
            || self
                .verbs
                .iter()
                .any(|verb| verb != "*" && !verb.bytes().all(|byte| byte.is_ascii_lowercase()))
        {
            return Err("its verbs must be lower-case words or \"*\"");
        }
        if !self.paths.is_empty() && !self.names.is_empty() {
            return Err("non-resource paths have no resource names");
        }
        if self
            .paths
            .iter()
            .any(|path| path != "*" && (!path.starts_with('/') || path[..path.len() - 1].contains('*')))
        {
            return Err("a path must begin with '/', and may have '*' only at its end");
        }
        let word = |text: &String| !text.is_empty() && !text.contains(['*', ' ', ',']);
        if self.resources.iter().any(|resource| !is_resource(resource)) || !self.names.iter().all(word) {
            return Err(
                "a resource is a name, name/subresource, */subresource or \"*\"; a resource name has no '*'",
            );
        }
        Ok(())
    }
}

fn is_resource(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
    };
    match text.split_once('/') {
        Some((resource, subresource)) => (resource == "*" || word(resource)) && word(subresource),
        None => text == "*" || word(text),
    }
}
