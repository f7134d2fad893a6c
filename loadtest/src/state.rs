//! A large state: how long control and a gateway take over it, and what it takes of them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use drover_api::kinds::{Binding, Cluster, Domain, Token, TokenKind, TokenScope, User};
use drover_api::token;
use drover_control::objects::Objects;
use drover_control::seal::Seal;
use drover_control::store::Sqlite;
use drover_testkit::fleet::output;
use drover_testkit::installation::Installation;
use drover_testkit::process;
use jiff::{Timestamp, ToSpan};
use serde::Serialize;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(120);
/// Changes whose median is shown.
const CHANGES: usize = 11;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Size {
    #[arg(long, default_value_t = 10_000)]
    pub users: usize,
    #[arg(long, default_value_t = 100_000)]
    pub tokens: usize,
    #[arg(long, default_value_t = 1_000)]
    pub clusters: usize,
    #[arg(long, default_value_t = 50_000)]
    pub bindings: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub store_mib: f64,
    pub control_start_s: f64,
    /// From the start of a gateway that has nothing to its being ready.
    pub whole_push_s: f64,
    pub gateway_state_mib: f64,
    /// From the start of a gateway that has the state saved.
    pub saved_start_s: f64,
    pub control_mib: f64,
    pub gateway_mib: f64,
    /// From a request for a token to the answer, which comes once the gateway serves by it.
    pub change_s: f64,
    /// The same of a binding: who holds what has to be made out again.
    pub binding_s: f64,
    /// From a password to the answer, and from a revocation to it.
    pub login_s: f64,
    pub revoke_s: f64,
}

pub(crate) async fn measure(folder: &Path, size: Size, progress: impl Fn(&str)) -> anyhow::Result<Figures> {
    let mut installation = Installation::prepare(folder)?;
    let (up, password) = installation.up().await?;
    let password = password.context("no password")?;
    let admin = installation.login("admin", &password).await?;
    up.stop().await?;
    progress("filling the store");
    fill(&installation, size, user).await?;
    std::fs::remove_dir_all(installation.data().join("gateway"))?;

    let began = Instant::now();
    let control = installation.control("control", &[]).await?;
    let control_start_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let gateway = installation.gateway("gateway").await?;
    let whole_push_s = began.elapsed().as_secs_f64();
    progress("changing one object at a time");
    let change_s = median(async || output(&mut admin.drover(["token", "create"])).await.map(drop)).await?;
    let bind = ["binding", "create", "--user", "admin", "--role", "cluster-viewer", "--cluster", "cluster-0"];
    let binding_s = median(async || output(&mut admin.drover(bind)).await.map(drop)).await?;
    let login_s = median(async || installation.login("admin", &password).await.map(drop)).await?;
    let mut made = Vec::new();
    for _ in 0..CHANGES {
        let token = output(&mut admin.drover(["token", "create"])).await?;
        made.push(token.split('_').nth(1).context("no token")?.to_owned());
    }
    let made = std::cell::RefCell::new(made);
    let revoke_s = median(async || {
        let id = made.borrow_mut().pop().context("no token is left")?;
        output(&mut admin.drover(["token", "revoke", &id])).await.map(drop)
    });
    let revoke_s = revoke_s.await?;
    let (control_mib, gateway_mib) =
        (mib(process::memory(control.pid())?), mib(process::memory(gateway.pid())?));
    gateway.stop().await?;
    let began = Instant::now();
    let _gateway = installation.gateway("gateway-again").await?;
    let saved_start_s = began.elapsed().as_secs_f64();
    Ok(Figures {
        store_mib: mib(std::fs::metadata(installation.data().join("store.db"))?.len()),
        control_start_s,
        whole_push_s,
        gateway_state_mib: mib(size_of_folder(&installation.data().join("gateway"))?),
        saved_start_s,
        control_mib,
        gateway_mib,
        change_s,
        binding_s,
        login_s,
        revoke_s,
    })
}

/// Straight into the store, which nobody has open: what the API would have written one by one.
pub(crate) async fn fill(
    installation: &Installation,
    size: Size,
    user: impl Fn(usize) -> User,
) -> anyhow::Result<()> {
    let data = installation.data();
    let store = Arc::new(Sqlite::open(&data.join("store.db"))?);
    let objects = Objects::new(store, Seal::from_file(&data.join("store.key"))?);
    for number in 0..size.clusters {
        let (name, id) = (format!("cluster-{number}"), format!("c-x{number}"));
        objects
            .create(&Cluster { name, id, projects: Default::default(), groups_listed: None }, None)
            .await?;
    }
    for number in 0..size.users {
        objects.create(&user(number), None).await?;
    }
    let expires_at = Timestamp::now().checked_add((24 * 90).hours())?;
    for number in 0..size.tokens {
        let token::Generated { id, hash, proof_key, .. } = token::generate();
        let user = user(number % size.users.max(1)).principal;
        let (kind, scope) = (TokenKind::Bot, TokenScope::All);
        objects
            .create(
                &Token {
                    id,
                    hash,
                    proof_key,
                    user,
                    kind,
                    scope,
                    expires_at,
                    idle_s: None,
                    session: None,
                    made_by: None,
                    jwt_ends_at: None,
                },
                None,
            )
            .await?;
    }
    for number in 0..size.bindings {
        let name = format!("binding-{number}");
        let role = ["cluster-viewer", "cluster-member", "cluster-owner"][number % 3].to_owned();
        let domain = Domain::Cluster(format!("c-x{}", number % size.clusters.max(1)));
        let principal = user(number % size.users.max(1)).principal;
        objects.create(&Binding { name, principal, role, domain, expires_at: None }, None).await?;
    }
    Ok(())
}

/// One of Drover's own.
fn user(number: usize) -> User {
    let (name, principal) = (format!("user-{number}"), format!("local:user/u{number}"));
    let groups = vec![format!("local:group/g{}", number % 100)];
    User { principal, name, display_name: None, groups, disabled: false }
}

/// The median of how long something takes, of the command too.
async fn median(what: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut took = Vec::new();
    for _ in 0..CHANGES {
        let began = Instant::now();
        tokio::time::timeout(DEADLINE, what()).await??;
        took.push(began.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn size_of_folder(folder: &Path) -> anyhow::Result<u64> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

impl Figures {
    pub(crate) fn table(&self) -> String {
        format!(
            "| what | |\n|---|---|\n\
             | store on disk | {:.0} MiB |\n\
             | control's start | {:.1} s |\n\
             | whole push: start of a gateway that has nothing | {:.1} s |\n\
             | state on the gateway's disk | {:.0} MiB |\n\
             | start of a gateway that has it saved | {:.1} s |\n\
             | memory of control | {:.0} MiB |\n\
             | memory of the gateway | {:.0} MiB |\n\
             | a token, until the gateway serves by it | {:.2} s |\n\
             | a binding, until the gateway serves by it | {:.2} s |\n\
             | a login by a password, until the gateway serves by it | {:.2} s |\n\
             | a token's revocation, until the gateway refuses it | {:.2} s |\n",
            self.store_mib,
            self.control_start_s,
            self.whole_push_s,
            self.gateway_state_mib,
            self.saved_start_s,
            self.control_mib,
            self.gateway_mib,
            self.change_s,
            self.binding_s,
            self.login_s,
            self.revoke_s,
        )
    }
}
