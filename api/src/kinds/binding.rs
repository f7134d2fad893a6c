//! A binding: who holds a role, and where.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Unique among bindings.
    pub name: String,
    /// `<provider>:<kind>/<stable id>`, such as `local:user/7` or `local:group/platform`.
    pub principal: String,
    pub role: String,
    pub domain: Domain,
    /// From this moment on the binding grants nothing; absent, it does not end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Kind for Binding {
    const KIND: &'static str = "RoleBinding";
    const PLURAL: &'static str = "rolebindings";

    fn key(&self) -> &str {
        &self.name
    }
}

/// Where a binding holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Domain {
    /// One cluster with all of its projects, by id.
    Cluster(String),
    /// Every cluster.
    Global,
    /// The namespaces of one project of one cluster.
    Project { cluster: String, project: String },
}
