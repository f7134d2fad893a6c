use clap::Parser;
use drover_gateway::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    drover_gateway::run::run(Config::parse())
}
