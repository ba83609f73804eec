//! Takes secrets out of text: known values in all their forms, and whatever has the shape of a key.
//!
//! Pure code: bytes in, bytes out, no file, no clock. A stream may be cut anywhere and gives the same text; what is kept
//! of it is bounded, and the cost is that of one pass. `shapes.rules` is the data, proven by its own examples when it is
//! loaded. What is taken out is replaced by `[redacted: NAME]`; everything else passes byte for byte.
//!
//! It is the last line, not the wall: a tool that means to hide a key can always write it in a way nobody recognises.
//! That no tool gets hold of OxiBot's own keys is the wall's work.

mod address;
mod assignment;
mod block;
mod class;
mod encode;
mod entropy;
mod filter;
mod hay;
mod known;
mod rule;
mod scan;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use self::filter::Filter;
use self::hay::{Hay, Hit, Match};
use self::known::Known;
use self::rule::Shape;
use self::scan::{Finder, Scanner};

pub use self::known::SHORTEST_KNOWN;
pub use self::rule::RuleError;

/// Characters of a run that are looked at to judge it; the rest of a longer one goes with it.
const LOOK: usize = 96;
/// Longest piece before the recognised place that can belong to a key.
const LONGEST_LOOKBACK: usize = 96;
/// Bytes kept before the current place: more than any rule looks back.
const CONTEXT: usize = 256;

const RULES: &str = include_str!("shapes.rules");

/// What is looked for at a place.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Shape(usize),
    Assignment,
    Address,
    Block,
}

/// All shapes, in the order of the file, and what is recognised by code.
#[derive(Clone)]
struct Shapes {
    shapes: Vec<Shape>,
    entries: Vec<Entry>,
    filter: Filter,
}

/// Numbers of the rules that are code.
const ASSIGNMENT: usize = usize::MAX;
const ADDRESS: usize = usize::MAX - 1;
const BLOCK: usize = usize::MAX - 2;

/// Takes secrets out of text. Cheap to clone. Prints none of what it knows.
#[derive(Clone)]
pub struct Redactor {
    shapes: Arc<Shapes>,
    known: Arc<Known>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Redactor")
    }
}

impl Redactor {
    /// With all shapes, and knowing no secret yet. Proves each rule by its examples.
    ///
    /// # Errors
    /// When a rule does not hold. Nothing may be shown then.
    pub fn load() -> Result<Self, RuleError> {
        let redactor = Self { shapes: Arc::new(Shapes::of(RULES)?), known: Arc::new(Known::none()) };
        redactor.prove()?;
        let mut shapes = Shapes::clone(&redactor.shapes);
        shapes.shapes.iter_mut().for_each(Shape::forget_examples);
        Ok(Self { shapes: Arc::new(shapes), ..redactor })
    }

    /// One that knows this secret too, by this name. Values shorter than [`SHORTEST_KNOWN`] are not looked for.
    #[must_use]
    pub fn knowing(&self, name: &str, value: &str) -> Self {
        let mut known = Known::clone(&self.known);
        known.learn(name, value);
        Self { shapes: Arc::clone(&self.shapes), known: Arc::new(known) }
    }

    /// A stream.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream { redactor: self.clone(), known: Scanner::new(), shapes: Scanner::new(), between: Vec::new() }
    }

    /// A whole text.
    #[must_use]
    pub fn bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if text.len() < filter::WIDTH {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut stream = self.stream();
        stream.push(text, &mut out);
        stream.finish(&mut out);
        if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
    }

    /// A whole text. What was text stays text: secrets begin and end between characters.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            }),
        }
    }

    /// The two ends of an output whose middle was left out: a known secret that the cut went through goes as well.
    #[must_use]
    pub fn ends(&self, head: &[u8], tail: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let begun = self.known.begun(head);
        let ending = self.known.ending(tail);
        let mut first = self.bytes(head.get(..head.len() - begun).unwrap_or_default()).into_owned();
        let mut last = Vec::new();
        if begun > 0 {
            first.extend_from_slice(CUT);
        }
        if ending > 0 {
            last.extend_from_slice(CUT);
        }
        last.extend_from_slice(&self.bytes(tail.get(ending..).unwrap_or_default()));
        (first, last)
    }

    /// Names of all rules.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.shapes.shapes.iter().map(|shape| shape.id.as_str())
    }

    fn prove(&self) -> Result<(), RuleError> {
        let mut out = Vec::new();
        for shape in &self.shapes.shapes {
            let wrong = |what: String| RuleError { rule: shape.id.clone(), what };
            let (yes, not) = shape.examples();
            if yes.is_empty() || not.is_empty() {
                return Err(wrong("it wants an example that matches and one that does not".to_owned()));
            }
            let mut redacted = |text: &str| {
                out.clear();
                let mut stream = self.stream();
                stream.push(text.as_bytes(), &mut out);
                stream.finish(&mut out);
                String::from_utf8_lossy(&out).into_owned()
            };
            for example in yes {
                let wanted = format!("[redacted: {}]", shape.id);
                let got = redacted(example);
                if got != wanted {
                    return Err(wrong(format!("of its example it leaves `{got}`")));
                }
            }
            for example in not {
                if redacted(example) != *example {
                    return Err(wrong(format!("it changes `{example}`")));
                }
            }
        }
        Ok(())
    }
}

/// Stands for what is left of a secret that was cut.
const CUT: &[u8] = b"[redacted: cut]";

impl Shapes {
    fn of(rules: &str) -> Result<Self, RuleError> {
        let shapes = rule::parse(rules)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys: Vec<(u32, u16)> = Vec::new();
        let mut add = |entry: Entry, first: Vec<u32>| {
            let index = u16::try_from(entries.len()).unwrap_or(u16::MAX);
            entries.push(entry);
            keys.extend(first.into_iter().map(|key| (key, index)));
        };
        let of = |anchors: &[&str]| {
            anchors
                .iter()
                .filter_map(|anchor| anchor.as_bytes().first_chunk().map(|first| filter::key(*first)))
                .collect()
        };
        for (index, shape) in shapes.iter().enumerate() {
            add(Entry::Shape(index), shape.first_bytes()?);
        }
        add(Entry::Block, of(block::ANCHORS));
        add(Entry::Address, of(&[address::ANCHOR]));
        add(Entry::Assignment, of(assignment::WORDS));
        Ok(Self { shapes, entries, filter: Filter::new(keys) })
    }
}

impl Shapes {
    /// A value that was found by its name is called by its shape if it has one.
    fn named(&self, hay: Hay<'_>, found: Match, floor: usize) -> Match {
        let Match::Found(hit) = found else { return found };
        for index in self.filter.candidates(hay.slice(hit.from, hit.from + filter::WIDTH)) {
            let Some(Entry::Shape(index)) = self.entries.get(usize::from(index)) else { continue };
            let Some(shape) = self.shapes.get(*index) else { continue };
            match shape.find(hay, hit.from, floor, *index) {
                Match::Wait => return Match::Wait,
                Match::Found(shape) if shape.from == hit.from && shape.to >= hit.to => {
                    return Match::Found(shape);
                }
                Match::Found(_) | Match::No => {}
            }
        }
        Match::Found(hit)
    }
}

impl Finder for Shapes {
    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn looks_back(&self) -> bool {
        true
    }

    /// Of several at one place the one that reaches furthest, of those the first of the file.
    fn find(&self, hay: Hay<'_>, at: usize, floor: usize) -> Match {
        let mut best: Option<Hit> = None;
        for index in self.filter.candidates(hay.slice(at, at + filter::WIDTH)) {
            let found = match self.entries.get(usize::from(index)) {
                Some(Entry::Shape(index)) => match self.shapes.get(*index) {
                    Some(shape) => shape.find(hay, at, floor, *index),
                    None => Match::No,
                },
                Some(Entry::Assignment) => {
                    self.named(hay, assignment::find(hay, at, floor, ASSIGNMENT), floor)
                }
                Some(Entry::Address) => address::find(hay, at, floor, ADDRESS),
                Some(Entry::Block) => block::find(hay, at, BLOCK),
                None => Match::No,
            };
            match found {
                Match::No => {}
                Match::Wait => return Match::Wait,
                Match::Found(hit) => {
                    if best.as_ref().is_none_or(|best| hit.to > best.to) {
                        best = Some(hit);
                    }
                }
            }
        }
        best.map_or(Match::No, Match::Found)
    }

    fn label(&self, rule: usize) -> &str {
        match rule {
            ASSIGNMENT => "secret",
            ADDRESS => "url-password",
            BLOCK => "private-key",
            shape => self.shapes.get(shape).map_or("key", |shape| shape.id.as_str()),
        }
    }
}

/// A stream that secrets are taken out of.
pub struct Stream {
    redactor: Redactor,
    known: Scanner,
    shapes: Scanner,
    between: Vec<u8>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Stream")
    }
}

impl Stream {
    /// Takes the next bytes and appends what can go out. The rest of a word may wait for its end.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if self.redactor.known.is_empty() {
            self.shapes.push(&*self.redactor.shapes, bytes, out);
            return;
        }
        self.between.clear();
        self.known.push(&*self.redactor.known, bytes, &mut self.between);
        self.shapes.push(&*self.redactor.shapes, &self.between, out);
    }

    /// What is left when the stream ends. The stream can be used anew after it.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.redactor.known.is_empty() {
            self.between.clear();
            self.known.finish(&*self.redactor.known, &mut self.between);
            self.shapes.push(&*self.redactor.shapes, &self.between, out);
        }
        self.shapes.finish(&*self.redactor.shapes, out);
    }

    /// Bytes kept at the moment.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.known.kept() + self.shapes.kept()
    }
}
