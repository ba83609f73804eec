//! Taking two sides in turn, in one run, and what the figures say. No opinion on what is fast.

use std::time::{Duration, Instant};

/// Times of one side, in microseconds, sorted.
#[derive(Debug, Clone)]
pub struct Times(Vec<f64>);

impl Times {
    /// From raw durations.
    pub fn new(durations: &[Duration]) -> Self {
        let mut times: Vec<f64> = durations.iter().map(|time| time.as_secs_f64() * 1e6).collect();
        times.sort_by(f64::total_cmp);
        assert!(!times.is_empty(), "nothing was measured");
        Self(times)
    }

    /// The value below which this share of the times lies, by nearest rank.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// Median.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Half the distance between the quartiles, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / 2.0 / self.median()
    }
}

/// Runs both sides `rounds` times, in turn and in changing order, after some rounds that do not count.
pub fn in_turn(rounds: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) -> (Times, Times) {
    let clock = |side: &mut dyn FnMut()| {
        let begun = Instant::now();
        side();
        begun.elapsed()
    };
    for _ in 0..(rounds / 10).clamp(2, 50) {
        clock(&mut ours);
        clock(&mut theirs);
    }
    let mut times = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            times.0.push(clock(&mut ours));
            times.1.push(clock(&mut theirs));
        } else {
            times.1.push(clock(&mut theirs));
            times.0.push(clock(&mut ours));
        }
    }
    (Times::new(&times.0), Times::new(&times.1))
}
