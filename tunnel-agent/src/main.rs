use std::process::ExitCode;

use clap::Parser;
use drover_daemon::exit::report;
use drover_tunnel_agent::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    report(drover_tunnel_agent::run::run(Config::parse()))
}
