//! GitHub Enterprise, emulated, and held to GitHub's own description of its API.

use std::path::{Path, PathBuf};

use super::node::Node;

/// A running server; ends when dropped.
pub struct Github(Node);

impl Github {
    /// The OAuth app that Drover is, and its secret.
    pub const APP: (&str, &str) = ("drover", "of-drover");

    /// With where it is to send browsers back to.
    pub async fn start(folder: &Path, callback: &str) -> anyhow::Result<Self> {
        Node::start(folder, "github", callback).await.map(Self)
    }

    pub fn ca(&self) -> &PathBuf {
        &self.0.ca
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Takes somebody out of a team.
    pub async fn remove(&self, login: &str, team: &str) -> anyhow::Result<()> {
        self.0.post(&format!("remove/{login}/{team}"), "").await
    }

    /// Revokes the tokens that somebody has given.
    pub async fn revoke(&self, login: &str) -> anyhow::Result<()> {
        self.0.post(&format!("revoke/{login}"), "").await
    }

    pub async fn suspend(&self, login: &str) -> anyhow::Result<()> {
        self.0.post(&format!("suspend/{login}"), "").await
    }

    /// The next request is one too many.
    pub async fn limit(&self) -> anyhow::Result<()> {
        self.0.post("limit", "").await
    }

    /// What was answered against the description, as JSON.
    pub async fn invalid(&self) -> anyhow::Result<String> {
        self.0.get("invalid").await
    }
}
