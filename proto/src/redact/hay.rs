//! What is searched: bytes that may go on. Whoever looks past their end is told so, and waits.
//!
//! Every decision is made of bytes that were seen, never of how they were cut into pieces: that is why any cut gives
//! the same result.

use super::class::Class;

/// Bytes of a stream, of which more may come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hay<'a> {
    pub(super) bytes: &'a [u8],
    /// Nothing more comes.
    pub(super) ended: bool,
}

/// The byte at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peek {
    Byte(u8),
    /// The stream ends here.
    End,
    /// It is still to come.
    Unknown,
}

/// What was found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Match {
    No,
    /// It depends on bytes still to come.
    Wait,
    Found(Hit),
}

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Which rule says so.
    pub(super) rule: usize,
    pub(super) then: Then,
}

/// What follows a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Search,
    /// The rest of the run is dropped, however long it is.
    Drop(Class),
    /// Lines of a key follow; that much of the first is part of the hit.
    Lines(usize),
}

/// A run of characters of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// It has this length and another character, or the end of the stream, follows.
    Ended(usize),
    /// It is at least as long as was asked for.
    Longer,
    /// It goes on to the end of what is there.
    Unknown,
}

impl Hay<'_> {
    pub(super) fn at(&self, index: usize) -> Peek {
        match self.bytes.get(index) {
            Some(byte) => Peek::Byte(*byte),
            None if self.ended => Peek::End,
            None => Peek::Unknown,
        }
    }

    /// The run that starts at `index`, of which up to `most` characters are looked at.
    pub(super) fn run(&self, index: usize, class: Class, most: usize) -> Run {
        let mut length = 0;
        while length < most {
            match self.at(index + length) {
                Peek::Byte(byte) if class.has(byte) => length += 1,
                Peek::Byte(_) | Peek::End => return Run::Ended(length),
                Peek::Unknown => return Run::Unknown,
            }
        }
        Run::Longer
    }

    /// Length of the run that ends before `index`, not before `floor` and at most `most`.
    pub(super) fn run_before(&self, index: usize, floor: usize, class: Class, most: usize) -> usize {
        let before = self.bytes.get(floor..index).unwrap_or_default();
        before.iter().rev().take(most).take_while(|byte| class.has(**byte)).count()
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &[u8] {
        self.bytes.get(from..to.min(self.bytes.len())).unwrap_or_default()
    }

    /// Whether a token may begin at `index`: nothing before it belongs to the same word. What ends a colour sequence, a
    /// backslash escape or a percent escape does not belong to the word after it.
    pub(super) fn word_begins(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1).and_then(|at| self.bytes.get(at)) else { return true };
        if self.colour_begins(index) {
            return false;
        }
        if !before.is_ascii_alphanumeric() {
            return true;
        }
        let back = |n: usize| index.checked_sub(n).and_then(|at| self.bytes.get(at)).copied();
        let hex = |n: usize| back(n).is_some_and(|byte| byte.is_ascii_hexdigit());
        // \n \t \r and, in octal or hexadecimal, \033[ and \x1b[ are the next two.
        if matches!(before, b'n' | b't' | b'r' | b'b' | b'f') && back(2) == Some(b'\\') {
            return true;
        }
        if hex(1) && hex(2) && (back(3) == Some(b'%') || (back(3) == Some(b'x') && back(4) == Some(b'\\'))) {
            return true;
        }
        if (1..=4).all(hex) && back(5) == Some(b'u') && back(6) == Some(b'\\') {
            return true;
        }
        before.is_ascii_alphabetic() && self.colour_begins(index - 1)
    }

    /// Whether all between the last `ESC [` and `index` are parameters of a control sequence.
    fn colour_begins(&self, index: usize) -> bool {
        let parameters = self.run_before(index, 0, Class::single(b"0123456789;:?"), 24);
        let start = index - parameters;
        start >= 2 && self.slice(start - 2, start) == b"\x1b["
    }
}
