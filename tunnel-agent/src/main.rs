use clap::Parser;
use drover_tunnel_agent::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    drover_tunnel_agent::run::run(Config::parse())
}
