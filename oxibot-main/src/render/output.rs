//! What a call printed, as at most 10 240 bytes of text: the first and the last part, and between them one line that
//! counts what was left out.
//!
//! The toolhost keeps raw bytes from both ends; the text is made here because only here invalid UTF-8 and control
//! characters change its length. Counts are of raw bytes, as the program wrote them.

use oxibot_proto::message::{MAX_OUTPUT, Output};

use super::neutral::{self, Unit};

/// Longest file name shown in the line between the parts, in bytes. Prevents the line from eating the output.
const MAX_FILE: usize = 256;

/// Bounded text of a call's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedOutput {
    /// At most [`MAX_OUTPUT`] bytes.
    pub text: String,
    /// What was left out, if anything was.
    pub truncated: Option<Truncated>,
}

/// What was left out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Truncated {
    /// Raw bytes of the whole output.
    pub total_bytes: u64,
    /// Raw bytes that are not in the text.
    pub omitted_bytes: u64,
    /// File of the workspace that holds the whole output.
    pub file: Option<String>,
}

/// The text of an output, at most [`MAX_OUTPUT`] bytes.
#[must_use]
pub fn text(output: &Output) -> RenderedOutput {
    text_within(output, MAX_OUTPUT)
}

/// As [`text`], with fewer bytes: for callers that add lines of their own.
#[must_use]
pub(crate) fn text_within(output: &Output, limit: usize) -> RenderedOutput {
    let file = output.file.as_deref().map(|file| neutral::line(file, MAX_FILE));
    let held = count(output.head.len()).saturating_add(count(output.tail.len()));
    // A peer that claims fewer bytes than it sent is not believed.
    let passed = output.passed_bytes.max(held);
    let truncated = |omitted_bytes: u64| {
        // What stands for a secret may be longer than the secret.
        // What was left out is counted as it would have been shown, the whole as the program printed it: where what was
        // put for keys is longer than they were, the first could exceed the second.
        let total_bytes = output.total_bytes;
        let omitted_bytes = omitted_bytes.min(total_bytes);
        Truncated { total_bytes, omitted_bytes, file: file.clone() }
    };

    if held == passed || output.tail.is_empty() {
        let mut whole = output.head.clone();
        whole.extend_from_slice(&output.tail);
        let units = neutral::units(&whole);
        if shown_length(&units) <= limit {
            // With an empty tail a reading tool has cut the end itself and says so in the text.
            let left = passed.saturating_sub(held);
            return RenderedOutput { text: shown(&units), truncated: (left > 0).then(|| truncated(left)) };
        }
        let parts = split(&units, &units, limit.saturating_sub(line_reserve(file.as_deref())));
        return join(&parts, passed, truncated);
    }

    // The cut between the two parts may have gone through a character: its halves count as left out.
    let head_end = output.head.len().saturating_sub(neutral::unfinished(&output.head));
    let tail_start = output.tail.iter().take(3).take_while(|byte| (0x80..=0xbf).contains(*byte)).count();
    let head = neutral::units(output.head.get(..head_end).unwrap_or_default());
    let tail = neutral::units(output.tail.get(tail_start..).unwrap_or_default());
    let parts = split(&head, &tail, limit.saturating_sub(line_reserve(file.as_deref())));
    join(&parts, passed, truncated)
}

struct Parts<'a> {
    head: &'a [Unit],
    tail: &'a [Unit],
}

/// Takes as much as fits from the front of `head` and from the back of `tail`, half of the limit each, what one does
/// not need going to the other. When both are the same text the parts do not overlap, because it did not fit.
fn split<'a>(head: &'a [Unit], tail: &'a [Unit], limit: usize) -> Parts<'a> {
    let half = limit / 2;
    let tail_wants = shown_length(tail).min(half);
    let front = fitting(head.iter(), limit.saturating_sub(tail_wants));
    let head = head.get(..front).unwrap_or_default();
    let back = fitting(tail.iter().rev(), limit.saturating_sub(shown_length(head)));
    let tail = tail.get(tail.len().saturating_sub(back)..).unwrap_or_default();
    Parts { head, tail }
}

fn fitting<'a>(units: impl Iterator<Item = &'a Unit>, limit: usize) -> usize {
    let mut used = 0_usize;
    units
        .take_while(|unit| {
            used = used.saturating_add(unit.shown.len());
            used <= limit
        })
        .count()
}

fn join(parts: &Parts<'_>, passed: u64, truncated: impl Fn(u64) -> Truncated) -> RenderedOutput {
    let kept = raw_length(parts.head).saturating_add(raw_length(parts.tail));
    let truncated = truncated(passed.saturating_sub(kept));
    let mut text = shown(parts.head);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&between(truncated.omitted_bytes, truncated.file.as_deref()));
    text.push_str(&shown(parts.tail));
    RenderedOutput { text, truncated: Some(truncated) }
}

fn between(omitted: u64, file: Option<&str>) -> String {
    match file {
        Some(file) => format!("[... {omitted} bytes left out; the whole output is in {file} ...]\n"),
        None => format!("[... {omitted} bytes left out ...]\n"),
    }
}

/// Room for the line between, with the largest count it can hold and the line feed that may precede it.
fn line_reserve(file: Option<&str>) -> usize {
    between(u64::MAX, file).len().saturating_add(1)
}

fn shown(units: &[Unit]) -> String {
    let mut out = String::with_capacity(units.len());
    for unit in units {
        unit.shown.push_to(&mut out);
    }
    out
}

fn shown_length(units: &[Unit]) -> usize {
    units.iter().map(|unit| unit.shown.len()).sum()
}

fn raw_length(units: &[Unit]) -> u64 {
    count(units.iter().map(|unit| unit.raw).sum())
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Output {
        let total_bytes = count(bytes.len());
        Output { head: bytes.to_vec(), tail: Vec::new(), total_bytes, passed_bytes: total_bytes, file: None }
    }

    #[test]
    fn short_output_is_unchanged() {
        let shown = text(&whole("käse\n".as_bytes()));
        assert_eq!(shown, RenderedOutput { text: "käse\n".into(), truncated: None });
    }

    #[test]
    fn exactly_the_limit_passes_and_one_more_byte_is_cut() {
        assert_eq!(text(&whole(&vec![b'a'; MAX_OUTPUT])).truncated, None);
        let cut = text(&whole(&vec![b'a'; MAX_OUTPUT + 1]));
        assert!(cut.text.len() <= MAX_OUTPUT);
        assert!(cut.text.starts_with("aaaa") && cut.text.ends_with("aaaa"));
        assert!(cut.truncated.is_some_and(|left| left.omitted_bytes > 0));
    }

    #[test]
    fn both_ends_are_kept_and_the_line_between_counts() {
        let output = Output {
            head: [b"first\n".as_slice(), &[b'h'; 8000]].concat(),
            tail: [[b't'; 8000].as_slice(), b"last\n"].concat(),
            total_bytes: 2_000_000_000,
            passed_bytes: 2_000_000_000,
            file: Some(".oxibot-output/c1.txt".into()),
        };
        let shown = text(&output);
        let left = shown.truncated.unwrap();
        assert!(shown.text.starts_with("first\n") && shown.text.ends_with("last\n"));
        assert!(shown.text.len() <= MAX_OUTPUT && shown.text.len() > MAX_OUTPUT - 64);
        assert_eq!(left.total_bytes, 2_000_000_000);
        let line = format!(
            "\n[... {} bytes left out; the whole output is in .oxibot-output/c1.txt ...]\n",
            left.omitted_bytes
        );
        assert_eq!(shown.text.matches(&line).count(), 1);
        let letters = shown.text.len() - line.len();
        assert_eq!(left.omitted_bytes, 2_000_000_000 - u64::try_from(letters).unwrap());
    }

    #[test]
    fn a_character_cut_by_the_broker_is_left_out_whole() {
        let output = Output {
            head: b"ab\xe2\x82".to_vec(),
            tail: b"\xac\x82cd".to_vec(),
            total_bytes: 1000,
            passed_bytes: 1000,
            file: None,
        };
        let shown = text(&output);
        assert!(!shown.text.contains(char::REPLACEMENT_CHARACTER), "{}", shown.text);
        assert_eq!(shown.truncated.unwrap().omitted_bytes, 996);
    }

    #[test]
    fn a_reading_tool_that_cut_the_end_is_believed() {
        let output = Output {
            head: b"line\nnext offset: 2\n".to_vec(),
            tail: Vec::new(),
            total_bytes: 99,
            passed_bytes: 99,
            file: None,
        };
        let shown = text(&output);
        assert_eq!(shown.text, "line\nnext offset: 2\n");
        assert_eq!(shown.truncated.unwrap().total_bytes, 99);
    }

    proptest! {
        #[test]
        fn text_is_bounded_and_harmless_and_the_count_is_right(
            head in prop::collection::vec(any::<u8>(), 0..20_000),
            tail in prop::collection::vec(any::<u8>(), 0..20_000),
            more in prop::option::of(0_u64..1_000_000),
            file in prop::option::of(".*"),
        ) {
            let held = count(head.len() + tail.len());
            let total_bytes = more.map_or(held, |more| held + more);
            let output = Output { head, tail, total_bytes, passed_bytes: total_bytes, file };
            let shown = text(&output);
            prop_assert!(shown.text.len() <= MAX_OUTPUT);
            let harmless = shown.text.replace("\r\n", "\n");
            prop_assert!(!harmless.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')));
            if let Some(left) = shown.truncated {
                prop_assert!(left.omitted_bytes <= left.total_bytes);
                prop_assert_eq!(left.total_bytes, output.total_bytes);
            } else {
                prop_assert_eq!(held, output.total_bytes);
            }
        }
    }
}
