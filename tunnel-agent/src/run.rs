//! Puts an agent together, runs it, and takes it down in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use drover_api::kinds::{Holder, Process};
use drover_daemon::admin::{self, Readiness as AdminReadiness};
use drover_daemon::{logging, shutdown};
use drover_tunnel::{Dialer, Limits, Tls};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::identity::{Identities, Rosters};
use crate::metrics::Metrics;
use crate::tunnels::Tunnels;
use crate::upstream::Upstream;
use crate::upstream::credentials::{Credentials, Files};
use crate::upstream::readiness::{Readiness, State};

/// How long tasks have to end once their work is over.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until a signal says stop. One thread: waking another costs more than an agent's work.
pub fn run(config: Config) -> anyhow::Result<()> {
    logging::init("")?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a second TLS provider was installed")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let prometheus = drover_daemon::metrics::install(&[])?;
    let metrics = Arc::new(Metrics::new());
    let mut signals = shutdown::signals()?;
    let cancelled = CancellationToken::new();
    let (tasks, connections) = (TaskTracker::new(), TaskTracker::new());

    let files = Files { token: config.token_file.clone(), ca: config.api_server_ca.clone() };
    let credentials = Arc::new(Credentials::load(files)?);
    let upstream = Arc::new(Upstream::new(config.api_server.0.clone(), credentials.clone(), connections));
    let readiness = Readiness::new();
    tasks.spawn(credentials.reload(cancelled.clone()));
    tasks.spawn(readiness.clone().watch(upstream.clone(), cancelled.clone()));

    let admin_readiness = AdminReadiness::new();
    let api_server = readiness.clone();
    admin_readiness.check("api-server", move || api_server.state() == State::Ready);
    let admin =
        admin::serve(config.admin_listen, admin_readiness.clone(), prometheus, cancelled.clone()).await?;
    let certificate = tokio::select! {
        certificate = Certificate::obtain(&config, &upstream, &cancelled) => certificate?,
        () = signals.wait() => return Ok(()),
    };
    let tls = certificate.tls()?;
    let dialer = Arc::new(Dialer::new(&tls, Limits::default())?);
    let rosters = Rosters::new(cluster(&tls)?);
    let identities = Arc::new(Identities::new(rosters, tls.roots().clone(), metrics.clone()));
    let (renewed, renewals) = watch::channel(0);
    certificate.keep(&dialer, renewed, &tasks, &cancelled);
    let stopping = CancellationToken::new();
    let tunnels = Arc::new(Tunnels {
        dialer: dialer.clone(),
        forwarder: Arc::new(Forwarder {
            identities,
            upstream,
            readiness: readiness.clone(),
            metrics: metrics.clone(),
        }),
        metrics,
        streams: TaskTracker::new(),
        sessions: TaskTracker::new(),
        stopping: stopping.clone(),
        renewals,
    });
    for gateway in config.gateways() {
        tasks.spawn(tunnels.clone().keep(gateway));
    }

    info!(admin = %admin.local_addr(), api_server = %config.api_server, "agent running");

    signals.wait().await;
    info!(deadline_s = config.drain_deadline.as_secs(), "stopping");
    admin_readiness.stop();
    stopping.cancel();
    tunnels.sessions.close();
    // A gateway closes a session that this side leaves once its last stream has ended.
    if tokio::time::timeout(config.drain_deadline, tunnels.sessions.wait()).await.is_err() {
        warn!(streams = tunnels.streams.len(), "requests cut off: the drain deadline has passed");
    }
    dialer.close().await;
    cancelled.cancel();
    tasks.close();
    tunnels.streams.close();
    let ended = async { (tasks.wait().await, tunnels.streams.wait().await) };
    if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
        warn!("tasks cut off: they did not end in time");
    }
    Ok(())
}

/// The cluster that this agent's own certificate is for.
fn cluster(tls: &Tls) -> anyhow::Result<String> {
    let own = tls.own_id().context("the agent's certificate names no peer")?;
    match Holder::of_path(own.as_str()).map(|holder| holder.process) {
        Ok(Process::Agent(cluster)) => Ok(cluster.to_string()),
        Ok(Process::Gateway(_)) | Err(_) => {
            bail!("the certificate is of {own}, and not of a cluster's agent")
        }
    }
}
