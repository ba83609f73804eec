//! Arbitrary text into the address guard. The same property runs on stable in `proto/tests/web_url.rs`;
//! `cargo +nightly fuzz run web_url` in `proto` searches further.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxibot_proto::web::{Exceptions, TargetHost, judge_redirect, judge_url, special_block};

fuzz_target!(|text: &str| {
    let none = Exceptions::none();
    let base = judge_url("https://example.com/a", &none).expect("a public address");
    for verdict in [judge_url(text, &none), judge_redirect(&base, text, &none)] {
        let Ok(target) = verdict else { continue };
        if let TargetHost::Address(address) = target.host() {
            assert_eq!(special_block(*address), None, "{text:?}");
        }
        assert!(target.url().username().is_empty() && target.url().password().is_none());
        assert_eq!(judge_url(target.url().as_str(), &none).as_ref(), Ok(&target));
    }
});
