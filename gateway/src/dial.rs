//! Gives Pingora one tunnel stream as the connection of one request.
//!
//! Opening a stream takes no round trip: the stream's header and the request travel together.

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

/// One attempt to send one request down one session.
#[derive(Debug)]
pub(crate) struct Dial {
    session: Session,
    header: StreamHeader,
    owner: Owner,
    opened: OnceLock<Result<Outcome, OpenError>>,
}

impl Dial {
    pub(crate) fn new(session: Session, header: StreamHeader, owner: Owner) -> Arc<Self> {
        Arc::new(Self { session, header, owner, opened: OnceLock::new() })
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
        Ok(VirtualSocketStream::new(Box::new(Socket(stream?))).into())
    }
}

/// A stream in the shape that Pingora takes.
#[derive(Debug)]
struct Socket(Stream);

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
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
