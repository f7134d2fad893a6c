//! A certified OpenID Provider, with people whom tests change.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::node::Node;

/// A running provider; ends when dropped.
pub struct OidcProvider(Node);

impl OidcProvider {
    /// What Drover is there, signed for with RSA, and as another with ECDSA.
    pub const CLIENTS: [&str; 2] = ["drover", "drover-es"];
    pub const SECRET: &str = "of-drover";

    /// With where it is to send browsers back to.
    pub async fn start(folder: &Path, callback: &str) -> anyhow::Result<Self> {
        Node::start(folder, "oidc", callback).await.map(Self)
    }

    pub fn ca(&self) -> &PathBuf {
        &self.0.ca
    }

    pub fn issuer(&self) -> &str {
        &self.0.url
    }

    /// Changes what it knows of somebody.
    pub async fn set(&self, login: &str, fields: &Value) -> anyhow::Result<()> {
        self.0.post(&format!("user/{login}"), &fields.to_string()).await
    }

    /// Gives it new keys in the place of the old ones.
    pub async fn rotate(&self) -> anyhow::Result<()> {
        self.0.post("rotate", "").await
    }
}
