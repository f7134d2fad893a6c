//! Bytes that must never change, and what no bytes may do.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::hello::{Capabilities, InstanceId};
use crate::refusal::{Delivered, RefusalCode, StreamRefusal};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        instance: InstanceId([0xab; 16]),
        format: 1,
        reader_min: 1,
        capabilities: Capabilities::NONE,
        clock_ms: Some(1_790_000_000_000),
        pace: Some(Duration::from_millis(1500)),
    }
}

fn control(frame: &ControlFrame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

#[test]
fn control_frames_keep_their_bytes() {
    let check = |frame: ControlFrame, expected: &str| {
        let bytes = control(&frame);
        assert_eq!(hex(&bytes), expected.replace(' ', ""), "{frame:?}");
        assert_eq!(ControlFrame::decode(&bytes), Ok(Some((frame, bytes.len()))));
    };
    let instance = "ab".repeat(16);
    check(
        ControlFrame::Hello(hello()),
        &format!("00 28 00020101 0210{instance} 04020101 0708c00001a0c4506c00 090245dc"),
    );
    check(
        ControlFrame::Goaway(Goaway { reason: GoawayReason::Rebalance, pace: Some(Duration::from_secs(2)) }),
        "02 07 000101 030247d0",
    );
    check(ControlFrame::Goaway(Goaway { reason: GoawayReason::Shutdown, pace: None }), "02 03 000100");
    check(ControlFrame::Ping([1, 2, 3, 4, 5, 6, 7, 8]), "04 08 0102030405060708");
    check(ControlFrame::Pong([8; 8]), "06 08 0808080808080808");
}

#[test]
fn stream_headers_keep_their_bytes() {
    let header = StreamHeader {
        audit_id: "id-1".to_owned(),
        deadline: Some(Duration::from_secs(70)),
        assertion: Bytes::from_static(b"word"),
        proof: Bytes::from_static(b"p"),
        impersonate: Bytes::from_static(b"as"),
        roster: true,
    };
    let bytes = header.encode().unwrap();
    assert_eq!(
        hex(&bytes),
        "101b 000469642d31 020480011170 0604776f7264 080170 0a026173 0c00".replace(' ', "")
    );
    assert_eq!(StreamHeader::decode(&bytes), Ok(Some((header, bytes.len()))));
}

#[test]
fn first_frames_keep_their_bytes() {
    let check = |frame: FirstFrame, expected: &str| {
        assert_eq!(hex(&frame.encode()), expected.replace(' ', ""));
        let bytes = frame.encode();
        assert_eq!(FirstFrame::decode(&bytes), Ok(Some((frame, bytes.len()))));
    };
    check(FirstFrame::Accepted, "20 00");
    let refusal = StreamRefusal {
        code: RefusalCode::Draining,
        delivered: Delivered::No,
        retry_after: Some(Duration::from_secs(1)),
        message: "going".to_owned(),
    };
    check(FirstFrame::Refused(refusal), "22 11 000103 020100 030243e8 0505676f696e67");
}

#[test]
fn what_is_unknown_and_critical_or_malformed_is_refused() {
    let check = |bytes: &str, expected: Malformed| {
        assert_eq!(ControlFrame::decode(&unhex(bytes)).unwrap_err(), expected, "{bytes}");
    };
    let instance = "ab".repeat(16);
    check("08 00", Malformed::FrameUnknown);
    check("10 00", Malformed::FrameUnknown);
    check("4004 08 0102030405060708", Malformed::Varint);
    check("04 07 01020304050607", Malformed::Length);
    check("04 09", Malformed::TooLong);
    check("09 5001", Malformed::TooLong);
    check("02 00", Malformed::FieldMissing);
    check("02 03 000102", Malformed::Value);
    check("02 06 000100 000100", Malformed::FieldOrder);
    check("02 06 000100 020100", Malformed::FieldUnknown);
    check("02 03 000200", Malformed::Length);
    check("02 04 00020000", Malformed::Length);
    check(&format!("00 1a 00020201 0210{instance} 04020101"), Malformed::Value);
    check(&format!("00 1a 00020101 0210{instance} 04020102"), Malformed::Value);
    check(&format!("00 16 0210{instance} 04020101"), Malformed::FieldMissing);
}

#[test]
fn what_is_unknown_and_not_critical_is_skipped() {
    assert_eq!(ControlFrame::decode(&unhex("09 03 aabbcc")), Ok(Some((ControlFrame::Ignored, 5))));
    let goaway = ControlFrame::Goaway(Goaway { reason: GoawayReason::Shutdown, pace: None });
    assert_eq!(ControlFrame::decode(&unhex("02 06 000100 0b01ff")), Ok(Some((goaway, 8))));
}

#[test]
fn a_first_frame_of_a_stream_is_never_skipped() {
    assert_eq!(FirstFrame::decode(&unhex("21 00")), Err(Malformed::FrameUnknown));
    assert_eq!(FirstFrame::decode(&unhex("20 01 00")), Err(Malformed::TooLong));
    assert_eq!(FirstFrame::decode(&unhex("22 06 00010a 020100")), Err(Malformed::Value));
    assert_eq!(FirstFrame::decode(&unhex("22 06 000101 020102")), Err(Malformed::Value));
    assert_eq!(FirstFrame::decode(&unhex("22 03 000101")), Err(Malformed::FieldMissing));
    assert_eq!(StreamHeader::decode(&unhex("11 00")), Err(Malformed::FrameUnknown));
    assert_eq!(StreamHeader::decode(&unhex("10 00")), Err(Malformed::FieldMissing));
    assert_eq!(StreamHeader::decode(&unhex("10 05 000161 0e00")), Err(Malformed::FieldUnknown));
    assert_eq!(StreamHeader::decode(&unhex("10 03 0001ff")), Err(Malformed::Value));
}

#[test]
fn limits_are_checked_before_the_bytes_arrive() {
    assert_eq!(StreamHeader::decode(&unhex("10 80100001")), Err(Malformed::TooLong));
    assert_eq!(FirstFrame::decode(&unhex("22 5001")), Err(Malformed::TooLong));
    let header = |audit_id: usize, assertion: usize, proof: usize| StreamHeader {
        audit_id: "a".repeat(audit_id),
        assertion: vec![0; assertion].into(),
        proof: vec![0; proof].into(),
        ..StreamHeader::default()
    };
    assert!(header(128, 512 * 1024, 16 * 1024).encode().is_ok());
    assert_eq!(header(129, 0, 0).encode(), Err(HeaderTooLarge));
    assert_eq!(header(1, 512 * 1024 + 1, 0).encode(), Err(HeaderTooLarge));
    assert_eq!(header(1, 0, 16 * 1024 + 1).encode(), Err(HeaderTooLarge));
}

/// What the fuzzer once found interesting stays interesting.
#[test]
fn the_fuzz_corpus_is_replayed() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/codec");
    let files: Vec<_> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 8, "the corpus is gone");
    files.iter().for_each(|file| decode_all(&std::fs::read(file).unwrap()));
}

/// Decoders answer for any bytes, never take more than there is, and need no byte after what they took.
fn decode_all(bytes: &[u8]) {
    fn check<T: PartialEq + std::fmt::Debug>(bytes: &[u8], decode: impl Fn(&[u8]) -> Framed<T>) {
        let Ok(Some((decoded, length))) = decode(bytes) else { return };
        assert!(length <= bytes.len());
        assert_eq!(decode(&bytes[..length]), Ok(Some((decoded, length))));
        assert!(
            !matches!(decode(&bytes[..length - 1]), Ok(Some(_))),
            "a frame without its last byte was taken"
        );
    }
    check(bytes, ControlFrame::decode);
    check(bytes, FirstFrame::decode);
    check(bytes, StreamHeader::decode);
}

fn opaque() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn headers_round_trip(
        audit_id in "[a-z0-9-]{1,128}", deadline in prop::option::of(0_u64..1 << 40),
        assertion in opaque(), proof in opaque(), impersonate in opaque(), roster in any::<bool>(), after in opaque(),
    ) {
        let deadline = deadline.map(Duration::from_millis);
        let header = StreamHeader { audit_id, deadline, assertion, proof, impersonate, roster };
        let mut bytes = header.encode().unwrap().to_vec();
        let length = bytes.len();
        prop_assert_eq!(StreamHeader::decode(&bytes[..length - 1]), Ok(None));
        bytes.extend_from_slice(&after);
        prop_assert_eq!(StreamHeader::decode(&bytes), Ok(Some((header, length))));
    }

    #[test]
    fn refusals_round_trip(
        code in 0..RefusalCode::ALL.len(), maybe in any::<bool>(), ms in prop::option::of(0_u64..1 << 40), message in "\\PC{0,400}",
    ) {
        let delivered = if maybe { Delivered::Maybe } else { Delivered::No };
        let retry_after = ms.map(Duration::from_millis);
        let sent = StreamRefusal { code: RefusalCode::ALL[code], delivered, retry_after, message };
        let Ok(Some((FirstFrame::Refused(read), _))) = FirstFrame::decode(&FirstFrame::Refused(sent.clone()).encode()) else {
            return Err(TestCaseError::fail("not a refusal"));
        };
        prop_assert!(sent.message.starts_with(&read.message));
        prop_assert_eq!(StreamRefusal { message: String::new(), ..read }, StreamRefusal { message: String::new(), ..sent });
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    #[test]
    fn damaged_frames_are_answered(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for mut bytes in [control(&ControlFrame::Hello(hello())), FirstFrame::Accepted.encode()] {
            let at = at.index(bytes.len());
            bytes[at] = to;
            decode_all(&bytes);
        }
    }
}
