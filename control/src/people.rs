//! Users whom a directory knows: they come with their first login, and their groups follow the directory.

use drover_api::kinds::{Access, Binding, Kind, Object, Provider, Token, User};
use drover_api::snapshot::{RESERVED_PREFIXES, USER_GROUPS_MAX};
use drover_api::token;
use tracing::info;

use crate::objects::{Objects, ObjectsError, UserName};
use crate::providers::Person;

const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// The provider of Drover's own users.
pub(crate) const LOCAL: &str = "local";
/// Names that are tried for a new user before it gets none.
const NAMES_TRIED_MAX: usize = 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("{0} is not among those whom the provider lets in")]
    Access(String),
    #[error("{0} has a name that Kubernetes or Drover keeps for itself, or that cannot be one")]
    Name(String),
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("{0} is in more than {USER_GROUPS_MAX} groups")]
    TooManyGroups(String),
}

/// Whether Drover itself knows the user's password and groups.
pub(crate) fn is_local(user: &User) -> bool {
    user.principal.split_once(':').is_some_and(|(provider, _)| provider == LOCAL)
}

/// The principal of a person of a provider's.
pub(crate) fn principal(provider: &str, id: &str) -> String {
    format!("{provider}:user/{id}")
}

/// The person's user as the directory has it now; made where it is new. Whoever calls it holds the lock of all writes.
pub(crate) async fn take_in(
    objects: &Objects,
    provider: &Provider,
    known: Option<Object<User>>,
    person: &Person,
) -> Result<Object<User>, NotTaken> {
    let groups: Vec<_> = person.groups.iter().map(|id| format!("{}:group/{id}", provider.name)).collect();
    if groups.len() > USER_GROUPS_MAX {
        return Err(NotTaken::TooManyGroups(person.login.clone()));
    }
    let principal = principal(&provider.name, &person.id);
    if !is_let_in(objects, provider, &principal, &groups).await? {
        return Err(NotTaken::Access(person.login.clone()));
    }
    let shown = |name: &String| name.len() <= DISPLAY_NAME_BYTES_MAX && !name.chars().any(char::is_control);
    let display_name = person.display_name.clone().filter(shown);
    match known {
        None => {
            let name = free_name(objects, &provider.name, &person.login, &principal).await?;
            let user = User { principal, name, display_name, groups, disabled: false };
            info!(user = user.name, principal = user.principal, "a user comes from a directory");
            Ok(objects.create(&user, None).await?)
        }
        Some(known) if known.spec.groups == groups && known.spec.display_name == display_name => Ok(known),
        Some(known) => {
            let user = User { display_name, groups, ..known.spec };
            Ok(objects.update(known.metadata.revision, &user, None).await?)
        }
    }
}

/// Ends what a person may do whom the directory lets in no more. The user stays: its principal and name are its own.
pub(crate) async fn log_out(objects: &Objects, user: &Object<User>) -> Result<(), ObjectsError> {
    for token in objects.list::<Token>().await? {
        if token.spec.user == user.spec.principal {
            objects.delete::<Token>(token.spec.key(), token.metadata.revision).await?;
        }
    }
    if !user.spec.groups.is_empty() {
        let without = User { groups: Vec::new(), ..user.spec.clone() };
        objects.update(user.metadata.revision, &without, None).await?;
    }
    info!(user = user.spec.name, "logged out: the directory lets the user in no more");
    Ok(())
}

async fn is_let_in(
    objects: &Objects,
    provider: &Provider,
    principal: &str,
    groups: &[String],
) -> Result<bool, ObjectsError> {
    let is_theirs = |name: &String| name == principal || groups.contains(name);
    let listed = provider.allowed.iter().any(is_theirs);
    Ok(match provider.access {
        Access::Unrestricted => true,
        Access::Required => listed,
        Access::Restricted if listed => true,
        Access::Restricted => {
            objects.list::<Binding>().await?.iter().any(|binding| is_theirs(&binding.spec.principal))
        }
    })
}

/// `alice@ad`, or where somebody else has or had that, `alice-2@ad` and on.
async fn free_name(
    objects: &Objects,
    provider: &str,
    login: &str,
    principal: &str,
) -> Result<String, NotTaken> {
    let sound = |text: char| !text.is_control() && text != '/';
    let unsound = || NotTaken::Name(login.to_owned());
    if login.is_empty()
        || login.len() > 64
        || login.trim() != login
        || !login.chars().all(sound)
        || RESERVED_PREFIXES.iter().any(|prefix| login.to_lowercase().starts_with(prefix))
    {
        return Err(unsound());
    }
    let drawn = format!("{login}-{}@{provider}", token::random_id());
    let counted = (1..NAMES_TRIED_MAX).map(|count| match count {
        1 => format!("{login}@{provider}"),
        _ => format!("{login}-{count}@{provider}"),
    });
    for name in counted.chain([drawn]) {
        let is = objects.get::<User>(&name).await?.is_some();
        let was = objects.get::<UserName>(&name).await?;
        let was_anothers = was.is_some_and(|was| was.object.spec.principal != principal);
        if !is && !was_anothers {
            return Ok(name);
        }
    }
    Err(unsound())
}
