//! Taking sides in turn, in one run, and what the figures say. No opinion on what is fast.

use std::time::{Duration, Instant};

/// Rounds below which a side is not cut off, however slow it is.
const LEAST_ROUNDS: usize = 5;

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

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share of the times lies, by nearest rank.
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// Half the distance between the quartiles, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.quantile(0.75) - self.quantile(0.25)) / 2.0 / self.quantile(0.5)
    }
}

/// How often and how long at most.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub seconds: u64,
}

/// This many rounds, and no more seconds than that; a fifth of both where that is enough.
pub fn effort(rounds: usize, seconds: u64) -> Effort {
    let share = if crate::quick() { 5 } else { 1 };
    Effort { rounds: (rounds / share).max(LEAST_ROUNDS), seconds: (seconds / share as u64).max(1) }
}

fn clock(side: &mut dyn FnMut()) -> Duration {
    let begun = Instant::now();
    side();
    begun.elapsed()
}

/// Runs all sides in turn and in changing order, after some rounds that do not count.
pub fn sides_in_turn(effort: Effort, sides: &mut [Box<dyn FnMut() + '_>]) -> Vec<Times> {
    for _ in 0..(effort.rounds / 20).clamp(1, 30) {
        for side in &mut *sides {
            clock(side.as_mut());
        }
    }
    let count = sides.len();
    let mut times = vec![Vec::new(); count];
    let until = Instant::now() + Duration::from_secs(effort.seconds);
    for round in 0..effort.rounds {
        if round >= LEAST_ROUNDS && Instant::now() >= until {
            break;
        }
        for position in 0..count {
            let turn = (position + round) % count;
            times[turn].push(clock(sides[turn].as_mut()));
        }
    }
    times.iter().map(|times| Times::new(times)).collect()
}

/// The same for two sides.
pub fn in_turn(effort: Effort, ours: impl FnMut(), theirs: impl FnMut()) -> (Times, Times) {
    let mut times = sides_in_turn(effort, &mut [Box::new(ours), Box::new(theirs)]).into_iter();
    match (times.next(), times.next()) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        _ => unreachable!("two sides were measured"),
    }
}

/// One side alone.
pub fn alone(effort: Effort, side: impl FnMut()) -> Times {
    sides_in_turn(effort, &mut [Box::new(side)]).remove(0)
}
