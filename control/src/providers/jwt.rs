//! Issuers of JWTs: whose keys sign them, and whom their claims make them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drover_api::kinds::{self, JwtRule, Keys};
use openidconnect::core::{
    CoreGenderClaim, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{
    Audience, ClaimsVerificationError, ClientId, EmptyAdditionalClaims, IdToken, IssuerUrl, Nonce,
    SignatureVerificationError,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::web::Web;
use super::{Directory, Found, Matches, NotSearched, Person, Unavailable};

/// How far an issuer's clock may be from ours.
pub(crate) const SKEW_MAX: Duration = Duration::from_secs(60);
const KEYS_MAX: usize = 64;
/// Nothing that is signed with what the other side knows as well.
pub(super) const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
];

pub(crate) type Claims = Map<String, Value>;

type Token = IdToken<
    EmptyAdditionalClaims,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtRefused {
    #[error("its audience is not Drover's: ask the issuer for the one that the provider has")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is no JWT with the claims iss, aud, sub, iat and exp")]
    Malformed,
    #[error("it is not valid yet: check the clocks")]
    NotYet,
    #[error("its signature is not by a key of the issuer's")]
    Signature,
}

/// What a JWT says that holds.
#[derive(Debug)]
pub(crate) struct Verified {
    pub claims: Claims,
    pub expires_at: SystemTime,
}

/// What a JWT calls its issuer, whoever wrote it.
pub(crate) fn issuer_of(jwt: &str) -> Option<String> {
    match claims(jwt)?.remove("iss")? {
        Value::String(issuer) => Some(issuer),
        _ => None,
    }
}

pub(super) fn claims(jwt: &str) -> Option<Claims> {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The claims of a JWT, if it is the issuer's, for Drover, and of this time.
pub(crate) fn verify(
    issuer: &kinds::Jwt,
    keys: &CoreJsonWebKeySet,
    jwt: &str,
    now: SystemTime,
) -> Result<Verified, JwtRefused> {
    let token: Token = jwt.parse().map_err(|_| JwtRefused::Malformed)?;
    let id = ClientId::new(issuer.audience.clone());
    let url = IssuerUrl::new(issuer.issuer.clone()).map_err(|_| JwtRefused::Issuer)?;
    let verifier = CoreIdTokenVerifier::new_public_client(id, url, keys.clone())
        .set_allowed_algs(ALGORITHMS)
        // Of Kubernetes, beside the API server's own audience.
        .set_other_audience_verifier_fn(|_: &Audience| true)
        .set_time_fn(move || (now - SKEW_MAX).into());
    let verified = token.claims(&verifier, |_: Option<&Nonce>| Ok(())).map_err(|error| match error {
        ClaimsVerificationError::Expired(_) => JwtRefused::Expired,
        ClaimsVerificationError::InvalidAudience(_) => JwtRefused::Audience,
        ClaimsVerificationError::InvalidIssuer(_) => JwtRefused::Issuer,
        ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::AmbiguousKeyId(_)
            | SignatureVerificationError::CryptoError(_)
            | SignatureVerificationError::DisallowedAlg(_)
            | SignatureVerificationError::InvalidKey(_)
            | SignatureVerificationError::NoMatchingKey
            | SignatureVerificationError::UnsupportedAlg(_),
        ) => JwtRefused::Signature,
        _ => JwtRefused::Malformed,
    })?;
    let expires_at = verified.expiration().into();
    let claims = claims(jwt).ok_or(JwtRefused::Malformed)?;
    let now_s = (now + SKEW_MAX).duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for from in ["iat", "nbf"].iter().filter_map(|name| claims.get(*name)) {
        if from.as_f64().is_none_or(|from| from > now_s as f64) {
            return Err(JwtRefused::NotYet);
        }
    }
    Ok(Verified { claims, expires_at })
}

/// Who the claims are, by the first rule that they match.
pub(crate) fn identity<'r>(rules: &'r [JwtRule], claims: &Claims) -> Option<&'r str> {
    let is = |name: &str, expected: &String| {
        let claim = if name.starts_with('/') { pointed(claims, name) } else { claims.get(name) };
        match claim {
            Some(Value::String(text)) => text == expected,
            Some(Value::Number(number)) => number.to_string() == *expected,
            Some(Value::Bool(bool)) => bool.to_string() == *expected,
            Some(Value::Array(_) | Value::Null | Value::Object(_)) | None => false,
        }
    };
    let matches = |rule: &&JwtRule| {
        !rule.claims.is_empty() && rule.claims.iter().all(|(name, expected)| is(name, expected))
    };
    rules.iter().find(matches).map(|rule| rule.name.as_str())
}

/// What a JSON pointer points at (RFC 6901).
fn pointed<'c>(claims: &'c Claims, pointer: &str) -> Option<&'c Value> {
    let (first, rest) = pointer.strip_prefix('/')?.split_once('/').unwrap_or((&pointer[1..], ""));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    if rest.is_empty() { Some(first) } else { first.pointer(&format!("/{rest}")) }
}

/// An issuer's keys, as they are now.
pub(crate) async fn keys(web: &Web, issuer: &kinds::Jwt) -> Result<CoreJsonWebKeySet, Unavailable> {
    let keys: CoreJsonWebKeySet = match &issuer.keys {
        Keys::Discovery => {
            let url = format!("{}/.well-known/openid-configuration", issuer.issuer.trim_end_matches('/'));
            let discovered: Discovered = web.get(&url, None).await?;
            if discovered.issuer != issuer.issuer {
                return Err(Unavailable(format!("{url} is of {}, another issuer", discovered.issuer)));
            }
            web.get(&discovered.jwks_uri, None).await?
        }
        Keys::Set(set) => serde_json::from_str(set)
            .map_err(|error| Unavailable(format!("the keys are no JWK Set (RFC 7517): {error}")))?,
        Keys::Url(url) => web.get(url, None).await?,
    };
    match keys.keys().len() {
        0 => Err(Unavailable("the issuer has no key that can be used".to_owned())),
        1..=KEYS_MAX => Ok(keys),
        more => Err(Unavailable(format!("the issuer has {more} keys, more than {KEYS_MAX}"))),
    }
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// The identities that an issuer's rules name.
pub(super) struct Jwt {
    issuer: kinds::Jwt,
    web: Web,
}

impl Jwt {
    pub(super) fn new(issuer: kinds::Jwt) -> Result<Self, Unavailable> {
        let web = Web::new(issuer.ca.as_deref())?;
        Ok(Self { issuer, web })
    }
}

#[async_trait]
impl Directory for Jwt {
    async fn find(&self, id: &str, _grant: Option<&str>) -> Result<Found, Unavailable> {
        let named = self.issuer.rules.iter().any(|rule| rule.name == id);
        Ok(named.then(|| person(id)).into())
    }

    async fn search(&self, _text: &str, _max: usize) -> Result<Matches, NotSearched> {
        let whom =
            "an issuer of JWTs has nobody to search for: whom its rules name, they name as NAME:user/RULE";
        Err(NotSearched::NoSearch(whom))
    }

    async fn test(&self, _back: &str) -> Result<(), Unavailable> {
        keys(&self.web, &self.issuer).await.map(drop)
    }
}

/// What a rule names.
pub(crate) fn person(name: &str) -> Person {
    Person { id: name.to_owned(), login: name.to_owned(), display_name: None, groups: BTreeMap::new() }
}

#[cfg(test)]
pub(crate) mod tests;
