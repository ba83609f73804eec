//! How long to wait after a failure. Pure: the dice are an argument.

use std::time::Duration;

/// Sides of the dice.
pub(crate) const SIDES: u64 = 1024;

/// `first`, doubled with each earlier failure and never more than `longest`; of that, between half and the whole, so
/// that what failed together does not come back together. `dice` is any number.
pub(crate) fn backoff(first: Duration, longest: Duration, failures: u32, dice: u64) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest);
    let part = u32::try_from(dice % SIDES).unwrap_or(0);
    doubled / 2 + (doubled / 2).mul_f64(f64::from(part) / 1024.0)
}

/// From the clock's finest digits: good enough to fall out of step.
pub(crate) fn dice() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() >> 6) % SIDES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_have_an_end_and_are_never_in_step() {
        let wait = |failures, dice| backoff(Duration::from_secs(1), Duration::from_secs(120), failures, dice);
        assert_eq!(wait(0, 0), Duration::from_millis(500));
        assert!(wait(0, SIDES - 1) < Duration::from_secs(1));
        assert!(wait(5, 0) == Duration::from_secs(16) && wait(5, SIDES - 1) < Duration::from_secs(32));
        for failures in [7, 31, 32, u32::MAX] {
            assert!(wait(failures, 0) >= Duration::from_secs(60), "{failures}");
            assert!(wait(failures, SIDES - 1) <= Duration::from_secs(120), "{failures}");
        }
        assert_ne!(wait(4, 1), wait(4, 1000));
    }
}
