//! A user as gateways know one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `<provider>:user/<stable id>`: the uid in the clusters.
    pub principal: String,
    /// Unique and never reused: the user name in the clusters.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Principals of the groups that the user is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(default)]
    pub disabled: bool,
}

impl Kind for User {
    const KIND: &'static str = "User";
    const PLURAL: &'static str = "users";

    fn key(&self) -> &str {
        &self.name
    }
}
