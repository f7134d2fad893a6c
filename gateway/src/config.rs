//! What a gateway is told at its start: flags, or the environment variables of the same names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use drover_daemon::shutdown::seconds;
use drover_enrol::Server;

/// What stands in for control: certificates and a snapshot that are kept by hand.
#[derive(Clone, Debug, Args)]
#[group(conflicts_with = "control")]
pub struct Files {
    /// Certificate chain that agents see (PEM), where there is no control.
    #[arg(long, env = "DROVER_TUNNEL_CERT", required = false)]
    pub tunnel_cert: PathBuf,

    /// Key of --tunnel-cert (PEM).
    #[arg(long, env = "DROVER_TUNNEL_KEY", required = false)]
    pub tunnel_key: PathBuf,

    /// Authority that agents' certificates come from (PEM).
    #[arg(long, env = "DROVER_TUNNEL_CA", required = false)]
    pub tunnel_ca: PathBuf,

    /// Snapshot to serve from. Replaced files are taken up within a second.
    #[arg(long, env = "DROVER_SNAPSHOT", required = false)]
    pub snapshot: PathBuf,
}

/// The gateway of Drover: one door to all Kubernetes clusters.
#[derive(Clone, Debug, Parser)]
#[command(name = "drover-gateway", version)]
pub struct Config {
    /// Address on which clients are served over HTTPS.
    #[arg(long, env = "DROVER_LISTEN", default_value = "[::]:8443")]
    pub listen: SocketAddr,

    /// Address on which agents open their tunnels (QUIC, UDP).
    #[arg(long, env = "DROVER_TUNNEL_LISTEN", default_value = "[::]:8444")]
    pub tunnel_listen: SocketAddr,

    /// Address of /metrics, /livez and /readyz (plain HTTP: keep it inside).
    #[arg(long, env = "DROVER_ADMIN_LISTEN", default_value = "127.0.0.1:8445")]
    pub admin_listen: SocketAddr,

    /// Certificate chain that clients see (PEM). Replaced files are taken up without a restart.
    #[arg(long, env = "DROVER_TLS_CERT")]
    pub tls_cert: PathBuf,

    /// Key of --tls-cert (PEM).
    #[arg(long, env = "DROVER_TLS_KEY")]
    pub tls_key: PathBuf,

    /// Control, as HOST:PORT: it gives this gateway its certificate, and pushes what to serve from.
    #[arg(long, env = "DROVER_CONTROL", requires = "state")]
    pub control: Option<Server>,

    /// Folder of this gateway's own: its certificate and the last that control pushed.
    #[arg(long, env = "DROVER_STATE")]
    pub state: Option<PathBuf>,

    /// Registration token that the first start gets a certificate with (a file).
    #[arg(long, env = "DROVER_REGISTRATION_TOKEN_FILE")]
    pub registration_token_file: Option<PathBuf>,

    #[command(flatten)]
    pub files: Option<Files>,

    /// File that audit events are appended to, one JSON object a line.
    #[arg(long, env = "DROVER_AUDIT_LOG")]
    pub audit_log: PathBuf,

    /// Domain whose first labels are clusters: CLUSTER.DOMAIN. Without it, only paths name clusters.
    #[arg(long, env = "DROVER_DOMAIN")]
    pub domain: Option<String>,

    /// Host name at which browsers find the console, and nothing else. The certificate must cover it. Without it there is no console.
    #[arg(long, env = "DROVER_CONSOLE_HOST", requires = "control")]
    pub console_host: Option<String>,

    /// How long running requests may go on after a signal to stop, in seconds.
    #[arg(long, env = "DROVER_DRAIN_DEADLINE_S", default_value = "30", value_parser = seconds)]
    pub drain_deadline: Duration,

    /// Most requests of one user in one cluster at once, watches and the like among them; above it, 429.
    #[arg(long, env = "DROVER_USER_REQUESTS_MAX", default_value_t = 1024)]
    pub user_requests_max: usize,

    /// Most requests in one cluster at once; above it, 429.
    #[arg(long, env = "DROVER_CLUSTER_REQUESTS_MAX", default_value_t = 8192)]
    pub cluster_requests_max: usize,

    /// Threads that serve; by default one per core.
    #[arg(long, env = "DROVER_THREADS")]
    pub threads: Option<usize>,
}
