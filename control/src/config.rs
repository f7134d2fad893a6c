//! What control is told at its start: flags, or the environment variables of the same names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use drover_daemon::shutdown::seconds;

/// The control service of Drover: keeps its state, enrols its processes, pushes snapshots to its gateways.
#[derive(Clone, Debug, Parser)]
#[command(name = "drover-control", version)]
pub struct Config {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Makes what a first start needs, prints it as JSON, and ends: run it while control does not.
    Bootstrap(Bootstrap),
    /// Serves until a signal says stop.
    Serve(Serve),
}

#[derive(Clone, Debug, Args)]
pub struct Files {
    /// The store: one file, made where there is none.
    #[arg(long, env = "DROVER_STORE")]
    pub store: PathBuf,

    /// Key that secrets in the store are sealed with: 32 bytes, made where there is none. Keep it apart from the store's backups.
    #[arg(long, env = "DROVER_KEY_FILE")]
    pub key_file: PathBuf,

    /// How long the certificates of gateways and agents last, in seconds; they renew themselves at half of it.
    #[arg(long, env = "DROVER_CERTIFICATE_LIFETIME_S", default_value = "86400", value_parser = seconds)]
    pub certificate_lifetime: Duration,
}

#[derive(Clone, Debug, Args)]
pub struct Bootstrap {
    #[command(flatten)]
    pub files: Files,

    /// Name of the gateway that the registration token is for.
    #[arg(long, default_value = "gateway-1")]
    pub gateway: String,

    /// Host name or address at which clients reach the gateway: prints a certificate for it; repeat the flag for more.
    #[arg(long = "host")]
    pub hosts: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub files: Files,

    /// Address on which gateways are served (HTTPS with certificates of control's own authority).
    #[arg(long, env = "DROVER_CONTROL_LISTEN", default_value = "[::]:8447")]
    pub listen: SocketAddr,

    /// Address of /metrics, /livez and /readyz (plain HTTP: keep it inside).
    #[arg(long, env = "DROVER_ADMIN_LISTEN", default_value = "127.0.0.1:8448")]
    pub admin_listen: SocketAddr,

    /// How long gateways may serve without hearing from control, in seconds.
    #[arg(long, env = "DROVER_MAX_STALENESS_S", default_value = "3600", value_parser = seconds)]
    pub max_staleness: Duration,

    /// How often everybody whom a directory let in is looked up again, in seconds.
    #[arg(long, env = "DROVER_REFRESH_INTERVAL_S", default_value = "900", value_parser = seconds)]
    pub refresh_interval: Duration,

    /// How long the token of a login lasts, in seconds; clients renew it in its second half.
    #[arg(long, env = "DROVER_LOGIN_LIFETIME_S", default_value = "43200", value_parser = seconds)]
    pub login_lifetime: Duration,

    /// How long a login may be renewed, in seconds: then a person has to log in again. With no more than --login-lifetime none is renewed.
    #[arg(long, env = "DROVER_SESSION_LIFETIME_S", default_value = "604800", value_parser = seconds)]
    pub session_lifetime: Duration,

    /// Where browsers reach the console, as https://HOST or https://HOST:PORT: the gateway's --console-host. Without it there is none.
    #[arg(long, env = "DROVER_CONSOLE_URL", value_name = "URL")]
    pub console_url: Option<Origin>,

    /// Where clients reach gateways, as https://HOST or https://HOST:PORT: for the kubeconfigs that the console gives.
    #[arg(long, env = "DROVER_SERVER_URL", value_name = "URL")]
    pub server_url: Option<Origin>,

    /// Authority of the certificate there (PEM), where clients' systems do not know it.
    #[arg(long, env = "DROVER_SERVER_CA", value_name = "FILE", requires = "server_url")]
    pub server_ca: Option<PathBuf>,

    /// How long running requests may go on after a signal to stop, in seconds.
    #[arg(long, env = "DROVER_DRAIN_DEADLINE_S", default_value = "5", value_parser = seconds)]
    pub drain_deadline: Duration,
}

/// Where something of ours is reached over HTTPS (RFC 6454).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        let host = text.strip_prefix("https://").unwrap_or_default();
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err("must be https://HOST[:PORT], without a path");
        }
        // As browsers write it.
        Ok(Self(text.strip_suffix(":443").unwrap_or(&text).to_owned()))
    }
}
