//! Holds a process's identity for as long as it runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::ask::{enrol, renew};
use crate::identity::{Folder, Identity};
use crate::server::Server;

/// Between attempts: the first wait, and the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often the clock is looked at: a machine that slept is late.
const CLOCK_INTERVAL: Duration = Duration::from_secs(30);

/// Where an identity comes from and is kept.
#[derive(Clone, Debug)]
pub struct Places {
    pub server: Server,
    pub folder: Folder,
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
        let mut wait = RETRY_MIN;
        loop {
            let now = SystemTime::now();
            if let Some(identity) = places.folder.load()?
                && identity.check(now).is_ok()
            {
                let (identity, _) = watch::channel(identity);
                return Ok(Self { places, identity });
            }
            let token = places.token.as_ref().context(
                "there is no identity that is valid, and no registration token to get one with: give --registration-token-file",
            )?;
            let token = std::fs::read_to_string(token)
                .with_context(|| format!("failed to read {}", token.display()))?;
            match enrol(&places.server, &token, now).await {
                Ok((identity, process)) => {
                    places.folder.save(&identity)?;
                    info!(%process, "enrolled");
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), retry_s = wait.as_secs(), "failed to enrol");
                    pause(&mut wait, cancelled).await.context("stopped before there was an identity")?;
                }
            }
        }
    }

    pub fn identity(&self) -> watch::Receiver<Identity> {
        self.identity.subscribe()
    }

    /// Renews the identity at half of its time, until cancelled.
    pub async fn keep(self, cancelled: CancellationToken) {
        let mut wait = RETRY_MIN;
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
            let next = renew(&self.places.server, &current, SystemTime::now()).await;
            match next.and_then(|next| self.places.folder.save(&next).map(|()| next)) {
                Ok(next) => {
                    info!("certificate renewed");
                    self.identity.send_replace(next);
                    wait = RETRY_MIN;
                }
                Err(error) => {
                    warn!(
                        error = format!("{error:#}"),
                        retry_s = wait.as_secs(),
                        "failed to renew the certificate"
                    );
                    if pause(&mut wait, &cancelled).await.is_none() {
                        return;
                    }
                }
            }
        }
    }
}

/// Waits with full jitter, longer each time; none when cancelled.
async fn pause(wait: &mut Duration, cancelled: &CancellationToken) -> Option<()> {
    let now = wait.mul_f64(rand::rng().random_range(0.5..1.0));
    *wait = (*wait * 2).min(RETRY_MAX);
    cancelled.run_until_cancelled(tokio::time::sleep(now)).await
}
