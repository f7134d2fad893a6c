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
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// Above what a gateway gives its clients to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
/// Before a program that has ended by itself starts again: longer each time, until it runs for a while.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);
const STABLE_AFTER: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a log, in lines, where its program has ended by itself.
const LOG_LINES: usize = 5;
/// A program stops once its standard input ends: with this one, however that ends.
const STOP_WITH_STDIN: &str = "DROVER_STOP_WITH_STDIN";

/// A program that runs, and is started again where it ends by itself; it stops when this is dropped.
pub(crate) struct Process {
    name: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Child,
    /// How long to wait before the next start, and since when the last one runs.
    pause: Duration,
    began: Instant,
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

    pub(crate) fn is_asked_within(&self, time: Duration) -> bool {
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
    /// Its output goes to a log of this start and of those that follow by themselves.
    pub(crate) fn start(name: &'static str, arguments: Vec<String>, log: &Path) -> anyhow::Result<Self> {
        drop(File::create(log).with_context(|| format!("failed to write {}", log.display()))?);
        let (child, log) = (spawn(name, &arguments, log)?, log.to_owned());
        Ok(Self { name, arguments, log, child, pause: RESTART_PAUSE_MIN, began: Instant::now() })
    }

    /// Starts it again where it has ended by itself, and says so.
    pub(crate) fn tend(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        if self.began.elapsed() > STABLE_AFTER {
            self.pause = RESTART_PAUSE_MIN;
        }
        eprintln!("warning: {:#}\nStarting it again.", self.ended(status));
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(RESTART_PAUSE_MAX);
        (self.child, self.began) = (spawn(self.name, &self.arguments, &self.log)?, Instant::now());
        Ok(())
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

    /// An error once it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
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

fn spawn(name: &str, arguments: &[String], log: &Path) -> anyhow::Result<Child> {
    let output = File::options().append(true).open(log);
    let output = output.with_context(|| format!("failed to write {}", log.display()))?;
    Command::new(program(name)?)
        .args(arguments)
        .env(STOP_WITH_STDIN, "true")
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("failed to start {name}"))
}

/// Keeps them running until asked to stop.
pub(crate) fn tend(processes: &mut [Process], stop: &Stop) -> anyhow::Result<()> {
    while !stop.is_asked_within(INTERVAL) {
        processes.iter_mut().try_for_each(Process::tend)?;
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
