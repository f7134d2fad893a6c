//! The resource kinds as they are written: one file per kind, unknown fields refused.

mod binding;
mod cluster;
mod enrolment;
mod provider;
mod registration;
mod role;
mod token;
mod user;

pub use binding::{Binding, Domain};
pub use cluster::Cluster;
pub use enrolment::{ENROLMENT_KEYS_MAX, Enrolment, Holder};
pub use provider::{Access, Directory, Github, Jwt, JwtRule, Keys, Ldap, Oidc, Provider, Schema};
pub use registration::{Process, ProcessMalformed, RegistrationToken};
pub use role::{Effect, Role, Rule};
pub use token::{Session, Token, TokenKind, TokenScope};
pub use user::User;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is kept of a kind, and how one object is told from another.
pub trait Kind: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Singular, as in `kind: User`.
    const KIND: &'static str;
    /// As in a path, `/v1/users`.
    const PLURAL: &'static str;
    /// Of the stored form: a reader refuses what is newer than it knows.
    const FORMAT: u32 = 1;

    /// What only this object of the kind is called, for as long as it is there.
    fn key(&self) -> &str;
}

/// An object and when it came and changed, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "{K}Object")]
pub struct Object<K> {
    pub metadata: Metadata,
    pub spec: K,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Of the last change: a change says which one it was made from.
    pub revision: u64,
    pub created_at: Timestamp,
}
