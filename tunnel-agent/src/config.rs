//! What an agent is told at its start: flags, or the environment variables of the same names.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use drover_daemon::shutdown::seconds;
use drover_enrol::{HostPortInvalid, Server};

use crate::upstream::Address;

/// The cluster agent of Drover: opens tunnels to gateways and forwards what comes down them.
#[derive(Clone, Debug, Parser)]
#[command(name = "drover-agent", version)]
pub struct Config {
    /// Gateways to open tunnels to, as HOST:PORT (QUIC, UDP); repeat the flag or separate by commas.
    #[arg(long = "gateway", env = "DROVER_GATEWAYS", required = true, value_delimiter = ',')]
    pub gateways: Vec<Gateway>,

    /// Name in the gateways' certificates, where it is not the host that is dialled.
    #[arg(long, env = "DROVER_GATEWAY_NAME")]
    pub gateway_name: Option<String>,

    /// This agent's certificate chain (PEM): it says which cluster this is.
    #[arg(long, env = "DROVER_TUNNEL_CERT")]
    pub tunnel_cert: PathBuf,

    /// Key of --tunnel-cert (PEM).
    #[arg(long, env = "DROVER_TUNNEL_KEY")]
    pub tunnel_key: PathBuf,

    /// Authority that gateways' certificates come from (PEM).
    #[arg(long, env = "DROVER_TUNNEL_CA")]
    pub tunnel_ca: PathBuf,

    /// The API server, as HOST:PORT; by default the one of the cluster that this runs in.
    #[arg(long, env = "DROVER_API_SERVER", default_value_t = ApiServer::in_cluster())]
    pub api_server: ApiServer,

    /// Authority of the API server's certificate (PEM). Replaced files are taken up without a restart.
    #[arg(
        long,
        env = "DROVER_API_SERVER_CA",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    )]
    pub api_server_ca: PathBuf,

    /// This agent's service account token. Replaced files are taken up without a restart.
    #[arg(
        long,
        env = "DROVER_TOKEN_FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub token_file: PathBuf,

    /// Address of /metrics, /livez and /readyz (plain HTTP: keep it inside).
    #[arg(long, env = "DROVER_ADMIN_LISTEN", default_value = "127.0.0.1:8446")]
    pub admin_listen: SocketAddr,

    /// How long running requests may go on after a signal to stop, in seconds.
    #[arg(long, env = "DROVER_DRAIN_DEADLINE_S", default_value = "30", value_parser = seconds)]
    pub drain_deadline: Duration,
}

/// Where a gateway takes tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub host: String,
    pub port: u16,
    /// Name in its certificate.
    pub server_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer(pub(crate) Address);

impl FromStr for Gateway {
    type Err = HostPortInvalid;

    fn from_str(text: &str) -> Result<Self, HostPortInvalid> {
        let Server { host, port } = text.parse()?;
        Ok(Self { server_name: host.clone(), host, port })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl ApiServer {
    /// Where pods find it: the kubelet says so in their environment, and DNS knows it otherwise.
    fn in_cluster() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
        let host = host.unwrap_or_else(|| "kubernetes.default.svc".to_owned());
        Self(Address { host, port: port.unwrap_or(443) })
    }
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ApiServer {
    type Err = HostPortInvalid;

    fn from_str(text: &str) -> Result<Self, HostPortInvalid> {
        let Server { host, port } = text.parse()?;
        Ok(Self(Address { host, port }))
    }
}

impl Config {
    /// The gateways, with the name that each must prove.
    pub(crate) fn gateways(&self) -> Vec<Gateway> {
        let named = |gateway: &Gateway| match &self.gateway_name {
            Some(name) => Gateway { server_name: name.clone(), ..gateway.clone() },
            None => gateway.clone(),
        };
        self.gateways.iter().map(named).collect()
    }
}
