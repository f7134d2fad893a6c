//! Proof that a request was allowed.

use std::sync::Arc;

use crate::attributes::Attributes;
use crate::ids::{ClusterId, Subject};

/// A request that may be sent to a cluster, and as whom. Only [`crate::Policy::decide`] makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    cluster: ClusterId,
    subject: Subject,
    attributes: Attributes,
    role_groups: Arc<[Arc<str>]>,
}

impl Permit {
    pub(crate) fn new(
        cluster: ClusterId,
        subject: Subject,
        attributes: Attributes,
        role_groups: Arc<[Arc<str>]>,
    ) -> Self {
        Self { cluster, subject, attributes, role_groups }
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The groups that the cluster's RBAC binds: `drover:cluster-viewer`, `drover:project:web:member`.
    pub fn role_groups(&self) -> &Arc<[Arc<str>]> {
        &self.role_groups
    }
}
