//! Holds a process's identity for as long as it runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_daemon::backoff::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ask::{enrol, renew};
use crate::identity::Identity;
use crate::server::Server;
use crate::vault::{SaveFailed, Vault};

/// Between attempts: the bound of the first wait, and of the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(20);
/// How often the clock is looked at: a machine that slept is late.
const CLOCK_INTERVAL: Duration = Duration::from_secs(30);

/// Where an identity comes from and is kept.
pub struct Places {
    pub server: Server,
    pub vault: Box<dyn Vault>,
    /// Holds a registration token; only the first start needs it.
    pub token: Option<PathBuf>,
}

/// The identity as it is, for all who use it.
pub struct Keeper {
    places: Places,
    identity: watch::Sender<Identity>,
}

impl Keeper {
    /// The kept identity, or the first one: waits until there is somebody who gives it.
    pub async fn obtain(places: Places, cancelled: &CancellationToken) -> anyhow::Result<Self> {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            match places.first(SystemTime::now()).await {
                Ok(Some(identity)) => {
                    let (identity, _) = watch::channel(identity);
                    return Ok(Self { places, identity });
                }
                Ok(None) => {}
                Err(error) => {
                    let wait = backoff.next_wait(&mut rand::rng());
                    warn!(error = format!("{error:#}"), retry_s = wait.as_secs_f32(), "failed to enrol");
                    pause(wait, cancelled).await.context("stopped before there was an identity")?;
                }
            }
        }
    }

    pub fn identity(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    /// Renews the identity at half of its time, until cancelled.
    pub async fn keep(self, cancelled: CancellationToken) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let current = self.identity.borrow().clone();
            // Of an identity that was checked.
            let Ok(at) = current.renew_at() else { return };
            if let Ok(until) = at.duration_since(SystemTime::now()) {
                let sleep = tokio::time::sleep(until.min(CLOCK_INTERVAL));
                match cancelled.run_until_cancelled(sleep).await {
                    Some(()) => continue,
                    None => return,
                }
            }
            match self.places.next(&current, SystemTime::now()).await {
                Ok(next) => {
                    if let Some(next) = next {
                        info!("certificate renewed");
                        self.identity.send_replace(next);
                    }
                    backoff.reset();
                    // However short the certificates are.
                    if pause(RETRY_MIN, &cancelled).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    let wait = backoff.next_wait(&mut rand::rng());
                    warn!(
                        error = format!("{error:#}"),
                        retry_s = wait.as_secs_f32(),
                        "failed to renew the certificate"
                    );
                    if pause(wait, &cancelled).await.is_none() {
                        return;
                    }
                }
            }
        }
    }
}

impl Places {
    /// None where another replica was faster, whose identity is there to be loaded.
    async fn first(&self, now: SystemTime) -> anyhow::Result<Option<Identity>> {
        if let Some(identity) = self.vault.load().await?
            && identity.check(now).is_ok()
            && identity.is_enrolled()
        {
            return Ok(Some(identity));
        }
        let token = self.token.as_ref().context(
            "there is no identity that is valid, and no registration token to get one with: give --registration-token-file",
        )?;
        let token =
            std::fs::read_to_string(token).with_context(|| format!("failed to read {}", token.display()))?;
        let (identity, process) = enrol(&self.server, &token, now).await?;
        info!(%process, "enrolled");
        self.keep(identity).await
    }

    async fn next(&self, current: &Identity, now: SystemTime) -> anyhow::Result<Option<Identity>> {
        if let Ok(Some(kept)) = self.vault.load().await
            && kept != *current
            && kept.check(now).is_ok_and(|process| current.names(&process))
            && kept.renew_at()? > now
        {
            return Ok(Some(kept));
        }
        if current.check(now).is_err() {
            // Too late for a renewal.
            return self.first(now).await;
        }
        self.keep(renew(&self.server, current, now).await?).await
    }

    /// What could not be kept serves until the next start.
    async fn keep(&self, identity: Identity) -> anyhow::Result<Option<Identity>> {
        match self.vault.save(&identity).await {
            Ok(()) => Ok(Some(identity)),
            Err(SaveFailed::Conflict) => Ok(None),
            Err(SaveFailed::Other(error)) => {
                warn!(
                    error = format!("{error:#}"),
                    "failed to keep the identity: a restart will need another"
                );
                Ok(Some(identity))
            }
        }
    }
}

/// Waits until the next attempt; none when cancelled.
async fn pause(wait: Duration, cancelled: &CancellationToken) -> Option<()> {
    cancelled.run_until_cancelled(tokio::time::sleep(wait)).await
}
