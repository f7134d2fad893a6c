//! Runs every case on every setup, round after round, so that what disturbs the machine disturbs all alike.

use std::path::Path;
use std::time::Duration;

use drover_testkit::process;
use serde::Serialize;

use crate::load::{Load, Outcome};
use crate::setups::{Setup, Setups};
use crate::upstream::{LIST_BYTES, POD_BYTES};
use crate::usage;

const POD: &str = "/api/v1/namespaces/default/pods/p";
const LIST: &str = "/api/v1/namespaces/default/pods";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=true";
/// Idle watches that are opened to see what one costs.
const WATCHES: usize = 500;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Plan {
    /// How often everything is measured: medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of one measurement, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
}

struct Case {
    name: &'static str,
    load: Load,
}

const GET: Load = Load { path: POD, bytes: POD_BYTES, connections: 1, per_second: None };

const CASES: [Case; 4] = [
    Case { name: "get 1 KiB, 1 connection", load: GET },
    Case { name: "get 1 KiB, 64 connections", load: Load { connections: 64, ..GET } },
    Case {
        name: "get 1 KiB, 2000/s due on 64 connections",
        load: Load { connections: 64, per_second: Some(2000), ..GET },
    },
    Case {
        name: "list 10 MiB, 4 connections",
        load: Load { path: LIST, bytes: LIST_BYTES, connections: 4, per_second: None },
    },
];

/// Medians of one case on one setup.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub case: &'static str,
    pub setup: &'static str,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Of each process on the way, in µs.
    pub cpu_us_per_request: Vec<(&'static str, f64)>,
}

/// What an idle watch holds in each process, in KiB.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Watch {
    pub setup: &'static str,
    pub kib_per_watch: Vec<(&'static str, f64)>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub rows: Vec<Row>,
    pub watches: Vec<Watch>,
    pub skipped: Vec<String>,
}

struct Sample {
    outcome: Outcome,
    cpu_us: Vec<f64>,
}

pub(crate) async fn compare(folder: &Path, plan: Plan, progress: impl Fn(&str)) -> anyhow::Result<Report> {
    let setups = Setups::start(folder).await?;
    // First, while nothing has grown yet: memory that was freed would hide what a watch takes.
    let mut watches = Vec::new();
    for setup in setups.all.iter().filter(|setup| !setup.processes.is_empty()) {
        progress(&format!("{WATCHES} idle watches through {}", setup.name));
        watches.push(watch(setup).await?);
    }
    let mut rows = Vec::new();
    for case in &CASES {
        let mut samples: Vec<Vec<Sample>> = setups.all.iter().map(|_| Vec::new()).collect();
        for round in 1..=plan.rounds {
            progress(&format!("{}, round {round} of {}", case.name, plan.rounds));
            for (setup, samples) in setups.all.iter().zip(&mut samples) {
                samples.push(measure(setup, case, Duration::from_secs(plan.seconds)).await?);
            }
        }
        rows.extend(setups.all.iter().zip(&samples).map(|(setup, samples)| row(case, setup, samples)));
    }
    Ok(Report { rows, watches, skipped: setups.skipped })
}

async fn measure(setup: &Setup, case: &Case, duration: Duration) -> anyhow::Result<Sample> {
    let used = || {
        setup.processes.iter().map(|(_, process)| usage::cpu(process.pid())).collect::<Result<Vec<_>, _>>()
    };
    let before = used()?;
    let outcome = case.load.run(&setup.target, duration).await?;
    let cpu = used()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    // The first request of each connection is not timed, but its work is there.
    let requests = (outcome.requests + case.load.connections) as f64;
    let cpu_us = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests).collect();
    Ok(Sample { outcome, cpu_us })
}

fn row(case: &Case, setup: &Setup, samples: &[Sample]) -> Row {
    let of = |value: &dyn Fn(&Sample) -> f64| median(samples.iter().map(value).collect());
    let processes = setup.processes.iter().enumerate();
    Row {
        case: case.name,
        setup: setup.name,
        requests_per_second: of(&|sample| sample.outcome.per_second()),
        p50_ms: of(&|sample| sample.outcome.quantile_ms(0.5)),
        p99_ms: of(&|sample| sample.outcome.quantile_ms(0.99)),
        cpu_us_per_request: processes
            .map(|(at, (name, _))| (*name, of(&|sample| sample.cpu_us[at])))
            .collect(),
    }
}

async fn watch(setup: &Setup) -> anyhow::Result<Watch> {
    let held = || {
        setup
            .processes
            .iter()
            .map(|(_, process)| process::memory(process.pid()))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = held()?;
    let mut open = Vec::new();
    for _ in 0..WATCHES {
        let mut connection = setup.target.connect().await?;
        let body = connection.watch(&setup.target, WATCH).await?;
        open.push((connection, body));
    }
    let grown = held()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before) as f64);
    let names = setup.processes.iter().map(|(name, _)| *name);
    let kib_per_watch = names.zip(grown.map(|bytes| bytes / 1024.0 / WATCHES as f64)).collect();
    Ok(Watch { setup: setup.name, kib_per_watch })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Markdown, with each figure next to its ratio to the direct one of the same case.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| case | way | requests/s | p50 ms | p99 ms | CPU µs per request |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let direct = self.rows.iter().find(|other| other.case == row.case).unwrap_or(row);
            let ratio = |value: f64, of: f64| format!("{value:.2} ({:.1}×)", value / of);
            let cpu: Vec<_> =
                row.cpu_us_per_request.iter().map(|(name, cpu)| format!("{name} {cpu:.0}")).collect();
            text.push_str(&format!(
                "| {} | {} | {:.0} ({:.2}×) | {} | {} | {} |\n",
                row.case,
                row.setup,
                row.requests_per_second,
                row.requests_per_second / direct.requests_per_second,
                ratio(row.p50_ms, direct.p50_ms),
                ratio(row.p99_ms, direct.p99_ms),
                if cpu.is_empty() { "-".to_owned() } else { cpu.join(", ") },
            ));
        }
        text.push_str("\n| way | KiB per idle watch |\n|---|---|\n");
        for watch in &self.watches {
            let held: Vec<_> =
                watch.kib_per_watch.iter().map(|(name, kib)| format!("{name} {kib:.0}")).collect();
            text.push_str(&format!("| {} | {} |\n", watch.setup, held.join(", ")));
        }
        self.skipped.iter().for_each(|skipped| text.push_str(&format!("\nNot compared: {skipped}\n")));
        text
    }
}
