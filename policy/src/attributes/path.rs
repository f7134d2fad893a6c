//! Which paths are read in one way only, by us and by the API server.
//!
//! API servers decide by the decoded path; another hop may decode later, or merge what looks empty.
//! Whatever could name something else after one more such step is refused.

use std::borrow::Cow;

/// Longest path, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    #[error("it has a '.' or '..' segment")]
    DotSegment,
    #[error("it has an empty segment (//)")]
    EmptySegment,
    #[error("it has a percent-encoding of a character that must not be encoded, or a broken one")]
    Encoding,
    #[error("it has characters that must be percent-encoded")]
    Characters,
    #[error("the method is not one that Kubernetes knows there")]
    Method,
    #[error("it does not begin with '/', or is longer than 64 KiB")]
    Shape,
    #[error("it names no resource after watch or proxy")]
    ResourceMissing,
    #[error("its query cannot be read in one way only")]
    Query,
}

/// Undoes percent-encoding, once, where the outcome is safe.
pub(super) fn decode(path: &str) -> Result<Cow<'_, str>, PathRefused> {
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX {
        return Err(PathRefused::Shape);
    }
    if !path.bytes().all(is_plain) {
        return Err(PathRefused::Characters);
    }
    let decoded = if path.contains('%') { Cow::Owned(undo(path)?) } else { Cow::Borrowed(path) };
    let mut segments = decoded[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == "." || segment == ".." {
            return Err(PathRefused::DotSegment);
        }
        if segment.is_empty() && segments.peek().is_some() {
            return Err(PathRefused::EmptySegment);
        }
    }
    Ok(decoded)
}

/// Printable ASCII, without what hops treat differently.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b';' | b'\\' | b'?' | b'#' | b'"' | b'<' | b'>' | b'`' | b'{' | b'|' | b'}' | b'^')
}

fn undo(path: &str) -> Result<String, PathRefused> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = tail.get(..2).ok_or(PathRefused::Encoding)?;
            decoded.push(encoded(digits).ok_or(PathRefused::Encoding)?);
            rest = &tail[2..];
        } else {
            decoded.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(decoded).map_err(|_| PathRefused::Encoding)
}

/// The byte that two hexadecimal digits stand for, unless it would change how the path is read.
pub(super) fn encoded(digits: &[u8]) -> Option<u8> {
    let byte = hex(digits)?;
    let changes_reading =
        byte.is_ascii_control() || matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';' | b'?' | b'#');
    (!changes_reading).then_some(byte)
}

pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}
