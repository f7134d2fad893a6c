//! Logs to standard error: lines for people on a terminal, JSON otherwise.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

/// What is logged: directives such as `info,drover_tunnel=debug`.
const FILTER_VARIABLE: &str = "DROVER_LOG";

/// Named, because a filter's own default holds only where nothing else is said.
const DEFAULT: &str = "info";

/// Starts logging. `quiet` are directives for libraries whose own records ours replace.
pub fn init(quiet: &str) -> anyhow::Result<()> {
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    // Of two directives for the same target the later one counts.
    let directives = [DEFAULT, quiet, &wanted];
    let directives = directives.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",");
    let filter = EnvFilter::builder().parse(directives).with_context(|| {
        format!("{FILTER_VARIABLE} is not a list of directives such as info,drover_tunnel=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    }
    .map_err(|error| anyhow!("logging was started before: {error}"))
}
