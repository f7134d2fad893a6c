#![no_main]

use drover_policy::{Attributes, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(attributes) = Attributes::parse(method, path, query) else { return };
    if let Target::Resource(target) = attributes.target() {
        for part in [target.namespace(), target.name(), Some(target.resource())].into_iter().flatten() {
            assert!(!part.contains(['/', '%', '\\', '\0']) && part != "." && part != "..", "{part:?} in {text:?}");
        }
    }
});
