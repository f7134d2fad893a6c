//! Control and a gateway on this machine, with the store in one file.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use drover_api::bootstrap::{Admin, Bootstrapped};

use crate::args::Up;
use crate::config::Kept;
use crate::files;
use crate::processes::{Process, Stop, program, tend};

pub(super) fn up(kept: Kept, up: &Up) -> anyhow::Result<()> {
    let stop = Stop::new()?;
    let data = match &up.data {
        Some(data) => data.clone(),
        None => files::folder("XDG_DATA_HOME", ".local/share")?,
    };
    let data = Data(data);
    files::make_folder(&data.0)?;
    check_ports(up)?;
    let bootstrapped = bootstrap(&data, up)?;
    let started = start(&data, up, &stop);
    // Shown this once: it must not be lost because something else failed.
    let password = bootstrapped.admin.as_ref().map(shown).unwrap_or_default();
    let mut processes = match started {
        Ok(Some(processes)) => processes,
        Ok(None) => {
            print!("{password}");
            return Ok(());
        }
        Err(error) => {
            print!("{password}");
            return Err(error);
        }
    };
    let server = server_url(up)?;
    let login = remember(kept, &server, &bootstrapped.ca, up, &data)?;
    println!("Drover is ready at {server}\n{password}");
    println!("Next, in another terminal:");
    println!("  {login}");
    println!("  drover cluster create NAME");
    println!("  drover cluster import NAME | kubectl apply -f -");
    println!("  drover kubeconfig");
    println!("In a browser: {}", console_url(up)?);
    println!("\nEverything is kept in {}. Stop with Ctrl-C.", data.0.display());
    let ended = tend(&mut processes, &stop);
    // The gateway first, while control can still hear from it.
    while let Some(process) = processes.pop() {
        drop(process);
    }
    ended
}

fn shown(admin: &Admin) -> String {
    format!("\nThe first administrator: {}\nPassword, shown this once: {}\n", admin.name, admin.password)
}

/// What is kept where.
struct Data(PathBuf);

impl Data {
    fn file(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// An administrator where there is none, what the gateway enrols with, and the certificate that clients see.
fn bootstrap(data: &Data, up: &Up) -> anyhow::Result<Bootstrapped> {
    let mut command = Command::new(program("drover-control")?);
    command.args(["bootstrap", "--store", &data.file("store.db"), "--key-file", &data.file("store.key")]);
    let hosts = data.path("tls.hosts");
    let names: Vec<_> = up.hosts.iter().chain([&up.console_host]).map(String::as_str).collect();
    let named = names.join("\n");
    let door_is_there = data.path("tls.key").is_file()
        && files::read(&hosts)?.is_some_and(|before| before == named.as_bytes());
    if !door_is_there {
        command.args(names.iter().flat_map(|host| ["--host", host]));
    }
    let output = command.output().context("failed to start drover-control")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("error: "));
    }
    let bootstrapped: Bootstrapped = serde_json::from_slice(&output.stdout)?;
    if let Some(door) = &bootstrapped.door {
        files::replace(&data.path("tls.crt"), door.certificate.as_bytes())?;
        files::replace(&data.path("tls.key"), door.key.as_bytes())?;
        files::replace(&hosts, named.as_bytes())?;
    }
    files::replace(&data.path("ca.crt"), bootstrapped.ca.as_bytes())?;
    files::replace(&data.path("gateway.token"), bootstrapped.gateway_token.as_bytes())?;
    Ok(bootstrapped)
}

/// None when asked to stop meanwhile.
fn start(data: &Data, up: &Up, stop: &Stop) -> anyhow::Result<Option<Vec<Process>>> {
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let control = vec![
        "serve".to_owned(),
        flag("store", &data.file("store.db")),
        flag("key-file", &data.file("store.key")),
        flag("listen", &up.control_listen),
        flag("admin-listen", &up.control_admin_listen),
        flag("console-url", &console_url(up)?),
        flag("server-url", &server_url(up)?),
        flag("server-ca", &data.file("ca.crt")),
    ];
    let gateway = vec![
        flag("control", &up.control_listen),
        flag("state", &data.file("gateway")),
        flag("registration-token-file", &data.file("gateway.token")),
        flag("tls-cert", &data.file("tls.crt")),
        flag("tls-key", &data.file("tls.key")),
        flag("audit-log", &data.file("audit.jsonl")),
        flag("listen", &up.listen),
        flag("tunnel-listen", &up.tunnel_listen),
        flag("admin-listen", &up.admin_listen),
        flag("console-host", &up.console_host),
    ];
    let mut control = Process::start("drover-control", control, Path::new(&data.file("control.log")))?;
    if !control.wait_ready(address("--control-admin-listen", &up.control_admin_listen)?, stop)? {
        return Ok(None);
    }
    let mut gateway = Process::start("drover-gateway", gateway, Path::new(&data.file("gateway.log")))?;
    let ready = gateway.wait_ready(address("--admin-listen", &up.admin_listen)?, stop)?;
    Ok(ready.then(|| vec![control, gateway]))
}

/// Where clients reach the gateway.
fn server_url(up: &Up) -> anyhow::Result<String> {
    Ok(format!("https://{}:{}", bracketed(&up.hosts[0]), address("--listen", &up.listen)?.port()))
}

fn console_url(up: &Up) -> anyhow::Result<String> {
    ensure!(!up.hosts.contains(&up.console_host), "--console-host must be a name that --host does not have");
    Ok(format!("https://{}:{}", up.console_host, address("--listen", &up.listen)?.port()))
}

/// What answers at a port must be what is started here.
fn check_ports(up: &Up) -> anyhow::Result<()> {
    for (flag, text) in [
        ("--listen", &up.listen),
        ("--control-listen", &up.control_listen),
        ("--admin-listen", &up.admin_listen),
        ("--control-admin-listen", &up.control_admin_listen),
    ] {
        let address = address(flag, text)?;
        TcpListener::bind(address).with_context(|| {
            format!("{flag} {address} cannot be had: is Drover up already? Another address goes by {flag}")
        })?;
    }
    Ok(())
}

fn address(flag: &str, text: &str) -> anyhow::Result<SocketAddr> {
    let address: SocketAddr =
        text.parse().with_context(|| format!("{flag} {text:?} is not an address and a port"))?;
    ensure!(address.port() != 0, "{flag} must name a port");
    Ok(address)
}

/// Where `drover login` finds the server; says how to log in.
fn remember(mut kept: Kept, server: &str, ca: &str, up: &Up, data: &Data) -> anyhow::Result<String> {
    let config = &mut kept.config;
    let same = config.server.as_deref() == Some(server) && config.ca.as_deref() == Some(ca);
    if config.server.is_some() && !same && config.held.is_some() {
        // Somebody is logged in elsewhere: that stays until they say so.
        return Ok(format!("drover login {server} --ca {} --user admin", data.file("ca.crt")));
    }
    if !same {
        config.held = None;
    }
    (config.server, config.ca) = (Some(server.to_owned()), Some(ca.to_owned()));
    config.tunnels = vec![format!(
        "{}:{}",
        bracketed(&up.hosts[0]),
        address("--tunnel-listen", &up.tunnel_listen)?.port()
    )];
    kept.save()?;
    Ok("drover login --user admin".to_owned())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
