//! The first use of a JWT of a trusted issuer: from then on gateways know it, as they know tokens.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use drover_api::assertion::proof_signer;
use drover_api::kinds::{self, Object, Provider, Token, TokenKind, TokenScope, User};
use drover_api::rest::{JwtLogin, JwtShown};
use drover_api::status::Status;
use drover_api::token::Presented;
use jiff::Timestamp;
use tracing::info;

use super::field;
use super::login::wait;
use super::tokens::{TOKENS_PER_USER_MAX, seconds};
use crate::attempts::Try;
use crate::issuers::{self, Wanted};
use crate::listener::Client;
use crate::objects::RevokedJwt;
use crate::people;
use crate::providers::jwt::{self, JwtRefused, Verified};
use crate::routes::{Control, Refused};

/// One that lasts longer is looked at from the beginning then: issuers' keys and rules change.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// A JWT that holds, and whose it is by the rules of the provider.
struct Known {
    provider: String,
    issuer: kinds::Jwt,
    identity: String,
    expires_at: SystemTime,
}

pub(super) async fn log_in(
    State(control): State<Arc<Control>>,
    Client(client): Client,
    body: Result<Json<JwtLogin>, JsonRejection>,
) -> Result<Json<JwtShown>, Refused> {
    let Json(JwtLogin { jwt }) = body?;
    let presented = Presented::of_jwt(&jwt);
    let presented =
        presented.map_err(|_| Refused::unauthorized("it is no JWT in the compact form (RFC 7515)"))?;
    // Of this one JWT: a flood of others makes nobody but its own client wait.
    // By the whole of it: forged ones of the same claims make nobody else's wait.
    let who = Try::new(&jwt, client);
    wait(&control, presented.id.as_str(), &who)?;
    let known = match known(&control, &jwt, SystemTime::now()).await {
        Ok(known) => known,
        Err(refused) => {
            if refused.code().is_client_error() {
                control.attempts.failed(&who, Instant::now());
            }
            info!(problem = refused.message(), "JWT refused");
            return Err(refused);
        }
    };
    let (user, token) = keep(&control, known, &presented, &jwt).await?;
    info!(user = user.name, token = %token.id, "login by JWT");
    Ok(Json(JwtShown { id: token.id, user: user.name, expires_at: token.expires_at }))
}

/// Which provider trusts the JWT, and who it is there. Issuers may share a name: then their keys decide.
async fn known(control: &Control, jwt: &str, now: SystemTime) -> Result<Known, Refused> {
    let named = jwt::issuer_of(jwt).ok_or_else(|| Refused::unauthorized("the JWT names no issuer"))?;
    let trusted = issuers::all(control).await?.into_iter().filter(|(_, issuer)| issuer.issuer == named);
    let mut refused = Refused::unauthorized("no provider trusts the JWT's issuer");
    for (provider, issuer) in trusted {
        let Verified { claims, expires_at } = match verified(control, &provider, &issuer, jwt, now).await {
            Ok(verified) => verified,
            Err(error) => {
                refused = error;
                continue;
            }
        };
        let Some(identity) = jwt::identity(&issuer.rules, &claims).map(ToOwned::to_owned) else {
            let message = format!("no rule of the provider {provider:?} matches the JWT's claims");
            return Err(Refused::unauthorized(&message));
        };
        return Ok(Known { provider, issuer, identity, expires_at });
    }
    Err(refused)
}

async fn verified(
    control: &Control,
    provider: &str,
    issuer: &kinds::Jwt,
    jwt: &str,
    now: SystemTime,
) -> Result<Verified, Refused> {
    let mut verified = Err(JwtRefused::Signature);
    for wanted in [Wanted::Known, Wanted::Newer] {
        let keys = control.issuers.keys(provider, issuer, wanted).await.map_err(|error| {
            info!(provider, %error, "an issuer's keys are not at hand");
            let message = format!("the keys of the provider {provider:?} are not at hand: try again");
            Refused::of(Status::failure(503, "ServiceUnavailable", message))
        })?;
        verified = jwt::verify(issuer, &keys, jwt, now);
        // Perhaps its key is newer than those that are here.
        if !matches!(verified, Err(JwtRefused::Signature)) {
            break;
        }
    }
    verified.map_err(|refused| Refused::unauthorized(&format!("the JWT does not hold: {refused}")))
}

/// The identity's user and token: the one that is there, where the JWT was shown before.
async fn keep(
    control: &Control,
    known: Known,
    presented: &Presented,
    jwt: &str,
) -> Result<(User, Token), Refused> {
    let _writing = control.begin_write().await?;
    let provider = control.objects.get::<Provider>(&known.provider).await?.map(|stored| stored.object.spec);
    // It may have changed while its keys were asked for.
    let same = kinds::Directory::Jwt(known.issuer);
    let provider = provider.filter(|provider| !provider.disabled && provider.directory == same);
    let Some(provider) = provider else {
        let message = "the provider has just changed: try again";
        return Err(Refused::of(Status::failure(503, "ServiceUnavailable", message)));
    };
    let person = jwt::person(&known.identity);
    let before = control.snapshots.state().user(&people::principal(&provider.name, &person.id));
    let user = people::take_in(control, &provider, before, &person).await?.spec;
    if user.disabled {
        return Err(Refused::unauthorized("the user is disabled in Drover"));
    }
    if control.objects.get::<RevokedJwt>(presented.id.as_str()).await?.is_some() {
        return Err(Refused::unauthorized("the JWT was revoked: ask the issuer for another"));
    }
    let now = SystemTime::now();
    let expires_at = known.expires_at.min(now + LIFETIME_MAX);
    let token = Token {
        id: presented.id.clone(),
        hash: presented.hash,
        proof_key: proof_signer(jwt.as_bytes()).public(),
        user: user.principal.clone(),
        kind: TokenKind::Jwt,
        scope: TokenScope::All,
        expires_at: field("exp", seconds(expires_at))?,
        idle_s: None,
        session: None,
        made_by: None,
        jwt_ends_at: Some(field("exp", seconds(known.expires_at))?),
    };
    match control.objects.get::<Token>(presented.id.as_str()).await?.map(|stored| stored.object) {
        Some(Object { spec: before, .. }) if before.hash != token.hash => {
            Err(Refused::unauthorized("another token has the JWT's id: ask the issuer for another"))
        }
        Some(Object { spec: before, .. })
            if before.user == token.user && SystemTime::from(before.expires_at) > now =>
        {
            Ok((user, before))
        }
        Some(before) => {
            control.objects.update(before.metadata.revision, &token, None).await?;
            Ok((user, token))
        }
        None => {
            if control.snapshots.state().lasting_tokens_of(&user.principal, Timestamp::now())
                >= TOKENS_PER_USER_MAX
            {
                let message = format!("the identity has {TOKENS_PER_USER_MAX} JWTs that have not expired");
                return Err(Refused::of(Status::failure(429, "TooManyRequests", message)));
            }
            control.objects.create(&token, None).await?;
            Ok((user, token))
        }
    }
}

#[cfg(test)]
mod tests;
