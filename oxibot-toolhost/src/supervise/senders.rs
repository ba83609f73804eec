//! How much one sender may ask for: a bucket of calls that fills with time, and a number of calls a day.
//!
//! Senders are who main says they are; the person at the terminal is one of them only if the configuration says so. The
//! day's count survives a restart (`tally`).

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxibot_proto::message::Origin;
use oxibot_proto::settings::Senders as Settings;

use super::tally::{MOST_SENDERS, OTHERS, Sender, Tally, sender};

const DAY: u64 = 86_400;

/// A sender asks for too much.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) rule: &'static str,
    pub(crate) reason: String,
    pub(crate) retry: Duration,
    /// The first refusal since it last was within its limits.
    pub(crate) first: bool,
}

#[derive(Debug)]
struct Bucket {
    /// Calls left, in parts: one call is a minute's worth of milliseconds.
    left: u64,
    filled: Instant,
    told: bool,
}

/// One call in a bucket that gets `calls_per_minute` every millisecond.
const CALL: u64 = 60_000;

/// Every sender's account.
#[derive(Debug)]
pub(crate) struct Senders {
    settings: Settings,
    tally: Tally,
    buckets: HashMap<Sender, Bucket>,
}

impl Senders {
    /// Opens the count of the day.
    pub(crate) fn open(home: Option<&Path>, settings: Settings) -> std::io::Result<Self> {
        let tally = Tally::open(home, day(SystemTime::now()))?;
        Ok(Self { settings, tally, buckets: HashMap::new() })
    }

    /// The directory in which the supervisor goes on making files, for the rule that allows it.
    pub(crate) fn directory(&self) -> Option<&File> {
        self.tally.directory()
    }

    /// Takes one call from the sender's account, or says why there is none to take.
    pub(crate) fn take(&mut self, origin: &Origin, now: Instant, time: SystemTime) -> Option<Limited> {
        let Settings { calls_per_minute, call_burst, calls_per_day, terminal, .. } = self.settings;
        if (origin.channel == "terminal" && !terminal) || (calls_per_minute == 0 && calls_per_day == 0) {
            return None;
        }
        let sender = sender(&origin.channel, &origin.who);
        let spent = if calls_per_day == 0 { 0 } else { self.tally.spent(&sender, day(time)) };
        let account = self.account(sender, now);
        let full = u64::from(call_burst).saturating_mul(CALL);
        let bucket = self.buckets.entry(account).or_insert(Bucket { left: full, filled: now, told: false });
        bucket.fill(now, calls_per_minute, full);
        let limit = if calls_per_day > 0 && spent >= calls_per_day {
            let left = DAY - time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % DAY;
            Some(("limits.callsPerDay", format!("{calls_per_day} calls a day"), Duration::from_secs(left)))
        } else if calls_per_minute > 0 && bucket.left < CALL {
            let millis = (CALL - bucket.left).div_ceil(u64::from(calls_per_minute));
            let granted = format!("{calls_per_minute} calls a minute");
            Some(("limits.callsPerMinute", granted, Duration::from_millis(millis)))
        } else {
            None
        };
        if let Some((rule, granted, retry)) = limit {
            let first = !std::mem::replace(&mut bucket.told, true);
            let reason = format!("this sender has used up {granted}");
            return Some(Limited { rule, reason, retry, first });
        }
        bucket.told = false;
        if calls_per_minute > 0 {
            bucket.left -= CALL;
        }
        if calls_per_day > 0 {
            self.tally.add(&sender);
        }
        None
    }

    /// Whose bucket a sender's call comes from: their own, or, where there are too many, one of all the others. Buckets
    /// that are as full as they can be are forgotten, which changes nothing.
    fn account(&mut self, sender: Sender, now: Instant) -> Sender {
        if self.buckets.contains_key(&sender) {
            return sender;
        }
        if self.buckets.len() >= MOST_SENDERS {
            let Settings { calls_per_minute, call_burst, .. } = self.settings;
            let full = u64::from(call_burst).saturating_mul(CALL);
            self.buckets.retain(|_, bucket| {
                bucket.fill(now, calls_per_minute, full);
                bucket.left < full
            });
        }
        if self.buckets.len() < MOST_SENDERS { sender } else { OTHERS }
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant, per_minute: u32, full: u64) {
        let since = u64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        self.filled += Duration::from_millis(since);
        self.left = self.left.saturating_add(since.saturating_mul(per_minute.into())).min(full);
    }
}

fn day(time: SystemTime) -> u32 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds / DAY).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(who: &str, channel: &str) -> Origin {
        Origin { who: who.into(), channel: channel.into(), session: "s".into() }
    }

    fn settings(calls_per_minute: u32, call_burst: u32, calls_per_day: u32) -> Settings {
        Settings { calls_per_minute, call_burst, calls_per_day, ..Settings::default() }
    }

    fn taken(senders: &mut Senders, who: &Origin, count: usize, now: Instant, time: SystemTime) -> usize {
        (0..count).filter(|_| senders.take(who, now, time).is_none()).count()
    }

    #[test]
    fn burst_then_so_many_a_minute() {
        let mut senders = Senders::open(None, settings(60, 5, 0)).unwrap();
        let (ada, bob, now, time) =
            (origin("ada", "telegram"), origin("bob", "telegram"), Instant::now(), SystemTime::now());
        assert_eq!(taken(&mut senders, &ada, 20, now, time), 5);
        let limited = senders.take(&ada, now, time).unwrap();
        assert_eq!((limited.rule, limited.retry), ("limits.callsPerMinute", Duration::from_secs(1)));
        assert_eq!(taken(&mut senders, &bob, 20, now, time), 5, "another sender has an account of their own");
        let later = now + Duration::from_secs(3);
        assert_eq!(taken(&mut senders, &ada, 20, later, time), 3);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!(
            taken(&mut senders, &ada, 20, much_later, time),
            5,
            "it fills to the burst and no further"
        );
    }

    #[test]
    fn first_refusal_is_told_and_the_others_are_not() {
        let mut senders = Senders::open(None, settings(60, 1, 0)).unwrap();
        let (ada, now, time) = (origin("ada", "telegram"), Instant::now(), SystemTime::now());
        let mut first = |now| senders.take(&ada, now, time).map(|limited| limited.first);
        assert_eq!([first(now), first(now), first(now)], [None, Some(true), Some(false)]);
        let later = now + Duration::from_secs(1);
        assert_eq!([first(later), first(later)], [None, Some(true)]);
    }

    #[test]
    fn day_counts_over_restarts_and_other_supervisors_and_ends_at_midnight() {
        let home = tempfile::tempdir().unwrap();
        let open = || Senders::open(Some(home.path()), settings(0, 0, 4)).unwrap();
        let (ada, now, time) = (origin("ada", "telegram"), Instant::now(), SystemTime::now());
        let (mut first, mut other) = (open(), open());
        assert_eq!(taken(&mut first, &ada, 2, now, time), 2);
        assert_eq!(taken(&mut other, &ada, 1, now, time), 1);
        drop(first);
        let mut again = open();
        assert_eq!(taken(&mut again, &ada, 9, now, time), 1, "three were taken before");
        assert_eq!(other.take(&ada, now, time).unwrap().rule, "limits.callsPerDay");
        let tomorrow = time + Duration::from_secs(DAY);
        assert_eq!(taken(&mut again, &ada, 9, now, tomorrow), 4);
    }

    #[test]
    fn person_at_the_terminal_is_limited_only_if_configured() {
        let (person, now, time) = (origin("ada", "terminal"), Instant::now(), SystemTime::now());
        let mut senders = Senders::open(None, settings(1, 1, 1)).unwrap();
        assert_eq!(taken(&mut senders, &person, 100, now, time), 100);
        let limited = Settings { terminal: true, ..settings(1, 1, 1) };
        let mut senders = Senders::open(None, limited).unwrap();
        assert_eq!(taken(&mut senders, &person, 100, now, time), 1);
    }

    #[test]
    fn names_can_neither_fill_our_memory_nor_get_new_bursts() {
        let mut senders = Senders::open(None, settings(60, 5, 9)).unwrap();
        let (now, time) = (Instant::now(), SystemTime::now());
        let mut granted = 0;
        for number in 0..MOST_SENDERS * 2 {
            let name = origin(&number.to_string(), "telegram");
            granted += taken(&mut senders, &name, 1, now, time);
        }
        assert!(senders.buckets.len() <= MOST_SENDERS + 1);
        // One call each, and for the rest together as many as one sender gets.
        assert_eq!(granted, MOST_SENDERS + 5);
        let first = origin("0", "telegram");
        assert_eq!(
            taken(&mut senders, &first, 20, now, time),
            4,
            "an account is not forgotten while it is in use"
        );
    }
}
