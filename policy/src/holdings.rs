//! What every principal holds in each cluster, as rosters say it to agents.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use crate::ids::{ClusterId, Principal};
use crate::impersonate::{self, ImpersonationRow};
use crate::index::Index;
use crate::rules::Domain;
use crate::templates;

/// What a principal has somewhere. A role may stand for no group, and is a holding all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The groups that stand for the principal's roles.
    pub role_groups: BTreeSet<Arc<str>>,
    pub impersonate: BTreeSet<ImpersonationRow>,
}

#[derive(Debug, Default)]
pub struct Holdings {
    everywhere: BTreeMap<Principal, Holding>,
    clusters: HashMap<ClusterId, BTreeMap<Principal, Holding>>,
}

impl Holdings {
    /// Collects what is held at `now`.
    pub(crate) fn new(index: &Index, now: SystemTime) -> Self {
        let mut holdings = Self::default();
        for (principal, held) in index.all_held() {
            if held.expires_at.is_some_and(|end| end <= now) {
                continue;
            }
            let (of, project) = match &held.domain {
                Domain::Global => (&mut holdings.everywhere, None),
                Domain::Cluster(cluster) => (holdings.clusters.entry(cluster.clone()).or_default(), None),
                Domain::Project(cluster, project) => {
                    (holdings.clusters.entry(cluster.clone()).or_default(), Some(project))
                }
            };
            let holding = of.entry(principal.clone()).or_default();
            if held.role.allows_anything() {
                holding.role_groups.extend(templates::role_group(&held.role.name, project));
            }
            if project.is_none() {
                holding.impersonate.extend(held.role.rows.iter().filter_map(impersonate::allowed));
            }
        }
        holdings
    }

    /// Who holds what in a cluster.
    pub fn of(&self, cluster: &ClusterId) -> BTreeMap<&Principal, Holding> {
        let mut all = BTreeMap::<_, Holding>::new();
        let here = self.clusters.get(cluster).into_iter().flatten();
        for (principal, holding) in self.everywhere.iter().chain(here) {
            let of = all.entry(principal).or_default();
            of.role_groups.extend(holding.role_groups.iter().cloned());
            of.impersonate.extend(holding.impersonate.iter().cloned());
        }
        all
    }
}
