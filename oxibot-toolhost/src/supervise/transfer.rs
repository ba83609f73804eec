//! A file on its way into or out of a workspace, as a pure state machine between main and the bulk worker.
//!
//! At most a window of chunks is held, whatever size was announced. Paths are not looked at: the worker resolves them
//! beneath the workspace.

use std::time::{Duration, Instant};

use oxibot_proto::message::{
    CHUNK_WINDOW, CallNumber, FileChunk, MAX_CHUNK, MAX_TRANSFER, Outcome, ToMain, TransferEnd,
};

use crate::wire::{FilesResult, FilesWork};

/// A transfer without progress for this long is given up. Prevents a peer from holding slots for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which way, and how far.
#[derive(Debug)]
enum Way {
    In { size: u64, received: u64, unanswered: usize, closing: bool },
    Out { size: Option<u64>, sent: u64, unanswered: usize, reading: bool },
}

/// One transfer.
#[derive(Debug)]
pub(crate) struct Transfer {
    number: CallNumber,
    /// Number of the request that opened it: its name at the worker.
    handle: u64,
    way: Way,
    opened: bool,
    since: Instant,
}

/// What has to be done.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// Requests for the worker.
    pub(crate) work: Vec<FilesWork>,
    /// Messages for main.
    pub(crate) messages: Vec<ToMain>,
    /// The transfer is over; `messages` holds its end.
    pub(crate) over: bool,
}

/// The peer sent what it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

impl Transfer {
    /// Into the workspace. The caller queues the returned work under `handle`.
    pub(crate) fn put(
        number: CallNumber,
        handle: u64,
        path: String,
        size: u64,
        now: Instant,
    ) -> Result<(Self, FilesWork), Outcome> {
        if size > MAX_TRANSFER {
            let message = format!("cannot take a file of {size} bytes: the limit is {MAX_TRANSFER}");
            return Err(Outcome::Failed { message });
        }
        let way = Way::In { size, received: 0, unanswered: 0, closing: false };
        Ok((Self { number, handle, way, opened: false, since: now }, FilesWork::PutOpen { path, size }))
    }

    /// Out of the workspace.
    pub(crate) fn get(
        number: CallNumber,
        handle: u64,
        path: String,
        max_size: u64,
        now: Instant,
    ) -> (Self, FilesWork) {
        let way = Way::Out { size: None, sent: 0, unanswered: 0, reading: false };
        let max_size = max_size.min(MAX_TRANSFER);
        (Self { number, handle, way, opened: false, since: now }, FilesWork::GetOpen { path, max_size })
    }

    /// Its number on its connection.
    pub(crate) fn number(&self) -> CallNumber {
        self.number
    }

    /// When to give up.
    pub(crate) fn due(&self) -> Instant {
        self.since + PATIENCE
    }

    /// The next piece of a file on its way in.
    pub(crate) fn chunk(&mut self, chunk: FileChunk, now: Instant) -> Result<Steps, Broken> {
        self.since = now;
        let Way::In { size, received, unanswered, closing } = &mut self.way else { return Err(Broken) };
        let length = chunk.data.len() as u64;
        let fits = chunk.offset == *received
            && length > 0
            && chunk.data.len() <= MAX_CHUNK
            && received.saturating_add(length) <= *size;
        if !fits || *unanswered >= CHUNK_WINDOW || *closing {
            return Err(Broken);
        }
        *received += length;
        *unanswered += 1;
        let work = FilesWork::PutWrite { transfer: self.handle, data: chunk.data };
        Ok(Steps { work: vec![work], ..Steps::default() })
    }

    /// The peer took a chunk of a file on its way out.
    pub(crate) fn taken(&mut self, now: Instant) -> Steps {
        self.since = now;
        match &mut self.way {
            Way::In { .. } => Steps::default(),
            Way::Out { unanswered, .. } => {
                *unanswered = unanswered.saturating_sub(1);
                self.read_on()
            }
        }
    }

    fn read_on(&mut self) -> Steps {
        let handle = self.handle;
        let Way::Out { size: Some(size), sent, unanswered, reading } = &mut self.way else {
            return Steps::default();
        };
        if *sent >= *size {
            let whole = *size;
            return self.end(Outcome::Completed, whole, FilesWork::GetClose { transfer: handle });
        }
        if *reading || *unanswered >= CHUNK_WINDOW {
            return Steps::default();
        }
        *reading = true;
        let left = usize::try_from(*size - *sent).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
        let length = u32::try_from(left).unwrap_or_default();
        let work = vec![FilesWork::GetRead { transfer: handle, offset: *sent, length }];
        Steps { work, ..Steps::default() }
    }

    fn end(&self, outcome: Outcome, size: u64, last: FilesWork) -> Steps {
        let end = ToMain::TransferEnd(TransferEnd { call: self.number, outcome, size });
        Steps { work: vec![last], messages: vec![end], over: true }
    }

    /// Ends it early.
    pub(crate) fn abort(&self, outcome: Outcome) -> Steps {
        let last = match self.way {
            Way::In { .. } => FilesWork::PutAbort { transfer: self.handle },
            Way::Out { .. } => FilesWork::GetClose { transfer: self.handle },
        };
        self.end(outcome, 0, last)
    }

    /// The worker answered the oldest request; `None` when it died.
    pub(crate) fn answered(&mut self, result: Option<FilesResult>, now: Instant) -> Steps {
        self.since = now;
        let unexpected =
            || Outcome::Internal { message: "the files worker gave an unexpected answer".to_owned() };
        match result {
            None => self.abort(Outcome::Internal { message: "the files worker ended".to_owned() }),
            Some(FilesResult::Denied(denial)) => self.abort(Outcome::Denied(denial)),
            Some(FilesResult::Failed(message)) => self.abort(Outcome::Failed { message }),
            Some(FilesResult::Done) => self.done().unwrap_or_else(|| self.abort(unexpected())),
            Some(FilesResult::Size(size)) => match &mut self.way {
                Way::Out { size: known @ None, .. } if size <= MAX_TRANSFER => {
                    *known = Some(size);
                    self.read_on()
                }
                Way::Out { .. } | Way::In { .. } => self.abort(unexpected()),
            },
            Some(FilesResult::Bytes(data)) => self.bytes(data).unwrap_or_else(|| {
                self.abort(Outcome::Failed {
                    message: "the file changed while it was read; try again".to_owned(),
                })
            }),
            Some(FilesResult::Text { .. } | FilesResult::Notes(_)) => self.abort(unexpected()),
        }
    }

    fn done(&mut self) -> Option<Steps> {
        let Way::In { size, received, unanswered, closing } = &mut self.way else { return None };
        let mut steps = Steps::default();
        if *closing {
            let end = TransferEnd { call: self.number, outcome: Outcome::Completed, size: *size };
            steps.messages.push(ToMain::TransferEnd(end));
            steps.over = true;
            return Some(steps);
        }
        if self.opened {
            *unanswered = unanswered.saturating_sub(1);
            steps.messages.push(ToMain::PutProgress(self.number));
        }
        self.opened = true;
        if *unanswered == 0 && received == size {
            *closing = true;
            steps.work.push(FilesWork::PutClose { transfer: self.handle });
        }
        Some(steps)
    }

    fn bytes(&mut self, data: Vec<u8>) -> Option<Steps> {
        let Way::Out { size: Some(size), sent, unanswered, reading } = &mut self.way else { return None };
        let length = data.len() as u64;
        if data.is_empty() || data.len() > MAX_CHUNK || sent.saturating_add(length) > *size || !*reading {
            return None;
        }
        let chunk = ToMain::GetChunk(FileChunk { call: self.number, offset: *sent, data });
        *sent += length;
        *unanswered += 1;
        *reading = false;
        let mut steps = self.read_on();
        steps.messages.insert(0, chunk);
        Some(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(offset: u64, length: usize) -> FileChunk {
        FileChunk { call: CallNumber(1), offset, data: vec![0; length] }
    }

    fn put(size: u64) -> Transfer {
        Transfer::put(CallNumber(1), 9, "a".into(), size, Instant::now()).unwrap().0
    }

    #[test]
    fn file_goes_in_piece_by_piece() {
        let now = Instant::now();
        let mut transfer = put(5);
        assert!(transfer.answered(Some(FilesResult::Done), now).work.is_empty());
        assert!(transfer.chunk(chunk(0, 3), now).is_ok());
        assert!(transfer.chunk(chunk(3, 2), now).is_ok());
        let steps = transfer.answered(Some(FilesResult::Done), now);
        assert_eq!(steps.messages, [ToMain::PutProgress(CallNumber(1))]);
        let steps = transfer.answered(Some(FilesResult::Done), now);
        assert_eq!(steps.work, [FilesWork::PutClose { transfer: 9 }]);
        assert!(transfer.answered(Some(FilesResult::Done), now).over);
    }

    #[test]
    fn empty_file_is_closed_at_once() {
        let steps = put(0).answered(Some(FilesResult::Done), Instant::now());
        assert_eq!(steps.work, [FilesWork::PutClose { transfer: 9 }]);
    }

    #[test]
    fn chunks_out_of_place_too_many_or_too_large_break_the_protocol() {
        let now = Instant::now();
        assert!(put(9).chunk(chunk(1, 1), now).is_err());
        assert!(put(9).chunk(chunk(0, 10), now).is_err());
        assert!(put(9).chunk(chunk(0, 0), now).is_err());
        assert!(put(MAX_TRANSFER).chunk(chunk(0, MAX_CHUNK + 1), now).is_err());
        let mut transfer = put(99);
        for offset in 0..CHUNK_WINDOW as u64 {
            assert!(transfer.chunk(chunk(offset, 1), now).is_ok());
        }
        assert!(transfer.chunk(chunk(CHUNK_WINDOW as u64, 1), now).is_err());
        assert!(Transfer::put(CallNumber(1), 9, "a".into(), MAX_TRANSFER + 1, now).is_err());
    }

    #[test]
    fn file_goes_out_within_the_window() {
        let now = Instant::now();
        let (mut transfer, _) = Transfer::get(CallNumber(1), 9, "a".into(), u64::MAX, now);
        let whole = 6 * MAX_CHUNK as u64;
        let mut steps = transfer.answered(Some(FilesResult::Size(whole)), now);
        for _ in 0..CHUNK_WINDOW {
            assert_eq!(steps.work.len(), 1);
            steps = transfer.answered(Some(FilesResult::Bytes(vec![1; MAX_CHUNK])), now);
            assert_eq!(steps.messages.len(), 1);
        }
        assert!(steps.work.is_empty(), "the window is full");
        assert_eq!(transfer.taken(now).work.len(), 1);
        assert!(!transfer.answered(Some(FilesResult::Bytes(vec![1; MAX_CHUNK])), now).over);
        assert_eq!(transfer.taken(now).work.len(), 1);
        let steps = transfer.answered(Some(FilesResult::Bytes(vec![1; MAX_CHUNK])), now);
        assert!(steps.over);
        assert_eq!(steps.messages.len(), 2);
    }

    #[test]
    fn file_that_shrinks_or_a_lying_worker_ends_it() {
        let now = Instant::now();
        for bad in [Some(FilesResult::Bytes(vec![])), Some(FilesResult::Bytes(vec![0; 99])), None] {
            let (mut transfer, _) = Transfer::get(CallNumber(1), 9, "a".into(), 10, now);
            let _ = transfer.answered(Some(FilesResult::Size(10)), now);
            assert!(transfer.answered(bad, now).over);
        }
    }
}
