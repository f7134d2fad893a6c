//! The process that holds a local fleet, and how it is found again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::{Clusters, Local, Up};
use crate::process::{kill, until};

/// As long as every process may take to end in order.
const END_TIMEOUT: Duration = Duration::from_secs(120);
const TEND_INTERVAL: Duration = Duration::from_millis(500);

/// The files by which a holder is known.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Of the holder that runs, if one does.
    pub fn holder(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        // The number may be somebody else's by now.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains("drover-local").then_some(pid)
    }

    fn pid_file(&self) -> PathBuf {
        self.0.join("pid")
    }
}

/// Starts a fleet, prints what it is at and then the one JSON line, and holds it until a signal.
pub async fn hold(folder: &Folder, clusters: &Clusters) -> anyhow::Result<()> {
    std::fs::write(folder.pid_file(), std::process::id().to_string())?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stopped = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let mut stopped = std::pin::pin!(stopped);
    let starting = Local::start(folder.path(), clusters, |progress| println!("{progress}"));
    let mut local = tokio::select! {
        started = starting => started?,
        () = &mut stopped => return Ok(()),
    };
    println!("{}", serde_json::to_string(&local.up)?);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            () = tokio::time::sleep(TEND_INTERVAL) => local.tend().await?,
        }
    }
    local.stop().await
}

/// Reads a holder's lines: progress goes to `tell`, the JSON line is the result.
pub async fn follow(holder: &mut tokio::process::Child, mut tell: impl FnMut(&str)) -> anyhow::Result<Up> {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let output = holder.stdout.take().context("the holder has no output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with('{') {
            return serde_json::from_str(&line).context("the holder's last line is not what it should be");
        }
        tell(&line);
    }
    bail!("the fleet did not start")
}

/// Ends the holder and all that it holds, and removes its files. Says whether there was one.
pub async fn down(folder: &Folder) -> anyhow::Result<bool> {
    let found = folder.holder();
    if let Some(pid) = found {
        if let Err(error) = kill(pid, "TERM").await
            && folder.holder().is_some()
        {
            return Err(error);
        }
        until("the fleet to end", END_TIMEOUT, async || Ok(folder.holder().is_none().then_some(()))).await?;
    }
    // Where the holder did not end in order, what it held ends by itself a moment later.
    until("everything to end", END_TIMEOUT, async || Ok((supervised(folder.path()) == 0).then_some(())))
        .await?;
    let log = std::fs::read_to_string(folder.path().join("hold.log")).unwrap_or_default();
    log.lines().filter(|line| line.starts_with("error: ")).for_each(|line| eprintln!("{line}"));
    match std::fs::remove_dir_all(folder.path()) {
        Ok(()) => Ok(found.is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(found.is_some()),
        Err(error) => Err(error).with_context(|| format!("failed to remove {}", folder.path().display())),
    }
}

/// How many supervisors have their logs in a folder.
fn supervised(folder: &Path) -> usize {
    let folder = folder.to_string_lossy();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let commands = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    let ours = |command: &String| command.contains("deploy/local/supervise") && command.contains(&*folder);
    commands.filter(ours).count()
}
