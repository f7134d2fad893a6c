//! Logging in and out.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use drover_api::kinds::{Kind, Token};
use drover_api::rest::{Caller, ChangePassword, DeviceToken, Login as Credentials};

use super::password;
use crate::args::{Login, Output};
use crate::client::Client;
use crate::config::{self, Kept};
use crate::files;
use crate::loopback::Loopback;
use crate::output::print;

/// Longest wait between two questions that a server may ask for, and how much longer after one that came too soon.
const INTERVAL_MAX_S: u64 = 60;
/// The console's page for devices, below its address.
const DEVICE_PAGE: &str = "/console/device";
const INTERVAL_MORE: Duration = Duration::from_secs(5);

pub(super) fn login(mut kept: Kept, login: Login) -> anyhow::Result<()> {
    if let Some(server) = &login.server {
        let server = config::server(server)?;
        if kept.config.server.as_ref() != Some(&server) {
            // What is known of another server means nothing here.
            kept.config = config::Config { server: Some(server), ..config::Config::default() };
        }
    }
    if let Some(file) = &login.ca {
        kept.config.ca = Some(files::text(file)?);
    }
    let device = login.device;
    // A name is for a password; without one, whoever is in the browser says who they are.
    let by_password = login.user.is_some() || login.provider.is_some() || login.password_stdin;
    kept.config.user = login.user;
    kept.config.provider = login.provider;
    let said =
        if by_password { obtain(&mut kept, login.password_stdin)? } else { by_browser(&mut kept, device)? };
    println!("{said}");
    Ok(())
}

/// As whoever logged in last. Nothing goes to the standard output: it is kubectl's.
pub(super) fn again(kept: &mut Kept) -> anyhow::Result<()> {
    let said = if kept.config.user.is_some() { obtain(kept, false)? } else { by_browser(kept, false)? };
    eprintln!("{said}");
    Ok(())
}

/// Waits until somebody grants it in a browser: on this machine where one can be opened, or else on any (RFC 8628).
fn by_browser(kept: &mut Kept, device: bool) -> anyhow::Result<String> {
    kept.config.held = None;
    let client = Client::new(&kept.config)?;
    let Some(begun) = client.begin_device()? else { return obtain(kept, false) };
    if let Some(browser) = browser().filter(|_| !device) {
        let console = begun.verification_uri.strip_suffix(DEVICE_PAGE);
        return here(kept, &client, console.context("the server's console is elsewhere")?, &browser);
    }
    eprintln!(
        "Open {} in a browser, and see that it shows {}",
        begun.verification_uri_complete, begun.user_code
    );
    eprintln!("(or open {} and enter the code there)", begun.verification_uri);
    let mut interval = Duration::from_secs(begun.interval.clamp(1, INTERVAL_MAX_S));
    let ends = Instant::now() + Duration::from_secs(begun.expires_in);
    while Instant::now() < ends {
        std::thread::sleep(interval);
        match client.ask_device(&begun.device_code)? {
            Ok(token) => return granted(kept, token),
            Err(word) => match word.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval += INTERVAL_MORE,
                "access_denied" => bail!("the login was refused in the browser"),
                "expired_token" => break,
                other => bail!("the server refuses the login: {other}"),
            },
        }
    }
    bail!("nobody granted the login in time: drover login begins anew")
}

/// With a code that the browser of this machine brings.
fn here(kept: &mut Kept, client: &Client, console: &str, browser: &OsStr) -> anyhow::Result<String> {
    let loopback = Loopback::open()?;
    let url = loopback.url(console)?;
    eprintln!("Your browser opens {url}");
    eprintln!("(where there is none: drover login --device, and any browser will do)");
    let mut command = std::process::Command::new(browser);
    // Its own words, and its failure, are nobody's here: the address is shown.
    drop(command.arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn());
    let brought = loopback.wait()?;
    granted(kept, client.exchange_code(&brought)?)
}

fn granted(kept: &mut Kept, token: DeviceToken) -> anyhow::Result<String> {
    let DeviceToken { access_token, expires_at, renewable_at, user, .. } = token;
    kept.hold_token(access_token, expires_at, renewable_at)?;
    kept.config.user = None;
    kept.save()?;
    Ok(format!("Logged in to {} as {user} until {expires_at}.", kept.config.server()?))
}

/// The program that opens a browser, where somebody sits at this machine.
fn browser() -> Option<OsString> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let remote = is_set("SSH_CONNECTION") || is_set("SSH_TTY");
    // There, the port that the browser would come back to is on another machine than the browser.
    if remote {
        return None;
    }
    if let Some(named) = std::env::var_os("BROWSER").filter(|named| !named.is_empty()) {
        return Some(named);
    }
    let program = match std::env::consts::OS {
        "macos" => Some("open"),
        "linux" if is_set("DISPLAY") || is_set("WAYLAND_DISPLAY") => Some("xdg-open"),
        _ => None,
    };
    program.filter(|_| std::io::stderr().is_terminal()).map(OsString::from)
}

fn obtain(kept: &mut Kept, password_stdin: bool) -> anyhow::Result<String> {
    kept.config.held = None;
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
    kept.hold(created)?;
    let said = format!("Logged in to {server} as {name} until {expires_at}.");
    kept.config.user = Some(name);
    kept.save()?;
    Ok(said)
}

pub(super) fn logout(mut kept: Kept) -> anyhow::Result<()> {
    let client = Client::new(&kept.config)?;
    let revoked = client.who_am_i().and_then(|caller| client.delete::<Token>(caller.token.spec.key()));
    kept.config.held = None;
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
