//! `drover-local`: what `deploy/local/up` and `down` run.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use drover_daemon::exit::report;
use drover_testkit::control_plane;
use drover_testkit::fleet::Programs;
use drover_testkit::image;
use drover_testkit::local::holder::{Folder, down, follow, hold};
use drover_testkit::local::{Clusters, Up};
use drover_testkit::nodes;
use drover_testkit::process::repository;
use tokio::process::Command;

/// A Drover fleet on this machine: real Kubernetes clusters behind a gateway.
#[derive(Parser)]
#[command(name = "drover-local", version)]
struct Cli {
    /// Folder of the fleet's files; by default .local in the repository.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Ends the fleet and removes its files.
    Down,
    /// Holds a fleet: what `up` leaves behind.
    #[command(hide = true)]
    Hold(Which),
    /// Writes the image of this build's agent.
    Image { file: PathBuf },
    /// Starts a fleet.
    Up {
        #[command(flatten)]
        which: Which,
        /// Print one JSON object for scripts.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone)]
struct Which {
    /// How many clusters to make.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(drover_testkit::local::CLUSTERS_MAX)))]
    clusters: u8,
    /// Nodes of each cluster: by default 1 for root, 0 for others.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=i64::from(nodes::NODES_MAX)))]
    nodes: Option<u8>,
    /// Put the gateway in front of the cluster in this file instead (its current context).
    #[arg(long, conflicts_with_all = ["clusters", "nodes"])]
    kubeconfig: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    report(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let folder = Folder::new(cli.folder.unwrap_or_else(|| repository().join(".local")));
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a second TLS provider was installed")?;
    match cli.command {
        Do::Down => {
            let ended = down(&folder).await?;
            eprintln!("{}", if ended { "The fleet is down." } else { "Nothing was running." });
            Ok(())
        }
        Do::Image { file } => image::write_agent(&file, &Programs::of_this_build()?.agent),
        Do::Hold(which) => hold(&folder, &which.clusters()?).await,
        Do::Up { which, json } => up(&folder, &which.clusters()?, json).await,
    }
}

impl Which {
    /// With the number of nodes decided, which is refused where this machine cannot have them.
    fn clusters(&self) -> anyhow::Result<Clusters> {
        if let Some(file) = &self.kubeconfig {
            return Ok(Clusters::Existing(file.clone()));
        }
        let nodes = match (self.nodes, nodes::possible()) {
            (Some(0), _) => 0,
            (Some(nodes), Ok(())) => nodes,
            (Some(_), Err(reason)) => bail!("{reason}"),
            (None, Ok(())) => 1,
            (None, Err(reason)) => {
                eprintln!("Without nodes: {reason}");
                0
            }
        };
        Ok(Clusters::New { count: self.clusters, nodes })
    }
}

fn arguments(clusters: &Clusters) -> Vec<String> {
    let texts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
    match clusters {
        Clusters::Existing(file) => texts(&["--kubeconfig", &file.to_string_lossy()]),
        Clusters::New { count, nodes } => {
            texts(&["--clusters", &count.to_string(), "--nodes", &nodes.to_string()])
        }
    }
}

async fn up(folder: &Folder, clusters: &Clusters, json: bool) -> anyhow::Result<()> {
    if folder.holder().is_some() {
        bail!("a fleet is up already in {}: end it with deploy/local/down", folder.path().display());
    }
    // What a fleet that ended by itself left behind.
    down(folder).await?;
    std::fs::create_dir_all(folder.path())?;
    let log = std::fs::File::create(folder.path().join("hold.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--folder").arg(folder.path()).arg("hold").args(arguments(clusters));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0);
    let mut holder = command.spawn()?;
    let followed = tokio::select! {
        followed = follow(&mut holder, |line| eprintln!("{line}")) => followed,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match followed {
        Ok(up) if json => println!("{}", serde_json::to_string(&up)?),
        Ok(up) => print!("{}", told(&up)),
        Err(error) => {
            // Ends by itself where it failed; where it was interrupted, this ends it.
            let log = std::fs::read_to_string(folder.path().join("hold.log")).unwrap_or_default();
            down(folder).await?;
            bail!("{error}\n{log}");
        }
    }
    Ok(())
}

/// What to try next.
fn told(up: &Up) -> String {
    let kubectl = match control_plane::binaries() {
        Ok(folder) => format!("export PATH={}:$PATH   # kubectl, if you have none\n  ", folder.display()),
        Err(_) => String::new(),
    };
    let names: Vec<_> = up.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let last = names.last().copied().unwrap_or_default();
    let demo =
        up.clusters.last().and_then(|cluster| cluster.demo.as_ref()).map_or_else(String::new, |demo| {
            format!("  kubectl --context {last} -n {} exec -it {} -- sh\n", demo.namespace, demo.pod)
        });
    let drover = std::env::current_exe().map_or_else(|_| "drover".into(), |own| own.with_file_name("drover"));
    let drover = drover.display();
    format!(
        "
Drover is up: {names} behind {gateway}

As the administrator:
  {kubectl}export KUBECONFIG={admin}
  kubectl get namespaces
  kubectl auth whoami
  kubectl --context {last} create configmap hello --from-literal=from=drover
{demo}
As one who may only read:
  export KUBECONFIG={viewer}
  kubectl --context {last} get configmaps
  kubectl --context {last} delete configmap hello      # 403, and says why

Colleagues, tokens, further clusters, as the administrator:
  export DROVER_CONFIG={config}
  {drover} user list
  {drover} --help

Metrics: {metrics}
Undo:    ./deploy/local/down
",
        names = names.join(", "),
        gateway = up.gateway,
        admin = up.admin.kubeconfig.display(),
        viewer = up.viewer.kubeconfig.display(),
        config = up.admin.kubeconfig.with_extension("json").display(),
        drover = drover,
        metrics = up.metrics,
    )
}
