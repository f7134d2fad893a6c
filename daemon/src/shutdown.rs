//! The signals that end a process.

use std::num::ParseIntError;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Set for a process that is to stop once its standard input ends: with whoever started it, however that ends.
pub const STOP_WITH_STDIN: &str = "DROVER_STOP_WITH_STDIN";

pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Never, where it was not asked for.
    stdin_end: Option<oneshot::Receiver<()>>,
}

/// Takes over SIGINT and SIGTERM: from here on they no longer end the process by themselves.
pub fn signals() -> std::io::Result<Signals> {
    let stdin_end = std::env::var_os(STOP_WITH_STDIN).is_some().then(stdin_end);
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(Signals { interrupt, terminate, stdin_end })
}

impl Signals {
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = ended(&mut self.stdin_end) => {}
        }
    }
}

async fn ended(stdin_end: &mut Option<oneshot::Receiver<()>>) {
    match stdin_end {
        Some(end) => drop(end.await),
        None => std::future::pending().await,
    }
}

/// On a thread of its own, which ends with the process: a runtime would wait for the read at its end.
fn stdin_end() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        drop(sender);
    });
    receiver
}

/// A deadline as flags give it: whole seconds.
pub fn seconds(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_secs)
}
