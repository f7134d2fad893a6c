//! A keyring as desktops have one: GNOME's, on a session bus of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;

use crate::process::{Process, free_port, until};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running one; ends when dropped. What it keeps stays in its folder.
pub struct Keyring {
    address: String,
    _bus: Process,
    _service: Process,
}

/// Whether somebody has given its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Locked,
    Unlocked,
}

impl Keyring {
    pub async fn start(folder: &Path, lock: Lock) -> anyhow::Result<Self> {
        let runtime = folder.join("runtime");
        std::fs::create_dir_all(&runtime)?;
        // A file's path would be too long in some folders.
        let address = format!("unix:abstract=drover-test-{}-{}", std::process::id(), free_port()?);
        let bus = ["--session", "--nofork", "--nopidfile"].map(str::to_owned).into_iter();
        let bus = bus.chain([format!("--address={address}")]);
        let mut bus = Process::start_disposable("bus", folder, &program("dbus-daemon")?, bus).await?;
        until("the session bus", READY_TIMEOUT, async || {
            bus.check()?;
            Ok(ask(&address, &["GetId"]).await?.map(drop))
        })
        .await?;
        let options = "--foreground --components=secrets";
        let script = match lock {
            Lock::Locked => format!("exec gnome-keyring-daemon {options} </dev/null"),
            Lock::Unlocked => format!("exec gnome-keyring-daemon {options} --unlock <<<password"),
        };
        let folder_of = |name: &str, folder: &Path| format!("{name}={}", folder.display());
        let service = [
            format!("DBUS_SESSION_BUS_ADDRESS={address}"),
            folder_of("XDG_DATA_HOME", folder),
            folder_of("XDG_RUNTIME_DIR", &runtime),
            folder_of("XDG_CACHE_HOME", &runtime),
            "bash".to_owned(),
            "-c".to_owned(),
            script,
        ];
        let mut service =
            Process::start_disposable("keyring", folder, Path::new("/usr/bin/env"), service).await?;
        until("the keyring", READY_TIMEOUT, async || {
            service.check()?;
            let said = ask(&address, &["NameHasOwner", "string:org.freedesktop.secrets"]).await?;
            Ok(said.filter(|said| said.contains("boolean true")).map(drop))
        })
        .await?;
        Ok(Self { address, _bus: bus, _service: service })
    }

    /// Of a program that is to find it.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![("DBUS_SESSION_BUS_ADDRESS".to_owned(), self.address.clone())]
    }
}

/// What the bus itself says; nothing where it does not answer.
async fn ask(address: &str, what: &[&str]) -> anyhow::Result<Option<String>> {
    let [method, arguments @ ..] = what else { return Ok(None) };
    let mut ask = Command::new("dbus-send");
    ask.args([&format!("--bus={address}"), "--print-reply", "--dest=org.freedesktop.DBus", "/"]);
    let said = ask.arg(format!("org.freedesktop.DBus.{method}")).args(arguments).output().await?;
    Ok(said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned()))
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
    ensure!(found.is_some(), "packages are missing: testkit/packages install");
    Ok(found.unwrap_or_default())
}
