//! The header of a request's stream.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::{Framed, Malformed, fields, frame, put_frame};

const REQUEST: u64 = 0x10;
const AUDIT_ID: u64 = 0x00;
const DEADLINE: u64 = 0x02;
const ASSERTION: u64 = 0x06;
const PROOF: u64 = 0x08;
const IMPERSONATE: u64 = 0x0a;
const ROSTER: u64 = 0x0c;

/// Longest header with its frame, in bytes: a stream's window, so that it is sent without waiting.
const HEADER_BYTES_MAX: usize = 1024 * 1024;
/// A UUID, and what a client may send in its place.
const AUDIT_ID_BYTES_MAX: usize = 128;
/// 256 groups of 1 KiB each and their frame.
const ASSERTION_BYTES_MAX: usize = 512 * 1024;
/// A delegation with its signatures.
const PROOF_BYTES_MAX: usize = 16 * 1024;

/// What accompanies a request; all but the audit id and the deadline is opaque to the tunnel.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StreamHeader {
    pub audit_id: String,
    pub deadline: Option<Duration>,
    pub assertion: Bytes,
    pub proof: Bytes,
    /// The identity that the caller wants to act as.
    pub impersonate: Bytes,
    /// The stream carries no request: what follows is the agent's roster.
    pub roster: bool,
}

/// A header that the protocol has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a field of the stream's header is longer than its limit")]
pub struct HeaderTooLarge;

impl StreamHeader {
    pub fn encode(&self) -> Result<Bytes, HeaderTooLarge> {
        if self.audit_id.len() > AUDIT_ID_BYTES_MAX {
            return Err(HeaderTooLarge);
        }
        let mut out = fields::Writer::default();
        out.bytes(AUDIT_ID, self.audit_id.as_bytes());
        out.duration(DEADLINE, self.deadline);
        for (tag, value) in self.opaque() {
            if value.len() > opaque_bytes_max(tag) {
                return Err(HeaderTooLarge);
            }
            if !value.is_empty() {
                out.bytes(tag, value);
            }
        }
        if self.roster {
            out.bytes(ROSTER, &[]);
        }
        let mut framed = Vec::new();
        put_frame(REQUEST, &out.finish(), &mut framed);
        if framed.len() > HEADER_BYTES_MAX { Err(HeaderTooLarge) } else { Ok(framed.into()) }
    }

    pub fn decode(input: &[u8]) -> Framed<Self> {
        let longest =
            |kind| if kind == REQUEST { Ok(HEADER_BYTES_MAX) } else { Err(Malformed::FrameUnknown) };
        let Some(((_, payload), length)) = frame(input, longest)? else { return Ok(None) };
        let mut header = Self::default();
        let mut reader = fields::Reader::new(payload);
        while let Some((tag, value)) = reader.next()? {
            let opaque = match tag {
                AUDIT_ID => {
                    header.audit_id = fields::text(value, AUDIT_ID_BYTES_MAX)?;
                    continue;
                }
                DEADLINE => {
                    header.deadline = Some(fields::duration(value)?);
                    continue;
                }
                ROSTER if value.is_empty() => {
                    header.roster = true;
                    continue;
                }
                ROSTER => return Err(Malformed::Length),
                ASSERTION => &mut header.assertion,
                PROOF => &mut header.proof,
                IMPERSONATE => &mut header.impersonate,
                tag => {
                    fields::unknown(tag)?;
                    continue;
                }
            };
            if value.len() > opaque_bytes_max(tag) {
                return Err(Malformed::TooLong);
            }
            *opaque = Bytes::copy_from_slice(value);
        }
        if header.audit_id.is_empty() { Err(Malformed::FieldMissing) } else { Ok(Some((header, length))) }
    }

    fn opaque(&self) -> [(u64, &Bytes); 3] {
        [(ASSERTION, &self.assertion), (PROOF, &self.proof), (IMPERSONATE, &self.impersonate)]
    }
}

fn opaque_bytes_max(tag: u64) -> usize {
    if tag == PROOF { PROOF_BYTES_MAX } else { ASSERTION_BYTES_MAX }
}

/// Lengths only: the fields say who a user is.
impl std::fmt::Debug for StreamHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamHeader")
            .field("audit_id", &self.audit_id)
            .field("deadline", &self.deadline)
            .field("assertion_bytes", &self.assertion.len())
            .field("proof_bytes", &self.proof.len())
            .field("impersonate_bytes", &self.impersonate.len())
            .field("roster", &self.roster)
            .finish()
    }
}
