//! Decides what callers of the API may do, by the same rules as gateways.
//!
//! What belongs to a cluster is decided by that cluster's rules. All else is Drover's own, and only global bindings
//! reach it: of the built-in roles `admin` alone, since who owns every cluster need not own Drover.

use std::time::SystemTime;

use drover_api::rest::API_GROUP;
use drover_policy::{
    Attributes, ClusterId, ClusterRules, Domain, Holdings, InvalidRules, PathRefused, Policy, Refusal,
    RoleName, Rules, Subject, templates,
};

use crate::placed::Place;

/// The domain of Drover's own objects: no cluster's id is so short.
const DROVER: &str = "c-drover";
const ADMIN: &str = "admin";

pub struct Authorizer {
    clusters: Policy,
    drover: Policy,
    own: ClusterId,
}

/// What is asked of the API, as a Kubernetes request would ask.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub plural: &'a str,
    pub key: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum NotAllowed {
    #[error("the name cannot be asked for: {0}")]
    Name(#[from] PathRefused),
    #[error(transparent)]
    Rules(#[from] Refusal),
}

impl Authorizer {
    /// What every principal holds in each cluster.
    pub fn holdings(&self, now: SystemTime) -> Holdings {
        self.clusters.holdings(now)
    }

    /// Of rules that `before` was made from an earlier state of.
    pub fn new(rules: Rules, before: Option<&Self>) -> Result<Self, InvalidRules> {
        let own = ClusterId::parse(DROVER).expect("it has a cluster id's form");
        let reaching = rules.bindings.iter().filter(|binding| reaches_drover(&binding.domain, &binding.role));
        let drover = Rules {
            clusters: vec![ClusterRules { id: own.clone(), projects: Default::default() }],
            roles: rules.roles.clone(),
            bindings: reaching.cloned().collect(),
        };
        let next = |before: Option<&Policy>, rules| match before {
            Some(before) => before.next(rules, never()),
            None => Policy::new(rules, never()),
        };
        Ok(Self {
            clusters: next(before.map(|before| &before.clusters), rules)?,
            drover: next(before.map(|before| &before.drover), drover)?,
            own,
        })
    }

    pub fn decide(
        &self,
        subject: &Subject,
        place: &Place,
        asked: Asked<'_>,
        now: SystemTime,
    ) -> Result<(), NotAllowed> {
        let mut path = format!("/apis/{API_GROUP}/v1/{}", asked.plural);
        if let Some(key) = asked.key {
            path.extend(["/", key]);
        }
        let attributes = Attributes::parse(asked.method, &path, None)?;
        match place {
            Place::Cluster(cluster) => self.clusters.decide(subject, cluster, attributes, now),
            Place::Drover => self.drover.decide(subject, &self.own, attributes, now),
        }
        .map(drop)
        .map_err(NotAllowed::from)
    }

    /// Whether a subject holds all of a role in a domain, and so may give it there.
    pub fn covers(&self, subject: &Subject, role: &RoleName, domain: &Domain, now: SystemTime) -> bool {
        self.clusters.covers(subject, role, domain, now)
            && (!reaches_drover(domain, role) || self.drover.covers(subject, role, domain, now))
    }
}

fn reaches_drover(domain: &Domain, role: &RoleName) -> bool {
    let is_own = || !templates::all().iter().any(|template| template.name == *role);
    *domain == Domain::Global && (role.as_str() == ADMIN || is_own())
}

/// Control decides from what it keeps: that does not get stale.
fn never() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 40)
}
