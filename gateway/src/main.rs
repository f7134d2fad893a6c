use std::process::ExitCode;

use clap::Parser;
use drover_daemon::exit::report;
use drover_gateway::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    report(drover_gateway::run::run(Config::parse()))
}
