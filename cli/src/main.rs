//! `drover`: what people do with Drover.

mod args;
mod client;
mod commands;
mod config;
mod files;
mod interrupts;
mod keyring;
mod loopback;
mod output;
mod processes;

use std::process::ExitCode;

use clap::Parser;

use args::Cli;

fn main() -> ExitCode {
    match commands::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", output::plain(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
