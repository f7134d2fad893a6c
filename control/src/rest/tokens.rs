//! Tokens: everybody makes and revokes their own; for others it takes a rule.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{Kind, Session, Token, TokenKind, TokenScope, User};
use drover_api::rest::{CreateToken, Created, Revoked, TokenUses};
use drover_api::status::Status;
use drover_api::token::{self, Generated, Secret, TokenId};
use jiff::Timestamp;

use super::caller::{Caller, subject};
use super::{Writes, applied, field, renewal, seen};
use crate::objects::{ObjectsError, RevokedJwt};
use crate::people::{keep_revoked, revoke_tokens};
use crate::placed::Place;
use crate::routes::{Control, Logins, Refused};

const DAY: u64 = 24 * 3600;
/// Tokens of one user: a loop in a script is noticed before the store is full of them.
pub(super) const TOKENS_PER_USER_MAX: usize = 1000;

/// Shortest idle limit.
const IDLE_MIN_S: u64 = 3600;

/// How long a token is to last: in all, and unused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lasts {
    /// Absent: what is usual for the kind.
    pub lifetime_s: Option<u64>,
    pub idle_s: Option<u64>,
}

/// How long a token of a kind that people make lasts: usually, and at most.
fn lifetimes(kind: TokenKind) -> Result<(u64, u64), Refused> {
    let refused = |message| Err(Refused::of(Status::invalid("kind", message)));
    match kind {
        TokenKind::Bot => Ok((90 * DAY, 365 * DAY)),
        TokenKind::Jwt => refused("a JWT is a token from its first use on"),
        TokenKind::Kubeconfig => Ok((30 * DAY, 90 * DAY)),
        TokenKind::Login => refused("a login's token comes from a login"),
    }
}

/// A token of a user's, with the text that is shown once. One that no login made lasts no longer than its maker.
pub(crate) async fn make(
    control: &Control,
    maker: &Token,
    user: &User,
    kind: TokenKind,
    scope: TokenScope,
    lasts: Lasts,
    now: SystemTime,
) -> Result<Created<Token>, Refused> {
    let (usual, max) = lifetimes(kind)?;
    let by_login = maker.kind == TokenKind::Login;
    let left_s = SystemTime::from(maker.expires_at).duration_since(now).unwrap_or_default().as_secs();
    let lifetime_s = match lasts.lifetime_s {
        None if by_login => usual,
        None => usual.min(left_s),
        Some(asked) if !by_login && asked > left_s => {
            let message = format!(
                "this token ends at {}, and so must what it makes: a login makes tokens that last longer",
                maker.expires_at
            );
            return Err(Refused::of(Status::failure(403, "Forbidden", message)));
        }
        Some(asked) => asked,
    };
    if !(1..=max).contains(&lifetime_s) {
        return Err(Refused::of(Status::invalid("lifetime_s", format!("must be 1 to {max} for this kind"))));
    }
    if lasts.idle_s.is_some_and(|idle_s| idle_s < IDLE_MIN_S) {
        let message =
            format!("must be at least {IDLE_MIN_S}: when a token was used is known to some minutes");
        return Err(Refused::of(Status::invalid("idle_s", message)));
    }
    let expires_at = field("lifetime_s", seconds(now + Duration::from_secs(lifetime_s)))?;
    let (token, secret) = generate(user, kind, scope, expires_at);
    let made_by = (!by_login).then(|| maker.id.clone());
    keep(control, Token { idle_s: lasts.idle_s, made_by, ..token }, &secret).await
}

/// What a token of a login comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Login<'a> {
    New,
    /// By somebody who is logged in, for a program of theirs: it ends with what they had, and is as old.
    Granted(&'a Session),
    Next(&'a Session),
}

/// A token for somebody who has logged in: the next one of a session, or the first of one.
pub(crate) async fn log_in(
    control: &Control,
    user: &User,
    login: Login<'_>,
    now: SystemTime,
) -> Result<Created<Token>, Refused> {
    let Logins { lifetime, session } = control.logins;
    let (began_at, ends_at) = match login {
        Login::Granted(of) | Login::Next(of) => (of.began_at, of.ends_at),
        Login::New => {
            let ends_at = field("session", seconds(now + session.max(lifetime)))?;
            (Some(field("session", Timestamp::try_from(now))?), ends_at)
        }
    };
    let expires_at = field("session", seconds(now + lifetime))?.min(ends_at);
    let renewable_at =
        if expires_at < ends_at { field("session", seconds(now + lifetime / 2))? } else { ends_at };
    let (token, secret) = generate(user, TokenKind::Login, TokenScope::All, expires_at);
    let id = match login {
        Login::Next(of) => of.id.clone(),
        Login::Granted(_) | Login::New => token.id.clone(),
    };
    let session = Some(Session { id, began_at, ends_at, renewable_at, renewed: false });
    keep(control, Token { session, ..token }, &secret).await
}

fn generate(user: &User, kind: TokenKind, scope: TokenScope, expires_at: Timestamp) -> (Token, Secret) {
    let Generated { id, hash, proof_key, secret } = token::generate();
    let user = user.principal.clone();
    (
        Token {
            id,
            hash,
            proof_key,
            user,
            kind,
            scope,
            expires_at,
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
        },
        secret,
    )
}

async fn keep(control: &Control, token: Token, secret: &Secret) -> Result<Created<Token>, Refused> {
    if control.snapshots.state().lasting_tokens_of(&token.user, Timestamp::now()) >= TOKENS_PER_USER_MAX {
        let message = format!("the user has {TOKENS_PER_USER_MAX} tokens: revoke some");
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    }
    let object = control.objects.create(&token, None).await?;
    Ok(Created { object, secret: Some(secret.expose().to_owned()) })
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
        let CreateToken { kind, scope, lifetime_s, idle_s, user } = create;
        if caller.token.spec.kind == TokenKind::Jwt {
            let message = "a JWT makes no tokens: they would outlive what its issuer says";
            return Err(Refused::of(Status::failure(403, "Forbidden", message)));
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
                let owner = found.ok_or_else(unknown)?.object.spec;
                caller.must_have_just_logged_in()?;
                caller.must_hold_all_of(control, &subject(&owner).ok_or_else(unknown)?)?;
                owner
            }
        };
        let maker = &caller.token.spec;
        make(control, maker, &owner, kind, scope, Lasts { lifetime_s, idle_s }, caller.now).await
    }

    async fn before_delete(control: &Control, _caller: &Caller, token: &Self) -> Result<(), Refused> {
        Ok(before_revoking(control, token).await?)
    }

    /// It may be a JWT's, which holds by its own word for nobody knows how long.
    async fn before_delete_unread(control: &Control, key: &str) -> Result<(), Refused> {
        if let Ok(id) = TokenId::try_from(key.to_owned()) {
            let ends_at = field("id", seconds(SystemTime::now() + Duration::from_secs(365 * DAY)))?;
            control.objects.put(&RevokedJwt { id, ends_at }, None).await?;
        }
        Ok(())
    }
}

/// What goes with a token that is revoked, and what remembers that it was. Whoever calls it holds the lock of all writes.
pub(crate) async fn before_revoking(control: &Control, token: &Token) -> Result<(), ObjectsError> {
    keep_revoked(control, token).await?;
    renewal::end_others(control, token).await
}

/// When the tokens that the caller sees were last used.
pub(super) async fn uses(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<TokenUses>, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let tokens = control.objects.list::<Token>().await?.into_iter().map(|token| token.spec);
    let seen = tokens.filter(|token| caller.sees(&control, token));
    let used = seen.filter_map(|token| Some((token.id.to_string(), control.uses.last_used_at(&token.id)?)));
    Ok(Json(TokenUses { last_used_at: used.collect() }))
}

/// Ends every token of a user's: one's own, or by the rule that lets one delete tokens.
pub(super) async fn revoke_all(
    State(control): State<Arc<Control>>,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let caller = Caller::of(&control, &headers).await?;
    let (caller, writing) = caller.begin_write(&control).await?;
    let user = seen::<User>(&control, &caller, &key).await?.object.spec;
    if user.principal != caller.user.spec.principal {
        caller.may(&control, "DELETE", Token::PLURAL, None, &Place::Drover)?;
    }
    let ended = revoke_tokens(&control, |token| token.user == user.principal).await?;
    control.devices.forget(&user.principal);
    drop(writing);
    let tokens = ended.iter().map(ToString::to_string).collect();
    caller.wrote("all tokens revoked", &user);
    let revision = control.written();
    Ok(applied(&control, revision, StatusCode::OK, Revoked { tokens }).await)
}
