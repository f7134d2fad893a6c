//! What a client presents: exactly one credential, from one of the places where clients put it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use drover_api::token::{Presented, Secret};
use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};

/// Kubernetes' WebSocket subprotocol that carries a bearer token (browsers cannot set headers).
pub(crate) const BEARER_SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// Longest credential looked at, in bytes: large OIDC tokens take tens of KiB.
const CREDENTIAL_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialRefused {
    #[error("no credential was presented")]
    Absent,
    #[error("more than one credential was presented")]
    Ambiguous,
    #[error("the credential is not one that Drover knows how to read")]
    Malformed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Of Drover's own.
    Token,
    /// Of another issuer, which control may trust.
    Jwt,
}

/// A credential as it was presented, and the whole of it, from which its proof key follows.
#[derive(Debug)]
pub(crate) struct Credential {
    pub shape: Shape,
    pub presented: Presented,
    pub secret: Secret,
}

/// Reads the one credential of a request.
pub(crate) fn credential(headers: &HeaderMap) -> Result<Credential, CredentialRefused> {
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let subprotocol = subprotocol(headers)?;
    match (authorizations.next(), authorizations.next(), subprotocol) {
        (Some(_), Some(_), _) | (Some(_), None, Some(_)) => Err(CredentialRefused::Ambiguous),
        (Some(value), None, None) => {
            let value = value.to_str().map_err(|_| CredentialRefused::Malformed)?;
            authorization(value)
        }
        (None, _, Some(token)) => present(&token),
        (None, _, None) => Err(CredentialRefused::Absent),
    }
}

fn authorization(value: &str) -> Result<Credential, CredentialRefused> {
    let (scheme, rest) = value.split_once(' ').ok_or(CredentialRefused::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        present(rest.trim_matches(' '))
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic(rest.trim_matches(' '))
    } else {
        Err(CredentialRefused::Malformed)
    }
}

/// Basic authentication: the token's id as the user name, the rest of it, or all of it, as the password.
fn basic(encoded: &str) -> Result<Credential, CredentialRefused> {
    if encoded.len() > CREDENTIAL_BYTES_MAX {
        return Err(CredentialRefused::Malformed);
    }
    let decoded = STANDARD.decode(encoded).map_err(|_| CredentialRefused::Malformed)?;
    let text = std::str::from_utf8(&decoded).map_err(|_| CredentialRefused::Malformed)?;
    let (id, password) = text.split_once(':').ok_or(CredentialRefused::Malformed)?;
    let credential = if password.starts_with("drv_") {
        present(password)?
    } else {
        present(&format!("drv_{id}_{password}"))?
    };
    if credential.presented.id.as_str() == id { Ok(credential) } else { Err(CredentialRefused::Malformed) }
}

fn present(token: &str) -> Result<Credential, CredentialRefused> {
    let (shape, presented) = match Presented::parse(token) {
        Ok(presented) => (Shape::Token, presented),
        Err(_) => (Shape::Jwt, Presented::of_jwt(token).map_err(|_| CredentialRefused::Malformed)?),
    };
    Ok(Credential { shape, presented, secret: Secret::new(token.to_owned()) })
}

/// The token among the WebSocket subprotocols. Kubernetes wants another subprotocol beside it.
fn subprotocol(headers: &HeaderMap) -> Result<Option<String>, CredentialRefused> {
    let (mut token, mut others) = (None, 0);
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let value = value.to_str().map_err(|_| CredentialRefused::Malformed)?;
        for protocol in value.split(',').map(str::trim) {
            let Some(encoded) = protocol.strip_prefix(BEARER_SUBPROTOCOL) else {
                others += 1;
                continue;
            };
            if token.replace(decode(encoded)?).is_some() {
                return Err(CredentialRefused::Ambiguous);
            }
        }
    }
    if token.is_some() && others == 0 { Err(CredentialRefused::Malformed) } else { Ok(token) }
}

fn decode(encoded: &str) -> Result<String, CredentialRefused> {
    if encoded.len() > CREDENTIAL_BYTES_MAX {
        return Err(CredentialRefused::Malformed);
    }
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| CredentialRefused::Malformed)?;
    String::from_utf8(bytes).map_err(|_| CredentialRefused::Malformed)
}

#[cfg(test)]
mod tests {
    use drover_api::token::generate;
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn every_place_that_clients_use_yields_the_same_token() {
        let token = generate();
        let secret = token.secret.expose();
        let password = &secret["drv_".len() + 13..];
        let in_subprotocol =
            format!("{BEARER_SUBPROTOCOL}{}, v5.channel.k8s.io", URL_SAFE_NO_PAD.encode(secret));
        for lines in [
            ("authorization", format!("Bearer {secret}")),
            ("authorization", format!("bearer  {secret}")),
            ("authorization", format!("Basic {}", STANDARD.encode(format!("{}:{password}", token.id)))),
            ("authorization", format!("Basic {}", STANDARD.encode(format!("{}:{secret}", token.id)))),
            ("sec-websocket-protocol", in_subprotocol),
        ] {
            let presented = credential(&headers(&[(lines.0, &lines.1)])).unwrap();
            let presented = presented.presented;
            assert_eq!((presented.id, presented.hash), (token.id.clone(), token.hash), "{lines:?}");
        }
    }

    #[test]
    fn whatever_is_not_exactly_one_credential_is_refused() {
        let secret = generate().secret.expose().to_owned();
        let bearer = format!("Bearer {secret}");
        let alone = format!("{BEARER_SUBPROTOCOL}{}", URL_SAFE_NO_PAD.encode(&secret));
        let beside = format!("{alone}, v5.channel.k8s.io");
        let other_id = format!("Basic {}", STANDARD.encode(format!("aaaaaaaaaaaa:{secret}")));
        let cases: Vec<(Vec<(&'static str, &str)>, CredentialRefused)> = vec![
            (vec![], CredentialRefused::Absent),
            (vec![("sec-websocket-protocol", "v5.channel.k8s.io")], CredentialRefused::Absent),
            (vec![("authorization", "")], CredentialRefused::Malformed),
            (vec![("authorization", "Bearer")], CredentialRefused::Malformed),
            (vec![("authorization", "Bearer ")], CredentialRefused::Malformed),
            (vec![("authorization", "Bearer ,")], CredentialRefused::Malformed),
            (vec![("authorization", &secret)], CredentialRefused::Malformed),
            (vec![("authorization", "Basic Og==")], CredentialRefused::Malformed),
            (vec![("authorization", &other_id)], CredentialRefused::Malformed),
            (vec![("authorization", "Negotiate abc")], CredentialRefused::Malformed),
            (vec![("authorization", &bearer), ("authorization", &bearer)], CredentialRefused::Ambiguous),
            (
                vec![("authorization", &bearer), ("sec-websocket-protocol", &beside)],
                CredentialRefused::Ambiguous,
            ),
            (
                vec![("sec-websocket-protocol", &beside), ("sec-websocket-protocol", &alone)],
                CredentialRefused::Ambiguous,
            ),
            (vec![("sec-websocket-protocol", &alone)], CredentialRefused::Malformed),
        ];
        for (lines, expected) in cases {
            assert_eq!(credential(&headers(&lines)).err(), Some(expected), "{lines:?}");
        }
    }
}
