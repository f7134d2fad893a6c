//! Looks up again, now and then, everybody whom a directory let in: groups follow it, and who is gone is logged out.
//! A directory that does not answer says nothing about anybody.

use std::sync::Arc;
use std::time::Duration;

use drover_api::kinds::{Object, Provider, User};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::{ObjectsError, Stored};
use crate::people::{self, NotTaken};
use crate::providers::{self, NotOpened, Person, Unavailable};
use crate::routes::Control;

/// So many of one directory's users are logged out by one round without a question.
const GONE_MAX: usize = 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRefreshed {
    #[error("the user is Drover's own: there is no directory to ask")]
    Local,
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error(transparent)]
    NotOpened(#[from] NotOpened),
    #[error("the directory does not answer: {0}")]
    Unavailable(#[from] Unavailable),
}

/// Refreshes until cancelled.
pub(crate) async fn run(control: Arc<Control>, interval: Duration, cancelled: CancellationToken) {
    while cancelled.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        let round = async {
            for provider in control.objects.list::<Provider>().await? {
                if let Err(error) = refresh_all(&control, &provider.spec.name).await {
                    warn!(provider = provider.spec.name, %error, "users not refreshed: they keep what they have");
                }
            }
            Ok::<_, ObjectsError>(())
        };
        match cancelled.run_until_cancelled(round).await {
            Some(Ok(())) => {}
            Some(Err(error)) => warn!(%error, "users not refreshed: the store failed"),
            None => return,
        }
    }
}

/// Everybody of a provider's who has a token.
async fn refresh_all(control: &Control, provider: &str) -> Result<(), NotRefreshed> {
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
    let mut found = Vec::new();
    for user in &users {
        let id = user.spec.principal.strip_prefix(&prefix).unwrap_or_default();
        found.push(directory.find(id).await?);
    }
    let gone = found.iter().filter(|person| person.is_none()).count();
    if is_beyond_belief(gone, users.len()) {
        let message =
            format!("{gone} of {} users are gone at once: drover user refresh says so of one", users.len());
        return Err(Unavailable(message).into());
    }
    for (user, person) in users.iter().zip(&found) {
        apply(control, &provider, &user.spec.name, person.as_ref()).await?;
    }
    info!(provider = provider.name, users = users.len(), gone, "users refreshed");
    Ok(())
}

/// Rather a right that was taken away from who searches than half of a company.
fn is_beyond_belief(gone: usize, of: usize) -> bool {
    gone > GONE_MAX && gone * 2 > of
}

/// One user, now. Whether the directory still lets them in.
pub(crate) async fn refresh_one(control: &Control, user: &User) -> Result<bool, NotRefreshed> {
    let split = user.principal.split_once(":user/").filter(|_| !people::is_local(user));
    let (name, id) = split.ok_or(NotRefreshed::Local)?;
    let (provider, directory) = providers::find(&control.objects, name).await?;
    let person = directory.find(id).await?;
    apply(control, &provider, &user.name, person.as_ref()).await
}

async fn apply(
    control: &Control,
    provider: &Provider,
    name: &str,
    person: Option<&Person>,
) -> Result<bool, NotRefreshed> {
    let _writes = control.begin_write().await;
    // As it is now: it may have changed while the directory was asked.
    let Some(Stored { object: user, .. }) = control.objects.get::<User>(name).await? else {
        return Ok(false);
    };
    let Some(person) = person else {
        people::log_out(&control.objects, &user).await?;
        return Ok(false);
    };
    match people::take_in(&control.objects, provider, Some(user.clone()), person).await {
        Ok(_) => Ok(true),
        Err(NotTaken::Objects(error)) => Err(error.into()),
        Err(refused) => {
            info!(user = name, %refused, "the provider lets a user in no more");
            people::log_out(&control.objects, &user).await?;
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_many_gone_at_once_is_not_believed() {
        for (gone, of, beyond) in [
            (0, 0, false),
            (GONE_MAX, GONE_MAX, false),
            (11, 11, true),
            (11, 21, true),
            (11, 22, false),
            (500, 999, true),
        ] {
            assert_eq!(is_beyond_belief(gone, of), beyond, "{gone} of {of}");
        }
    }
}
