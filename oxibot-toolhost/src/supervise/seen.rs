//! Remembers which call numbers a connection has used, in bounded memory.
//!
//! Numbers that come in order cost nothing; a peer that scatters them is cut off at [`MAX_SCATTERED`].

use std::collections::BTreeSet;

use oxibot_proto::message::CallNumber;

/// Numbers ahead of the first gap that are remembered. Prevents a peer from growing the set for ever.
const MAX_SCATTERED: usize = 4096;

/// Every number used so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Used numbers that have no unbroken line to the lowest one.
    scattered: BTreeSet<u64>,
    /// Every number from the first to the second was used, both included.
    line: Option<(u64, u64)>,
}

/// The number was used before, or the numbers are too scattered to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reused;

impl Seen {
    /// Marks a number as used.
    pub(crate) fn take(&mut self, number: CallNumber) -> Result<(), Reused> {
        let CallNumber(value) = number;
        if self.knows(number) || self.scattered.len() >= MAX_SCATTERED {
            return Err(Reused);
        }
        let (mut first, mut last) = match self.line {
            Some(line) => {
                self.scattered.insert(value);
                line
            }
            None => (value, value),
        };
        while let Some(next) = last.checked_add(1).filter(|next| self.scattered.remove(next)) {
            last = next;
        }
        while let Some(before) = first.checked_sub(1).filter(|before| self.scattered.remove(before)) {
            first = before;
        }
        self.line = Some((first, last));
        Ok(())
    }

    /// Whether the number was used on this connection.
    pub(crate) fn knows(&self, number: CallNumber) -> bool {
        let CallNumber(value) = number;
        self.line.is_some_and(|(first, last)| (first..=last).contains(&value))
            || self.scattered.contains(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_used_twice_is_refused() {
        let mut seen = Seen::default();
        for number in [7, 9, 8, 6] {
            assert_eq!(seen.take(CallNumber(number)), Ok(()));
        }
        for number in [6, 7, 8, 9] {
            assert_eq!(seen.take(CallNumber(number)), Err(Reused));
            assert!(seen.knows(CallNumber(number)));
        }
        assert!(!seen.knows(CallNumber(10)));
    }

    #[test]
    fn numbers_in_order_cost_nothing() {
        let mut seen = Seen::default();
        for number in 0..100_000 {
            assert_eq!(seen.take(CallNumber(number)), Ok(()));
        }
        assert!(seen.scattered.is_empty());
    }

    #[test]
    fn scattered_numbers_are_cut_off() {
        let mut seen = Seen::default();
        let refused = (0..10_000_u64).filter(|n| seen.take(CallNumber(n * 3)).is_err()).count();
        assert!(refused > 5000, "{refused}");
        assert!(seen.scattered.len() <= MAX_SCATTERED);
    }

    #[test]
    fn largest_number_does_not_wrap() {
        let mut seen = Seen::default();
        assert_eq!(seen.take(CallNumber(u64::MAX)), Ok(()));
        assert_eq!(seen.take(CallNumber(u64::MAX)), Err(Reused));
    }
}
