//! The newcomer's fleet on one machine: real clusters, `drover up`, and by the `drover` command what a person
//! would do with them.
//!
//! `up` starts a process that holds the fleet and outlives it; `down` ends that one, and with it all.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::control_plane::ControlPlane;
use crate::fleet::{Programs, output};
use crate::image::{self, BUSYBOX};
use crate::installation::{Installation, Person, drawn_password};
use crate::process::{Process, until};

mod existing;
pub mod holder;

/// More do not fit on a small machine: each takes about half a gigabyte.
pub const CLUSTERS_MAX: u8 = 16;
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
    installation: Installation,
    running: Process,
    admin: Person,
    /// Beside their clusters; where a cluster has nodes its agent is its own pods.
    agents: Vec<Beside>,
}

/// An agent that runs here.
struct Beside {
    cluster: String,
    kubeconfig: PathBuf,
    process: Process,
}

/// A cluster that is there, before its agent is.
struct Ready {
    name: String,
    direct_kubeconfig: PathBuf,
    demo: Option<Demo>,
    /// Where it is ours; with nodes its agent runs on them.
    plane: Option<ControlPlane>,
}

impl Local {
    /// Starts everything in `folder`; tells `progress` what it is at.
    pub async fn start(folder: &Path, clusters: &Clusters, progress: impl Fn(&str)) -> anyhow::Result<Self> {
        let ready = match clusters {
            Clusters::Existing(kubeconfig) => vec![existing::cluster(kubeconfig).await?],
            Clusters::New { count, nodes } => {
                progress(&format!("Starting {count} cluster(s) with {nodes} node(s) each"));
                let image = folder.join("agent.tar");
                if *nodes > 0 {
                    image::write_agent(&image, &Programs::of_this_build()?.agent)?;
                }
                new_clusters(folder, *count, *nodes, &image).await?
            }
        };
        progress("Starting Drover");
        let mut installation = Installation::prepare(&folder.join("drover"))?;
        // The first network's is an address of this machine, which every cluster's nodes reach.
        installation.nodes_host = ready.iter().find_map(Ready::nodes_host);
        let (running, password) = installation.up().await?;
        let password = password.context("the administrator was there before")?;
        let admin = installation.login("admin", &password).await?;
        let viewer = viewer(&installation, &admin).await?;
        for Ready { name, .. } in &ready {
            output(&mut admin.drover(["cluster", "create", name])).await?;
        }
        let up = describe(&installation, &admin, &viewer, &ready).await?;
        let (mut planes, mut agents) = (Vec::new(), Vec::new());
        for Ready { name, direct_kubeconfig, plane, .. } in ready {
            progress(&format!("Connecting cluster {name}"));
            match plane {
                Some(plane) if plane.nodes_host().is_some() => {
                    installation.deploy(&admin, &name, || plane.kubectl()).await?;
                    planes.push(plane);
                }
                plane => {
                    let process = installation.import(&admin, &name, &direct_kubeconfig).await?;
                    agents.push(Beside { cluster: name, kubeconfig: direct_kubeconfig, process });
                    planes.extend(plane);
                }
            }
        }
        let mut local = Self { up, planes, installation, running, admin, agents };
        local.connected().await?;
        Ok(local)
    }

    /// Starts what ended by itself again, as Kubernetes would, and says so. Fails where a control plane has lost
    /// a process.
    pub async fn tend(&mut self) -> anyhow::Result<()> {
        if let Err(ended) = self.running.check() {
            eprintln!("{ended:#}\nstarting Drover again");
            (self.running, _) = self.installation.up().await?;
        }
        for agent in &mut self.agents {
            if let Err(ended) = agent.process.check() {
                eprintln!("{ended:#}\nstarting the agent of {} again", agent.cluster);
                let Beside { cluster, kubeconfig, .. } = &*agent;
                agent.process = self.installation.import(&self.admin, cluster, kubeconfig).await?;
            }
        }
        self.planes.iter_mut().try_for_each(ControlPlane::check)
    }

    /// Ends everything in order: nothing is cut off that could still be answered.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.running.stop().await?;
        for agent in self.agents {
            agent.process.stop().await?;
        }
        for plane in self.planes {
            plane.stop().await?;
        }
        Ok(())
    }

    async fn connected(&mut self) -> anyhow::Result<()> {
        let client = self.installation.client()?;
        for cluster in self.up.clusters.clone() {
            let asked = until("the agent to connect", CONNECT_TIMEOUT, async || {
                self.running.check()?;
                let (status, _) = client.get(&cluster.name, "/version", &self.up.admin.token).await?;
                Ok((status == 200).then_some(()))
            });
            asked.await.with_context(|| format!("cluster {} is not reached", cluster.name))?;
        }
        Ok(())
    }
}

impl Ready {
    fn nodes_host(&self) -> Option<Ipv4Addr> {
        self.plane.as_ref()?.nodes_host()
    }
}

/// A colleague who may read everything.
async fn viewer(installation: &Installation, admin: &Person) -> anyhow::Result<Person> {
    let made = output(&mut admin.drover(["user", "create", "viewer"])).await?;
    let password = drawn_password(&made);
    let bind = ["binding", "create", "--user", "viewer", "--role", "cluster-viewer", "--everywhere"];
    output(&mut admin.drover(bind)).await?;
    installation.login("viewer", &password.context("no password was drawn")?).await
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

async fn new_clusters(folder: &Path, count: u8, nodes: u8, image: &Path) -> anyhow::Result<Vec<Ready>> {
    if !(1..=CLUSTERS_MAX).contains(&count) {
        bail!("--clusters must be 1 to {CLUSTERS_MAX}");
    }
    let folders = (1..=count).map(|number| (number, folder.join(format!("local-{number}"))));
    let starting = folders.map(async |(number, folder)| new_cluster(&folder, number, nodes, image).await);
    futures_util::future::try_join_all(starting).await
}

async fn new_cluster(folder: &Path, number: u8, nodes: u8, image: &Path) -> anyhow::Result<Ready> {
    let name = format!("local-{number}");
    let (plane, demo) = if nodes > 0 {
        let plane = ControlPlane::start_with_nodes(&name, folder, nodes, &[image.to_owned()]).await?;
        let demo = Demo::start(&plane).await?;
        (plane, Some(demo))
    } else {
        (ControlPlane::start(&name, folder).await?, None)
    };
    Ok(Ready { name, direct_kubeconfig: plane.admin_kubeconfig.clone(), demo, plane: Some(plane) })
}

async fn describe(
    installation: &Installation,
    admin: &Person,
    viewer: &Person,
    ready: &[Ready],
) -> anyhow::Result<Up> {
    let user = async |person: &Person| {
        let kubeconfig = person.token_kubeconfig().await?;
        let text = std::fs::read_to_string(&kubeconfig)?;
        let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
        let token = token.context("the kubeconfig has no token")?.to_owned();
        anyhow::Ok(UpUser { name: person.name.clone(), kubeconfig, token })
    };
    let cluster = |ready: &Ready| UpCluster {
        name: ready.name.clone(),
        url: format!("{}/k8s/clusters/{}", installation.url(), ready.name),
        direct_kubeconfig: ready.direct_kubeconfig.clone(),
        demo: ready.demo.clone(),
    };
    Ok(Up {
        gateway: installation.url(),
        ca: installation.data().join("ca.crt"),
        metrics: format!("http://127.0.0.1:{}/metrics", installation.admin_port),
        admin: user(admin).await?,
        viewer: user(viewer).await?,
        clusters: ready.iter().map(cluster).collect(),
    })
}
