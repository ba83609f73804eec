//! What a word expands to as far as it can be known. A value is text in which a few private characters stand for what
//! is not text: a pattern's `*`, the home directory, something known only at run time.

/// The home directory.
pub(super) const HOME: char = '\u{F0000}';
/// The working directory a call starts in: the workspace.
pub(super) const WORK: char = '\u{F0001}';
/// An unquoted `*`.
pub(super) const STAR: char = '\u{F0010}';
/// An unquoted `?`.
pub(super) const ANY: char = '\u{F0011}';
/// An unquoted `[`.
pub(super) const OPEN: char = '\u{F0012}';
/// The first of the characters that stand for something unknown. The difference is its number.
const UNKNOWN: u32 = 0x10_0000;
/// Unknown things told apart; further ones share the last.
const MAX_UNKNOWNS: u32 = 0xFFF0;

/// Whether this stands for something that is known only at run time.
pub(super) fn is_unknown(letter: char) -> bool {
    u32::from(letter) >= UNKNOWN
}

/// Whether this belongs to a pattern.
pub(super) fn is_pattern(letter: char) -> bool {
    matches!(letter, STAR | ANY | OPEN)
}

/// Whether nothing in the value is unknown.
pub(super) fn is_known(value: &str) -> bool {
    !value.chars().any(is_unknown)
}

/// Takes out of a text what would be mistaken for one of ours.
pub(super) fn cleaned(text: &str) -> String {
    text.chars().map(|letter| if u32::from(letter) >= 0xF_0000 { '\u{FFFD}' } else { letter }).collect()
}

/// What unknown things were called.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// A character for something unknown.
    pub(super) fn unknown(&mut self, shown: String) -> char {
        let index = match self.0.iter().position(|known| *known == shown) {
            Some(index) => index,
            None => {
                if self.0.len() < 512 {
                    self.0.push(shown);
                }
                self.0.len().saturating_sub(1)
            }
        };
        let index = u32::try_from(index).unwrap_or(MAX_UNKNOWNS).min(MAX_UNKNOWNS);
        char::from_u32(UNKNOWN.saturating_add(index)).unwrap_or('\u{10FFFD}')
    }

    /// The value as a person would write it.
    pub(super) fn shown(&self, value: &str) -> String {
        let mut text = String::new();
        for letter in value.chars() {
            match letter {
                HOME => text.push('~'),
                WORK => text.push_str("$PWD"),
                STAR => text.push('*'),
                ANY => text.push('?'),
                OPEN => text.push('['),
                letter if is_unknown(letter) => {
                    let index = usize::try_from(u32::from(letter).saturating_sub(UNKNOWN)).unwrap_or(0);
                    text.push_str(self.0.get(index).map_or("$…", String::as_str));
                }
                letter => text.push(letter),
            }
        }
        text
    }
}

/// The value as bash text to be read again: marks become what they stand for, unknown things variables that no one sets.
pub(super) fn as_script(value: &str) -> String {
    let mut text = String::new();
    for letter in value.chars() {
        match letter {
            HOME => text.push('~'),
            WORK => text.push_str("$PWD"),
            STAR => text.push('*'),
            ANY => text.push('?'),
            OPEN => text.push('['),
            letter if is_unknown(letter) => text.push_str("${_unknown_}"),
            letter => text.push(letter),
        }
    }
    text
}
