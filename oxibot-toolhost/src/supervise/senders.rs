//! How much one sender may ask for: a bucket of calls that fills with time, and a number of calls a day.
//!
//! Senders are who main says they are; the person at the terminal is one of them only if the configuration says so. The
//! day's count survives a restart in `audit/calls`: a record of fixed size for each call, appended by every supervisor
//! of the home and read by all. It is a counter, not evidence; the audit log is.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxibot_proto::message::Origin;
use oxibot_proto::settings::Senders as Settings;
use sha2::{Digest, Sha256};

use super::workspace;

/// Name below the home.
const NAME: &str = "audit/calls";
/// Day and sender.
const RECORD: usize = 4 + SENDER;
const SENDER: usize = 16;
/// Bytes of a day's records. More calls than that are not counted one by one but refused.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Senders remembered at once. Prevents main from filling our memory with names.
const MOST_SENDERS: usize = 4096;
const DAY: u64 = 86_400;

type Sender = [u8; SENDER];

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
    file: Option<File>,
    read: u64,
    day: u32,
    today: HashMap<Sender, u32>,
    buckets: HashMap<Sender, Bucket>,
}

impl Senders {
    /// Opens the count of the day. One of an earlier day is begun anew.
    pub(crate) fn open(home: Option<&Path>, settings: Settings) -> std::io::Result<Self> {
        let file = match home {
            None => None,
            Some(home) => {
                let path = home.join(NAME);
                if let Some(directory) = path.parent() {
                    workspace::create(directory)?;
                }
                let file = OpenOptions::new()
                    .read(true)
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(path)?;
                Some(file)
            }
        };
        let (today, buckets) = (HashMap::new(), HashMap::new());
        let mut senders = Self { settings, file, read: 0, day: day(SystemTime::now()), today, buckets };
        senders.catch_up()?;
        if senders.today.is_empty()
            && let Some(file) = &senders.file
        {
            // Nobody asked for anything today; another supervisor sees that the file became shorter.
            file.set_len(0)?;
            senders.read = 0;
        }
        Ok(senders)
    }

    /// Takes one call from the sender's account, or says why there is none to take.
    pub(crate) fn take(&mut self, origin: &Origin, now: Instant, time: SystemTime) -> Option<Limited> {
        let Settings { calls_per_minute, call_burst, calls_per_day, terminal, .. } = self.settings;
        if (origin.channel == "terminal" && !terminal) || (calls_per_minute == 0 && calls_per_day == 0) {
            return None;
        }
        let sender = sender(origin);
        let spent = self.spent(&sender, time);
        self.make_room(now);
        let full = u64::from(call_burst).saturating_mul(CALL);
        let bucket = self.buckets.entry(sender).or_insert(Bucket { left: full, filled: now, told: false });
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
        self.count(sender);
        None
    }

    /// Calls of this sender today, by any supervisor of the home.
    fn spent(&mut self, sender: &Sender, time: SystemTime) -> u32 {
        if self.settings.calls_per_day == 0 {
            return 0;
        }
        let today = day(time);
        if today != self.day {
            self.day = today;
            self.today.clear();
        }
        // A count that cannot be read is not zero: what was read before stands.
        let _ = self.catch_up();
        self.today.get(sender).copied().unwrap_or(0)
    }

    fn count(&mut self, sender: Sender) {
        if self.settings.calls_per_day == 0 {
            return;
        }
        let day = self.day.to_be_bytes();
        let record: Vec<u8> = day.iter().chain(&sender).copied().collect();
        // What cannot be written is counted here at least.
        let unwritten = self.file.as_mut().is_none_or(|file| file.write_all(&record).is_err());
        if unwritten && (self.today.len() < MOST_SENDERS || self.today.contains_key(&sender)) {
            *self.today.entry(sender).or_default() += 1;
        }
    }

    /// Reads what was appended since, by us and by others.
    fn catch_up(&mut self) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let length = file.metadata()?.len();
        if length < self.read {
            // Begun anew by a supervisor that found nothing of today.
            self.read = 0;
        }
        if length == self.read {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        let left = length.saturating_sub(self.read).min(MOST_BYTES);
        (&mut *file).take(left).read_to_end(&mut bytes)?;
        let mut records = bytes.chunks_exact(RECORD);
        for record in &mut records {
            let Some((day, sender)) = record.split_first_chunk::<4>() else { continue };
            if u32::from_be_bytes(*day) == self.day
                && let Ok(sender) = Sender::try_from(sender)
                && (self.today.len() < MOST_SENDERS || self.today.contains_key(&sender))
            {
                *self.today.entry(sender).or_default() += 1;
            }
        }
        // Half a record is one that is being written; it is read again.
        let whole = bytes.len() - records.remainder().len();
        self.read += u64::try_from(whole).unwrap_or(0);
        Ok(())
    }

    /// Forgets accounts that are as full as they can be. If none is, the fullest memory is still bounded.
    fn make_room(&mut self, now: Instant) {
        if self.buckets.len() < MOST_SENDERS {
            return;
        }
        let Settings { calls_per_minute, call_burst, .. } = self.settings;
        let full = u64::from(call_burst).saturating_mul(CALL);
        self.buckets.retain(|_, bucket| {
            bucket.fill(now, calls_per_minute, full);
            bucket.left < full
        });
        if self.buckets.len() >= MOST_SENDERS {
            self.buckets.clear();
        }
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

fn sender(origin: &Origin) -> Sender {
    let mut digest = Sha256::new();
    digest.update(origin.channel.as_bytes());
    digest.update([0]);
    digest.update(origin.who.as_bytes());
    let mut sender = [0; SENDER];
    for (to, from) in sender.iter_mut().zip(digest.finalize()) {
        *to = from;
    }
    sender
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
    fn count_of_an_earlier_day_is_begun_anew() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("audit")).unwrap();
        std::fs::write(home.path().join(NAME), [0; RECORD * 3 + 5]).unwrap();
        Senders::open(Some(home.path()), settings(0, 0, 4)).unwrap();
        assert_eq!(std::fs::metadata(home.path().join(NAME)).unwrap().len(), 0);
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
    fn names_cannot_fill_our_memory() {
        let mut senders = Senders::open(None, settings(60, 5, 9)).unwrap();
        let (now, time) = (Instant::now(), SystemTime::now());
        for number in 0..MOST_SENDERS * 2 {
            let _ = senders.take(&origin(&number.to_string(), "telegram"), now, time);
        }
        assert!(senders.buckets.len() <= MOST_SENDERS);
        assert!(senders.today.len() <= MOST_SENDERS);
    }
}
