//! Lines on standard error for the operator. What a peer can trigger is rate-limited, and no line holds tool
//! arguments, output or environment.

use std::io::Write;
use std::time::{Duration, Instant};

/// Lines a peer may cause in one [`WINDOW`]. Prevents a hostile peer from filling a disk with our log.
const BURST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// One line, whatever happens.
pub(crate) fn always(line: &str) {
    // Standard error may be closed; there is nowhere left to say so.
    let _ = writeln!(std::io::stderr().lock(), "oxibot-toolhost: {line}");
}

/// Counts lines that a peer caused.
#[derive(Debug, Default)]
pub(crate) struct Limited {
    window: Option<Instant>,
    lines: u32,
}

impl Limited {
    /// One line, unless there were too many lately.
    pub(crate) fn line(&mut self, line: &str, now: Instant) {
        if self.admits(now) {
            always(line);
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|start| now.duration_since(start) >= WINDOW) {
            self.window = Some(now);
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        self.lines <= BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_burst_are_dropped_until_the_window_is_over() {
        let mut log = Limited::default();
        let now = Instant::now();
        assert_eq!((0..100).filter(|_| log.admits(now)).count(), BURST as usize);
        assert!(log.admits(now + WINDOW));
    }
}
