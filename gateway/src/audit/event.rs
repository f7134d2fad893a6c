//! A record as `audit.k8s.io/v1` Event, so that what reads Kubernetes' audit logs reads ours too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use drover_api::identity::GROUPS_SENT_MAX;
use drover_api::impersonate::Wanted;
use drover_api::token;
use drover_policy::{Attributes, Target};
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use crate::authenticate::Authenticated;

/// Longest request URI recorded, in bytes: the rest is cut, and the cut is marked.
const URI_BYTES_MAX: usize = 4096;

/// One end, or the start of a long-running answer.
pub(crate) struct Record {
    pub audit_id: Arc<str>,
    pub stage: Stage,
    pub received_at: SystemTime,
    pub at: SystemTime,
    pub method: String,
    pub uri: String,
    pub user_agent: Option<String>,
    pub source: Option<IpAddr>,
    pub cluster: Option<String>,
    pub who: Option<Who>,
    pub attributes: Option<Arc<Attributes>>,
    pub code: Option<StatusCode>,
    /// Why the gateway itself answered, or why an answer was cut short.
    pub reason: Option<&'static str>,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

/// Who a request ran as.
#[derive(Clone)]
pub(crate) struct Who {
    pub authenticated: Authenticated,
    /// None for what was refused before the policy gave any.
    pub role_groups: Option<Arc<[Arc<str>]>>,
    /// Whom they act as, where they are allowed to.
    pub wanted: Option<Arc<Wanted>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Stage {
    ResponseComplete,
    ResponseStarted,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: Cow<'a, str>,
    verb: Cow<'a, str>,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    annotations: BTreeMap<&'static str, Cow<'a, str>>,
}

#[derive(Default, Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    api_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subresource: Option<&'a str>,
}

#[derive(Serialize)]
struct ResponseStatus {
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Record {
    pub(crate) fn event(&self) -> Event<'_> {
        let attributes = self.attributes.as_deref();
        let verb = attributes.map_or_else(
            || Cow::Owned(self.method.to_ascii_lowercase()),
            |known| Cow::Borrowed(known.verb().as_str()),
        );
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: "Metadata",
            audit_id: &self.audit_id,
            stage: self.stage,
            request_uri: redacted(&self.uri),
            verb,
            user: self.who.as_ref().map_or_else(User::default, user),
            impersonated_user: self.who.as_ref().and_then(|who| who.wanted.as_deref()).map(impersonated),
            source_ips: self.source.iter().map(IpAddr::to_string).collect(),
            user_agent: self.user_agent.as_deref().map(redacted),
            object_ref: attributes.and_then(object_ref),
            response_status: self
                .code
                .map(|code| ResponseStatus { code: code.as_u16(), reason: self.reason }),
            request_received_timestamp: timestamp(self.received_at),
            stage_timestamp: timestamp(self.at),
            annotations: self.annotations(),
        }
    }

    fn annotations(&self) -> BTreeMap<&'static str, Cow<'_, str>> {
        let mut annotations = BTreeMap::new();
        if let Some(cluster) = &self.cluster {
            annotations.insert("drover.io/cluster", redacted(cluster));
        }
        if let Some(reason) = self.reason {
            annotations.insert("drover.io/reason", Cow::Borrowed(reason));
        }
        if let Some(who) = &self.who {
            annotations.insert("drover.io/token-id", Cow::Borrowed(who.authenticated.token.as_str()));
            let count = who.authenticated.user.groups.len();
            if count > GROUPS_SENT_MAX {
                annotations.insert("drover.io/groups-in-all", Cow::Owned(count.to_string()));
            }
        }
        if self.stage == Stage::ResponseComplete {
            let duration = self.at.duration_since(self.received_at).unwrap_or_default();
            annotations.insert("drover.io/bytes-received", Cow::Owned(self.bytes_received.to_string()));
            annotations.insert("drover.io/bytes-sent", Cow::Owned(self.bytes_sent.to_string()));
            annotations.insert("drover.io/duration-ms", Cow::Owned(duration.as_millis().to_string()));
        }
        if self.attributes.as_deref().is_some_and(runs_in_a_container) {
            for (name, label) in [("command", "drover.io/command"), ("container", "drover.io/container")] {
                if let Some(text) = parameters(&self.uri, name) {
                    annotations.insert(label, Cow::Owned(redacted(&text).into_owned()));
                }
            }
        }
        annotations
    }
}

fn user(who: &Who) -> User<'_> {
    let user = &who.authenticated.user;
    // Of more than are sent, the number is recorded: see the annotations.
    let own = if user.groups.len() > GROUPS_SENT_MAX { &[][..] } else { &user.groups };
    let own = own.iter().map(|group| group.as_str());
    let roles = who.role_groups.iter().flat_map(|groups| groups.iter().map(|group| &**group));
    User {
        username: Some(&user.name),
        uid: Some(user.principal.as_str()),
        groups: own.chain(roles).collect(),
    }
}

fn impersonated(wanted: &Wanted) -> User<'_> {
    User {
        username: Some(&wanted.user),
        uid: wanted.uid.as_deref(),
        groups: wanted.groups.iter().map(String::as_str).collect(),
    }
}

fn object_ref(attributes: &Attributes) -> Option<ObjectRef<'_>> {
    match attributes.target() {
        Target::Resource(target) => Some(ObjectRef {
            resource: target.resource(),
            namespace: target.namespace(),
            name: target.name(),
            api_group: target.group(),
            api_version: target.version(),
            subresource: target.subresource(),
        }),
        Target::NonResource(_) => None,
    }
}

fn runs_in_a_container(attributes: &Attributes) -> bool {
    let subresource = match attributes.target() {
        Target::Resource(target) => target.subresource(),
        Target::NonResource(_) => None,
    };
    matches!(subresource, Some("attach" | "exec" | "log" | "portforward"))
}

/// Every value of a parameter of the query, as words.
fn parameters(uri: &str, name: &str) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
    let values: Vec<_> = values.map(|(_, value)| value.escape_debug().to_string()).collect();
    (!values.is_empty()).then(|| values.join(" "))
}

/// What a client wrote, without what is shown to be a token of ours.
fn redacted(uri: &str) -> Cow<'_, str> {
    if !uri.contains(token::PREFIX) {
        return cut(uri);
    }
    let mut parts = uri.split(token::PREFIX);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let secret = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (_, rest) = part.split_at(secret.unwrap_or(part.len()));
        text.push_str(token::PREFIX);
        text.push_str("...");
        text.push_str(rest);
    }
    Cow::Owned(cut(&text).into_owned())
}

fn cut(uri: &str) -> Cow<'_, str> {
    match uri.char_indices().nth(URI_BYTES_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &uri[..end])),
        None => Cow::Borrowed(uri),
    }
}

/// Times beyond what a timestamp holds do not come from a clock.
fn timestamp(at: SystemTime) -> Timestamp {
    Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH)
}
