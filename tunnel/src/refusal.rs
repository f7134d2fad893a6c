//! An agent's refusal of a stream.

use std::time::Duration;

use thiserror::Error;

/// A stream that the agent did not serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("stream refused ({}): {message}", code.as_str())]
pub struct StreamRefusal {
    pub code: RefusalCode,
    pub delivered: Delivered,
    pub retry_after: Option<Duration>,
    /// For people; cut to what the protocol allows.
    pub message: String,
}

/// Why an agent refused a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    ClusterNotReady,
    ClusterUnreachable,
    DeadlineExceeded,
    Draining,
    HeaderMalformed,
    IdentityMalformed,
    IdentityMissing,
    IdentityRefused,
    Internal,
    Overloaded,
}

/// Whether the request may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was surely not sent on.
    No,
    Maybe,
}

impl RefusalCode {
    /// Every code; its place is its number on the wire.
    pub(crate) const ALL: [Self; 10] = [
        Self::ClusterNotReady,
        Self::ClusterUnreachable,
        Self::DeadlineExceeded,
        Self::Draining,
        Self::HeaderMalformed,
        Self::IdentityMalformed,
        Self::IdentityMissing,
        Self::IdentityRefused,
        Self::Internal,
        Self::Overloaded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterNotReady => "ClusterNotReady",
            Self::ClusterUnreachable => "ClusterUnreachable",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Draining => "Draining",
            Self::HeaderMalformed => "HeaderMalformed",
            Self::IdentityMalformed => "IdentityMalformed",
            Self::IdentityMissing => "IdentityMissing",
            Self::IdentityRefused => "IdentityRefused",
            Self::Internal => "Internal",
            Self::Overloaded => "Overloaded",
        }
    }
}
