//! The certificate that this agent shows: from control, or from files that stand in for it.

use std::sync::Arc;

use anyhow::{Context, bail};
use drover_enrol::{Folder, Identity, Keeper, Places, Vault};
use drover_tunnel::{Dialer, Tls};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::config::{Config, Files};
use crate::upstream::Upstream;
use crate::vault::SecretVault;

pub(crate) enum Certificate {
    Control(Keeper),
    Files(Files),
}

impl Certificate {
    /// With control, waits until this agent has one.
    pub(crate) async fn obtain(
        config: &Config,
        upstream: &Arc<Upstream>,
        cancelled: &CancellationToken,
    ) -> anyhow::Result<Self> {
        if let Some(files) = config.files.clone() {
            return Ok(Self::Files(files));
        }
        let Some(server) = config.server.clone() else {
            bail!("there is no certificate: give --server, or the --tunnel- files")
        };
        let vault: Box<dyn Vault> = match (&config.identity_secret, &config.state) {
            (Some(secret), _) => Box::new(SecretVault::new(upstream.clone(), secret.clone())),
            (None, Some(folder)) => Box::new(Folder::new(folder)),
            (None, None) => bail!("--server needs --identity-secret or --state, to keep the certificate in"),
        };
        let token = config.registration_token_file.clone();
        Keeper::obtain(Places { server, vault, token }, cancelled).await.map(Self::Control)
    }

    pub(crate) fn tls(&self) -> anyhow::Result<Tls> {
        match self {
            Self::Control(keeper) => tls(&keeper.identity().borrow()),
            Self::Files(files) => Ok(Tls::load(&files.tunnel_cert, &files.tunnel_key, &files.tunnel_ca)?),
        }
    }

    /// Keeps it current in tasks that end when cancelled; tells of each that the dialer shows from then on.
    pub(crate) fn keep(
        self,
        dialer: &Arc<Dialer>,
        renewals: watch::Sender<u64>,
        tasks: &TaskTracker,
        cancelled: &CancellationToken,
    ) {
        match self {
            Self::Control(keeper) => {
                tasks.spawn(renew(keeper.identity(), dialer.clone(), renewals, cancelled.clone()));
                tasks.spawn(keeper.keep(cancelled.clone()));
            }
            // Nothing ever changes, and somebody holds the other end.
            Self::Files(_) => {
                let cancelled = cancelled.clone();
                tasks.spawn(async move {
                    cancelled.cancelled().await;
                    drop(renewals);
                });
            }
        }
    }
}

async fn renew(
    mut identity: watch::Receiver<Identity>,
    dialer: Arc<Dialer>,
    renewals: watch::Sender<u64>,
    cancelled: CancellationToken,
) {
    while let Some(Ok(())) = cancelled.run_until_cancelled(identity.changed()).await {
        let tls = tls(&identity.borrow_and_update());
        match tls.and_then(|tls| dialer.renew(&tls).context("failed to show it")) {
            Ok(()) => {
                info!("the next sessions show the new certificate");
                renewals.send_modify(|count| *count += 1);
            }
            Err(error) => error!(error = format!("{error:#}"), "gateways see the old certificate still"),
        }
    }
}

fn tls(identity: &Identity) -> anyhow::Result<Tls> {
    Ok(Tls::new(identity.chain()?, identity.key()?, [identity.ca()?])?)
}
