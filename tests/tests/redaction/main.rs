//! What the redactor takes out and what it leaves: two corpora, made here and independent of its rules.
//!
//! More than two hundred kinds of keys, each cut at every byte, go; a thousand ordinary outputs stay byte for byte. Both
//! rates are printed.

mod draw;
mod keys;
mod ordinary;

use oxibot_proto::redact::Redactor;

fn streamed(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(piece, &mut out);
    }
    stream.finish(&mut out);
    out
}

#[test]
fn every_kind_of_key_goes_cut_at_every_byte() {
    let redactor = Redactor::load().unwrap();
    let keys = keys::all();
    let kinds: std::collections::BTreeSet<&str> = keys.iter().map(|key| key.kind.as_str()).collect();
    assert!(kinds.len() >= 200, "{} kinds", kinds.len());
    let mut missed = Vec::new();
    for key in &keys {
        let text = format!("{}{}{}", key.before, key.key, key.after);
        let whole = redactor.text(&text).into_owned();
        // Nothing of the key that is long enough to be of use is left.
        let left = key.key.as_bytes().windows(12).any(|window| {
            !window.starts_with(b"-----") && whole.as_bytes().windows(12).any(|shown| shown == window)
        });
        if whole == text || left {
            missed.push(format!("{}: {text:?} -> {whole:?}", key.kind));
            continue;
        }
        // Long ones at every byte of their first and last hundred, and at every seventh between.
        for at in (0..=text.len()).filter(|at| *at < 200 || *at + 200 > text.len() || at % 7 == 0) {
            let (first, second) = text.as_bytes().split_at(at);
            let got = streamed(&redactor, &[first, second]);
            assert_eq!(String::from_utf8_lossy(&got), whole, "{} cut at {at}", key.kind);
        }
    }
    println!("keys: {} of {} are taken out ({} kinds)", keys.len() - missed.len(), keys.len(), kinds.len());
    assert!(missed.is_empty(), "{} missed\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn ordinary_outputs_pass_byte_for_byte() {
    let redactor =
        Redactor::load().unwrap().knowing("providers.openrouter.apiKey", "sk-or-v1-of-this-test-only");
    let outputs = ordinary::all();
    assert!(outputs.len() >= 1000, "{}", outputs.len());
    let mut changed = Vec::new();
    for (name, text) in &outputs {
        let shown = redactor.text(text);
        if shown != *text {
            let line = shown.lines().find(|line| line.contains("[redacted")).unwrap_or_default();
            changed.push(format!("{name}: {line}"));
        }
        let half = text.len() / 2;
        let (first, second) = text.as_bytes().split_at(half);
        assert_eq!(streamed(&redactor, &[first, second]), shown.as_bytes(), "{name} cut in the middle");
    }
    println!("ordinary outputs: {} of {} are changed", changed.len(), outputs.len());
    assert!(changed.is_empty(), "{} changed\n{}", changed.len(), changed.join("\n"));
}
