//! Cuts a long answer into messages a vendor takes. Pure.
//!
//! Counted in the vendor's own units. Cuts fall between paragraphs, else lines, else words, else characters; a code
//! block that is cut is closed and opened again, so that each message is whole by itself. Nothing is lost and nothing
//! is said twice.

/// Most of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub most: usize,
    /// Of what.
    pub unit: Unit,
}

/// What a vendor counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// UTF-16 code units (Telegram).
    Utf16,
    /// Unicode scalar values (Discord, Slack).
    Characters,
}

impl Unit {
    /// Length of a text.
    #[must_use]
    pub fn length(self, text: &str) -> usize {
        text.chars().map(|character| self.of(character)).sum()
    }

    fn of(self, character: char) -> usize {
        match self {
            Self::Utf16 => character.len_utf16(),
            Self::Characters => 1,
        }
    }
}

/// Room for the fence that closes a cut block, and its line feed.
const CLOSING: usize = 8;

/// The pieces, in order. None for a text of nothing but white space.
///
/// A piece is at most `limit.most` units long, as long as that is at least 64.
#[must_use]
pub fn split(text: &str, limit: Limit) -> Vec<String> {
    // Wherever a piece ends, a block may be open in it.
    let most = limit.most.max(64).saturating_sub(CLOSING);
    let mut pieces = Vec::new();
    let mut piece = String::new();
    let mut fence: Option<Fence> = None;
    for line in text.trim_end().split_inclusive('\n') {
        let marker = Fence::of(line);
        let closes = matches!((&fence, &marker), (Some(open), Some(found)) if found.closes(open));
        let mut rest = line;
        loop {
            let free = most.saturating_sub(limit.unit.length(&piece));
            if limit.unit.length(rest.trim_end_matches('\n')) <= free {
                piece.push_str(rest);
                break;
            }
            // The line does not fit here. Where it would fit into a piece of its own, cut before it.
            let opening = fence.as_ref().map_or(0, |fence| limit.unit.length(&fence.line));
            let fits_alone = limit.unit.length(rest.trim_end_matches('\n')) <= most.saturating_sub(opening);
            let begun = fence.as_ref().is_some_and(|fence| piece == fence.line);
            if (fits_alone || free == 0) && !piece.trim().is_empty() && !begun {
                finish(&mut pieces, &mut piece, fence.as_ref());
                continue;
            }
            let at = cut(rest, free.max(1), limit.unit);
            let (head, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
            piece.push_str(head);
            rest = if fence.is_some() { tail } else { tail.trim_start_matches(' ') };
            finish(&mut pieces, &mut piece, fence.as_ref());
            if rest.is_empty() {
                break;
            }
        }
        match (&fence, marker) {
            (Some(_), Some(_)) if closes => fence = None,
            (None, Some(found)) => fence = Some(found),
            (Some(_) | None, _) => {}
        }
        // A paragraph's end with little room left is the best place for a cut.
        if fence.is_none()
            && line.trim().is_empty()
            && limit.unit.length(&piece) > most.saturating_mul(9) / 10
        {
            finish(&mut pieces, &mut piece, None);
        }
    }
    finish(&mut pieces, &mut piece, None);
    pieces
}

/// Ends a piece, and begins the next one inside the block that is open.
fn finish(pieces: &mut Vec<String>, piece: &mut String, open: Option<&Fence>) {
    let whole = std::mem::take(piece);
    let mut whole = whole.trim_end().to_owned();
    if let Some(fence) = open {
        whole.push('\n');
        whole.push_str(&fence.marker);
        piece.push_str(&fence.line);
    }
    if !whole.trim().is_empty() {
        pieces.push(whole);
    }
}

/// Byte where a text of more than `most` units is cut: after the last space in the second half, else anywhere.
fn cut(text: &str, most: usize, unit: Unit) -> usize {
    let mut length = 0;
    let mut end = 0;
    let mut space = None;
    for (at, character) in text.char_indices() {
        let next = length + unit.of(character);
        if next > most {
            break;
        }
        length = next;
        end = at + character.len_utf8();
        if character == ' ' && length > most / 2 {
            space = Some(end);
        }
    }
    // At least one character, or it would go on for ever.
    let first = text.chars().next().map_or(0, char::len_utf8);
    space.unwrap_or(end).max(first)
}

/// The beginning of a code block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fence {
    /// The backticks or tildes.
    marker: String,
    /// The whole first line, with its language.
    line: String,
    bare: bool,
}

impl Fence {
    fn of(line: &str) -> Option<Self> {
        let text = line.trim();
        if line.len() - line.trim_start().len() > 3 {
            return None;
        }
        let first = text.chars().next().filter(|first| matches!(first, '`' | '~'))?;
        let marker: String = text.chars().take_while(|character| *character == first).collect();
        let rest = text.get(marker.len()..).unwrap_or_default();
        if marker.len() < 3 || rest.contains('`') {
            return None;
        }
        // A first line of absurd length would leave no room for anything else.
        let language: String = rest.trim().chars().take(24).collect();
        let marker: String = marker.chars().take(6).collect();
        Some(Self { line: format!("{marker}{language}\n"), marker, bare: rest.trim().is_empty() })
    }

    fn closes(&self, open: &Self) -> bool {
        self.bare
            && self.marker.len() >= open.marker.len()
            && self.marker.chars().next() == open.marker.chars().next()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UTF16: Limit = Limit { most: 64, unit: Unit::Utf16 };

    #[test]
    fn short_text_is_one_piece_and_nothing_is_none() {
        assert_eq!(split("hello\n", UTF16), ["hello"]);
        assert_eq!(split(" \n\n", UTF16), Vec::<String>::new());
    }

    #[test]
    fn cuts_fall_between_paragraphs_then_lines_then_words() {
        let paragraph = "one two three four five six seven";
        let text = format!("{paragraph}\n\n{paragraph}\n\n{paragraph}");
        assert_eq!(split(&text, UTF16), [paragraph; 3]);
        let long = "word ".repeat(40);
        for piece in split(&long, UTF16) {
            assert!(piece.split(' ').all(|word| word == "word"), "{piece:?}");
        }
    }

    #[test]
    fn cut_code_block_is_closed_and_opened_again_with_its_language() {
        let text = format!("look:\n```rust\n{}```\nend", "let a = 1;\n".repeat(12));
        let pieces = split(&text, UTF16);
        assert!(pieces.len() > 1);
        for piece in &pieces {
            assert_eq!(piece.matches("```").count() % 2, 0, "{piece}");
        }
        assert!(
            pieces.iter().skip(1).filter(|piece| piece.contains("let")).all(|p| p.starts_with("```rust\n"))
        );
        assert_eq!(pieces.join("\n").matches("let a = 1;").count(), 12);
        assert!(pieces.last().unwrap().ends_with("end"));
    }

    #[test]
    fn units_are_the_vendors_own() {
        let text = "😀".repeat(64);
        assert_eq!(split(&text, Limit { most: 80, unit: Unit::Utf16 }).len(), 2);
        assert_eq!(split(&text, Limit { most: 80, unit: Unit::Characters }).len(), 1);
    }

    #[test]
    fn word_without_a_space_is_cut_between_characters() {
        let pieces = split(&"é".repeat(200), UTF16);
        assert_eq!(pieces.concat().chars().count(), 200);
    }

    proptest! {
        #[test]
        fn pieces_fit_and_say_everything_once(text in "[a-zé😀 `~\n]{0,600}") {
            let pieces = split(&text, UTF16);
            for piece in &pieces {
                prop_assert!(Unit::Utf16.length(piece) <= 64, "{piece:?}");
                prop_assert!(!piece.trim().is_empty());
            }
            // What is not white space or a fence comes through in order, each once.
            let bare = |text: &str| -> String {
                text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '`' | '~')).collect()
            };
            let said: String = pieces.iter().map(|piece| {
                // An info string is repeated where a block was opened again.
                piece.lines().filter(|line| Fence::of(line).is_none()).collect::<Vec<_>>().join("\n")
            }).collect();
            let meant: String =
                text.lines().filter(|line| Fence::of(line).is_none()).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(bare(&said), bare(&meant));
        }
    }
}
