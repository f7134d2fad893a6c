//! The roster in use: the newest that control signed for this cluster, by whichever gateway it came.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use drover_api::roster::{FORMAT, Roster, SignedRoster};
use drover_api::signed::{Context, KeyId, PublicKey};
use drover_api::snapshot::CLOCK_SKEW_MAX;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};

/// `id-kp-codeSigning`, which control gives to its own signing keys and to nobody else.
const SIGNING: KeyUsage = KeyUsage::required(&[0x2b, 6, 1, 5, 5, 7, 3, 3]);

/// Control's keys by their id, out of certificates that are control's.
pub(crate) type Signers = BTreeMap<KeyId, PublicKey>;

/// A roster that was checked whole, and the keys whose signatures are good beside it.
pub(crate) struct Current {
    pub roster: Roster,
    pub signers: Signers,
    pub expires_at: SystemTime,
}

/// Holds the roster in use; whoever waits for the next one is told.
pub(crate) struct Rosters {
    cluster: String,
    current: watch::Sender<Option<Arc<Current>>>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RosterRefused {
    #[error("it is for cluster {0}")]
    AnotherCluster(String),
    #[error("a signing certificate is not control's: {0}")]
    Certificate(String),
    #[error("it has expired")]
    Expired,
    #[error("it is not a roster: {0}")]
    Malformed(String),
    #[error("it is from the future: the clocks differ")]
    NotYet,
    #[error("it is older than the one in use")]
    Older,
    #[error("its signature is not control's")]
    Signature,
    #[error("it needs a reader of format {0}: upgrade this agent")]
    TooNew(u32),
}

impl Rosters {
    pub(crate) fn new(cluster: String) -> Self {
        Self { cluster, current: watch::Sender::new(None) }
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(crate) fn current(&self) -> Option<Arc<Current>> {
        self.current.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Option<Arc<Current>>> {
        self.current.subscribe()
    }

    /// Revision of the one in use.
    pub(crate) fn revision(&self) -> u64 {
        self.current.borrow().as_ref().map_or(0, |current| current.roster.revision)
    }

    /// Takes up what a gateway brought, if control signed it for this cluster and it is newer than what is here.
    pub(crate) fn take_in(
        &self,
        bytes: &[u8],
        authority: &RootCertStore,
        now: SystemTime,
    ) -> Result<(), RosterRefused> {
        let signed: SignedRoster = serde_json::from_slice(bytes).map_err(malformed)?;
        let signers = signers(&signed, authority, now)?;
        let key = signers.get(&signed.key).ok_or(RosterRefused::Signature)?;
        key.verify(Context::Roster, signed.payload.as_bytes(), &signed.signature)
            .map_err(|_| RosterRefused::Signature)?;
        // Only now: nothing that is not control's is looked into.
        let Version { format } = serde_json::from_str(&signed.payload).map_err(malformed)?;
        if format > FORMAT {
            return Err(RosterRefused::TooNew(format));
        }
        let roster: Roster = serde_json::from_str(&signed.payload).map_err(malformed)?;
        if roster.cluster != self.cluster {
            return Err(RosterRefused::AnotherCluster(roster.cluster));
        }
        if SystemTime::from(roster.issued_at) > now + CLOCK_SKEW_MAX {
            return Err(RosterRefused::NotYet);
        }
        let expires_at = SystemTime::from(roster.expires_at) + CLOCK_SKEW_MAX;
        if expires_at <= now {
            return Err(RosterRefused::Expired);
        }
        let new = Arc::new(Current { roster, signers, expires_at });
        let taken = self.current.send_if_modified(|current| {
            let newer = current.as_ref().is_none_or(|current| is_newer(&new.roster, &current.roster));
            if newer {
                *current = Some(new);
            }
            newer
        });
        if taken { Ok(()) } else { Err(RosterRefused::Older) }
    }
}

/// The same again is newer than nothing: two gateways bring it.
fn is_newer(new: &Roster, current: &Roster) -> bool {
    new.revision >= current.revision && new.issued_at >= current.issued_at
}

/// Every certificate must be control's for signing, now.
fn signers(
    signed: &SignedRoster,
    authority: &RootCertStore,
    now: SystemTime,
) -> Result<Signers, RosterRefused> {
    let refused = |why: String| RosterRefused::Certificate(why);
    let certificates = signed.certificates().ok_or_else(|| refused("unreadable, or too many".to_owned()))?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut signers = Signers::new();
    for der in certificates {
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der).map_err(|error| refused(error.to_string()))?;
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &authority.roots,
                &[],
                UnixTime::since_unix_epoch(now),
                SIGNING,
                None,
                None,
            )
            .map_err(|error| refused(error.to_string()))?;
        let key = PublicKey::from_spki(certificate.subject_public_key_info().as_ref());
        let key = key.ok_or_else(|| refused("its key is not Ed25519".to_owned()))?;
        signers.insert(key.id(), key);
    }
    Ok(signers)
}

fn malformed(error: serde_json::Error) -> RosterRefused {
    RosterRefused::Malformed(error.to_string())
}

#[derive(serde::Deserialize)]
struct Version {
    format: u32,
}
