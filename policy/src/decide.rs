//! Decisions, and the revisions of a policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use casbin::Enforcer;
use moka::sync::Cache;

use crate::attributes::{Attributes, Target};
use crate::compiled::{Compiled, Verdict};
use crate::covers::{self, Until, later};
use crate::holdings::Holdings;
use crate::ids::{ClusterId, Principal, RoleName, Subject};
use crate::impersonate;
use crate::index::{Flat, Index};
use crate::model;
use crate::permit::Permit;
use crate::refusal::Refusal;
use crate::rules::{Domain, InvalidRules, Rules};

/// Compiled permissions kept: 10,000 subjects in ten clusters each, at about 300 bytes.
const COMPILED_ENTRIES_MAX: u64 = 100_000;

type Entries = Cache<(Subject, ClusterId), Arc<Compiled>>;

/// One revision of the rules.
pub struct Policy {
    /// Holds and validates every row; compiled permissions answer as it would.
    enforcer: Arc<Enforcer>,
    index: Arc<Index>,
    compiled: Entries,
    compilations: AtomicUsize,
    expires_at: SystemTime,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").field("compiled", &self.compiled.entry_count()).finish_non_exhaustive()
    }
}

impl Policy {
    /// Checks rules whole. From `expires_at` on, every decision is a refusal.
    pub fn new(rules: Rules, expires_at: SystemTime) -> Result<Self, InvalidRules> {
        Self::with(Index::new(rules, None)?, Entries::new(COMPILED_ENTRIES_MAX), expires_at)
    }

    /// The next revision. Compiled permissions that rest on nothing that changed are kept.
    pub fn next(&self, rules: Rules, expires_at: SystemTime) -> Result<Self, InvalidRules> {
        let index = Index::new(rules, Some(&self.index))?;
        let touched = index.touched(&self.index);
        if touched.is_nothing() {
            return Ok(Self { index: Arc::new(index), ..self.until(expires_at) });
        }
        let kept = Entries::new(COMPILED_ENTRIES_MAX);
        for (key, compiled) in &self.compiled {
            let (subject, cluster) = key.as_ref();
            if !touched.concerns(subject.principals(), cluster, compiled.roles()) {
                kept.insert((subject.clone(), cluster.clone()), compiled);
            }
        }
        Self::with(index, kept, expires_at)
    }

    /// The same rules, until another moment.
    pub fn until(&self, expires_at: SystemTime) -> Self {
        let (enforcer, index) = (self.enforcer.clone(), self.index.clone());
        let compiled = self.compiled.clone();
        Self { enforcer, index, compiled, compilations: AtomicUsize::new(0), expires_at }
    }

    fn with(index: Index, compiled: Entries, expires_at: SystemTime) -> Result<Self, InvalidRules> {
        let (rows, held) = index.casbin();
        let enforcer = Arc::new(model::enforcer(rows, held)?);
        let index = Arc::new(index);
        Ok(Self { enforcer, index, compiled, compilations: AtomicUsize::new(0), expires_at })
    }

    /// What every principal holds in each cluster.
    pub fn holdings(&self, now: SystemTime) -> Holdings {
        Holdings::new(&self.index, now)
    }

    /// Decides whether a subject may send a request to a cluster.
    pub fn decide(
        &self,
        subject: &Subject,
        cluster: &ClusterId,
        attributes: Attributes,
        now: SystemTime,
    ) -> Result<Permit, Refusal> {
        if self.expires_at <= now {
            return Err(Refusal::PolicyExpired);
        }
        let Some(projects) = self.index.clusters.get(cluster) else {
            return Err(Refusal::ClusterUnknown(cluster.clone()));
        };
        let project = match attributes.target() {
            Target::NonResource(_) => None,
            Target::Resource(resource) => resource.namespace().and_then(|namespace| projects.get(namespace)),
        };
        let compiled = self.compiled(subject, cluster, now);
        match compiled.verdict(&attributes, project) {
            Verdict::Allowed => {
                let role_groups = compiled.role_groups().clone();
                Ok(Permit::new(cluster.clone(), subject.clone(), attributes, role_groups))
            }
            Verdict::Denied => Err(Refusal::Denied(Box::new(attributes))),
            Verdict::Unmentioned if compiled.is_empty() => Err(Refusal::NoRole(Box::new(attributes))),
            Verdict::Unmentioned => Err(Refusal::NotPermitted(Box::new(attributes))),
        }
    }

    /// Whether a subject may send a request by what allows it alone, whatever denies it.
    pub fn decide_without_denies(
        &self,
        subject: &Subject,
        cluster: &ClusterId,
        attributes: Attributes,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        if self.expires_at <= now {
            return Err(Refusal::PolicyExpired);
        }
        if !self.index.clusters.contains_key(cluster) {
            return Err(Refusal::ClusterUnknown(cluster.clone()));
        }
        let compiled = self.compiled(subject, cluster, now);
        if compiled.allows_in_the_whole_cluster(&attributes) {
            Ok(())
        } else if compiled.is_empty() {
            Err(Refusal::NoRole(Box::new(attributes)))
        } else {
            Err(Refusal::NotPermitted(Box::new(attributes)))
        }
    }

    /// Until when a subject holds all that a role gives in a domain: only then, and so long, it may give it to others.
    pub fn covers(
        &self,
        subject: &Subject,
        role: &RoleName,
        domain: &Domain,
        now: SystemTime,
    ) -> Option<Until> {
        if self.expires_at <= now {
            return None;
        }
        covers::covers(&self.index, subject, role, domain, now)
    }

    /// Until when a subject holds the role itself in a domain.
    pub fn holds(
        &self,
        subject: &Subject,
        role: &RoleName,
        domain: &Domain,
        now: SystemTime,
    ) -> Option<Until> {
        if self.expires_at <= now {
            return None;
        }
        covers::holds(&self.index, subject, role, domain, now)
    }

    /// Whether a subject holds all that another holds, wherever that is and for as long.
    pub fn covers_all_of(&self, subject: &Subject, other: &Subject, now: SystemTime) -> bool {
        covers::held(&self.index, other, now).all(|held| {
            let until = self.covers(subject, &held.role.name, &held.domain, now);
            until.is_some_and(|until| later(until, held.expires_at) == until)
        })
    }

    /// Whether a role denies anything: who gives or takes it away decides for others than its owner.
    pub fn denies(&self, role: &RoleName) -> bool {
        self.index.role(role).is_some_and(Flat::denies)
    }

    /// Whether a role lets anybody act as others.
    pub fn impersonates(&self, role: &RoleName) -> bool {
        let role = self.index.role(role);
        role.is_some_and(|role| role.rows.iter().any(|row| impersonate::allowed(row).is_some()))
    }

    /// Whether anything is denied in a project of a cluster: where its namespaces are decides what that is.
    pub fn denies_in_projects(&self, cluster: &ClusterId) -> bool {
        self.index.all_held().any(|(_, held)| {
            matches!(&held.domain, Domain::Project(of, _) if of == cluster) && held.role.denies()
        })
    }

    /// Whether anything is denied to a principal itself.
    pub fn is_denied_anything(&self, principal: &Principal) -> bool {
        self.index.held(principal).iter().any(|held| held.role.denies())
    }

    /// How many permissions this revision compiled itself, rather than kept.
    pub fn compilations(&self) -> usize {
        self.compilations.load(Ordering::Relaxed)
    }

    /// How many rows casbin holds.
    pub fn rows(&self) -> usize {
        use casbin::MgmtApi;
        self.enforcer.get_all_policy().len()
    }

    /// None of a policy that has ended, or of a cluster that it does not know.
    pub(crate) fn compiled_for(
        &self,
        subject: &Subject,
        cluster: &ClusterId,
        now: SystemTime,
    ) -> Option<Arc<Compiled>> {
        let sound = now < self.expires_at && self.index.clusters.contains_key(cluster);
        sound.then(|| self.compiled(subject, cluster, now))
    }

    fn compiled(&self, subject: &Subject, cluster: &ClusterId, now: SystemTime) -> Arc<Compiled> {
        let key = (subject.clone(), cluster.clone());
        if let Some(compiled) = self.compiled.get(&key)
            && compiled.is_valid(now)
        {
            return compiled;
        }
        self.compilations.fetch_add(1, Ordering::Relaxed);
        let compiled = Arc::new(Compiled::new(&self.index, subject, cluster, now));
        self.compiled.insert(key, compiled.clone());
        compiled
    }
}

#[cfg(test)]
mod tests;
