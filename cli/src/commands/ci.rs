//! Credentials of programs that have a JWT of an issuer which Drover trusts, and no login.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::credential::exec_credential;
use crate::args::Ci;
use crate::client::Client;
use crate::config::{self, Config, Held};
use crate::files;

/// Where GitHub Actions give a job with the permission `id-token: write` its JWTs.
const ACTIONS_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
const ACTIONS_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// A JWT, as GitLab puts it where `id_tokens` says.
const VARIABLE: &str = "DROVER_JWT";
const ACTIONS_TIMEOUT: Duration = Duration::from_secs(10);

/// The server and the JWT that the flags name, beside what is kept.
pub(super) fn config(ci: &Ci, kept: Config) -> anyhow::Result<Config> {
    let server = match &ci.server {
        Some(server) => Some(config::server(server)?),
        None => kept.server,
    };
    let ca = match &ci.ca {
        Some(file) => Some(files::text(file)?),
        None if ci.server.is_some() => None,
        None => kept.ca,
    };
    Ok(Config { server, ca, held: Some(Held::here(jwt(ci)?)), ..Config::default() })
}

/// Makes the JWT known, and prints it as kubectl takes it.
pub(super) fn print(ci: &Ci, kept: Config) -> anyhow::Result<()> {
    let config = config(ci, kept)?;
    let shown = Client::new(&config)?.show_jwt()?;
    let held = config.held.context("there is no JWT")?;
    println!("{}", exec_credential(&held.token()?, Some(shown.expires_at)));
    Ok(())
}

fn jwt(ci: &Ci) -> anyhow::Result<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(file) = &ci.jwt_file {
        return Ok(files::text(file)?.trim().to_owned());
    }
    if let Some(jwt) = variable(VARIABLE) {
        return Ok(jwt.trim().to_owned());
    }
    match (variable(ACTIONS_URL), variable(ACTIONS_TOKEN)) {
        (Some(url), Some(token)) => of_actions(&url, &token, &ci.audience),
        _ => bail!(
            "there is no JWT: give --jwt-file, or {VARIABLE}; in GitHub Actions give the job the permission id-token: write"
        ),
    }
}

fn of_actions(url: &str, token: &str, audience: &str) -> anyhow::Result<String> {
    let tls = TlsConfig::builder().root_certs(RootCerts::WebPki).build();
    let agent =
        Agent::config_builder().tls_config(tls).timeout_global(Some(ACTIONS_TIMEOUT)).https_only(true);
    let agent: Agent = agent.build().into();
    let mut url = url.to_owned();
    write!(
        url,
        "{}audience={}",
        if url.contains('?') { '&' } else { '?' },
        crate::client::encoded(audience)
    )?;
    let answer = agent.get(&url).header("authorization", format!("Bearer {token}")).call();
    let mut answer = answer.context("GitHub Actions gave no JWT")?;
    let answer: Value = answer.body_mut().read_json().context("GitHub Actions gave no JWT")?;
    Ok(answer["value"].as_str().context("GitHub Actions gave no JWT")?.to_owned())
}
