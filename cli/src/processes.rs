//! The programs that run beside this one: started, watched, and stopped with it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

/// How often the programs are looked at.
const INTERVAL: Duration = Duration::from_millis(50);
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Above what a gateway gives its clients to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a log, in lines, where its program has ended by itself.
const LOG_LINES: usize = 5;
/// A program stops once its standard input ends: with this one, however that ends.
const STOP_WITH_STDIN: &str = "DROVER_STOP_WITH_STDIN";

/// A program that runs; it stops when this is dropped.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Told of Ctrl-C, and of being asked to end.
pub(crate) struct Stop(Receiver<()>);

impl Stop {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (sender, receiver) = channel();
        // Past the end there is nobody left to tell.
        ctrlc::set_handler(move || sender.send(()).unwrap_or_default())?;
        Ok(Self(receiver))
    }

    fn is_asked_within(&self, time: Duration) -> bool {
        !matches!(self.0.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

/// A program of Drover's, beside this one.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let program =
        std::env::current_exe()?.with_file_name(name).with_extension(std::env::consts::EXE_EXTENSION);
    anyhow::ensure!(program.is_file(), "{} is missing: drover runs what is beside it", program.display());
    Ok(program)
}

impl Process {
    /// Its output goes to a log of this start.
    pub(crate) fn start(name: &'static str, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
        let child = Command::new(program(name)?)
            .args(arguments)
            .env(STOP_WITH_STDIN, "true")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    /// Waits until its /readyz is ok; false when asked to stop meanwhile.
    pub(crate) fn wait_ready(&mut self, admin: SocketAddr, stop: &Stop) -> anyhow::Result<bool> {
        let began = Instant::now();
        while !is_ready(admin) {
            self.check()?;
            if began.elapsed() > READY_TIMEOUT {
                bail!("{} is not ready after {READY_TIMEOUT:?}: {}", self.name, self.last_lines());
            }
            if stop.is_asked_within(INTERVAL) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether to stop it, after a moment; an error once it has ended by itself.
    pub(crate) fn is_stopped(&mut self, stop: &Stop) -> anyhow::Result<bool> {
        self.check()?;
        Ok(stop.is_asked_within(INTERVAL))
    }

    /// An error once it has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!("{} has ended ({status}): {}", self.name, self.last_lines())
    }

    pub(crate) fn last_lines(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        format!("the end of {}:\n  {last}", self.log.display())
    }
}

/// Waits until asked to stop; an error where one of them ends by itself.
pub(crate) fn watch(processes: &mut [Process], stop: &Stop) -> anyhow::Result<()> {
    while !stop.is_asked_within(INTERVAL) {
        processes.iter_mut().try_for_each(Process::check)?;
    }
    Ok(())
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_TIMEOUT {
                // It may have ended just now.
                drop(self.child.kill());
                drop(self.child.wait());
                return;
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&admin, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.ends_with(b" 200"))
}
