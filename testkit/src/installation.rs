//! Drover as a person installs it: `drover up`, and all else by the `drover` command.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use drover_api::manifest;
use tokio::process::Command;

use crate::client::{Client, fetch};
use crate::control_plane;
use crate::fleet::{Programs, output, output_of};
use crate::image::AGENT;
use crate::pki;
use crate::process::{Process, free_port, free_udp_port, until};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What `drover up` keeps, and where it listens: the same when it starts again.
pub struct Installation {
    pub folder: PathBuf,
    pub drover: PathBuf,
    pub port: u16,
    pub tunnel_port: u16,
    pub control_port: u16,
    pub admin_port: u16,
    pub control_admin_port: u16,
    /// Where nodes reach this machine: their networks do not reach the loopback interface.
    pub nodes_host: Option<Ipv4Addr>,
    starts: u32,
}

/// The files and ports of one gateway.
struct Place {
    control_port: u16,
    state: PathBuf,
    token: PathBuf,
    audit_log: PathBuf,
    port: u16,
    tunnel_port: u16,
    admin_port: u16,
}

/// A gateway beside the first.
pub struct AnotherGateway {
    pub process: Process,
    pub tunnel_port: u16,
    pub client: Client,
}

/// Somebody who uses it, with a configuration of their own.
pub struct Person {
    pub name: String,
    pub config: PathBuf,
    /// Of what this person runs: no keyring of whoever runs the tests.
    pub environment: Vec<(String, String)>,
    drover: PathBuf,
}

impl Installation {
    pub fn prepare(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            drover: Programs::of_this_build()?.gateway.with_file_name("drover"),
            port: free_port()?,
            tunnel_port: free_udp_port()?,
            control_port: free_port()?,
            admin_port: free_port()?,
            control_admin_port: free_port()?,
            nodes_host: None,
            starts: 0,
        })
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// `drover up`, once it is ready; and the first administrator's password, the first time.
    pub async fn up(&mut self) -> anyhow::Result<(Process, Option<String>)> {
        self.starts += 1;
        let flag = |name: &str, port: u16| format!("--{name}=127.0.0.1:{port}");
        let open = |name: &str, port: u16| match self.nodes_host {
            Some(_) => format!("--{name}=0.0.0.0:{port}"),
            None => flag(name, port),
        };
        let mut arguments = vec![
            "up".to_owned(),
            format!("--config={}", self.folder.join("up.json").display()),
            format!("--data={}", self.data().display()),
            open("listen", self.port),
            open("tunnel-listen", self.tunnel_port),
            flag("control-listen", self.control_port),
            flag("admin-listen", self.admin_port),
            flag("control-admin-listen", self.control_admin_port),
        ];
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()].into_iter();
        let hosts = hosts.chain(self.nodes_host.map(|host| host.to_string()));
        arguments.extend(hosts.map(|host| format!("--host={host}")));
        let name = format!("up-{}", self.starts);
        let mut process = Process::start(&name, &self.folder, &self.drover, arguments).await?;
        let said = until("drover up to be ready", READY_TIMEOUT, async || {
            process.check()?;
            let said = process.log_tail();
            Ok(said.contains("Everything is kept in").then_some(said))
        });
        let said = said.await?;
        Ok((process, drawn_password(&said)))
    }

    /// Control alone, as `drover up` would run it: to be killed under it.
    pub async fn control(&self, log: &str, more: &[&str]) -> anyhow::Result<Process> {
        let data = self.data();
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--store={}", data.join("store.db").display()),
            format!("--key-file={}", data.join("store.key").display()),
            format!("--listen=127.0.0.1:{}", self.control_port),
            format!("--admin-listen=127.0.0.1:{}", self.control_admin_port),
        ];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let program = self.drover.with_file_name("drover-control");
        let process = Process::start_disposable(log, &self.folder, &program, arguments).await?;
        ready(process, self.control_admin_port).await
    }

    /// The gateway alone.
    pub async fn gateway(&self, log: &str) -> anyhow::Result<Process> {
        let data = self.data();
        let place = Place {
            control_port: self.control_port,
            state: data.join("gateway"),
            token: data.join("gateway.token"),
            audit_log: data.join("audit.jsonl"),
            port: self.port,
            tunnel_port: self.tunnel_port,
            admin_port: self.admin_port,
        };
        self.gateway_at(log, &place).await
    }

    async fn gateway_at(&self, log: &str, place: &Place) -> anyhow::Result<Process> {
        let data = self.data();
        let arguments = [
            format!("--control=127.0.0.1:{}", place.control_port),
            format!("--state={}", place.state.display()),
            format!("--registration-token-file={}", place.token.display()),
            format!("--tls-cert={}", data.join("tls.crt").display()),
            format!("--tls-key={}", data.join("tls.key").display()),
            format!("--audit-log={}", place.audit_log.display()),
            format!("--listen=127.0.0.1:{}", place.port),
            format!("--tunnel-listen=127.0.0.1:{}", place.tunnel_port),
            format!("--admin-listen=127.0.0.1:{}", place.admin_port),
        ];
        let program = self.drover.with_file_name("drover-gateway");
        let process = Process::start(log, &self.folder, &program, arguments).await?;
        ready(process, place.admin_port).await
    }

    /// One more gateway, with what an administrator drew for it; it reaches control at a port that may be a detour.
    pub async fn another_gateway(
        &self,
        name: &str,
        token: &str,
        control_port: u16,
    ) -> anyhow::Result<AnotherGateway> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let place = Place {
            control_port,
            state: folder.join("state"),
            token: folder.join("token"),
            audit_log: folder.join("audit.jsonl"),
            port: free_port()?,
            tunnel_port: free_udp_port()?,
            admin_port: free_port()?,
        };
        pki::write_secret(&place.token, token)?;
        let process = self.gateway_at(name, &place).await?;
        let client = Client::at(place.port, &std::fs::read_to_string(self.data().join("ca.crt"))?, &[])?;
        Ok(AnotherGateway { process, tunnel_port: place.tunnel_port, client })
    }

    /// A client of the gateway's port.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::at(self.port, &std::fs::read_to_string(self.data().join("ca.crt"))?, &[])
    }

    /// Somebody who is not logged in, by the name of their configuration.
    pub fn person(&self, name: &str) -> Person {
        let config = self.folder.join(format!("{name}.json"));
        let environment = vec![("DROVER_KEYRING".to_owned(), "off".to_owned())];
        Person { name: name.to_owned(), config, environment, drover: self.drover.clone() }
    }

    /// A person who logs in.
    pub async fn login(&self, name: &str, password: &str) -> anyhow::Result<Person> {
        self.login_through("local", name, password).await
    }

    /// A person who logs in, and whom a directory knows.
    pub async fn login_through(&self, provider: &str, name: &str, password: &str) -> anyhow::Result<Person> {
        let mut person = self.person(&format!("{provider}-{name}"));
        person.name = name.to_owned();
        let ca = self.data().join("ca.crt");
        let mut command = person.drover(["login", &self.url(), "--user", name, "--password-stdin"]);
        command.args(["--provider", provider]).arg("--ca");
        command.arg(ca);
        output_of(&mut command, password).await?;
        Ok(person)
    }

    /// Runs the agent of a cluster of a kubeconfig, as `drover cluster import --kubeconfig` does.
    pub async fn import(&self, person: &Person, cluster: &str, kubeconfig: &Path) -> anyhow::Result<Process> {
        self.import_through(person, cluster, kubeconfig, &[self.tunnel_port]).await
    }

    /// The same, by several gateways.
    pub async fn import_through(
        &self,
        person: &Person,
        cluster: &str,
        kubeconfig: &Path,
        tunnel_ports: &[u16],
    ) -> anyhow::Result<Process> {
        // The one that was built goes before the system's.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = control_plane::binaries().ok().into_iter().chain(std::env::split_paths(&path));
        let path = std::env::join_paths(path)?;
        let state = self.folder.join(format!("agent-{cluster}"));
        let mut set = std::ffi::OsString::from("PATH=");
        set.push(path);
        let mut arguments: Vec<std::ffi::OsString> = vec![
            set,
            self.drover.clone().into(),
            "cluster".into(),
            "import".into(),
            cluster.into(),
            "--config".into(),
            person.config.clone().into(),
            "--kubeconfig".into(),
            kubeconfig.into(),
            "--state".into(),
            state.into(),
        ];
        arguments.extend(tunnel_ports.iter().map(|port| format!("--gateway=127.0.0.1:{port}").into()));
        let name = format!("import-{cluster}");
        // What an earlier one said is not what this one says.
        drop(std::fs::remove_file(self.folder.join(format!("{name}.log"))));
        let mut process = Process::start(&name, &self.folder, Path::new("/usr/bin/env"), arguments).await?;
        until("the cluster to be served", READY_TIMEOUT, async || {
            process.check()?;
            Ok(process.log_tail().contains("is served").then_some(()))
        })
        .await?;
        Ok(process)
    }
}

impl Installation {
    /// Deploys the agent of a cluster as its own pods, as `drover cluster import | kubectl apply` does.
    pub async fn deploy(
        &self,
        person: &Person,
        cluster: &str,
        kubectl: impl Fn() -> Command,
    ) -> anyhow::Result<()> {
        let host = self.nodes_host.context("the cluster has no nodes")?;
        let (server, gateway) = (format!("{host}:{}", self.port), format!("{host}:{}", self.tunnel_port));
        let import =
            ["cluster", "import", cluster, "--server", &server, "--gateway", &gateway, "--image", AGENT];
        let manifest = output(&mut person.drover(import)).await?;
        output_of(kubectl().args(["apply", "-f", "-"]), &manifest).await?;
        let rollout = ["rollout", "status", "deployment", manifest::DEPLOYMENT, "--timeout=60s"];
        output(kubectl().args(["-n", manifest::NAMESPACE]).args(rollout)).await.map(drop)
    }
}

async fn ready(mut process: Process, admin_port: u16) -> anyhow::Result<Process> {
    let url = format!("http://127.0.0.1:{admin_port}/readyz");
    until("the process to be ready", READY_TIMEOUT, async || {
        process.check()?;
        // Refused until it listens.
        Ok(fetch(&url).await.ok().filter(|(code, _)| *code == 200).map(drop))
    })
    .await?;
    Ok(process)
}

impl Person {
    /// The `drover` command, as this person.
    pub fn drover<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.drover);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("DROVER_CONFIG", &self.config).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// A kubeconfig with a context for each cluster, written the first time that it is asked for.
    pub async fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig_with("kubeconfig", &[]).await
    }

    /// The same with a token in it, for machines without `drover`.
    pub async fn token_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        self.kubeconfig_with("token.kubeconfig", &["--token"]).await
    }

    async fn kubeconfig_with(&self, extension: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        let kubeconfig = self.config.with_extension(extension);
        if !kubeconfig.is_file() {
            let mut command = self.drover(["kubeconfig", "--kubeconfig"]);
            output(command.arg(&kubeconfig).args(more)).await?;
        }
        Ok(kubeconfig)
    }

    /// kubectl with that, for a cluster.
    pub async fn kubectl(&self, cluster: &str) -> anyhow::Result<Command> {
        let mut kubectl = control_plane::kubectl(&control_plane::binaries()?, &self.kubeconfig().await?);
        kubectl.args(["--context", cluster]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(kubectl)
    }
}

/// The password that a command says it has drawn.
pub fn drawn_password(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.strip_prefix("Password, shown this once: ")).map(str::to_owned)
}
