//! Where the server is, and the token of the login.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use drover_api::kinds::Token;
use drover_api::rest::Created;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{files, keyring};

#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Config {
    /// `https://HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Authority of its certificate, PEM; absent where the system knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Where agents open their tunnels, as HOST:PORT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<String>,
    /// Absent where nobody is logged in.
    #[serde(flatten)]
    pub held: Option<Held>,
    /// Who logged in last, and through which directory: what the next login asks for no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// The token of a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    #[serde(flatten)]
    pub token: Whereabouts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// From when on it may be renewed; absent where it never may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<Timestamp>,
    /// By which this program is known if it has to ask for the same renewal again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// The configuration and the file that it is in.
pub(crate) struct Kept {
    pub file: PathBuf,
    pub config: Config,
    /// Where the file that was read has its token in the keyring.
    in_keyring: Option<String>,
}

/// Where a token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Whereabouts {
    Here {
        token: String,
    },
    /// Under this name.
    Keyring {
        keyring: String,
    },
}

impl Held {
    /// One that is kept nowhere.
    pub(crate) fn here(token: String) -> Self {
        Self { token: Whereabouts::Here { token }, expires_at: None, renew_at: None, program: None }
    }

    pub(crate) fn token(&self) -> anyhow::Result<String> {
        match &self.token {
            Whereabouts::Here { token } => Ok(token.clone()),
            Whereabouts::Keyring { keyring } => keyring::get(keyring),
        }
    }
}

impl Kept {
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => files::folder("XDG_CONFIG_HOME", ".config")?.join("config.json"),
        };
        let config = match files::read(&file)? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is malformed: remove it, and log in again", file.display()))?,
            None => Config::default(),
        };
        let in_keyring = config.in_keyring();
        Ok(Self { file, config, in_keyring })
    }

    /// Logged in: the token goes into the keyring, or where none takes it, into the file.
    pub(crate) fn hold(&mut self, created: Created<Token>) -> anyhow::Result<()> {
        let spec = created.object.spec;
        let token = created.secret.context("the server gave no token")?;
        self.hold_token(token, spec.expires_at, spec.renewable_at())
    }

    pub(crate) fn hold_token(
        &mut self,
        token: String,
        expires_at: Timestamp,
        renew_at: Option<Timestamp>,
    ) -> anyhow::Result<()> {
        let account = format!("{} ({})", self.config.server()?, std::path::absolute(&self.file)?.display());
        let token = if keyring::keep(&account, &token)? {
            Whereabouts::Keyring { keyring: account }
        } else {
            Whereabouts::Here { token }
        };
        let program = Some(drover_api::token::random_id());
        self.config.held = Some(Held { token, expires_at: Some(expires_at), renew_at, program });
        Ok(())
    }

    /// Writes the file; what it had in the keyring and names no more is gone from there.
    pub(crate) fn save(&mut self) -> anyhow::Result<()> {
        files::replace(&self.file, &serde_json::to_vec_pretty(&self.config)?)?;
        let before = std::mem::replace(&mut self.in_keyring, self.config.in_keyring());
        // What stays there by a failure is a token that was revoked, or that nobody uses from here.
        if let Some(before) = before.filter(|before| self.in_keyring.as_ref() != Some(before))
            && let Err(error) = keyring::forget(&before)
        {
            eprintln!("drover: {error:#}");
        }
        Ok(())
    }
}

impl Config {
    fn in_keyring(&self) -> Option<String> {
        match &self.held.as_ref()?.token {
            Whereabouts::Here { .. } => None,
            Whereabouts::Keyring { keyring } => Some(keyring.clone()),
        }
    }

    pub(crate) fn server(&self) -> anyhow::Result<&str> {
        self.server.as_deref().context("no server is known: drover login https://HOST:PORT, or drover up")
    }

    /// HOST:PORT of the server.
    pub(crate) fn server_address(&self) -> anyhow::Result<String> {
        let server = self.server()?;
        let address = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
        let bracketed_end = address.rfind(']').map_or(0, |end| end + 1);
        let port = if address[bracketed_end..].contains(':') { "" } else { ":443" };
        Ok(format!("{address}{port}"))
    }
}

/// A server's address as it is kept: HTTPS, and nothing after the port.
pub(crate) fn server(text: &str) -> anyhow::Result<String> {
    let text = text.trim_end_matches('/');
    let address = match text.split_once("://") {
        Some(("https", address)) => address,
        Some((scheme, _)) => bail!("the server must be https://HOST:PORT, and not {scheme}://"),
        None => text,
    };
    if address.is_empty() || address.contains(['/', '@', '?', '#', ' ']) {
        bail!("the server must be https://HOST:PORT, and {text:?} is not");
    }
    Ok(format!("https://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_where_the_token_is_where_somebody_is_logged_in() {
        let expires_at = "2027-01-15T09:00:00Z".parse().ok();
        let keyring = Whereabouts::Keyring { keyring: "https://d:1 (/f)".into() };
        for (text, held) in [
            (r#"{"server":"https://d:1"}"#, None),
            (r#"{"server":"https://d:1","token":"t"}"#, Some(Held::here("t".into()))),
            (
                r#"{"server":"https://d:1","token":"t","expires_at":"2027-01-15T09:00:00Z"}"#,
                Some(Held { expires_at, ..Held::here("t".into()) }),
            ),
            (
                r#"{"server":"https://d:1","keyring":"https://d:1 (/f)","renew_at":"2027-01-15T09:00:00Z"}"#,
                Some(Held { token: keyring, expires_at: None, renew_at: expires_at, program: None }),
            ),
        ] {
            let config: Config = serde_json::from_str(text).unwrap();
            assert_eq!(config.held, held);
            assert_eq!(serde_json::to_string(&config).unwrap(), text);
        }
    }

    #[test]
    fn a_server_is_https_and_nothing_after_the_port() {
        for (text, expected) in [
            ("https://drover.example:8443", Some("drover.example:8443")),
            ("drover.example/", Some("drover.example:443")),
            ("[::1]", Some("[::1]:443")),
            ("https://[::1]:8443", Some("[::1]:8443")),
            ("http://drover.example", None),
            ("https://drover.example/path", None),
            ("user@drover.example", None),
            ("", None),
        ] {
            let config = server(text).ok().map(|server| Config { server: Some(server), ..Config::default() });
            let address = config.map(|config| config.server_address().unwrap());
            assert_eq!(address.as_deref(), expected, "{text}");
        }
    }
}
