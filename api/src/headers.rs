//! Names of HTTP header fields, as whoever sets identity by them must read them.

use std::borrow::Cow;

/// The name as a lenient next hop may read it: `_` as `-`, percent-encoding undone.
pub fn fold(name: &str) -> Cow<'_, str> {
    if !name.contains(['_', '%']) {
        return Cow::Borrowed(name); // lower-case already: HeaderName is
    }
    let mut folded = String::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let encoded = (byte == b'%').then(|| tail.get(..2).and_then(hex)).flatten();
        rest = if encoded.is_some() { &tail[2..] } else { tail };
        let byte = encoded.unwrap_or(byte).to_ascii_lowercase();
        folded.push(if byte == b'_' { '-' } else { char::from(byte) });
    }
    Cow::Owned(folded)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_fold_into_what_they_look_like() {
        for (name, expected) in [
            ("impersonate-user", "impersonate-user"),
            ("impersonate_user", "impersonate-user"),
            ("impersonate%2duser", "impersonate-user"),
            ("impersonate%2Duser", "impersonate-user"),
            ("impersonate%5fuser", "impersonate-user"),
            ("%49mpersonate-user", "impersonate-user"),
            ("x%2", "x%2"),
            ("x%+2", "x%+2"),
        ] {
            assert_eq!(fold(name), expected, "{name}");
        }
    }
}
