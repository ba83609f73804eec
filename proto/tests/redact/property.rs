//! What holds of the redactor for any bytes, cut anywhere. Run by `redact_properties.rs` on stable and by the fuzz target
//! `redact`, which includes this file.

use oxibot_proto::redact::Redactor;

/// A secret the redactor knows.
pub(crate) const KNOWN: &str = "fuzzed/secret+1";
/// The same as other programs encode it.
pub(crate) const FORMS: [&str; 4] =
    [KNOWN, "ZnV6emVkL3NlY3JldCsx", "66757a7a65642f7365637265742b31", "fuzzed%2Fsecret%2B1"];

/// The first byte says how the rest is cut.
pub(crate) fn check(redactor: &Redactor, input: &[u8]) {
    let (step, text) =
        input.split_first().map_or((1, input), |(first, rest)| (usize::from(*first) + 1, rest));
    let whole = redactor.bytes(text).into_owned();
    let mut stream = redactor.stream();
    let mut pieces = Vec::new();
    for piece in text.chunks(step) {
        stream.push(piece, &mut pieces);
    }
    stream.finish(&mut pieces);
    assert_eq!(pieces, whole, "any cut gives the same");
    for form in FORMS {
        assert!(
            !whole.windows(form.len()).any(|window| window == form.as_bytes()),
            "a known secret is left as {form}"
        );
    }
    if !whole.windows(11).any(|window| window == b"[redacted: ") {
        assert_eq!(whole, text, "what holds no secret is unchanged");
    }
    assert!(std::str::from_utf8(text).is_err() || std::str::from_utf8(&whole).is_ok(), "text stays text");
}
