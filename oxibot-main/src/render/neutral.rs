//! Making hostile text harmless to look at, visibly.
//!
//! A program's output can move the cursor, retitle the window, answer for the terminal, overwrite what was shown
//! before, or reorder what is read. Here such characters become visible marks. Nothing is silently removed: a reader
//! sees that something was there. Plain text of every language passes unchanged, also the joiners it needs.

/// One character of the source: how many raw bytes it took and what is shown for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Bytes in the source.
    pub(crate) raw: usize,
    /// What is shown.
    pub(crate) shown: Shown,
}

/// What is shown for a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// This character.
    Char(char),
    /// `<U+....>`, for what has no picture of its own.
    Code(char),
}

impl Shown {
    /// Bytes of UTF-8 it takes.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Char(shown) => shown.len_utf8(),
            Self::Code(code) => {
                if u32::from(code) > 0xffff {
                    "<U+E0001>".len()
                } else {
                    "<U+202E>".len()
                }
            }
        }
    }

    /// Appends it.
    pub(crate) fn push_to(self, out: &mut String) {
        use std::fmt::Write as _;
        match self {
            Self::Char(shown) => out.push(shown),
            // Writing to a String cannot fail.
            Self::Code(code) => drop(write!(out, "<U+{:04X}>", u32::from(code))),
        }
    }
}

/// The characters of `bytes`, invalid UTF-8 as U+FFFD, in order; their `raw` lengths add up to `bytes.len()`.
pub(crate) fn units(bytes: &[u8]) -> Vec<Unit> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut characters = chunk.valid().chars().peekable();
        while let Some(character) = characters.next() {
            let shown = show(character, characters.peek().copied());
            units.push(Unit { raw: character.len_utf8(), shown });
        }
        if !chunk.invalid().is_empty() {
            units.push(Unit { raw: chunk.invalid().len(), shown: Shown::Char(char::REPLACEMENT_CHARACTER) });
        }
    }
    units
}

/// The text with everything harmful made visible. Lines and tabs stay.
#[must_use]
pub fn text(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for unit in units(source.as_bytes()) {
        unit.shown.push_to(&mut out);
    }
    out
}

/// As [`text`], on one line and at most `limit` bytes long; what is cut off shows as `...`.
#[must_use]
pub fn line(source: &str, limit: usize) -> String {
    let mut out = String::new();
    for unit in units(source.as_bytes()) {
        let shown = match unit.shown {
            Shown::Char('\n' | '\r' | '\t') => Shown::Char(' '),
            Shown::Char(_) | Shown::Code(_) => unit.shown,
        };
        if out.len().saturating_add(shown.len()) > limit.saturating_sub(3) {
            out.push_str("...");
            return out;
        }
        shown.push_to(&mut out);
    }
    out
}

/// Neutralises a stream that arrives in pieces: a character split between two pieces is put together.
#[derive(Debug, Default)]
pub struct Streaming {
    kept: Vec<u8>,
}

impl Streaming {
    /// What to show for the next piece.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.kept);
        bytes.extend_from_slice(piece);
        let keep = unfinished(&bytes);
        let whole = bytes.len().saturating_sub(keep);
        self.kept = bytes.split_off(whole);
        let mut out = String::with_capacity(bytes.len());
        for unit in units(&bytes) {
            unit.shown.push_to(&mut out);
        }
        out
    }

    /// What is left when the stream ends.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        for unit in units(&std::mem::take(&mut self.kept)) {
            unit.shown.push_to(&mut out);
        }
        out
    }
}

/// Bytes at the end that may be the start of a character still to come, or a carriage return whose line feed is.
pub(crate) fn unfinished(bytes: &[u8]) -> usize {
    if bytes.last() == Some(&b'\r') {
        return 1;
    }
    bytes.utf8_chunks().last().map_or(0, |chunk| {
        let tail = chunk.invalid();
        let wanted = match tail.first() {
            Some(0xc2..=0xdf) => 2,
            Some(0xe0..=0xef) => 3,
            Some(0xf0..=0xf4) => 4,
            Some(_) | None => 0,
        };
        if tail.len() < wanted && bytes.ends_with(tail) { tail.len() } else { 0 }
    })
}

fn show(character: char, next: Option<char>) -> Shown {
    match character {
        '\n' | '\t' => Shown::Char(character),
        // Before a line feed it moves nothing; alone it lets later text overwrite earlier text.
        '\r' if next == Some('\n') => Shown::Char(character),
        // Control pictures: U+241B for escape and so on.
        '\0'..='\x1f' => Shown::Char(
            u32::from(character).checked_add(0x2400).and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        ),
        '\x7f' => Shown::Char('\u{2421}'),
        // C1: U+009B is an escape sequence introducer to many terminals.
        '\u{80}'..='\u{9f}'
        // Line and paragraph separators break "one line" promises.
        | '\u{2028}' | '\u{2029}'
        // Embedding, override and isolate reorder what a person reads ("trojan source").
        | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Tag characters are invisible to people and read by models.
        | '\u{e0000}'..='\u{e007f}' => Shown::Code(character),
        _ => Shown::Char(character),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terminal_tricks_become_visible() {
        assert_eq!(text("\x1b]0;owned\x07"), "␛]0;owned␇");
        assert_eq!(text("safe\rEVIL"), "safe␍EVIL");
        assert_eq!(text("a\r\nb\n"), "a\r\nb\n");
        assert_eq!(text("\u{9b}31m"), "<U+009B>31m");
        assert_eq!(text("x\u{202e}y"), "x<U+202E>y");
        assert_eq!(text("\u{e0041}"), "<U+E0041>");
        assert_eq!(text("\x08\x7f\0"), "␈␡␀");
    }

    #[test]
    fn languages_pass_unchanged() {
        for plain in ["žluťoučký kůň", "שלום", "नमस्ते", "👩‍👩‍👧‍👦", "\tindented"]
        {
            assert_eq!(text(plain), plain);
        }
    }

    #[test]
    fn one_line_stays_one_line_and_short() {
        assert_eq!(line("a\nb\tc", 80), "a b c");
        let cut = line(&"é".repeat(100), 20);
        assert!(cut.len() <= 20 && cut.ends_with("..."), "{cut}");
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_shows_the_same(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..200) {
            let whole = {
                let mut stream = Streaming::default();
                let mut shown = stream.push(&bytes);
                shown.push_str(&stream.finish());
                shown
            };
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let mut stream = Streaming::default();
            let mut shown = stream.push(first);
            shown.push_str(&stream.push(second));
            shown.push_str(&stream.finish());
            prop_assert_eq!(shown, whole);
        }

        #[test]
        fn units_account_for_every_byte_and_every_length(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let units = units(&bytes);
            prop_assert_eq!(units.iter().map(|unit| unit.raw).sum::<usize>(), bytes.len());
            for unit in units {
                let mut shown = String::new();
                unit.shown.push_to(&mut shown);
                prop_assert_eq!(shown.len(), unit.shown.len());
            }
        }

        #[test]
        fn nothing_that_steers_a_terminal_is_left(source in "\\PC*|[\\x00-\\x9f]*") {
            let shown = text(&source);
            let mut characters = shown.chars().peekable();
            while let Some(character) = characters.next() {
                prop_assert!(
                    !character.is_control() || matches!(character, '\n' | '\t')
                        || (character == '\r' && characters.peek() == Some(&'\n'))
                );
            }
        }
    }
}
