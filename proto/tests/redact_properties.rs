//! The properties of the redactor over generated input; the fuzz target searches further.

#[path = "redact/property.rs"]
mod property;

use oxibot_proto::redact::Redactor;
use proptest::prelude::*;

fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(property::FORMS.to_vec()).prop_map(|form| form.as_bytes().to_vec()),
        2 => prop::sample::select(vec![
            "fuzzed/", "secret+1", "ghp_", "token: ", "password=", "-----BEGIN PRIVATE KEY-----\n", "eyJhbGciOiJ", "xoxb-",
            "q8Zt3Lm0Xv7Rk2Bw9Yc5q8Zt3Lm0Xv7Rk2Bw9Yc5", "://user:", "\u{1b}[31m", "\\n", "\r\n", "AKIA", "sk-",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        4 => prop::collection::vec(any::<u8>(), 0..12),
        4 => "[ -~]{0,40}".prop_map(String::into_bytes),
    ];
    (any::<u8>(), prop::collection::vec(piece, 0..40)).prop_map(|(step, pieces)| {
        let mut input = vec![step];
        input.extend(pieces.concat());
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_known_secret_is_left_and_no_cut_matters(input in input()) {
        static REDACTOR: std::sync::OnceLock<Redactor> = std::sync::OnceLock::new();
        let redactor = REDACTOR.get_or_init(|| Redactor::load().unwrap().knowing("known", property::KNOWN));
        property::check(redactor, &input);
    }
}
