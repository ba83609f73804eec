//! Arbitrary bytes, cut anywhere, through the redactor. The same property runs on stable in
//! `proto/tests/redact_properties.rs`; `cargo +nightly fuzz run redact` in `proto` searches further.
#![no_main]

#[path = "../../tests/redact/property.rs"]
mod property;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oxibot_proto::redact::Redactor;

static REDACTOR: OnceLock<Redactor> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let load = || Redactor::load().expect("the rules hold").knowing("known", property::KNOWN);
    property::check(REDACTOR.get_or_init(load), bytes);
});
