//! Asks Drover's API.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use drover_api::kinds::{Kind, Object, Provider, Token, User};
use drover_api::rest::{
    CLIENT_ID, CODE_GRANT, ChangePassword, ChangeSecret, Created, DEVICE_AUTHORIZATION, DEVICE_GRANT,
    DEVICE_TOKEN, DeviceAuthorization, DeviceError, DeviceToken, DroverStatus, GATEWAY, GATEWAYS, GROUPS,
    GatewayStatus, Gateways, Group, Groups, JWT, JwtLogin, JwtShown, LOGIN, List, Login, PASSWORD, PREFIX,
    PRINCIPALS, PROVIDER_SECRET, Principals, REFRESH_USER, RENEWAL, RenewLogin, Revoked, SELF, STATUS,
    Served, TEST_PROVIDER, TOKEN_USES, TokenUses, USER_TOKENS,
};
use drover_api::status::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::config::{Config, Held};
use crate::loopback::Brought;

/// Above what a gateway waits for control, which waits for gateways.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer, in bytes: lists of a hundred thousand tokens.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What comes of a renewal.
pub(crate) enum Renewal {
    /// The login has, and why.
    Ended(String),
    Next(Box<Created<Token>>),
    /// The token lasts until its end, and nothing follows it.
    Never,
}

pub(crate) struct Client {
    agent: Agent,
    server: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        Self::within(config, TIMEOUT)
    }

    /// One whose requests take no longer.
    pub(crate) fn within(config: &Config, timeout: Duration) -> anyhow::Result<Self> {
        let roots = match &config.ca {
            Some(pem) => {
                let certificate = Certificate::from_pem(pem.as_bytes()).context("the server's authority")?;
                RootCerts::Specific(Arc::new(vec![certificate]))
            }
            None => RootCerts::WebPki,
        };
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .build();
        let (server, token) =
            (config.server()?.to_owned(), config.held.as_ref().map(Held::token).transpose()?);
        Ok(Self { agent: agent.into(), server, token })
    }

    pub(crate) fn login(&self, login: &Login) -> anyhow::Result<Created<Token>> {
        self.send("POST", LOGIN, Some(login))
    }

    /// The next token of the login.
    pub(crate) fn renew(&self, program: Option<String>) -> anyhow::Result<Renewal> {
        let answer = self.ask("POST", RENEWAL, Some(&RenewLogin { program }))?;
        match answer.status().as_u16() {
            // Control may be older, too, and the gateway tell so.
            403..=405 => Ok(Renewal::Never),
            401 => Ok(Renewal::Ended(
                read::<()>(answer).err().map(|error| error.to_string()).unwrap_or_default(),
            )),
            _ => Ok(Renewal::Next(Box::new(read(answer)?))),
        }
    }

    /// Makes the JWT that is shown as a token known to gateways.
    pub(crate) fn show_jwt(&self) -> anyhow::Result<JwtShown> {
        let jwt = self.token.clone().unwrap_or_default();
        let login = JwtLogin { jwt };
        // It is no token yet.
        let without = Self { agent: self.agent.clone(), server: self.server.clone(), token: None };
        without.send("POST", JWT, Some(&login))
    }

    pub(crate) fn who_am_i(&self) -> anyhow::Result<drover_api::rest::Caller> {
        self.send("GET", SELF, None::<&()>)
    }

    pub(crate) fn change_password(
        &self,
        user: &str,
        change: &ChangePassword,
    ) -> anyhow::Result<Created<User>> {
        self.send("POST", &PASSWORD.replace("{key}", &encoded(user)), Some(change))
    }

    pub(crate) fn groups(&self) -> anyhow::Result<Vec<Group>> {
        let groups: Groups = self.send("GET", GROUPS, None::<&()>)?;
        Ok(groups.items)
    }

    pub(crate) fn gateways(&self) -> anyhow::Result<Gateways> {
        self.send("GET", GATEWAYS, None::<&()>)
    }

    pub(crate) fn forget_gateway(&self, name: &str) -> anyhow::Result<GatewayStatus> {
        self.send("DELETE", &GATEWAY.replace("{key}", &encoded(name)), None::<&()>)
    }

    pub(crate) fn status(&self) -> anyhow::Result<DroverStatus> {
        self.send("GET", STATUS, None::<&()>)
    }

    pub(crate) fn token_uses(&self) -> anyhow::Result<TokenUses> {
        self.send("GET", TOKEN_USES, None::<&()>)
    }

    pub(crate) fn revoke_all(&self, user: &str) -> anyhow::Result<Revoked> {
        self.send("DELETE", &USER_TOKENS.replace("{key}", &encoded(user)), None::<&()>)
    }

    pub(crate) fn refresh_user(&self, name: &str) -> anyhow::Result<Object<User>> {
        self.send("POST", &REFRESH_USER.replace("{key}", &encoded(name)), None::<&()>)
    }

    pub(crate) fn test_provider(&self, name: &str) -> anyhow::Result<Object<Provider>> {
        self.send("POST", &TEST_PROVIDER.replace("{key}", &encoded(name)), None::<&()>)
    }

    pub(crate) fn search_provider(&self, name: &str, text: &str) -> anyhow::Result<Principals> {
        let path = PRINCIPALS.replace("{key}", &encoded(name));
        self.send("GET", &format!("{path}?name={}", encoded(text)), None::<&()>)
    }

    pub(crate) fn change_provider_secret(
        &self,
        name: &str,
        password: String,
        object: Option<Object<Provider>>,
    ) -> anyhow::Result<Object<Provider>> {
        let path = PROVIDER_SECRET.replace("{key}", &encoded(name));
        self.send("POST", &path, Some(&ChangeSecret { password, object }))
    }

    pub(crate) fn list<K: Kind>(&self) -> anyhow::Result<Vec<Object<K>>> {
        let list: List<K> = self.send("GET", &path::<K>(None), None::<&()>)?;
        Ok(list.items)
    }

    pub(crate) fn read<K: Kind>(&self, key: &str) -> anyhow::Result<Object<K>> {
        self.send("GET", &path::<K>(Some(key)), None::<&()>)
    }

    pub(crate) fn create<K: Served>(&self, create: &K::Create) -> anyhow::Result<Created<K>> {
        self.send("POST", &path::<K>(None), Some(create))
    }

    pub(crate) fn replace<K: Kind>(&self, object: &Object<K>) -> anyhow::Result<Object<K>> {
        self.send("PUT", &path::<K>(Some(object.spec.key())), Some(object))
    }

    pub(crate) fn delete<K: Kind>(&self, key: &str) -> anyhow::Result<()> {
        // Of an object that could not be read there is none in the answer.
        let _deleted: serde_json::Value = self.send("DELETE", &path::<K>(Some(key)), None::<&()>)?;
        Ok(())
    }

    /// Whether a cluster's API server answers.
    pub(crate) fn reach(&self, cluster: &str) -> anyhow::Result<()> {
        let path = format!("/k8s/clusters/{}/version", encoded(cluster));
        self.send::<serde_json::Value>("GET", &path, None::<&()>).map(drop)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<T> {
        read(self.ask(method, path, body)?)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&impl Serialize>) -> anyhow::Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(serde_json::to_vec(body)?)?)
            }
            None => self.agent.run(request.body(())?),
        };
        answer.map_err(|error| self.unreachable(error))
    }

    /// Begins a login that is granted in a browser; none where the server has no console.
    pub(crate) fn begin_device(&self) -> anyhow::Result<Option<DeviceAuthorization>> {
        let answer = self.post_form(DEVICE_AUTHORIZATION, &[("client_id", CLIENT_ID)])?;
        if answer.status() == 404 { Ok(None) } else { read(answer).map(Some) }
    }

    /// The token, or the word for why there is none (RFC 8628, 3.5).
    pub(crate) fn ask_device(&self, device_code: &str) -> anyhow::Result<Result<DeviceToken, String>> {
        let fields = [("client_id", CLIENT_ID), ("grant_type", DEVICE_GRANT), ("device_code", device_code)];
        let mut answer = self.post_form(DEVICE_TOKEN, &fields)?;
        if answer.status() != 400 {
            return read(answer).map(Ok);
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        let refused: DeviceError =
            serde_json::from_slice(&body).context("the answer is not one of Drover's")?;
        Ok(Err(refused.error))
    }

    /// The token of a login whose code a browser has brought.
    pub(crate) fn exchange_code(&self, brought: &Brought) -> anyhow::Result<DeviceToken> {
        let fields = [
            ("client_id", CLIENT_ID),
            ("grant_type", CODE_GRANT),
            ("code", brought.code.as_str()),
            ("redirect_uri", brought.redirect_uri.as_str()),
            ("code_verifier", brought.verifier.as_str()),
        ];
        read(self.post_form(DEVICE_TOKEN, &fields)?)
            .context("the login came too late: drover login begins anew")
    }

    fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Response<Body>> {
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", encoded(value));
        let body = fields.iter().map(pair).collect::<Vec<_>>().join("&");
        let request = Request::builder().method("POST").uri(format!("{}{path}", self.server));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.agent.run(request.body(body)?).map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: ureq::Error) -> anyhow::Error {
        let hint = match &error {
            ureq::Error::Rustls(_) => {
                ": is its authority the one that --ca gave? drover login --ca FILE gives another"
            }
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                ": is it running?"
            }
            _ => "",
        };
        anyhow!("failed to reach {}: {error}{hint}", self.server)
    }
}

fn path<K: Kind>(key: Option<&str>) -> String {
    let all = format!("{PREFIX}/{}", K::PLURAL);
    match key {
        None => all,
        Some(key) => format!("{all}/{}", encoded(key)),
    }
}

/// A key as one segment of a path.
pub(crate) fn encoded(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    key.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn read<T: DeserializeOwned>(mut answer: Response<Body>) -> anyhow::Result<T> {
    let code = answer.status();
    // Of a refusal the Status says it.
    if code.is_success() {
        let warnings = answer.headers().get_all("warning").iter().filter_map(|warning| warning.to_str().ok());
        warnings.for_each(|warning| eprintln!("warning: {}", warning_text(warning)));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    if code.is_success() {
        return serde_json::from_slice(&body)
            .context("the answer is not one of Drover's: is it the right server?");
    }
    match serde_json::from_slice::<Status>(&body) {
        Ok(status) if code.as_u16() == 401 => bail!("{}", status.message),
        Ok(status) => bail!("{} ({})", status.message, status.reason),
        Err(_) => bail!("the server answers {code}"),
    }
}

/// The text of `299 - "text"`.
fn warning_text(warning: &str) -> String {
    let quoted = warning.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
    quoted.map_or(warning, |(text, _)| text).replace("\\\"", "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_its_text() {
        assert_eq!(warning_text(r#"299 - "gateways: a, b""#), "gateways: a, b");
        assert_eq!(warning_text(r#"299 - "cluster \"one\" is gone""#), r#"cluster "one" is gone"#);
        assert_eq!(warning_text("plain"), "plain");
    }

    #[test]
    fn a_key_is_one_segment() {
        assert_eq!(encoded("zoe@example.com"), "zoe%40example.com");
        assert_eq!(encoded("../a b/é"), "..%2Fa%20b%2F%C3%A9");
    }
}
