//! What a process used, as the kernel counts it.

use std::time::Duration;

use anyhow::Context;

/// Of `utime` and `stime` in `/proc/<pid>/stat`: Linux fixes it for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process so far.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>());
    let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
    Ok(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_something() {
        let own = std::process::id();
        assert!(cpu(own).unwrap() < Duration::from_secs(3600));
    }
}
