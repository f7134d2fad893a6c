//! A round of refreshes of everybody whom a directory knows: how long it takes, and what a revocation waits meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use drover_api::kinds::User;
use drover_testkit::directories::OpenLdap;
use drover_testkit::fleet::{output, output_of};
use drover_testkit::installation::{Installation, Person};
use drover_testkit::process::Process;

use crate::compare::median;
use crate::state::{Size, fill};

/// Longest wait for a round.
const DEADLINE: Duration = Duration::from_secs(1200);
const INTERVAL_S: u64 = 15;
const TEAMS: usize = 100;
/// Made before the round, to be revoked.
const TOKENS: usize = 500;
const ROUND_ENDED: &str = "users refreshed";

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    size: Size,
    /// Users whose groups the directory has changed.
    #[arg(long, default_value_t = 0)]
    changed: usize,
}

#[derive(Debug)]
pub(crate) struct Figures {
    round_s: f64,
    revocations: usize,
    /// From the command to its answer, which comes once the gateway refuses the token: during the round.
    median_s: f64,
    longest_s: f64,
    /// And after it.
    quiet_s: f64,
}

pub(crate) async fn measure(folder: &Path, plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Figures> {
    progress("a directory and a store of its users");
    let ldap = OpenLdap::start_with(&folder.join("ldap"), plan.size.users, TEAMS).await?;
    let mut installation = Installation::prepare(&folder.join("drover"))?;
    let (up, password) = installation.up().await?;
    let admin = installation.login("admin", &password.context("no password")?).await?;
    add(&admin, &ldap).await?;
    up.stop().await?;
    fill(&installation, plan.size, |number| user(number, number < plan.changed)).await?;
    std::fs::remove_dir_all(installation.data().join("gateway"))?;

    let interval = format!("--refresh-interval={INTERVAL_S}");
    let control = installation.control("control", &[&interval]).await?;
    let rounds_begin = Instant::now() + Duration::from_secs(INTERVAL_S);
    let _gateway = installation.gateway("gateway").await?;
    let mut tokens = Vec::new();
    // As soon as it serves: the round has not begun.
    while Instant::now() < rounds_begin && tokens.len() < TOKENS {
        tokens.push(token(&admin).await?);
    }
    tokio::time::sleep_until(rounds_begin.into()).await;
    progress("a round, and revocations");
    let mut took = Vec::new();
    while rounds(&control)? == 0 {
        anyhow::ensure!(rounds_begin.elapsed() < DEADLINE, "no round has ended within {DEADLINE:?}");
        took.push(revocation(&admin, &mut tokens).await?);
    }
    let round_s = rounds_begin.elapsed().as_secs_f64();
    progress("revocations without a round");
    let mut quiet = Vec::new();
    while quiet.len() < 11 && rounds(&control)? == 1 {
        quiet.push(revocation(&admin, &mut tokens).await?);
    }
    anyhow::ensure!(
        !took.is_empty() && !quiet.is_empty(),
        "no revocation ended during the round, or after it"
    );
    Ok(Figures {
        round_s,
        revocations: took.len(),
        longest_s: took.iter().copied().fold(0.0, f64::max),
        median_s: median(took),
        quiet_s: median(quiet),
    })
}

async fn add(admin: &Person, ldap: &OpenLdap) -> anyhow::Result<()> {
    let (searcher, password) = OpenLdap::SEARCHER;
    let server = format!("ldaps://127.0.0.1:{}", ldap.tls_port);
    let mut add = admin.drover(["provider", "add-ldap", "corp", "--schema", "inet-org-person"]);
    add.args(["--server", &server, "--user-base", OpenLdap::PEOPLE, "--group-base", OpenLdap::GROUPS]);
    add.args(["--bind-name", searcher, "--password-stdin", "--ca"]).arg(&ldap.ca);
    output_of(&mut add, password).await.map(drop)
}

/// As the directory has the person, or without the group.
fn user(number: usize, changed: bool) -> User {
    let groups =
        if changed { Vec::new() } else { vec![format!("corp:group/{}", OpenLdap::team(number % TEAMS))] };
    User {
        principal: format!("corp:user/{}", OpenLdap::person(number)),
        name: format!("person{number:04}@corp"),
        display_name: Some(format!("person{number:04}")),
        groups,
        disabled: false,
    }
}

async fn token(admin: &Person) -> anyhow::Result<String> {
    let token = output(&mut admin.drover(["token", "create"])).await?;
    Ok(token.split('_').nth(1).context("no token")?.to_owned())
}

/// How long one takes, of a token that was made before where one is left.
async fn revocation(admin: &Person, tokens: &mut Vec<String>) -> anyhow::Result<f64> {
    let id = match tokens.pop() {
        Some(id) => id,
        None => token(admin).await?,
    };
    let began = Instant::now();
    output(&mut admin.drover(["token", "revoke", &id])).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Rounds that have ended.
fn rounds(control: &Process) -> anyhow::Result<usize> {
    Ok(control.log()?.matches(ROUND_ENDED).count())
}

impl Figures {
    pub(crate) fn table(&self) -> String {
        format!(
            "| what | |\n|---|---|\n\
             | a round | {:.1} s |\n\
             | a revocation during it, median of {} | {:.2} s |\n\
             | the longest | {:.2} s |\n\
             | a revocation after it | {:.2} s |\n",
            self.round_s, self.revocations, self.median_s, self.longest_s, self.quiet_s,
        )
    }
}
