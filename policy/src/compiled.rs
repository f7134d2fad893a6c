//! One subject's permissions in one cluster, ready to be matched.

use std::sync::Arc;
use std::time::SystemTime;

use crate::attributes::{Attributes, Target};
use crate::ids::{ClusterId, ProjectId, RoleName, Subject};
use crate::index::{Flat, Held, Index};
use crate::model::{ANY, Kind, Row};
use crate::rules::{Domain, Effect};
use crate::templates;

#[derive(Debug)]
pub(crate) struct Compiled {
    grants: Vec<Grant>,
    role_groups: Arc<[Arc<str>]>,
    /// When the first of the grants ends: the permissions are compiled anew then.
    valid_until: Option<SystemTime>,
}

#[derive(Debug)]
struct Grant {
    role: Arc<Flat>,
    /// Holds in this project only; none: in the whole cluster.
    project: Option<ProjectId>,
}

/// What the rows say of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
    Unmentioned,
}

impl Compiled {
    /// Collects what a subject holds at `now`; what has ended is left out.
    pub(crate) fn new(index: &Index, subject: &Subject, cluster: &ClusterId, now: SystemTime) -> Self {
        let (mut grants, mut role_groups, mut valid_until) = (Vec::new(), Vec::new(), None);
        let held = subject.principals().iter().flat_map(|principal| index.held(principal));
        for Held { role, domain, expires_at } in held {
            let project = match domain {
                Domain::Cluster(of) if of == cluster => None,
                Domain::Global => None,
                Domain::Project(of, project) if of == cluster => Some(project.clone()),
                Domain::Cluster(_) | Domain::Project(..) => continue,
            };
            if expires_at.is_some_and(|end| end <= now) {
                continue;
            }
            valid_until = [valid_until, *expires_at].into_iter().flatten().min();
            if role.allows_anything() {
                role_groups.extend(templates::role_group(&role.name, project.as_ref()));
            }
            grants.push(Grant { role: role.clone(), project });
        }
        role_groups.sort();
        role_groups.dedup();
        Self { grants, role_groups: role_groups.into(), valid_until }
    }

    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.valid_until.is_none_or(|end| now < end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &RoleName> {
        self.grants.iter().map(|grant| &grant.role.name)
    }

    pub(crate) fn role_groups(&self) -> &Arc<[Arc<str>]> {
        &self.role_groups
    }

    /// What holds everywhere in the cluster: a project's rows do not.
    pub(crate) fn rows_of_the_whole_cluster(&self) -> impl Iterator<Item = &Row> {
        self.grants.iter().filter(|grant| grant.project.is_none()).flat_map(|grant| &grant.role.rows)
    }

    /// Whether a row of the whole cluster allows a request, whatever denies it.
    pub(crate) fn allows_in_the_whole_cluster(&self, attributes: &Attributes) -> bool {
        let wanted = Wanted::new(attributes);
        self.rows_of_the_whole_cluster().any(|row| row.effect == Effect::Allow && wanted.matches(row))
    }

    /// Matches a request whose namespace is in `project`. One deny decides against all that allows, and it matches
    /// whatever the request may touch: of a project, a request over all namespaces; of a name, one that has none.
    pub(crate) fn verdict(&self, attributes: &Attributes, project: Option<&ProjectId>) -> Verdict {
        let wanted = Wanted::new(attributes);
        let mut verdict = Verdict::Unmentioned;
        for grant in &self.grants {
            let is_in = grant.project.is_none() || grant.project.as_ref() == project;
            for row in &grant.role.rows {
                match row.effect {
                    Effect::Allow if is_in && verdict != Verdict::Allowed && wanted.matches(row) => {
                        verdict = Verdict::Allowed;
                    }
                    Effect::Deny if (is_in || wanted.spans_projects) && wanted.may_touch(row) => {
                        return Verdict::Denied;
                    }
                    Effect::Allow | Effect::Deny => {}
                }
            }
        }
        verdict
    }
}

/// A request in the terms of rows.
struct Wanted<'a> {
    verb: &'static str,
    target: &'a Target,
    spans_projects: bool,
    takes_an_owner: bool,
}

impl<'a> Wanted<'a> {
    fn new(attributes: &'a Attributes) -> Self {
        let spans_projects = attributes.spans_projects();
        let takes_an_owner = attributes.takes_an_owner();
        Self { verb: attributes.verb().as_str(), target: attributes.target(), spans_projects, takes_an_owner }
    }

    fn may_touch(&self, row: &Row) -> bool {
        self.matches_but_for_name(row)
            && match self.target {
                Target::NonResource(_) => true,
                Target::Resource(target) => {
                    row.name == ANY || target.name().is_none_or(|name| row.name == name)
                }
            }
    }

    fn matches(&self, row: &Row) -> bool {
        let is_owners =
            || [&row.verb, &row.group, &row.resource, &row.name].into_iter().all(|part| part == ANY);
        self.matches_but_for_name(row)
            && (!self.takes_an_owner || is_owners())
            && match self.target {
                Target::NonResource(_) => true,
                Target::Resource(target) => row.name == ANY || row.name == target.name().unwrap_or_default(),
            }
    }

    fn matches_but_for_name(&self, row: &Row) -> bool {
        let is = |written: &str, wanted: &str| written == ANY || written == wanted;
        is(&row.verb, self.verb)
            && match self.target {
                Target::NonResource(path) => row.kind == Kind::Path && covers(&row.resource, path),
                Target::Resource(target) => {
                    row.kind == Kind::Resource
                        && is(&row.group, target.group())
                        && resource(&row.resource, target.resource(), target.subresource())
                }
            }
    }
}

/// `*`, `pods`, `pods/log` or `*/log` against a resource and its subresource.
fn resource(written: &str, resource: &str, subresource: Option<&str>) -> bool {
    if written == ANY {
        return true;
    }
    match (written.split_once('/'), subresource) {
        (Some((of, sub)), Some(subresource)) => (of == ANY || of == resource) && sub == subresource,
        (None, None) => written == resource,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// A path, or with `*` at the end a prefix, against a path.
pub(crate) fn covers(written: &str, path: &str) -> bool {
    written.strip_suffix('*').map_or(written == path, |prefix| path.starts_with(prefix))
}
