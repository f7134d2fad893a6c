//! The keys of trusted issuers: fetched in the background, and at once where a JWT needs one that is not here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_api::kinds::{Directory, Jwt, Provider};
use openidconnect::core::CoreJsonWebKeySet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::ObjectsError;
use crate::providers::Unavailable;
use crate::providers::jwt;
use crate::providers::web::Web;
use crate::routes::Control;

const INTERVAL: Duration = Duration::from_secs(300);
/// An issuer is asked no sooner again: not by a flood of JWTs with keys that it does not have either.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Keys of an issuer that does not answer are used for so long.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Default)]
pub(crate) struct Issuers(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>);

/// What is known of one provider's issuer. Its lock is held while it is asked: once for all who wait.
#[derive(Default)]
struct Known {
    issuer: Option<Jwt>,
    keys: Option<(Instant, Arc<CoreJsonWebKeySet>)>,
    /// When it was asked last, and what was wrong.
    asked: Option<(Instant, Result<(), String>)>,
}

/// How good keys have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that are here will do.
    Known,
    /// Asked for just now: those that are here did not do.
    Newer,
    /// Asked for, however short a time ago.
    Now,
}

impl Issuers {
    pub(crate) async fn keys(
        &self,
        provider: &str,
        issuer: &Jwt,
        wanted: Wanted,
    ) -> Result<Arc<CoreJsonWebKeySet>, Unavailable> {
        let known = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(provider.to_owned()).or_default().clone()
        };
        let mut known = known.lock().await;
        if known.issuer.as_ref() != Some(issuer) {
            *known = Known { issuer: Some(issuer.clone()), ..Known::default() };
        }
        let now = Instant::now();
        if let Some((fetched_at, keys)) = &known.keys
            && wanted == Wanted::Known
            && now - *fetched_at < AGE_MAX
        {
            return Ok(keys.clone());
        }
        if let Some((asked_at, said)) = &known.asked
            && wanted != Wanted::Now
            && now - *asked_at < ASKED_AGAIN_AFTER
        {
            said.clone().map_err(Unavailable)?;
            if let Some((_, keys)) = &known.keys {
                return Ok(keys.clone());
            }
        }
        let fetched = async { jwt::keys(&Web::new(issuer.ca.as_deref())?, issuer).await }.await;
        known.asked = Some((now, fetched.as_ref().map(drop).map_err(|error| error.0.clone())));
        let keys = Arc::new(fetched?);
        known.keys = Some((now, keys.clone()));
        Ok(keys)
    }

    /// Forgets those that are providers no more.
    fn keep(&self, providers: &[String]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| providers.contains(name));
    }
}

/// Fetches keys until cancelled.
pub(crate) async fn run(control: Arc<Control>, cancelled: CancellationToken) {
    loop {
        let round = async {
            let issuers = all(&control).await?;
            for (name, issuer) in &issuers {
                match control.issuers.keys(name, issuer, Wanted::Now).await {
                    Ok(keys) => info!(provider = name, keys = keys.keys().len(), "keys fetched"),
                    Err(error) => {
                        warn!(provider = name, %error, "keys not fetched: those that are here are used for a day");
                    }
                }
            }
            control.issuers.keep(&issuers.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
            Ok::<_, ObjectsError>(())
        };
        match cancelled.run_until_cancelled(round).await {
            Some(Ok(())) => {}
            Some(Err(error)) => warn!(%error, "keys not fetched: the store failed"),
            None => return,
        }
        if cancelled.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

/// Every provider that is an issuer of JWTs, and on.
pub(crate) async fn all(control: &Control) -> Result<Vec<(String, Jwt)>, ObjectsError> {
    let providers = control.objects.list::<Provider>().await?.into_iter().map(|provider| provider.spec);
    let on = providers.filter(|provider| !provider.disabled);
    let issuer = |provider: Provider| match provider.directory {
        Directory::Jwt(issuer) => Some((provider.name, issuer)),
        Directory::Github(_) | Directory::Ldap(_) | Directory::Oidc(_) => None,
    };
    Ok(on.filter_map(issuer).collect())
}
