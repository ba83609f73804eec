//! Secrets that are known: their values, in every form they may be printed in.

use super::encode;
use super::filter::{self, Filter};
use super::hay::{Hay, Hit, Match, Then};
use super::scan::Finder;

/// Shortest value that is looked for. A shorter one would garble every text, and is no secret either.
pub const SHORTEST_KNOWN: usize = 6;
/// Shortest line of a secret of several lines, and shortest encoded form.
const SHORTEST_FORM: usize = 8;

/// Longest piece taken for one secret and what overlaps it. Prevents a secret that overlaps itself from holding a stream.
const LONGEST_CHAIN: usize = 16 * 1024;

/// A known secret and how it is called in its place.
#[derive(Clone)]
struct Needle {
    bytes: Vec<u8>,
    label: usize,
}

/// Known secrets. Prints none of them.
#[derive(Clone)]
pub(super) struct Known {
    needles: Vec<Needle>,
    labels: Vec<String>,
    filter: Filter,
}

impl Known {
    pub(super) fn none() -> Self {
        Self { needles: Vec::new(), labels: Vec::new(), filter: Filter::new(Vec::new()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// With another secret. One that is too short, or known already, changes nothing.
    pub(super) fn learn(&mut self, label: &str, value: &str) {
        let trimmed = value.trim();
        if trimmed.len() < SHORTEST_KNOWN
            || self.needles.iter().any(|needle| needle.bytes == trimmed.as_bytes())
        {
            return;
        }
        let index = self.labels.len();
        self.labels.push(label.to_owned());
        let mut found = encode::forms(trimmed.as_bytes());
        let lines = trimmed.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_FORM);
        if trimmed.contains('\n') {
            // The frame of a key is in every key.
            found
                .extend(lines.filter(|line| !line.starts_with("-----")).map(|line| line.as_bytes().to_vec()));
        }
        for bytes in found {
            let long_enough = bytes == trimmed.as_bytes() || bytes.len() >= SHORTEST_FORM;
            if long_enough && !self.needles.iter().any(|needle| needle.bytes == bytes) {
                self.needles.push(Needle { bytes, label: index });
            }
        }
        let entries = self.needles.iter().enumerate().filter_map(|(index, needle)| {
            Some((filter::key(*needle.bytes.first_chunk()?), u16::try_from(index).ok()?))
        });
        self.filter = Filter::new(entries.collect());
    }

    /// The longest secret at `at`.
    fn longest(&self, hay: Hay<'_>, at: usize) -> Match {
        let mut best: Option<(usize, usize)> = None;
        for index in self.filter.candidates(hay.slice(at, at + filter::WIDTH)) {
            let Some(needle) = self.needles.get(usize::from(index)) else { continue };
            let there = hay.slice(at, at + needle.bytes.len());
            if there.len() < needle.bytes.len() {
                if !hay.ended && needle.bytes.starts_with(there) {
                    return Match::Wait;
                }
            } else if there == needle.bytes && best.is_none_or(|(length, _)| length < there.len()) {
                best = Some((there.len(), needle.label));
            }
        }
        best.map_or(Match::No, |(length, rule)| {
            Match::Found(Hit { from: at, to: at + length, rule, then: Then::Search })
        })
    }

    /// How many bytes at the end of a text that was cut off may be the beginning of a secret.
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let longest = |needle: &Needle| {
            (SHORTEST_KNOWN..needle.bytes.len())
                .rev()
                .find(|length| needle.bytes.get(..*length).is_some_and(|start| text.ends_with(start)))
        };
        self.needles.iter().filter_map(longest).max().unwrap_or(0)
    }

    /// How many bytes at the start of such a text may be the end of one.
    pub(super) fn ending(&self, text: &[u8]) -> usize {
        let longest = |needle: &Needle| {
            let length = needle.bytes.len();
            (SHORTEST_KNOWN..length)
                .rev()
                .find(|rest| needle.bytes.get(length - rest..).is_some_and(|end| text.starts_with(end)))
        };
        self.needles.iter().filter_map(longest).max().unwrap_or(0)
    }
}

impl Finder for Known {
    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn looks_back(&self) -> bool {
        false
    }

    /// The secret at `at`, with all that overlap it: what is left of one that was cut would still tell much of it.
    fn find(&self, hay: Hay<'_>, at: usize, _floor: usize) -> Match {
        let mut hit = match self.longest(hay, at) {
            Match::Found(hit) => hit,
            other @ (Match::No | Match::Wait) => return other,
        };
        let mut inside = at + 1;
        while inside < hit.to && inside - at < LONGEST_CHAIN {
            match self.longest(hay, inside) {
                Match::Found(other) => hit.to = hit.to.max(other.to),
                Match::Wait => return Match::Wait,
                Match::No => {}
            }
            // What begins in the last two bytes needs bytes that are not there yet.
            if !hay.ended && inside + filter::WIDTH > hay.bytes.len() {
                return Match::Wait;
            }
            inside += 1;
        }
        Match::Found(hit)
    }

    fn label(&self, rule: usize) -> &str {
        self.labels.get(rule).map_or("secret", String::as_str)
    }
}
