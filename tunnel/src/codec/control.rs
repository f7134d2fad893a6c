//! Frames of the control stream.

use std::time::Duration;

use super::{FRAME_BYTES_MAX, Framed, Malformed, fields, frame, is_ignorable, put_frame};
use crate::hello::{Capabilities, InstanceId};

const HELLO: u64 = 0x00;
const GOAWAY: u64 = 0x02;
const PING: u64 = 0x04;
const PONG: u64 = 0x06;

const HELLO_VERSIONS: u64 = 0x00;
const HELLO_INSTANCE: u64 = 0x02;
const HELLO_FORMAT: u64 = 0x04;
const HELLO_CAPABILITIES: u64 = 0x05;
const HELLO_CLOCK: u64 = 0x07;
const HELLO_PACE: u64 = 0x09;

const GOAWAY_REASON: u64 = 0x00;
const GOAWAY_PACE: u64 = 0x03;

/// What the two sides say outside of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlFrame {
    Goaway(Goaway),
    Hello(Hello),
    /// A frame that this version does not know and need not.
    Ignored,
    Ping([u8; 8]),
    Pong([u8; 8]),
}

/// The first thing that a side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version of the protocol.
    pub versions: (u64, u64),
    pub instance: InstanceId,
    pub format: u64,
    /// The oldest format whose readers understand this side.
    pub reader_min: u64,
    pub capabilities: Capabilities,
    /// Milliseconds since 1970 at the sender.
    pub clock_ms: Option<u64>,
    /// How long the receiver should wait, on average, before it dials again.
    pub pace: Option<Duration>,
}

/// A side's word that it wants no further streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goaway {
    pub reason: GoawayReason,
    /// How long the receiver should wait, on average, before it dials this address again.
    pub pace: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoawayReason {
    Rebalance,
    Shutdown,
}

impl ControlFrame {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Goaway(goaway) => put_frame(GOAWAY, &goaway.encode(), out),
            Self::Hello(hello) => put_frame(HELLO, &hello.encode(), out),
            Self::Ignored => {}
            Self::Ping(opaque) => put_frame(PING, opaque, out),
            Self::Pong(opaque) => put_frame(PONG, opaque, out),
        }
    }

    pub fn decode(input: &[u8]) -> Framed<Self> {
        let longest = |kind| match kind {
            HELLO | GOAWAY => Ok(FRAME_BYTES_MAX),
            PING | PONG => Ok(8),
            kind if is_ignorable(kind) => Ok(FRAME_BYTES_MAX),
            _ => Err(Malformed::FrameUnknown),
        };
        let Some(((kind, payload), length)) = frame(input, longest)? else { return Ok(None) };
        let opaque = || <[u8; 8]>::try_from(payload).map_err(|_| Malformed::Length);
        let decoded = match kind {
            HELLO => Self::Hello(Hello::decode(payload)?),
            GOAWAY => Self::Goaway(Goaway::decode(payload)?),
            PING => Self::Ping(opaque()?),
            PONG => Self::Pong(opaque()?),
            _ => Self::Ignored,
        };
        Ok(Some((decoded, length)))
    }
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        out.integers(HELLO_VERSIONS, &[self.versions.0, self.versions.1]);
        out.bytes(HELLO_INSTANCE, &self.instance.0);
        out.integers(HELLO_FORMAT, &[self.format, self.reader_min]);
        if self.capabilities != Capabilities::NONE {
            out.integers(HELLO_CAPABILITIES, &[self.capabilities.0]);
        }
        if let Some(clock_ms) = self.clock_ms {
            out.integers(HELLO_CLOCK, &[clock_ms]);
        }
        out.duration(HELLO_PACE, self.pace);
        out.finish()
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let (mut versions, mut instance, mut format) = (None, None, None);
        let (mut capabilities, mut clock_ms, mut pace) = (Capabilities::NONE, None, None);
        let mut reader = fields::Reader::new(payload);
        while let Some((tag, value)) = reader.next()? {
            match tag {
                HELLO_VERSIONS => versions = Some(fields::integers::<2>(value)?),
                HELLO_INSTANCE => instance = Some(value.try_into().map_err(|_| Malformed::Length)?),
                HELLO_FORMAT => format = Some(fields::integers::<2>(value)?),
                HELLO_CAPABILITIES => capabilities = Capabilities(fields::integers::<1>(value)?[0]),
                HELLO_CLOCK => clock_ms = Some(fields::integers::<1>(value)?[0]),
                HELLO_PACE => pace = Some(fields::duration(value)?),
                tag => fields::unknown(tag)?,
            }
        }
        let [lowest, highest] = versions.ok_or(Malformed::FieldMissing)?;
        let [format, reader_min] = format.ok_or(Malformed::FieldMissing)?;
        let instance = InstanceId(instance.ok_or(Malformed::FieldMissing)?);
        if lowest > highest || reader_min > format {
            return Err(Malformed::Value);
        }
        Ok(Self { versions: (lowest, highest), instance, format, reader_min, capabilities, clock_ms, pace })
    }
}

impl Goaway {
    fn encode(&self) -> Vec<u8> {
        let mut out = fields::Writer::default();
        let reason = match self.reason {
            GoawayReason::Shutdown => 0,
            GoawayReason::Rebalance => 1,
        };
        out.integers(GOAWAY_REASON, &[reason]);
        out.duration(GOAWAY_PACE, self.pace);
        out.finish()
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let (mut reason, mut pace) = (None, None);
        let mut reader = fields::Reader::new(payload);
        while let Some((tag, value)) = reader.next()? {
            match tag {
                GOAWAY_REASON => {
                    reason = Some(match fields::integers::<1>(value)? {
                        [0] => GoawayReason::Shutdown,
                        [1] => GoawayReason::Rebalance,
                        [_] => return Err(Malformed::Value),
                    });
                }
                GOAWAY_PACE => pace = Some(fields::duration(value)?),
                tag => fields::unknown(tag)?,
            }
        }
        Ok(Self { reason: reason.ok_or(Malformed::FieldMissing)?, pace })
    }
}
