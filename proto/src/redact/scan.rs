//! One pass over a stream: finds secrets, puts their names in their places, and lets everything else through.
//!
//! It keeps what may still become part of one, which is bounded, and decides only on bytes that were seen. The text
//! that comes out does therefore not depend on how the stream was cut.

use super::block::{self, Next};
use super::class::Class;
use super::filter::{Filter, WIDTH};
use super::hay::{Hay, Match, Then};
use super::{CONTEXT, LONGEST_LOOKBACK};

/// What is looked for.
pub(super) trait Finder {
    fn filter(&self) -> &Filter;
    /// Whether a hit may begin before the place where it was recognised.
    fn looks_back(&self) -> bool;
    /// What is at `at`, of which [`WIDTH`] bytes are there and the filter said yes. A hit begins at `floor` or after it.
    fn find(&self, hay: Hay<'_>, at: usize, floor: usize) -> Match;
    fn label(&self, rule: usize) -> &str;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Search,
    /// The rest of a run that was replaced.
    Drop(Class),
    /// A line of a private key; how wide it is so far, and how wide the first one was.
    Lines {
        run: usize,
        width: Option<usize>,
    },
}

/// Where a pass stands.
pub(super) struct Scanner {
    /// Some bytes already let through, as context, then those not decided yet.
    buffer: Vec<u8>,
    /// Bytes of the buffer that were let through or replaced.
    emitted: usize,
    /// Bytes of the buffer that were looked at.
    scanned: usize,
    /// Where the last hit ended: nothing before it is looked at again.
    floor: usize,
    mode: Mode,
}

impl Scanner {
    pub(super) const fn new() -> Self {
        Self { buffer: Vec::new(), emitted: 0, scanned: 0, floor: 0, mode: Mode::Search }
    }

    /// Takes the next bytes and appends to `out` what is decided.
    pub(super) fn push(&mut self, finder: &impl Finder, bytes: &[u8], out: &mut Vec<u8>) {
        self.buffer.extend_from_slice(bytes);
        self.pass(finder, false, out);
        self.forget();
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self, finder: &impl Finder, out: &mut Vec<u8>) {
        self.pass(finder, true, out);
        *self = Self::new();
    }

    fn pass(&mut self, finder: &impl Finder, ended: bool, out: &mut Vec<u8>) {
        loop {
            let hay = Hay { bytes: &self.buffer, ended };
            match self.mode {
                Mode::Drop(class) => {
                    let rest = hay.slice(self.scanned, usize::MAX);
                    let length = rest.iter().take_while(|byte| class.has(**byte)).count();
                    self.skip_to(self.scanned + length);
                    if self.scanned == self.buffer.len() {
                        return;
                    }
                    self.mode = Mode::Search;
                }
                Mode::Lines { run, width } => {
                    let rest = hay.slice(self.scanned, usize::MAX);
                    let length = rest.iter().take_while(|byte| Class::BASE64.has(**byte)).count();
                    let run = run + length;
                    let at = self.scanned + length;
                    self.skip_to(at);
                    self.mode = Mode::Lines { run, width };
                    let hay = Hay { bytes: &self.buffer, ended };
                    if at == self.buffer.len() {
                        return;
                    }
                    let width = width.unwrap_or(run);
                    match block::next(hay, at, width) {
                        Next::Wait => return,
                        Next::Line(start) => {
                            self.skip_to(start);
                            self.mode = Mode::Lines { run: 0, width: Some(width) };
                        }
                        Next::Over(after) => {
                            self.skip_to(after);
                            self.mode = Mode::Search;
                        }
                    }
                }
                Mode::Search => match self.search(finder, ended) {
                    Some((hit, label)) => {
                        out.extend_from_slice(self.buffer.get(self.emitted..hit.from).unwrap_or_default());
                        out.extend_from_slice(b"[redacted: ");
                        out.extend_from_slice(label.as_bytes());
                        out.push(b']');
                        self.skip_to(hit.to);
                        self.mode = match hit.then {
                            Then::Search => Mode::Search,
                            Then::Drop(class) => Mode::Drop(class),
                            Then::Lines(run) => Mode::Lines { run, width: None },
                        };
                    }
                    None => {
                        let held = if ended { self.buffer.len() } else { self.held(finder) };
                        out.extend_from_slice(self.buffer.get(self.emitted..held).unwrap_or_default());
                        self.emitted = self.emitted.max(held);
                        return;
                    }
                },
            }
        }
    }

    /// The next hit; without one everything was looked at that can be decided.
    fn search<'f>(&mut self, finder: &'f impl Finder, ended: bool) -> Option<(super::hay::Hit, &'f str)> {
        let hay = Hay { bytes: &self.buffer, ended };
        while let Some(at) = finder.filter().next(&self.buffer, self.scanned) {
            self.scanned = at;
            match finder.find(hay, at, self.floor) {
                Match::No => self.scanned = at + 1,
                Match::Wait => return None,
                Match::Found(hit) => {
                    let label = finder.label(hit.rule);
                    return Some((hit, label));
                }
            }
        }
        self.scanned = self.scanned.max((self.buffer.len() + 1).saturating_sub(WIDTH));
        None
    }

    fn skip_to(&mut self, at: usize) {
        self.emitted = at;
        self.scanned = at;
        self.floor = at;
    }

    /// Up to where bytes can go out: what comes may still reach back into the word before it.
    fn held(&self, finder: &impl Finder) -> usize {
        let looked = self.scanned.min(self.buffer.len());
        if !finder.looks_back() {
            return looked;
        }
        let hay = Hay { bytes: &self.buffer, ended: false };
        // One byte more than any lookback: whether a run is too long must be seen as well.
        looked - hay.run_before(looked, self.emitted, Class::TOKEN, LONGEST_LOOKBACK)
    }

    /// Lets go of what no decision needs any more.
    fn forget(&mut self) {
        let keep = self.emitted.saturating_sub(CONTEXT);
        // Moving bytes for every few that arrive would cost more than keeping them.
        if keep >= CONTEXT {
            self.buffer.drain(..keep);
            self.emitted -= keep;
            self.scanned -= keep;
            self.floor = self.floor.saturating_sub(keep);
        }
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.buffer.len()
    }
}
