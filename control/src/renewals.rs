//! Renewals of the last minute, so that a program whose answer was lost gets it again, and is not taken for a thief.
//!
//! They live in memory: a control that starts again takes who asks twice for one with a copy.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drover_api::kinds::Token;
use drover_api::rest::Created;
use drover_api::token::TokenId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// How long a renewal is answered again.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Renewals that are kept; more in a minute are not answered again.
const KEPT_MAX: usize = 10_000;

/// By the token that was renewed.
#[derive(Default)]
pub(crate) struct Renewals(Mutex<HashMap<TokenId, Renewed>>);

struct Renewed {
    program: Program,
    next: Created<Token>,
    at: Instant,
}

/// SHA-256 of what a program says of itself.
pub(crate) type Program = [u8; 32];

pub(crate) fn program(said: &str) -> Program {
    Sha256::digest(said).into()
}

impl Renewals {
    pub(crate) fn note(&self, renewed: TokenId, program: Program, next: Created<Token>, now: Instant) {
        let mut all = self.all();
        all.retain(|_, renewed| now < renewed.at + KEPT_FOR);
        if all.len() < KEPT_MAX {
            all.insert(renewed, Renewed { program, next, at: now });
        }
    }

    /// What the same program was answered before.
    pub(crate) fn again(&self, renewed: &TokenId, program: &Program, now: Instant) -> Option<Created<Token>> {
        let all = self.all();
        let renewed = all.get(renewed).filter(|renewed| now < renewed.at + KEPT_FOR)?;
        let same: bool = renewed.program.ct_eq(program).into();
        same.then(|| renewed.next.clone())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<TokenId, Renewed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drover_api::kinds::{Metadata, Object, TokenKind, TokenScope};
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_renewal_is_answered_again_to_the_same_program_for_a_minute() {
        let made = drover_api::token::generate();
        let spec = Token {
            id: made.id.clone(),
            hash: made.hash,
            proof_key: made.proof_key,
            user: "local:user/1".into(),
            kind: TokenKind::Login,
            scope: TokenScope::All,
            expires_at: Timestamp::MAX,
            idle_s: None,
            session: None,
            made_by: None,
            jwt_ends_at: None,
        };
        let metadata = Metadata { revision: 1, created_at: Timestamp::UNIX_EPOCH };
        let next = Created { object: Object { metadata, spec }, secret: Some("drv_next".into()) };
        let (renewals, renewed, now) =
            (Renewals::default(), drover_api::token::generate().id, Instant::now());
        renewals.note(renewed.clone(), program("ours"), next, now);
        let again = |said: &str, later_s| {
            let answer = renewals.again(&renewed, &program(said), now + Duration::from_secs(later_s));
            answer.and_then(|answer| answer.secret)
        };
        assert_eq!(again("ours", 0).as_deref(), Some("drv_next"));
        assert_eq!(again("ours", 59).as_deref(), Some("drv_next"));
        assert_eq!(again("ours", 60), None);
        assert_eq!(again("theirs", 1), None);
        assert_eq!(again("", 1), None);
    }
}
