//! The keyring of whoever sits here, where there is one: Keychain, Credential Manager, or what answers as Secret Service.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use keyring::v1::{Entry, Error};

/// `off` keeps tokens in the configuration's file.
const SWITCH: &str = "DROVER_KEYRING";
const SERVICE: &str = "drover";
/// Somebody may have to unlock it; and where nobody is, some wait for ever.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Puts a token there; whether one is there to take it.
pub(crate) fn keep(account: &str, token: &str) -> anyhow::Result<bool> {
    match std::env::var(SWITCH).as_deref().unwrap_or("auto") {
        "auto" => {}
        "off" => return Ok(false),
        other => bail!("{SWITCH} must be auto or off, and not {other:?}"),
    }
    if Entry::store_status().is_err() {
        return Ok(false);
    }
    let token = token.to_owned();
    match within(account, move |entry| entry.set_password(&token)) {
        Ok(()) => Ok(true),
        Err(error) => {
            eprintln!("drover: the keyring does not take the token, which is kept in a file: {error}");
            Ok(false)
        }
    }
}

pub(crate) fn get(account: &str) -> anyhow::Result<String> {
    within(account, |entry| entry.get_password()).map_err(|error| {
        anyhow!(
            "the login's token is in the keyring, which does not give it: {error}. Unlock it, or drover login"
        )
    })
}

/// What is not there is forgotten.
pub(crate) fn forget(account: &str) -> anyhow::Result<()> {
    let forgotten = within(account, |entry| match entry.delete_credential() {
        Err(Error::NoEntry) => Ok(()),
        said => said,
    });
    forgotten.map_err(|error| anyhow!("the keyring does not forget the token of {account}: {error}"))
}

/// In a thread of its own, which ends with the program where the keyring does not answer.
fn within<T: Send + 'static>(
    account: &str,
    ask: impl FnOnce(&Entry) -> keyring::v1::Result<T> + Send + 'static,
) -> Result<T, String> {
    let account = account.to_owned();
    let (sender, answer) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let said = Entry::new(SERVICE, &account).and_then(|entry| ask(&entry));
        // Nobody waits any more: there is nobody to tell.
        drop(sender.send(said));
    });
    match answer.recv_timeout(TIMEOUT) {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}
