//! Why a request was refused.

use crate::attributes::Attributes;
use crate::ids::ClusterId;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("cluster {0} is not known")]
    ClusterUnknown(ClusterId),
    /// A deny rule matched, whatever else allows it.
    #[error("a rule denies to {0}")]
    Denied(Box<Attributes>),
    /// The subject holds no role in the cluster at all.
    #[error("no role is held in the cluster, so none allows to {0}")]
    NoRole(Box<Attributes>),
    #[error("no role that is held there allows to {0}")]
    NotPermitted(Box<Attributes>),
    #[error("the policy is too old to decide by")]
    PolicyExpired,
}

impl Refusal {
    /// What was asked for, where it got as far as that.
    pub fn attributes(&self) -> Option<&Attributes> {
        match self {
            Self::Denied(attributes) | Self::NoRole(attributes) | Self::NotPermitted(attributes) => {
                Some(attributes)
            }
            Self::ClusterUnknown(_) | Self::PolicyExpired => None,
        }
    }
}
