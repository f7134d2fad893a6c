//! Who a gateway may speak for: what control asserts of the user, what the user's credential says of the gateway, and
//! what the roster gives the user here, each of which a gateway alone cannot make.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_api::assertion::{self, Assertion, DELEGATION_LIFETIME_S, Delegation};
use drover_api::identity::{GROUPS_SENT_MAX, Identity};
use drover_api::impersonate::Wanted;
use drover_api::roster::{ROSTER_BYTES_MAX, Subject};
use drover_api::signed::Context;
use drover_api::snapshot::CLOCK_SKEW_MAX;
use drover_tunnel::{Owner, Received, Stream, StreamHeader};
use rustls::RootCertStore;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::{debug, warn};

use crate::impersonation::{Impersonation, ImpersonationRefused};
use crate::metrics::Metrics;

mod refused;
mod roster;

pub(crate) use refused::IdentityRefused;
pub(crate) use roster::Rosters;

use roster::{Current, RosterRefused};

/// Users whose signatures are not checked again before their delegations end.
const VERIFIED_MAX: u64 = 20_000;
/// How long a user whom the roster does not know waits for the next one: gateways may know of a change first.
const ROSTER_PATIENCE: Duration = Duration::from_secs(2);
/// How long a roster may take to arrive.
const ROSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Groups that roles stand for.
const ROLES: &str = "drover:";

/// SHA-256 over assertion, proof, whom the user wants to act as, and gateway.
type Key = [u8; 32];

pub(crate) struct Identities {
    rosters: Rosters,
    /// Whose certificates control's signing keys have.
    authority: Arc<RootCertStore>,
    verified: moka::sync::Cache<Key, Arc<Verified>>,
    metrics: Arc<Metrics>,
}

/// What signatures were good for, and what it is by one roster.
struct Verified {
    assertion: Assertion,
    expires_at: SystemTime,
    by_roster: (Arc<Current>, Impersonation),
}

impl Identities {
    pub(crate) fn new(rosters: Rosters, authority: Arc<RootCertStore>, metrics: Arc<Metrics>) -> Self {
        let verified = moka::sync::Cache::builder()
            .max_capacity(VERIFIED_MAX)
            .time_to_live(Duration::from_secs(DELEGATION_LIFETIME_S))
            .build();
        Self { rosters, authority, verified, metrics }
    }

    /// Takes up the roster that a gateway brings, and answers with the revision that is in use from then on.
    pub(crate) async fn receive(&self, received: Received) {
        let stream = received.accept(Owner { user: 0, cluster: 0 });
        match tokio::time::timeout(ROSTER_TIMEOUT, self.take_in(stream)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "a gateway's roster did not arrive"),
            Err(_) => warn!("a gateway's roster did not arrive in time"),
        }
    }

    async fn take_in(&self, mut stream: Stream) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        (&mut stream).take(ROSTER_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await?;
        match self.rosters.take_in(&bytes, &self.authority, SystemTime::now()) {
            Ok(()) => {
                self.metrics.roster_taken_up(self.rosters.revision());
                debug!(revision = self.rosters.revision(), "roster taken up");
            }
            // Gateways do not know what others brought before.
            Err(RosterRefused::Older) => debug!("roster older than the one in use"),
            Err(refused) => {
                self.metrics.roster_refused();
                warn!(%refused, "roster refused");
            }
        }
        stream.write_all(&self.rosters.revision().to_be_bytes()).await?;
        stream.shutdown().await
    }

    /// The header fields of the user whom a gateway speaks for.
    pub(crate) async fn verify(
        &self,
        header: &StreamHeader,
        gateway: &str,
    ) -> Result<Impersonation, IdentityRefused> {
        let mut changes = self.rosters.changes();
        let refused = match self.verify_now(header, gateway, SystemTime::now()) {
            Err(refused) if refused.may_be_mended_by_a_roster() => refused,
            settled => return settled,
        };
        match tokio::time::timeout(ROSTER_PATIENCE, changes.changed()).await {
            Ok(Ok(())) => self.verify_now(header, gateway, SystemTime::now()),
            Ok(Err(_)) | Err(_) => Err(refused),
        }
    }

    fn verify_now(
        &self,
        header: &StreamHeader,
        gateway: &str,
        now: SystemTime,
    ) -> Result<Impersonation, IdentityRefused> {
        let current = self.rosters.current().ok_or(IdentityRefused::RosterMissing)?;
        if current.expires_at <= now {
            return Err(IdentityRefused::RosterStale);
        }
        let key = key(header, gateway);
        let known = self.verified.get(&key).filter(|known| known.expires_at > now);
        let (assertion, expires_at) = match known {
            Some(known) if Arc::ptr_eq(&known.by_roster.0, &current) => {
                return Ok(known.by_roster.1.clone());
            }
            Some(known) => (known.assertion.clone(), known.expires_at),
            None => self.check_signatures(header, gateway, &current, now)?,
        };
        let impersonation = match header.impersonate.is_empty() {
            true => Impersonation::of(&allowed(&assertion, &current)?)?,
            false => acting_as(&header.impersonate, &assertion, &current)?,
        };
        let by_roster = (current, impersonation.clone());
        self.verified.insert(key, Arc::new(Verified { assertion, expires_at, by_roster }));
        Ok(impersonation)
    }

    fn check_signatures(
        &self,
        header: &StreamHeader,
        gateway: &str,
        current: &Current,
        now: SystemTime,
    ) -> Result<(Assertion, SystemTime), IdentityRefused> {
        if header.assertion.is_empty() {
            return Err(IdentityRefused::AssertionMissing);
        }
        if header.proof.is_empty() {
            return Err(IdentityRefused::ProofMissing);
        }
        let (key, signature, bytes) = assertion::received(&header.assertion)?;
        let signer = current.signers.get(&key).ok_or(IdentityRefused::KeyUnknown)?;
        self.metrics.signature_checked();
        signer.verify(Context::Assertion, bytes, &signature).map_err(|_| IdentityRefused::AssertionForged)?;
        let assertion = Assertion::decode(bytes)?;
        let (signed, delegation) = Delegation::split(&header.proof)?;
        self.metrics.signature_checked();
        signed.check(&assertion.proof_key).map_err(|_| IdentityRefused::ProofForged)?;
        if delegation.cluster != self.rosters.cluster() {
            return Err(IdentityRefused::ProofOfAnotherCluster);
        }
        if delegation.gateway != gateway {
            return Err(IdentityRefused::ProofOfAnotherGateway);
        }
        if delegation.expires_at_s.saturating_sub(delegation.issued_at_s) > DELEGATION_LIFETIME_S {
            return Err(IdentityRefused::ProofTooLong);
        }
        let asserted = good_until(assertion.issued_at_s, assertion.expires_at_s, now)
            .ok_or(IdentityRefused::AssertionExpired)?;
        let delegated = good_until(delegation.issued_at_s, delegation.expires_at_s, now)
            .ok_or(IdentityRefused::ProofExpired)?;
        Ok((assertion, asserted.min(delegated)))
    }
}

fn key(header: &StreamHeader, gateway: &str) -> Key {
    let mut hash = Sha256::new();
    let parts = [&header.assertion[..], &header.proof, &header.impersonate, gateway.as_bytes()];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// When it ends, where it has begun and not ended by a clock that may differ from ours.
fn good_until(issued_at_s: u64, expires_at_s: u64, now: SystemTime) -> Option<SystemTime> {
    let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let (issued_at, expires_at) = (at(issued_at_s)?, at(expires_at_s)?.checked_add(CLOCK_SKEW_MAX)?);
    (issued_at <= now + CLOCK_SKEW_MAX && expires_at > now).then_some(expires_at)
}

/// What the roster has of the user and of the groups that they are in.
fn subjects<'a>(assertion: &Assertion, current: &'a Current) -> Result<Vec<&'a Subject>, IdentityRefused> {
    let (identity, roster) = (&assertion.identity, &current.roster);
    if roster.disabled.contains(&identity.uid) {
        return Err(IdentityRefused::Disabled);
    }
    // Only the roster gives roles, whatever a provider calls its groups.
    if identity.groups.iter().any(|group| group.starts_with(ROLES)) {
        return Err(ImpersonationRefused::Reserved.into());
    }
    let principals = std::iter::once(&identity.uid).chain(&identity.groups);
    let subjects: Vec<_> = principals.filter_map(|principal| roster.subjects.get(principal)).collect();
    if subjects.is_empty() { Err(IdentityRefused::UserUnknown) } else { Ok(subjects) }
}

/// The user as the cluster is to see them: their own groups, and those that their roles stand for here.
fn allowed(assertion: &Assertion, current: &Current) -> Result<Identity, IdentityRefused> {
    let (identity, roster) = (&assertion.identity, &current.roster);
    let role_groups: Vec<String> = subjects(assertion, current)?
        .iter()
        .flat_map(|subject| &subject.role_groups)
        .map(ToOwned::to_owned)
        .collect();
    let mut identity = identity.clone();
    if assertion.groups_left_out || identity.groups.len() > GROUPS_SENT_MAX {
        let listed = roster.groups_listed.as_ref().ok_or(IdentityRefused::TooManyGroups)?;
        identity.groups.retain(|group| listed.contains(group));
    }
    identity.groups.extend(role_groups);
    Ok(identity)
}

/// Whom the user wants to act as, where the roster lets them: with nothing that was not asked for, and the user's own
/// name beside it.
fn acting_as(
    impersonate: &[u8],
    assertion: &Assertion,
    current: &Current,
) -> Result<Impersonation, IdentityRefused> {
    let wanted: Wanted =
        serde_json::from_slice(impersonate).map_err(|_| IdentityRefused::ImpersonateMalformed)?;
    wanted.check().map_err(ImpersonationRefused::from)?;
    let subjects = subjects(assertion, current)?;
    let rights = || subjects.iter().flat_map(|subject| &subject.impersonate);
    if wanted.parts().any(|part| !rights().any(|right| right.covers(&part))) {
        return Err(IdentityRefused::ImpersonateForbidden);
    }
    let Assertion { identity: original, .. } = assertion;
    Ok(Impersonation::acting(&wanted, original)?)
}
