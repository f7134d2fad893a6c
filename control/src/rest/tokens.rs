//! Tokens: everybody makes and revokes their own; for others it takes a rule.

use std::time::{Duration, SystemTime};

use drover_api::kinds::{Kind, Token, TokenKind, TokenScope, User};
use drover_api::rest::{CreateToken, Created};
use drover_api::status::Status;
use drover_api::token;
use jiff::Timestamp;

use super::caller::Caller;
use super::{Writes, field};
use crate::placed::Place;
use crate::routes::{Control, Refused};

const DAY: u64 = 24 * 3600;
/// Tokens of one user: a loop in a script is noticed before the store is full of them.
const TOKENS_PER_USER_MAX: usize = 1000;

/// How long a token of a kind lasts: usually, and at most.
fn lifetimes(kind: TokenKind) -> (u64, u64) {
    match kind {
        TokenKind::Bot => (90 * DAY, 365 * DAY),
        TokenKind::Kubeconfig => (30 * DAY, 90 * DAY),
        TokenKind::Login => (DAY / 2, DAY / 2),
    }
}

/// A token of a user's, with the text that is shown once.
pub(super) async fn make(
    control: &Control,
    user: &User,
    kind: TokenKind,
    scope: TokenScope,
    lifetime_s: Option<u64>,
    now: SystemTime,
) -> Result<Created<Token>, Refused> {
    let (usual, max) = lifetimes(kind);
    let lifetime_s = lifetime_s.unwrap_or(usual);
    if !(1..=max).contains(&lifetime_s) {
        return Err(Refused::of(Status::invalid("lifetime_s", format!("must be 1 to {max} for this kind"))));
    }
    if control.snapshots.state().tokens_of(&user.principal) >= TOKENS_PER_USER_MAX {
        let message = format!("the user has {TOKENS_PER_USER_MAX} tokens: revoke some");
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    }
    let generated = token::generate();
    let expires_at = field("lifetime_s", seconds(now + Duration::from_secs(lifetime_s)))?;
    let user = user.principal.clone();
    let spec = Token {
        id: generated.id,
        hash: generated.hash,
        proof_key: generated.proof_key,
        user,
        kind,
        scope,
        expires_at,
    };
    let object = control.objects.create(&spec, None).await?;
    Ok(Created { object, secret: Some(generated.secret.expose().to_owned()) })
}

/// To the second: people read it.
pub(super) fn seconds(time: SystemTime) -> Result<Timestamp, jiff::Error> {
    Timestamp::from_second(Timestamp::try_from(time)?.as_second())
}

impl Writes for Token {
    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateToken,
    ) -> Result<Created<Self>, Refused> {
        let CreateToken { kind, scope, lifetime_s, user } = create;
        if kind == TokenKind::Login {
            return Err(Refused::of(Status::invalid("kind", "a login's token comes from a login")));
        }
        if let TokenScope::Clusters(ids) = &scope {
            let state = control.snapshots.state();
            if ids.is_empty() {
                return Err(Refused::of(Status::invalid("scope.clusters", "names no cluster")));
            }
            for id in ids {
                if !state.cluster(id).is_some_and(|cluster| caller.sees(control, cluster)) {
                    return Err(Refused::of(Status::invalid(
                        "scope.clusters",
                        format!("there is no cluster {id:?}"),
                    )));
                }
            }
        }
        let owner = match user {
            None => caller.user.spec.clone(),
            Some(name) if name == caller.user.spec.name => caller.user.spec.clone(),
            Some(name) => {
                caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
                let found = control.objects.get::<User>(&name).await?;
                let unknown = || Refused::of(Status::invalid("user", format!("there is no user {name:?}")));
                found.ok_or_else(unknown)?.object.spec
            }
        };
        make(control, &owner, kind, scope, lifetime_s, caller.now).await
    }
}
