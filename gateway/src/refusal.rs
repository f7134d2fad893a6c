//! The one place that picks status codes: every refusal as a Kubernetes Status with a Warning header.
//!
//! What clients make of a code decides it (client-go re-sends whatever carries Retry-After, even a POST):
//! Retry-After goes out only where surely nothing was delivered and waiting a little is likely to help;
//! 502 says "perhaps delivered". A Warning goes out where kubectl drops a Status's text, which is in
//! discovery; elsewhere it would say everything twice.

use std::time::Duration;

use bytes::Bytes;
use drover_policy::Attributes;
use drover_tunnel::StreamRefusal;
use http::{HeaderValue, StatusCode, header};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use pingora::http::ResponseHeader;

use crate::authenticate::AuthenticationRefused;
use crate::credential::CredentialRefused;
use crate::headers::HeadersRefused;
use crate::impersonate::ImpersonationMalformed;
use crate::listener::head::HeadRefused;
use crate::route::{RouteRefused, in_cluster};
use crate::shares::Full;

mod forbidden;
mod words;

/// Longest Warning text, in bytes: a header must stay one that every client takes.
const WARNING_BYTES_MAX: usize = 1024;

/// Why a request is not answered by its cluster.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Token, user or rule went while it ran.
    AccessEnded,
    Agent(StreamRefusal),
    AuditFull,
    Authentication(AuthenticationRefused),
    BodySlow,
    BodyTooLarge,
    ClusterUnknown,
    ControlUnreachable,
    /// Too many requests run at once: the cluster's, or the user's there.
    Busy(Full),
    Credential(CredentialRefused),
    Head(HeadRefused),
    Headers(HeadersRefused),
    IdentityTooLarge,
    /// A part of whom the client wants to act as, to which the caller has no right.
    Impersonation {
        user: String,
        part: String,
    },
    ImpersonationMalformed(ImpersonationMalformed),
    Jwt(JwtRefused),
    Internal,
    /// The stream broke after the request may have reached the API server.
    Lost,
    MethodUnknown,
    Overloaded,
    Path(String),
    Policy {
        user: String,
        refusal: drover_policy::Refusal,
    },
    Route(RouteRefused),
    SessionDisconnected,
    SessionReconnecting,
    SnapshotAbsent,
    SnapshotStale,
    /// The agent answered something that is not HTTP.
    Tunnel,
    TokenScope,
    /// The user is in so many groups, and the cluster lists none to send.
    TooManyGroups(usize),
    /// Control has not signed for the token.
    Unasserted,
    /// The API server did not answer in time.
    UpstreamTimeout {
        idempotent: bool,
    },
}

/// A refusal as it goes out.
#[derive(Clone, Debug)]
struct Rendered {
    code: StatusCode,
    /// Kubernetes' machine-readable reason.
    reason: &'static str,
    /// Ours, in `details.causes` and in metrics.
    cause: &'static str,
    message: String,
    retry_after: Option<Duration>,
    /// What the refusal is about, other than the cluster.
    about: Option<About>,
}

/// An object or a kind of the cluster's, as `details` names it.
#[derive(Clone, Debug)]
struct About {
    group: String,
    kind: String,
    name: String,
}

/// Why a JWT's first use was no login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwtRefused {
    /// By control, which says why.
    Refused(String),
    /// Control could not be asked, or its answer did not come in time.
    Unanswered,
    /// By control, which has too many of the identity's, or too many questions.
    Full(String),
}

impl Refusal {
    /// The closed label of metrics and audit records.
    pub(crate) fn cause(&self) -> &'static str {
        self.render(None).cause
    }

    /// What was asked of the cluster, where the policy refused it.
    pub(crate) fn attributes(&self) -> Option<&Attributes> {
        let Self::Policy { refusal, .. } = self else { return None };
        refusal.attributes()
    }

    pub(crate) fn code(&self) -> StatusCode {
        self.render(None).code
    }

    /// Header and body of the answer to a request for `target` in `cluster`, which `audit_id` identifies.
    pub(crate) fn response(
        &self,
        cluster: Option<&str>,
        target: &str,
        audit_id: &str,
    ) -> pingora::Result<(ResponseHeader, Bytes)> {
        let rendered = self.render(cluster);
        let body = rendered.body(cluster);
        let mut response = ResponseHeader::build(rendered.code, Some(9))?;
        for (name, value) in rendered.headers(audit_id, body.len()) {
            response.insert_header(name, value)?;
        }
        if is_discovery(target) {
            response.insert_header(header::WARNING, warning(&rendered.message))?;
        }
        Ok((response, body))
    }

    /// The whole answer as HTTP/1.1 bytes, for what was refused before there was a request. Ends the connection.
    pub(crate) fn wire(&self, audit_id: &str) -> Bytes {
        let rendered = self.render(None);
        let body = rendered.body(None);
        let code = rendered.code;
        let mut text =
            format!("HTTP/1.1 {} {}\r\n", code.as_u16(), code.canonical_reason().unwrap_or("Refused"))
                .into_bytes();
        for (name, value) in rendered.headers(audit_id, body.len()) {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"connection: close\r\n\r\n");
        text.extend_from_slice(&body);
        Bytes::from(text)
    }
}

fn rendered(code: u16, reason: &'static str, cause: &'static str, message: impl ToString) -> Rendered {
    let code = StatusCode::from_u16(code).expect("the codes above are three digits");
    Rendered { code, reason, cause, message: message.to_string(), retry_after: None, about: None }
}

impl Rendered {
    fn body(&self, cluster: Option<&str>) -> Bytes {
        let cause = StatusCause {
            reason: Some(self.cause.to_owned()),
            message: Some(self.message.clone()),
            ..StatusCause::default()
        };
        let cluster = cluster.map(|name| About {
            group: String::new(),
            kind: "clusters".to_owned(),
            name: name.to_owned(),
        });
        let (mut group, mut kind, mut name) = (None, None, None);
        if let Some(about) = self.about.clone().or(cluster) {
            let given = |text: String| Some(text).filter(|text| !text.is_empty());
            (group, kind, name) = (given(about.group), given(about.kind), given(about.name));
        }
        let details = StatusDetails {
            group,
            kind,
            name,
            causes: Some(vec![cause]),
            retry_after_seconds: self.retry_after.map(|after| seconds(after) as i32),
            ..StatusDetails::default()
        };
        let status = Status {
            code: Some(i32::from(self.code.as_u16())),
            details: Some(details),
            message: Some(self.message.clone()),
            reason: Some(self.reason.to_owned()),
            status: Some("Failure".to_owned()),
            ..Status::default()
        };
        Bytes::from(serde_json::to_vec(&status).expect("a Status is plain data"))
    }

    fn headers(&self, audit_id: &str, length: usize) -> Vec<(header::HeaderName, HeaderValue)> {
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CONTENT_LENGTH, HeaderValue::from(length)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        if let Ok(audit_id) = HeaderValue::from_str(audit_id) {
            headers.push((header::HeaderName::from_static("audit-id"), audit_id));
        }
        if self.code == StatusCode::UNAUTHORIZED {
            headers
                .push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\"")));
        }
        headers
            .extend(self.retry_after.map(|after| (header::RETRY_AFTER, HeaderValue::from(seconds(after)))));
        headers
    }
}

/// Whole seconds, rounded up: zero would ask for a retry at once.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().ceil() as u64).unwrap_or(u32::MAX).max(1)
}

/// Whether a target is one that clients find out by what a cluster serves, rather than an object.
fn is_discovery(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let path = in_cluster(path).map_or(path, |(_, path)| path);
    let parts = path.trim_matches('/').split('/');
    match parts.clone().next() {
        Some("api") => parts.count() <= 2,
        Some("apis") => parts.count() <= 3,
        Some("openapi" | "version") => true,
        Some(_) | None => false,
    }
}

/// `299 drover "text"` (RFC 7234 section 5.5): kubectl prints the text, once for equal texts.
fn warning(message: &str) -> HeaderValue {
    let mut text = String::from("299 drover \"");
    for character in message.chars() {
        if text.len() >= WARNING_BYTES_MAX {
            break;
        }
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            ' '..='~' => text.push(character),
            _ => text.push('?'),
        }
    }
    text.push('"');
    HeaderValue::from_str(&text).expect("only printable ASCII was pushed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_goes_out_where_kubectl_drops_the_status() {
        for (target, expected) in [
            ("/api", true),
            ("/k8s/clusters/one/api/v1?timeout=32s", true),
            ("/k8s/clusters/one/apis/apps/v1", true),
            ("/openapi/v3", true),
            ("/k8s/clusters/one/version", true),
            ("/api/v1/pods", false),
            ("/k8s/clusters/one/apis/apps/v1/namespaces/web/deployments?watch=true", false),
        ] {
            let (response, _) = Refusal::Lost.response(Some("one"), target, "id").unwrap();
            assert_eq!(response.headers.contains_key(header::WARNING), expected, "{target}");
        }
    }

    #[test]
    fn only_what_was_surely_not_delivered_may_be_sent_again() {
        for (refusal, code, again) in [
            (Refusal::AuditFull, 429, true),
            (Refusal::Lost, 502, false),
            (Refusal::Busy(Full::Cluster), 429, true),
            (Refusal::Busy(Full::User), 429, true),
            (Refusal::Overloaded, 503, true),
            (Refusal::SessionDisconnected, 503, false),
            (Refusal::SessionReconnecting, 503, true),
            (Refusal::SnapshotStale, 503, false),
            (Refusal::Tunnel, 502, false),
            (Refusal::Unasserted, 503, true),
            (Refusal::UpstreamTimeout { idempotent: false }, 502, false),
            (Refusal::UpstreamTimeout { idempotent: true }, 504, false),
        ] {
            let (response, _) = refusal.response(Some("one"), "/api", "id").unwrap();
            let found = (response.status.as_u16(), response.headers.contains_key(header::RETRY_AFTER));
            assert_eq!(found, (code, again), "{refusal:?}");
        }
    }

    #[test]
    fn a_status_names_the_cluster_and_the_cause() {
        let (_, body) = Refusal::Lost.response(Some("one"), "/api", "id").unwrap();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["details"]["kind"], "clusters");
        assert_eq!(status["details"]["name"], "one");
        assert_eq!(status["details"]["causes"][0]["reason"], "TunnelLost");
        assert!(status["message"].as_str().unwrap().contains("cluster \"one\""), "{status}");
    }

    #[test]
    fn a_warning_stays_one_header_line() {
        let long = "\"\\\r\nx".repeat(WARNING_BYTES_MAX);
        let value = warning(&long);
        let text = value.to_str().unwrap();
        assert!(
            text.starts_with("299 drover \"\\\"\\\\??x") && text.len() < WARNING_BYTES_MAX + 32,
            "{text}"
        );
    }
}
