//! Rows by role, and roles by principal and domain: what permissions are compiled from.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::ids::{ClusterId, Principal, ProjectId, RoleName};
use crate::model::{ANY, Kind, Row, domains};
use crate::rules::{Binding, Domain, InvalidRules, Role, Rules};
use crate::templates;

/// A role with all that it inherits written out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flat {
    pub name: RoleName,
    pub rows: Vec<Row>,
}

/// A role that a principal holds somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub role: Arc<Flat>,
    pub domain: Domain,
    pub expires_at: Option<SystemTime>,
}

#[derive(Debug)]
pub(crate) struct Index {
    pub clusters: HashMap<ClusterId, BTreeMap<String, ProjectId>>,
    roles: BTreeMap<RoleName, Arc<Flat>>,
    held: HashMap<Principal, Vec<Held>>,
    bindings: HashSet<Binding>,
}

/// What a revision touched: compiled permissions that rest on none of it stay.
pub(crate) struct Touched {
    clusters: HashSet<ClusterId>,
    roles: HashSet<RoleName>,
    /// Principals whose bindings changed: in one cluster, or everywhere.
    bindings: HashSet<(Principal, Option<ClusterId>)>,
}

impl Index {
    /// Checks the rules and orders them; `before` lends the roles that did not change.
    pub(crate) fn new(rules: Rules, before: Option<&Self>) -> Result<Self, InvalidRules> {
        let mut clusters = HashMap::new();
        for cluster in rules.clusters {
            if clusters.insert(cluster.id.clone(), cluster.projects).is_some() {
                return Err(InvalidRules::ClusterTwice(cluster.id));
            }
        }
        let roles = flatten(rules.roles, before)?;
        let mut held = HashMap::<_, Vec<_>>::new();
        let bindings: HashSet<_> = rules.bindings.into_iter().collect();
        for binding in &bindings {
            let role =
                roles.get(&binding.role).ok_or_else(|| InvalidRules::RoleUnknown(binding.role.clone()))?;
            if let Domain::Cluster(cluster) | Domain::Project(cluster, _) = &binding.domain
                && !clusters.contains_key(cluster)
            {
                let (principal, cluster) = (binding.principal.clone(), cluster.clone());
                return Err(InvalidRules::ClusterUnknown { principal, cluster });
            }
            let of = held.entry(binding.principal.clone()).or_default();
            of.extend(held_by(binding, role, &roles));
        }
        Ok(Self { clusters, roles, held, bindings })
    }

    pub(crate) fn role(&self, name: &RoleName) -> Option<&Flat> {
        self.roles.get(name).map(Arc::as_ref)
    }

    pub(crate) fn held(&self, principal: &Principal) -> &[Held] {
        self.held.get(principal).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn all_held(&self) -> impl Iterator<Item = (&Principal, &Held)> {
        self.held.iter().flat_map(|(principal, held)| held.iter().map(move |held| (principal, held)))
    }

    /// Every row and every holding, as casbin stores them.
    pub(crate) fn casbin(&self) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        let unique = |rows: HashSet<Vec<String>>| rows.into_iter().collect::<Vec<_>>();
        let rows =
            self.roles.values().flat_map(|role| role.rows.iter().map(|row| row.casbin(role.name.as_str())));
        let held = self.held.iter().flat_map(|(principal, held)| {
            let row = |held: &Held, domain| vec![principal.to_string(), held.role.name.to_string(), domain];
            held.iter()
                .flat_map(move |held| domains(&held.domain).into_iter().map(move |domain| row(held, domain)))
        });
        (unique(rows.collect()), unique(held.collect()))
    }

    /// What changed since `before`.
    pub(crate) fn touched(&self, before: &Self) -> Touched {
        let clusters = |one: &Self, other: &Self| {
            let changed =
                one.clusters.iter().filter(|(id, projects)| other.clusters.get(*id) != Some(*projects));
            changed.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        let roles = |one: &Self, other: &Self| {
            let changed = one.roles.iter().filter(|(name, role)| other.roles.get(*name) != Some(*role));
            changed.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let binding = |binding: &Binding| match &binding.domain {
            Domain::Cluster(cluster) | Domain::Project(cluster, _) => {
                (binding.principal.clone(), Some(cluster.clone()))
            }
            Domain::Global => (binding.principal.clone(), None),
        };
        Touched {
            clusters: clusters(self, before).into_iter().chain(clusters(before, self)).collect(),
            roles: roles(self, before).into_iter().chain(roles(before, self)).collect(),
            bindings: self.bindings.symmetric_difference(&before.bindings).map(binding).collect(),
        }
    }
}

impl Touched {
    pub(crate) fn is_nothing(&self) -> bool {
        self.clusters.is_empty() && self.roles.is_empty() && self.bindings.is_empty()
    }

    pub(crate) fn concerns<'r>(
        &self,
        principals: &[Principal],
        cluster: &ClusterId,
        mut roles: impl Iterator<Item = &'r RoleName>,
    ) -> bool {
        let bound = |principal: &Principal| {
            self.bindings.contains(&(principal.clone(), None))
                || self.bindings.contains(&(principal.clone(), Some(cluster.clone())))
        };
        self.clusters.contains(cluster)
            || roles.any(|role| self.roles.contains(role))
            || principals.iter().any(bound)
    }
}

/// What a binding gives: its role, and where that allows anything, discovery in the same cluster,
/// without which no client could even ask.
fn held_by(binding: &Binding, role: &Arc<Flat>, roles: &BTreeMap<RoleName, Arc<Flat>>) -> Vec<Held> {
    let domain = match &binding.domain {
        Domain::Project(cluster, _) => Domain::Cluster(cluster.clone()),
        domain => domain.clone(),
    };
    let discovery = role.allows_anything().then(|| roles.get(&templates::discovery())).flatten();
    let discovery = discovery.map(|role| Held { role: role.clone(), domain, expires_at: binding.expires_at });
    let held = Held { role: role.clone(), domain: binding.domain.clone(), expires_at: binding.expires_at };
    [held].into_iter().chain(discovery).collect()
}

impl Flat {
    pub(crate) fn denies(&self) -> bool {
        self.rows.iter().any(|row| row.effect == crate::rules::Effect::Deny)
    }

    pub(crate) fn allows_anything(&self) -> bool {
        self.rows.iter().any(|row| row.effect == crate::rules::Effect::Allow)
    }
}

/// Templates and own roles, with inheritance written out.
fn flatten(own: Vec<Role>, before: Option<&Index>) -> Result<BTreeMap<RoleName, Arc<Flat>>, InvalidRules> {
    let mut written = BTreeMap::new();
    for role in templates::all().into_iter().chain(own) {
        for rule in &role.rules {
            rule.check().map_err(|problem| InvalidRules::Rule { role: role.name.clone(), problem })?;
        }
        if let Some(twice) = written.insert(role.name.clone(), role) {
            return Err(InvalidRules::RoleTwice(twice.name));
        }
    }
    let mut flat = BTreeMap::new();
    for name in written.keys() {
        let mut rows = Vec::new();
        collect(name, &written, &mut Vec::new(), &mut HashSet::new(), &mut rows)?;
        let mut seen = HashSet::new();
        rows.retain(|row| seen.insert(row.clone()));
        let role = Flat { name: name.clone(), rows };
        let kept = before.and_then(|before| before.roles.get(name)).filter(|kept| ***kept == role).cloned();
        flat.insert(name.clone(), kept.unwrap_or_else(|| Arc::new(role)));
    }
    Ok(flat)
}

/// Collects a role's rows and those that it inherits; `path` are the roles on the way here.
fn collect(
    name: &RoleName,
    written: &BTreeMap<RoleName, Role>,
    path: &mut Vec<RoleName>,
    seen: &mut HashSet<RoleName>,
    rows: &mut Vec<Row>,
) -> Result<(), InvalidRules> {
    if path.contains(name) {
        return Err(InvalidRules::RoleCycle(name.clone()));
    }
    if !seen.insert(name.clone()) {
        return Ok(()); // inherited in two ways
    }
    let role = written.get(name).ok_or_else(|| InvalidRules::RoleUnknown(name.clone()))?;
    rows.extend(role.rules.iter().flat_map(rows_of));
    path.push(name.clone());
    for inherited in &role.inherits {
        collect(inherited, written, path, seen, rows)?;
    }
    path.pop();
    Ok(())
}

/// A rule as rows: one per group, resource, name and verb.
fn rows_of(rule: &crate::rules::Rule) -> Vec<Row> {
    let any = [ANY.to_owned()];
    let names: &[String] = if rule.names.is_empty() { &any } else { &rule.names };
    let mut rows = Vec::new();
    for verb in &rule.verbs {
        let row = |kind, group: &str, resource: &str, name: &str| Row {
            kind,
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            verb: verb.clone(),
            effect: rule.effect,
        };
        rows.extend(rule.paths.iter().map(|path| row(Kind::Path, ANY, path, ANY)));
        for group in &rule.groups {
            for resource in &rule.resources {
                rows.extend(names.iter().map(|name| row(Kind::Resource, group, resource, name)));
            }
        }
    }
    rows
}
