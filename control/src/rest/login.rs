//! From a password to a token.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use drover_api::kinds::{self, Provider, Token, User};
use drover_api::rest::{self, Created, Login};
use drover_api::status::Status;
use drover_api::texts::USER_NAME_BYTES_MAX;
use tokio::sync::Semaphore;
use tracing::info;

use super::caller::Caller;
use super::{applied, tokens};
use crate::attempts::Try;
use crate::listener::Client;
use crate::objects::Stored;
use crate::passwords::PasswordRefused;
use crate::people::{self, LOCAL, NotTaken, is_local};
use crate::providers::{self, Directory, Known, LoginRefused, NotOpened, Unavailable};
use crate::routes::{Control, Refused};
use crate::store::Revision;

/// Logins that directories see to at once.
pub(crate) static LOGINS: Semaphore = Semaphore::const_new(64);

pub(super) async fn login(
    State(control): State<Arc<Control>>,
    client: Client,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(login) = body?;
    let made = log_in(&control, &login, client).await?;
    let revision = made.object.metadata.revision;
    Ok(applied(&control, revision, StatusCode::CREATED, made).await)
}

/// A token for whoever a name and a password are of.
pub(crate) async fn log_in(
    control: &Control,
    login: &Login,
    client: Client,
) -> Result<Created<Token>, Refused> {
    let Login { provider, name, password } = login;
    // Before anything is counted, logged or asked by it.
    let longest = name.len().max(provider.as_ref().map_or(0, String::len));
    if longest > USER_NAME_BYTES_MAX {
        return Err(Refused::of(Status::invalid(
            "name",
            format!("is too long: {USER_NAME_BYTES_MAX} bytes at most"),
        )));
    }
    match provider.as_deref() {
        None | Some(LOCAL) => local(control, name, password, client).await,
        Some(provider) => through(control, provider, name, password, client).await,
    }
}

/// As one of Drover's own users.
async fn local(
    control: &Control,
    name: &str,
    password: &str,
    Client(client): Client,
) -> Result<Created<Token>, Refused> {
    let who = Try::new(name, client);
    wait(control, name, &who)?;
    let found = control.objects.get::<User>(name).await?.filter(|found| is_local(&found.object.spec));
    let checked = found.as_ref().and_then(|user| Some(user.secret.as_ref()?.password.clone()));
    let is = check_password(control, password, checked.as_deref()).await?;
    // One answer to all: who guesses learns nothing.
    let user = found.map(|user| user.object.spec).filter(|user| is && !user.disabled).ok_or_else(|| {
        info!(user = name, "login refused");
        control.attempts.failed(&who, Instant::now());
        Refused::unauthorized("the name or the password is wrong, or the user is disabled")
    })?;
    control.attempts.succeeded(&who);
    let made = {
        let _writing = control.begin_write().await?;
        // As they are now: gone, disabled or of another password they log in by this one no more.
        let now = control.objects.get::<User>(name).await?.filter(|now| {
            let kept = now.secret.as_ref().map(|secret| &secret.password);
            let same = now.object.spec.principal == user.principal && kept == checked.as_ref();
            same && !now.object.spec.disabled
        });
        let Some(Stored { object: user, .. }) = now else { return Err(changed()) };
        tokens::log_in(control, &user.spec, tokens::Login::New, SystemTime::now()).await?
    };
    info!(user = name, token = %made.object.spec.id, "login");
    Ok(made)
}

/// As somebody whom a directory knows.
async fn through(
    control: &Control,
    provider: &str,
    name: &str,
    password: &str,
    Client(client): Client,
) -> Result<Created<Token>, Refused> {
    // Guesses are counted here first: a directory locks accounts, and anybody could have others' locked.
    let counted = format!("{provider}:{}", name.to_lowercase());
    let who = Try::new(&counted, client);
    wait(control, name, &who)?;
    let began = control.written();
    let (provider, directory) = opened(control, provider).await?;
    let Ok(_login) = LOGINS.try_acquire() else { return Err(too_many()) };
    let person = match directory.log_in(name, password).await {
        Ok(person) => person,
        Err(refused) => {
            // A directory that does not answer says nothing about the password.
            if !matches!(refused, LoginRefused::Unavailable(_)) {
                control.attempts.failed(&who, Instant::now());
            }
            info!(user = counted, %refused, "login refused");
            return Err(refused.into());
        }
    };
    control.attempts.succeeded(&who);
    come_back(control, &provider, Known { person, grant: None }, began).await
}

/// A login of somebody of whom the provider has said who it is; it was asked at a revision.
pub(crate) async fn come_back(
    control: &Control,
    asked: &Provider,
    known: Known,
    began: Revision,
) -> Result<Created<Token>, Refused> {
    let Known { person, grant } = known;
    let _writing = control.begin_write().await?;
    let provider = control.objects.get::<Provider>(&asked.name).await?.map(|stored| stored.object.spec);
    let provider =
        &provider.filter(|provider| !provider.disabled && provider == asked).ok_or_else(changed)?;
    let principal = people::principal(&provider.name, &person.id);
    let before = control.snapshots.state().user(&principal);
    if before.is_none() && people::was_deleted_since(&control.objects, &principal, began).await? {
        return Err(changed());
    }
    let user = people::take_in(control, provider, before, &person).await?.spec;
    control.group_names.note(&provider.name, person.named_groups());
    if user.disabled {
        return Err(Refused::unauthorized("the user is disabled in Drover"));
    }
    if is_browsers(provider) {
        people::keep_grant(&control.objects, &user.principal, grant).await?;
    }
    let made = tokens::log_in(control, &user, tokens::Login::New, SystemTime::now()).await?;
    info!(user = user.name, token = %made.object.spec.id, "login");
    Ok(made)
}

/// Of a login that was sound when it began.
fn changed() -> Refused {
    Refused::unauthorized("the user or the provider was changed during the login: log in again")
}

/// Whether people log in there in a browser.
pub(crate) fn is_browsers(provider: &Provider) -> bool {
    match provider.directory {
        kinds::Directory::Github(_) | kinds::Directory::Oidc(_) => true,
        kinds::Directory::Jwt(_) | kinds::Directory::Ldap(_) => false,
    }
}

pub(crate) fn too_many() -> Refused {
    let message = "too many logins at once: try again in a moment";
    Refused::of(Status::failure(429, "TooManyRequests", message))
}

/// A provider that is on, and its directory.
pub(crate) async fn opened(control: &Control, name: &str) -> Result<(Provider, Box<dyn Directory>), Refused> {
    let unknown = || {
        let message = format!("there is no provider {name:?} to log in through");
        Refused::unauthorized(&message)
    };
    match providers::find(&control.objects, name).await {
        Ok((provider, directory)) if !provider.disabled => Ok((provider, directory)),
        Ok(_) | Err(NotOpened::Unknown(_)) => Err(unknown()),
        Err(NotOpened::Objects(error)) => Err(error.into()),
        Err(NotOpened::Unavailable(unavailable)) => Err(LoginRefused::Unavailable(unavailable).into()),
    }
}

impl From<LoginRefused> for Refused {
    fn from(refused: LoginRefused) -> Self {
        let message = refused.to_string();
        Self::of(match refused {
            LoginRefused::AccountExpired
            | LoginRefused::Denied(_)
            | LoginRefused::Disabled
            | LoginRefused::Locked
            | LoginRefused::MustChange
            | LoginRefused::NoPasswords
            | LoginRefused::PasswordExpired
            | LoginRefused::Wrong => Status::failure(401, "Unauthorized", message),
            // What is wrong with it is for the log: it names hosts.
            LoginRefused::Unavailable(_) => Status::failure(
                503,
                "ServiceUnavailable",
                "the directory does not answer: control's log says why",
            ),
        })
    }
}

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Self {
        LoginRefused::Unavailable(unavailable).into()
    }
}

impl From<NotTaken> for Refused {
    fn from(refused: NotTaken) -> Self {
        match refused {
            NotTaken::Objects(error) => error.into(),
            NotTaken::Access(_) | NotTaken::Id(_) | NotTaken::Name(_) | NotTaken::TooManyGroups(_) => {
                Self::of(Status::failure(403, "Forbidden", refused.to_string()))
            }
        }
    }
}

pub(super) async fn who_am_i(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
) -> Result<Json<rest::Caller>, Refused> {
    let Caller { user, token, .. } = Caller::of(&control, &headers).await?;
    Ok(Json(rest::Caller { user, token }))
}

/// Refuses a name with too many failures behind it.
pub(super) fn wait(control: &Control, name: &str, who: &Try) -> Result<(), Refused> {
    let Some(wait) = control.attempts.wait(who, Instant::now()) else { return Ok(()) };
    let message = format!("too many failed logins as {name:?}: try again in {} s", wait.as_secs() + 1);
    Err(Refused::of(Status::failure(429, "TooManyRequests", message)))
}

pub(super) async fn check_password(
    control: &Control,
    password: &str,
    kept: Option<&str>,
) -> Result<bool, Refused> {
    control.passwords.is(password, kept).await.map_err(|refused| match refused {
        PasswordRefused::Busy => Refused::of(Status::failure(429, "TooManyRequests", refused.to_string())),
        PasswordRefused::Length => Refused::of(Status::invalid("password", refused.to_string())),
    })
}
