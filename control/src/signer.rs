//! The keys that assertions and rosters are signed with: kept sealed, certified by the authority, replaced while the
//! one before is still good.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_api::kinds::Kind;
use drover_api::roster::SIGNERS_MAX;
use drover_api::signed::Signer;
use drover_api::snapshot::signing::Signing;
use jiff::Timestamp;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::objects::{Kept, Objects};

/// Of a key's certificate.
const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a key signs: what it signed is good for long after.
const SIGNS_FOR: Duration = Duration::from_secs(60 * 24 * 3600);

/// A key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningKey {
    id: String,
    /// DER in base64.
    certificate: String,
    made_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    /// 32 bytes in base64.
    seed: String,
}

impl Kind for SigningKey {
    const KIND: &'static str = "SigningKey";
    const PLURAL: &'static str = "signingkeys";

    fn key(&self) -> &str {
        &self.id
    }
}

impl Kept for SigningKey {
    type Secret = Seed;
}

/// The store's keys.
pub struct Signers {
    objects: Objects,
    authority: Arc<Authority>,
}

impl Signers {
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub fn new(objects: Objects, authority: Arc<Authority>) -> Self {
        Self { objects, authority }
    }

    /// The key that signs now, made where the last one has signed for long enough, with those that are good beside it.
    pub async fn current(&self, now: Timestamp) -> anyhow::Result<Signing> {
        let mut keys = self.objects.list::<SigningKey>().await?;
        // Replicas of control agree: of two made at once the one with the greater id.
        keys.sort_by(|one, other| {
            (one.spec.made_at, &one.spec.id).cmp(&(other.spec.made_at, &other.spec.id))
        });
        let (good, past): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| age(key.spec.made_at, now) < LIFETIME);
        for key in past {
            // Another control may have been faster.
            _ = self.objects.delete::<SigningKey>(&key.spec.id, key.metadata.revision).await;
        }
        let signing = match good.last() {
            Some(newest) if age(newest.spec.made_at, now) < SIGNS_FOR => newest.spec.id.clone(),
            _ => return self.renew(&good.iter().map(|key| &key.spec).collect::<Vec<_>>(), now).await,
        };
        let kept = self.objects.get::<SigningKey>(&signing).await?.context("a signing key went")?;
        let secret = kept.secret.context("a signing key's secret is not in the store")?;
        let seed = BASE64_STANDARD.decode(secret.seed).ok().and_then(|seed| seed.try_into().ok());
        let signer = Signer::from_seed(&seed.context("a signing key's secret is malformed")?);
        Ok(Signing { signer, certificates: certificates(good.iter().map(|key| &key.spec))? })
    }

    async fn renew(&self, good: &[&SigningKey], now: Timestamp) -> anyhow::Result<Signing> {
        let mut seed = [0; 32];
        OsRng.try_fill_bytes(&mut seed)?;
        let signer = Signer::from_seed(&seed);
        let certificate = self.authority.signer(signer.public(), SystemTime::from(now), LIFETIME)?;
        let made = SigningKey {
            id: signer.id().to_string(),
            certificate: BASE64_STANDARD.encode(&certificate),
            made_at: now,
        };
        self.objects.create(&made, Some(&Seed { seed: BASE64_STANDARD.encode(seed) })).await?;
        tracing::info!(key = %signer.id(), "assertions and rosters are signed with a new key");
        let certificates = certificates(good.iter().copied().chain([&made]))?;
        Ok(Signing { signer, certificates })
    }
}

/// Of the newest keys, as many as a roster may have.
fn certificates<'a>(
    keys: impl DoubleEndedIterator<Item = &'a SigningKey>,
) -> Result<Vec<Vec<u8>>, base64::DecodeError> {
    keys.rev().take(SIGNERS_MAX).map(|key| BASE64_STANDARD.decode(&key.certificate)).collect()
}

fn age(made_at: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(made_at).try_into().unwrap_or_default()
}
