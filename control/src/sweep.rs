//! Takes out of the store what has ended: it is refused since, and would be pushed to every gateway for ever.

use std::sync::Arc;
use std::time::Duration;

use drover_api::kinds::{Enrolment, Object, RegistrationToken, Token};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::{Kept, ObjectsError, RevokedJwt};
use crate::rest::renewal;
use crate::routes::Control;

const INTERVAL: Duration = Duration::from_secs(600);
/// For so long its owner is still told that it has expired, rather than that nobody knows it.
const KEPT_AFTER_ITS_END: Duration = Duration::from_secs(24 * 3600);

/// Sweeps until cancelled.
pub(crate) async fn run(control: Arc<Control>, cancelled: CancellationToken) {
    while cancelled.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        // By the first interval's end gateways have told what was used meanwhile.
        match sweep(&control, Timestamp::now()).await {
            Ok(0) => {}
            Ok(swept) => info!(swept, "what has ended is deleted"),
            Err(error) => warn!(%error, "failed to delete expired tokens"),
        }
    }
}

/// How many were deleted.
pub(crate) async fn sweep(control: &Control, now: Timestamp) -> Result<usize, ObjectsError> {
    let Ok(before) = now.checked_sub(KEPT_AFTER_ITS_END) else { return Ok(0) };
    let idle = |token: &Object<Token>| is_idle(token, control.uses.last_used_at(&token.spec.id), now);
    let ended = |token: &Object<Token>| token.spec.expires_at <= before || idle(token);
    Ok(tokens(control, ended).await?
        + expired::<RegistrationToken>(control, |token| token.spec.expires_at <= before).await?
        + expired::<Enrolment>(control, |enrolment| control.enrolment.is_over(&enrolment.spec, now)).await?
        + expired::<RevokedJwt>(control, |jwt| jwt.spec.ends_at <= before).await?)
}

/// Whether a token was not used for longer than it may be: since it was made, where no use was heard of.
fn is_idle(token: &Object<Token>, last_used_at: Option<Timestamp>, now: Timestamp) -> bool {
    let since = last_used_at.unwrap_or(token.metadata.created_at).max(token.metadata.created_at);
    let unused_s = now.as_second().saturating_sub(since.as_second());
    token.spec.idle_s.is_some_and(|idle_s| u64::try_from(unused_s).is_ok_and(|unused_s| unused_s > idle_s))
}

/// With what was made with them.
async fn tokens(
    control: &Control,
    has_ended: impl Fn(&Object<Token>) -> bool,
) -> Result<usize, ObjectsError> {
    let mut swept = 0;
    for token in control.objects.list::<Token>().await? {
        if has_ended(&token) {
            let _writing = control.begin_write().await?;
            // As it is now: another's end may have taken it along, or its renewal changed it.
            let now = control.objects.get::<Token>(token.spec.id.as_str()).await?.map(|now| now.object);
            if let Some(token) = now.filter(|now| has_ended(now)) {
                renewal::end_others(control, &Token { session: None, ..token.spec.clone() }).await?;
                control.objects.delete::<Token>(token.spec.id.as_str(), token.metadata.revision).await?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

async fn expired<K: Kept>(
    control: &Control,
    has_ended: impl Fn(&Object<K>) -> bool,
) -> Result<usize, ObjectsError> {
    let mut swept = 0;
    for object in control.objects.list::<K>().await? {
        if has_ended(&object) {
            // One at a time: nobody's write waits for all of them.
            let _writing = control.begin_write().await?;
            control.objects.delete::<K>(object.spec.key(), object.metadata.revision).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use drover_api::kinds::{Metadata, TokenKind, TokenScope};

    use super::*;

    #[test]
    fn a_token_is_idle_since_its_last_use_or_since_it_was_made() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let token = |idle_s| {
            let made = drover_api::token::generate();
            let spec = Token {
                id: made.id,
                hash: made.hash,
                proof_key: made.proof_key,
                user: "local:user/1".into(),
                kind: TokenKind::Bot,
                scope: TokenScope::All,
                expires_at: at(1_000_000),
                idle_s,
                session: None,
                made_by: None,
                jwt_ends_at: None,
            };
            Object { metadata: Metadata { revision: 1, created_at: at(1000) }, spec }
        };
        for (idle_s, last_used, now, idle) in [
            (None, None, 900_000, false),
            (Some(3600), None, 1000 + 3600, false),
            (Some(3600), None, 1000 + 3601, true),
            (Some(3600), Some(9000), 9000 + 3600, false),
            (Some(3600), Some(9000), 9000 + 3601, true),
            // Of clocks that were set back.
            (Some(3600), Some(500), 1000 + 3600, false),
            (Some(3600), Some(9000), 100, false),
        ] {
            let said = is_idle(&token(idle_s), last_used.map(at), at(now));
            assert_eq!(said, idle, "{idle_s:?} {last_used:?} {now}");
        }
    }
}
