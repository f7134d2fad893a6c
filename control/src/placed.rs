//! Whose rules decide about each object.

use drover_api::kinds::{
    Binding, Cluster, Domain, Enrolment, Process, Provider, RegistrationToken, Role, Token, User,
};
use drover_policy::{ClusterId, Principal};

/// Whose rules decide about an object: a cluster's, or Drover's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Cluster(ClusterId),
    Drover,
}

/// Where an object is, and whose it is.
pub trait Placed {
    /// Whether everybody with a role in its cluster sees it.
    const SEEN_BY_ROLE: bool = false;
    /// Whether its owner needs no rule to delete it.
    const OWNER_DELETES: bool = false;

    fn place(&self) -> Place;

    fn owner(&self) -> Option<Principal> {
        None
    }
}

impl Placed for User {
    fn place(&self) -> Place {
        Place::Drover
    }

    fn owner(&self) -> Option<Principal> {
        Principal::parse(&self.principal).ok()
    }
}

impl Placed for Token {
    const OWNER_DELETES: bool = true;

    fn place(&self) -> Place {
        Place::Drover
    }

    fn owner(&self) -> Option<Principal> {
        Principal::parse(&self.user).ok()
    }
}

impl Placed for Provider {
    fn place(&self) -> Place {
        Place::Drover
    }
}

impl Placed for Role {
    fn place(&self) -> Place {
        Place::Drover
    }
}

impl Placed for Cluster {
    const SEEN_BY_ROLE: bool = true;

    fn place(&self) -> Place {
        ClusterId::parse(&self.id).map_or(Place::Drover, Place::Cluster)
    }
}

impl Placed for RegistrationToken {
    fn place(&self) -> Place {
        place_of(&self.process)
    }
}

impl Placed for Enrolment {
    fn place(&self) -> Place {
        place_of(&self.process)
    }
}

fn place_of(process: &Process) -> Place {
    match process {
        Process::Agent(cluster) => Place::Cluster(cluster.clone()),
        Process::Gateway(_) => Place::Drover,
    }
}

impl Placed for Binding {
    fn place(&self) -> Place {
        match &self.domain {
            Domain::Cluster(cluster) | Domain::Project { cluster, .. } => {
                ClusterId::parse(cluster).map_or(Place::Drover, Place::Cluster)
            }
            Domain::Global => Place::Drover,
        }
    }
}
