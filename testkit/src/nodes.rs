//! Real nodes: each a network namespace with containerd, kubelet and kube-proxy. Needs root.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use crate::image;
use crate::kubeconfig::{self, Server};
use crate::pki::{Authority, Subject, Usage, write};
use crate::process::{Process, repository, until};

/// Where `deploy/local/kubernetes/build nodes` put containerd; `./test` and `up` set it.
const CONTAINERD_VARIABLE: &str = "DROVER_CONTAINERD_BIN";
const NETWORK_TIMEOUT: Duration = Duration::from_secs(20);
/// Of one cluster here; each takes a quarter of a gigabyte.
pub const NODES_MAX: u8 = 8;

/// The bridge of one cluster's nodes.
pub struct Network {
    process: Process,
    index: u8,
}

/// The nodes of one cluster, and the network that they are on.
pub struct Nodes {
    processes: Vec<Process>,
    network: Network,
}

/// What nodes need of their control plane.
pub struct Membership<'a> {
    pub cluster: &'a str,
    pub authority: &'a Authority,
    pub server: &'a Server,
}

/// Whether this process can have nodes; the reason where it cannot.
pub fn possible() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root =
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !is_root {
        return Err("nodes need root".to_owned());
    }
    let output = std::process::Command::new(repository().join("deploy/local/packages")).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    match std::env::var_os(CONTAINERD_VARIABLE) {
        Some(_) => Ok(()),
        None => {
            Err(format!("{CONTAINERD_VARIABLE} is not set: deploy/local/kubernetes/build nodes prints it"))
        }
    }
}

impl Network {
    pub async fn start(folder: &Path) -> anyhow::Result<Self> {
        let script = repository().join("deploy/local/network");
        let mut process = Process::start("network", folder, &script, [folder]).await?;
        let file = folder.join("index");
        let index = until("the nodes' network", NETWORK_TIMEOUT, async || {
            process.check()?;
            Ok(std::fs::read_to_string(&file).ok())
        })
        .await?;
        Ok(Self { process, index: index.trim().parse()? })
    }

    /// This machine's address on it.
    pub fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.index, 1)
    }

    /// Starts nodes, all at once.
    pub async fn nodes(
        self,
        folder: &Path,
        count: u8,
        images: &[PathBuf],
        membership: &Membership<'_>,
    ) -> anyhow::Result<Nodes> {
        if !(1..=NODES_MAX).contains(&count) {
            bail!("a cluster has 1 to {NODES_MAX} nodes here");
        }
        let busybox = folder.join("busybox.tar");
        image::write_busybox(&busybox)?;
        let images: Vec<_> = images.iter().chain([&busybox]).collect();
        let mut processes = Vec::new();
        for number in 1..=count {
            let name = format!("{}-{number}", membership.cluster);
            let own = folder.join(&name);
            std::fs::create_dir_all(&own)?;
            prepare(&own, &name, &images, membership)?;
            let script = repository().join("deploy/local/node");
            let numbers = [self.index.to_string(), number.to_string(), count.to_string()];
            let arguments = [own.to_string_lossy().into_owned(), name.clone()].into_iter().chain(numbers);
            processes.push(Process::start(&name, folder, &script, arguments).await?);
        }
        Ok(Nodes { processes, network: self })
    }
}

fn prepare(
    folder: &Path,
    name: &str,
    images: &[&PathBuf],
    membership: &Membership<'_>,
) -> anyhow::Result<()> {
    let Membership { authority, server, .. } = membership;
    write(&folder.join("ca.crt"), &authority.pem())?;
    let (kubelet, proxy) = (folder.join("kubelet.kubeconfig"), folder.join("proxy.kubeconfig"));
    kubeconfig::write_certified(
        &kubelet,
        authority,
        server,
        &format!("system:node:{name}"),
        Some("system:nodes"),
    )?;
    kubeconfig::write_certified(&proxy, authority, server, "system:kube-proxy", None)?;
    let own = folder.join("images");
    std::fs::create_dir_all(&own)?;
    for (number, image) in images.iter().enumerate() {
        std::fs::copy(image, own.join(format!("{number}.tar")))?;
    }
    Ok(())
}

impl Nodes {
    pub fn host(&self) -> Ipv4Addr {
        self.network.host()
    }

    /// Fails where a node has lost a process.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)?;
        self.network.process.check()
    }

    /// Ends every node, then the network.
    pub async fn stop(self) -> anyhow::Result<()> {
        let ended = futures_util::future::join_all(self.processes.into_iter().map(Process::stop)).await;
        ended.into_iter().collect::<anyhow::Result<()>>()?;
        self.network.process.stop().await
    }
}

/// What the API server shows kubelets.
pub fn kubelet_client(authority: &Authority, folder: &Path) -> anyhow::Result<crate::pki::Files> {
    let subject =
        Subject { common_name: "kube-apiserver", organization: Some("system:masters"), ..Subject::default() };
    authority.issue_files(folder, "kubelet-client", &subject, &[Usage::ClientAuth])
}
