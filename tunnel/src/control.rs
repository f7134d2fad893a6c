//! The control stream: hello, going away, and the watch over a peer that owes answers.

use std::sync::Arc;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::debug;

use crate::close::CloseReason;
use crate::codec::{ControlFrame, FRAME_BYTES_MAX, Hello, Malformed};
use crate::hello::{self, InstanceId};
use crate::limits::{CONTROL_WRITE_TIMEOUT, PROBE_TIMEOUT, SILENT_TICKS_LOST, SILENT_TICKS_PING, TICK};
use crate::session::{End, Inner};

/// One side's ends of the control stream, after both hellos.
pub(crate) struct Control {
    send: SendStream,
    recv: RecvStream,
    buffer: Vec<u8>,
}

/// Says hello and hears the peer's; the dialer opens the stream and speaks first.
pub(crate) async fn greet(
    connection: &Connection,
    end: End,
    instance: InstanceId,
) -> Result<(Control, Hello), CloseReason> {
    let opened = match end {
        End::Dialer => connection.open_bi().await,
        End::Listener => connection.accept_bi().await,
    };
    let (send, recv) = opened.map_err(|error| CloseReason::from_error(&error))?;
    let mut control = Control { send, recv, buffer: Vec::new() };
    let ours = Hello::new(instance);
    hello::send(&mut control.send, &ours).await?;
    let theirs = match hello::receive(&mut control.recv, &mut control.buffer).await {
        Ok(theirs) => theirs,
        // Where the peer closed, its reason says more than the stream's end.
        Err(reason) => {
            return Err(connection.close_reason().map_or(reason, |error| CloseReason::from_error(&error)));
        }
    };
    hello::agree(&ours, &theirs)?;
    // From here stream windows and budgets bound what is unread: this one must never bind.
    connection.set_receive_window(VarInt::MAX);
    Ok((control, theirs))
}

impl Control {
    /// Serves the stream until the session ends.
    pub(crate) async fn run(mut self, session: Arc<Inner>) {
        let mut goaway = session.goaway.subscribe();
        goaway.mark_changed(); // it may have been asked for already
        let mut silence = Silence::new(&session);
        let mut doubt = None;
        loop {
            let step = tokio::select! {
                frame = self.next() => match frame {
                    Ok(Some(frame)) => self.take(frame, &session).await,
                    Ok(None) => Err(CloseReason::ProtocolViolation),
                    Err(malformed) => {
                        debug!(%malformed, "control stream refused");
                        Err(CloseReason::ProtocolViolation)
                    }
                },
                Ok(()) = goaway.changed() => {
                    let said = *goaway.borrow_and_update();
                    match said {
                        Some(goaway) => self.say(&ControlFrame::Goaway(goaway)).await,
                        None => Ok(()),
                    }
                }
                () = session.busy_changed.notified() => {
                    silence = Silence::new(&session);
                    Ok(())
                }
                () = session.doubted.notified() => {
                    doubt = Some(Doubt::new(&session));
                    self.say(&ControlFrame::Ping(rand::random())).await
                }
                () = until(doubt.as_ref()), if doubt.is_some() => match doubt.take() {
                    Some(doubt) if doubt.is_confirmed(&session) => Err(CloseReason::Lost),
                    Some(_) | None => Ok(()),
                },
                verdict = silence.tick(&session), if session.is_busy() => match verdict {
                    Verdict::Ask => self.say(&ControlFrame::Ping(rand::random())).await,
                    Verdict::Lost => Err(CloseReason::Lost),
                    Verdict::Heard => Ok(()),
                },
            };
            let drained = session.end == End::Listener && session.is_going() && !session.is_busy();
            match step {
                Err(reason) => return session.close(reason),
                // Only the listener knows that the last response has arrived.
                Ok(()) if drained => return session.close(CloseReason::Drained),
                Ok(()) => {}
            }
        }
    }

    /// The next frame; none when the stream or the connection ended. Safe to cancel.
    async fn next(&mut self) -> Result<Option<ControlFrame>, Malformed> {
        loop {
            if let Some((frame, length)) = ControlFrame::decode(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some(frame));
            }
            match self.recv.read_chunk(FRAME_BYTES_MAX, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    async fn take(&mut self, frame: ControlFrame, session: &Inner) -> Result<(), CloseReason> {
        match frame {
            ControlFrame::Goaway(goaway) => {
                session.peer_goaway.send_replace(Some(goaway));
                Ok(())
            }
            ControlFrame::Ping(opaque) => self.say(&ControlFrame::Pong(opaque)).await,
            // Any datagram is a sign of life: the opaque bytes need no matching.
            ControlFrame::Pong(_) | ControlFrame::Ignored => Ok(()),
            ControlFrame::Hello(_) => Err(CloseReason::ProtocolViolation),
        }
    }

    async fn say(&mut self, frame: &ControlFrame) -> Result<(), CloseReason> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        match timeout(CONTROL_WRITE_TIMEOUT, self.send.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CloseReason::Lost),
        }
    }
}

/// For how many ticks nothing was heard while answers are owed.
struct Silence {
    interval: Interval,
    datagrams: u64,
    ticks: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Ask,
    Heard,
    Lost,
}

impl Silence {
    fn new(session: &Inner) -> Self {
        let mut interval = interval_at(Instant::now() + TICK, TICK);
        // A runtime that stood still for seconds has not listened for seconds: those ticks do not count.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, datagrams: datagrams(session), ticks: 0 }
    }

    async fn tick(&mut self, session: &Inner) -> Verdict {
        self.interval.tick().await;
        let heard = datagrams(session);
        let silent = self.datagrams == heard;
        self.datagrams = heard;
        self.judge(silent)
    }

    fn judge(&mut self, silent: bool) -> Verdict {
        self.ticks = if silent { self.ticks + 1 } else { 0 };
        match self.ticks {
            SILENT_TICKS_PING => Verdict::Ask,
            SILENT_TICKS_LOST.. => Verdict::Lost,
            _ => Verdict::Heard,
        }
    }
}

/// A question that was sent, and what had been heard before it.
struct Doubt {
    deadline: Instant,
    datagrams: u64,
}

impl Doubt {
    fn new(session: &Inner) -> Self {
        Self { deadline: Instant::now() + PROBE_TIMEOUT, datagrams: datagrams(session) }
    }

    /// Whether nothing at all was heard since.
    fn is_confirmed(&self, session: &Inner) -> bool {
        self.datagrams == datagrams(session)
    }
}

async fn until(doubt: Option<&Doubt>) {
    match doubt {
        Some(doubt) => sleep_until(doubt.deadline).await,
        None => std::future::pending().await,
    }
}

fn datagrams(session: &Inner) -> u64 {
    session.connection.stats().udp_rx.datagrams
}
