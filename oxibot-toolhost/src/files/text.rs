//! Bytes of files and names become text that is safe to show: valid UTF-8, no control sequence, bounded.
//!
//! Nothing is interpreted. What could move a cursor, reorder a line or hide characters from a reader is written out
//! as `\x1b` or `\u{202e}`.

use std::fmt::Write as _;

use oxibot_proto::message::MAX_OUTPUT;

use super::fault::Fault;
use crate::wire::FilesResult;

/// Room kept on a page for its notes and the `next offset` line.
const FOOTER: usize = 700;

/// Longest note on a page.
const MAX_NOTE: usize = 200;

/// Whether a character is written out instead of passed on. Tab is not; a line never contains a line feed.
fn is_unsafe(c: char) -> bool {
    match c {
        '\t' => false,
        // C0, DEL, C1.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // Bidirectional marks and overrides: text that reads otherwise than it compiles (CVE-2021-42574).
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Line and paragraph separators, byte order mark, and tag characters, which carry text no person sees.
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// Appends `bytes` as safe text, at most `room` bytes of it, cut between characters. Invalid UTF-8 becomes U+FFFD.
/// Returns how many bytes of the input were used.
pub(super) fn push_safe(out: &mut String, bytes: &[u8], room: usize) -> usize {
    let end = out.len().saturating_add(room);
    let mut used = 0_usize;
    let mut escaped = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escaped.clear();
            if !is_unsafe(c) {
                escaped.push(c);
            } else if u32::from(c) < 0x80 {
                // Writing into a String cannot fail.
                let _ = write!(escaped, "\\x{:02x}", u32::from(c));
            } else {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
            }
            if out.len().saturating_add(escaped.len()) > end {
                return used;
            }
            out.push_str(&escaped);
            used = used.saturating_add(c.len_utf8());
        }
        if !chunk.invalid().is_empty() {
            if out.len().saturating_add(char::REPLACEMENT_CHARACTER.len_utf8()) > end {
                return used;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            used = used.saturating_add(chunk.invalid().len());
        }
    }
    used
}

/// A file name or path to show. Bytes that are not UTF-8 are written as `\xff`, so that two names never look alike.
pub(super) fn name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\t' || (is_unsafe(c) && u32::from(c) < 0x80) {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            } else if is_unsafe(c) {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// At most `max` bytes of `text`, cut between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let end = text.floor_char_boundary(max);
    text.get(..end).unwrap_or_default()
}

/// One page of a list of lines: those before the first wanted are counted, those that do not fit are counted too.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    first: u64,
    seen: u64,
    next: Option<u64>,
    left_out: u64,
}

impl Page {
    /// A page whose first line is the `first`th, from 1.
    pub(super) fn new(first: u64) -> Self {
        Self { text: String::new(), first: first.max(1), seen: 0, next: None, left_out: 0 }
    }

    /// Whether the next line would be shown or at least tried: callers may then spend time to make it.
    pub(super) fn wants_next(&self) -> bool {
        self.next.is_none() && self.seen.saturating_add(1) >= self.first
    }

    /// Something did not fit: nothing more will be shown.
    pub(super) fn is_full(&self) -> bool {
        self.next.is_some()
    }

    /// Counts a line, and shows it if it is on this page.
    pub(super) fn line(&mut self, line: &str) {
        self.seen = self.seen.saturating_add(1);
        if self.seen < self.first {
            return;
        }
        let room = MAX_OUTPUT.saturating_sub(FOOTER).saturating_sub(self.text.len());
        if self.next.is_none() && line.len() < room {
            self.text.push_str(line);
            self.text.push('\n');
        } else if self.next.is_none() && self.text.is_empty() {
            // A single line larger than a page: show its beginning, or no later page would ever get past it.
            self.text.push_str(cut(line, room.saturating_sub(8)));
            self.text.push_str("...\n");
        } else {
            self.next.get_or_insert(self.seen);
            self.left_out = self.left_out.saturating_add(line.len() as u64).saturating_add(1);
        }
    }

    /// The page with its notes and, when something is left, its closing line.
    pub(super) fn finish(mut self, nothing: &str, notes: &[String]) -> Result<FilesResult, Fault> {
        if self.seen > 0 && self.text.is_empty() {
            return Err(Fault::Failed(format!(
                "offset {} is past the end: there are {} results",
                self.first, self.seen
            )));
        }
        if self.seen == 0 {
            self.text.push_str(nothing);
            self.text.push('\n');
        }
        for note in notes.iter().take(3) {
            let _ = writeln!(self.text, "[{}]", cut(note, MAX_NOTE));
        }
        if let Some(next) = self.next {
            let _ = write!(self.text, "next offset: {next}");
        }
        let total_bytes = (self.text.len() as u64).saturating_add(self.left_out);
        Ok(FilesResult::Text { text: self.text, total_bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn safe(bytes: &[u8]) -> String {
        let mut out = String::new();
        push_safe(&mut out, bytes, usize::MAX);
        out
    }

    #[test]
    fn control_sequences_and_hidden_text_are_written_out() {
        assert_eq!(safe(b"\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(safe("a\u{202e}b\u{9b}2J\u{e0041}".as_bytes()), "a\\u{202e}b\\u{9b}2J\\u{e0041}");
        assert_eq!(safe("tab\tünïcode 漢 👩‍👩‍👧".as_bytes()), "tab\tünïcode 漢 👩‍👩‍👧");
        assert_eq!(safe(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn names_never_look_alike() {
        assert_eq!(name(b"caf\xe9\n"), "caf\\xe9\\x0a");
        assert_eq!(name("ok ü".as_bytes()), "ok ü");
    }

    #[test]
    fn page_cuts_at_the_end_and_goes_on_there() {
        let lines: Vec<String> = (1..=1000).map(|n| format!("{n:04} {}", "x".repeat(60))).collect();
        let mut first = 1;
        let mut collected = String::new();
        loop {
            let mut page = Page::new(first);
            lines.iter().for_each(|line| page.line(line));
            let Ok(FilesResult::Text { text, total_bytes }) = page.finish("none", &[]) else { panic!() };
            assert!(text.len() <= MAX_OUTPUT);
            match text.rsplit_once("next offset: ") {
                Some((shown, next)) => {
                    assert!(total_bytes > text.len() as u64);
                    collected.push_str(shown);
                    first = next.parse().unwrap();
                }
                None => {
                    assert_eq!(total_bytes, text.len() as u64);
                    collected.push_str(&text);
                    break;
                }
            }
        }
        assert_eq!(collected.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn line_larger_than_a_page_does_not_stop_the_reader() {
        let mut page = Page::new(1);
        page.line(&"ü".repeat(20_000));
        page.line("second");
        let Ok(FilesResult::Text { text, .. }) = page.finish("none", &[]) else { panic!() };
        assert!(text.len() <= MAX_OUTPUT && (text.ends_with("next offset: 2") || text.contains("second")));
    }

    #[test]
    fn page_past_the_end_says_so() {
        let mut page = Page::new(9);
        page.line("only");
        assert!(matches!(page.finish("none", &[]), Err(Fault::Failed(text)) if text.contains("1 results")));
    }

    proptest! {
        #[test]
        fn any_bytes_fit_their_room(bytes in proptest::collection::vec(any::<u8>(), 0..400), room in 0_usize..100) {
            let mut out = String::from("kept");
            let used = push_safe(&mut out, &bytes, room);
            prop_assert!(out.len() <= 4 + room && used <= bytes.len());
            prop_assert!(!out.chars().any(is_unsafe));
            prop_assert!(!name(&bytes).chars().any(|c| is_unsafe(c) || c == '\t'));
        }
    }
}
