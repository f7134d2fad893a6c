//! What the REST API under `/v1` takes and gives, beside the kinds themselves.
//!
//! `/v1/<plural>` lists (GET) and creates (POST); `/v1/<plural>/<key>` reads (GET), replaces (PUT) and deletes
//! (DELETE). Refusals are Kubernetes Statuses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::{
    Binding, Cluster, Domain, Enrolment, Kind, Object, Process, Provider, RegistrationToken, Role, Token,
    TokenKind, TokenScope, User,
};
use crate::token::TokenId;

pub const PREFIX: &str = "/v1";
pub const LOGIN: &str = "/v1/login";
/// Makes of a login's token the next one of its session.
pub const RENEWAL: &str = "/v1/login/renewal";
/// Where a JWT of a trusted issuer is shown first: by a gateway, or ahead of time.
pub const JWT: &str = "/v1/jwt";
/// Who the caller is.
pub const SELF: &str = "/v1/self";
/// Of one user.
pub const PASSWORD: &str = "/v1/users/{key}/password";
/// Where a program begins a login that a person grants in a browser, and where it asks for the token (RFC 8628).
pub const DEVICE_AUTHORIZATION: &str = "/v1/device_authorization";
pub const DEVICE_TOKEN: &str = "/v1/device_token";
/// What such a program calls itself, and how it asks.
pub const CLIENT_ID: &str = "drover";
pub const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How a program asks with a code that a browser brought it (RFC 6749, 4.1.3), and where it sends the browser for one.
pub const CODE_GRANT: &str = "authorization_code";
pub const AUTHORIZE: &str = "/console/authorize";
/// What keeps Drover itself from being whole.
pub const STATUS: &str = "/v1/status";
/// The gateways that follow control, or did and may still serve.
pub const GATEWAYS: &str = "/v1/gateways";
/// One that is gone for good: it is waited for and named no more (DELETE).
pub const GATEWAY: &str = "/v1/gateways/{key}";
/// The groups of the users and bindings that the caller sees.
pub const GROUPS: &str = "/v1/groups";
/// When the tokens that the caller sees were last used.
pub const TOKEN_USES: &str = "/v1/tokenuses";
/// Of one user: ends all of them (DELETE).
pub const USER_TOKENS: &str = "/v1/users/{key}/tokens";
/// Of one user: asks the directory again.
pub const REFRESH_USER: &str = "/v1/users/{key}/refresh";
/// Of one provider: tries it.
pub const TEST_PROVIDER: &str = "/v1/providers/{key}/test";
/// Of one provider: users and groups there with a text in their names, which `name` is in the query.
pub const PRINCIPALS: &str = "/v1/providers/{key}/principals";
/// Of one provider: gives it another.
pub const PROVIDER_SECRET: &str = "/v1/providers/{key}/secret";
/// The group of our kinds in rules.
pub const API_GROUP: &str = "drover.io";
/// Where a gateway says whose address a request came from; from anybody else it says nothing.
pub const CLIENT: &str = "drover-client";
/// Gateways that have not applied a change are named here (RFC 7234, section 5.5, as Kubernetes uses it).
pub const WARNING: &str = "warning";

/// A kind that the API serves, and what makes one.
pub trait Served: Kind {
    type Create: Serialize + serde::de::DeserializeOwned + Send;
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{K}List")]
pub struct List<K> {
    pub items: Vec<Object<K>>,
}

/// An object that was made, and what is shown only this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Created{K}")]
pub struct Created<K> {
    pub object: Object<K>,
    /// Of a token: the token. Of a user whose password was drawn: the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Of the directory that knows the user; absent: Drover's own users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    pub name: String,
    pub password: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtLogin {
    pub jwt: String,
}

/// A JWT that is known from now on: it is a token, and shown as one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct JwtShown {
    /// By which it is listed and revoked.
    pub id: TokenId,
    /// Name of the user.
    pub user: String,
    pub expires_at: Timestamp,
}

/// What a program is told (RFC 8628, 3.2).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceAuthorization {
    pub device_code: String,
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: String,
    /// Seconds.
    pub expires_in: u64,
    pub interval: u64,
}

/// The token of a login that was granted (RFC 6749, 5.1).
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct DeviceToken {
    pub access_token: String,
    pub token_type: String,
    /// Seconds.
    pub expires_in: u64,
    pub expires_at: Timestamp,
    /// From then on it may be renewed; absent where it never may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewable_at: Option<Timestamp>,
    /// Name of the user.
    pub user: String,
}

/// Why there is none (RFC 8628, 3.5).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceError {
    pub error: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The one that it replaces, where it is one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Absent: one is drawn and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    pub user: Object<User>,
    /// The token that says so.
    pub token: Object<Token>,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Absent: one is drawn and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Nothing is kept before it was tried: the server must answer, and the password let in who searches.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProvider {
    pub spec: Provider,
    /// Of who searches; of an OpenID Provider and of GitHub, the client's secret. It is never shown.
    #[serde(default)]
    pub password: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeSecret {
    /// Of who searches; of an OpenID Provider and of GitHub, the client's secret.
    pub password: String,
    /// As it is to be with it, from the revision that it was made from; absent: as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object<Provider>>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    pub kind: TokenKind,
    pub scope: TokenScope,
    /// Absent: what is usual for the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
    /// Ends the token as well once it was not used for so long; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u64>,
    /// Name of the owner; absent: the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Groups {
    pub items: Vec<Group>,
}

/// A group is there where a user is in it, or a binding names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// `<provider>:group/<id>`.
    pub principal: String,
    /// What the directory calls it, where that is known: it may change, and be another's as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Names of the users who are in it: of a directory's, those who have logged in.
    pub members: Vec<String>,
    /// Names of the bindings that give it a role.
    pub bindings: Vec<String>,
}

/// What a search of a provider found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Principals {
    pub items: Vec<FoundPrincipal>,
    /// Whether there are more than are shown.
    pub more: bool,
}

/// A user or a group of a directory's, whether or not anybody has logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FoundPrincipal {
    /// What bindings name.
    pub principal: String,
    /// What the directory calls it: it may change.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Its distinguished name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
}

/// By the tokens' ids. Known to some minutes; of a token that is not here no use was heard of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TokenUses {
    pub last_used_at: BTreeMap<String, Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Revoked {
    /// Ids of the tokens.
    pub tokens: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRegistrationToken {
    pub process: Process,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBinding {
    /// Absent: one is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub principal: String,
    pub role: String,
    pub domain: Domain,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Served for User {
    type Create = CreateUser;
}

impl Served for Provider {
    type Create = CreateProvider;
}

impl Served for Token {
    type Create = CreateToken;
}

impl Served for Cluster {
    type Create = CreateCluster;
}

impl Served for RegistrationToken {
    type Create = CreateRegistrationToken;
}

/// Made by enrolling alone.
impl Served for Enrolment {
    type Create = Enrolment;
}

impl Served for Role {
    type Create = Role;
}

impl Served for Binding {
    type Create = CreateBinding;
}

/// The gateways that control knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateways {
    pub items: Vec<GatewayStatus>,
    /// The newest that gateways can serve from.
    pub revision: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayStatus {
    pub name: String,
    /// That it serves from, as far as control knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// For how many seconds it has not followed; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_s: Option<u64>,
}

/// Who renews a login. The same program that asks again within a minute, because the answer was lost, gets the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewLogin {
    /// A secret of the program's own, at most 128 bytes, drawn for the token that it renews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// Objects that are not in force as they were written, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DroverStatus {
    /// At most 100; those that others are set aside for come first.
    pub set_aside: Vec<SetAside>,
    /// All of them.
    pub set_aside_total: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetAside {
    pub kind: String,
    pub key: String,
    pub problem: String,
}
