//! What each command does.

use std::io::Read;

use anyhow::{Context, bail};
use clap::CommandFactory;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::config::Kept;

mod agent;
mod binding;
mod ci;
mod cluster;
mod credential;
mod gateway;
mod group;
mod kubeconfig;
mod login;
mod provider;
mod renewal;
mod status;
mod token;
mod up;
mod user;

pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { command, output, config } = cli;
    let kept = || Kept::load(config.as_deref());
    let client = || Client::new(&logged_in(kept()?)?.config);
    match command {
        Command::Up(arguments) => up::up(kept()?, &arguments),
        Command::Login(login) => login::login(kept()?, login),
        Command::Logout => login::logout(logged_in(kept()?)?),
        Command::Whoami => login::who_am_i(&client()?, output),
        Command::Password { password_stdin } => login::change_password(&client()?, password_stdin),
        Command::Cluster(command) => cluster::run(&logged_in(kept()?)?, command, output),
        Command::Credential(command) if command.ci => ci::print(&command, kept()?.config),
        Command::Credential(_) => credential::run(config.as_deref()),
        Command::Kubeconfig(command) if command.ci.ci => {
            kubeconfig::run(&ci::config(&command.ci, kept()?.config)?, config.as_deref(), command)
        }
        Command::Kubeconfig(command) => {
            kubeconfig::run(&logged_in(kept()?)?.config, config.as_deref(), command)
        }
        Command::Token(command) => token::run(&client()?, command, output),
        Command::Gateway(command) => gateway::run(&client()?, command, output),
        Command::Group(command) => group::run(&client()?, command, output),
        Command::User(command) => user::run(&client()?, command, output),
        Command::Provider(command) => provider::run(&client()?, command, output),
        Command::Binding(command) => binding::run(&client()?, command, output),
        Command::Status => status::run(&client()?, output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "drover", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn logged_in(kept: Kept) -> anyhow::Result<Kept> {
    kept.config.server()?;
    if kept.config.held.is_none() {
        bail!("you are not logged in: drover login");
    }
    Ok(kept)
}

/// A password from a script's pipe, or from whoever sits at the terminal.
fn password(from_stdin: bool, prompt: &str) -> anyhow::Result<String> {
    if !from_stdin {
        return rpassword::prompt_password(prompt).context("there is no terminal: use --password-stdin");
    }
    let mut text = String::new();
    std::io::stdin().take(4096).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
