//! A cluster: the name that people type and the id that certificates and rules use.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// A DNS label, immutable.
    pub name: String,
    /// `c-<random>`.
    pub id: String,
    /// Namespace to project; a namespace that is not here belongs to the cluster alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub projects: BTreeMap<String, String>,
    /// Principals of groups with which a user is sent who is in more than 256. Without it such users are refused here:
    /// a group decides priority too, and is never dropped in silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_listed: Option<BTreeSet<String>>,
}

impl Kind for Cluster {
    const KIND: &'static str = "Cluster";
    const PLURAL: &'static str = "clusters";

    fn key(&self) -> &str {
        &self.name
    }
}
