//! The shapes of keys as data: `shapes.rules`, read and proven when it is loaded.
//!
//! A rule that does not find its own examples, or finds what it must not, refuses the start: a redactor that silently
//! misses is worse than none, because people rely on it.

use super::class::Class;
use super::filter::{self, WIDTH};
use super::hay::{Hay, Hit, Match, Peek, Run, Then};
use super::{LONGEST_LOOKBACK, LOOK};

/// Longest run in the middle of a shape, such as the payload of a token in three parts.
const MOST_INSIDE: usize = 4096;
/// The same where the shape begins after a character that may be part of one: there it can begin at every few bytes, and
/// long runs would be read again and again.
const MOST_CROWDED: usize = 256;
const CROWD: Class = Class::single(b"_-.");
/// Different characters a key has at least. Keeps `ghp_xxxxxxxx`, as documents write it, readable.
const DISTINCT: usize = 6;
/// Combinations of first bytes one rule may have. Prevents a rule that begins with anything from making every place of
/// the text a candidate.
const MOST_FIRST: usize = 4096;

/// A rule of `shapes.rules` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use rule `{rule}` of shapes.rules: {what}")]
pub struct RuleError {
    /// Its name, or its line.
    pub rule: String,
    /// What is wrong.
    pub what: String,
}

/// Where a token may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Not inside a word.
    Word,
    /// Anywhere: the beginning is unlike anything else.
    Anywhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Literal(Vec<u8>),
    Run { class: Class, least: usize, most: Option<usize> },
}

/// One shape.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) id: String,
    /// What stands before the first literal, found backwards.
    before: Option<(Class, usize, usize)>,
    elements: Vec<Element>,
    left: Left,
    distinct: bool,
    /// Two kinds of digits, capitals and small letters are in it.
    mixed: bool,
    has: Option<Vec<u8>>,
    lines: bool,
    yes: Vec<String>,
    not: Vec<String>,
}

/// The shapes of a text of rules, not yet proven.
pub(super) fn parse(text: &str) -> Result<Vec<Shape>, RuleError> {
    let mut shapes: Vec<Shape> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| RuleError {
            rule: format!("line {}", number.saturating_add(1)),
            what: what.to_owned(),
        };
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if line.starts_with(' ') {
            let shape = shapes.last_mut().ok_or_else(|| wrong("an example before any rule"))?;
            // A caret keeps an example from being taken for a key by those who search repositories for keys.
            match trimmed.split_once(' ') {
                Some(("yes", example)) => shape.yes.push(example.replace('^', "")),
                Some(("not", example)) => shape.not.push(example.replace('^', "")),
                Some(_) | None => return Err(wrong("neither `yes` nor `not`")),
            }
            continue;
        }
        let mut words = trimmed.split_whitespace();
        let (Some(id), Some(pattern)) = (words.next(), words.next()) else {
            return Err(wrong("a name and a pattern are wanted"));
        };
        if shapes.iter().any(|known| known.id == id) {
            return Err(wrong("this name is taken"));
        }
        let mut shape = pattern_of(id, pattern).map_err(|what| wrong(&what))?;
        for word in words {
            match word.split_once('=') {
                None if word == "anywhere" => shape.left = Left::Anywhere,
                None if word == "any" => shape.distinct = false,
                None if word == "mixed" => shape.mixed = true,
                None if word == "lines" => shape.lines = true,
                Some(("has", text)) => shape.has = Some(text.as_bytes().to_vec()),
                Some(_) | None => return Err(wrong(&format!("`{word}` is not known"))),
            }
        }
        shapes.push(shape);
    }
    Ok(shapes)
}

/// A pattern's elements. `{uuid}` is short for what it looks like.
fn pattern_of(id: &str, pattern: &str) -> Result<Shape, String> {
    let pattern = pattern.replace("{uuid}", "{h8}-{h4}-{h4}-{h4}-{h12}");
    let mut elements = Vec::new();
    let mut before = None;
    let mut literal = Vec::new();
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match character {
            '\\' => literal.extend(rest.next().and_then(|next| u8::try_from(next).ok())),
            '{' => {
                flush(&mut literal, &mut elements);
                let inside: String = rest.by_ref().take_while(|next| *next != '}').collect();
                elements.push(run_of(&inside)?);
            }
            '[' => {
                flush(&mut literal, &mut elements);
                let inside: String = rest.by_ref().take_while(|next| *next != ']').collect();
                elements.push(Element::Run {
                    class: Class::single(inside.as_bytes()),
                    least: 1,
                    most: Some(1),
                });
            }
            '<' => {
                let [Element::Run { class, least, most: Some(most) }] = elements.as_slice() else {
                    return Err("before `<` stands one bounded run".to_owned());
                };
                if *most > LONGEST_LOOKBACK || !class.within(Class::TOKEN) || !literal.is_empty() {
                    return Err("what stands before `<` is too long or too wide".to_owned());
                }
                before = Some((*class, *least, *most));
                elements.clear();
            }
            plain if plain.is_ascii_graphic() => literal.extend(u8::try_from(plain)),
            other => return Err(format!("`{other}` cannot stand in a pattern")),
        }
    }
    flush(&mut literal, &mut elements);
    Ok(Shape {
        id: id.to_owned(),
        before,
        elements,
        left: Left::Word,
        distinct: true,
        mixed: false,
        has: None,
        lines: false,
        yes: Vec::new(),
        not: Vec::new(),
    })
}

fn flush(literal: &mut Vec<u8>, elements: &mut Vec<Element>) {
    if !literal.is_empty() {
        elements.push(Element::Literal(std::mem::take(literal)));
    }
}

/// `a36`, `a36+` or `a20-40`.
fn run_of(text: &str) -> Result<Element, String> {
    let wrong = || format!("`{{{text}}}` is no run");
    let mut characters = text.chars();
    let class = characters.next().and_then(Class::named).ok_or_else(wrong)?;
    let length = characters.as_str();
    let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
    let (least, most) = if let Some(least) = length.strip_suffix('+') {
        (number(least)?, None)
    } else if let Some((least, most)) = length.split_once('-') {
        (number(least)?, Some(number(most)?))
    } else {
        (number(length)?, Some(number(length)?))
    };
    if least == 0 || most.is_some_and(|most| most < least) {
        return Err(wrong());
    }
    Ok(Element::Run { class, least, most })
}

impl Shape {
    /// The first bytes it can begin with.
    pub(super) fn first_bytes(&self) -> Result<Vec<u32>, RuleError> {
        let wrong = |what: &str| RuleError { rule: self.id.clone(), what: what.to_owned() };
        let mut sets: Vec<Class> = Vec::new();
        for element in &self.elements {
            match element {
                Element::Literal(bytes) => sets.extend(bytes.iter().map(|byte| Class::single(&[*byte]))),
                Element::Run { class, least, most } => {
                    sets.extend(std::iter::repeat_n(*class, *least));
                    if *most != Some(*least) {
                        break;
                    }
                }
            }
        }
        let [first, second, third, ..] = sets.as_slice() else { return Err(wrong("it is too short")) };
        let mut keys = Vec::new();
        for a in first.bytes() {
            for b in second.bytes() {
                for c in third.bytes() {
                    keys.push(filter::key([a, b, c]));
                }
            }
            if keys.len() > MOST_FIRST {
                return Err(wrong("it can begin in too many ways"));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// Whether the shape is at `at`; nothing before `floor` may be part of it.
    pub(super) fn find(&self, hay: Hay<'_>, at: usize, floor: usize, rule: usize) -> Match {
        let Some(from) = self.begins(hay, at, floor) else { return Match::No };
        let mut cursor = at;
        let mut then = Then::Search;
        let crowded =
            from.checked_sub(1).and_then(|before| hay.bytes.get(before)).is_some_and(|byte| CROWD.has(*byte));
        for (index, element) in self.elements.iter().enumerate() {
            let last = index + 1 == self.elements.len();
            match element {
                Element::Literal(bytes) => {
                    for byte in bytes {
                        match hay.at(cursor) {
                            Peek::Byte(found) if found == *byte => cursor += 1,
                            Peek::Byte(_) | Peek::End => return Match::No,
                            Peek::Unknown => return Match::Wait,
                        }
                    }
                }
                Element::Run { class, least, most } => {
                    let look = match most {
                        Some(most) if last => most + 1,
                        Some(most) => *most,
                        None if last => (*least).max(LOOK),
                        None => MOST_INSIDE,
                    };
                    let look = if crowded && !last { look.min(MOST_CROWDED) } else { look };
                    let length = match hay.run(cursor, *class, look) {
                        Run::Unknown => return Match::Wait,
                        Run::Ended(length) => length,
                        Run::Longer => look,
                    };
                    if length < *least || most.is_some_and(|most| length > most) {
                        return Match::No;
                    }
                    cursor += length;
                    if last && most.is_none() {
                        then = Then::Drop(*class);
                    } else if last {
                        // A key of fixed length that goes on as a word is another thing.
                        match hay.at(cursor) {
                            Peek::Byte(next) if next.is_ascii_alphanumeric() => return Match::No,
                            Peek::Byte(_) | Peek::End => {}
                            Peek::Unknown => return Match::Wait,
                        }
                    }
                }
            }
        }
        if !self.plausible(hay.slice(from, cursor)) {
            return Match::No;
        }
        let then = if self.lines { Then::Lines(cursor - from) } else { then };
        Match::Found(Hit { from, to: cursor, rule, then })
    }

    fn begins(&self, hay: Hay<'_>, at: usize, floor: usize) -> Option<usize> {
        let may = |from: usize| self.left == Left::Anywhere || from == floor || hay.word_begins(from);
        let Some((class, least, most)) = self.before else { return may(at).then_some(at) };
        let run = hay.run_before(at, floor, class, most);
        // The longest that is a word of its own: a colour sequence before it is made of the same characters.
        (least..=run).rev().map(|length| at - length).find(|from| may(*from))
    }

    fn plausible(&self, found: &[u8]) -> bool {
        let literal = match self.elements.first() {
            Some(Element::Literal(bytes)) if self.before.is_none() => bytes.len(),
            Some(Element::Literal(_) | Element::Run { .. }) | None => 0,
        };
        let body = found.get(literal..).unwrap_or_default();
        let body = body.get(..LOOK.min(body.len())).unwrap_or_default();
        if self.distinct && distinct(body) < DISTINCT {
            return false;
        }
        let kinds: [fn(&u8) -> bool; 3] =
            [u8::is_ascii_digit, u8::is_ascii_uppercase, u8::is_ascii_lowercase];
        if self.mixed && kinds.iter().filter(|kind| body.iter().any(kind)).count() < 2 {
            return false;
        }
        self.has.as_ref().is_none_or(|text| found.windows(text.len()).any(|window| window == text.as_slice()))
    }

    /// Lets go of the examples once they are proven.
    pub(super) fn forget_examples(&mut self) {
        self.yes = Vec::new();
        self.not = Vec::new();
    }

    /// The examples: those it must find, and those nothing may find.
    pub(super) fn examples(&self) -> (&[String], &[String]) {
        (&self.yes, &self.not)
    }
}

/// Different bytes in a text.
pub(super) fn distinct(bytes: &[u8]) -> usize {
    let mut seen = 0_u128;
    let mut others = 0;
    for byte in bytes {
        match byte {
            0..128 => seen |= 1 << (byte & 127),
            128.. => others = 1,
        }
    }
    seen.count_ones() as usize + others
}

const _: () = assert!(WIDTH == 3, "first_bytes makes keys of three");
