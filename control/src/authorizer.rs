//! Decides what callers of the API may do, by the same rules as gateways.
//!
//! What belongs to a cluster is decided by that cluster's rules. All else is Drover's own, and only global bindings
//! reach it: of the built-in roles `admin` alone, since who owns every cluster need not own Drover.

use std::time::SystemTime;

use drover_api::rest::API_GROUP;
use drover_policy::{
    Attributes, ClusterId, ClusterRules, Domain, Holdings, InvalidRules, PathRefused, Policy, Principal,
    Refusal, RoleName, Rules, Subject, Until, earlier, later, templates,
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
    #[error("it cannot be asked for: {0}")]
    Method(#[from] PathRefused),
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

    /// Of a cluster's objects its own rules decide, or Drover's; but no deny of a cluster's.
    pub fn decide(
        &self,
        subject: &Subject,
        place: &Place,
        asked: Asked<'_>,
        now: SystemTime,
    ) -> Result<(), NotAllowed> {
        let attributes = Attributes::of(asked.method, API_GROUP, "v1", asked.plural, asked.key);
        let attributes = attributes.ok_or(PathRefused::Method)?;
        let drover = self.drover.decide(subject, &self.own, attributes.clone(), now).map(drop);
        match (place, drover) {
            (Place::Cluster(cluster), Err(Refusal::NoRole(_) | Refusal::NotPermitted(_))) => {
                Ok(self.clusters.decide_without_denies(subject, cluster, attributes, now)?)
            }
            (Place::Cluster(_) | Place::Drover, decided) => Ok(decided?),
        }
    }

    /// Until when a subject may give a role in a domain: for as long as it holds all of it there. Drover's
    /// administrators may give what nobody holds, such as the right to act as others.
    pub fn covers(
        &self,
        subject: &Subject,
        role: &RoleName,
        domain: &Domain,
        now: SystemTime,
    ) -> Option<Until> {
        // It gives more than its rules say: see `administers`.
        if is_admin(role, domain) {
            return self.administers(subject, now);
        }
        let of_clusters = || self.clusters.covers(subject, role, domain, now);
        let of_drover = || match reaches_drover(domain, role) {
            true => self.drover.covers(subject, role, domain, now),
            false => Some(None),
        };
        let covered = of_clusters().zip(of_drover()).map(|(one, other)| earlier(one, other));
        [self.administers(subject, now), covered].into_iter().flatten().reduce(later)
    }

    /// Until when a subject is an administrator of Drover's: what a cluster denies them takes nothing of it.
    pub fn administers(&self, subject: &Subject, now: SystemTime) -> Option<Until> {
        let admin = RoleName::parse(ADMIN).expect("it has a role's form");
        let holds = self.drover.holds(subject, &admin, &Domain::Global, now)?;
        self.drover.covers(subject, &admin, &Domain::Global, now).map(|until| earlier(holds, until))
    }

    /// Whether a subject holds all that another holds, for as long: only then it may make the other able to act.
    pub fn covers_all_of(&self, subject: &Subject, other: &Subject, now: SystemTime) -> bool {
        let admin = RoleName::parse(ADMIN).expect("it has a role's form");
        if self.administers(subject, now) == Some(None) {
            return true;
        }
        // Who holds all of the rules of an administrator is none.
        self.drover.holds(other, &admin, &Domain::Global, now).is_none()
            && self.clusters.covers_all_of(subject, other, now)
            && self.drover.covers_all_of(subject, other, now)
    }

    /// Whether a role lets anybody act as others.
    pub fn impersonates(&self, role: &RoleName) -> bool {
        self.clusters.impersonates(role)
    }

    /// Whether anything is denied in a project of a cluster.
    pub fn denies_in_projects(&self, cluster: &ClusterId) -> bool {
        self.clusters.denies_in_projects(cluster)
    }

    /// Whether a role denies anything.
    pub fn denies(&self, role: &RoleName) -> bool {
        self.clusters.denies(role)
    }

    /// Whether anything is denied to a principal itself.
    pub fn is_denied_anything(&self, principal: &Principal) -> bool {
        self.clusters.is_denied_anything(principal)
    }
}

fn is_admin(role: &RoleName, domain: &Domain) -> bool {
    role.as_str() == ADMIN && *domain == Domain::Global
}

fn reaches_drover(domain: &Domain, role: &RoleName) -> bool {
    let is_own = || !templates::is_one(role.as_str());
    *domain == Domain::Global && (role.as_str() == ADMIN || is_own())
}

/// Control decides from what it keeps: that does not get stale.
fn never() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 40)
}
