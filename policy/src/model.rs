//! The casbin model, and the one Enforcer that holds and validates every row.
//!
//! Subjects are principals and roles, domains are clusters (`c-1a2b`), projects (`c-1a2b/web`) and `*`
//! (everywhere). A role's rows hold wherever the role is held, and a principal holds a role in a domain
//! by a grouping row; a cluster's roles hold in its projects, which is why the matcher asks twice. Who holds a role in a
//! project holds it in `c-1a2b/*` too, by which denies match requests over all namespaces.
//! Inheritance is written out in the rows, so that one grouping step decides.
//!
//! casbin's code is async for adapters that do I/O; ours is in memory. Its futures are polled once, and
//! are ready or wrong.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};

use crate::attributes::{Attributes, Target};
use crate::ids::{ClusterId, ProjectId};
use crate::rules::{Domain, InvalidRules};

/// Request and row: subject, domain (and its cluster, and all projects of that where the request may touch any), kind of
/// target, group, resource, name, verb; and whether only who may do everything may do it. A deny matches whatever the request may touch.
const MODEL: &str = r#"
[request_definition]
r = sub, dom, cluster, projects, owner, kind, group, resource, anyresource, name, verb

[policy_definition]
p = sub, kind, group, resource, name, verb, eft

[role_definition]
g = _, _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = p.kind == r.kind && (p.verb == "*" || p.verb == r.verb) && (p.group == "*" || p.group == r.group) && (p.name == "*" || p.name == r.name || (p.eft == "deny" && r.name == "")) && (p.resource == "*" || p.resource == r.resource || p.resource == r.anyresource || (p.kind == "path" && keyMatch(r.resource, p.resource))) && (r.owner == "any" || p.eft == "deny" || (p.verb == "*" && p.group == "*" && p.resource == "*" && p.name == "*")) && (g(r.sub, p.sub, r.dom) || g(r.sub, p.sub, r.cluster) || g(r.sub, p.sub, "*") || (p.eft == "deny" && g(r.sub, p.sub, r.projects)))
"#;

pub(crate) const EVERYWHERE: &str = "*";
pub(crate) const ANY: &str = "*";

/// One policy row, as casbin stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub kind: Kind,
    pub group: String,
    pub resource: String,
    pub name: String,
    pub verb: String,
    pub effect: crate::rules::Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Path,
    Resource,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Resource => "resource",
        }
    }
}

impl Row {
    pub(crate) fn casbin(&self, role: &str) -> Vec<String> {
        let effect = match self.effect {
            crate::rules::Effect::Allow => "allow",
            crate::rules::Effect::Deny => "deny",
        };
        [role, self.kind.as_str(), &self.group, &self.resource, &self.name, &self.verb, effect]
            .map(str::to_owned)
            .into()
    }
}

/// A domain as casbin writes it.
pub(crate) fn domain(domain: &Domain) -> String {
    match domain {
        Domain::Cluster(cluster) => cluster.to_string(),
        Domain::Global => EVERYWHERE.to_owned(),
        Domain::Project(cluster, project) => format!("{cluster}/{project}"),
    }
}

/// All domains that a role in one is held in: of a project, also the one that stands for every project of its cluster.
pub(crate) fn domains(of: &Domain) -> Vec<String> {
    match of {
        Domain::Cluster(_) | Domain::Global => vec![domain(of)],
        Domain::Project(cluster, _) => vec![domain(of), any_project(cluster)],
    }
}

fn any_project(cluster: &ClusterId) -> String {
    format!("{cluster}/*")
}

/// Everything as casbin holds it.
pub(crate) fn enforcer(rows: Vec<Vec<String>>, held: Vec<Vec<String>>) -> Result<Enforcer, InvalidRules> {
    ready(async {
        let model = DefaultModel::from_str(MODEL).await?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
        enforcer.enable_auto_save(false);
        enforcer.add_policies(rows).await?;
        enforcer.add_grouping_policies(held).await?;
        Ok(enforcer)
    })
}

/// casbin's own answer for one principal: slow, and what compiled answers are tested against.
#[cfg(test)]
pub(crate) fn enforce(
    enforcer: &Enforcer,
    subject: &str,
    cluster: &ClusterId,
    project: Option<&ProjectId>,
    attributes: &Attributes,
) -> bool {
    let request = request(subject, cluster, project, attributes);
    enforcer.enforce(request).expect("the request has the model's fields")
}

#[cfg_attr(not(test), expect(dead_code, reason = "the oracle asks casbin in tests only"))]
fn request(
    subject: &str,
    cluster: &ClusterId,
    project: Option<&ProjectId>,
    attributes: &Attributes,
) -> Vec<String> {
    let domain = match project {
        Some(project) => format!("{cluster}/{project}"),
        None => cluster.to_string(),
    };
    let (kind, group, resource, any, name) = match attributes.target() {
        Target::NonResource(path) => (Kind::Path, String::new(), path.clone(), path.clone(), String::new()),
        Target::Resource(target) => {
            let any = target.subresource().map_or_else(|| target.qualified(), |sub| format!("*/{sub}"));
            let (group, name) = (target.group().to_owned(), target.name().unwrap_or_default().to_owned());
            (Kind::Resource, group, target.qualified(), any, name)
        }
    };
    let verb = attributes.verb().as_str().to_owned();
    let projects = if attributes.spans_projects() { any_project(cluster) } else { domain.clone() };
    vec![
        subject.to_owned(),
        domain,
        cluster.to_string(),
        projects,
        if attributes.takes_an_owner() { "owner" } else { "any" }.to_owned(),
        kind.as_str().to_owned(),
        group,
        resource,
        any,
        name,
        verb,
    ]
}

/// Polls a future of casbin's over memory once.
fn ready<T>(future: impl Future<Output = casbin::Result<T>>) -> Result<T, InvalidRules> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.map_err(|error| InvalidRules::Casbin(error.to_string())),
        Poll::Pending => Err(InvalidRules::Casbin("it waits for something".to_owned())),
    }
}
