//! What a user is called in a cluster: the bytes of the stream's header, made once per user and cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use drover_api::identity::{EXTRA_DISPLAY_NAME, EXTRA_TOKEN_ID, Identity, IdentityMalformed};
use drover_api::token::CredentialHash;
use drover_policy::{ClusterId, Permit};

use crate::authenticate::Authenticated;
use crate::tables::User;

/// Identities kept encoded: 10,000 credentials on ten clusters each, at about 500 bytes.
const IDENTITIES_MAX: u64 = 100_000;

/// Encoded identities by credential and cluster.
pub(crate) struct Identities {
    cache: moka::sync::Cache<(CredentialHash, ClusterId), Encoded>,
}

/// What was encoded, and from what: a new revision's user or role groups make it anew.
#[derive(Clone)]
struct Encoded {
    user: Arc<User>,
    role_groups: Arc<[Arc<str>]>,
    bytes: Bytes,
}

impl Identities {
    pub(crate) fn new() -> Self {
        Self { cache: moka::sync::Cache::new(IDENTITIES_MAX) }
    }

    /// The identity to send with a permitted request.
    pub(crate) fn of(&self, who: &Authenticated, permit: &Permit) -> Result<Bytes, IdentityMalformed> {
        let key = (who.credential, permit.cluster().clone());
        if let Some(encoded) = self.cache.get(&key)
            && Arc::ptr_eq(&encoded.user, &who.user)
            && Arc::ptr_eq(&encoded.role_groups, permit.role_groups())
        {
            return Ok(encoded.bytes);
        }
        let bytes = Bytes::from(identity(who, permit).encode()?);
        let (user, role_groups) = (who.user.clone(), permit.role_groups().clone());
        self.cache.insert(key, Encoded { user, role_groups, bytes: bytes.clone() });
        Ok(bytes)
    }
}

/// The identity of a permitted request: the user's own groups and the role groups that the policy gives.
pub(crate) fn identity(who: &Authenticated, permit: &Permit) -> Identity {
    let own = who.user.groups.iter().map(|group| group.as_str().to_owned());
    let roles = permit.role_groups().iter().map(|group| group.to_string());
    let display_name =
        who.user.display_name.iter().map(|name| (EXTRA_DISPLAY_NAME.to_owned(), vec![name.clone()]));
    let token = (EXTRA_TOKEN_ID.to_owned(), vec![who.token.to_string()]);
    Identity {
        user: who.user.name.clone(),
        uid: who.user.principal.as_str().to_owned(),
        groups: own.chain(roles).collect(),
        extras: display_name.chain([token]).collect::<BTreeMap<_, _>>(),
    }
}
