//! How often one host is asked: a burst, then so many a second. Pure; the caller waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Requests at once before a host is spared, and how long one is worth after that.
const BURST: u32 = 20;
const EACH: Duration = Duration::from_millis(100);
/// Hosts remembered. One that was forgotten is asked as if for the first time.
const MAX_HOSTS: usize = 1024;

/// When each host may be asked next.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The moment at which the host's burst is whole again.
    whole: HashMap<String, Instant>,
}

impl Pace {
    /// Books one request and answers how long it has to wait.
    pub(crate) fn book(&mut self, host: &str, now: Instant) -> Duration {
        if self.whole.len() >= MAX_HOSTS {
            self.whole.retain(|_, at| *at > now);
        }
        if self.whole.len() >= MAX_HOSTS && !self.whole.contains_key(host) {
            return EACH;
        }
        let whole = self.whole.entry(host.to_owned()).or_insert(now);
        *whole = (*whole).max(now) + EACH;
        let owed = whole.saturating_duration_since(now);
        owed.saturating_sub(EACH * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_spared_after_a_burst_and_others_are_not_held_up() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.book("a", now), Duration::ZERO);
        }
        assert_eq!(pace.book("a", now), EACH);
        assert_eq!(pace.book("a", now), EACH * 2);
        assert_eq!(pace.book("b", now), Duration::ZERO);
        assert_eq!(pace.book("a", now + EACH * 100), Duration::ZERO);
    }

    #[test]
    fn hosts_remembered_are_bounded() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for number in 0..MAX_HOSTS * 2 {
            let _ = pace.book(&number.to_string(), now);
        }
        assert!(pace.whole.len() <= MAX_HOSTS);
    }
}
