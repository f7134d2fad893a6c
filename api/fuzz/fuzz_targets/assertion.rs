#![no_main]

use drover_api::assertion::{Assertion, Delegation, received};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((_, _, assertion)) = received(bytes)
        && let Ok(decoded) = Assertion::decode(assertion)
    {
        assert_eq!(decoded.encode().as_deref(), Ok(assertion));
    }
    // Reads any bytes, and panics at none.
    _ = Delegation::split(bytes);
});
