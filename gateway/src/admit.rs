//! From a request's head to a permit, or to a refusal: everything that is decided before anything is sent.
//!
//! All of it is from memory; nothing here waits.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use drover_api::rest;
use drover_api::snapshot::Cluster;
use drover_policy::{Attributes, PathRefused, Permit};
use drover_tunnel::{Owner, StreamHeader};
use http::{Method, header};
use pingora::http::RequestHeader;

use crate::audit::Who;
use crate::authenticate::{Authenticated, authenticate};
use crate::credential::credential;
use crate::headers::{self, Upgrade};
use crate::identity::{Evidence, Identities, Shown};
use crate::impersonate::{forbidden, wanted};
use crate::listener::certificates::Certificates;
use crate::live::Registered;
use crate::refusal::Refusal;
use crate::route::{Form, Names, Route, RouteRefused, route};
use crate::snapshot::Current;
use crate::tables::Tables;
use crate::uses::Uses;

/// Where the console's pages are, on its host.
const CONSOLE: &str = "/console";
/// How long an answer may take to begin, and to go on, unless the request is long-running:
/// above the API server's own 60 s, so that its timeout is the one that users see.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// What decides about requests.
pub(crate) struct Admission {
    current: Arc<Current>,
    certificates: Arc<Certificates>,
    names: Names,
    identities: Identities,
    uses: Arc<Uses>,
    /// Keys of budgets: unpredictable, so that nobody can aim at another user's.
    owners: RandomState,
}

/// A request that may be sent: whom it runs as, where to, and how.
pub(crate) struct Admitted {
    pub who: Who,
    pub permit: Permit,
    pub attributes: Arc<Attributes>,
    /// The name that people know the cluster by.
    pub cluster_name: String,
    pub form: Form,
    /// The target that the API server sees: path and query.
    pub target: String,
    pub upgrade: Option<Upgrade>,
    pub nominated: Vec<String>,
    pub header: StreamHeader,
    pub owner: Owner,
    pub method: Method,
}

/// A request that is answered here, with what was known of it by then.
pub(crate) struct Refused {
    pub refusal: Refusal,
    pub cluster: Option<String>,
    pub who: Option<Who>,
}

impl Admitted {
    /// Whether it may be sent twice: nothing that an API server does for it changes anything.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.upgrade.is_none() && (self.method == Method::GET || self.method == Method::HEAD)
    }

    /// Whether its end must be recorded.
    pub(crate) fn must_be_audited(&self) -> bool {
        self.upgrade.is_some() || self.attributes.is_mutating()
    }

    pub(crate) fn is_long_running(&self) -> bool {
        self.upgrade.is_some() || self.attributes.is_long_running()
    }
}

impl Admission {
    pub(crate) fn new(
        current: Arc<Current>,
        certificates: Arc<Certificates>,
        names: Names,
        identities: Identities,
        uses: Arc<Uses>,
    ) -> Self {
        Self { current, certificates, names, identities, uses, owners: RandomState::new() }
    }

    /// Ends a request that the state of this moment does not admit.
    pub(crate) fn review(&self, live: &Registered) {
        if let Some(tables) = self.current.tables() {
            live.review(&tables, SystemTime::now());
        }
    }

    /// Whether a request is for Drover's own API, and not for a cluster.
    pub(crate) fn is_for_control(&self, request: &RequestHeader) -> bool {
        let Ok(target) = target(request) else { return false };
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let Some(rest) = path.strip_prefix(rest::PREFIX) else { return false };
        let Ok(authority) = authority(request) else { return false };
        let route = route(authority, path, &self.names, |host| self.certificates.covers(host));
        let page = rest.starts_with('/') && route == Err(RouteRefused::PageUnknown);
        page && !self.names.is_console(authority)
    }

    /// Whether a request is for the console, which has a host of its own.
    pub(crate) fn is_for_console(&self, request: &RequestHeader) -> bool {
        let (Ok(target), Ok(authority)) = (target(request), authority(request)) else { return false };
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let page = path == "/"
            || path == CONSOLE
            || path.strip_prefix(CONSOLE).is_some_and(|rest| rest.starts_with('/'));
        page && self.names.is_console(authority)
    }

    pub(crate) fn admit(
        &self,
        request: &RequestHeader,
        audit_id: &str,
        now: SystemTime,
    ) -> Result<Admitted, Box<Refused>> {
        let tables = self.current.tables().ok_or(Refusal::SnapshotAbsent)?;
        if tables.stale_at <= now {
            return Err(Refusal::SnapshotStale.into());
        }
        let target = target(request)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let covers = |host: &str| self.certificates.covers(host);
        let route = route(authority(request)?, path, &self.names, covers).map_err(Refusal::Route)?;
        let credential = credential(&request.headers).map_err(Refusal::Credential)?;
        let (authenticated, token) =
            authenticate(&tables, &credential.presented, now).map_err(Refusal::Authentication)?;
        self.uses.note(&token.id);
        let who = Who { authenticated, role_groups: None, wanted: None };
        let refused = |refusal| {
            Box::new(Refused { refusal, cluster: Some(route.cluster.to_owned()), who: Some(who.clone()) })
        };
        headers::check(&request.headers).map_err(|error| refused(Refusal::Headers(error)))?;
        let cluster = tables.cluster(route.cluster).ok_or_else(|| refused(Refusal::ClusterUnknown))?;
        if !token.scope.covers(&cluster.id) {
            return Err(refused(Refusal::TokenScope));
        }
        let presented = Shown { token, secret: &credential.secret };
        let asked = Asked { request, route: &route, query, audit_id, now, presented };
        self.permit(&tables, cluster, &who.authenticated, &asked).map_err(refused)
    }

    fn permit(
        &self,
        tables: &Tables,
        cluster: &Cluster,
        authenticated: &Authenticated,
        asked: &Asked<'_>,
    ) -> Result<Admitted, Refusal> {
        let Asked { request, route, query, audit_id, now, presented } = *asked;
        let wanted = wanted(&request.headers).map_err(Refusal::ImpersonationMalformed)?;
        if let Some(wanted) = &wanted {
            let rights = tables.policy.impersonation(&authenticated.user.subject, &cluster.id, now);
            if let Some(part) = forbidden(rights, wanted) {
                return Err(Refusal::Impersonation { user: authenticated.user.name.clone(), part });
            }
        }
        let impersonate = wanted
            .as_ref()
            .map_or_else(Bytes::new, |wanted| serde_json::to_vec(wanted).expect("texts are JSON").into());
        let attributes =
            Attributes::parse(request.method.as_str(), route.path, query).map_err(|error| match error {
                PathRefused::Method => Refusal::MethodUnknown,
                error => Refusal::Path(error.to_string()),
            })?;
        let permit = tables
            .policy
            .decide(&authenticated.user.subject, &cluster.id, attributes, now)
            .map_err(|refusal| Refusal::Policy { user: authenticated.user.name.clone(), refusal })?;
        let Evidence { assertion, proof } =
            self.identities.of(tables, cluster, &authenticated.user, presented, now)?;
        let upgrade = Upgrade::of(request.version, &request.headers);
        let attributes = Arc::new(permit.attributes().clone());
        let long_running = upgrade.is_some() || attributes.is_long_running();
        Ok(Admitted {
            who: Who {
                authenticated: authenticated.clone(),
                role_groups: Some(permit.role_groups().clone()),
                wanted: wanted.map(Arc::new),
            },
            cluster_name: cluster.name.as_str().to_owned(),
            form: route.form,
            target: query.map_or_else(|| route.path.to_owned(), |query| format!("{}?{query}", route.path)),
            upgrade,
            nominated: headers::nominated(&request.headers),
            header: StreamHeader {
                audit_id: audit_id.to_owned(),
                deadline: (!long_running).then_some(ANSWER_TIMEOUT),
                assertion,
                proof,
                impersonate,
                roster: false,
            },
            owner: Owner {
                user: self.owners.hash_one(&authenticated.user.principal),
                cluster: self.owners.hash_one(&cluster.id),
            },
            method: request.method.clone(),
            attributes,
            permit,
        })
    }
}

/// What a request asks of a cluster.
#[derive(Clone, Copy)]
struct Asked<'a> {
    request: &'a RequestHeader,
    route: &'a Route<'a>,
    query: Option<&'a str>,
    audit_id: &'a str,
    now: SystemTime,
    presented: Shown<'a>,
}

impl From<Refusal> for Box<Refused> {
    fn from(refusal: Refusal) -> Self {
        Self::new(Refused { refusal, cluster: None, who: None })
    }
}

fn target(request: &RequestHeader) -> Result<&str, Refusal> {
    let target = std::str::from_utf8(request.raw_path()).ok().filter(|target| target.starts_with('/'));
    target.ok_or_else(|| Refusal::Path("it does not begin with '/'".to_owned()))
}

/// HTTP/2 puts the authority into the target, HTTP/1.1 into Host; where both are given they must agree.
fn authority(request: &RequestHeader) -> Result<&str, Refusal> {
    let unknown = || Refusal::Route(crate::route::RouteRefused::HostUnknown);
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str()).transpose().map_err(|_| unknown())?;
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    match (authority, host) {
        _ if hosts.next().is_some() => Err(unknown()),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => Err(unknown()),
        (Some(authority), _) => Ok(authority),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(unknown()),
    }
}
