//! How many calls each sender made today, by any supervisor of the home: a file a day, `audit/counts/<day>`, a line for
//! each call, appended by all and read by all.
//!
//! A file of a day is never made shorter, so that nobody has to agree with anybody: what was appended counts. Those of
//! earlier days are removed at a start. It is a counter, not evidence; the audit log is. Where it cannot be kept, what we
//! count ourselves stands; where it has no room for a sender of their own they share an account with others. Neither ever
//! makes a count smaller.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};

use super::workspace;
use crate::audit::chain::to_hex;

/// Directory below the home.
const DIRECTORY: &str = "audit/counts";
/// What kept the count before there was a file for each day.
const OUTDATED: &str = "audit/calls";
/// Bytes of a day's lines. When there are more, nobody who is counted gets a call: it took two million to get there.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Senders with an account of their own. Prevents main from filling our memory with names.
pub(super) const MOST_SENDERS: usize = 4096;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of a sender, and letters in a line.
const SENDER: usize = 16;
const LETTERS: usize = 2 * SENDER;

/// A sender, by digest: of one length, and no name lies about.
pub(super) type Sender = [u8; SENDER];

/// The account of all who find no place for one of their own.
pub(super) const OTHERS: Sender = [0; SENDER];

/// Today's count.
#[derive(Debug)]
pub(crate) struct Tally {
    directory: Option<File>,
    file: Option<File>,
    day: u32,
    read: u64,
    /// The beginning of a line that is being written.
    torn: Vec<u8>,
    counts: HashMap<Sender, u32>,
}

impl Tally {
    /// Opens the count of `day` below a home; without one it is kept in memory.
    pub(crate) fn open(home: Option<&Path>, day: u32) -> std::io::Result<Self> {
        let directory = match home {
            None => None,
            Some(home) => {
                let path = home.join(DIRECTORY);
                workspace::create(&path)?;
                remove_earlier(&path, day);
                // Nobody reads it any more.
                let _ = std::fs::remove_file(home.join(OUTDATED));
                Some(File::open(path)?)
            }
        };
        let mut tally =
            Self { directory, file: None, day, read: 0, torn: Vec::new(), counts: HashMap::new() };
        if tally.directory.is_some() {
            tally.file = Some(tally.file_of(day)?);
        }
        tally.catch_up()?;
        Ok(tally)
    }

    /// Where the supervisor goes on making files, for the rule that allows it.
    pub(crate) fn directory(&self) -> Option<&File> {
        self.directory.as_ref()
    }

    /// Calls of this sender on `day`. As many as there can be, where no more can be counted.
    pub(super) fn spent(&mut self, sender: &Sender, day: u32) -> u32 {
        if day != self.day {
            self.day = day;
            self.counts.clear();
            self.torn.clear();
            self.read = 0;
            // Where none can be made it is counted here.
            self.file = self.file_of(day).ok();
        }
        // A count that cannot be read is not zero: what was read before stands.
        let _ = self.catch_up();
        if self.read >= MOST_BYTES {
            return u32::MAX;
        }
        self.counts.get(&self.account(sender)).copied().unwrap_or(0)
    }

    /// One more call of this sender.
    pub(super) fn add(&mut self, sender: &Sender) {
        let line = format!("{}\n", to_hex(sender));
        // What cannot be written is counted here at least.
        if self.file.as_mut().is_none_or(|file| file.write_all(line.as_bytes()).is_err()) {
            self.count(sender);
        }
    }

    fn file_of(&self, day: u32) -> std::io::Result<File> {
        let directory = self.directory.as_ref().ok_or(std::io::ErrorKind::NotFound)?;
        let flags = OFlag::O_CREAT | OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, day.to_string().as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        Ok(File::from(file))
    }

    fn account(&self, sender: &Sender) -> Sender {
        let own = self.counts.contains_key(sender) || self.counts.len() < MOST_SENDERS;
        if own { *sender } else { OTHERS }
    }

    fn count(&mut self, sender: &Sender) {
        let account = self.account(sender);
        let calls = self.counts.entry(account).or_default();
        *calls = calls.saturating_add(1);
    }

    /// Reads what was appended since, by us and by others.
    fn catch_up(&mut self) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while self.read < MOST_BYTES {
            let Some(file) = &mut self.file else { return Ok(()) };
            file.seek(SeekFrom::Start(self.read))?;
            let count = file.read(&mut chunk)?;
            if count == 0 {
                return Ok(());
            }
            self.read += u64::try_from(count).unwrap_or(0);
            let mut bytes = std::mem::take(&mut self.torn);
            bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
            let mut lines = bytes.split(|byte| *byte == b'\n');
            let rest = lines.next_back().unwrap_or_default();
            for line in lines {
                // A full disk leaves the beginning of a line; the next one follows it and is whole.
                let own = line.len().checked_sub(LETTERS).and_then(|at| line.get(at..));
                if let Some(sender) = own.and_then(sender_of) {
                    self.count(&sender);
                }
            }
            self.torn = rest.get(rest.len().saturating_sub(LETTERS)..).unwrap_or_default().to_vec();
        }
        Ok(())
    }
}

/// The sender of a channel's user.
pub(super) fn sender(channel: &str, who: &str) -> Sender {
    let mut digest = Sha256::new();
    digest.update(channel.as_bytes());
    digest.update([0]);
    digest.update(who.as_bytes());
    let mut sender = [0; SENDER];
    for (to, from) in sender.iter_mut().zip(digest.finalize()) {
        *to = from;
    }
    sender
}

fn sender_of(letters: &[u8]) -> Option<Sender> {
    let text = std::str::from_utf8(letters).ok()?;
    let mut sender = [0; SENDER];
    for (index, byte) in sender.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(sender)
}

/// Yesterday's stays: a supervisor beside us may not have seen midnight yet.
fn remove_earlier(directory: &Path, today: u32) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let day = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
        if day.is_some_and(|day| day.saturating_add(1) < today) {
            // Another supervisor may have been faster.
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(home: &Path, day: u32) -> Tally {
        Tally::open(Some(home), day).unwrap()
    }

    #[test]
    fn start_of_another_supervisor_loses_no_call() {
        let (home, ada) = (tempfile::tempdir().unwrap(), sender("telegram", "ada"));
        // It is open and has counted nothing when another one starts: what it counts then has to be there afterwards.
        let mut first = open(home.path(), 7);
        let mut second = open(home.path(), 7);
        first.add(&ada);
        let mut third = open(home.path(), 7);
        assert_eq!((second.spent(&ada, 7), third.spent(&ada, 7)), (1, 1));
        second.add(&ada);
        assert_eq!((first.spent(&ada, 7), third.spent(&ada, 7)), (2, 2));
    }

    #[test]
    fn files_of_earlier_days_are_removed_at_a_start() {
        let (home, ada) = (tempfile::tempdir().unwrap(), sender("telegram", "ada"));
        for day in [3, 6, 7] {
            let mut tally = open(home.path(), day);
            tally.add(&ada);
            assert_eq!(tally.spent(&ada, day), 1);
        }
        std::fs::write(home.path().join(OUTDATED), "").unwrap();
        open(home.path(), 8);
        let left = |name: &str| home.path().join(DIRECTORY).join(name).exists();
        assert_eq!(["3", "6", "7", "8"].map(left), [false, false, true, true]);
        assert!(!home.path().join(OUTDATED).exists());
    }

    #[test]
    fn who_finds_no_place_is_counted_with_others_and_not_left_uncounted() {
        let home = tempfile::tempdir().unwrap();
        let mut tally = open(home.path(), 7);
        let name = |number: usize| sender("telegram", &number.to_string());
        for number in 0..MOST_SENDERS + 5 {
            tally.add(&name(number));
        }
        assert_eq!(tally.spent(&name(0), 7), 1, "with an account of their own");
        assert_eq!(tally.spent(&name(MOST_SENDERS), 7), 5, "with four others");
        assert_eq!(tally.spent(&name(MOST_SENDERS * 9), 7), 5, "and who comes later too");
        assert!(tally.counts.len() <= MOST_SENDERS + 1);
        assert_eq!(open(home.path(), 7).spent(&name(MOST_SENDERS), 7), 5, "over a restart too");
    }

    #[test]
    fn full_count_leaves_nobody_a_call() {
        let (home, ada) = (tempfile::tempdir().unwrap(), sender("telegram", "ada"));
        let mut tally = open(home.path(), 7);
        tally.file.as_ref().unwrap().set_len(MOST_BYTES).unwrap();
        assert_eq!(tally.spent(&ada, 7), u32::MAX);
        assert_eq!(tally.spent(&ada, 8), 0, "until the next day");
    }

    #[test]
    fn torn_line_costs_itself_only() {
        let (home, ada) = (tempfile::tempdir().unwrap(), sender("telegram", "ada"));
        let (mut tally, mut other) = (open(home.path(), 7), open(home.path(), 7));
        let line = to_hex(&ada);
        tally.file.as_mut().unwrap().write_all(&line.as_bytes()[..9]).unwrap();
        assert_eq!(other.spent(&ada, 7), 0);
        tally.add(&ada);
        assert_eq!(other.spent(&ada, 7), 1);
        for letter in format!("{line}\n").bytes() {
            tally.file.as_mut().unwrap().write_all(&[letter]).unwrap();
            other.spent(&ada, 7);
        }
        assert_eq!(other.spent(&ada, 7), 2, "read in pieces too");
    }

    #[test]
    fn what_cannot_be_written_is_counted_in_memory() {
        let ada = sender("telegram", "ada");
        let mut tally = Tally::open(None, 7).unwrap();
        tally.add(&ada);
        assert_eq!((tally.spent(&ada, 7), tally.spent(&ada, 8)), (1, 0));
    }
}
