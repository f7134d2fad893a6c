//! Why a gateway may not speak for a user.

use drover_api::assertion::Malformed;
use drover_api::identity::GROUPS_SENT_MAX;
use drover_tunnel::RefusalCode;

use crate::impersonation::ImpersonationRefused;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityRefused {
    #[error("the assertion has expired, or is from the future")]
    AssertionExpired,
    #[error("the assertion is not signed by the key that it names")]
    AssertionForged,
    #[error("the stream has no assertion of a user")]
    AssertionMissing,
    #[error("the user is disabled")]
    Disabled,
    #[error("the roster does not let the user act as whom they want to")]
    ImpersonateForbidden,
    #[error("whom the user wants to act as is malformed")]
    ImpersonateMalformed,
    #[error(transparent)]
    Impersonation(#[from] ImpersonationRefused),
    #[error("the assertion is signed by a key that is not control's")]
    KeyUnknown,
    #[error("the assertion or the proof is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error("the proof has expired, or is from the future")]
    ProofExpired,
    #[error("the proof is not signed by the user's credential")]
    ProofForged,
    #[error("the stream has no proof that the user's credential was presented")]
    ProofMissing,
    #[error("the proof is for another cluster")]
    ProofOfAnotherCluster,
    #[error("the proof is for another gateway")]
    ProofOfAnotherGateway,
    #[error("the proof is good for longer than proofs may be")]
    ProofTooLong,
    #[error("no gateway has brought a roster yet")]
    RosterMissing,
    #[error("the roster has expired: gateways bring no newer one")]
    RosterStale,
    #[error("the user is in more than {GROUPS_SENT_MAX} groups, and this cluster lists none to send")]
    TooManyGroups,
    #[error("the roster has neither the user nor a group of theirs")]
    UserUnknown,
}

impl IdentityRefused {
    /// As metrics call them.
    pub(crate) const LABELS: [&str; 19] = [
        "assertion_expired",
        "assertion_forged",
        "assertion_missing",
        "disabled",
        "impersonation",
        "impersonate_forbidden",
        "impersonate_malformed",
        "key_unknown",
        "malformed",
        "proof_expired",
        "proof_forged",
        "proof_missing",
        "proof_of_another_cluster",
        "proof_of_another_gateway",
        "proof_too_long",
        "roster_missing",
        "roster_stale",
        "too_many_groups",
        "user_unknown",
    ];

    /// Its place among the labels.
    pub(crate) const fn index(&self) -> usize {
        match self {
            Self::AssertionExpired => 0,
            Self::AssertionForged => 1,
            Self::AssertionMissing => 2,
            Self::Disabled => 3,
            Self::Impersonation(_) => 4,
            Self::ImpersonateForbidden => 5,
            Self::ImpersonateMalformed => 6,
            Self::KeyUnknown => 7,
            Self::Malformed(_) => 8,
            Self::ProofExpired => 9,
            Self::ProofForged => 10,
            Self::ProofMissing => 11,
            Self::ProofOfAnotherCluster => 12,
            Self::ProofOfAnotherGateway => 13,
            Self::ProofTooLong => 14,
            Self::RosterMissing => 15,
            Self::RosterStale => 16,
            Self::TooManyGroups => 17,
            Self::UserUnknown => 18,
        }
    }

    /// Whether the next roster may say otherwise: gateways may know of a change before the agent does.
    pub(crate) const fn may_be_mended_by_a_roster(&self) -> bool {
        matches!(
            self,
            Self::Disabled
                | Self::ImpersonateForbidden
                | Self::KeyUnknown
                | Self::RosterMissing
                | Self::RosterStale
                | Self::TooManyGroups
                | Self::UserUnknown
        )
    }

    pub(crate) const fn code(&self) -> RefusalCode {
        match self {
            Self::AssertionMissing | Self::ProofMissing => RefusalCode::IdentityMissing,
            Self::ImpersonateMalformed
            | Self::Malformed(_)
            | Self::Impersonation(ImpersonationRefused::Malformed(_)) => RefusalCode::IdentityMalformed,
            _refused => RefusalCode::IdentityRefused,
        }
    }
}
