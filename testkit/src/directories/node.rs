//! Providers that are programs of Node's: each over HTTPS, with a plain port by which tests change it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::TcpStream;

use crate::client::{fetch, post};
use crate::pki;
use crate::process::{Process, free_port, until};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running one; ends when dropped.
pub(super) struct Node {
    pub ca: PathBuf,
    pub url: String,
    control: String,
    _process: Process,
}

impl Node {
    /// Runs a script of `testkit/node`, which sends browsers back to a callback.
    pub(super) async fn start(folder: &Path, name: &str, callback: &str) -> anyhow::Result<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("node");
        ensure!(scripts.join("node_modules").is_dir(), "packages are missing: testkit/packages install");
        std::fs::create_dir_all(folder)?;
        let (files, ca) = pki::local_server(folder, name)?;
        let (port, control_port) = (free_port()?, free_port()?);
        let environment = [
            format!("PORT={port}"),
            format!("CONTROL_PORT={control_port}"),
            format!("EMULATE_PORT={}", free_port()?),
            format!("CERT={}", files.cert.display()),
            format!("KEY={}", files.key.display()),
            format!("CALLBACK={callback}"),
            format!("FOLDER={}", folder.display()),
        ];
        let script = scripts.join(format!("{name}.mjs")).display().to_string();
        let arguments = environment.into_iter().chain(["node".to_owned(), script]);
        let mut process = Process::start(name, folder, Path::new("/usr/bin/env"), arguments).await?;
        until(name, READY_TIMEOUT, async || {
            process.check()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
        })
        .await?;
        let (url, control) =
            (format!("https://localhost:{port}"), format!("http://127.0.0.1:{control_port}"));
        Ok(Self { ca, url, control, _process: process })
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> anyhow::Result<()> {
        let url = format!("{}/{path}", self.control);
        post(&url, body).await.with_context(|| format!("failed to post to {url}"))
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<String> {
        Ok(fetch(&format!("{}/{path}", self.control)).await?.1)
    }
}
