//! An agent on this machine, for the cluster of a kubeconfig.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_api::enrolment::GATEWAY_NAME;
use drover_api::manifest::{Impersonation, NAMESPACE, SERVICE_ACCOUNT, rbac};
use serde_json::Value;

use crate::client::Client;
use crate::files;
use crate::processes::{INTERVAL, Process, Stop};

/// How long the agent's own token in the cluster lasts, and when it is replaced.
const TOKEN_LIFETIME: &str = "24h";
const TOKEN_INTERVAL: Duration = Duration::from_secs(6 * 3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Agent<'a> {
    pub cluster: &'a str,
    pub kubeconfig: &'a Path,
    /// Where its certificate and what it needs of the cluster are kept.
    pub state: PathBuf,
    /// Where Drover's API is, and the gateways' tunnels.
    pub server: String,
    pub gateways: Vec<String>,
    pub impersonation: Impersonation,
}

impl Agent<'_> {
    /// Runs until asked to stop. `registration_token` is asked for where there is no certificate yet.
    pub(super) fn run(
        &self,
        client: &Client,
        registration_token: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let stop = Stop::new()?;
        files::make_folder(&self.state)?;
        println!("Giving the cluster what its agent needs (namespace {NAMESPACE})");
        self.kubectl(&["apply", "-f", "-"], Some(&rbac(self.impersonation)))?;
        let api_server = self.learn_api_server()?;
        self.refresh_token()?;
        let registration = self.file("registration-token");
        if !self.state.join("identity.json").is_file() {
            files::replace(Path::new(&registration), registration_token()?.as_bytes())?;
        }
        let mut agent = Process::start(
            "drover-agent",
            self.arguments(&api_server, &registration),
            &self.state.join("agent.log"),
        )?;
        let began = Instant::now();
        while let Err(error) = client.reach(self.cluster) {
            agent.check()?;
            if stop.is_asked_within(INTERVAL) {
                return Ok(());
            }
            if began.elapsed() > CONNECT_TIMEOUT {
                return Err(error).with_context(|| {
                    format!(
                        "the cluster is not served after {CONNECT_TIMEOUT:?}; its agent says: {}",
                        agent.last_lines()
                    )
                });
            }
        }
        println!("Cluster {} is served. Its agent runs here until Ctrl-C.", self.cluster);
        let mut refreshed = Instant::now();
        while !stop.is_asked_within(INTERVAL) {
            agent.tend()?;
            if refreshed.elapsed() > TOKEN_INTERVAL {
                // The former one lasts for hours: the next attempt may do better.
                if let Err(error) = self.refresh_token() {
                    eprintln!("warning: {error:#}");
                }
                refreshed = Instant::now();
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.state.join(name).to_string_lossy().into_owned()
    }

    fn arguments(&self, api_server: &str, registration: &str) -> Vec<String> {
        let mut arguments = vec![
            format!("--server={}", self.server),
            format!("--gateway-name={GATEWAY_NAME}"),
            format!("--state={}", self.state.display()),
            format!("--registration-token-file={registration}"),
            format!("--api-server={api_server}"),
            format!("--api-server-ca={}", self.file("api-server-ca.crt")),
            format!("--token-file={}", self.file("token")),
            "--admin-listen=127.0.0.1:0".to_owned(),
        ];
        arguments.extend(self.gateways.iter().map(|gateway| format!("--gateway={gateway}")));
        arguments
    }

    /// HOST:PORT of the API server; its authority goes into a file.
    fn learn_api_server(&self) -> anyhow::Result<String> {
        let view = self.kubectl(&["config", "view", "--minify", "--raw", "--flatten", "-o", "json"], None)?;
        let view: Value = serde_json::from_str(&view).context("kubectl config view")?;
        let cluster = &view["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("the kubeconfig names no server")?;
        let Some(address) = server.strip_prefix("https://").map(|address| address.trim_end_matches('/'))
        else {
            bail!("the kubeconfig's server {server:?} is not https://HOST:PORT")
        };
        if address.contains('/') {
            bail!("the kubeconfig's server {server:?} has a path: an agent needs the API server itself");
        }
        let ca = cluster["certificate-authority-data"].as_str().context(
            "the kubeconfig has no certificate-authority-data: the agent needs the API server's authority",
        )?;
        files::replace(Path::new(&self.file("api-server-ca.crt")), &BASE64_STANDARD.decode(ca)?)?;
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(if has_port { address.to_owned() } else { format!("{address}:443") })
    }

    fn refresh_token(&self) -> anyhow::Result<()> {
        let duration = format!("--duration={TOKEN_LIFETIME}");
        let token = self.kubectl(&["-n", NAMESPACE, "create", "token", SERVICE_ACCOUNT, &duration], None)?;
        files::replace(Path::new(&self.file("token")), token.trim().as_bytes())
    }

    fn kubectl(&self, arguments: &[&str], input: Option<&Value>) -> anyhow::Result<String> {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start kubectl, which --kubeconfig needs")?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}
