//! The end of the supervisor: every call is ended and waited for, whoever still listens is told, the log is closed.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::message::{CloseReason, Level, ToMain};

use super::broker::Broker;
use super::log;
use super::place::{Happened, Place};

/// How long the end of everything may take, twice: for inits, and for what outlived them.
const FAREWELL: Duration = Duration::from_secs(1);

impl Broker {
    /// Ends every call, tells who still listens, and leaves nothing behind.
    pub(crate) fn end_everything(&mut self) {
        let start = Instant::now();
        self.notify.stopping();
        for call in self.calls.values() {
            if let Some(process) = call.process() {
                process.kill();
            }
        }
        for link in self.links.values_mut() {
            // The peer may be gone, which is the usual reason to be here.
            let _ = link.send(&ToMain::Bye(CloseReason::ShuttingDown));
            let _ = link.flush(start);
        }
        if let Some(control) = &self.control {
            control.remove();
        }
        self.wait_for_ends(start + FAREWELL);
        self.wait_for_guards();
        if let Err(error) = self.audit.stop() {
            log::always(&error.to_string());
        }
    }

    /// Waits until the workers that guard git's configuration have put back what the ended calls changed.
    fn wait_for_guards(&mut self) {
        let until = Instant::now() + FAREWELL;
        let mut left: Vec<_> = self.places.iter_mut().filter_map(|place| place.bulk.hang_up()).collect();
        while !left.is_empty() {
            let time = until.saturating_duration_since(Instant::now()).as_millis();
            let mut watched: Vec<_> =
                left.iter().map(|pidfd| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)).collect();
            let timeout = PollTimeout::from(u16::try_from(time).unwrap_or(u16::MAX));
            if time == 0 || !poll(&mut watched, timeout).is_ok_and(|count| count > 0) {
                return;
            }
            let ended: Vec<bool> =
                watched.iter().map(|end| end.revents().is_some_and(|flags| !flags.is_empty())).collect();
            let mut ended = ended.into_iter();
            left.retain(|_| !ended.next().unwrap_or(true));
        }
    }

    /// Waits until the inits are gone and, without PID namespaces, what outlived them is swept.
    fn wait_for_ends(&mut self, until: Instant) {
        let mut swept = false;
        loop {
            let now = Instant::now();
            let ends: Vec<_> = self
                .calls
                .values()
                .filter_map(|call| call.process()?.init())
                .map(|init| PollFd::new(init.pidfd(), PollFlags::POLLIN))
                .collect();
            let alive = ends.len();
            let left = until.saturating_duration_since(now).as_millis();
            if left == 0 {
                return;
            }
            if alive == 0 {
                if swept || !self.sweep_all() {
                    return;
                }
                swept = true;
                continue;
            }
            let mut ends = ends;
            if poll(&mut ends, PollTimeout::from(u16::try_from(left.min(100)).unwrap_or(100))).is_err() {
                return;
            }
            let gone: Vec<bool> =
                ends.iter().map(|end| end.revents().is_some_and(|flags| !flags.is_empty())).collect();
            let keys: Vec<u64> = self
                .calls
                .iter()
                .filter(|(_, call)| call.process().is_some_and(|process| process.init().is_some()))
                .map(|(key, _)| *key)
                .collect();
            for key in keys.into_iter().zip(gone).filter(|(_, gone)| *gone).map(|(key, _)| key) {
                self.calls.remove(&key);
            }
        }
    }

    /// Asks every zygote without PID namespaces to end what is left; `true` if there was anything to wait for.
    fn sweep_all(&mut self) -> bool {
        let mut asked = false;
        for place in self.places.iter_mut().filter(|place| place.level() < Level::Full) {
            asked |= place.zygote().is_some() && place.sweep(u64::MAX).is_ok();
        }
        let until = Instant::now() + FAREWELL;
        while asked && Instant::now() < until {
            let sockets = self.places.iter().filter_map(Place::zygote);
            let mut watched: Vec<_> =
                sockets.map(|zygote| PollFd::new(zygote.socket(), PollFlags::POLLIN)).collect();
            if !poll(&mut watched, PollTimeout::from(100_u16)).is_ok_and(|count| count > 0) {
                continue;
            }
            let swept = self.places.iter_mut().flat_map(|place| place.listen(Instant::now()));
            if swept.filter(|happened| matches!(happened, Happened::Swept(u64::MAX))).count() > 0 {
                break;
            }
        }
        false
    }
}
