//! Reads and judges the head of an HTTP/1.1 request before Pingora does.
//!
//! Pingora answers what it cannot parse with an empty 400, and gives no hook to say it better; it also
//! accepts bare line feeds and repairs some targets. Here a head is either one that every hop reads in
//! the same way, and passes on as the bytes that came, or it is refused in our own words.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

/// Largest head, in bytes: API servers take 1 MiB; tokens with many groups and 60 KB URLs must fit.
pub(crate) const HEAD_BYTES_MAX: usize = 256 << 10;
/// Longest request target, in bytes: what `http::Uri` can hold.
pub(crate) const TARGET_BYTES_MAX: usize = 65_534;
/// Most fields of a head; Pingora's parser takes as many.
const FIELDS_MAX: usize = 250;
/// How long a connection may be idle between requests: above the 90 s after which Go closes its own.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a head may take from its first byte to its last (slow-header attacks).
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Smallest read, in bytes.
const READ_BYTES: usize = 4 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadRefused {
    #[error("the request's head is not HTTP/1.1 as RFC 9112 writes it")]
    Malformed,
    #[error("the method CONNECT is not served")]
    MethodConnect,
    #[error("the request's head did not arrive within 15 s")]
    Slow,
    #[error("the request's target is longer than 65,534 bytes")]
    TargetTooLong,
    #[error("the request's head is larger than 256 KiB or has more than 250 fields")]
    TooLarge,
}

/// What came of waiting for a head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The buffer holds one whole, sound head, and possibly bytes after it.
    Sound,
    /// The client went away, or stayed idle: nothing to answer.
    Ended,
    Refused(HeadRefused),
}

/// Fills `buffer` until it holds a whole head. Cancelling loses the connection's place.
pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Head {
    let mut deadline = Instant::now() + if buffer.is_empty() { IDLE_TIMEOUT } else { HEAD_TIMEOUT };
    loop {
        if !buffer.is_empty() {
            match judge(buffer) {
                Ok(Judged::Sound) => return Head::Sound,
                Ok(Judged::Partial) => {}
                Err(refused) => return Head::Refused(refused),
            }
        }
        let first = buffer.is_empty();
        buffer.reserve(READ_BYTES);
        match timeout_at(deadline, io.read_buf(buffer)).await {
            Ok(Ok(0) | Err(_)) => return Head::Ended,
            Ok(Ok(_)) if first => deadline = Instant::now() + HEAD_TIMEOUT,
            Ok(Ok(_)) => {}
            Err(_) if first => return Head::Ended,
            Err(_) => return Head::Refused(HeadRefused::Slow),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Partial,
    Sound,
}

/// Judges what has arrived so far.
fn judge(bytes: &[u8]) -> Result<Judged, HeadRefused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return partial(bytes),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadRefused::TooLarge),
        Err(_) if target_length(bytes) > TARGET_BYTES_MAX => return Err(HeadRefused::TargetTooLong),
        Err(_) => return Err(HeadRefused::Malformed),
    };
    let head = &bytes[..end];
    if end > HEAD_BYTES_MAX {
        return Err(HeadRefused::TooLarge);
    }
    if has_bare_line_feed(head) || request.version != Some(1) && request.version != Some(0) {
        return Err(HeadRefused::Malformed);
    }
    check_target(request.method.unwrap_or_default(), request.path.unwrap_or_default())?;
    check_fields(request.version == Some(1), request.headers)?;
    Ok(Judged::Sound)
}

fn partial(bytes: &[u8]) -> Result<Judged, HeadRefused> {
    if target_length(bytes) > TARGET_BYTES_MAX {
        Err(HeadRefused::TargetTooLong)
    } else if bytes.len() > HEAD_BYTES_MAX {
        Err(HeadRefused::TooLarge)
    } else {
        Ok(Judged::Partial)
    }
}

/// Length of the request target so far: what is between the first two spaces, or after the first.
fn target_length(bytes: &[u8]) -> usize {
    let mut parts = bytes.splitn(3, |byte| *byte == b' ' || *byte == b'\n');
    parts.nth(1).map_or(0, <[u8]>::len)
}

fn check_target(method: &str, target: &str) -> Result<(), HeadRefused> {
    if method == "CONNECT" {
        return Err(HeadRefused::MethodConnect);
    }
    if target.len() > TARGET_BYTES_MAX {
        return Err(HeadRefused::TargetTooLong);
    }
    // Origin form only: an absolute form names a second host, which another hop may prefer to ours.
    let origin_form =
        target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if origin_form { Ok(()) } else { Err(HeadRefused::Malformed) }
}

/// One Host, and framing that can be read in one way only (RFC 9112 sections 3.2 and 6).
fn check_fields(http_11: bool, fields: &[httparse::Header<'_>]) -> Result<(), HeadRefused> {
    let (mut hosts, mut lengths, mut encodings) = (0, 0, 0);
    for field in fields {
        // A field name that ends in white space is caught by the parser; values may be any but controls.
        if field.value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(HeadRefused::Malformed);
        }
        if field.name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if field.name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            if field.value.is_empty() || !field.value.iter().all(u8::is_ascii_digit) {
                return Err(HeadRefused::Malformed);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            encodings += 1;
            if !http_11 || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadRefused::Malformed);
            }
        }
    }
    if hosts == 1 && lengths + encodings <= 1 { Ok(()) } else { Err(HeadRefused::Malformed) }
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn check(text: &str, expected: Result<Judged, HeadRefused>) {
        assert_eq!(judge(text.as_bytes()), expected, "{text:?}");
    }

    #[test]
    fn ordinary_heads_are_sound() {
        check("GET /api HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Judged::Sound));
        check("GET /api HTTP/1.0\r\nHost: a\r\n\r\n", Ok(Judged::Sound));
        check("POST /a?b=c%20d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Ok(Judged::Sound));
        check(
            "POST /a HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\nx: z\u{f6}e\r\n\r\n",
            Ok(Judged::Sound),
        );
        check("GET /api HTTP/1.1\r\nHost: a\r\n", Ok(Judged::Partial));
    }

    #[test]
    fn what_two_hops_could_read_differently_is_refused() {
        for head in [
            "GET /api HTTP/1.1\nHost: a\n\n",
            "GET /api HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET /api HTTP/1.1\r\n\r\n",
            "GET /api HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET http://b/api HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /z\u{f6}e HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
        ] {
            check(head, Err(HeadRefused::Malformed));
        }
        check("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Err(HeadRefused::MethodConnect));
    }

    #[test]
    fn sizes_are_refused_as_soon_as_they_are_seen() {
        let target = "a".repeat(TARGET_BYTES_MAX);
        check(&format!("GET /{}", &target[1..]), Ok(Judged::Partial));
        check(&format!("GET /{target}"), Err(HeadRefused::TargetTooLong));
        check(&format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadRefused::TargetTooLong));
        let field = "x".repeat(HEAD_BYTES_MAX);
        check(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {field}"), Err(HeadRefused::TooLarge));
        check(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {field}\r\n\r\n"), Err(HeadRefused::TooLarge));
        let fields = "a: b\r\n".repeat(FIELDS_MAX);
        check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), Err(HeadRefused::TooLarge));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_refused_and_an_idle_connection_ends() {
        let (mut client, mut server) = tokio::io::duplex(64);
        assert_eq!(read(&mut server, &mut BytesMut::new()).await, Head::Ended);
        client.write_all(b"GET / HT").await.unwrap();
        assert_eq!(read(&mut server, &mut BytesMut::new()).await, Head::Refused(HeadRefused::Slow));
    }

    #[tokio::test]
    async fn bytes_after_the_head_stay_in_the_buffer() {
        let mut buffer = BytesMut::new();
        let bytes = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b";
        assert_eq!(read(&mut &bytes[..], &mut buffer).await, Head::Sound);
        assert_eq!(&buffer[..], bytes);
    }
}
