//! When each token was last used: gateways tell it in batches, and it is written in batches, never for a request.
//!
//! It is known to some minutes: a gateway that is cut off tells once it is back, and control counts what it is told
//! from the moment that it hears it. So nobody's token seems unused longer than it is, but for a control that was
//! killed before it wrote; that is why idle tokens are looked for only once gateways have had the time to tell.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_api::kinds::{Kind, Token};
use drover_api::token::TokenId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::objects::{Kept, NoSecret, Objects, ObjectsError};

/// How often what was heard is written.
const WRITE_INTERVAL: Duration = Duration::from_secs(300);
/// Parts of what is kept, each an object: so much is written for one token's use.
const PARTS: u64 = 16;

/// What is known of a part of all tokens.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenUses {
    part: String,
    /// Seconds since 1970.
    last_used_at: BTreeMap<TokenId, i64>,
}

impl Kind for TokenUses {
    const KIND: &'static str = "TokenUses";
    const PLURAL: &'static str = "tokenuses";

    fn key(&self) -> &str {
        &self.part
    }
}

impl Kept for TokenUses {
    type Secret = NoSecret;
}

pub(crate) struct Uses {
    objects: Objects,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    last_used_at: BTreeMap<TokenId, i64>,
    /// Parts that are not written yet as they are here.
    unwritten: BTreeSet<String>,
}

impl Uses {
    pub(crate) async fn load(objects: Objects) -> Result<Self, ObjectsError> {
        let mut heard = Heard::default();
        for part in objects.list::<TokenUses>().await? {
            heard.last_used_at.extend(part.spec.last_used_at);
        }
        Ok(Self { objects, heard: Mutex::new(heard) })
    }

    pub(crate) fn note(&self, tokens: impl IntoIterator<Item = TokenId>, now: Timestamp) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for token in tokens {
            let part = part(&token);
            let last = heard.last_used_at.entry(token).or_default();
            if *last < now.as_second() {
                *last = now.as_second();
                heard.unwritten.insert(part);
            }
        }
    }

    pub(crate) fn last_used_at(&self, token: &TokenId) -> Option<Timestamp> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        Timestamp::from_second(*heard.last_used_at.get(token)?).ok()
    }

    /// Writes now and then, and once more when cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancelled: CancellationToken) {
        let mut ended = false;
        while !ended {
            ended = cancelled.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_none();
            if let Err(error) = self.write().await {
                warn!(%error, "when tokens were last used is not written");
            }
        }
    }

    /// Each part that has changed, without tokens that are gone.
    pub(crate) async fn write(&self) -> Result<(), ObjectsError> {
        if self.heard.lock().unwrap_or_else(PoisonError::into_inner).unwritten.is_empty() {
            return Ok(());
        }
        let there: BTreeSet<_> =
            self.objects.list::<Token>().await?.into_iter().map(|token| token.spec.id).collect();
        let (parts, all) = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.last_used_at.retain(|token, _| there.contains(token));
            (std::mem::take(&mut heard.unwritten), heard.last_used_at.clone())
        };
        for name in &parts {
            let of_part = all.iter().filter(|(token, _)| part(token) == *name);
            let last_used_at = of_part.map(|(token, last)| (token.clone(), *last)).collect();
            let spec = TokenUses { part: name.clone(), last_used_at };
            if let Err(error) = self.objects.put(&spec, None).await {
                // Those that are written already are only written once more.
                self.heard.lock().unwrap_or_else(PoisonError::into_inner).unwritten.extend(parts);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Of one token: the same at every start.
fn part(token: &TokenId) -> String {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    hasher.write(token.as_str().as_bytes());
    format!("{:02}", hasher.finish() % PARTS)
}

/// FNV-1a: the standard library's hashers may change from one version to the next.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_api::kinds::{TokenKind, TokenScope};
    use drover_api::token;

    use super::*;
    use crate::seal::Seal;
    use crate::store::Sqlite;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn what_was_heard_is_there_after_a_restart_and_goes_with_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
        let objects = Objects::new(store.clone(), Seal::new(&[7; 32]));
        let mut ids = Vec::new();
        for _ in 0..100 {
            let made = token::generate();
            ids.push(made.id.clone());
            let spec = Token {
                id: made.id,
                hash: made.hash,
                proof_key: made.proof_key,
                user: "local:user/1".into(),
                kind: TokenKind::Bot,
                scope: TokenScope::All,
                expires_at: at(4_000_000_000),
                idle_s: None,
                session: None,
                made_by: None,
                jwt_ends_at: None,
            };
            objects.create(&spec, None).await.unwrap();
        }
        let uses = Uses::load(objects.clone()).await.unwrap();
        uses.note(ids.clone(), at(1000));
        // A gateway's that tells late.
        uses.note([ids[0].clone()], at(900));
        uses.note([ids[1].clone()], at(2000));
        uses.write().await.unwrap();
        let before = *objects.store().revision().borrow();
        uses.write().await.unwrap();
        assert_eq!(*objects.store().revision().borrow(), before, "nothing to write");
        let again = Uses::load(objects.clone()).await.unwrap();
        assert_eq!(again.last_used_at(&ids[0]), Some(at(1000)));
        assert_eq!(again.last_used_at(&ids[1]), Some(at(2000)));
        assert!(ids.iter().all(|id| again.last_used_at(id).is_some()));

        let known = objects.get::<Token>(ids[1].as_str()).await.unwrap().unwrap();
        objects.delete::<Token>(ids[1].as_str(), known.object.metadata.revision).await.unwrap();
        again.note(ids.clone(), at(3000));
        again.write().await.unwrap();
        let last = Uses::load(objects).await.unwrap();
        assert_eq!((last.last_used_at(&ids[1]), last.last_used_at(&ids[2])), (None, Some(at(3000))));
    }
}
