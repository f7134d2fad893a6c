//! Objects as types, over the bytes of a store: formats are checked, secrets are sealed.

use std::sync::Arc;

use drover_api::kinds::{
    Binding, Cluster, Enrolment, Kind, Metadata, Object, Provider, RegistrationToken, Role, Token, User,
};
use drover_api::snapshot::{Alone, Unsound};
use drover_api::token::{CredentialHash, TokenId};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::seal::{Seal, SealBroken};
use crate::store::{Expected, Record, Revision, Store, StoreError, Value};

/// A kind that control keeps, and what of it never leaves control.
pub trait Kept: Kind {
    type Secret: Serialize + DeserializeOwned + Send + Sync;

    /// Whether gateways would take it up: nothing else is kept.
    fn check(&self) -> Result<(), Unsound> {
        Ok(())
    }
}

/// Of kinds that have none.
#[derive(Serialize, Deserialize)]
pub enum NoSecret {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserSecret {
    /// In argon2's own form, with its parameters.
    pub password: String,
    /// Those before it, the latest first, in the same form: none of them is taken again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSecret {
    /// Of who searches.
    pub password: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationSecret {
    /// Proves the token to control, and as a key control's CA to who holds the token.
    pub hash: CredentialHash,
}

impl Kept for Binding {
    type Secret = NoSecret;

    fn check(&self) -> Result<(), Unsound> {
        self.check_alone()
    }
}

impl Kept for Cluster {
    type Secret = NoSecret;

    fn check(&self) -> Result<(), Unsound> {
        self.check_alone()
    }
}

impl Kept for Provider {
    type Secret = ProviderSecret;
}

impl Kept for RegistrationToken {
    type Secret = RegistrationSecret;
}

impl Kept for Enrolment {
    type Secret = NoSecret;
}

impl Kept for Role {
    type Secret = NoSecret;

    fn check(&self) -> Result<(), Unsound> {
        self.check_alone()
    }
}

impl Kept for Token {
    type Secret = NoSecret;

    fn check(&self) -> Result<(), Unsound> {
        self.check_alone()
    }
}

impl Kept for User {
    type Secret = UserSecret;

    fn check(&self) -> Result<(), Unsound> {
        self.check_alone()
    }
}

/// A name whose user is gone: it stays theirs, in every cluster's bindings and records.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserName {
    pub name: String,
    pub principal: String,
    /// The user was: whoever comes back by that principal is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

impl Kind for UserName {
    const KIND: &'static str = "UserName";
    const PLURAL: &'static str = "usernames";

    fn key(&self) -> &str {
        &self.name
    }
}

impl Kept for UserName {
    type Secret = NoSecret;
}

/// A JWT that was revoked, and holds by its own word until it ends.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedJwt {
    /// As its token had it.
    pub id: TokenId,
    pub ends_at: Timestamp,
}

/// Of a JWT from before its end was kept.
fn untold() -> Timestamp {
    Timestamp::now().saturating_add(SignedDuration::from_hours(365 * 24)).unwrap_or(Timestamp::MAX)
}

impl RevokedJwt {
    pub fn of(token: &Token) -> Self {
        Self { id: token.id.clone(), ends_at: token.jwt_ends_at.unwrap_or_else(untold) }
    }
}

impl Kind for RevokedJwt {
    const KIND: &'static str = "RevokedJwt";
    const PLURAL: &'static str = "revokedjwts";

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

impl Kept for RevokedJwt {
    type Secret = NoSecret;
}

/// What a user let Drover ask their provider for, when they logged in in a browser.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Of the user.
    pub principal: String,
    /// When the provider last gave something to ask with, or said at a login that there is nothing.
    pub known_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantSecret {
    /// To ask with again; absent where the provider gave none.
    pub token: Option<String>,
}

impl Kind for Grant {
    const KIND: &'static str = "Grant";
    const PLURAL: &'static str = "grants";

    fn key(&self) -> &str {
        &self.principal
    }
}

impl Kept for Grant {
    type Secret = GrantSecret;
}

/// A gateway that follows or followed: it may serve from what it has.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub name: String,
}

impl Kind for Gateway {
    const KIND: &'static str = "Gateway";
    const PLURAL: &'static str = "gateways";

    fn key(&self) -> &str {
        &self.name
    }
}

impl Kept for Gateway {
    type Secret = NoSecret;
}

/// An object with its secret.
pub struct Stored<K: Kept> {
    pub object: Object<K>,
    pub secret: Option<K::Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    #[error("what was written is not published yet")]
    Behind,
    #[error("{kind} {key:?} is malformed in the store: {error}")]
    Malformed { kind: &'static str, key: String, error: serde_json::Error },
    #[error("the secret of {kind} {key:?} {error}")]
    Sealed { kind: &'static str, key: String, error: SealBroken },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{kind} {key:?} is not sound: {unsound}")]
    Unsound { kind: &'static str, key: String, unsound: Unsound },
    #[error("{kind} {key:?} has format {found}, and this program knows {known}: use the newer program")]
    TooNew { kind: &'static str, key: String, found: u32, known: u32 },
}

#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
    seal: Arc<Seal>,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>, seal: Seal) -> Self {
        Self { store, seal: Arc::new(seal) }
    }

    /// For what leaves control sealed, and comes back.
    pub(crate) fn seal(&self) -> &Seal {
        &self.seal
    }

    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub async fn get<K: Kept>(&self, key: &str) -> Result<Option<Stored<K>>, ObjectsError> {
        let record = self.store.get(K::KIND, key).await?;
        record.map(|record| self.read(record)).transpose()
    }

    /// In the order of their keys, without their secrets, and without those that cannot be read: of what gateways
    /// get, they are set aside.
    pub async fn list<K: Kept>(&self) -> Result<Vec<Object<K>>, ObjectsError> {
        let records = self.store.list(K::KIND).await?.into_iter();
        let readable = |record| {
            object(record)
                .inspect_err(|error| warn!(%error, "an object cannot be read, and is in no list"))
                .ok()
        };
        Ok(records.filter_map(readable).collect())
    }

    pub async fn create<K: Kept>(
        &self,
        spec: &K,
        secret: Option<&K::Secret>,
    ) -> Result<Object<K>, ObjectsError> {
        let value = self.value(spec, secret)?;
        object(self.store.put(K::KIND, spec.key(), value, Expected::Absent).await?)
    }

    /// Replaces spec and secret of the object as it was at a revision.
    pub async fn update<K: Kept>(
        &self,
        revision: Revision,
        spec: &K,
        secret: Option<&K::Secret>,
    ) -> Result<Object<K>, ObjectsError> {
        let value = self.value(spec, secret)?;
        object(self.store.put(K::KIND, spec.key(), value, Expected::Revision(revision)).await?)
    }

    /// Creates the object, or replaces whatever is there: for what one task alone writes, or under the lock of writes.
    pub async fn put<K: Kept>(
        &self,
        spec: &K,
        secret: Option<&K::Secret>,
    ) -> Result<Object<K>, ObjectsError> {
        match self.store.get(K::KIND, spec.key()).await? {
            None => self.create(spec, secret).await,
            Some(record) => self.update(record.revision, spec, secret).await,
        }
    }

    pub async fn delete<K: Kept>(&self, key: &str, revision: Revision) -> Result<Revision, ObjectsError> {
        Ok(self.store.delete(K::KIND, key, revision).await?)
    }

    /// Whatever is there, also where it cannot be read.
    pub async fn delete_unread<K: Kept>(&self, key: &str) -> Result<Revision, ObjectsError> {
        let revision = self.store.get(K::KIND, key).await?.map(|record| record.revision);
        self.delete::<K>(key, revision.unwrap_or_default()).await
    }

    fn value<K: Kept>(&self, spec: &K, secret: Option<&K::Secret>) -> Result<Value, ObjectsError> {
        let (kind, key) = (K::KIND, spec.key());
        spec.check().map_err(|unsound| ObjectsError::Unsound { kind, key: key.to_owned(), unsound })?;
        let malformed = |error| ObjectsError::Malformed { kind, key: key.to_owned(), error };
        let secret = secret.map(serde_json::to_vec).transpose().map_err(malformed)?;
        Ok(Value {
            format: K::FORMAT,
            spec: serde_json::to_vec(spec).map_err(malformed)?,
            secret: secret.map(|secret| self.seal.seal(kind, key, &secret)),
        })
    }

    fn read<K: Kept>(&self, mut record: Record) -> Result<Stored<K>, ObjectsError> {
        let (key, secret) = (record.key.clone(), record.value.secret.take());
        let object = object(record)?;
        let open = |sealed: Vec<u8>| {
            let opened = self.seal.open(K::KIND, &key, &sealed);
            let opened =
                opened.map_err(|error| ObjectsError::Sealed { kind: K::KIND, key: key.clone(), error })?;
            serde_json::from_slice(&opened).map_err(|error| ObjectsError::Malformed {
                kind: K::KIND,
                key: key.clone(),
                error,
            })
        };
        Ok(Stored { object, secret: secret.map(open).transpose()? })
    }
}

/// What a record says, in its kind's type.
pub fn object<K: Kept>(record: Record) -> Result<Object<K>, ObjectsError> {
    let Record { key, revision, created_at, value, .. } = record;
    if value.format > K::FORMAT {
        return Err(ObjectsError::TooNew { kind: K::KIND, key, found: value.format, known: K::FORMAT });
    }
    let spec = serde_json::from_slice(&value.spec).map_err(|error| ObjectsError::Malformed {
        kind: K::KIND,
        key,
        error,
    })?;
    Ok(Object { metadata: Metadata { revision, created_at }, spec })
}

#[cfg(test)]
mod tests {
    use drover_api::kinds::Object;

    use super::*;
    use crate::store::Sqlite;

    fn zoe() -> User {
        let text = r#"{"principal":"local:user/7","name":"zoe"}"#;
        serde_json::from_str(text).unwrap()
    }

    #[tokio::test]
    async fn a_secret_is_kept_sealed_and_no_list_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
        let objects = Objects::new(store.clone(), Seal::new(&[7; 32]));
        let secret = UserSecret { password: "a-hash-of-hers".to_owned(), former: vec![] };
        let made = objects.create(&zoe(), Some(&secret)).await.unwrap();
        let read: Stored<User> = objects.get("zoe").await.unwrap().unwrap();
        assert_eq!(read.object.metadata, made.metadata);
        assert_eq!(read.secret.unwrap().password, "a-hash-of-hers");
        let list: Vec<Object<User>> = objects.list().await.unwrap();
        assert!(!serde_json::to_string(&list).unwrap().contains("hers"));
        let bytes = std::fs::read(folder.path().join("store-wal")).unwrap();
        assert!(bytes.windows(3).any(|part| part == b"zoe") && !bytes.windows(4).any(|part| part == b"hers"));

        let other = Objects::new(store, Seal::new(&[8; 32]));
        let refused = other.get::<User>("zoe").await.err().unwrap().to_string();
        assert!(refused.contains("another key"), "{refused}");
    }

    #[tokio::test]
    async fn an_object_of_a_newer_format_or_with_unknown_fields_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
        let spec = serde_json::to_vec(&zoe()).unwrap();
        let newer = Value { format: User::FORMAT + 1, spec, secret: None };
        store.put(User::KIND, "zoe", newer, Expected::Absent).await.unwrap();
        let spec = br#"{"principal":"local:user/8","name":"yan","admin":true}"#.to_vec();
        store
            .put(User::KIND, "yan", Value { format: 1, spec, secret: None }, Expected::Absent)
            .await
            .unwrap();
        let objects = Objects::new(store, Seal::new(&[7; 32]));
        assert!(matches!(objects.get::<User>("zoe").await, Err(ObjectsError::TooNew { found: 2, .. })));
        assert!(matches!(objects.get::<User>("yan").await, Err(ObjectsError::Malformed { .. })));
        // One that can be read holds.
        let adam = User { name: "adam".into(), ..zoe() };
        objects.create(&adam, None).await.unwrap();
        let listed: Vec<_> =
            objects.list::<User>().await.unwrap().into_iter().map(|user| user.spec.name).collect();
        assert_eq!(listed, ["adam"]);
    }

    #[tokio::test]
    async fn regression_what_gateways_would_not_take_up_is_never_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("store")).unwrap());
        let objects = Objects::new(store, Seal::new(&[7; 32]));
        let made = objects.create(&zoe(), None).await.unwrap();
        for unsound in [
            User { display_name: Some(" Zoe".into()), ..zoe() },
            User { display_name: Some(String::new()), ..zoe() },
            User { display_name: Some("Zoe\u{a0}".into()), ..zoe() },
            User { groups: vec!["system:masters".into()], ..zoe() },
            User { principal: "local:group/7".into(), ..zoe() },
        ] {
            let refused = objects.update(made.metadata.revision, &unsound, None).await;
            assert!(matches!(refused, Err(ObjectsError::Unsound { .. })), "{unsound:?}");
        }
        let unsound = User { name: "system:zoe".into(), ..zoe() };
        assert!(matches!(objects.put(&unsound, None).await, Err(ObjectsError::Unsound { .. })));
    }
}
