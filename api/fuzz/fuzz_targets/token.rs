#![no_main]

use drover_api::token::{Presented, TOKEN_CHARS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(presented) = Presented::parse(text) {
        assert_eq!(text.len(), TOKEN_CHARS);
        assert_eq!(text.split('_').nth(1), Some(presented.id.as_str()));
    }
});
