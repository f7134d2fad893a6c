//! Who a process says it is when a session begins, and whether the two understand each other.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use quinn::{RecvStream, SendStream};

use crate::close::CloseReason;
use crate::codec::{self, ControlFrame, Hello};

/// A process, from start to end: random, so that a restart is another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub(crate) [u8; 16]);

/// Optional abilities of a side, as bits; none has a meaning yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub(crate) u64);

impl InstanceId {
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({self})")
    }
}

impl Capabilities {
    pub const NONE: Self = Self(0);
}

impl Hello {
    /// What this crate speaks, said by one process.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            versions: codec::VERSIONS,
            instance,
            format: codec::FORMAT,
            reader_min: codec::FORMAT_READER_MIN,
            capabilities: Capabilities::NONE,
            clock_ms: None,
            pace: None,
        }
    }
}

/// Whether two hellos go together; the same answer on both sides.
pub(crate) fn agree(ours: &Hello, theirs: &Hello) -> Result<(), CloseReason> {
    if ours.versions.0.max(theirs.versions.0) > ours.versions.1.min(theirs.versions.1) {
        return Err(CloseReason::VersionUnsupported);
    }
    if theirs.reader_min > ours.format || ours.reader_min > theirs.format {
        return Err(CloseReason::FormatUnsupported);
    }
    Ok(())
}

pub(crate) async fn send(stream: &mut SendStream, hello: &Hello) -> Result<(), CloseReason> {
    let mut out = Vec::new();
    ControlFrame::Hello(Hello { clock_ms: Some(clock_ms()), ..hello.clone() }).encode(&mut out);
    stream.write_all(&out).await.map_err(|_| CloseReason::ProtocolViolation)
}

/// Reads the peer's hello, which nothing may follow before it was answered or taken.
pub(crate) async fn receive(stream: &mut RecvStream, buffer: &mut Vec<u8>) -> Result<Hello, CloseReason> {
    loop {
        match ControlFrame::decode(buffer) {
            Ok(Some((ControlFrame::Hello(hello), length))) => {
                buffer.drain(..length);
                return Ok(hello);
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Err(CloseReason::ProtocolViolation),
        }
        let chunk = stream.read_chunk(codec::FRAME_BYTES_MAX, true).await;
        match chunk {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return Err(CloseReason::ProtocolViolation),
        }
    }
}

pub(crate) fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_agree_when_versions_and_formats_meet() {
        let hello = |versions, format, reader_min| Hello {
            versions,
            format,
            reader_min,
            ..Hello::new(InstanceId::random())
        };
        let check = |ours, theirs, expected| {
            assert_eq!(agree(&ours, &theirs), expected);
            assert_eq!(agree(&theirs, &ours), expected, "the other way round");
        };
        check(hello((1, 1), 1, 1), hello((1, 1), 1, 1), Ok(()));
        check(hello((1, 1), 1, 1), hello((1, 4), 1, 1), Ok(()));
        check(hello((1, 1), 1, 1), hello((2, 4), 1, 1), Err(CloseReason::VersionUnsupported));
        check(hello((1, 1), 1, 1), hello((1, 1), 5, 1), Ok(()));
        check(hello((1, 1), 1, 1), hello((1, 1), 5, 2), Err(CloseReason::FormatUnsupported));
    }
}
