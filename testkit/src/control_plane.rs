//! A real control plane: etcd, API server, controller-manager. On the loopback interface, and no root needed;
//! with nodes on their network, and a scheduler.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rcgen::KeyPair;
use tokio::process::Command;

use crate::kubeconfig::{self, Server};
use crate::nodes::{self, Membership, Network, Nodes};
use crate::pki::{self, Authority, Files, Subject, Usage};
use crate::process::{Process, free_port, repository, until};

/// Slow machines take several times the usual 4 s.
const START_TIMEOUT: Duration = Duration::from_secs(80);
/// Somebody else may take a port between the look and the use.
const STARTS_MAX: usize = 3;
/// Where `deploy/local/kubernetes/build` put the binaries; `./test` and `up` set it.
const BINARIES_VARIABLE: &str = "DROVER_KUBERNETES_BIN";

/// The first of the services' range: the API server's own, for pods.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// A running control plane; ends when dropped.
pub struct ControlPlane {
    pub server: Server,
    /// Of a member of `system:masters`, past every gateway.
    pub admin_kubeconfig: PathBuf,
    /// `host:port` of the API server.
    pub address: String,
    pub ca: PathBuf,
    /// What the API server did for whom, as JSON lines.
    pub audit_log: PathBuf,
    binaries: PathBuf,
    processes: Vec<Process>,
    /// After the processes: nodes end first, see `stop`.
    nodes: Option<Nodes>,
    certificates: Arc<Certificates>,
}

struct Audit {
    policy: PathBuf,
    log: PathBuf,
}

struct Certificates {
    authority: Authority,
    ca: PathBuf,
    server: Files,
    account_key: PathBuf,
    account_public: PathBuf,
    kubelet_client: Files,
    /// Where the API server listens.
    host: Ipv4Addr,
}

impl ControlPlane {
    /// Starts a control plane called `name`, with all its files in `folder`.
    pub async fn start(name: &str, folder: &Path) -> anyhow::Result<Self> {
        Self::start_at(name, folder, Ipv4Addr::LOCALHOST).await
    }

    /// Starts a control plane with nodes that are ready, and have `images` beside busybox.
    pub async fn start_with_nodes(
        name: &str,
        folder: &Path,
        count: u8,
        images: &[PathBuf],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let network = Network::start(folder).await?;
        let mut plane = Self::start_at(name, folder, network.host()).await?;
        let membership =
            Membership { cluster: name, authority: &plane.certificates.authority, server: &plane.server };
        plane.nodes = Some(network.nodes(folder, count, images, &membership).await?);
        until("the nodes to be ready", START_TIMEOUT, async || {
            plane.check()?;
            let output = plane.kubectl().args(["get", "nodes", "--no-headers"]).output().await?;
            let listed = String::from_utf8_lossy(&output.stdout).into_owned();
            let ready = listed.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
            Ok((ready == usize::from(count)).then_some(()))
        })
        .await?;
        Ok(plane)
    }

    async fn start_at(name: &str, folder: &Path, host: Ipv4Addr) -> anyhow::Result<Self> {
        let binaries = binaries()?;
        std::fs::create_dir_all(folder)?;
        let certificates = Arc::new(Certificates::new(name, folder, host)?);
        let mut failures = Vec::new();
        for _ in 0..STARTS_MAX {
            match Self::try_start(name, folder, &binaries, &certificates).await {
                Ok(started) => return Ok(started),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        bail!("control plane {name} did not start:\n{}", failures.join("\n"))
    }

    /// kubectl as the administrator, past every gateway.
    pub fn kubectl(&self) -> Command {
        kubectl(&self.binaries, &self.admin_kubeconfig)
    }

    /// Fails where a process has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)?;
        self.nodes.as_mut().map_or(Ok(()), Nodes::check)
    }

    /// The API server's process.
    pub fn api_server(&self) -> &Process {
        &self.processes[1]
    }

    /// etcd, the API server, the controller-manager.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// This machine's address on the nodes' network.
    pub fn nodes_host(&self) -> Option<Ipv4Addr> {
        self.nodes.as_ref().map(Nodes::host)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        if let Some(nodes) = self.nodes {
            nodes.stop().await?;
        }
        for process in self.processes.into_iter().rev() {
            process.stop().await?;
        }
        Ok(())
    }

    async fn try_start(
        name: &str,
        folder: &Path,
        binaries: &Path,
        certificates: &Arc<Certificates>,
    ) -> anyhow::Result<Self> {
        let (etcd_url, peer_url) = (loopback("http", free_port()?), loopback("http", free_port()?));
        let port = free_port()?;
        let data = folder.join("etcd");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        // All of it is thrown away: an API server would wait for watches that nobody ends.
        let etcd = Process::start_disposable(
            "etcd",
            folder,
            &binaries.join("etcd"),
            etcd(&data, &etcd_url, &peer_url),
        )
        .await?;
        let audit = Audit::prepare(folder)?;
        let arguments = api_server(certificates, &audit, &etcd_url, port);
        let api_server =
            Process::start_disposable("kube-apiserver", folder, &binaries.join("kube-apiserver"), arguments)
                .await?;
        let server = Server {
            name: name.to_owned(),
            url: format!("https://{}:{port}", certificates.host),
            ca_pem: certificates.authority.pem(),
        };
        let admin_kubeconfig = folder.join("admin.kubeconfig");
        let masters = Some("system:masters");
        kubeconfig::write_certified(&admin_kubeconfig, &certificates.authority, &server, "admin", masters)?;
        let mut started = Self {
            server,
            admin_kubeconfig,
            address: format!("{}:{port}", certificates.host),
            ca: certificates.ca.clone(),
            audit_log: audit.log,
            binaries: binaries.to_owned(),
            processes: vec![etcd, api_server],
            nodes: None,
            certificates: certificates.clone(),
        };
        started.answers("ok from /readyz", &["get", "--raw", "/readyz"]).await?;
        let config = certificates.kubeconfig(folder, &started.server, "system:kube-controller-manager")?;
        let manager = binaries.join("kube-controller-manager");
        let arguments = controller_manager(certificates, &config);
        started
            .processes
            .push(Process::start_disposable("kube-controller-manager", folder, &manager, arguments).await?);
        if !certificates.host.is_loopback() {
            let config = certificates.kubeconfig(folder, &started.server, "system:kube-scheduler")?;
            let scheduler = binaries.join("kube-scheduler");
            let arguments = scheduler_arguments(&config);
            started
                .processes
                .push(Process::start_disposable("kube-scheduler", folder, &scheduler, arguments).await?);
        }
        // The sign that controllers work, and what pods and tokens need.
        started.answers("the default service account", &["get", "serviceaccount", "default"]).await?;
        Ok(started)
    }

    async fn answers(&mut self, what: &str, arguments: &[&str]) -> anyhow::Result<()> {
        until(what, START_TIMEOUT, async || {
            self.check()?;
            let output = self.kubectl().args(arguments).output().await?;
            Ok(output.status.success().then_some(()))
        })
        .await
    }
}

impl Audit {
    /// Who asked for what, when a request began and when it ended; no bodies.
    fn prepare(folder: &Path) -> anyhow::Result<Self> {
        let policy = folder.join("audit-policy.json");
        let rules = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"Metadata"}]}"#;
        pki::write(&policy, rules)?;
        Ok(Self { policy, log: folder.join("audit.log") })
    }
}

impl Certificates {
    fn new(name: &str, folder: &Path, host: Ipv4Addr) -> anyhow::Result<Self> {
        let authority = Authority::new(name)?;
        let addresses = [Ipv4Addr::LOCALHOST.into(), host.into(), SERVICE_ADDRESS.into()];
        let ca = authority.write(folder, "ca.crt")?;
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let subject = Subject {
            common_name: "kube-apiserver",
            names: &names,
            addresses: &addresses,
            ..Subject::default()
        };
        let server = authority.issue_files(folder, "server", &subject, &[Usage::ServerAuth])?;
        let (account_key, account_public) = (folder.join("accounts.key"), folder.join("accounts.pub"));
        let key = KeyPair::generate()?;
        pki::write_secret(&account_key, &key.serialize_pem())?;
        // The API server does not take the public half out of a PKCS#8 key by itself.
        pki::write(&account_public, &key.public_key_pem())?;
        let kubelet_client = nodes::kubelet_client(&authority, folder)?;
        Ok(Self { authority, ca, server, account_key, account_public, kubelet_client, host })
    }

    /// Of a component, which the API server knows by its name alone.
    fn kubeconfig(&self, folder: &Path, server: &Server, user: &str) -> anyhow::Result<PathBuf> {
        let path = folder.join(format!("{}.kubeconfig", user.trim_start_matches("system:")));
        kubeconfig::write_certified(&path, &self.authority, server, user, None)
    }
}

/// kubectl with a kubeconfig, and a discovery cache beside it.
pub fn kubectl(binaries: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(binaries.join("kubectl"));
    command.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", kubeconfig.with_extension("cache"));
    command.kill_on_drop(true).stdin(std::process::Stdio::null());
    command
}

/// The folder of Kubernetes' binaries.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let found = std::env::var_os(BINARIES_VARIABLE).map(PathBuf::from);
    let build = repository().join("deploy/local/kubernetes/build");
    found.with_context(|| {
        format!("{BINARIES_VARIABLE} is not set: run ./test, or set it to what {} prints", build.display())
    })
}

fn loopback(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn etcd(data: &Path, client_url: &str, peer_url: &str) -> Vec<String> {
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    vec![
        flag("data-dir", &data.to_string_lossy()),
        flag("listen-client-urls", client_url),
        flag("advertise-client-urls", client_url),
        flag("listen-peer-urls", peer_url),
        flag("initial-advertise-peer-urls", peer_url),
        flag("initial-cluster", &format!("default={peer_url}")),
        flag("unsafe-no-fsync", "true"),
        flag("log-level", "warn"),
    ]
}

fn api_server(certificates: &Certificates, audit: &Audit, etcd_url: &str, port: u16) -> Vec<String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let Certificates { ca, server, account_key, account_public, kubelet_client, host, .. } = certificates;
    let Audit { policy: audit_policy, log: audit_log } = audit;
    // Endpoints of the loopback address are refused: without nodes nobody needs them.
    let reconciler = if host.is_loopback() { "none" } else { "lease" };
    [
        ("etcd-servers", etcd_url.to_owned()),
        ("bind-address", host.to_string()),
        ("advertise-address", host.to_string()),
        ("secure-port", port.to_string()),
        ("tls-cert-file", path(&server.cert)),
        ("tls-private-key-file", path(&server.key)),
        ("client-ca-file", path(ca)),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", path(account_public)),
        ("service-account-signing-key-file", path(account_key)),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("kubelet-client-certificate", path(&kubelet_client.cert)),
        ("kubelet-client-key", path(&kubelet_client.key)),
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("endpoint-reconciler-type", reconciler.to_owned()),
        ("audit-policy-file", path(audit_policy)),
        ("audit-log-path", path(audit_log)),
        // Connections of HTTP/2 end now and then, as those of large clusters do.
        ("goaway-chance", "0.02".to_owned()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .into()
}

fn scheduler_arguments(kubeconfig: &Path) -> Vec<String> {
    let flags = [
        ("kubeconfig", kubeconfig.to_string_lossy()),
        ("leader-elect", "false".into()),
        ("secure-port", "0".into()),
    ];
    flags.map(|(name, value)| format!("--{name}={value}")).into()
}

fn controller_manager(certificates: &Certificates, kubeconfig: &Path) -> Vec<String> {
    [
        ("kubeconfig", kubeconfig.to_string_lossy()),
        ("service-account-private-key-file", certificates.account_key.to_string_lossy()),
        ("root-ca-file", certificates.ca.to_string_lossy()),
        ("use-service-account-credentials", "true".into()),
        ("leader-elect", "false".into()),
        ("secure-port", "0".into()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .into()
}
