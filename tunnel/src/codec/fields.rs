//! Tagged fields in ascending order: what most payloads consist of.

use std::time::Duration;

use super::{Malformed, is_ignorable, varint};

/// Fields to be written; each call's tag is above the last one's.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, tag: u64, value: &[u8]) {
        varint::encode(tag, &mut self.0);
        varint::encode(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
    }

    pub(super) fn integers(&mut self, tag: u64, values: &[u64]) {
        let mut out = Vec::with_capacity(16);
        values.iter().for_each(|value| varint::encode(*value, &mut out));
        self.bytes(tag, &out);
    }

    pub(super) fn duration(&mut self, tag: u64, value: Option<Duration>) {
        if let Some(value) = value {
            self.integers(tag, &[u64::try_from(value.as_millis()).unwrap_or(varint::MAX)]);
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    last: Option<u64>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, last: None }
    }

    /// The next field; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &'a [u8])>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = take(&mut self.rest)?;
        if self.last.is_some_and(|last| last >= tag) {
            return Err(Malformed::FieldOrder);
        }
        self.last = Some(tag);
        let length = usize::try_from(take(&mut self.rest)?).map_err(|_| Malformed::Length)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Length)?;
        self.rest = rest;
        Ok(Some((tag, value)))
    }
}

/// What to do with a tag that the reader has no place for.
pub(super) fn unknown(tag: u64) -> Result<(), Malformed> {
    if is_ignorable(tag) { Ok(()) } else { Err(Malformed::FieldUnknown) }
}

/// Exactly `N` integers.
pub(super) fn integers<const N: usize>(mut value: &[u8]) -> Result<[u64; N], Malformed> {
    let mut out = [0; N];
    for slot in &mut out {
        *slot = take(&mut value)?;
    }
    if value.is_empty() { Ok(out) } else { Err(Malformed::Length) }
}

pub(super) fn duration(value: &[u8]) -> Result<Duration, Malformed> {
    let [ms] = integers(value)?;
    Ok(Duration::from_millis(ms))
}

pub(super) fn text(value: &[u8], longest: usize) -> Result<String, Malformed> {
    if value.len() > longest {
        return Err(Malformed::TooLong);
    }
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| Malformed::Value)
}

fn take(input: &mut &[u8]) -> Result<u64, Malformed> {
    let (value, length) = varint::decode(input)?.ok_or(Malformed::Length)?;
    *input = &input[length..];
    Ok(value)
}
