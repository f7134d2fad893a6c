//! The ways to the upstream that are compared: direct, through Drover, through two plain proxies in series.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_api::kinds::Domain;
use drover_testkit::client::Client;
use drover_testkit::fleet::{self, Gateway};
use drover_testkit::pki::{Authority, Files, LOOPBACK, Subject, Usage, write_secret};
use drover_testkit::process::{Process, free_port, until};
use drover_testkit::roster::{Member, Roster};

use crate::load::{Target, trusting};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const NGINX: &str = "/usr/sbin/nginx";

/// A way to the upstream, and the processes on it.
pub(crate) struct Setup {
    pub name: &'static str,
    pub target: Target,
    pub processes: Vec<(&'static str, Process)>,
}

/// Everything that is compared; the upstream ends with it.
pub(crate) struct Setups {
    pub all: Vec<Setup>,
    /// What is not compared, and why.
    pub skipped: Vec<String>,
    _upstream: Process,
}

pub(crate) struct Upstream {
    authority: Authority,
    files: Files,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
}

impl Setups {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let upstream = Upstream::start(folder).await?;
        let direct = Target {
            address: upstream.address,
            tls: trusting(&upstream.authority.pem())?,
            prefix: String::new(),
            token: None,
        };
        let mut all = vec![Setup { name: "direct", target: direct, processes: Vec::new() }];
        let mut skipped = Vec::new();
        all.push(drover(folder, &upstream).await?);
        if Path::new(NGINX).is_file() {
            all.push(nginx(folder, &upstream).await?);
        } else {
            skipped.push(format!("two nginx: there is no {NGINX} (Debian: apt-get install nginx-light)"));
        }
        Ok(Self { all, skipped, _upstream: upstream.process })
    }
}

impl Upstream {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new("load test upstream")?;
        authority.write(folder, "upstream-ca.crt")?;
        let subject = Subject {
            common_name: "upstream",
            names: &["localhost"],
            addresses: &LOOPBACK,
            ..Subject::default()
        };
        let files = authority.issue_files(folder, "upstream", &subject, &[Usage::ServerAuth])?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let arguments = [
            "upstream".to_owned(),
            format!("--listen={address}"),
            format!("--cert={}", files.cert.display()),
            format!("--key={}", files.key.display()),
        ];
        let mut process = Process::start("upstream", folder, &std::env::current_exe()?, arguments).await?;
        listens(&mut process, address).await?;
        Ok(Self { authority, files, address, process })
    }
}

/// A gateway and an agent in front of the upstream.
pub(crate) struct Served {
    pub gateway: Gateway,
    pub running: Process,
    pub agent: Process,
}

impl Served {
    /// Returns once a member of the roster's is served.
    pub(crate) async fn start(
        folder: &Path,
        upstream: &Upstream,
        roster: &Roster,
        member: &Member,
    ) -> anyhow::Result<Self> {
        let gateway = Gateway::prepare(&folder.join("gateway"), roster)?;
        let running = gateway.start().await?;
        let token: PathBuf = folder.join("agent.token");
        write_secret(&token, "token-of-the-agent")?;
        let target = fleet::Target {
            name: "load".to_owned(),
            id: "c-load1".to_owned(),
            address: upstream.address.to_string(),
            ca: folder.join("upstream-ca.crt"),
            token,
        };
        let agent = gateway.start_agent(&target, "a").await?;
        let client = Client::new(&gateway)?;
        until("the cluster to be reached", START_TIMEOUT, async || {
            let (status, _) = client.get("load", "/version", &member.token).await?;
            Ok((status == 200).then_some(()))
        })
        .await?;
        Ok(Self { gateway, running, agent })
    }
}

async fn drover(folder: &Path, upstream: &Upstream) -> anyhow::Result<Setup> {
    let mut roster = Roster::new(&folder.join("snapshot.json"), &[("load", "c-load1")])?;
    let admin = roster.user("admin", &["local:group/platform"])?;
    roster.bind(&admin.principal, "admin", Domain::Global);
    roster.publish()?;
    let Served { gateway, running, agent } = Served::start(folder, upstream, &roster, &admin).await?;
    let target = Target {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.port)),
        tls: trusting(&gateway.authority.pem())?,
        prefix: "/k8s/clusters/load".to_owned(),
        token: Some(admin.token),
    };
    Ok(Setup { name: "drover", target, processes: vec![("gateway", running), ("agent", agent)] })
}

/// TLS in, TLS out, twice: what any two hops cost, without identity, decision or audit.
async fn nginx(folder: &Path, upstream: &Upstream) -> anyhow::Result<Setup> {
    let second = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let first = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let behind = hop(folder, "nginx-2", second, upstream.address, upstream).await?;
    let before = hop(folder, "nginx-1", first, second, upstream).await?;
    let target = Target {
        address: first,
        tls: trusting(&upstream.authority.pem())?,
        prefix: String::new(),
        token: None,
    };
    Ok(Setup { name: "two nginx", target, processes: vec![("first", before), ("second", behind)] })
}

async fn hop(
    folder: &Path,
    name: &str,
    listen: SocketAddr,
    to: SocketAddr,
    upstream: &Upstream,
) -> anyhow::Result<Process> {
    let own = folder.join(name);
    std::fs::create_dir_all(&own)?;
    let Files { cert, key } = &upstream.files;
    let config = format!(
        "daemon off; master_process off; pid {own}/pid; error_log {own}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;
  upstream to {{ server {to}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen {listen} ssl; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{
      proxy_pass https://to; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca}; proxy_ssl_name localhost; proxy_read_timeout 3600;
    }}
  }}
}}
",
        own = own.display(),
        cert = cert.display(),
        key = key.display(),
        ca = folder.join("upstream-ca.crt").display(),
    );
    let path = own.join("nginx.conf");
    std::fs::write(&path, config)?;
    let arguments = ["-c".to_owned(), path.to_string_lossy().into_owned()];
    let mut process = Process::start(name, folder, Path::new(NGINX), arguments).await?;
    listens(&mut process, listen).await?;
    Ok(process)
}

async fn listens(process: &mut Process, address: SocketAddr) -> anyhow::Result<()> {
    until("a server to listen", START_TIMEOUT, async || {
        process.check()?;
        Ok(tokio::net::TcpStream::connect(address).await.ok().map(drop))
    })
    .await
}
