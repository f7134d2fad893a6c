//! The next token of a login, before the one that is kept ends, and without asking anybody.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::client::{Client, Renewal};
use crate::config::Kept;
use crate::files;
use crate::interrupts;

/// Longest that somebody's kubectl waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After one that came to nothing: within the minute for which control answers the same renewal again.
const RETRY: Duration = Duration::from_secs(20);

/// Renews what is kept where it is time; one program at a time does, and no other waits. What was given out before
/// goes on, so a failure is nobody's but the next renewal's.
pub(super) fn renew(kept: &mut Kept, file: Option<&Path>, now: Timestamp) {
    if let Err(error) = try_to(kept, file, now) {
        eprintln!("drover: the login is not renewed: {error:#}");
    }
}

fn try_to(kept: &mut Kept, file: Option<&Path>, now: Timestamp) -> anyhow::Result<()> {
    if !is_due(kept, now) {
        return Ok(());
    }
    let Some(_alone) = files::try_lock(&kept.file)? else { return Ok(()) };
    *kept = Kept::load(file)?;
    if !is_due(kept, now) {
        return Ok(());
    }
    // Kept before it is asked: whoever comes back after the answer was lost is known by it.
    if let Some(held) = &mut kept.config.held
        && held.program.is_none()
    {
        held.program = Some(drover_api::token::random_id());
        kept.save()?;
    }
    let program = kept.config.held.as_ref().and_then(|held| held.program.clone());
    let _whole = interrupts::hold_off();
    let renewal = Client::within(&kept.config, TIMEOUT)?.renew(program);
    // Whatever comes of it says when it is asked for again: one token is renewed once.
    try_at(kept, None);
    let said = match renewal {
        Ok(Renewal::Next(next)) => kept.hold(*next),
        Ok(Renewal::Ended(why)) => {
            kept.config.held = None;
            Err(anyhow::Error::msg(why))
        }
        Ok(Renewal::Never) => Ok(()),
        Err(error) => {
            try_at(kept, now.checked_add(RETRY).ok());
            Err(error)
        }
    };
    kept.save()?;
    said
}

fn try_at(kept: &mut Kept, renew_at: Option<Timestamp>) {
    if let Some(held) = &mut kept.config.held {
        held.renew_at = renew_at;
    }
}

/// Whether the login may be renewed, and has not ended.
fn is_due(kept: &Kept, now: Timestamp) -> bool {
    kept.config.held.as_ref().is_some_and(|held| {
        held.renew_at.is_some_and(|renew_at| renew_at <= now)
            && held.expires_at.is_some_and(|expires_at| now < expires_at)
    })
}
