//! A directory that users come from, as a company has it already.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What the principals of its users and groups begin with: it does not change, and nobody gets it again.
    pub name: String,
    /// Nobody logs in through it; who is logged in stays so, but JWTs of an issuer end at once.
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub access: Access,
    /// Principals of users and groups, for the access modes that ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    pub directory: Directory,
}

/// Who of a directory may log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Whoever is listed in `allowed`, or is in a group that is.
    Required,
    /// Those, and whoever has a role, oneself or by a group.
    #[default]
    Restricted,
    /// Everybody whom the directory knows.
    Unrestricted,
}

/// What kind of directory it is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Directory {
    /// GitHub, or a GitHub Enterprise server.
    Github(Github),
    /// Whoever signs JWTs for programs: a CI system, or a cluster for its service accounts.
    Jwt(Jwt),
    /// Active Directory, or another LDAP server.
    Ldap(Ldap),
    /// An OpenID Provider (OpenID Connect Core 1.0).
    Oidc(Oidc),
}

/// People log in in a browser, at GitHub; their organisations and teams are their groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Github {
    /// `https://HOST` of a GitHub Enterprise server. Absent: github.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Authorities that its certificate comes from, as PEM. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Of the OAuth app. Its secret is the provider's.
    pub client_id: String,
}

/// People log in in a browser, at the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// As the provider writes it: `/.well-known/openid-configuration` is below it.
    pub issuer: String,
    /// Authorities that its certificate comes from, as PEM. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// What Drover is registered as. Its secret is the provider's; where that is empty, it is a public client.
    pub client_id: String,
    /// Asked for beside `openid`: such as `profile`, `groups`, and `offline_access` where groups are to follow the provider.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The claim that people are called by.
    #[serde(default = "preferred_username")]
    pub login_claim: String,
    /// The claim with their groups, in the ID token or at the userinfo endpoint.
    #[serde(default = "groups")]
    pub groups_claim: String,
}

fn preferred_username() -> String {
    "preferred_username".to_owned()
}

fn groups() -> String {
    "groups".to_owned()
}

/// An issuer of JWTs (RFC 7519). Its keys tell it from others: many clusters have one `iss`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What `iss` must be, exactly.
    pub issuer: String,
    /// What `aud` must hold: a name for Drover and for nothing else.
    pub audience: String,
    #[serde(default)]
    pub keys: Keys,
    /// Authorities that its server's certificate comes from, as PEM. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Tried in this order: the first whose claims all match says who it is.
    pub rules: Vec<JwtRule>,
}

/// Where an issuer's keys (RFC 7517) are from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// From where `<issuer>/.well-known/openid-configuration` says (OpenID Connect Discovery 1.0).
    #[default]
    Discovery,
    /// These, as a JWK Set: of an issuer that control cannot reach.
    Set(String),
    /// From this URL, as a JWK Set.
    Url(String),
}

/// Whose JWTs are whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtRule {
    /// The name of the identity: its principal is `<provider>:user/<name>`.
    pub name: String,
    /// Claims, each with the one value that matches: texts, numbers, true and false. Best are those that nobody else
    /// can come to have: `repository_id` rather than `repository`. A name that begins with `/` is a JSON pointer
    /// (RFC 6901): `/kubernetes.io/serviceaccount/uid`.
    pub claims: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ldap {
    /// `ldaps://host[:port]`, or `ldap://host[:port]` for StartTLS. Tried in this order; never without TLS.
    pub servers: Vec<String>,
    /// Other servers, written so, to which references of theirs are followed: each is asked as who searches, with its
    /// password. References to any other are not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referrals: Vec<String>,
    /// Authorities that their certificates come from, as PEM. Absent: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(default)]
    pub schema: Schema,
    /// Who searches: a DN, or in Active Directory also `name@domain`.
    pub bind_name: String,
    /// Where users are, and everything below.
    pub user_base: String,
    /// Where groups are; absent: where users are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_base: Option<String>,
    /// What users must match beside their name, such as `(department=IT)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_filter: Option<String>,
    /// What may stand before a name, as in `CORP\alice`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// How a directory names what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// `sAMAccountName` and `objectSid`; nested groups by the matching rule in chain.
    #[default]
    ActiveDirectory,
    /// `uid` and `entryUUID`, as in RFC 2798 and 4530; nested groups by searching upwards.
    InetOrgPerson,
}

impl Kind for Provider {
    const KIND: &'static str = "Provider";
    const PLURAL: &'static str = "providers";

    fn key(&self) -> &str {
        &self.name
    }
}
