//! Files that kubectl finds clusters and credentials in.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::pki::{self, Authority, Subject, Usage};

/// Where a cluster answers, and the authority that its certificate comes from.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    pub url: String,
    pub ca_pem: String,
}

/// What a user shows.
#[derive(Clone, Debug)]
pub enum Credential {
    Certificate { cert_pem: String, key_pem: String },
    Token(String),
}

/// Writes a file with a context for each server, named like it; the first is the current one. JSON is
/// YAML, so kubectl reads it.
pub fn write(
    path: &Path,
    servers: &[Server],
    user: &str,
    credential: &Credential,
) -> anyhow::Result<PathBuf> {
    let cluster = |server: &Server| {
        let cluster =
            json!({ "server": server.url, "certificate-authority-data": STANDARD.encode(&server.ca_pem) });
        json!({ "name": server.name, "cluster": cluster })
    };
    let context =
        |server: &Server| json!({ "name": server.name, "context": { "cluster": server.name, "user": user } });
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": servers.iter().map(cluster).collect::<Vec<_>>(),
        "contexts": servers.iter().map(context).collect::<Vec<_>>(),
        "current-context": servers.first().map(|server| &server.name),
        "users": [{ "name": user, "user": shown(credential) }],
    });
    pki::write_secret(path, &format!("{config:#}\n"))?;
    Ok(path.to_owned())
}

/// Writes a file of a user whom a certificate of the cluster's own authority names.
pub fn write_certified(
    path: &Path,
    authority: &Authority,
    server: &Server,
    user: &str,
    organization: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let subject = Subject { common_name: user, organization, ..Subject::default() };
    let (cert_pem, key_pem) = authority.issue(&subject, &[Usage::ClientAuth])?;
    write(path, std::slice::from_ref(server), user, &Credential::Certificate { cert_pem, key_pem })
}

fn shown(credential: &Credential) -> Value {
    match credential {
        Credential::Certificate { cert_pem, key_pem } => json!({
            "client-certificate-data": STANDARD.encode(cert_pem),
            "client-key-data": STANDARD.encode(key_pem),
        }),
        Credential::Token(token) => json!({ "token": token }),
    }
}
