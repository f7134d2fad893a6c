//! A token as it is stored: its public id and its hash, never the secret.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::signed::PublicKey;
use crate::token::{CredentialHash, TokenId};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub id: TokenId,
    pub hash: CredentialHash,
    /// By which agents know that the token was presented: of a key that is derived from the whole token.
    pub proof_key: PublicKey,
    /// Principal of the owner.
    pub user: String,
    pub kind: TokenKind,
    pub scope: TokenScope,
    pub expires_at: Timestamp,
    /// Ends it as well once it was not used for so long. Control sees to it: gateways do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
    /// What the token of a login is part of; others are part of nothing. Gateways do not know, either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// The token that it was made with, and with which it ends; absent where a login made it. Gateways do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<TokenId>,
    /// Of a JWT, when it ends by its own word: until then it stays revoked. Gateways do not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_ends_at: Option<Timestamp>,
}

/// A login and what renewed it, one token after the other: they end together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Id of the first token.
    pub id: TokenId,
    /// When a person last logged in for it: what was granted or renewed has the time of what it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Timestamp>,
    /// After that, only a person's login begins another.
    pub ends_at: Timestamp,
    /// From then on the token may be renewed: the last of a session never.
    pub renewable_at: Timestamp,
    /// It has been: who tries that once more has a copy of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub renewed: bool,
}

impl Token {
    /// From when on it may be renewed, where it ever may.
    pub fn renewable_at(&self) -> Option<Timestamp> {
        let session = self.session.as_ref().filter(|session| !session.renewed)?;
        (session.renewable_at < session.ends_at).then_some(session.renewable_at)
    }
}

impl Kind for Token {
    const KIND: &'static str = "Token";
    const PLURAL: &'static str = "tokens";

    fn key(&self) -> &str {
        self.id.as_str()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    Bot,
    /// A JWT of an issuer that is trusted: whoever holds it shows the JWT itself.
    Jwt,
    Kubeconfig,
    Login,
}

/// Where a token may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    All,
    /// These clusters only, by id.
    Clusters(Vec<String>),
}
