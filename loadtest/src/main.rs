//! `drover-loadtest`: figures of the request path, next to direct access and to plain proxies, in one run.

mod compare;
mod floods;
mod load;
mod refresh;
mod setups;
mod state;
mod upstream;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use drover_daemon::exit::report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Figures of the request path, as medians and ratios.
#[derive(Parser)]
#[command(name = "drover-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Measures and prints a table.
    Compare {
        #[command(flatten)]
        plan: compare::Plan,
        /// Write the figures to this file, too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// Fills a store, and measures control and a gateway with it.
    State {
        #[command(flatten)]
        size: state::Size,
    },
    /// Measures how long users of a directory take to be looked up again, and what waits for it.
    Refresh {
        #[command(flatten)]
        plan: refresh::Plan,
    },
    /// Measures what floods, stalls and other users' load cost a user.
    Floods {
        #[command(flatten)]
        plan: floods::Plan,
    },
    /// What floods are fired at to compare.
    #[command(hide = true)]
    Sink(floods::Sink),
    /// A fast server in the API server's place.
    #[command(hide = true)]
    Upstream(upstream::Upstream),
}

#[tokio::main]
async fn main() -> ExitCode {
    report(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a second TLS provider was installed")?;
    match cli.command {
        Do::Compare { plan, json } => {
            let folder = tempfile::tempdir()?;
            let report = compare::compare(folder.path(), plan, |progress| eprintln!("{progress}")).await?;
            print!("{}", report.table());
            if let Some(file) = json {
                std::fs::write(&file, serde_json::to_string_pretty(&report)?)?;
            }
            Ok(())
        }
        Do::Refresh { plan } => {
            let folder = tempfile::tempdir()?;
            let figures = refresh::measure(folder.path(), plan, |progress| eprintln!("{progress}")).await?;
            print!("{}", figures.table());
            Ok(())
        }
        Do::State { size } => {
            let folder = tempfile::tempdir()?;
            let figures = state::measure(folder.path(), size, |progress| eprintln!("{progress}")).await?;
            print!("{}", figures.table());
            Ok(())
        }
        Do::Floods { plan } => {
            let folder = tempfile::tempdir()?;
            let table = floods::measure(folder.path(), plan, |progress| eprintln!("{progress}")).await?;
            print!("{table}");
            Ok(())
        }
        Do::Sink(sink) => sink.serve().await,
        Do::Upstream(upstream) => upstream.serve().await,
    }
}
