//! A request as the agent meets it: first its header, then the choice to accept or refuse.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, WriteError};

use crate::budget::{Ledger, Owner};
use crate::codec::{FirstFrame, StreamHeader};
use crate::limits::{CONTROL_WRITE_TIMEOUT, HEADER_TIMEOUT};
use crate::refusal::StreamRefusal;
use crate::session::InFlight;
use crate::stream::{Ends, Stream, StreamCode};

/// Read at once while a header is incomplete, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// A stream that a gateway opened, before its header was read.
#[derive(Debug)]
pub struct Incoming(Ends);

/// A request with its header, to be accepted or refused.
#[derive(Debug)]
pub struct Received {
    ends: Ends,
    header: StreamHeader,
    /// Bytes of the request that came with the header.
    rest: Bytes,
}

impl Incoming {
    pub(crate) fn new(send: SendStream, recv: RecvStream, in_flight: InFlight, ledger: Arc<Ledger>) -> Self {
        Self(Ends { send, recv, in_flight, ledger })
    }

    /// Reads the header. Where it is malformed or late, the stream is reset and there is no request.
    pub async fn receive(mut self) -> io::Result<Received> {
        match tokio::time::timeout(HEADER_TIMEOUT, self.header()).await {
            Ok(Ok((header, rest))) => Ok(Received { ends: self.0, header, rest }),
            Ok(Err(error)) => {
                self.0.abandon(StreamCode::Malformed);
                Err(error)
            }
            Err(late) => {
                self.0.abandon(StreamCode::Timeout);
                Err(late.into())
            }
        }
    }

    async fn header(&mut self) -> io::Result<(StreamHeader, Bytes)> {
        let mut bytes = Vec::new();
        loop {
            match StreamHeader::decode(&bytes) {
                Ok(Some((header, length))) => return Ok((header, Bytes::from(bytes).split_off(length))),
                Ok(None) => {}
                Err(malformed) => return Err(io::Error::new(io::ErrorKind::InvalidData, malformed)),
            }
            match self.0.recv.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => bytes.extend_from_slice(&chunk.bytes),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

impl Received {
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Takes the request. ACCEPTED travels with the first bytes that are written, or with a flush.
    pub fn accept(self, owner: Owner) -> Stream {
        Stream::accepted(self.ends, self.rest, owner)
    }

    /// Answers with a refusal in place of a response.
    pub async fn refuse(mut self, refusal: StreamRefusal) {
        let frame = FirstFrame::Refused(refusal).encode();
        let write = async {
            self.ends.send.write_all(&frame).await?;
            // Fails only where the stream has ended, and then there is nothing left to say.
            _ = self.ends.send.finish();
            _ = self.ends.recv.stop(StreamCode::Refused.into());
            Ok::<_, WriteError>(())
        };
        if !matches!(tokio::time::timeout(CONTROL_WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
            self.ends.abandon(StreamCode::Cancelled);
        }
    }
}
