//! Answers the system calls that the filter of a payload refused, and tells which they were.
//!
//! Each is answered with the errno of its rule and never let through: init looks at numbers in registers only, not at
//! memory, which another thread could change meanwhile. Telling never blocks and has bounds; answering has none, because
//! a call that is not answered waits. When init ends the kernel answers ENOSYS.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fault::fault;
use super::seccomp::{Above, Call, PayloadFilter};
use crate::sys;
use crate::wire::{Refusal, WallFault};

/// Most kinds of refusals told of one call. Prevents a call from filling the supervisor's memory with its tries.
const MOST_TOLD: usize = 20;
/// After so many a call's refusals are answered only. Prevents a loop that varies its arguments from costing more than
/// the answers.
const MOST_LOOKED_AT: u32 = 10_000;
/// Most answered before init looks at its other business. Prevents many threads from keeping it from reaping.
const AT_ONCE: usize = 64;

/// The listener of one call.
#[derive(Debug)]
pub(super) struct Refusals {
    /// `None` once nobody is left who could be refused.
    listener: Option<OwnedFd>,
    above: Above,
    told: HashSet<Refusal>,
    answered: u32,
}

impl Refusals {
    pub(super) fn new(listener: OwnedFd, above: Above) -> Self {
        // Linux 6.6 wakes both sides on one processor, which halves the wait. Older kernels have no such flag.
        let _ = sys::wake_at_once(listener.as_fd());
        Self { listener: Some(listener), above, told: HashSet::new(), answered: 0 }
    }

    /// To poll for POLLIN before [`Refusals::answer`].
    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Answers what waits, without waiting itself. Returns what has not been told yet.
    pub(super) fn answer(&mut self, filter: &PayloadFilter) -> Result<Vec<Refusal>, WallFault> {
        self.answer_at_most(AT_ONCE, filter)
    }

    /// Answers one trial of a payload that has said nothing since it waits for the answer. A second one could be its
    /// program's first: once answered, nothing stops it from becoming that.
    pub(super) fn answer_trial(&mut self, filter: &PayloadFilter) -> Result<(), WallFault> {
        self.answer_at_most(1, filter).map(drop)
    }

    fn answer_at_most(&mut self, most: usize, filter: &PayloadFilter) -> Result<Vec<Refusal>, WallFault> {
        let mut news = Vec::new();
        for _ in 0..most {
            let Some(listener) = &self.listener else { break };
            match waiting(listener.as_fd())? {
                Waiting::Nothing => break,
                Waiting::NoneLeft => {
                    self.listener = None;
                    break;
                }
                Waiting::Call => {}
            }
            let notice = match sys::next_refused(listener.as_fd()) {
                Ok(notice) => notice,
                // It was killed meanwhile.
                Err(Errno::ENOENT | Errno::EINTR) => continue,
                Err(errno) => return Err(fault("hear of a refused system call", errno)),
            };
            let call = Call {
                architecture: notice.architecture,
                number: notice.number,
                arguments: notice.arguments,
            };
            let (errno, refusal) = filter.refusal(&call, &self.above);
            match sys::answer_refused(listener.as_fd(), notice.id, errno) {
                Ok(()) | Err(Errno::ENOENT | Errno::EINTR | Errno::EINPROGRESS) => {}
                Err(errno) => return Err(fault("answer a refused system call", errno)),
            }
            self.answered = self.answered.saturating_add(1);
            if self.answered <= MOST_LOOKED_AT
                && self.told.len() < MOST_TOLD
                && let Some(refusal) = refusal
                && self.told.insert(refusal.clone())
            {
                news.push(refusal);
            }
        }
        Ok(news)
    }

    /// Forgets what was refused so far: our own trials before the program starts are not the program's.
    pub(super) fn forget(&mut self) {
        self.told.clear();
        self.answered = 0;
    }
}

enum Waiting {
    Call,
    Nothing,
    NoneLeft,
}

/// Receiving would block where nothing waits, so the kernel is asked first. We are the only ones who receive.
fn waiting(listener: BorrowedFd<'_>) -> Result<Waiting, WallFault> {
    let mut watched = [PollFd::new(listener, PollFlags::POLLIN)];
    match poll(&mut watched, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Waiting::Nothing),
        Ok(_) => {}
        Err(errno) => return Err(fault("wait for refused system calls", errno)),
    }
    let seen = watched.first().and_then(PollFd::revents).unwrap_or(PollFlags::empty());
    if seen.contains(PollFlags::POLLIN) { Ok(Waiting::Call) } else { Ok(Waiting::NoneLeft) }
}
