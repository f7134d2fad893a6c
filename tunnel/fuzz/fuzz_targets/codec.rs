#![no_main]

use drover_tunnel::codec::{ControlFrame, FirstFrame, StreamHeader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((frame, length))) = ControlFrame::decode(bytes) {
        assert!(length <= bytes.len());
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert!(frame == ControlFrame::Ignored || ControlFrame::decode(&again) == Ok(Some((frame, again.len()))));
    }
    if let Ok(Some((first, length))) = FirstFrame::decode(bytes) {
        assert!(length <= bytes.len());
        let again = first.encode();
        assert_eq!(FirstFrame::decode(&again), Ok(Some((first, again.len()))));
    }
    if let Ok(Some((header, length))) = StreamHeader::decode(bytes) {
        assert!(length <= bytes.len());
        let again = header.encode().expect("what was decoded is within its limits");
        assert_eq!(StreamHeader::decode(&again), Ok(Some((header, again.len()))));
    }
});
