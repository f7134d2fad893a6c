//! What an agent is shown for a user: control's assertion, and the credential's own word for this gateway.
//!
//! Both are made once per credential and cluster, and again when control signs anew or half of a delegation's
//! time is over: with them in the cache nothing is signed for a request.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use drover_api::assertion::{DELEGATION_LIFETIME_S, Delegation, proof_signer, sent};
use drover_api::identity::GROUPS_SENT_MAX;
use drover_api::signed::Signature;
use drover_api::snapshot::signing::asserted;
use drover_api::snapshot::{Cluster, Token};
use drover_api::token::{CredentialHash, Secret};
use drover_policy::ClusterId;

use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::tables::{Tables, User};

/// Credentials with their clusters that evidence is kept for: 10,000 on ten clusters each, at about 1 KiB.
const EVIDENCE_MAX: u64 = 100_000;
const RENEW_AFTER: Duration = Duration::from_secs(DELEGATION_LIFETIME_S / 2);

/// What travels in a stream's header.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub assertion: Bytes,
    pub proof: Bytes,
}

/// A token that was presented, and the whole of it.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub token: &'a Token,
    pub secret: &'a Secret,
}

pub(crate) struct Identities {
    gateway: String,
    metrics: Arc<Metrics>,
    cache: moka::sync::Cache<(CredentialHash, ClusterId), Kept>,
}

#[derive(Clone)]
struct Kept {
    /// Of control, over exactly the assertion that is kept.
    signature: Signature,
    evidence: Evidence,
    renew_at: SystemTime,
}

impl Identities {
    pub(crate) fn new(gateway: String, metrics: Arc<Metrics>) -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(EVIDENCE_MAX).time_to_idle(RENEW_AFTER).build();
        Self { gateway, metrics, cache }
    }

    /// The evidence to send with a request of a user's to a cluster.
    pub(crate) fn of(
        &self,
        tables: &Tables,
        cluster: &Cluster,
        user: &User,
        shown: Shown<'_>,
        now: SystemTime,
    ) -> Result<Evidence, Refusal> {
        if user.groups.len() > GROUPS_SENT_MAX && cluster.groups_listed.is_none() {
            return Err(Refusal::TooManyGroups(user.groups.len()));
        }
        let Shown { token, secret } = shown;
        let (epoch, signature) = tables.assertion(&token.id).ok_or(Refusal::Unasserted)?;
        let key = (token.hash, cluster.id.clone());
        if let Some(kept) = self.cache.get(&key)
            && kept.signature == *signature
            && kept.renew_at > now
        {
            return Ok(kept.evidence);
        }
        let bytes = asserted(user, token).bytes(epoch, tables.groups_listed());
        let bytes = bytes.map_err(|_| Refusal::IdentityTooLarge)?;
        let assertion = Bytes::from(sent(epoch.key, signature, &bytes));
        let evidence = Evidence { assertion, proof: self.delegate(&cluster.id, secret, now)? };
        let kept = Kept { signature: *signature, evidence: evidence.clone(), renew_at: now + RENEW_AFTER };
        self.cache.insert(key, kept);
        Ok(evidence)
    }

    fn delegate(&self, cluster: &ClusterId, secret: &Secret, now: SystemTime) -> Result<Bytes, Refusal> {
        let now_s = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let delegation = Delegation {
            cluster: cluster.as_str().to_owned(),
            gateway: self.gateway.clone(),
            issued_at_s: now_s,
            expires_at_s: now_s + DELEGATION_LIFETIME_S,
        };
        self.metrics.delegation_signed();
        let signed = delegation.sign(&proof_signer(secret.expose().as_bytes()));
        signed.map(Bytes::from).map_err(|_| Refusal::IdentityTooLarge)
    }
}
