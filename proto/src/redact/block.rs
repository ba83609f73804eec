//! Private keys over several lines: their header, and the lines that belong to one.
//!
//! A header alone, as source code and documents name it, is left as it is. What counts as a line of the key is decided by
//! the width of the first one, so that text after a key that was cut off is not swallowed with it.

use super::class::Class;
use super::hay::{Hay, Hit, Match, Peek, Run, Then};

/// Where a header is recognised.
pub(super) const ANCHORS: &[&str] = &["-----BEGIN ", "Private-Lines: "];
/// Longest name in a header.
const LONGEST_HEADER: usize = 64;
/// Between header and key stand at most some lines such as `Proc-Type:`.
const LONGEST_GAP: usize = 400;
/// Characters that make the first line of a key.
const FIRST_LINE: usize = 32;
/// Longest line that is looked at to find out whether it belongs to a key: also the prefix of a list.
const LONGEST_LINE: usize = 300;
const END: &[u8] = b"-----END ";

/// Whether a private key begins at `at`.
pub(super) fn find(hay: Hay<'_>, at: usize, rule: usize) -> Match {
    let header = match header(hay, at) {
        Ok(end) => end,
        Err(stop) => return stop,
    };
    let mut cursor = header;
    while cursor < header + LONGEST_GAP {
        let length = match hay.run(cursor, Class::BASE64, FIRST_LINE) {
            Run::Unknown => return Match::Wait,
            Run::Longer => {
                let first = hay.slice(cursor, cursor + FIRST_LINE);
                let plausible = super::rule::distinct(first) >= 12 && first.iter().any(u8::is_ascii_digit);
                if !plausible {
                    return Match::No;
                }
                return Match::Found(Hit { from: at, to: cursor, rule, then: Then::Lines(0) });
            }
            Run::Ended(length) => length,
        };
        cursor += length;
        match (hay.at(cursor), hay.at(cursor + 1)) {
            (Peek::Byte(b'\\'), Peek::Byte(b'n' | b'r')) => cursor += 2,
            (Peek::Unknown, _) | (Peek::Byte(b'\\'), Peek::Unknown) => return Match::Wait,
            (Peek::Byte(_), _) => cursor += 1,
            (Peek::End, _) => return Match::No,
        }
    }
    Match::No
}

/// The end of the header at `at`.
fn header(hay: Hay<'_>, at: usize) -> Result<usize, Match> {
    let mut cursor = at;
    let Some(anchor) = ANCHORS.iter().find(|anchor| {
        let there = hay.slice(at, at + anchor.len());
        !there.is_empty() && anchor.as_bytes().starts_with(there)
    }) else {
        return Err(Match::No);
    };
    for _ in anchor.bytes() {
        match hay.at(cursor) {
            Peek::Byte(_) => cursor += 1,
            Peek::End => return Err(Match::No),
            Peek::Unknown => return Err(Match::Wait),
        }
    }
    let begin = anchor.starts_with('-');
    let name = Class::named('U').unwrap_or(Class::ALNUM).with(Class::single(b" "));
    let length = match hay.run(cursor, if begin { name } else { Class::ALNUM }, LONGEST_HEADER) {
        Run::Unknown => return Err(Match::Wait),
        Run::Longer => return Err(Match::No),
        Run::Ended(length) => length,
    };
    if !begin {
        return if length > 0 { Ok(cursor + length) } else { Err(Match::No) };
    }
    let named = hay.slice(cursor, cursor + length);
    if !named.windows(11).any(|window| window == b"PRIVATE KEY") {
        return Err(Match::No);
    }
    Ok(cursor + length)
}

/// What follows the end of a line of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    /// The next line of the key begins here.
    Line(usize),
    /// The key is over, and this is the first byte after it.
    Over(usize),
}

/// What follows at `at`, where a line of `run` characters ended, in a key whose lines are `width` wide.
pub(super) fn next(hay: Hay<'_>, at: usize, width: usize) -> Next {
    let (first, after) = match line(hay, at) {
        Ok(line) => line,
        Err(next) => return next,
    };
    // What is left of the line that ended: a quotation mark, a comma, a carriage return.
    if first.1 - first.0 > 8 {
        return end_within(hay, first, at);
    }
    let Some(start) = after else { return Next::Over(at) };
    let (content, after) = match line(hay, start) {
        Ok(line) => line,
        Err(next) => return next,
    };
    if let Some(over) = ended(hay, content) {
        return Next::Over(over);
    }
    let (from, to) = last_run(hay, content);
    if to == from {
        return Next::Over(at);
    }
    if to - from == width {
        return Next::Line(from);
    }
    if to - from > width {
        return Next::Over(at);
    }
    // A shorter line is the last: the end follows, or a check sum and the end.
    let mut after = after;
    for _ in 0..2 {
        let Some(start) = after else {
            return if hay.ended { Next::Line(from) } else { Next::Over(at) };
        };
        match line(hay, start) {
            Ok((content, _)) if ended(hay, content).is_some() => return Next::Line(from),
            Ok((content, next)) => {
                let (a, b) = last_run(hay, content);
                if b - a == 0 || b - a > 16 {
                    break;
                }
                after = next;
            }
            Err(next) => return next,
        }
    }
    // A line that the end of the stream cuts.
    Next::Over(at)
}

fn end_within(hay: Hay<'_>, content: (usize, usize), at: usize) -> Next {
    ended(hay, content).map_or(Next::Over(at), Next::Over)
}

/// The content of the line at `from` and where the next one begins. A backslash and `n` end a line as well: that is how
/// a key stands in JSON.
fn line(hay: Hay<'_>, from: usize) -> Result<((usize, usize), Option<usize>), Next> {
    let mut cursor = from;
    while cursor < from + LONGEST_LINE {
        match hay.at(cursor) {
            Peek::Byte(b'\n') => return Ok(((from, cursor), Some(cursor + 1))),
            Peek::Byte(b'\\') => match hay.at(cursor + 1) {
                Peek::Byte(b'n') => return Ok(((from, cursor), Some(cursor + 2))),
                Peek::Byte(_) | Peek::End => cursor += 1,
                Peek::Unknown => return Err(Next::Wait),
            },
            Peek::Byte(_) => cursor += 1,
            Peek::End => return Ok(((from, cursor), None)),
            Peek::Unknown => return Err(Next::Wait),
        }
    }
    Ok(((from, cursor), None))
}

/// Where the closing line of a key ends, if it is in this line.
fn ended(hay: Hay<'_>, (from, to): (usize, usize)) -> Option<usize> {
    let content = hay.slice(from, to);
    let start = content.windows(END.len()).position(|window| window == END)? + END.len();
    let rest = content.get(start..).unwrap_or_default();
    let name = rest.windows(5).position(|window| window == b"-----").map_or(rest.len(), |at| at + 5);
    Some(from + start + name)
}

/// The last run of base64 in a line, what closes a line set aside.
fn last_run(hay: Hay<'_>, (from, to): (usize, usize)) -> (usize, usize) {
    let content = hay.slice(from, to);
    let closing = content
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b'\r' | b'"' | b'\'' | b',' | b' ' | b'\\' | b';' | b'`'))
        .count();
    let end = to - closing;
    (end - hay.run_before(end, from, Class::BASE64, LONGEST_LINE), end)
}
