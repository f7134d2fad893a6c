//! The newcomer's fleet on one machine: real clusters, a gateway, an agent in front of each.
//!
//! `up` starts a process that holds the fleet and outlives it; `down` ends that one, and with it all.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use drover_api::kinds::Domain;
use serde::{Deserialize, Serialize};

use crate::control_plane::ControlPlane;
use crate::fleet::{Gateway, Programs, Target, admit_agent, output};
use crate::image::{self, BUSYBOX};
use crate::process::{Process, until};
use crate::roster::{Member, Roster};

mod existing;
pub mod holder;

/// More do not fit on a small machine: each takes about half a gigabyte.
pub const CLUSTERS_MAX: u8 = 16;
/// The one agent of a cluster here.
const REPLICA: &str = "a";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// What `up --json` prints, and scripts use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Up {
    pub gateway: String,
    pub ca: PathBuf,
    pub metrics: String,
    pub admin: UpUser,
    pub viewer: UpUser,
    pub clusters: Vec<UpCluster>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpUser {
    pub name: String,
    pub kubeconfig: PathBuf,
    pub token: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpCluster {
    pub name: String,
    pub url: String,
    /// Past the gateway, with an administrator's certificate.
    pub direct_kubeconfig: PathBuf,
    /// A pod to try things on, where the cluster has nodes.
    pub demo: Option<Demo>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Demo {
    pub namespace: String,
    pub pod: String,
    pub image: String,
}

/// Which clusters stand behind the gateway.
#[derive(Clone, Debug)]
pub enum Clusters {
    Existing(PathBuf),
    /// Made for this, each with that many nodes.
    New {
        count: u8,
        nodes: u8,
    },
}

/// Everything that runs; ends when it is dropped.
pub struct Local {
    pub up: Up,
    planes: Vec<ControlPlane>,
    gateway: Gateway,
    running: Process,
    /// Beside their clusters; where a cluster has nodes its agent is its own pods.
    agents: Vec<(Target, Process)>,
}

/// A cluster that is there, before its agent is.
struct Ready {
    name: String,
    id: String,
    direct_kubeconfig: PathBuf,
    demo: Option<Demo>,
    agent: Place,
}

/// Where a cluster's agent will be.
enum Place {
    /// A process here, with a token of its service account's; the control plane, where it is ours.
    Beside(Target, Option<ControlPlane>),
    /// Pods of the cluster's own.
    Inside(ControlPlane),
}

impl Local {
    /// Starts everything in `folder`; tells `progress` what it is at.
    pub async fn start(folder: &Path, clusters: &Clusters, progress: impl Fn(&str)) -> anyhow::Result<Self> {
        let ready = match clusters {
            Clusters::Existing(kubeconfig) => vec![existing::cluster(folder, kubeconfig).await?],
            Clusters::New { count, nodes } => {
                progress(&format!("Starting {count} cluster(s) with {nodes} node(s) each"));
                let image = folder.join("agent.tar");
                if *nodes > 0 {
                    image::write_agent(&image, &Programs::of_this_build()?.agent)?;
                }
                new_clusters(folder, *count, *nodes, &image).await?
            }
        };
        progress("Starting the gateway");
        let named: Vec<_> = ready.iter().map(|ready| (ready.name.as_str(), ready.id.as_str())).collect();
        let mut roster = Roster::new(&folder.join("snapshot.json"), &named);
        let (admin, viewer) = (roster.user("admin", &[])?, roster.user("viewer", &[])?);
        roster.bind(&admin.principal, "admin", Domain::Global);
        roster.bind(&viewer.principal, "cluster-viewer", Domain::Global);
        roster.publish()?;
        let mut gateway = Gateway::prepare(&folder.join("gateway"), roster.path())?;
        // The first network's is an address of this machine, which every cluster's nodes reach.
        if let Some(host) = ready.iter().find_map(|ready| ready.agent.nodes_host()) {
            gateway.tunnel_host = host;
        }
        let running = gateway.start().await?;
        let up = describe(&gateway, &admin, &viewer, &ready)?;
        let (mut planes, mut agents) = (Vec::new(), Vec::new());
        for Ready { name, id, agent, .. } in ready {
            progress(&format!("Connecting cluster {name}"));
            match agent {
                Place::Beside(target, plane) => {
                    let agent = gateway.start_agent(&target, REPLICA).await?;
                    agents.push((target, agent));
                    planes.extend(plane);
                }
                Place::Inside(plane) => {
                    gateway.deploy_agent(|| plane.kubectl(), &id).await?;
                    planes.push(plane);
                }
            }
        }
        let mut local = Self { up, planes, gateway, running, agents };
        local.connected(&admin).await?;
        Ok(local)
    }

    /// Starts a gateway or an agent that ended by itself again, as Kubernetes would, and says so. Fails
    /// where a control plane has lost a process.
    pub async fn tend(&mut self) -> anyhow::Result<()> {
        if let Err(ended) = self.running.check() {
            eprintln!("{ended:#}\nstarting the gateway again");
            self.running = self.gateway.start().await?;
        }
        for (target, agent) in &mut self.agents {
            if let Err(ended) = agent.check() {
                eprintln!("{ended:#}\nstarting the agent of {} again", target.name);
                *agent = self.gateway.start_agent(target, REPLICA).await?;
            }
        }
        self.planes.iter_mut().try_for_each(ControlPlane::check)
    }

    /// Ends everything in order: nothing is cut off that could still be answered.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await?;
        for (_, agent) in self.agents {
            agent.stop().await?;
        }
        for plane in self.planes {
            plane.stop().await?;
        }
        Ok(())
    }

    async fn connected(&mut self, admin: &Member) -> anyhow::Result<()> {
        let client = crate::client::Client::new(&self.gateway)?;
        for cluster in self.up.clusters.clone() {
            let asked = until("the agent to connect", CONNECT_TIMEOUT, async || {
                self.running.check()?;
                self.agents.iter_mut().try_for_each(|(_, agent)| agent.check())?;
                let (status, _) = client.get(&cluster.name, "/version", &admin.token).await?;
                Ok((status == 200).then_some(()))
            });
            asked.await.with_context(|| format!("cluster {} is not reached", cluster.name))?;
        }
        Ok(())
    }
}

impl Demo {
    /// A pod with a shell, which runs when this returns.
    async fn start(plane: &ControlPlane) -> anyhow::Result<Self> {
        let demo = Self { namespace: "demo".to_owned(), pod: "shell".to_owned(), image: BUSYBOX.to_owned() };
        let Self { namespace, pod, image } = &demo;
        output(plane.kubectl().args(["create", "namespace", namespace])).await?;
        let account = ["-n", namespace, "get", "serviceaccount", "default"];
        until("the demo's service account", CONNECT_TIMEOUT, async || {
            Ok(output(plane.kubectl().args(account)).await.ok())
        })
        .await?;
        let image = format!("--image={image}");
        let run = ["-n", namespace, "run", pod, &image, "--restart=Never", "--image-pull-policy=Never"];
        output(plane.kubectl().args(run)).await?;
        let phase = ["-n", namespace, "get", "pod", pod, "-o", "jsonpath={.status.phase}"];
        until("the demo pod to run", CONNECT_TIMEOUT, async || {
            Ok((output(plane.kubectl().args(phase)).await? == "Running").then_some(()))
        })
        .await?;
        Ok(demo)
    }
}

impl Place {
    fn nodes_host(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Beside(..) => None,
            Self::Inside(plane) => plane.nodes_host(),
        }
    }
}

async fn new_clusters(folder: &Path, count: u8, nodes: u8, image: &Path) -> anyhow::Result<Vec<Ready>> {
    if !(1..=CLUSTERS_MAX).contains(&count) {
        bail!("--clusters must be 1 to {CLUSTERS_MAX}");
    }
    let folders = (1..=count).map(|number| (number, folder.join(format!("local-{number}"))));
    let starting = folders.map(async |(number, folder)| new_cluster(&folder, number, nodes, image).await);
    futures_util::future::try_join_all(starting).await
}

async fn new_cluster(folder: &Path, number: u8, nodes: u8, image: &Path) -> anyhow::Result<Ready> {
    let (name, id) = (format!("local-{number}"), format!("c-local{number}"));
    if nodes > 0 {
        let plane = ControlPlane::start_with_nodes(&name, folder, nodes, &[image.to_owned()]).await?;
        let (direct_kubeconfig, demo) = (plane.admin_kubeconfig.clone(), Demo::start(&plane).await?);
        return Ok(Ready { name, id, direct_kubeconfig, demo: Some(demo), agent: Place::Inside(plane) });
    }
    let plane = ControlPlane::start(&name, folder).await?;
    let token = admit_agent(|| plane.kubectl(), folder).await?;
    let (address, ca) = (plane.address.clone(), plane.ca.clone());
    let target = Target { name: name.clone(), id: id.clone(), address, ca, token };
    let direct_kubeconfig = plane.admin_kubeconfig.clone();
    Ok(Ready { name, id, direct_kubeconfig, demo: None, agent: Place::Beside(target, Some(plane)) })
}

fn describe(gateway: &Gateway, admin: &Member, viewer: &Member, ready: &[Ready]) -> anyhow::Result<Up> {
    let names: Vec<_> = ready.iter().map(|ready| ready.name.as_str()).collect();
    let user = |member: &Member| {
        let kubeconfig = gateway.kubeconfig(member, &names)?;
        anyhow::Ok(UpUser { name: member.name.clone(), kubeconfig, token: member.token.clone() })
    };
    let cluster = |ready: &Ready| UpCluster {
        name: ready.name.clone(),
        url: gateway.cluster_url(&ready.name),
        direct_kubeconfig: ready.direct_kubeconfig.clone(),
        demo: ready.demo.clone(),
    };
    Ok(Up {
        gateway: gateway.url(),
        ca: gateway.ca(),
        metrics: gateway.metrics_url(),
        admin: user(admin)?,
        viewer: user(viewer)?,
        clusters: ready.iter().map(cluster).collect(),
    })
}
