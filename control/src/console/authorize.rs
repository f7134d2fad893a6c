//! Logins of a program on the browser's own machine (RFC 8252): it sends the browser here, and gets a code at a port of
//! its own.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use drover_api::rest::CLIENT_ID;
use serde::Deserialize;

use super::{DEVICE, go, problem};
use crate::devices::Loopback;
use crate::listener::Client;
use crate::routes::Control;

/// Of S256: 32 bytes in base64url.
const CHALLENGE_CHARS: usize = 43;
const STATE_BYTES_MAX: usize = 256;

/// RFC 6749, 4.1.1, and RFC 7636, 4.3.
#[derive(Deserialize)]
pub(super) struct Request {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
}

pub(super) async fn authorize(
    State(control): State<Arc<Control>>,
    Client(client): Client,
    request: Result<Query<Request>, QueryRejection>,
) -> Response {
    // Nobody is sent on from here with what is not sound: not to a place that somebody else has named.
    let request = request.ok().map(|Query(request)| request).filter(is_sound);
    let Some(request) = request else {
        let text = "The program asked for a login in a way that is not known here: is it of another version?";
        return problem(StatusCode::BAD_REQUEST, "That is no login", text);
    };
    let Request { redirect_uri, state, code_challenge: challenge, .. } = request;
    let loopback = Loopback { redirect_uri, state, challenge };
    match control.devices.begin(client, Some(loopback), Instant::now()) {
        Some(begun) => go(&format!("{DEVICE}?user_code={}", begun.user_code)),
        None => {
            let text = "Too many logins wait to be granted: try again in some minutes.";
            problem(StatusCode::TOO_MANY_REQUESTS, "Too many logins", text)
        }
    }
}

fn is_sound(request: &Request) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    request.response_type == "code"
        && request.client_id == CLIENT_ID
        && request.code_challenge_method == "S256"
        && request.code_challenge.len() == CHALLENGE_CHARS
        && request.code_challenge.bytes().all(base64url)
        && request.state.len() <= STATE_BYTES_MAX
        && is_loopback(&request.redirect_uri)
}

/// `http://127.0.0.1:PORT/` or `http://[::1]:PORT/`, and nothing else: a name could lead elsewhere.
fn is_loopback(uri: &str) -> bool {
    let port = uri.strip_prefix("http://127.0.0.1:").or_else(|| uri.strip_prefix("http://[::1]:"));
    let port = port.and_then(|rest| rest.strip_suffix('/'));
    port.is_some_and(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_brought_to_this_machine_only() {
        for uri in ["http://127.0.0.1:4711/", "http://[::1]:1/", "http://127.0.0.1:65535/"] {
            assert!(is_loopback(uri), "{uri}");
        }
        for uri in [
            "",
            "http://127.0.0.1:4711",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:+1/",
            "http://127.0.0.1/",
            "https://127.0.0.1:4711/",
            "http://localhost:4711/",
            "http://127.0.0.1:4711/x",
            "http://127.0.0.1:4711/?x=",
            "http://127.0.0.1:@evil.test/",
            "http://127.0.0.1:4711@evil.test/",
            "http://127.0.0.1.evil.test:1/",
            "http://evil.test:4711/",
            "javascript:alert(1)//:1/",
        ] {
            assert!(!is_loopback(uri), "{uri}");
        }
    }

    #[test]
    fn what_is_not_the_code_flow_with_pkce_is_no_login() {
        let sound = || Request {
            response_type: "code".into(),
            client_id: CLIENT_ID.into(),
            redirect_uri: "http://127.0.0.1:4711/".into(),
            state: "s".into(),
            code_challenge: "a".repeat(CHALLENGE_CHARS),
            code_challenge_method: "S256".into(),
        };
        assert!(is_sound(&sound()));
        for unsound in [
            Request { response_type: "token".into(), ..sound() },
            Request { client_id: "other".into(), ..sound() },
            Request { redirect_uri: "https://evil.test/".into(), ..sound() },
            Request { state: "s".repeat(STATE_BYTES_MAX + 1), ..sound() },
            Request { code_challenge: String::new(), ..sound() },
            Request { code_challenge: "=".repeat(CHALLENGE_CHARS), ..sound() },
            Request { code_challenge_method: "plain".into(), ..sound() },
        ] {
            assert!(!is_sound(&unsound));
        }
    }
}
