//! A process that never outlives whoever started it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// How long a process has to end in order.
const GRACE: Duration = Duration::from_secs(20);
/// That, and the end by force.
const END_TIMEOUT: Duration = Duration::from_secs(25);
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a log is shown with a failure, in bytes.
const LOG_TAIL_BYTES: usize = 4096;

/// A command under `deploy/local/supervise`, ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    supervisor: Child,
    /// Its end is the supervisor's signal.
    input: Option<ChildStdin>,
}

impl Process {
    /// Starts a program, whose output goes to `<folder>/<name>.log`.
    pub async fn start<S: AsRef<OsStr>>(
        name: &str,
        folder: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        Self::with_grace(GRACE, name, folder, program, arguments).await
    }

    /// Starts a program that has nothing to end in order: its state goes with it.
    pub async fn start_disposable<S: AsRef<OsStr>>(
        name: &str,
        folder: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        Self::with_grace(Duration::ZERO, name, folder, program, arguments).await
    }

    async fn with_grace<S: AsRef<OsStr>>(
        grace: Duration,
        name: &str,
        folder: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(supervisor_script());
        command.arg(grace.as_secs().to_string()).arg(&log).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Of a group of its own: a terminal's Ctrl-C ends it by way of its parent, in order.
        command.process_group(0);
        let mut supervisor = command.spawn().with_context(|| format!("failed to start {name}"))?;
        let input = supervisor.stdin.take();
        let output = supervisor.stdout.take().context("the supervisor has no output")?;
        let mut line = String::new();
        timeout(START_TIMEOUT, BufReader::new(output).read_line(&mut line)).await??;
        let pid = line.trim().parse().with_context(|| format!("{name} did not start: {line:?}"))?;
        Ok(Self { name: name.to_owned(), log, pid, supervisor, input })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails, with the end of its log, where the process has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if self.supervisor.try_wait()?.is_some() {
            bail!("{} ended by itself; the end of {}:\n{}", self.name, self.log.display(), self.log_tail());
        }
        Ok(())
    }

    /// All that it has said.
    pub fn log(&self) -> std::io::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    pub fn log_tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    /// Sends a signal to the process itself, by its name: `KILL`, `STOP`.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        kill(self.pid, signal).await.with_context(|| format!("failed to send {signal} to {}", self.name))
    }

    /// Ends the process in order, and waits for that.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input.take());
        let ended = timeout(END_TIMEOUT, self.supervisor.wait()).await;
        ended.with_context(|| format!("{} did not end", self.name))?.map(drop).map_err(Into::into)
    }
}

/// Sends a signal. The shell's own kill: not every machine has the program.
pub async fn kill(pid: u32, signal: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().await?;
    if status.success() { Ok(()) } else { bail!("there is no process {pid}, or it is not ours") }
}

/// The repository that this was built from.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testkit is a folder of the repository").to_owned()
}

fn supervisor_script() -> PathBuf {
    repository().join("deploy/local/supervise")
}

/// Resident memory of a process now, in bytes.
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// A TCP port of the loopback interface that nobody listens on now.
pub fn free_port() -> anyhow::Result<u16> {
    port_below_the_systems(|port| {
        std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).map(drop)
    })
}

/// A UDP port of the loopback interface that nobody has now.
pub fn free_udp_port() -> anyhow::Result<u16> {
    port_below_the_systems(|port| std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, port)).map(drop))
}

/// A random one below those that the system gives to whoever asks for any: between the look and the use, a
/// connection that begins cannot take it, and another test hardly ever does.
fn port_below_the_systems(bind: impl Fn(u16) -> std::io::Result<()>) -> anyhow::Result<u16> {
    const PORTS: std::ops::Range<u16> = 12_000..30_000;
    const TRIES: usize = 100;
    let mut tries = (0..TRIES).map(|_| rand::random_range(PORTS));
    tries.find(|port| bind(*port).is_ok()).context("no free port was found")
}

/// Asks until there is an answer, with a pause between; an error that is final ends it at once.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    timeout(deadline, asking).await.with_context(|| format!("waited {deadline:?} in vain for {what}"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_some_memory() {
        assert!(memory(std::process::id()).unwrap() > 100_000);
    }
}
