use std::process::ExitCode;

use clap::Parser;
use drover_control::config::Config;
use drover_daemon::exit::report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    report(drover_control::run::run(Config::parse()).await)
}
