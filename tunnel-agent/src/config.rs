//! What an agent is told at its start: flags, or the environment variables of the same names.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser};
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

    /// Where Drover's API is, as HOST:PORT of a gateway: it gives this agent its certificate.
    #[arg(long, env = "DROVER_SERVER")]
    pub server: Option<Server>,

    /// Registration token that the first start gets a certificate with (a file).
    #[arg(long, env = "DROVER_REGISTRATION_TOKEN_FILE")]
    pub registration_token_file: Option<PathBuf>,

    /// Secret of the cluster that the certificate is kept in, as NAMESPACE/NAME.
    #[arg(long, env = "DROVER_IDENTITY_SECRET", conflicts_with = "state")]
    pub identity_secret: Option<SecretName>,

    /// Folder that the certificate is kept in, for an agent that runs outside its cluster.
    #[arg(long, env = "DROVER_STATE")]
    pub state: Option<PathBuf>,

    #[command(flatten)]
    pub files: Option<Files>,

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

/// A certificate that is kept by hand, where there is no control.
#[derive(Clone, Debug, Args)]
#[group(conflicts_with = "server")]
pub struct Files {
    /// This agent's certificate chain (PEM): it says which cluster this is.
    #[arg(long, env = "DROVER_TUNNEL_CERT", required = false)]
    pub tunnel_cert: PathBuf,

    /// Key of --tunnel-cert (PEM).
    #[arg(long, env = "DROVER_TUNNEL_KEY", required = false)]
    pub tunnel_key: PathBuf,

    /// Authority that gateways' certificates come from (PEM).
    #[arg(long, env = "DROVER_TUNNEL_CA", required = false)]
    pub tunnel_ca: PathBuf,
}

/// A Secret of the agent's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
#[error("must be NAMESPACE/NAME")]
pub struct SecretNameInvalid;

impl FromStr for SecretName {
    type Err = SecretNameInvalid;

    fn from_str(text: &str) -> Result<Self, SecretNameInvalid> {
        let plain = |text: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('.')
        };
        let (namespace, name) = text.split_once('/').ok_or(SecretNameInvalid)?;
        let sound = plain(namespace) && plain(name);
        if sound {
            Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
        } else {
            Err(SecretNameInvalid)
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
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
