//! What a request asks for, in Kubernetes' own terms, from its method, path and query.
//!
//! The rules are those of k8s.io/apiserver's RequestInfoFactory, with one deviation: a GET of a pod's
//! exec, attach or portforward (a WebSocket's way in) is `create`, as API servers check since 1.35.

use std::fmt;

use crate::templates::SYSTEM_NAMESPACES;

mod path;
mod query;

pub use path::PathRefused;

/// Of the core group, and in no namespace.
const CLUSTER_WIDE: [&str; 3] = ["componentstatuses", "nodes", "persistentvolumes"];

/// A request as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    verb: Verb,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path outside the resource APIs, such as `/healthz` or `/openapi/v3`.
    NonResource(String),
    Resource(Resource),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    group: String,
    version: String,
    resource: String,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

/// Kubernetes' verbs; on non-resource paths the method in lower case. Closed: any other refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    Head,
    List,
    Options,
    Patch,
    Post,
    Proxy,
    Put,
    Update,
    Watch,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Options => "options",
            Self::Patch => "patch",
            Self::Post => "post",
            Self::Proxy => "proxy",
            Self::Put => "put",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }

    fn on_resource(method: &str) -> Option<Self> {
        match method {
            "DELETE" => Some(Self::Delete),
            "GET" | "HEAD" => Some(Self::Get),
            "PATCH" => Some(Self::Patch),
            "POST" => Some(Self::Create),
            "PUT" => Some(Self::Update),
            _ => None,
        }
    }

    fn on_path(method: &str) -> Option<Self> {
        match method {
            "DELETE" => Some(Self::Delete),
            "GET" => Some(Self::Get),
            "HEAD" => Some(Self::Head),
            "OPTIONS" => Some(Self::Options),
            "PATCH" => Some(Self::Patch),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            _ => None,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Attributes {
    /// Parses a request. `path` is the API server's own, still percent-encoded and without the query.
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Self, PathRefused> {
        let path = path::decode(path)?;
        match resource(method, &path, query)? {
            Some(attributes) => Ok(attributes),
            None => {
                let verb = Verb::on_path(method).ok_or(PathRefused::Method)?;
                Ok(Self { verb, target: Target::NonResource(path.into_owned()) })
            }
        }
    }

    pub fn verb(&self) -> Verb {
        self.verb
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A request for a resource of the cluster, made of its parts: whatever a name is, it is that name.
    pub fn of(method: &str, group: &str, version: &str, resource: &str, name: Option<&str>) -> Option<Self> {
        let verb = match (Verb::on_resource(method)?, name) {
            (Verb::Get, None) => Verb::List,
            (Verb::Delete, None) => Verb::DeleteCollection,
            (verb, _) => verb,
        };
        let target = Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: None,
            namespace: None,
            name: name.map(str::to_owned),
        };
        Some(Self { verb, target: Target::Resource(target) })
    }

    /// Whether the request may touch objects in any namespace. Which resources have namespaces only the cluster knows,
    /// but for some that are known not to.
    pub(crate) fn spans_projects(&self) -> bool {
        match &self.target {
            Target::NonResource(_) => false,
            Target::Resource(resource) => {
                let of_the_cluster =
                    resource.group.is_empty() && CLUSTER_WIDE.contains(&resource.resource.as_str());
                resource.namespace.is_none() && !of_the_cluster
            }
        }
    }

    /// Whether the request could make of its sender what runs in a system namespace: it changes something there, or
    /// may read a secret or a pod's network there.
    pub(crate) fn takes_an_owner(&self) -> bool {
        let Target::Resource(resource) = &self.target else { return false };
        let in_system = resource.namespace().map(|namespace| SYSTEM_NAMESPACES.contains(&namespace));
        let is_secret = resource.group.is_empty() && resource.resource == "secrets";
        match in_system {
            None => is_secret,
            Some(false) => false,
            Some(true) => is_secret || self.is_mutating() || resource.subresource() == Some("proxy"),
        }
    }

    /// Whether the answer has no end of its own: such a request gets no timeout.
    pub fn is_long_running(&self) -> bool {
        let streams = |resource: &Resource| {
            matches!(resource.subresource(), Some("attach" | "exec" | "log" | "portforward" | "proxy"))
        };
        match &self.target {
            Target::NonResource(_) => false,
            Target::Resource(resource) => matches!(self.verb, Verb::Proxy | Verb::Watch) || streams(resource),
        }
    }

    /// Whether the request may change anything.
    pub fn is_mutating(&self) -> bool {
        match self.verb {
            Verb::Get | Verb::Head | Verb::List | Verb::Options | Verb::Watch => false,
            Verb::Create
            | Verb::Delete
            | Verb::DeleteCollection
            | Verb::Patch
            | Verb::Post
            | Verb::Proxy
            | Verb::Put
            | Verb::Update => true,
        }
    }
}

impl Resource {
    /// API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn resource(&self) -> &str {
        &self.resource
    }

    pub fn subresource(&self) -> Option<&str> {
        self.subresource.as_deref()
    }

    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// `pods` or `pods/log`, as rules write it.
    pub(crate) fn qualified(&self) -> String {
        self.subresource
            .as_ref()
            .map_or_else(|| self.resource.clone(), |sub| format!("{}/{sub}", self.resource))
    }
}

/// As Kubernetes phrases it: `list resource "pods" in API group "" in the namespace "default"`.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::NonResource(path) => write!(f, "{} path {path:?}", self.verb),
            Target::Resource(resource) => {
                write!(
                    f,
                    "{} resource {:?} in API group {:?}",
                    self.verb,
                    resource.qualified(),
                    resource.group
                )?;
                match &resource.namespace {
                    Some(namespace) => write!(f, " in the namespace {namespace:?}"),
                    None => f.write_str(" at the cluster scope"),
                }
            }
        }
    }
}

/// The resource that a path names, or none where the path is outside the resource APIs.
fn resource(method: &str, path: &str, query: Option<&str>) -> Result<Option<Attributes>, PathRefused> {
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    let (group, version, parts) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(None),
    };
    let (verb, parts) = match parts {
        ["proxy", rest @ ..] => (Verb::Proxy, rest),
        ["watch", rest @ ..] => (Verb::Watch, rest),
        rest => (Verb::on_resource(method).ok_or(PathRefused::Method)?, rest),
    };
    if parts.is_empty() {
        return Err(PathRefused::ResourceMissing);
    }
    let (namespace, parts) = namespace(parts);
    let subresource = parts.get(2).filter(|_| verb != Verb::Proxy).map(|&part| part.to_owned());
    let name = parts.get(1).map(|&part| part.to_owned());
    let mut found = Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: parts[0].to_owned(),
        subresource,
        namespace: namespace.map(str::to_owned),
        name,
    };
    let verb = match verb {
        Verb::Get if found.name.is_none() => collection(&mut found, query)?,
        Verb::Delete if found.name.is_none() => Verb::DeleteCollection,
        Verb::Get if opens_a_session(&found) => Verb::Create,
        verb => verb,
    };
    Ok(Some(Attributes { verb, target: Target::Resource(found) }))
}

/// `namespaces/{namespace}/{resource}/...`, where the rest is relative to the resource.
fn namespace<'a, 'p>(parts: &'a [&'p str]) -> (Option<&'p str>, &'a [&'p str]) {
    match parts {
        ["namespaces", namespace, "finalize" | "status", ..] | ["namespaces", namespace] => {
            (Some(namespace), parts)
        }
        ["namespaces", namespace, rest @ ..] => (Some(namespace), rest),
        _ => (None, parts),
    }
}

/// A read of a whole collection: list or watch, narrowed to one name where a field selector says so.
fn collection(found: &mut Resource, query: Option<&str>) -> Result<Verb, PathRefused> {
    let options = query::options(query.unwrap_or_default())?;
    found.name = options.name;
    Ok(if options.watch { Verb::Watch } else { Verb::List })
}

fn opens_a_session(resource: &Resource) -> bool {
    resource.group.is_empty()
        && resource.resource == "pods"
        && matches!(resource.subresource(), Some("attach" | "exec" | "portforward"))
}

#[cfg(test)]
mod tests;
