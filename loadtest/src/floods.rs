//! What others cost a user: floods without a credential, readers and uploads that stall, and one user's load of fifty.
//!
//! Gateway and agent have one core, all else the other. A flood is measured against the same flood fired at a sink, so
//! that what it costs the measuring side is in both; all else against an idle gateway. Rounds alternate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use drover_api::kinds::Domain;
use drover_testkit::client::Client;
use drover_testkit::fleet::{self, Gateway};
use drover_testkit::floods::{Aim, Flood, KINDS, Kind};
use drover_testkit::pki::{LOOPBACK, Subject, Usage};
use drover_testkit::process::{self, Process, free_port, until};
use drover_testkit::roster::{Member, Roster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::compare::median;
use crate::load::{Load, Target, trusting};
use crate::setups::{Served, Upstream};
use crate::upstream::POD_BYTES;
use crate::usage;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The user whose requests are timed.
const MEASURED: Load = Load {
    path: "/api/v1/namespaces/default/pods/p",
    bytes: POD_BYTES,
    connections: 4,
    per_second: Some(200),
};
/// Fifty times a user's 40 requests a second.
const BUSY: Load = Load { connections: 32, per_second: Some(2000), ..MEASURED };
const QUIET: Load = Load { per_second: Some(40), ..MEASURED };
const STALLED: usize = 64;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// How often everything is measured: medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of one measurement, in seconds.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Measure only what is called so: a flood, or `stalls`, or `busy`.
    #[arg(long)]
    only: Option<String>,
}

/// A gateway with three users, and a sink beside it.
struct Stage {
    gateway: Gateway,
    running: Process,
    _agent: Process,
    _upstream: Upstream,
    members: Vec<Member>,
    aim: Aim,
    sink: Aim,
    _sink: Process,
}

struct Row {
    name: String,
    before: Vec<(f64, f64)>,
    during: Vec<(f64, f64)>,
    /// Of the gateway, in MiB.
    grown: f64,
    sent_per_second: f64,
}

pub(crate) async fn measure(folder: &Path, plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<String> {
    let stage = Stage::start(folder).await?;
    let mut rows = Vec::new();
    let chosen = |name: &str| plan.only.as_ref().is_none_or(|only| name.eq_ignore_ascii_case(only));
    for kind in KINDS.into_iter().filter(|kind| chosen(&format!("{kind:?}"))) {
        progress(&format!("{kind:?}"));
        rows.push(stage.flood(kind, &plan).await?);
    }
    if chosen("stalls") {
        progress("readers and uploads that stall");
        rows.push(stage.stalls(&plan).await?);
    }
    if chosen("busy") {
        progress("one user at fifty times another's load");
        rows.push(stage.busy(&plan).await?);
    }
    let mut table =
        "| beside it | p50 ms | p99 ms | gateway grew by | sent per second |\n|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let of = |samples: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
            median(samples.iter().map(which).collect())
        };
        let cell = |which: fn(&(f64, f64)) -> f64| {
            let (before, during) = (of(&row.before, which), of(&row.during, which));
            format!("{before:.2} → {during:.2} ({:.2}×)", during / before)
        };
        table.push_str(&format!(
            "| {} | {} | {} | {:.0} MiB | {:.0} |\n",
            row.name,
            cell(|sample| sample.0),
            cell(|sample| sample.1),
            row.grown,
            row.sent_per_second
        ));
    }
    Ok(table)
}

impl Stage {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let upstream = Upstream::start(folder).await?;
        let mut roster = Roster::new(&folder.join("snapshot.json"), &[("load", "c-load1")])?;
        let mut members = Vec::new();
        for name in ["measured", "first", "second"] {
            let member = roster.user(name, &[])?;
            roster.bind(&member.principal, "cluster-owner", Domain::Global);
            members.push(member);
        }
        roster.publish()?;
        let Served { gateway, running, agent } =
            Served::start(folder, &upstream, &roster, &members[0]).await?;
        let subject = Subject {
            common_name: "sink",
            names: &["localhost"],
            addresses: &LOOPBACK,
            ..Subject::default()
        };
        let files = gateway.authority.issue_files(folder, "sink", &subject, &[Usage::ServerAuth])?;
        let (port, udp) = (free_port()?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?);
        let arguments = [
            "sink".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--udp={udp}"),
            format!("--cert={}", files.cert.display()),
            format!("--key={}", files.key.display()),
        ];
        let sink = Process::start("sink", folder, &std::env::current_exe()?, arguments).await?;
        until("the sink to listen", START_TIMEOUT, async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop))
        })
        .await?;
        let ca = gateway.authority.pem();
        let aim = |port, tunnel| {
            let client = |alpn: &[u8]| Client::at(port, &ca, &[alpn]);
            anyhow::Ok(Aim { http1: client(b"http/1.1")?, http2: client(b"h2")?, tunnel })
        };
        let (at_gateway, at_sink) =
            (aim(gateway.port, ([127, 0, 0, 1], gateway.tunnel_port).into())?, aim(port, udp)?);
        for process in [&running, &agent] {
            pin(process.pid(), 1).await?;
        }
        for pid in [sink.pid(), upstream.process.pid(), std::process::id()] {
            pin(pid, 0).await?;
        }
        Ok(Self {
            gateway,
            running,
            _agent: agent,
            _upstream: upstream,
            members,
            aim: at_gateway,
            sink: at_sink,
            _sink: sink,
        })
    }

    fn target(&self, member: usize) -> anyhow::Result<Target> {
        Ok(Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.gateway.port)),
            tls: trusting(&self.gateway.authority.pem())?,
            prefix: "/k8s/clusters/load".to_owned(),
            token: Some(self.members[member].token.clone()),
        })
    }

    async fn timed(&self, load: Load, plan: &Plan) -> anyhow::Result<(f64, f64)> {
        let outcome = load.run(&self.target(0)?, Duration::from_secs(plan.seconds)).await?;
        Ok((outcome.quantile_ms(0.5), outcome.quantile_ms(0.99)))
    }

    fn memory(&self) -> anyhow::Result<f64> {
        Ok(process::memory(self.running.pid())? as f64 / f64::from(1 << 20))
    }

    async fn flood(&self, kind: Kind, plan: &Plan) -> anyhow::Result<Row> {
        let mut row = Row::new(&format!("{kind:?}"));
        let began = self.memory()?;
        for _ in 0..plan.rounds {
            let flood = Flood::start(kind, &self.sink);
            row.before.push(self.timed(MEASURED, plan).await?);
            drop(flood);
            let flood = Flood::start(kind, &self.aim);
            row.during.push(self.timed(MEASURED, plan).await?);
            row.sent_per_second = flood.sent() as f64 / plan.seconds as f64;
        }
        row.grown = self.memory()? - began;
        Ok(row)
    }

    async fn stalls(&self, plan: &Plan) -> anyhow::Result<Row> {
        let mut row = Row::new("64 readers of 100 MiB and 64 uploads that stall, of two users");
        let began = self.memory()?;
        for _ in 0..plan.rounds {
            row.before.push(self.timed(MEASURED, plan).await?);
            let mut stalled = Vec::new();
            for number in 0..STALLED {
                let token = &self.members[1 + number % 2].token;
                let head = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
                let path = "/k8s/clusters/load/api/v1/namespaces/default";
                let mut reader = self.aim.http1.connect().await?;
                reader.write_all(format!("GET {path}/secrets HTTP/1.1\r\n{head}\r\n").as_bytes()).await?;
                let mut upload = self.aim.http1.connect().await?;
                let post =
                    format!("POST {path}/pods/p/exec HTTP/1.1\r\n{head}Content-Length: 104857600\r\n\r\n");
                upload.write_all(post.as_bytes()).await?;
                let part = vec![b'x'; 64 << 10];
                while tokio::time::timeout(Duration::from_millis(20), upload.write_all(&part)).await.is_ok() {
                }
                stalled.push((reader, upload));
            }
            // What flows until it stalls is no stall yet.
            until("the streams to stall", START_TIMEOUT, async || {
                let before = usage::cpu(self.running.pid())?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok((usage::cpu(self.running.pid())? - before < Duration::from_millis(30)).then_some(()))
            })
            .await?;
            row.during.push(self.timed(MEASURED, plan).await?);
            row.grown = self.memory()? - began;
        }
        Ok(row)
    }

    async fn busy(&self, plan: &Plan) -> anyhow::Result<Row> {
        let mut row = Row::new("one user's 2000 requests a second, the measured one's 40");
        for _ in 0..plan.rounds {
            row.before.push(self.timed(QUIET, plan).await?);
            let target = self.target(1)?;
            let mut busy = JoinSet::new();
            let lasts = Duration::from_secs(plan.seconds + 1);
            busy.spawn(async move { BUSY.run(&target, lasts).await });
            tokio::time::sleep(Duration::from_millis(500)).await;
            row.during.push(self.timed(QUIET, plan).await?);
            let outcome = busy.join_next().await.context("the load ended")???;
            row.sent_per_second = outcome.per_second();
        }
        Ok(row)
    }
}

impl Row {
    fn new(name: &str) -> Self {
        let (before, during) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), before, during, grown: 0.0, sent_per_second: 0.0 }
    }
}

/// All threads of a process, on one core.
async fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let mut taskset = tokio::process::Command::new("taskset");
    taskset.args(["-a", "-c", "-p", &core.to_string(), &pid.to_string()]);
    fleet::output(&mut taskset).await.map(drop)
}

/// Takes everything and does nothing with it; answers what looks like the end of a head with 401.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sink {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    udp: SocketAddr,
    #[arg(long)]
    cert: std::path::PathBuf,
    #[arg(long)]
    key: std::path::PathBuf,
}

impl Sink {
    /// Serves until the process ends.
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let acceptor = crate::upstream::acceptor(&self.cert, &self.key, &[b"h2", b"http/1.1"])?;
        let udp = UdpSocket::bind(self.udp).await?;
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while udp.recv_from(&mut packet).await.is_ok() {}
        });
        let listener = tokio::net::TcpListener::bind(self.listen).await?;
        let mut connections = JoinSet::new();
        loop {
            let (tcp, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let mut read = vec![0; 64 << 10];
                while let Ok(count @ 1..) = stream.read(&mut read).await {
                    let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
                    if read[..count].ends_with(b"\r\n\r\n") && stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}
