//! The agent's first frame on a request's stream.

use super::{FRAME_BYTES_MAX, Framed, Malformed, fields, frame, put_frame};
use crate::refusal::{Delivered, RefusalCode, StreamRefusal};

const ACCEPTED: u64 = 0x20;
const REFUSED: u64 = 0x22;
const CODE: u64 = 0x00;
const DELIVERED: u64 = 0x02;
const RETRY_AFTER: u64 = 0x03;
const MESSAGE: u64 = 0x05;

/// Longest message, in bytes: a sentence or two.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether the agent serves the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstFrame {
    Accepted,
    Refused(StreamRefusal),
}

impl FirstFrame {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Accepted => put_frame(ACCEPTED, &[], &mut out),
            Self::Refused(refusal) => put_frame(REFUSED, &encode(refusal), &mut out),
        }
        out
    }

    pub fn decode(input: &[u8]) -> Framed<Self> {
        let longest = |kind| match kind {
            ACCEPTED => Ok(0),
            REFUSED => Ok(FRAME_BYTES_MAX),
            _ => Err(Malformed::FrameUnknown),
        };
        let Some(((kind, payload), length)) = frame(input, longest)? else { return Ok(None) };
        let first = if kind == ACCEPTED { Self::Accepted } else { Self::Refused(decode(payload)?) };
        Ok(Some((first, length)))
    }
}

fn encode(refusal: &StreamRefusal) -> Vec<u8> {
    let mut out = fields::Writer::default();
    let code = RefusalCode::ALL.iter().position(|code| *code == refusal.code);
    out.integers(CODE, &[code.expect("every code is in ALL") as u64]);
    let delivered = match refusal.delivered {
        Delivered::No => 0,
        Delivered::Maybe => 1,
    };
    out.integers(DELIVERED, &[delivered]);
    out.duration(RETRY_AFTER, refusal.retry_after);
    let message = &refusal.message[..refusal.message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    if !message.is_empty() {
        out.bytes(MESSAGE, message.as_bytes());
    }
    out.finish()
}

fn decode(payload: &[u8]) -> Result<StreamRefusal, Malformed> {
    let (mut code, mut delivered, mut retry_after, mut message) = (None, None, None, String::new());
    let mut reader = fields::Reader::new(payload);
    while let Some((tag, value)) = reader.next()? {
        match tag {
            CODE => {
                let [number] = fields::integers(value)?;
                let place = usize::try_from(number).map_err(|_| Malformed::Value)?;
                code = Some(*RefusalCode::ALL.get(place).ok_or(Malformed::Value)?);
            }
            DELIVERED => {
                delivered = Some(match fields::integers(value)? {
                    [0] => Delivered::No,
                    [1] => Delivered::Maybe,
                    [_] => return Err(Malformed::Value),
                });
            }
            RETRY_AFTER => retry_after = Some(fields::duration(value)?),
            MESSAGE => message = fields::text(value, MESSAGE_BYTES_MAX)?,
            tag => fields::unknown(tag)?,
        }
    }
    let code = code.ok_or(Malformed::FieldMissing)?;
    let delivered = delivered.ok_or(Malformed::FieldMissing)?;
    Ok(StreamRefusal { code, delivered, retry_after, message })
}
