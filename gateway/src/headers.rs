//! Which header fields cross the gateway.
//!
//! Identity never travels as HTTP headers here (it is in the stream's header), so nothing that a client
//! sends or nominates can touch it; what looks like identity is removed all the same, since the next hop
//! sets such headers. Whatever is not named here passes untouched: service proxies carry arbitrary fields.

use std::net::IpAddr;

use drover_api::headers::fold;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::credential::BEARER_SUBPROTOCOL;

/// Fields that set who a request runs as, or where it came from, by the beginning of their folded name.
const FAMILIES: [&str; 4] = ["impersonate-", "x-remote-", "x-forwarded-", "proxy-"];
/// Single fields of the same kinds, hop-by-hop fields, and credentials that end here.
const DROPPED: [&str; 8] =
    ["authorization", "cookie", "forwarded", "http2-settings", "keep-alive", "te", "via", "x-real-ip"];
/// Fields that frame the message or say where it goes: a client may not nominate them away.
const NOT_NOMINABLE: [&str; 3] = ["content-length", "host", "transfer-encoding"];
/// Connection tokens that are not names of fields.
const CONNECTION_OPTIONS: [&str; 3] = ["close", "keep-alive", "upgrade"];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadersRefused {
    #[error("the Connection header nominates a field that frames the message")]
    Framing,
}

/// A protocol that a request may be upgraded to; a closed list, since bytes after it are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    Spdy,
    WebSocket,
}

impl Upgrade {
    /// The upgrade that a request asks for, if it is one that we carry. HTTP/2 has none.
    pub(crate) fn of(version: Version, headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::UPGRADE).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let asked = version == Version::HTTP_11 && connection_tokens(headers).any(|token| token == "upgrade");
        match value.as_bytes() {
            name if asked && name.eq_ignore_ascii_case(b"websocket") => Some(Self::WebSocket),
            name if asked && name.eq_ignore_ascii_case(b"spdy/3.1") => Some(Self::Spdy),
            _ => None,
        }
    }

    fn value(self) -> HeaderValue {
        match self {
            Self::Spdy => HeaderValue::from_static("SPDY/3.1"),
            Self::WebSocket => HeaderValue::from_static("websocket"),
        }
    }
}

/// Refuses what must not be dropped in silence.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), HeadersRefused> {
    if connection_tokens(headers).any(|token| NOT_NOMINABLE.contains(&token.as_str())) {
        return Err(HeadersRefused::Framing);
    }
    Ok(())
}

/// Makes a client's request fit to leave: strips first, then sets ours.
pub(crate) fn to_upstream(
    request: &mut RequestHeader,
    nominated: &[String],
    upgrade: Option<Upgrade>,
    audit_id: &HeaderValue,
    client: Option<IpAddr>,
) -> pingora::Result<()> {
    let dropped: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| is_dropped(name.as_str()) || nominated.iter().any(|token| token == name.as_str()))
        .cloned()
        .collect();
    for name in &dropped {
        request.remove_header(name);
    }
    request.remove_header(&header::CONNECTION);
    request.remove_header(&header::UPGRADE);
    strip_bearer_subprotocol(request)?;
    if let Some(upgrade) = upgrade {
        request.insert_header(header::CONNECTION, "Upgrade")?;
        request.insert_header(header::UPGRADE, upgrade.value())?;
    }
    if let Some(client) = client {
        request.insert_header(X_FORWARDED_FOR, client.to_string())?;
    }
    request.insert_header(AUDIT_ID, audit_id)
}

/// The fields that `Connection` names, which end at this hop.
pub(crate) fn nominated(headers: &HeaderMap) -> Vec<String> {
    connection_tokens(headers).filter(|token| !CONNECTION_OPTIONS.contains(&token.as_str())).collect()
}

/// Makes a cluster's response fit for a client: cookies of cluster content never reach our hosts.
pub(crate) fn to_client(response: &mut ResponseHeader) -> pingora::Result<()> {
    response.remove_header(&header::SET_COOKIE);
    if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
        // Go drops a Connection header that holds "close", and with it the upgrade.
        response.insert_header(header::CONNECTION, "Upgrade")?;
    }
    Ok(())
}

fn is_dropped(name: &str) -> bool {
    let folded = fold(name);
    DROPPED.contains(&&*folded) || FAMILIES.iter().any(|family| folded.starts_with(family))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> + '_ {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

/// Keeps a bearer token out of the cluster: the subprotocol that carried it ends here.
fn strip_bearer_subprotocol(request: &mut RequestHeader) -> pingora::Result<()> {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let lines: Vec<HeaderValue> = request.headers.get_all(&name).iter().cloned().collect();
    let carries = |line: &HeaderValue| {
        line.as_bytes().windows(BEARER_SUBPROTOCOL.len()).any(|part| part == BEARER_SUBPROTOCOL.as_bytes())
    };
    if !lines.iter().any(carries) {
        return Ok(());
    }
    request.remove_header(&name);
    for line in lines {
        let text = String::from_utf8_lossy(line.as_bytes()).into_owned();
        let kept: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|protocol| !protocol.starts_with(BEARER_SUBPROTOCOL))
            .collect();
        if !kept.is_empty() {
            request.append_header(name.clone(), kept.join(", "))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(lines: &[(&str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/api", None).unwrap();
        for (name, value) in lines {
            request.append_header((*name).to_owned(), *value).unwrap();
        }
        request.set_version(Version::HTTP_11);
        request
    }

    fn crossed(lines: &[(&str, &str)]) -> Vec<String> {
        let mut request = sent(lines);
        let upgrade = Upgrade::of(request.version, &request.headers);
        let nominated = nominated(&request.headers);
        to_upstream(&mut request, &nominated, upgrade, &HeaderValue::from_static("id"), None).unwrap();
        request.remove_header(&AUDIT_ID);
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        request.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
    }

    #[test]
    fn look_alikes_of_identity_and_credentials_never_cross() {
        for name in [
            "Impersonate-User",
            "IMPERSONATE-UID",
            "Impersonate-Extra-a%2fb",
            "Impersonate_User",
            "impersonate%2duser",
            "Impersonate%2DGroup",
            "impersonate%5Fuser",
            "X-Remote-User",
            "x_remote_group",
            "X-Remote-Extra-a",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "Forwarded",
            "X-Real-Ip",
            "Authorization",
            "Cookie",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Keep-Alive",
            "Via",
        ] {
            assert_eq!(crossed(&[(name, "x")]), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn everything_else_crosses_untouched() {
        let lines = [
            ("x-custom", "a"),
            ("x-custom", "b"),
            ("kubectl-command", "kubectl get"),
            ("traceparent", "00-1"),
        ];
        let expected: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(crossed(&lines), expected);
    }

    #[test]
    fn what_connection_nominates_ends_here() {
        assert_eq!(
            crossed(&[("Connection", "close, X-Secret"), ("X-Secret", "x"), ("x-kept", "y")]),
            ["x-kept: y"]
        );
        for name in ["Host", "content-length", "Transfer-Encoding"] {
            assert_eq!(check(&sent(&[("Connection", name)]).headers), Err(HeadersRefused::Framing), "{name}");
        }
    }

    #[test]
    fn an_upgrade_crosses_with_our_own_connection_header() {
        let lines = [("Connection", "X-Secret, Upgrade"), ("Upgrade", "spdy/3.1"), ("X-Secret", "x")];
        assert_eq!(crossed(&lines), ["connection: Upgrade", "upgrade: SPDY/3.1"]);
    }

    #[test]
    fn upgrades_that_we_do_not_carry_become_plain_requests() {
        for lines in [
            vec![("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "x")],
            vec![("Upgrade", "websocket")],
            vec![("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Upgrade", "SPDY/3.1")],
            vec![("Connection", "Upgrade"), ("Upgrade", "websocket, SPDY/3.1")],
        ] {
            assert_eq!(crossed(&lines), Vec::<String>::new(), "{lines:?}");
        }
    }

    #[test]
    fn the_token_in_a_subprotocol_never_crosses() {
        let token = format!("{BEARER_SUBPROTOCOL}c2VjcmV0");
        let lines = [
            ("sec-websocket-protocol", format!("{token}, v5.channel.k8s.io")),
            ("sec-websocket-protocol", token),
        ];
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(crossed(&lines), ["sec-websocket-protocol: v5.channel.k8s.io"]);
    }

    #[test]
    fn spdy_protocol_lines_stay_lines() {
        let lines = [
            ("x-stream-protocol-version", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ];
        assert_eq!(crossed(&lines).len(), 2);
    }
}
