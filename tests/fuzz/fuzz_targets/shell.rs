//! Arbitrary text into the shell reader. The same property runs on stable in `oxibot-toolhost/tests/shell_reader.rs`;
//! `cargo +nightly fuzz run shell` in `tests` searches further.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use oxibot_proto::message::Verdict;
use oxibot_toolhost::shell::{Policy, judge};

static POLICY: OnceLock<Policy> = OnceLock::new();

fuzz_target!(|text: &str| {
    let policy = POLICY.get_or_init(|| Policy::standard().expect("the policy is tested"));
    let judged = judge(policy, text);
    assert!(judged.verdict == Verdict::Allow || !judged.rules.is_empty());
});
