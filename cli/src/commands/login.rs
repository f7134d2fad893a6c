//! Logging in and out.

use anyhow::Context;
use drover_api::kinds::{Kind, Token};
use drover_api::rest::{Caller, ChangePassword, Login as Credentials};

use super::password;
use crate::args::{Login, Output};
use crate::client::Client;
use crate::config::{self, Kept};
use crate::output::print;

pub(super) fn login(mut kept: Kept, login: Login) -> anyhow::Result<()> {
    if let Some(server) = &login.server {
        let server = config::server(server)?;
        if kept.config.server.as_ref() != Some(&server) {
            // What is known of another server means nothing here.
            kept.config = config::Config { server: Some(server), ..config::Config::default() };
        }
    }
    if let Some(file) = &login.ca {
        let ca =
            std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
        kept.config.ca = Some(ca);
    }
    kept.config.user = login.user;
    kept.config.provider = login.provider;
    let said = obtain(&mut kept, login.password_stdin)?;
    println!("{said}");
    Ok(())
}

/// As whoever logged in last. Nothing goes to the standard output: it is kubectl's.
pub(super) fn again(kept: &mut Kept) -> anyhow::Result<()> {
    let said = obtain(kept, false)?;
    eprintln!("{said}");
    Ok(())
}

fn obtain(kept: &mut Kept, password_stdin: bool) -> anyhow::Result<String> {
    kept.config.token = None;
    kept.config.expires_at = None;
    let client = Client::new(&kept.config)?;
    let server = kept.config.server()?.to_owned();
    let name = match kept.config.user.take() {
        Some(name) => name,
        None => ask(&format!("User name for {server}: "))?,
    };
    let password = password(password_stdin, &format!("Password of {name}: "))?;
    let provider = kept.config.provider.clone();
    let created = client.login(&Credentials { provider, name: name.clone(), password })?;
    let expires_at = created.object.spec.expires_at;
    kept.config.token = Some(created.secret.context("the server gave no token")?);
    kept.config.expires_at = Some(expires_at);
    let said = format!("Logged in to {server} as {name} until {expires_at}.");
    kept.config.user = Some(name);
    kept.save()?;
    Ok(said)
}

pub(super) fn logout(mut kept: Kept) -> anyhow::Result<()> {
    let client = Client::new(&kept.config)?;
    let revoked = client.who_am_i().and_then(|caller| client.delete::<Token>(caller.token.spec.key()));
    kept.config.token = None;
    kept.config.expires_at = None;
    kept.save()?;
    revoked.context("the token is forgotten here, and perhaps not revoked")?;
    println!("Logged out.");
    Ok(())
}

pub(super) fn who_am_i(client: &Client, output: Output) -> anyhow::Result<()> {
    let row = |caller: &Caller| {
        let (user, token) = (&caller.user.spec, &caller.token.spec);
        vec![user.name.clone(), user.principal.clone(), user.groups.join(","), token.expires_at.to_string()]
    };
    print(output, &[client.who_am_i()?], (&["NAME", "PRINCIPAL", "GROUPS", "UNTIL"], row))
}

pub(super) fn change_password(client: &Client, from_stdin: bool) -> anyhow::Result<()> {
    let name = client.who_am_i()?.user.spec.name;
    let (current, next) = if from_stdin {
        let text = password(true, "")?;
        let (current, next) = text.split_once('\n').context("the standard input has no second line")?;
        (current.trim_end_matches('\r').to_owned(), next.to_owned())
    } else {
        let current = password(false, &format!("Current password of {name}: "))?;
        let next = password(false, "Next password: ")?;
        anyhow::ensure!(next == password(false, "Once more: ")?, "the two are not the same");
        (current, next)
    };
    client.change_password(&name, &ChangePassword { current: Some(current), password: Some(next) })?;
    println!(
        "Password of {name} changed. Other logins have ended; tokens for scripts and kubeconfigs go on."
    );
    Ok(())
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    use std::io::Write;
    eprint!("{prompt}");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let name = line.trim();
    anyhow::ensure!(!name.is_empty(), "no name was given: use --user");
    Ok(name.to_owned())
}
