//! The directories that users come from: one file for each kind, behind one trait.

use async_trait::async_trait;
use drover_api::kinds::{Directory as Kept, Provider};

use crate::objects::{Objects, ObjectsError, Stored};

mod ldap;

/// A person as a directory knows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Never given to anybody else.
    pub id: String,
    /// What people call the account: it may change.
    pub login: String,
    pub display_name: Option<String>,
    /// Ids of the groups that the person is in, however deep; sorted, each once.
    pub groups: Vec<String>,
}

/// Why a name and a password let nobody in. Directories tell most of these to whoever knows the password only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginRefused {
    #[error("the account has expired")]
    AccountExpired,
    #[error("the account is disabled")]
    Disabled,
    #[error("the account is locked: wait, or ask who manages it")]
    Locked,
    #[error("the password has to be changed first, where it is managed")]
    MustChange,
    #[error("the password has expired: change it where it is managed")]
    PasswordExpired,
    #[error("the directory did not answer: {0}")]
    Unavailable(Unavailable),
    #[error("the name or the password is wrong")]
    Wrong,
}

/// A directory that gave no answer to rely on: it says nothing about anybody.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub String);

#[async_trait]
pub(crate) trait Directory: Send + Sync {
    /// Who a name and a password are of.
    async fn log_in(&self, name: &str, password: &str) -> Result<Person, LoginRefused>;

    /// The person of an id, without a password; none where there is no such person any more, or none who may log in.
    async fn find(&self, id: &str) -> Result<Option<Person>, Unavailable>;

    /// Tries all that a login needs but a user's password, and says exactly what is wrong.
    async fn test(&self) -> Result<(), Unavailable>;
}

/// Why a provider's directory is not at hand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    #[error("the directory cannot be asked: {0}")]
    Unavailable(#[from] Unavailable),
    #[error("there is no provider {0:?}")]
    Unknown(String),
}

/// A provider that is kept, and its directory.
pub(crate) async fn find(objects: &Objects, name: &str) -> Result<(Provider, Box<dyn Directory>), NotOpened> {
    let found = objects.get::<Provider>(name).await?;
    let Stored { object, secret } = found.ok_or_else(|| NotOpened::Unknown(name.to_owned()))?;
    let password = secret.map(|secret| secret.password).unwrap_or_default();
    let directory = open(&object.spec, &password)?;
    Ok((object.spec, directory))
}

/// The directory of a provider, with the password of who searches.
pub(crate) fn open(provider: &Provider, password: &str) -> Result<Box<dyn Directory>, Unavailable> {
    match &provider.directory {
        Kept::Ldap(ldap) => Ok(Box::new(ldap::Ldap::new(ldap.clone(), password.to_owned())?)),
    }
}
