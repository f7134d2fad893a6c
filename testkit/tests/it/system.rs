//! What whole-system tests share: two real control planes, started once, and fleets in front of them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_api::kinds::Domain;
use drover_testkit::api_server::ApiServer;
use drover_testkit::client::Client;
use drover_testkit::control_plane::{self, ControlPlane};
use drover_testkit::fleet::{Gateway, Target, admit_agent};
use drover_testkit::process::{Process, until};
use drover_testkit::roster::{Member, Roster};
use serde_json::Value;
use tokio::process::Command;
use tokio::runtime::Runtime;

/// For anything that takes moments: only a hang meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it happens before the deadline")
}

/// The clusters of all tests: a test uses objects with names of its own.
pub(crate) struct Clusters {
    pub(crate) one: Cluster,
    pub(crate) two: Cluster,
}

pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) target: Target,
}

/// Started by the first test that asks, on a runtime that outlives each test's; ended with this process.
pub(crate) fn clusters() -> &'static Clusters {
    static CLUSTERS: OnceLock<Clusters> = OnceLock::new();
    CLUSTERS.get_or_init(|| {
        let start = || {
            let runtime = Box::leak(Box::new(Runtime::new().unwrap()));
            runtime.block_on(async {
                let (one, two) =
                    tokio::join!(Cluster::start("one", "c-one1"), Cluster::start("two", "c-two2"));
                Clusters { one, two }
            })
        };
        std::thread::spawn(start).join().expect("the control planes start")
    })
}

impl Cluster {
    async fn start(name: &str, id: &str) -> Self {
        let folder = folder(name);
        let plane = ControlPlane::start(name, &folder).await.unwrap();
        let token = admit_agent(|| plane.kubectl(), &folder).await.unwrap();
        let (address, ca) = (plane.address.clone(), plane.ca.clone());
        Self { target: Target { name: name.to_owned(), id: id.to_owned(), address, ca, token }, plane }
    }
}

impl Cluster {
    /// What the API server finished for requests whose URI has `mark` in it.
    pub(crate) fn audited(&self, mark: &str) -> Vec<Value> {
        let mut events = self.events(mark);
        events.retain(|event| event["stage"] == "ResponseComplete");
        events
    }

    /// Every stage of requests whose URI has `mark` in it.
    pub(crate) fn events(&self, mark: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.plane.audit_log).unwrap();
        // The last line may be in the writing.
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let marked = |event: &Value| event["requestURI"].as_str().is_some_and(|uri| uri.contains(mark));
        events.filter(marked).collect()
    }
}

/// A gateway with an agent in each cluster, and two users: `admin` owns all, `viewer` may read.
pub(crate) struct Fleet {
    pub(crate) gateway: Gateway,
    pub(crate) roster: Roster,
    pub(crate) admin: Member,
    pub(crate) viewer: Member,
    pub(crate) running: Process,
    pub(crate) agents: Vec<Process>,
}

impl Fleet {
    pub(crate) async fn start(test: &str) -> Self {
        Self::start_with(test, |_| {}).await
    }

    /// A fleet whose snapshot `write` completes.
    pub(crate) async fn start_with(test: &str, write: impl FnOnce(&mut Roster)) -> Self {
        let clusters = clusters();
        Self::in_front_of(test, &[&clusters.one.target, &clusters.two.target], write).await
    }

    /// A fleet in front of an API server of the test's own.
    pub(crate) async fn with_api_server(test: &str) -> (Self, ApiServer) {
        let server = ApiServer::start(&folder(test), "one", "c-one1").await.unwrap();
        (Self::in_front_of(test, &[&server.target], |_| {}).await, server)
    }

    pub(crate) async fn in_front_of(
        test: &str,
        targets: &[&Target],
        write: impl FnOnce(&mut Roster),
    ) -> Self {
        let folder = folder(test);
        let named: Vec<_> = targets.iter().map(|target| (target.name.as_str(), target.id.as_str())).collect();
        let mut roster = Roster::new(&folder.join("snapshot.json"), &named).unwrap();
        let admin = roster.user("admin", &["local:group/platform"]).unwrap();
        let viewer = roster.user("viewer", &[]).unwrap();
        roster.bind(&admin.principal, "admin", Domain::Global);
        roster.bind(&viewer.principal, "cluster-viewer", Domain::Global);
        write(&mut roster);
        roster.publish().unwrap();
        let gateway = Gateway::prepare(&folder, &roster).unwrap();
        let running = gateway.start().await.unwrap();
        let mut agents = Vec::new();
        for target in targets {
            agents.push(gateway.start_agent(target, "a").await.unwrap());
        }
        let fleet = Self { gateway, roster, admin, viewer, running, agents };
        for target in targets {
            fleet.connected(&target.name).await;
        }
        fleet
    }

    /// Waits until requests reach a cluster.
    pub(crate) async fn connected(&self, cluster: &str) {
        let client = self.client();
        until("the cluster to be reached", DEADLINE, async || {
            let (status, _) = client.get(cluster, "/version", &self.admin.token).await?;
            Ok((status == 200).then_some(()))
        })
        .await
        .unwrap();
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.gateway).unwrap()
    }

    /// kubectl of a user, through the gateway.
    pub(crate) fn kubectl(&self, member: &Member, cluster: &str) -> Command {
        let kubeconfig = self.gateway.kubeconfig(member, &[cluster]).unwrap();
        let mut command = control_plane::kubectl(&control_plane::binaries().unwrap(), &kubeconfig);
        command.args(["--context", cluster]);
        command
    }

    /// What kubectl prints: standard output where it succeeds, else standard error.
    pub(crate) async fn says(
        &self,
        member: &Member,
        cluster: &str,
        arguments: &[&str],
    ) -> Result<String, String> {
        let output = soon(self.kubectl(member, cluster).args(arguments).output()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

/// A folder of one test's in the build's temporary files; those of runs that ended are removed.
pub(crate) fn folder(test: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = all.join(format!("run-{}", std::process::id()));
    if NEXT.load(Ordering::Relaxed) == 0 {
        for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ended = |pid: &str| !Path::new("/proc").join(pid).exists();
            if name.strip_prefix("run-").is_some_and(ended) {
                // Another test run may be removing it as well.
                _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
    let folder = run.join(format!("{}-{test}", NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
