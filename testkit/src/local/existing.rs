//! A cluster that exists, as a kubeconfig file names it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use drover_api::snapshot::ClusterName;
use serde_json::Value;
use tokio::process::Command;

use super::{Place, Ready};
use crate::control_plane;
use crate::fleet::{Target, admit_agent, output};

/// The cluster of the file's current context, with our manifest applied to it.
pub(super) async fn cluster(folder: &Path, kubeconfig: &Path) -> anyhow::Result<Ready> {
    let kubeconfig =
        kubeconfig.canonicalize().with_context(|| format!("no such file: {}", kubeconfig.display()))?;
    let kubectl = || kubectl(&kubeconfig);
    let shown = output(kubectl().args(["config", "view", "--raw", "--minify", "-o", "json"])).await?;
    let config: Value = serde_json::from_str(&shown)?;
    let server =
        config["clusters"][0]["cluster"]["server"].as_str().context("the kubeconfig names no server")?;
    let folder = folder.join("existing");
    std::fs::create_dir_all(&folder)?;
    let ca = authority(&folder, &config)?;
    let token =
        admit_agent(kubectl, &folder).await.context("the cluster could not be prepared for its agent")?;
    let name = name(config["current-context"].as_str().unwrap_or_default());
    let id = "c-existing".to_owned();
    let target = Target { name: name.clone(), id: id.clone(), address: address(server)?, ca, token };
    Ok(Ready { name, id, direct_kubeconfig: kubeconfig, demo: None, agent: Place::Beside(target, None) })
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

fn authority(folder: &Path, config: &Value) -> anyhow::Result<PathBuf> {
    let cluster = &config["clusters"][0]["cluster"];
    if let Some(file) = cluster["certificate-authority"].as_str() {
        return Ok(file.into());
    }
    let data = cluster["certificate-authority-data"].as_str();
    let data = data.context(
        "the kubeconfig has no certificate authority for its cluster: the agent could not verify it",
    )?;
    let path = folder.join("ca.crt");
    std::fs::write(&path, STANDARD.decode(data)?)?;
    Ok(path)
}

/// `https://host[:port]` as `host:port`.
fn address(server: &str) -> anyhow::Result<String> {
    let uri: http::Uri = server.parse().with_context(|| format!("the server {server:?} is not a URL"))?;
    let plain_path = matches!(uri.path(), "" | "/");
    match (uri.scheme_str(), uri.host(), plain_path) {
        (Some("https"), Some(host), true) => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443))),
        _ => bail!("the server {server:?} is not https://host[:port]"),
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
    fn servers_and_contexts_become_addresses_and_names() {
        assert_eq!(address("https://10.0.0.1:6443").unwrap(), "10.0.0.1:6443");
        assert_eq!(address("https://[::1]:6443/").unwrap(), "[::1]:6443");
        assert_eq!(address("https://api.example").unwrap(), "api.example:443");
        assert!(address("http://api.example").is_err());
        assert!(address("https://rancher.example/k8s/clusters/c-1").is_err());
        assert_eq!(name("kind-Dev_1"), "kind-dev-1");
        assert_eq!(name("c-1"), "existing");
        assert_eq!(name(""), "existing");
    }
}
