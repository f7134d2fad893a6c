//! Puts control together, runs it, and takes it down in order.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_daemon::admin::{self, Readiness};
use drover_daemon::{logging, shutdown};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::attempts::Attempts;
use crate::authority::Authority;
use crate::config::{Command, Config, Files, Serve};
use crate::devices::Devices;
use crate::enrolment::Enroller;
use crate::gateways::Gateways;
use crate::group_names::GroupNames;
use crate::issuers::{self, Issuers};
use crate::listener::{self, Listener};
use crate::objects::Objects;
use crate::passwords::Passwords;
use crate::refresh;
use crate::renewals::Renewals;
use crate::routes::{self, Control, Door, Logins};
use crate::seal::Seal;
use crate::signer::Signers;
use crate::snapshots::Snapshots;
use crate::store::Sqlite;
use crate::sweep;
use crate::uses::Uses;

/// How long the tasks of control may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn run(config: Config) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a second TLS provider was installed")?;
    match config.command {
        Command::Bootstrap(bootstrap) => crate::bootstrap::run(bootstrap).await,
        Command::Serve(serve) => {
            logging::init("")?;
            self::serve(serve).await
        }
    }
}

/// What is kept in the store, with its key.
pub(crate) fn open(files: &Files) -> anyhow::Result<Objects> {
    let seal = Seal::from_file(&files.key_file)?;
    let store = Sqlite::open(&files.store)
        .with_context(|| format!("failed to open the store {}", files.store.display()))?;
    Ok(Objects::new(Arc::new(store), seal))
}

async fn serve(config: Serve) -> anyhow::Result<()> {
    let prometheus = drover_daemon::metrics::install(&[])?;
    let mut signals = shutdown::signals()?;
    let objects = open(&config.files)?;
    let authority = Arc::new(Authority::load(&objects, config.files.certificate_lifetime).await?);
    let signers = Signers::new(objects.clone(), authority.clone());
    let snapshots = Snapshots::load(objects.store(), signers, config.max_staleness, Timestamp::now()).await;
    let snapshots = Arc::new(snapshots.context("failed to make a snapshot out of the store")?);
    let stopping = CancellationToken::new();
    let group_names = Arc::new(GroupNames::load(objects.clone()).await?);
    let uses = Arc::new(Uses::load(objects.clone()).await?);
    let gateways =
        Gateways::load(objects.clone(), uses.clone(), config.max_staleness, stopping.clone()).await?;
    let gateways = Arc::new(gateways);
    let ca = config.server_ca.as_ref().map(std::fs::read_to_string).transpose();
    let ca = ca.context("failed to read the file of --server-ca")?;
    let door = config.server_url.map(|url| Door { url, ca });
    let calls = TaskTracker::new();
    let control = Control {
        enrolment: Enroller::new(objects.clone(), authority.clone())?,
        objects: objects.clone(),
        passwords: Passwords::new(),
        attempts: Attempts::default(),
        devices: Devices::default(),
        issuers: Issuers::default(),
        uses: uses.clone(),
        group_names: group_names.clone(),
        logins: Logins { lifetime: config.login_lifetime, session: config.session_lifetime },
        renewals: Renewals::default(),
        console: config.console_url,
        door,
        writes: Mutex::new(()),
        snapshots: snapshots.clone(),
        gateways: gateways.clone(),
        calls: calls.clone(),
    };
    let listener = Listener::bind(config.listen, listener::tls(&authority, SystemTime::now())?).await?;
    let (tasks, connections, cancelled) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
    let readiness = Readiness::new();
    let (whole, sound) = (snapshots.clone(), snapshots.clone());
    readiness.check("published", move || whole.is_whole());
    readiness.note("set aside", move || sound.state().aside().summary());
    let admin = admin::serve(config.admin_listen, readiness.clone(), prometheus, cancelled.clone()).await?;
    info!(listen = %listener.local_addr()?, admin = %admin.local_addr(), "control serving");

    let stop = cancelled.clone();
    tasks.spawn(async move { snapshots.follow(objects.store(), stop).await });
    let stop = cancelled.clone();
    tasks.spawn(async move { gateways.forget(stop).await });
    let control = Arc::new(control);
    tasks.spawn(uses.run(cancelled.clone()));
    tasks.spawn(group_names.run(cancelled.clone()));
    tasks.spawn(sweep::run(control.clone(), cancelled.clone()));
    tasks.spawn(refresh::run(control.clone(), config.refresh_interval, cancelled.clone()));
    tasks.spawn(issuers::run(control.clone(), cancelled.clone()));
    let router = routes::router(control);
    tasks.spawn(listener.serve(router, connections.clone(), stopping.clone()));

    signals.wait().await;
    info!("stopping");
    readiness.stop();
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(config.drain_deadline, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "connections cut off: the drain deadline has passed");
    }
    cancelled.cancel();
    tasks.close();
    calls.close();
    if tokio::time::timeout(END_TIMEOUT, async { (tasks.wait().await, calls.wait().await) }).await.is_err() {
        warn!("tasks cut off: they did not end in time");
    }
    Ok(())
}
