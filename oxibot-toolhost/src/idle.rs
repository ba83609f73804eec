//! A process that waits long gives back what only work needs: most of what it keeps in memory is its own code.
//!
//! Knows neither descriptors nor messages. Whoever waits asks how long it may, and tells how long it was.

use std::time::Duration;

use crate::sys;

/// What waited this long waits for longer. Short enough that nothing is kept between the words of a person, long enough
/// that calls that follow each other find everything in place.
pub(crate) const AFTER_MS: u16 = 1_000;

/// Of one process.
#[derive(Debug)]
pub(crate) struct Idle {
    awake: bool,
}

impl Idle {
    /// It has just started.
    pub(crate) fn new() -> Self {
        Self { awake: true }
    }

    /// How long to wait at most, in milliseconds. `None`: nothing is left to be given back.
    pub(crate) fn due(&self) -> Option<u16> {
        self.awake.then_some(AFTER_MS)
    }

    /// It waited this long.
    pub(crate) fn waited(&mut self, time: Duration) {
        if self.awake && time >= Duration::from_millis(AFTER_MS.into()) {
            sys::unmap_own_code();
            self.awake = false;
        } else {
            self.awake = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_once_and_again_after_work() {
        let long = Duration::from_secs(2);
        let mut idle = Idle::new();
        idle.waited(Duration::from_millis(5));
        assert_eq!(idle.due(), Some(AFTER_MS));
        idle.waited(long);
        assert_eq!(idle.due(), None, "it may sleep for ever now");
        idle.waited(long);
        assert_eq!(idle.due(), Some(AFTER_MS), "something woke it");
    }

    /// What is given back comes back: this test goes on running.
    #[test]
    fn code_and_constants_are_there_after_they_were_unmapped() {
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let path = std::env::current_exe().unwrap();
            let mut ours = false;
            let mut sum = 0_u64;
            for line in maps.lines() {
                if line.split(' ').next().is_some_and(|word| word.contains('-')) {
                    ours = line.contains(" r-xp ") && line.ends_with(path.to_str().unwrap());
                } else if ours && let Some(kib) = line.strip_prefix("Rss:") {
                    sum += kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
                }
            }
            sum
        };
        assert_eq!(format!("{:?}", [1, 2].iter().sum::<i32>()), "3");
        let before = resident();
        sys::unmap_own_code();
        let after = resident();
        assert!(before > 0 && after < before, "{before} KiB became {after}");
        assert_eq!(format!("{:?}", [1, 2].iter().sum::<i32>()), "3");
    }
}
