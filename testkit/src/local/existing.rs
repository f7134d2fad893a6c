//! A cluster that exists, as a kubeconfig file names it.

use std::path::Path;

use anyhow::Context;
use drover_api::snapshot::ClusterName;
use tokio::process::Command;

use super::Ready;
use crate::control_plane;
use crate::fleet::output;

/// The cluster of the file's current context, by its name.
pub(super) async fn cluster(kubeconfig: &Path) -> anyhow::Result<Ready> {
    let kubeconfig =
        kubeconfig.canonicalize().with_context(|| format!("no such file: {}", kubeconfig.display()))?;
    let context = output(kubectl(&kubeconfig).args(["config", "current-context"])).await?;
    Ok(Ready { name: name(context.trim()), direct_kubeconfig: kubeconfig, demo: None, plane: None })
}

/// The one on PATH; ours only where it has been built already.
fn kubectl(kubeconfig: &Path) -> Command {
    match control_plane::binaries() {
        Ok(binaries) => control_plane::kubectl(&binaries, kubeconfig),
        Err(_) => {
            let mut command = Command::new("kubectl");
            command.env("KUBECONFIG", kubeconfig).kill_on_drop(true);
            command
        }
    }
}

/// A context's name as a cluster's name: what is not a DNS label becomes one.
fn name(context: &str) -> String {
    let plain = |character: char| {
        if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '-' }
    };
    let text: String = context.chars().map(plain).take(60).collect();
    let text = text.trim_matches('-').to_owned();
    if ClusterName::parse(&text).is_ok() { text } else { "existing".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_becomes_a_clusters_name() {
        assert_eq!(name("kind-Dev_1"), "kind-dev-1");
        assert_eq!(name("c-1"), "existing");
        assert_eq!(name(""), "existing");
    }
}
