//! One request's stream: bytes both ways, with the header and the agent's first frame handled on the way.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::budget::{Entry, Ledger, Owner, Reset};
use crate::codec::{FirstFrame, Malformed};
use crate::limits::COALESCED_BYTES_MAX;
use crate::outcome::{Outcome, OutcomeState};
use crate::session::InFlight;

/// How much is read at once where a frame must be found first, in bytes.
const FRAME_READ_BYTES: usize = 1024;

/// Codes of RESET_STREAM and STOP_SENDING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamCode {
    Done = 0x00,
    Cancelled = 0x01,
    Refused = 0x02,
    Budget = 0x03,
    Malformed = 0x04,
    Timeout = 0x05,
}

impl From<StreamCode> for VarInt {
    fn from(code: StreamCode) -> Self {
        Self::from_u32(code as u32)
    }
}

impl StreamCode {
    /// Whether a peer that stopped reading with this code has said all that it had to say.
    fn ends_well(code: VarInt) -> bool {
        code == Self::Done.into() || code == Self::Refused.into()
    }
}

/// Both directions of a QUIC stream, with what accounts for them.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) in_flight: InFlight,
    pub(crate) ledger: Arc<Ledger>,
}

impl Ends {
    /// Gives both directions up. Those that have ended already are left alone.
    pub(crate) fn abandon(&mut self, code: StreamCode) {
        _ = self.send.reset(code.into());
        _ = self.recv.stop(code.into());
    }
}

/// A request's stream. Shutting down is FIN; dropping it before both directions ended gives the rest up.
pub struct Stream {
    send: SendStream,
    recv: Arc<Mutex<Recv>>,
    side: Side,
    /// Bytes to send before any others: the header, or the agent's ACCEPTED.
    pending: BytesMut,
    /// Bytes read and not yet taken.
    leftover: Bytes,
    expects: Expects,
    sending: Sending,
    outcome: Outcome,
    entry: Entry,
    in_flight: InFlight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Agent,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// The peer has answered and wants no more: what comes is dropped, so that its answer is still read.
    Unwanted,
    Ended,
}

/// What the next bytes to read are.
enum Expects {
    /// The agent's first frame, so far.
    FirstFrame(BytesMut),
    Bytes,
    Eof,
}

/// The receiving end, which the budget may stop while its reader rests.
#[derive(Debug)]
struct Recv {
    stream: RecvStream,
    over_budget: bool,
}

impl Stream {
    /// The gateway's end.
    pub(crate) fn opened(ends: Ends, header: BytesMut, owner: Owner) -> Self {
        Self::new(ends, Side::Gateway, header, Bytes::new(), owner)
    }

    /// The agent's end.
    pub(crate) fn accepted(ends: Ends, rest: Bytes, owner: Owner) -> Self {
        let accepted = BytesMut::from(&FirstFrame::Accepted.encode()[..]);
        Self::new(ends, Side::Agent, accepted, rest, owner)
    }

    fn new(ends: Ends, side: Side, pending: BytesMut, leftover: Bytes, owner: Owner) -> Self {
        let Ends { send, recv, in_flight, ledger } = ends;
        let recv = Arc::new(Mutex::new(Recv { stream: recv, over_budget: false }));
        let entry = ledger.enter(owner, Box::new(OverBudget(recv.clone())));
        let (expects, outcome) = match side {
            Side::Agent => (Expects::Bytes, OutcomeState::Accepted),
            Side::Gateway => (Expects::FirstFrame(BytesMut::new()), OutcomeState::Waiting),
        };
        let outcome = Outcome::new(outcome);
        Self {
            send,
            recv,
            side,
            pending,
            leftover,
            expects,
            sending: Sending::Open,
            outcome,
            entry,
            in_flight,
        }
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// Resolves when the peer gave the stream up, or the session ended; never after a proper end.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.send.stopped();
        async move {
            match stopped.await {
                Ok(Some(code)) if StreamCode::ends_well(code) => std::future::pending().await,
                Ok(None) => std::future::pending().await,
                Ok(Some(_)) | Err(_) => {}
            }
        }
    }

    /// Reads until the agent's first frame is whole, and takes it off.
    fn poll_first_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Expects::FirstFrame(frame) = &mut self.expects {
            match FirstFrame::decode(frame) {
                Ok(Some((first, length))) => {
                    let rest = std::mem::take(frame).freeze().split_off(length);
                    self.answered(first, rest)?;
                    continue;
                }
                Ok(None) => {}
                Err(malformed) => return Poll::Ready(Err(self.broken(malformed))),
            }
            let mut bytes = [0; FRAME_READ_BYTES];
            let read = ready!(self.poll_recv(cx, &mut ReadBuf::new(&mut bytes)))?;
            let Expects::FirstFrame(frame) = &mut self.expects else { return Poll::Ready(Ok(())) };
            if read == 0 {
                return Poll::Ready(Err(self.broken(Malformed::Length)));
            }
            frame.extend_from_slice(&bytes[..read]);
        }
        Poll::Ready(Ok(()))
    }

    fn answered(&mut self, first: FirstFrame, rest: Bytes) -> io::Result<()> {
        match first {
            FirstFrame::Accepted => {
                self.outcome.set(OutcomeState::Accepted);
                self.leftover = rest;
                self.expects = Expects::Bytes;
                Ok(())
            }
            FirstFrame::Refused(refusal) => {
                let error = io::Error::other(format!("the agent refused the stream: {}", refusal.message));
                self.outcome.set(OutcomeState::Refused(refusal));
                self.expects = Expects::Eof;
                Err(error)
            }
        }
    }

    fn broken(&mut self, malformed: Malformed) -> io::Error {
        _ = self.send.reset(StreamCode::Malformed.into());
        _ = lock(&self.recv).stream.stop(StreamCode::Malformed.into());
        self.sending = Sending::Ended;
        self.outcome.set(OutcomeState::Lost(None));
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }

    /// Reads from the network, and keeps the budget informed of whether the reader rests.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        let mut recv = lock(&self.recv);
        if recv.over_budget {
            return Poll::Ready(Err(io::Error::other("the stream was unread for too long, over a budget")));
        }
        match recv.stream.poll_read_buf(cx, buf) {
            Poll::Pending => {
                self.entry.waits();
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                let read = buf.filled().len() - before;
                if read == 0 {
                    self.entry.waits()
                } else {
                    self.entry.took(read)
                }
                Poll::Ready(Ok(read))
            }
            Poll::Ready(Err(error)) => {
                self.entry.waits();
                let lost = matches!(error, ReadError::ConnectionLost(_));
                self.outcome.set(OutcomeState::Lost(lost.then(|| self.in_flight.close_reason()).flatten()));
                Poll::Ready(Err(error.into()))
            }
        }
    }

    /// Sends what must go first.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let pending = self.pending.split();
            match self.poll_send(cx, &pending) {
                Poll::Ready(Ok(written)) => {
                    self.pending = pending;
                    self.pending.advance(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.pending = pending;
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.sending == Sending::Unwanted {
            return Poll::Ready(Ok(bytes.len()));
        }
        match ready!(Pin::new(&mut self.send).poll_write(cx, bytes)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(WriteError::Stopped(code)) if StreamCode::ends_well(code) => {
                self.sending = Sending::Unwanted;
                Poll::Ready(Ok(bytes.len()))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_first_frame(cx))?;
        if !stream.leftover.is_empty() {
            let length = stream.leftover.len().min(buf.remaining());
            buf.put_slice(&stream.leftover.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if matches!(stream.expects, Expects::Eof) || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if ready!(stream.poll_recv(cx, buf))? == 0 {
            stream.expects = Expects::Eof;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if stream.pending.is_empty() {
            return stream.poll_send(cx, bytes);
        }
        // The header and the request's head leave in one packet.
        if stream.pending.len() + bytes.len() <= COALESCED_BYTES_MAX {
            stream.pending.extend_from_slice(bytes);
            return match stream.poll_pending(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                // What is left goes before the next bytes, or with the flush.
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
            };
        }
        ready!(stream.poll_pending(cx))?;
        stream.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pending(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_pending(cx))?;
        if stream.sending != Sending::Ended {
            stream.sending = Sending::Ended;
            // Only an already closed stream refuses, and then there is nothing left to end.
            _ = stream.send.finish();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // An agent that has sent its whole response needs no more of the request: that is no cancellation.
        let stop = match (self.side, self.sending) {
            (Side::Agent, Sending::Ended) => StreamCode::Done,
            (Side::Agent, Sending::Open | Sending::Unwanted) | (Side::Gateway, _) => StreamCode::Cancelled,
        };
        if self.sending != Sending::Ended {
            _ = self.send.reset(StreamCode::Cancelled.into());
        }
        if !matches!(self.expects, Expects::Eof) {
            _ = lock(&self.recv).stream.stop(stop.into());
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.send.id())
    }
}

/// Ends a stream whose reader rests: its buffer is freed, and the peer stops.
#[derive(Debug)]
struct OverBudget(Arc<Mutex<Recv>>);

impl Reset for OverBudget {
    fn reset(&self) {
        let mut recv = lock(&self.0);
        recv.over_budget = true;
        // A stream that has ended holds nothing.
        _ = recv.stream.stop(StreamCode::Budget.into());
    }
}

/// A panic elsewhere does not make the state wrong: nothing is half-written under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
