//! What init does while its call runs: reaps whatever ends, answers what the filter refused, counts where nobody else does.
//!
//! Nothing here waits for anything but news. What happens once the payload has ended is in `init`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::Counter;
use super::channel::send_if_room;
use super::family;
use super::fault::{Step, fault};
use super::init::Ground;
use super::orders::Plan;
use super::refusals::Refusals;
use crate::wire::{FromInit, WallFault};

/// How often a call the kernel does not count is counted. A bomb makes some hundreds in that time.
const WATCH_EVERY: Duration = Duration::from_millis(25);
/// Most ended children reaped before init looks at its other business. Prevents a bomb from keeping it from counting.
const REAPED_AT_ONCE: usize = 256;

/// A payload that runs.
pub(super) struct Payload {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Most processes of the call.
    pub(super) processes: usize,
    /// Its refused system calls, where they can be told.
    pub(super) refusals: Option<Refusals>,
}

/// Waits for the exit status or signal of the payload: reaps whatever ends, answers what its filter refused, and counts where nobody else does.
pub(super) fn until_end(
    ground: &Ground,
    payload: &mut Payload,
    supervisor: BorrowedFd<'_>,
) -> Result<(Option<i32>, Option<i32>), WallFault> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    // The payload was forked before and starts with nothing blocked.
    ends.thread_block().step("hold back signals of ended children")?;
    let ended = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .step("watch for ended children")?;
    let mut count = Count::new(ground, payload.processes);
    loop {
        // Once the signal is taken, because more may end after it.
        while matches!(ended.read_signal(), Ok(Some(_))) {}
        let more = match reap_some(payload.pid)? {
            Reaped::Payload(exit_code, signal) => return Ok((exit_code, signal)),
            Reaped::All => false,
            Reaped::Some => true,
        };
        if let Some(refusals) = &mut payload.refusals {
            for refusal in refusals.answer(&ground.filter)? {
                // What finds no room is not told: a supervisor that does not read must not stop a call.
                send_if_room(supervisor, &FromInit::Refused(refusal))?;
            }
        }
        let timeout = if more { PollTimeout::ZERO } else { count.due() };
        let listener = payload.refusals.as_ref().and_then(Refusals::listener);
        let mut watched: Vec<PollFd<'_>> = [ended.as_fd(), payload.pidfd.as_fd()]
            .into_iter()
            .chain(listener)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault("watch the payload", errno)),
        }
    }
}

enum Reaped {
    /// The payload itself, with its exit status or signal.
    Payload(Option<i32>, Option<i32>),
    /// Everything that had ended.
    All,
    /// So many that something else has to be done in between.
    Some,
}

fn reap_some(payload: Pid) -> Result<Reaped, WallFault> {
    for _ in 0..REAPED_AT_ONCE {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Ok(Reaped::All),
            Ok(WaitStatus::Exited(pid, code)) if pid == payload => {
                return Ok(Reaped::Payload(Some(code), None));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == payload => {
                return Ok(Reaped::Payload(None, Some(signal as i32)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(fault("wait for the payload", errno)),
        }
    }
    Ok(Reaped::Some)
}

/// The kernel does not count processes of its uid 0, so without a namespace somebody else must: this init, many times
/// a second. A call that exceeds its limit is ended as a whole.
struct Count {
    most: usize,
    next: Option<Instant>,
}

impl Count {
    fn new(ground: &Ground, most: usize) -> Self {
        let counts = match ground.plan {
            Plan::Full => false,
            Plan::Bare | Plan::Off => {
                nix::unistd::getuid().is_root() && !ground.counted.has(Counter::Processes)
            }
        };
        Self { most, next: counts.then(Instant::now) }
    }

    /// Counts where it is time to. Returns how long to wait at most.
    fn due(&mut self) -> PollTimeout {
        let Some(next) = self.next else { return PollTimeout::NONE };
        let now = Instant::now();
        if now >= next {
            if family::count() > self.most {
                family::kill_all();
            }
            self.next = Some(Instant::now().checked_add(WATCH_EVERY).unwrap_or(next));
        }
        let left = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        // Not less than the clock of poll can say, or it would be asked again at once.
        PollTimeout::from(u16::try_from(left.as_millis().max(1)).unwrap_or(u16::MAX))
    }
}
