//! Variable-length integers of RFC 9000 §16, shortest form only.

use super::Malformed;

/// The largest integer that has a form.
pub(super) const MAX: u64 = (1 << 62) - 1;

pub(super) fn encode(value: u64, out: &mut Vec<u8>) {
    let value = value.min(MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The integer at the front and its length; none where more bytes must come.
pub(super) fn decode(input: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let Some(&first) = input.first() else { return Ok(None) };
    let length = 1 << (first >> 6);
    let Some(bytes) = input.get(..length) else { return Ok(None) };
    let value = bytes[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    let shortest = match length {
        1 => true,
        2 => value >= 0x40,
        4 => value >= 0x4000,
        _ => value >= 0x4000_0000,
    };
    if shortest { Ok(Some((value, length))) } else { Err(Malformed::Varint) }
}
