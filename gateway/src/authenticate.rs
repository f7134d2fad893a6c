//! Who presents a credential: from tables in memory, without asking anyone.
//!
//! A token that is not in the tables costs one hash and one lookup, as much as a cache of failures
//! would: there is none for a flood of bad tokens to fill.

use std::sync::Arc;
use std::time::SystemTime;

use drover_api::snapshot::Token;
use drover_api::token::{CredentialHash, Presented, TokenId};

use crate::tables::{Tables, User};

/// A user, known by a credential that holds.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    pub user: Arc<User>,
    pub token: TokenId,
    pub credential: CredentialHash,
}

/// Why a credential does not hold. Clients are told the same for all that could help in guessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthenticationRefused {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not known, or was revoked")]
    Unknown,
    #[error("the user is disabled")]
    UserDisabled,
}

/// Finds who presented a token. The scope is checked by the caller, who knows the cluster.
pub(crate) fn authenticate<'t>(
    tables: &'t Tables,
    presented: &Presented,
    now: SystemTime,
) -> Result<(Authenticated, &'t Token), AuthenticationRefused> {
    let token = tables.token(&presented.id).ok_or(AuthenticationRefused::Unknown)?;
    // Hashes are compared in constant time (CredentialHash).
    if token.hash != presented.hash {
        return Err(AuthenticationRefused::Unknown);
    }
    if token.expires_at <= now {
        return Err(AuthenticationRefused::Expired);
    }
    let user = tables.user(&token.user).ok_or(AuthenticationRefused::Unknown)?;
    if user.disabled {
        return Err(AuthenticationRefused::UserDisabled);
    }
    Ok((Authenticated { user: user.clone(), token: token.id.clone(), credential: token.hash }, token))
}
