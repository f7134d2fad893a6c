//! Puts a gateway together, runs it, and takes it down in order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_api::kinds::Holder;
use drover_daemon::admin::{self, Readiness};
use drover_daemon::{logging, shutdown};
use drover_tunnel::Limits;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admit::Admission;
use crate::audit;
use crate::config::Config;
use crate::identity::Identities;
use crate::jwts::Jwts;
use crate::listener::certificates::Certificates;
use crate::listener::{self, Listener};
use crate::live::Live;
use crate::metrics::{DURATION, DURATION_BUCKETS_S, Metrics};
use crate::proxy::Proxy;
use crate::relay::Relay;
use crate::route::Names;
use crate::sessions::Sessions;
use crate::shares::{Most, Shares};
use crate::snapshot::Current;
use crate::source::Source;
use crate::tunnels;
use crate::uses::Uses;

/// Pingora reports each client that leaves a watch: our own records say that better.
const QUIET: &str = "pingora_core=off,pingora_proxy=off";
/// How long "not ready" is shown before clients are sent away, so that load balancers see it.
const NOT_READY_FIRST: Duration = Duration::from_millis(500);

/// Runs until a signal says stop.
pub fn run(config: Config) -> anyhow::Result<()> {
    logging::init(QUIET)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a second TLS provider was installed")?;
    let threads = config.threads.map_or_else(std::thread::available_parallelism, |threads| {
        threads.try_into().map_err(|_| std::io::Error::other("--threads must be at least 1"))
    })?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()?;
    runtime.block_on(serve(config, threads.get()))
}

async fn serve(config: Config, threads: usize) -> anyhow::Result<()> {
    let prometheus = drover_daemon::metrics::install(&[(DURATION, &DURATION_BUCKETS_S)])?;
    let metrics = Arc::new(Metrics::new());
    let mut signals = shutdown::signals()?;
    let cancelled = CancellationToken::new();
    let tasks = TaskTracker::new();

    let current = Arc::new(Current::new());
    let source = tokio::select! {
        source = Source::open(&config, &current, &metrics, &cancelled) => source?,
        () = signals.wait() => return Ok(()),
    };

    let certificates = Certificates::load(&config.tls_cert, &config.tls_key)?;
    let (audit, writer) = audit::open(&config.audit_log, metrics.clone()).await?;
    let writer = tokio::spawn(writer.run());
    let sessions = Arc::new(Sessions::new());
    let tls = source.tls()?;
    let own_id = tls.own_id().context("the gateway's certificate names no peer")?;
    // As agents know it, whichever enrolment its certificates go back to.
    let own_id = Holder::of_path(own_id.as_str()).context("the gateway's certificate names no process")?;
    let identities = Identities::new(own_id.process.to_string(), metrics.clone());
    let tunnel = drover_tunnel::Listener::bind(config.tunnel_listen, &tls, Limits::default())
        .with_context(|| format!("failed to listen for tunnels on {}", config.tunnel_listen))?;
    let tunnel = Arc::new(tunnel);
    let names = Names { domain: config.domain.clone(), console: config.console_host.clone() };
    let uses = Arc::new(Uses::default());
    let admission = Admission::new(current.clone(), certificates.clone(), names, identities, uses.clone());
    let api = source.api(&config);
    let live = Arc::new(Live::default());
    let proxy = Proxy {
        admission,
        sessions: sessions.clone(),
        audit,
        metrics: metrics.clone(),
        live: live.clone(),
        shares: Shares::new(Most {
            of_user: config.user_requests_max,
            of_cluster: config.cluster_requests_max,
        }),
        jwts: api.clone().map(|api| Jwts::new(api, current.clone())),
        relay: api.map(Relay::new),
    };
    let tcp = listener::bind(config.listen).await?;
    let local_addr = tcp.local_addr()?;
    let listener = Arc::new(Listener::new(certificates.clone(), proxy, threads));

    let readiness = Readiness::new();
    let snapshot = current.clone();
    readiness.check("snapshot", move || snapshot.is_fresh(SystemTime::now()));
    let admin = admin::serve(config.admin_listen, readiness.clone(), prometheus, cancelled.clone()).await?;
    info!(
        listen = %local_addr, tunnel = %tunnel.local_addr()?, admin = %admin.local_addr(),
        "gateway serving"
    );

    let clients = TaskTracker::new();
    let accepting = CancellationToken::new();
    source.follow(uses, &tunnel, &current, &metrics, &tasks, &cancelled);
    tasks.spawn(certificates.reload(cancelled.clone()));
    tasks.spawn(live.follow(current.clone(), cancelled.clone()));
    tasks.spawn(tunnels::follow(current.clone(), sessions.clone(), cancelled.clone()));
    let (held, stop) = (tasks.clone(), cancelled.clone());
    tasks.spawn(tunnels::accept(tunnel.clone(), sessions, current, metrics, held, stop));
    let (accept, tracker, stop) = (listener.clone(), clients.clone(), accepting.clone());
    tasks.spawn(async move { accept.accept(tcp, &tracker, &stop).await });

    signals.wait().await;
    info!(deadline_s = config.drain_deadline.as_secs(), "stopping");
    readiness.stop();
    tokio::time::sleep(NOT_READY_FIRST).await;
    listener.stop();
    accepting.cancel();
    tunnel.goaway(None);
    clients.close();
    if tokio::time::timeout(config.drain_deadline, clients.wait()).await.is_err() {
        warn!(connections = clients.len(), "clients cut off: the drain deadline has passed");
    }
    listener.end_idle().await;
    tunnel.close().await;
    cancelled.cancel();
    tasks.close();
    // Ends with its last sender: the listener's.
    drop(listener);
    if tokio::time::timeout(Duration::from_secs(5), async { (tasks.wait().await, writer.await) })
        .await
        .is_err()
    {
        warn!("tasks cut off: they did not end in time");
    }
    Ok(())
}
