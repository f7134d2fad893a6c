//! A gateway and the agents of its clusters, as the processes that users run.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use drover_api::enrolment::GATEWAY_NAME;
use drover_api::manifest;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::kubeconfig::{self, Credential, Server};
use crate::pki::{Authority, Files, LOOPBACK, Subject, Usage};
use crate::process::{Process, free_port, free_udp_port, until};
use crate::roster::{Member, Roster};

/// A folder of other builds of the programs, which are tested in place of this one's: see `testkit/seeded/`.
const PROGRAMS_VARIABLE: &str = "DROVER_PROGRAMS";
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a token of an agent outside of its cluster, which nobody renews.
const AGENT_TOKEN_LIFE: &str = "168h";

/// Programs of this build.
#[derive(Clone, Debug)]
pub struct Programs {
    pub gateway: PathBuf,
    pub agent: PathBuf,
}

/// The files and ports of a gateway, which stay the same when it starts again.
pub struct Gateway {
    pub programs: Programs,
    pub folder: PathBuf,
    pub authority: Authority,
    pub tunnels: Arc<Authority>,
    pub port: u16,
    pub tunnel_port: u16,
    pub admin_port: u16,
    /// Flags beside those that every test's gateway has.
    pub more: Vec<String>,
    snapshot: PathBuf,
    serving: Files,
    tunnel: Files,
    tunnel_ca: PathBuf,
}

/// A cluster's API server, as an agent reaches it.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub id: String,
    /// `host:port`.
    pub address: String,
    pub ca: PathBuf,
    pub token: PathBuf,
}

impl Programs {
    /// Beside this program, or one folder up, where cargo keeps a test's.
    pub fn of_this_build() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let given = std::env::var_os(PROGRAMS_VARIABLE).map(PathBuf::from);
        let folders = match &given {
            Some(folder) => vec![folder.as_path()],
            None => own.ancestors().skip(1).take(2).collect(),
        };
        let found =
            folders.into_iter().map(|folder| (folder.join("drover-gateway"), folder.join("drover-agent")));
        let mut complete = found.filter(|(gateway, agent)| gateway.is_file() && agent.is_file());
        let (gateway, agent) = complete
            .next()
            .context("drover-gateway and drover-agent are not built: cargo build --workspace --bins")?;
        Ok(Self { gateway, agent })
    }
}

impl Gateway {
    /// Makes certificates and picks ports; starts nothing.
    pub fn prepare(folder: &Path, roster: &Roster) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (authority, tunnels) = (Authority::new("drover local gateway")?, roster.authority.clone());
        authority.write(folder, "ca.crt")?;
        let tunnel_ca = tunnels.write(folder, "tunnel-ca.crt")?;
        let subject = Subject {
            common_name: "drover-gateway",
            names: &["localhost"],
            addresses: &LOOPBACK,
            ..Subject::default()
        };
        let serving = authority.issue_files(folder, "serving", &subject, &[Usage::ServerAuth])?;
        let uris = ["spiffe://drover/gateway/local".to_owned()];
        let subject = Subject {
            common_name: "drover-gateway",
            names: &[GATEWAY_NAME],
            uris: &uris,
            ..Subject::default()
        };
        let tunnel = tunnels.issue_files(folder, "tunnel", &subject, &[Usage::ServerAuth])?;
        Ok(Self {
            programs: Programs::of_this_build()?,
            folder: folder.to_owned(),
            authority,
            tunnels,
            port: free_port()?,
            tunnel_port: free_udp_port()?,
            admin_port: free_port()?,
            more: Vec::new(),
            snapshot: roster.path().to_owned(),
            serving,
            tunnel,
            tunnel_ca,
        })
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn cluster_url(&self, cluster: &str) -> String {
        format!("{}/k8s/clusters/{cluster}", self.url())
    }

    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.admin_port)
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    /// Starts the gateway, and waits until it takes connections.
    pub async fn start(&self) -> anyhow::Result<Process> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let arguments = [
            ("listen", format!("127.0.0.1:{}", self.port)),
            ("tunnel-listen", self.tunnel_address()),
            ("admin-listen", format!("127.0.0.1:{}", self.admin_port)),
            ("tls-cert", path(&self.serving.cert)),
            ("tls-key", path(&self.serving.key)),
            ("tunnel-cert", path(&self.tunnel.cert)),
            ("tunnel-key", path(&self.tunnel.key)),
            ("tunnel-ca", path(&self.tunnel_ca)),
            ("snapshot", path(&self.snapshot)),
            ("audit-log", path(&self.audit_log())),
        ];
        let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
        let arguments = arguments.into_iter().chain(self.more.iter().cloned());
        let mut process =
            Process::start("drover-gateway", &self.folder, &self.programs.gateway, arguments).await?;
        until("the gateway to listen", START_TIMEOUT, async || {
            process.check()?;
            Ok(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.ok())
        })
        .await?;
        Ok(process)
    }

    fn tunnel_address(&self) -> String {
        format!("127.0.0.1:{}", self.tunnel_port)
    }

    /// Starts one replica of a cluster's agent.
    pub async fn start_agent(&self, target: &Target, replica: &str) -> anyhow::Result<Process> {
        let folder = self.folder.join(format!("agent-{}-{replica}", target.name));
        std::fs::create_dir_all(&folder)?;
        let uris = [format!("spiffe://drover/cluster/{}/agent", target.id)];
        let subject = Subject { common_name: "drover-agent", uris: &uris, ..Subject::default() };
        let files = self.tunnels.issue_files(&folder, "tunnel", &subject, &[Usage::ClientAuth])?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let arguments = [
            ("gateway", self.tunnel_address()),
            ("gateway-name", GATEWAY_NAME.to_owned()),
            ("tunnel-cert", path(&files.cert)),
            ("tunnel-key", path(&files.key)),
            ("tunnel-ca", path(&self.tunnel_ca)),
            ("api-server", target.address.clone()),
            ("api-server-ca", path(&target.ca)),
            ("token-file", path(&target.token)),
            ("admin-listen", "127.0.0.1:0".to_owned()),
        ];
        let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
        Process::start("drover-agent", &folder, &self.programs.agent, arguments).await
    }

    /// A kubeconfig with a context for each cluster.
    pub fn kubeconfig(&self, member: &Member, clusters: &[&str]) -> anyhow::Result<PathBuf> {
        let server = |cluster: &&str| Server {
            name: (*cluster).to_owned(),
            url: self.cluster_url(cluster),
            ca_pem: self.authority.pem(),
        };
        let servers: Vec<_> = clusters.iter().map(server).collect();
        let path = self.folder.join(format!("{}.kubeconfig", member.name));
        kubeconfig::write(&path, &servers, &member.name, &Credential::Token(member.token.clone()))
    }
}

/// Prepares a cluster for an agent beside it, with the rights of `kubectl`'s user: applies the manifest, and takes
/// a token of the agent's service account.
pub async fn admit_agent(kubectl: impl Fn() -> Command, folder: &Path) -> anyhow::Result<PathBuf> {
    use manifest::{NAMESPACE, SERVICE_ACCOUNT};
    std::fs::create_dir_all(folder)?;
    apply(&kubectl, &folder.join("rbac.json"), &manifest::rbac(manifest::Impersonation::Any)).await?;
    let mut create = kubectl();
    create.args(["create", "token", SERVICE_ACCOUNT, "-n", NAMESPACE, "--duration", AGENT_TOKEN_LIFE]);
    let token = folder.join("agent.token");
    crate::pki::write_secret(&token, output(&mut create).await?.trim())?;
    Ok(token)
}

/// Applies objects, by way of a file that only its owner may read.
async fn apply(
    kubectl: impl Fn() -> Command,
    file: &Path,
    objects: &serde_json::Value,
) -> anyhow::Result<()> {
    crate::pki::write_secret(file, &objects.to_string())?;
    output(kubectl().args(["apply", "--server-side", "-f"]).arg(file)).await.map(drop)
}

/// What a command prints; its own words where it fails.
pub async fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().await?;
    said(command, output)
}

/// Of a command that is told something.
pub async fn output_of(command: &mut Command, input: &str) -> anyhow::Result<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    said(command, child.wait_with_output().await?)
}

fn said(command: &Command, output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{:?} failed: {}", command.as_std(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
