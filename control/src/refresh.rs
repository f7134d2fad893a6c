//! Looks up again, now and then, everybody whom a directory let in: groups follow it, and who is gone is logged out.
//! A directory that does not answer says nothing about anybody.

use std::future::ready;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use drover_api::kinds::{Object, Provider, User};
use futures_util::{StreamExt, future, stream};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::{ObjectsError, Stored};
use crate::people::{self, NotTaken};
use crate::providers::{self, Directory, Found, NotOpened, Person, Unavailable};
use crate::routes::Control;

/// So many of one directory's users are asked about at once.
const ASKED_AT_ONCE: usize = 8;
/// So many users change under one hold of the lock of writes: gateways get them together.
const APPLIED_AT_ONCE: usize = 100;
/// So many users in a row are asked about in vain before the directory is taken to be down.
const IN_VAIN_MAX: usize = 3;
/// So many of one directory's users are logged out by one round without a question.
const GONE_MAX: usize = 10;
/// For so long after a login a provider that gives nothing to ask again with is taken to say the same: one day.
const UNKNOWN_S_MAX: i64 = 24 * 3600;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRefreshed {
    #[error("the user is Drover's own: there is no directory to ask")]
    Local,
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    #[error("control is stopping")]
    Stopping,
    #[error("the directory does not answer: {0}")]
    Unavailable(#[from] Unavailable),
}

/// Refreshes until cancelled. Whoever is asked about then is asked about to the end: what their provider is asked with
/// may be good for that question only, and the answer brings the next.
pub(crate) async fn run(control: Arc<Control>, interval: Duration, cancelled: CancellationToken) {
    while cancelled.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let providers = match control.objects.list::<Provider>().await {
            Ok(providers) => providers,
            Err(error) => {
                warn!(%error, "users not refreshed: the store failed");
                continue;
            }
        };
        let of_each = providers.iter().map(|provider| async {
            let name = &provider.spec.name;
            match refresh_all(&control, name, &cancelled).await {
                Ok(()) | Err(NotRefreshed::Stopping) => {}
                Err(error) => {
                    warn!(provider = name, %error, "users not refreshed: they keep what they have");
                }
            }
        });
        // Side by side: one that is slow keeps nobody's groups of another from being known.
        future::join_all(of_each).await;
    }
}

/// Everybody of a provider's who has a token.
async fn refresh_all(
    control: &Control,
    provider: &str,
    cancelled: &CancellationToken,
) -> Result<(), NotRefreshed> {
    let (provider, directory) = providers::find(&control.objects, provider).await?;
    let prefix = people::principal(&provider.name, "");
    let users = control.objects.list::<User>().await?.into_iter();
    let users: Vec<_> = {
        let state = control.snapshots.state();
        let logged_in = |user: &Object<User>| {
            user.spec.principal.starts_with(&prefix) && state.tokens_of(&user.spec.principal) > 0
        };
        users.filter(logged_in).collect()
    };
    let found = ask_all(control, &*directory, users, cancelled).await?;
    let gone = found.iter().filter(|(_, said)| matches!(said, Said::Gone(_))).count();
    if is_beyond_belief(gone, found.len()) {
        let message =
            format!("{gone} of {} users are gone at once: drover user refresh says so of one", found.len());
        return Err(Unavailable(message).into());
    }
    for some in found.chunks(APPLIED_AT_ONCE) {
        apply(control, &provider, some).await?;
    }
    info!(provider = provider.name, users = found.len(), gone, "users refreshed");
    Ok(())
}

/// Asks about each, several at once, until the directory seems to be down. No question that has begun is given up.
async fn ask_all(
    control: &Control,
    directory: &dyn Directory,
    users: Vec<Object<User>>,
    cancelled: &CancellationToken,
) -> Result<Vec<(Object<User>, Said)>, NotRefreshed> {
    let in_vain_max = IN_VAIN_MAX.min(users.len().saturating_sub(1));
    let over = cancelled.child_token();
    let answers = stream::iter(users)
        .take_while(|_| ready(!over.is_cancelled()))
        .map(|user| async {
            let said = ask(control, directory, &user.spec.principal).await;
            (user, said)
        })
        .buffer_unordered(ASKED_AT_ONCE);
    let mut answers = pin!(answers);
    let (mut found, mut in_vain, mut failed) = (Vec::new(), 0, None);
    while let Some((user, said)) = answers.next().await {
        match said {
            Ok(said) => {
                in_vain = 0;
                found.push((user, said));
            }
            // Of one user: others are asked about still.
            Err(NotRefreshed::Unavailable(error)) if in_vain < in_vain_max => {
                in_vain += 1;
                warn!(user = user.spec.name, %error, "a user is not refreshed, and keeps what they have");
            }
            Err(error) => {
                over.cancel();
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None if cancelled.is_cancelled() => Err(NotRefreshed::Stopping),
        None => Ok(found),
    }
}

/// Rather a right that was taken away from who searches than half of a company.
fn is_beyond_belief(gone: usize, of: usize) -> bool {
    gone > GONE_MAX && gone * 2 > of
}

/// One user, now. Whether the directory still lets them in.
pub(crate) async fn refresh_one(control: &Control, user: &Object<User>) -> Result<(), NotRefreshed> {
    let principal = &user.spec.principal;
    let split = principal.split_once(":user/").filter(|_| !people::is_local(&user.spec));
    let (name, _) = split.ok_or(NotRefreshed::Local)?;
    let (provider, directory) = providers::find(&control.objects, name).await?;
    let said = ask(control, &*directory, principal).await?;
    apply(control, &provider, &[(user.clone(), said)]).await
}

/// What a provider says of one of its users.
#[derive(Debug)]
enum Said {
    /// With what was kept of them when it was asked.
    Gone(Option<Kept>),
    Is(Person),
    /// Nothing, and that for a short time only.
    Nothing,
}

/// What there is to ask a user's provider with, and since when.
type Kept = (Option<String>, Timestamp);

/// One question about a user at a time: what a provider is asked with may be good for one. Users share some locks.
static ASKING: [Mutex<()>; 64] = [const { Mutex::const_new(()) }; 64];
static ASKED_BY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn asking(principal: &str) -> &'static Mutex<()> {
    let hash = ASKED_BY.hash_one(principal);
    &ASKING[(hash % ASKING.len() as u64) as usize]
}

async fn ask(control: &Control, directory: &dyn Directory, principal: &str) -> Result<Said, NotRefreshed> {
    let id = principal.split_once(":user/").map(|(_, id)| id).unwrap_or_default();
    let _asking = asking(principal).lock().await;
    let kept = people::grant(&control.objects, principal).await?;
    let asked_with = kept.as_ref().and_then(|(token, _)| token.as_deref());
    match directory.find(id, asked_with).await? {
        Found::Gone => Ok(Said::Gone(kept)),
        Found::Known(known) => {
            if known.grant.is_some() && known.grant.as_deref() != asked_with {
                let _writing = control.begin_write().await?;
                // A login that came meanwhile has brought a newer one.
                let now = people::grant(&control.objects, principal).await?;
                if now.is_some_and(|(token, _)| token.as_deref() == asked_with) {
                    people::keep_grant(&control.objects, principal, known.grant).await?;
                }
            }
            Ok(Said::Is(known.person))
        }
        Found::Unknown => {
            let known_at = kept.as_ref().map(|(_, known_at)| known_at);
            let age = known_at.map(|known_at| Timestamp::now().as_second() - known_at.as_second());
            Ok(if age.is_some_and(|age_s| age_s < UNKNOWN_S_MAX) { Said::Nothing } else { Said::Gone(kept) })
        }
    }
}

/// Makes of users what a provider says of them. Those who are logged out are so first, and together: their tokens
/// are looked for among all.
async fn apply(
    control: &Control,
    provider: &Provider,
    found: &[(Object<User>, Said)],
) -> Result<(), NotRefreshed> {
    let _writing = control.begin_write().await?;
    let (mut out, mut stay) = (Vec::new(), Vec::new());
    for (before, said) in found {
        // As it is now: it may have changed while the directory was asked.
        let Some(Stored { object: user, .. }) = control.objects.get::<User>(&before.spec.name).await? else {
            continue;
        };
        match said {
            Said::Nothing => {}
            // A login that came meanwhile is the newer answer.
            Said::Gone(kept) if people::grant(&control.objects, &user.spec.principal).await? != *kept => {}
            Said::Gone(_) => out.push(user),
            Said::Is(person) => match people::admit(control, provider, person).await {
                Ok(admitted) => stay.push((user, person, admitted)),
                Err(NotTaken::Objects(error)) => return Err(error.into()),
                Err(refused) => {
                    info!(user = user.spec.name, %refused, "the provider lets a user in no more");
                    out.push(user);
                }
            },
        }
    }
    people::log_out(control, &out).await?;
    for (user, person, admitted) in stay {
        people::follow(&control.objects, user, admitted).await?;
        control.group_names.note(&provider.name, person.named_groups());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
