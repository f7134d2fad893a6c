//! Who has which roles in one cluster, signed by control: what an agent asks before it lets a gateway speak for a user.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::impersonate::Right;
use crate::kinds::Kind;
use crate::signed::{Context, KeyId, Signature, Signer};

/// The format that this build writes and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Largest roster as it travels, in bytes: 10,000 subjects of one cluster take about a quarter.
pub const ROSTER_BYTES_MAX: usize = 4 << 20;
/// Keys that a roster may come with: the one that signs, and the one before or after it.
pub const SIGNERS_MAX: usize = 4;

/// A roster as it is written, and signed in these bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    pub format: u32,
    /// The id of the one cluster that it is for.
    pub cluster: String,
    /// Of the state that it was made from; an agent never goes back.
    pub revision: u64,
    pub issued_at: Timestamp,
    /// From this moment on the agent lets nobody speak for anybody.
    pub expires_at: Timestamp,
    /// What principals of users and groups have here.
    pub subjects: BTreeMap<String, Subject>,
    /// Users who are disabled, whatever assertion is still good.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub disabled: BTreeSet<String>,
    /// Groups that travel here when a user is in more than may travel; none where such users are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_listed: Option<BTreeSet<String>>,
}

/// A user or group in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Groups of the cluster's RBAC that its roles stand for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub role_groups: BTreeSet<String>,
    /// Whom it may act as.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub impersonate: BTreeSet<Right>,
}

/// A roster on its way: the bytes that were signed, by whom, and the certificates of the keys in use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRoster {
    /// The id of the cluster.
    pub cluster: String,
    /// Those of [`Roster`], by which what is newer is told apart without reading the payload.
    pub revision: u64,
    pub issued_at: Timestamp,
    /// The roster's JSON.
    pub payload: String,
    pub key: KeyId,
    pub signature: Signature,
    /// Of every key whose signatures are good now: DER in base64, issued by the authority of this Drover.
    pub signers: Vec<String>,
}

impl Kind for SignedRoster {
    const KIND: &'static str = "Roster";
    const PLURAL: &'static str = "rosters";

    fn key(&self) -> &str {
        &self.cluster
    }
}

impl SignedRoster {
    pub fn sign(roster: &Roster, signer: &Signer, signers: &[Vec<u8>]) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_string(roster)?;
        let signature = signer.sign(Context::Roster, payload.as_bytes());
        Ok(Self {
            cluster: roster.cluster.clone(),
            revision: roster.revision,
            issued_at: roster.issued_at,
            payload,
            key: signer.id(),
            signature,
            signers: signers.iter().map(|der| BASE64_STANDARD.encode(der)).collect(),
        })
    }

    /// The certificates, in DER; none where one is not base64 or there are too many.
    pub fn certificates(&self) -> Option<Vec<Vec<u8>>> {
        let decoded = self.signers.iter().map(|text| BASE64_STANDARD.decode(text).ok());
        (self.signers.len() <= SIGNERS_MAX).then(|| decoded.collect()).flatten()
    }
}
