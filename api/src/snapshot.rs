//! What gateways serve from: one whole state, made by control, checked before any of it is used.
//!
//! [`Document`] is the JSON as written; [`Snapshot`] is the same state in types that cannot be wrong.
//! A document with one unsound object is refused whole, with every problem named, so that the last
//! good snapshot stays: skipping the object could widen a right (a lost deny) or keep a stale one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use drover_policy::{ClusterId, Principal, Rules};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::kinds::{self, TokenKind};
use crate::roster::SignedRoster;
use crate::signed::PublicKey;
use crate::token::{CredentialHash, TokenId};

pub mod assertions;
pub mod delta;
pub mod signing;

pub use alone::Alone;
pub use assertions::Assertions;
pub use check::changed_tokens;
pub use problems::Unsound;
pub use sift::{SET_ASIDE_ROLE, SetAside, StandIn, denying_binding, denying_role, put_in, sift};

mod alone;
mod check;
mod problems;
mod rules;
mod sift;

/// The format that this build writes and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The oldest reader that may use what this build writes.
pub const READER_MIN: u32 = 1;
/// The longest that a snapshot may say it serves: for so long a gateway that is cut off, or whose file nobody
/// renews, may serve users who were revoked meanwhile.
pub const MAX_STALENESS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Names that Kubernetes and Drover give rights to; no provider may hand them out.
pub const RESERVED_PREFIXES: [&str; 2] = ["system:", "drover:"];
/// Most groups that a user may be in; a directory's largest have a few thousand.
pub const USER_GROUPS_MAX: usize = 5_000;
/// How far ahead of our clock a snapshot, or what is signed, may have been issued.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// Largest document, in bytes: 10,000 users with 100,000 tokens take about a fifth.
pub const DOCUMENT_BYTES_MAX: usize = 256 << 20;
/// Problems that an error lists; the rest are counted.
const PROBLEMS_LISTED_MAX: usize = 20;

/// A snapshot as written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub format: u32,
    pub reader_min: u32,
    /// Grows with every change; a reader never goes back.
    pub revision: u64,
    pub issued_at: Timestamp,
    pub max_staleness_s: u64,
    pub clusters: Vec<kinds::Cluster>,
    pub users: Vec<kinds::User>,
    pub tokens: Vec<kinds::Token>,
    pub roles: Vec<kinds::Role>,
    pub bindings: Vec<kinds::Binding>,
    /// Without them no agent lets a gateway speak for anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertions: Option<Assertions>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rosters: Vec<SignedRoster>,
    /// Enrolments whose certificates are good; absent where nobody keeps them, and certificates alone decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolments: Option<BTreeSet<String>>,
}

/// A snapshot that was checked whole.
#[derive(Debug)]
pub struct Snapshot {
    pub revision: u64,
    pub issued_at: SystemTime,
    /// From this moment on nothing may be served from it.
    pub stale_at: SystemTime,
    pub clusters: Vec<Cluster>,
    pub users: Vec<User>,
    pub tokens: Vec<Token>,
    pub rules: Rules,
    pub assertions: Option<Assertions>,
    pub rosters: BTreeMap<ClusterId, Arc<SignedRoster>>,
    pub enrolments: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: ClusterName,
    pub id: ClusterId,
    /// Groups that users in too many are sent with; none where they are refused.
    pub groups_listed: Option<BTreeSet<Principal>>,
}

#[derive(Clone, Debug)]
pub struct User {
    pub principal: Principal,
    pub name: String,
    pub display_name: Option<String>,
    pub groups: Vec<Principal>,
    pub disabled: bool,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub id: TokenId,
    pub hash: CredentialHash,
    pub proof_key: PublicKey,
    pub user: Principal,
    pub kind: TokenKind,
    pub scope: Scope,
    pub expires_at: SystemTime,
}

/// Where a token may be shown.
#[derive(Clone, Debug)]
pub enum Scope {
    All,
    Clusters(BTreeSet<ClusterId>),
}

impl Scope {
    pub fn covers(&self, cluster: &ClusterId) -> bool {
        match self {
            Self::All => true,
            Self::Clusters(clusters) => clusters.contains(cluster),
        }
    }
}

/// A cluster's name: a DNS label, so that it can be the first label of a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cluster's name is 1 to 63 of a-z, 0-9 and '-', begins and ends with a letter or digit, and does not begin with \"c-\""
)]
pub struct ClusterNameInvalid;

impl ClusterName {
    pub fn parse(text: &str) -> Result<Self, ClusterNameInvalid> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let sound = (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.starts_with("c-");
        if sound { Ok(Self(text.to_owned())) } else { Err(ClusterNameInvalid) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ClusterName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotInvalid {
    #[error("the document is not a snapshot: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{}", list(.problems, *.more))]
    Objects { problems: Vec<String>, more: usize },
    #[error("the document has {0} bytes, more than {DOCUMENT_BYTES_MAX}")]
    TooLarge(usize),
    #[error(
        "format {format} needs a reader of at least {reader_min}, and this one reads {FORMAT}: upgrade this gateway"
    )]
    TooNew { format: u32, reader_min: u32 },
}

impl Document {
    /// Reads a document that this reader may use; what it says is checked as it becomes a [`Snapshot`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotInvalid> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(SnapshotInvalid::TooLarge(bytes.len()));
        }
        // Read first and loosely: a newer format may well have fields that this reader does not know.
        let Version { format, reader_min } = serde_json::from_slice(bytes)?;
        if reader_min > FORMAT {
            return Err(SnapshotInvalid::TooNew { format, reader_min });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl Snapshot {
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotInvalid> {
        Self::try_from(Document::parse(bytes)?)
    }
}

impl TryFrom<Document> for Snapshot {
    type Error = SnapshotInvalid;

    fn try_from(document: Document) -> Result<Self, SnapshotInvalid> {
        check::check(document).map_err(|refused| refused.1.into())
    }
}

#[derive(Deserialize)]
struct Version {
    format: u32,
    reader_min: u32,
}

fn list(problems: &[String], more: usize) -> String {
    let mut text = format!("{} problems: {}", problems.len() + more, problems.join("; "));
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests;
