//! Keeps the whole output of one call in a file of the workspace, through the files worker, as a pure state machine.
//!
//! It writes nothing itself: the supervisor opens no path of a workspace. The file is a service, not a promise: when
//! the worker makes no progress it is given up and the result does not name it.

use std::time::{Duration, Instant};

use crate::wire::{FilesResult, FilesWork};

/// Output that fits a result needs no file.
pub(crate) const THRESHOLD: u64 = oxibot_proto::message::MAX_OUTPUT as u64;
/// Most bytes kept of one call.
const MAX_KEPT: u64 = 16 * 1024 * 1024;
/// Bytes that may wait for the worker. Above it the call's pipe is not read, which slows the program, not us.
const HIGH_WATER: usize = 256 * 1024;
/// Bytes of one write request.
const CHUNK: usize = 128 * 1024;
/// Without progress for this long the file is given up, so that a stuck disk does not stop the call.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not worth a file yet.
    Small,
    /// To be opened.
    Wanted,
    /// One request is with the worker.
    Busy {
        closing: bool,
        opening: bool,
    },
    /// Open, nothing with the worker.
    Open,
    Closed,
    GivenUp,
}

/// The whole output of one call on its way into a file.
#[derive(Debug)]
pub(crate) struct Spill {
    name: String,
    pending: Vec<u8>,
    kept: u64,
    seen: u64,
    state: State,
    ended: bool,
    since: Instant,
}

impl Spill {
    /// For the call with this id.
    pub(crate) fn new(name: String, now: Instant) -> Self {
        Self { name, pending: Vec::new(), kept: 0, seen: 0, state: State::Small, ended: false, since: now }
    }

    /// Takes output as it comes; beyond what is kept it is only counted.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Instant) {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if matches!(self.state, State::GivenUp | State::Closed) {
            return;
        }
        let room = usize::try_from(MAX_KEPT - self.kept).unwrap_or(usize::MAX).min(bytes.len());
        let taken = bytes.get(..room).unwrap_or_default();
        if self.pending.is_empty() {
            self.since = now;
        }
        self.pending.extend_from_slice(taken);
        self.kept += taken.len() as u64;
        if self.state == State::Small && self.seen > THRESHOLD {
            self.state = State::Wanted;
            self.since = now;
        }
    }

    /// No more output will come.
    pub(crate) fn end(&mut self, now: Instant) {
        self.ended = true;
        self.since = now;
    }

    /// Whether the call's pipe should rest until the worker has caught up.
    pub(crate) fn full(&self) -> bool {
        self.pending.len() >= HIGH_WATER && !matches!(self.state, State::GivenUp | State::Closed)
    }

    /// The next request for the worker, if one is due now.
    pub(crate) fn next(&mut self) -> Option<FilesWork> {
        match self.state {
            State::Wanted => {
                self.state = State::Busy { closing: false, opening: true };
                Some(FilesWork::SpillOpen { name: self.name.clone() })
            }
            State::Open if !self.pending.is_empty() => {
                let rest = self.pending.split_off(CHUNK.min(self.pending.len()));
                let data = std::mem::replace(&mut self.pending, rest);
                self.state = State::Busy { closing: false, opening: false };
                Some(FilesWork::SpillWrite { name: self.name.clone(), data })
            }
            State::Open if self.ended => {
                self.state = State::Busy { closing: true, opening: false };
                Some(FilesWork::SpillClose { name: self.name.clone() })
            }
            State::Small | State::Busy { .. } | State::Open | State::Closed | State::GivenUp => None,
        }
    }

    /// The worker answered the last request; `None` when it died.
    pub(crate) fn answered(&mut self, result: Option<&FilesResult>, now: Instant) {
        self.since = now;
        let State::Busy { closing, .. } = self.state else { return };
        match result {
            Some(FilesResult::Done) if closing => self.state = State::Closed,
            Some(FilesResult::Done) => self.state = State::Open,
            Some(
                FilesResult::Text { .. }
                | FilesResult::Bytes(_)
                | FilesResult::Size(_)
                | FilesResult::Notes(_)
                | FilesResult::Denied(_)
                | FilesResult::Failed(_),
            )
            | None => self.give_up(),
        }
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Wanted | State::Busy { .. } => Some(self.since + PATIENCE),
            State::Small | State::Open | State::Closed | State::GivenUp => None,
        }
    }

    /// Time passed. A request to close a file that is given up is returned.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<FilesWork> {
        self.due().filter(|due| now >= *due).and_then(|_| self.abandon())
    }

    /// Gives the file up now.
    pub(crate) fn abandon(&mut self) -> Option<FilesWork> {
        let touched = matches!(self.state, State::Busy { .. } | State::Open);
        self.give_up();
        touched.then(|| FilesWork::SpillClose { name: self.name.clone() })
    }

    fn give_up(&mut self) {
        self.state = State::GivenUp;
        self.pending = Vec::new();
    }

    /// Whether nothing more is to be waited for.
    pub(crate) fn settled(&self) -> bool {
        matches!(self.state, State::Small | State::Closed | State::GivenUp)
    }

    /// Workspace-relative name of the file, once it is whole.
    pub(crate) fn file(&self) -> Option<String> {
        (self.state == State::Closed).then(|| format!(".oxibot-output/{}.txt", self.name))
    }

    /// What the result should say about the file.
    pub(crate) fn note(&self) -> Option<String> {
        match self.state {
            State::GivenUp => Some("the whole output could not be kept in a file".to_owned()),
            State::Closed if self.seen > self.kept => {
                Some(format!("the file holds the first {} of {} bytes", self.kept, self.seen))
            }
            State::Small | State::Wanted | State::Busy { .. } | State::Open | State::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(spill: &mut Spill, now: Instant) -> u64 {
        let mut written = 0;
        while let Some(work) = spill.next() {
            if let FilesWork::SpillWrite { data, .. } = &work {
                assert!(data.len() <= CHUNK);
                written += data.len() as u64;
            }
            spill.answered(Some(&FilesResult::Done), now);
        }
        written
    }

    #[test]
    fn small_output_needs_no_file() {
        let now = Instant::now();
        let mut spill = Spill::new("a".into(), now);
        spill.push(&[1; 10_240], now);
        spill.end(now);
        assert!(spill.next().is_none() && spill.settled());
        assert_eq!((spill.file(), spill.note()), (None, None));
    }

    #[test]
    fn larger_output_is_kept_from_its_first_byte() {
        let now = Instant::now();
        let mut spill = Spill::new("a".into(), now);
        spill.push(&[1; 10_000], now);
        spill.push(&[1; 10_000], now);
        assert_eq!(drive(&mut spill, now), 20_000);
        spill.end(now);
        assert!(!spill.settled());
        drive(&mut spill, now);
        assert_eq!(spill.file().as_deref(), Some(".oxibot-output/a.txt"));
    }

    #[test]
    fn flood_is_kept_to_its_limit_and_held_back() {
        let now = Instant::now();
        let mut spill = Spill::new("a".into(), now);
        let mut written = 0;
        for _ in 0..1000 {
            spill.push(&[0; 65_536], now);
            if spill.full() {
                written += drive(&mut spill, now);
            }
            assert!(spill.pending.len() < 2 * HIGH_WATER);
        }
        spill.end(now);
        written += drive(&mut spill, now);
        assert_eq!(written, MAX_KEPT);
        assert!(spill.note().unwrap().contains("of 65536000 bytes"));
    }

    #[test]
    fn worker_without_progress_is_not_waited_for() {
        let now = Instant::now();
        let mut spill = Spill::new("a".into(), now);
        spill.push(&[0; 300_000], now);
        assert!(spill.next().is_some() && spill.full());
        assert!(spill.tick(now).is_none());
        assert!(spill.tick(spill.due().unwrap()).is_some());
        assert!(spill.settled() && !spill.full() && spill.file().is_none());
        assert!(spill.note().is_some());
    }
}
