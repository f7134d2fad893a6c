//! What each refusal says: its code, Kubernetes' reason, our cause, and words for people.

use std::time::Duration;

use drover_api::identity::GROUPS_SENT_MAX;
use drover_tunnel::{Delivered, StreamRefusal};

use super::{JwtRefused, Refusal, Rendered, forbidden, rendered};
use crate::authenticate::AuthenticationRefused;
use crate::credential::CredentialRefused;
use crate::headers::HeadersRefused;
#[cfg(test)]
use crate::impersonate::ImpersonationMalformed;
use crate::listener::head::HeadRefused;
use crate::route::RouteRefused;
use crate::shares::Full;

/// How soon a client may try again where an agent is expected back within seconds.
const RETRY_AFTER_RECONNECT: Duration = Duration::from_secs(1);
/// How soon a client may try again where a queue is full.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(2);

impl Refusal {
    pub(super) fn render(&self, cluster: Option<&str>) -> Rendered {
        let named = cluster.map_or_else(|| "the cluster".to_owned(), |name| format!("cluster {name:?}"));
        match self {
            Self::AccessEnded => rendered(
                403,
                "Forbidden",
                "AccessEnded",
                "the right to this request was taken away while it ran",
            ),
            Self::Agent(refusal) => agent(refusal, &named),
            Self::AuditFull => Rendered {
                retry_after: Some(RETRY_AFTER_FULL),
                ..rendered(
                    429,
                    "TooManyRequests",
                    "AuditFull",
                    "the gateway's audit queue is full, and a change must be recorded: try again",
                )
            },
            Self::Authentication(refused) => match refused {
                AuthenticationRefused::Expired => unauthorized("TokenExpired", refused),
                AuthenticationRefused::Unknown => unauthorized("TokenUnknown", refused),
                AuthenticationRefused::UserDisabled => unauthorized("UserDisabled", refused),
            },
            Self::BodySlow => {
                rendered(408, "Timeout", "BodySlow", "the request's body did not arrive in time")
            }
            Self::BodyTooLarge => rendered(
                413,
                "RequestEntityTooLarge",
                "BodyTooLarge",
                "the request's body is larger than 256 KiB",
            ),
            Self::Busy(Full::Cluster) => Rendered {
                retry_after: Some(RETRY_AFTER_RECONNECT),
                ..rendered(
                    429,
                    "TooManyRequests",
                    "ClusterBusy",
                    format!("too many requests run in {named} at once"),
                )
            },
            Self::Busy(Full::User) => Rendered {
                retry_after: Some(RETRY_AFTER_RECONNECT),
                ..rendered(
                    429,
                    "TooManyRequests",
                    "UserBusy",
                    format!("too many requests of the user run in {named} at once"),
                )
            },
            Self::Jwt(JwtRefused::Refused(message)) => rendered(401, "Unauthorized", "JwtRefused", message),
            Self::Jwt(JwtRefused::Full(message)) => Rendered {
                retry_after: Some(RETRY_AFTER_FULL),
                ..rendered(429, "TooManyRequests", "JwtsFull", message)
            },
            Self::Jwt(JwtRefused::Unanswered) => Rendered {
                retry_after: Some(RETRY_AFTER_FULL),
                ..rendered(
                    503,
                    "ServiceUnavailable",
                    "JwtUnanswered",
                    "control does not answer, and the JWT was not used before: those that were go on",
                )
            },
            Self::ControlUnreachable => rendered(
                503,
                "ServiceUnavailable",
                "ControlUnreachable",
                "control cannot be reached: clusters are served, and nothing can be changed until it is back",
            ),
            Self::ClusterUnknown => rendered(
                404,
                "NotFound",
                "ClusterUnknown",
                format!(
                    "clusters {} not found: check the name in the kubeconfig's server",
                    cluster.map_or_else(String::new, |name| format!("{name:?}"))
                ),
            ),
            Self::Credential(refused) => match refused {
                CredentialRefused::Absent => unauthorized("CredentialAbsent", refused),
                CredentialRefused::Ambiguous => unauthorized("CredentialAmbiguous", refused),
                CredentialRefused::Malformed => unauthorized("CredentialMalformed", refused),
            },
            Self::Head(refused) => match refused {
                HeadRefused::Malformed => rendered(400, "BadRequest", "HeadMalformed", refused),
                HeadRefused::MethodConnect => rendered(405, "MethodNotAllowed", "MethodConnect", refused),
                HeadRefused::Slow => rendered(408, "Timeout", "HeadSlow", refused),
                HeadRefused::TargetTooLong => rendered(414, "RequestURITooLong", "TargetTooLong", refused),
                HeadRefused::TooLarge => {
                    rendered(431, "RequestHeaderFieldsTooLarge", "HeadTooLarge", refused)
                }
            },
            Self::Headers(refused) => match refused {
                HeadersRefused::Framing => rendered(400, "BadRequest", "ConnectionNominatesFraming", refused),
            },
            Self::IdentityTooLarge => rendered(
                403,
                "Forbidden",
                "IdentityTooLarge",
                "the user has a name that cannot be sent to a cluster",
            ),
            Self::Impersonation { user, part } => rendered(
                403,
                "Forbidden",
                "Impersonation",
                format!(
                    "{user:?} may not act as {part} in {named}: it takes a role with the verb impersonate"
                ),
            ),
            Self::ImpersonationMalformed(refused) => {
                rendered(400, "BadRequest", "ImpersonationMalformed", refused)
            }
            Self::Internal => rendered(500, "InternalError", "Internal", "the gateway failed: see its log"),
            Self::Lost => rendered(
                502,
                "InternalError",
                "TunnelLost",
                format!(
                    "the tunnel to {named} broke after the request was sent: it may or may not have been carried out"
                ),
            ),
            Self::MethodUnknown => rendered(
                405,
                "MethodNotAllowed",
                "MethodUnknown",
                "the request's method means nothing on this path to a Kubernetes API server",
            ),
            Self::Overloaded => Rendered {
                retry_after: Some(RETRY_AFTER_FULL),
                ..rendered(
                    503,
                    "ServiceUnavailable",
                    "Overloaded",
                    format!("{named} has too many requests in flight: try again"),
                )
            },
            Self::Path(problem) => rendered(
                400,
                "BadRequest",
                "PathNotCanonical",
                format!("the request's path is refused: {problem}"),
            ),
            Self::Policy { user, refusal } => forbidden::forbidden(user, refusal, &named),
            Self::Route(refused) => match refused {
                RouteRefused::HostUnknown => rendered(421, "MisdirectedRequest", "HostUnknown", refused),
                RouteRefused::PageUnknown => rendered(404, "NotFound", "PageUnknown", refused),
            },
            Self::SessionDisconnected => rendered(
                503,
                "ServiceUnavailable",
                "SessionDisconnected",
                format!("{named} is not connected: its agent has no tunnel to this gateway"),
            ),
            Self::SessionReconnecting => Rendered {
                retry_after: Some(RETRY_AFTER_RECONNECT),
                ..rendered(
                    503,
                    "ServiceUnavailable",
                    "SessionReconnecting",
                    format!("{named} is reconnecting: try again"),
                )
            },
            Self::SnapshotAbsent => rendered(
                503,
                "ServiceUnavailable",
                "SnapshotAbsent",
                "this gateway has no valid snapshot yet",
            ),
            Self::SnapshotStale => rendered(
                503,
                "ServiceUnavailable",
                "SnapshotStale",
                "this gateway's snapshot is too old to decide by: it lost its control service",
            ),
            Self::Tunnel => rendered(
                502,
                "InternalError",
                "TunnelProtocol",
                format!("the agent of {named} answered what is not HTTP"),
            ),
            Self::TokenScope => {
                rendered(403, "Forbidden", "TokenScope", format!("the token is not for {named}"))
            }
            Self::TooManyGroups(count) => rendered(
                403,
                "Forbidden",
                "TooManyGroups",
                format!(
                    "the user is in {count} groups, more than the {GROUPS_SENT_MAX} that are sent to a cluster, and {named} lists none \
                     to send in their place: its administrator sets groups_listed"
                ),
            ),
            Self::Unasserted => Rendered {
                retry_after: Some(RETRY_AFTER_RECONNECT),
                ..rendered(
                    503,
                    "ServiceUnavailable",
                    "Unasserted",
                    "control has not signed for this token yet",
                )
            },
            Self::UpstreamTimeout { idempotent: true } => rendered(
                504,
                "Timeout",
                "UpstreamTimeout",
                format!("the API server of {named} did not answer in time"),
            ),
            Self::UpstreamTimeout { idempotent: false } => rendered(
                502,
                "InternalError",
                "UpstreamTimeout",
                format!(
                    "the API server of {named} did not answer in time: the request may or may not have been carried out"
                ),
            ),
        }
    }
}

fn unauthorized(cause: &'static str, message: impl ToString) -> Rendered {
    rendered(401, "Unauthorized", cause, message)
}

/// What the agent refused: only what surely was not delivered may be tried again.
fn agent(refusal: &StreamRefusal, named: &str) -> Rendered {
    let message = format!("the agent of {named} refused the request: {}", refusal.message);
    match refusal.delivered {
        Delivered::No => Rendered {
            retry_after: refusal.retry_after,
            ..rendered(503, "ServiceUnavailable", refusal.code.as_str(), message)
        },
        Delivered::Maybe => rendered(502, "InternalError", refusal.code.as_str(), message),
    }
}

#[cfg(test)]
mod tests {
    use drover_policy::{Attributes, ClusterId, Refusal as PolicyRefusal};
    use drover_tunnel::RefusalCode;

    use super::*;

    /// One of each.
    fn every() -> Vec<Refusal> {
        use {AuthenticationRefused as A, CredentialRefused as C, HeadRefused as H};
        let attributes = || Box::new(Attributes::parse("GET", "/api", None).unwrap());
        let policy = |refusal| Refusal::Policy { user: "zoe".to_owned(), refusal };
        let agent = |code, delivered| {
            Refusal::Agent(StreamRefusal { code, delivered, retry_after: None, message: "m".to_owned() })
        };
        vec![
            agent(RefusalCode::ClusterNotReady, Delivered::No),
            agent(RefusalCode::ClusterUnreachable, Delivered::No),
            agent(RefusalCode::IdentityMalformed, Delivered::No),
            agent(RefusalCode::IdentityMissing, Delivered::No),
            agent(RefusalCode::IdentityRefused, Delivered::No),
            Refusal::AccessEnded,
            Refusal::AuditFull,
            Refusal::Authentication(A::Expired),
            Refusal::Authentication(A::Unknown),
            Refusal::Authentication(A::UserDisabled),
            Refusal::BodySlow,
            Refusal::BodyTooLarge,
            Refusal::ClusterUnknown,
            Refusal::ControlUnreachable,
            Refusal::Credential(C::Absent),
            Refusal::Credential(C::Ambiguous),
            Refusal::Credential(C::Malformed),
            Refusal::Head(H::Malformed),
            Refusal::Head(H::MethodConnect),
            Refusal::Head(H::Slow),
            Refusal::Head(H::TargetTooLong),
            Refusal::Head(H::TooLarge),
            Refusal::Headers(HeadersRefused::Framing),
            Refusal::Impersonation { user: "zoe".to_owned(), part: "user \"yan\"".to_owned() },
            Refusal::ImpersonationMalformed(ImpersonationMalformed::UserAbsent),
            Refusal::IdentityTooLarge,
            Refusal::Jwt(JwtRefused::Refused("m".to_owned())),
            Refusal::Jwt(JwtRefused::Full("m".to_owned())),
            Refusal::Jwt(JwtRefused::Unanswered),
            Refusal::Internal,
            Refusal::Lost,
            Refusal::MethodUnknown,
            Refusal::Busy(Full::Cluster),
            Refusal::Busy(Full::User),
            Refusal::Overloaded,
            Refusal::Path("p".to_owned()),
            policy(PolicyRefusal::ClusterUnknown(ClusterId::parse("c-1").unwrap())),
            policy(PolicyRefusal::Denied(attributes())),
            policy(PolicyRefusal::NoRole(attributes())),
            policy(PolicyRefusal::NotPermitted(attributes())),
            policy(PolicyRefusal::PolicyExpired),
            Refusal::Route(RouteRefused::HostUnknown),
            Refusal::Route(RouteRefused::PageUnknown),
            Refusal::SessionDisconnected,
            Refusal::SessionReconnecting,
            Refusal::SnapshotAbsent,
            Refusal::SnapshotStale,
            Refusal::TokenScope,
            Refusal::TooManyGroups(1000),
            Refusal::Tunnel,
            Refusal::Unasserted,
            Refusal::UpstreamTimeout { idempotent: false },
            Refusal::UpstreamTimeout { idempotent: true },
        ]
    }

    #[test]
    fn the_page_of_errors_has_every_cause_with_its_code() {
        let page = include_str!("../../../docs/errors.md");
        for refusal in every() {
            let Rendered { code, cause, .. } = refusal.render(None);
            let row = page.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{cause}`")));
            let codes = row.and_then(|row| row.split('|').nth(2)).unwrap_or_default();
            assert!(codes.contains(code.as_str()), "{cause} {code}: {row:?}");
        }
    }
}
