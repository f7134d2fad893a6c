//! The next token of a login, before the one that is kept ends, and without asking anybody.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::client::{Client, Renewal};
use crate::config::{Held, Kept};
use crate::files;

/// Longest that somebody's kubectl waits for it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After one that came to nothing.
const RETRY: Duration = Duration::from_secs(5 * 60);

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
    let renewal = Client::within(&kept.config, TIMEOUT)?.renew();
    let before = kept.config.held.take();
    let with = |renew_at| before.map(|before| Held { renew_at, ..before });
    let said = match renewal {
        Ok(Renewal::Next(next)) => {
            let held = kept.hold(*next);
            if held.is_err() {
                kept.config.held = with(None);
            }
            held
        }
        Ok(Renewal::Ended(why)) => Err(anyhow::Error::msg(why)),
        Ok(Renewal::Never) => {
            // It lasts until its end, and is asked about no more.
            kept.config.held = with(None);
            Ok(())
        }
        Err(error) => {
            kept.config.held = with(now.checked_add(RETRY).ok());
            Err(error)
        }
    };
    kept.save()?;
    said
}

/// Whether the login may be renewed, and has not ended.
fn is_due(kept: &Kept, now: Timestamp) -> bool {
    kept.config.held.as_ref().is_some_and(|held| {
        held.renew_at.is_some_and(|renew_at| renew_at <= now)
            && held.expires_at.is_some_and(|expires_at| now < expires_at)
    })
}
