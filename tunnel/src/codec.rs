//! The protocol's bytes: pure encoders and decoders of every frame.
//!
//! A decoder takes what has arrived so far and answers with the frame and its length, with nothing where more must come,
//! or with the reason to refuse. Limits are checked as soon as a length is known.

mod control;
mod fields;
mod first;
mod request;
mod varint;

use thiserror::Error;

pub use control::{ControlFrame, Goaway, GoawayReason, Hello};
pub use first::FirstFrame;
pub use request::{HeaderTooLarge, StreamHeader};

/// The application protocol of TLS.
pub const ALPN: &[u8] = b"drover/1";
/// Versions of the protocol that this crate speaks.
pub const VERSIONS: (u64, u64) = (1, 1);
/// The format number of what travels in opaque fields, and the oldest that is read.
pub const FORMAT: u64 = 1;
/// The oldest format that this crate's side reads, and the oldest reader of what it writes.
pub const FORMAT_READER_MIN: u64 = 1;

/// Longest control frame, and longest first frame of an agent, in bytes: a message and room for fields to come.
pub const FRAME_BYTES_MAX: usize = 4096;

/// Why bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("a required field is missing")]
    FieldMissing,
    #[error("fields are repeated or out of order")]
    FieldOrder,
    #[error("an unknown field is critical")]
    FieldUnknown,
    #[error("a frame or field is longer than its limit")]
    TooLong,
    #[error("an unknown frame is critical, or out of place")]
    FrameUnknown,
    #[error("bytes follow where a value ends, or are missing before it")]
    Length,
    #[error("a value is outside its set")]
    Value,
    #[error("an integer is not in its shortest form")]
    Varint,
}

/// A frame and the bytes that it took.
type Framed<T> = Result<Option<(T, usize)>, Malformed>;

/// Splits the first frame off, without looking into it. `longest` knows each type's limit.
fn frame(input: &[u8], longest: impl FnOnce(u64) -> Result<usize, Malformed>) -> Framed<(u64, &[u8])> {
    let Some((kind, kind_len)) = varint::decode(input)? else { return Ok(None) };
    let longest = longest(kind)?;
    let Some((length, length_len)) = varint::decode(&input[kind_len..])? else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| Malformed::TooLong)?;
    if length > longest {
        return Err(Malformed::TooLong);
    }
    let begin = kind_len + length_len;
    match input.get(begin..begin + length) {
        Some(payload) => Ok(Some(((kind, payload), begin + length))),
        None => Ok(None),
    }
}

/// Writes one frame.
fn put_frame(kind: u64, payload: &[u8], out: &mut Vec<u8>) {
    varint::encode(kind, out);
    varint::encode(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// Whether a receiver that does not know a frame type or field tag skips it.
fn is_ignorable(number: u64) -> bool {
    number % 2 == 1
}

#[cfg(test)]
mod tests;
