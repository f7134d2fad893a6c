//! Where the tunnel's certificate and the snapshots come from: control, or files that stand in for it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use drover_enrol::{Folder, Identity, Keeper, Places};
use drover_tunnel::{Listener, Tls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::config::{Config, Files};
use crate::control::Api;
use crate::follow::Follower;
use crate::metrics::Metrics;
use crate::snapshot::{Current, File};
use crate::uses::Uses;

/// A source that was opened: what it had is in use.
pub(crate) enum Source {
    Control { keeper: Keeper, follower: Box<Follower> },
    Files { files: Files, snapshot: File },
}

impl Source {
    /// With control, waits until this gateway has a certificate.
    pub(crate) async fn open(
        config: &Config,
        current: &Arc<Current>,
        metrics: &Arc<Metrics>,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<Self> {
        if let Some(files) = config.files.clone() {
            let mut snapshot = File::new(&files.snapshot);
            snapshot.look(current, metrics).await;
            return Ok(Self::Files { files, snapshot });
        }
        let (places, state) = places(config)?;
        let server = places.server.clone();
        let keeper = Keeper::obtain(places, cancelled).await?;
        let (current, metrics) = (current.clone(), metrics.clone());
        let follower = Follower::open(server, keeper.identity(), &state, current, metrics).await?;
        Ok(Self::Control { keeper, follower: Box::new(follower) })
    }

    /// Control's API.
    pub(crate) fn api(&self, config: &Config) -> Option<Api> {
        match self {
            Self::Control { keeper, .. } => Some(Api::new(config.control.clone()?, keeper.identity())),
            Self::Files { .. } => None,
        }
    }

    pub(crate) fn tls(&self) -> anyhow::Result<Tls> {
        match self {
            Self::Control { keeper, .. } => tls(&keeper.identity().borrow()),
            Self::Files { files, .. } => {
                Ok(Tls::load(&files.tunnel_cert, &files.tunnel_key, &files.tunnel_ca)?)
            }
        }
    }

    /// Keeps certificate and snapshot current, in tasks that end when cancelled.
    pub(crate) fn follow(
        self,
        uses: Arc<Uses>,
        tunnel: &Arc<Listener>,
        current: &Arc<Current>,
        metrics: &Arc<Metrics>,
        tasks: &TaskTracker,
        cancelled: &CancellationToken,
    ) {
        match self {
            Self::Control { keeper, follower } => {
                tasks.spawn(renew(keeper.identity(), tunnel.clone(), cancelled.clone()));
                tasks.spawn(keeper.keep(cancelled.clone()));
                tasks.spawn(follower.run(uses, cancelled.clone()));
            }
            Self::Files { snapshot, .. } => {
                tasks.spawn(snapshot.follow(current.clone(), metrics.clone(), cancelled.clone()));
            }
        }
    }
}

fn places(config: &Config) -> anyhow::Result<(Places, PathBuf)> {
    let (Some(server), Some(state)) = (config.control.clone(), config.state.clone()) else {
        bail!(
            "there is nothing to serve from: give --control and --state, or --snapshot and the --tunnel- files"
        )
    };
    let token = config.registration_token_file.clone();
    Ok((Places { server, vault: Box::new(Folder::new(&state)), token }, state))
}

/// Shows agents each next certificate.
async fn renew(
    mut identity: tokio::sync::watch::Receiver<Identity>,
    tunnel: Arc<Listener>,
    cancelled: CancellationToken,
) {
    while let Some(Ok(())) = cancelled.run_until_cancelled(identity.changed()).await {
        let tls = tls(&identity.borrow_and_update());
        let renewed = tls.and_then(|tls| tunnel.renew(&tls).context("failed to show it to agents"));
        match renewed {
            Ok(()) => info!("agents see the new certificate"),
            Err(error) => error!(error = format!("{error:#}"), "agents see the old certificate still"),
        }
    }
}

fn tls(identity: &Identity) -> anyhow::Result<Tls> {
    Ok(Tls::new(identity.chain()?, identity.key()?, [identity.ca()?])?)
}
