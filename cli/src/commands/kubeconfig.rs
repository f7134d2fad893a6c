//! Contexts for kubectl: one for each cluster, named as it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_api::kinds::{Cluster, Token, TokenKind};
use drover_api::rest::CreateToken;
use serde_json::{Value, json};

use super::token::scope;
use crate::args::{Ci, Kubeconfig};
use crate::client::Client;
use crate::config::Config;
use crate::files;

pub(super) fn run(known: &Config, file_of_config: Option<&Path>, command: Kubeconfig) -> anyhow::Result<()> {
    let client = Client::new(known)?;
    if command.ci.ci {
        client.show_jwt()?;
    }
    let mut clusters: Vec<_> =
        client.list::<Cluster>()?.into_iter().map(|cluster| cluster.spec.name).collect();
    if let Some(unknown) = command.clusters.iter().find(|name| !clusters.contains(name)) {
        bail!("there is no cluster {unknown:?}: drover cluster list");
    }
    if !command.clusters.is_empty() {
        clusters = command.clusters.clone();
    }
    if clusters.is_empty() {
        bail!("there is no cluster that you have a role in: drover cluster create NAME");
    }
    let caller = client.who_am_i()?;
    let file = if command.print { None } else { Some(file(command.kubeconfig.clone())?) };
    let before = match &file {
        Some(file) => files::read(file)?.unwrap_or_default(),
        None => Vec::new(),
    };
    // Read first: a token that goes nowhere would have to be revoked.
    let before: Value = parse(&before).context("the kubeconfig is malformed")?;
    let credential =
        if command.token { token(&client, &command)? } else { plugin(file_of_config, &command.ci)? };
    let user = format!("{}@{}", caller.user.spec.name, known.server_address()?);
    let ours =
        Ours { server: known.server()?, ca: known.ca.as_deref(), user: &user, credential: &credential };
    let merged = merged(before, &ours, &clusters)?;
    let text = serde_yaml_ng::to_string(&merged)?;
    match file {
        None => print!("{text}"),
        Some(file) => {
            files::replace(&file, text.as_bytes())?;
            println!("{}: contexts {}", file.display(), clusters.join(", "));
        }
    }
    Ok(())
}

/// A token of the file's own.
fn token(client: &Client, command: &Kubeconfig) -> anyhow::Result<Value> {
    let create = CreateToken {
        kind: TokenKind::Kubeconfig,
        scope: scope(client, &command.clusters)?,
        lifetime_s: command.lifetime.map(|lifetime| lifetime.as_secs()),
        idle_s: None,
        user: None,
    };
    let created = client.create::<Token>(&create)?;
    Ok(json!({ "token": created.secret.context("the server gave no token")? }))
}

/// How kubectl gets the login's token: from this program, wherever it is.
fn plugin(config: Option<&Path>, ci: &Ci) -> anyhow::Result<Value> {
    let program = std::env::current_exe().context("failed to find out where this program is")?;
    let mut arguments = vec!["credential".to_owned()];
    if let Some(config) = config {
        let config = std::path::absolute(config)?;
        arguments.extend(["--config".to_owned(), config.display().to_string()]);
    }
    if ci.ci {
        arguments.extend(["--ci".to_owned(), format!("--audience={}", ci.audience)]);
        arguments.extend(ci.server.iter().map(|server| format!("--server={server}")));
        for (flag, file) in [("--ca", &ci.ca), ("--jwt-file", &ci.jwt_file)] {
            let file = file.as_ref().map(std::path::absolute).transpose()?;
            arguments.extend(file.map(|file| format!("{flag}={}", file.display())));
        }
    }
    Ok(json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program.display().to_string(),
        "args": arguments,
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": false,
        "installHint": "drover is the command that wrote this file: install it, or write the file with drover kubeconfig --token",
    } }))
}

/// The first of `$KUBECONFIG`, which kubectl writes to as well.
fn file(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(file) = given {
        return Ok(file);
    }
    let variable = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&variable).find(|path| !path.as_os_str().is_empty());
    first.map_or_else(|| Ok(files::home()?.join(".kube/config")), Ok)
}

struct Ours<'a> {
    server: &'a str,
    ca: Option<&'a str>,
    user: &'a str,
    /// What is said of the user.
    credential: &'a Value,
}

fn parse(bytes: &[u8]) -> anyhow::Result<Value> {
    let config: Value = serde_yaml_ng::from_slice(bytes)?;
    match config {
        Value::Null => Ok(json!({ "apiVersion": "v1", "kind": "Config" })),
        Value::Object(_) => Ok(config),
        _ => bail!("it is no mapping"),
    }
}

/// Puts ours in the place of entries of the same names; what is not ours stays as it is.
fn merged(mut config: Value, ours: &Ours<'_>, clusters: &[String]) -> anyhow::Result<Value> {
    for name in clusters {
        let mut cluster = json!({ "server": format!("{}/k8s/clusters/{name}", ours.server) });
        if let Some(ca) = ours.ca {
            cluster["certificate-authority-data"] = BASE64_STANDARD.encode(ca).into();
        }
        let context = json!({ "cluster": name, "user": ours.user });
        refuse_foreign(&config, name, ours.server)?;
        put(&mut config, "clusters", json!({ "name": name, "cluster": cluster }))?;
        put(&mut config, "contexts", json!({ "name": name, "context": context }))?;
    }
    put(&mut config, "users", json!({ "name": ours.user, "user": ours.credential }))?;
    if config["current-context"].as_str().unwrap_or_default().is_empty() {
        config["current-context"] = clusters[0].clone().into();
    }
    Ok(config)
}

/// A context of that name that leads elsewhere is somebody's: it is not replaced.
fn refuse_foreign(config: &Value, name: &str, server: &str) -> anyhow::Result<()> {
    let entries = config["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = entries.iter().find(|entry| entry["name"] == name);
    let address = entry.and_then(|entry| entry["cluster"]["server"].as_str());
    match address {
        Some(address) if !address.starts_with(&format!("{server}/")) => bail!(
            "the kubeconfig has a cluster {name:?} already, at {address}: rename it (kubectl config rename-context), or use --kubeconfig FILE"
        ),
        _ => Ok(()),
    }
}

fn put(config: &mut Value, list: &str, entry: Value) -> anyhow::Result<()> {
    let entries = &mut config[list];
    if entries.is_null() {
        *entries = json!([]);
    }
    let entries = entries.as_array_mut().with_context(|| format!("{list} is no list"))?;
    match entries.iter_mut().find(|known| known["name"] == entry["name"]) {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(before: &str, clusters: &[&str]) -> anyhow::Result<Value> {
        let clusters: Vec<_> = clusters.iter().map(|name| (*name).to_owned()).collect();
        let credential = json!({ "token": "drv_secret" });
        let ours =
            Ours { server: "https://d:8443", ca: Some("PEM"), user: "zoe@d:8443", credential: &credential };
        merged(parse(before.as_bytes())?, &ours, &clusters)
    }

    #[test]
    fn an_empty_file_becomes_a_kubeconfig_and_a_second_run_changes_no_more_than_the_token() {
        let first = merge("", &["one", "two"]).unwrap();
        assert_eq!(first["current-context"], "one");
        assert_eq!(first["clusters"][1]["cluster"]["server"], "https://d:8443/k8s/clusters/two");
        assert_eq!(first["clusters"][1]["cluster"]["certificate-authority-data"], "UEVN");
        assert_eq!(first["users"], json!([{ "name": "zoe@d:8443", "user": { "token": "drv_secret" } }]));
        let second = merge(&serde_yaml_ng::to_string(&first).unwrap(), &["one", "two"]).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        let before = "
apiVersion: v1
kind: Config
current-context: theirs
preferences: {colors: true}
clusters: [{name: theirs, cluster: {server: 'https://theirs', proxy-url: 'socks5://x'}}]
contexts: [{name: theirs, context: {cluster: theirs, user: them, namespace: ns}}]
users: [{name: them, user: {exec: {command: aws, args: ['01', 'no']}}}]
extensions: [{name: e, extension: 1.5}]
";
        let before_value = parse(before.as_bytes()).unwrap();
        let after = merge(before, &["one"]).unwrap();
        for list in ["clusters", "contexts", "users"] {
            assert_eq!(after[list][0], before_value[list][0], "{list}");
            assert_eq!(after[list].as_array().unwrap().len(), 2, "{list}");
        }
        for field in ["current-context", "preferences", "extensions"] {
            assert_eq!(after[field], before_value[field], "{field}");
        }
    }

    #[test]
    fn a_cluster_of_the_name_that_leads_elsewhere_is_not_replaced() {
        let before = "clusters: [{name: one, cluster: {server: 'https://elsewhere'}}]";
        let refused = merge(before, &["one"]).unwrap_err().to_string();
        assert!(refused.contains("https://elsewhere"), "{refused}");
        for malformed in ["[]", "clusters: {}", "text"] {
            assert!(merge(malformed, &["one"]).is_err(), "{malformed}");
        }
    }
}
