//! The login's token, for kubectl and other clients of Kubernetes (client.authentication.k8s.io/v1).

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{login, renewal};
use crate::config::{Config, Kept};
use crate::files;

/// What kubectl tells of itself.
const EXEC_INFO: &str = "KUBERNETES_EXEC_INFO";
/// A token that ends sooner is not given out: a request may take a while to be sent.
const LEFT_MIN: Duration = Duration::from_secs(30);

/// Prints the credential. Of many that find no token at once, one logs in, and the others wait for it.
pub(super) fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let mut kept = Kept::load(file)?;
    let now = Timestamp::now();
    // What there is serves at gateways that have not heard of the next one yet.
    let mut credential = credential(&kept.config, now)?;
    renewal::renew(&mut kept, file, now);
    if credential.is_none() || kept.config.held.is_none() {
        let _alone = files::lock(&kept.file)?;
        kept = Kept::load(file)?;
        credential = self::credential(&kept.config, Timestamp::now())?;
        if credential.is_none() {
            let server = kept.config.server()?.to_owned();
            if !may_ask() {
                bail!("the login at {server} has ended, and nobody can be asked here: drover login {server}");
            }
            login::again(&mut kept)?;
            credential = self::credential(&kept.config, Timestamp::now())?;
        }
    }
    println!("{}", credential.context("the new login has ended already: is this machine's clock right?")?);
    Ok(())
}

/// Of the login, if it lasts; one that was made before its end was kept is given out without.
fn credential(config: &Config, now: Timestamp) -> anyhow::Result<Option<Value>> {
    let Some(held) = &config.held else { return Ok(None) };
    if let Some(expires_at) = held.expires_at
        && now.checked_add(LEFT_MIN)? >= expires_at
    {
        return Ok(None);
    }
    Ok(Some(exec_credential(&held.token()?, held.expires_at)))
}

/// As kubectl takes one.
pub(super) fn exec_credential(token: &str, expires_at: Option<Timestamp>) -> Value {
    let mut status = json!({ "token": token });
    if let Some(expires_at) = expires_at {
        status["expirationTimestamp"] = expires_at.to_string().into();
    }
    json!({ "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status })
}

/// Whether kubectl lets us, and somebody is there.
fn may_ask() -> bool {
    let info = std::env::var(EXEC_INFO).ok();
    let info: Option<Value> = info.and_then(|info| serde_json::from_str(&info).ok());
    let allowed = info.is_none_or(|info| info["spec"]["interactive"].as_bool().unwrap_or_default());
    allowed && std::io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Held;

    #[test]
    fn a_login_is_given_out_until_shortly_before_its_end() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ends_in = |seconds: i64| {
            let expires_at = Timestamp::from_second(now.as_second() + seconds).ok();
            let held = Held { expires_at, ..Held::here("drv_t".into()) };
            credential(&Config { held: Some(held), ..Config::default() }, now).unwrap()
        };
        let given = ends_in(3600).unwrap();
        assert_eq!(
            given["status"],
            json!({ "token": "drv_t", "expirationTimestamp": "2027-01-15T09:00:00Z" })
        );
        assert_eq!(ends_in(31).unwrap()["kind"], "ExecCredential");
        for ended in [30, 1, 0, -1] {
            assert_eq!(ends_in(ended), None, "{ended}");
        }
        let held = Held::here("drv_t".into());
        let unknown = Config { held: Some(held), ..Config::default() };
        assert_eq!(credential(&unknown, now).unwrap().unwrap()["status"], json!({ "token": "drv_t" }));
        assert_eq!(credential(&Config::default(), now).unwrap(), None);
    }
}
