//! A cluster: the name that people type and the id that certificates and rules use.

use std::collections::BTreeMap;

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
}

impl Kind for Cluster {
    const KIND: &'static str = "Cluster";
    const PLURAL: &'static str = "clusters";

    fn key(&self) -> &str {
        &self.name
    }
}
