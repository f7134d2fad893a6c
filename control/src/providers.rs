//! The directories that users come from: one file for each kind, behind one trait.

use std::collections::BTreeMap;

use async_trait::async_trait;
use drover_api::kinds::{Directory as Kept, Provider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::objects::{Objects, ObjectsError, Stored};

mod github;
pub(crate) mod jwt;
mod ldap;
mod oidc;
pub(crate) mod web;

/// A person as a directory knows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Never given to anybody else.
    pub id: String,
    /// What people call the account: it may change.
    pub login: String,
    pub display_name: Option<String>,
    /// The groups that the person is in, however deep, by their ids: with what they are called, where that is another.
    pub groups: BTreeMap<String, Option<String>>,
}

impl Person {
    /// Those that are called something, with their ids.
    pub(crate) fn named_groups(&self) -> impl Iterator<Item = (&str, &str)> {
        self.groups.iter().filter_map(|(id, name)| Some((id.as_str(), name.as_deref()?)))
    }
}

/// What a search found: so many of each at most.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    pub users: Vec<Match>,
    pub groups: Vec<Match>,
}

/// A user or a group that a search found.
#[derive(Debug)]
pub(crate) struct Match {
    pub id: String,
    pub name: String,
    pub display_name: Option<String>,
    /// Which one of several of that name, where the provider tells so.
    pub dn: Option<String>,
}

/// Why a name and a password let nobody in. Directories tell most of these to whoever knows the password only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginRefused {
    #[error("the account has expired")]
    AccountExpired,
    #[error("the account is disabled")]
    Disabled,
    #[error("the provider let nobody in: {0}")]
    Denied(String),
    #[error("the account is locked: wait, or ask who manages it")]
    Locked,
    #[error("the password has to be changed first, where it is managed")]
    MustChange,
    #[error(
        "people log in through this provider in a browser, and not with a password: drover login, without --user"
    )]
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

/// Why a search found not even nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSearched {
    #[error("{0}")]
    NoSearch(&'static str),
    #[error("the directory did not answer: {0}")]
    Unavailable(#[from] Unavailable),
}

#[async_trait]
pub(crate) trait Directory: Send + Sync {
    /// Who a name and a password are of, where people have one here.
    async fn log_in(&self, _name: &str, _password: &str) -> Result<Person, LoginRefused> {
        Err(LoginRefused::NoPasswords)
    }

    /// The person of an id, without a password: by what the person let Drover ask with, where the provider needs that.
    async fn find(&self, id: &str, grant: Option<&str>) -> Result<Found, Unavailable>;

    /// Users and groups with a text in their names, at most so many of each.
    async fn search(&self, text: &str, max: usize) -> Result<Matches, NotSearched>;

    /// How people log in in a browser, where they do.
    fn redirect(&self) -> Option<&dyn Redirect> {
        None
    }

    /// Tries all that a login needs but a user's password, and says exactly what is wrong: with where browsers come back
    /// to, which some providers check.
    async fn test(&self, back: &str) -> Result<(), Unavailable>;
}

/// A provider that people log in at themselves, in a browser (RFC 6749, 4.1, with RFC 7636).
#[async_trait]
pub(crate) trait Redirect: Send + Sync {
    /// Where to send a browser that is to come back to a URL of ours.
    async fn begin(&self, back: &str) -> Result<Begun, Unavailable>;

    /// Who came back, by the code that the provider gave along.
    async fn finish(&self, back: &str, code: &str, begun: &Begun) -> Result<Known, LoginRefused>;

    /// What the provider calls itself where it says so in its answer (RFC 9207).
    fn issuer(&self) -> Option<&str> {
        None
    }
}

/// A code and a token that no provider gives: what one says to them tells whether all is right but those.
const NEVER_GIVEN: &str = "drover-tries-whether-the-client-is-known";

/// A login that has begun in a browser.
pub(crate) struct Begun {
    pub url: String,
    /// Comes back as it is.
    pub state: String,
    pub nonce: String,
    pub verifier: String,
}

/// Who logged in, and what to ask with again, where the provider gave that.
#[derive(Debug)]
pub(crate) struct Known {
    pub person: Person,
    pub grant: Option<String>,
}

/// What a provider says of an id.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is no such person any more, or none who may log in.
    Gone,
    /// With what to ask with from now on.
    Known(Box<Known>),
    /// There is nothing to ask with.
    Unknown,
}

impl From<Option<Person>> for Found {
    fn from(person: Option<Person>) -> Self {
        person.map_or(Self::Gone, |person| Self::Known(Box::new(Known { person, grant: None })))
    }
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
        Kept::Github(github) => Ok(Box::new(github::Github::new(github.clone(), password.to_owned())?)),
        Kept::Jwt(issuer) => Ok(Box::new(jwt::Jwt::new(issuer.clone())?)),
        Kept::Ldap(ldap) => Ok(Box::new(ldap::Ldap::new(ldap.clone(), password.to_owned())?)),
        Kept::Oidc(oidc) => Ok(Box::new(oidc::Oidc::new(oidc.clone(), password.to_owned())?)),
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
