//! The directories that users come from: one file for each kind, behind one trait.

use async_trait::async_trait;
use drover_api::kinds::{Directory as Kept, Provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::objects::{Objects, ObjectsError, Stored};

pub(crate) mod jwt;
mod ldap;
pub(crate) mod web;

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
    #[error("nobody logs in through this provider with a password")]
    NoPasswords,
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
    /// Who a name and a password are of, where people have one here.
    async fn log_in(&self, _name: &str, _password: &str) -> Result<Person, LoginRefused> {
        Err(LoginRefused::NoPasswords)
    }

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
        Kept::Jwt(issuer) => Ok(Box::new(jwt::Jwt::new(issuer.clone())?)),
        Kept::Ldap(ldap) => Ok(Box::new(ldap::Ldap::new(ldap.clone(), password.to_owned())?)),
    }
}

/// Trusts the authorities of a PEM, and no others.
fn trusting(ca: &str) -> Result<ClientConfig, Unavailable> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        let certificate =
            certificate.map_err(|error| Unavailable(format!("the authority is no PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| Unavailable(format!("the authority cannot be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(Unavailable("the authority's PEM has no certificate".to_owned()));
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
