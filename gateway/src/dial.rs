//! Gives Pingora one tunnel stream as the connection of one request.
//!
//! Opening a stream takes no round trip: the stream's header and the request travel together.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use async_trait::async_trait;
use drover_tunnel::{OpenError, Outcome, Owner, Session, Stream, StreamHeader};
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// One attempt to send one request down one session.
#[derive(Debug)]
pub(crate) struct Dial {
    session: Session,
    header: StreamHeader,
    owner: Owner,
    /// Breaks the stream; none of a request that does not go on for long.
    ended: Option<CancellationToken>,
    opened: OnceLock<Result<Outcome, OpenError>>,
}

impl Dial {
    pub(crate) fn new(
        session: Session,
        header: StreamHeader,
        owner: Owner,
        ended: Option<CancellationToken>,
    ) -> Arc<Self> {
        Arc::new(Self { session, header, owner, ended, opened: OnceLock::new() })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// What became of the stream: none before it was opened.
    pub(crate) fn opened(&self) -> Option<&Result<Outcome, OpenError>> {
        self.opened.get()
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, _address: &SocketAddr) -> pingora::Result<L4Stream> {
        let opened = self.session.open(&self.header, self.owner);
        let (stream, outcome) = match opened {
            Ok(stream) => {
                let outcome = stream.outcome();
                (Ok(stream), Ok(outcome))
            }
            Err(error) => (Err(Error::explain(ErrorType::ConnectError, error.to_string())), Err(error)),
        };
        // A Dial is one attempt: Pingora connects it once.
        let _first = self.opened.set(outcome);
        let ended = self.ended.clone().map(|ended| Box::pin(ended.cancelled_owned()));
        Ok(VirtualSocketStream::new(Box::new(Socket { stream: stream?, ended })).into())
    }
}

/// A stream in the shape that Pingora takes.
#[derive(Debug)]
struct Socket {
    stream: Stream,
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Socket {
    /// An error once the request has been ended; wakes the reader of a stream that says nothing.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Err(std::io::Error::other("the right to it was taken away")),
            Poll::Pending => Ok(()),
        }
    }
}

impl VirtualSocket for Socket {
    /// TCP's options mean nothing here.
    fn set_socket_option(&self, _option: VirtualSockOpt) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.poll_ended(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
