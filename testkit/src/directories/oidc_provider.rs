//! A certified OpenID Provider, with people whom tests change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::net::TcpStream;

use super::node;
use crate::client::post;
use crate::pki::{Authority, LOOPBACK, Subject, Usage};
use crate::process::{Process, free_port, until};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running provider; ends when dropped.
pub struct OidcProvider {
    pub ca: PathBuf,
    pub issuer: String,
    control_port: u16,
    _process: Process,
}

impl OidcProvider {
    /// What Drover is there, signed for with RSA, and as another with ECDSA.
    pub const CLIENTS: [&str; 2] = ["drover", "drover-es"];
    pub const SECRET: &str = "of-drover";

    /// With where it is to send browsers back to.
    pub async fn start(folder: &Path, callback: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let authority = Authority::new("oidc")?;
        let subject = Subject {
            common_name: "localhost",
            addresses: &LOOPBACK,
            names: &["localhost"],
            ..Subject::default()
        };
        let files = authority.issue_files(folder, "oidc", &subject, &[Usage::ServerAuth])?;
        let ca = authority.write(folder, "oidc-ca.crt")?;
        let (port, control_port) = (free_port()?, free_port()?);
        let environment = [
            format!("PORT={port}"),
            format!("CONTROL_PORT={control_port}"),
            format!("CERT={}", files.cert.display()),
            format!("KEY={}", files.key.display()),
            format!("CALLBACK={callback}"),
        ];
        let script = node()?.join("oidc.mjs").display().to_string();
        let arguments = environment.into_iter().chain(["node".to_owned(), script]);
        let process = Process::start("oidc", folder, Path::new("/usr/bin/env"), arguments).await?;
        until("the OpenID Provider", READY_TIMEOUT, async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
        })
        .await?;
        let issuer = format!("https://localhost:{port}");
        Ok(Self { ca, issuer, control_port, _process: process })
    }

    /// Changes what it knows of somebody.
    pub async fn set(&self, login: &str, fields: &Value) -> anyhow::Result<()> {
        self.post(&format!("user/{login}"), &fields.to_string()).await
    }

    /// Gives it new keys in the place of the old ones.
    pub async fn rotate(&self) -> anyhow::Result<()> {
        self.post("rotate", "").await
    }

    async fn post(&self, path: &str, body: &str) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/{path}", self.control_port);
        post(&url, body).await.with_context(|| format!("failed to post to {url}"))
    }
}
