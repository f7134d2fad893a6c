//! Security identifiers, as people write them (MS-DTYP, 2.4.2).

/// `S-1-5-21-...` of the bytes in `objectSid`.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let (&[revision, count], rest) = bytes.split_first_chunk::<2>()?;
    let (authority, parts) = rest.split_first_chunk::<6>()?;
    if revision != 1 || parts.len() != usize::from(count) * 4 {
        return None;
    }
    let authority = authority.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let parts = parts.as_chunks::<4>().0.iter().map(|part| format!("-{}", u32::from_le_bytes(*part)));
    Some(format!("S-1-{authority}{}", parts.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_windows_does() {
        let administrators = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
        assert_eq!(text(&administrators).unwrap(), "S-1-5-32-544");
        let (short, newer, more) =
            (&administrators[..15], [2, 0, 0, 0, 0, 0, 0, 5], [1, 1, 0, 0, 0, 0, 0, 5]);
        for wrong in [&[][..], &[1], short, &newer, &more] {
            assert_eq!(text(wrong), None, "{wrong:?}");
        }
    }
}
