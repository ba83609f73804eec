//! Role `audit`: prints the records of a home as they lie, goes on as they come, or verifies them.
//!
//! Started by `oxibot audit`, which shows them to people. It writes nothing, and what it prints is not verified unless
//! that is what was asked. Records are printed byte for byte; making them harmless for a terminal is up to who shows
//! them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid, geteuid, setgid, setgroups, setuid};

use super::key::AuditKey;
use super::place;
use super::verify::{self, Anchor, Line, MAX_LINE, Report, next_line};

/// How often new records are looked for.
const LOOK: u16 = 250;
/// Anchors that are read from standard input.
const MOST_ANCHORS: u64 = 16 * 1024 * 1024;

const DONE: u8 = 0;
const BAD: u8 = 1;
const USAGE: u8 = 2;
const FAILED: u8 = 70;

#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Export { follow: bool, since: Option<u64> },
    Verify { anchors: bool },
}

pub(super) fn role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some((home, wish)) = parse(arguments) else { return ExitCode::from(USAGE) };
    if let Err(why) = become_owner(&home) {
        return ExitCode::from(complain(&why));
    }
    let mut out = io::stdout().lock();
    let code = match wish {
        Wish::Export { follow, since } => match export(&home, follow, since, &mut out) {
            Ok(()) => DONE,
            // Whoever read us has gone, which is how `-f` ends.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
            Err(error) => complain(&format!("cannot read the audit log: {error}")),
        },
        Wish::Verify { anchors } => match verified(&home, anchors) {
            Ok(report) => {
                let code = if report.bad.is_some() { BAD } else { DONE };
                match serde_json::to_string(&report).map(|text| writeln!(out, "{text}")) {
                    Ok(Ok(())) => code,
                    Ok(Err(_)) | Err(_) => FAILED,
                }
            }
            Err(why) => complain(&why),
        },
    };
    ExitCode::from(code)
}

/// Root reads the log of another user as that user: what lies there was written under its control, and a service's log is
/// only of use to an administrator. Nobody else is let in by this.
fn become_owner(home: &Path) -> Result<(), String> {
    // A home that is not there holds no records, which is said later.
    let Ok(metadata) = home.metadata() else { return Ok(()) };
    if !geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let cannot = |errno: Errno| format!("cannot become user {}, whose log it is: {errno}", metadata.uid());
    setgroups(&[]).map_err(cannot)?;
    setgid(Gid::from_raw(metadata.gid())).map_err(cannot)?;
    setuid(Uid::from_raw(metadata.uid())).map_err(cannot)
}

fn complain(why: &str) -> u8 {
    // Standard error may be closed; the status says it too.
    let _ = writeln!(io::stderr().lock(), "{why}");
    FAILED
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<(PathBuf, Wish)> {
    let mut arguments = arguments.into_iter();
    if arguments.next()? != "--home" {
        return None;
    }
    let home = PathBuf::from(arguments.next()?);
    let mut wish = match arguments.next()?.to_str()? {
        "export" => Wish::Export { follow: false, since: None },
        "verify" => Wish::Verify { anchors: false },
        _ => return None,
    };
    while let Some(argument) = arguments.next() {
        match (&mut wish, argument.to_str()?) {
            (Wish::Export { follow, .. }, "--follow") => *follow = true,
            (Wish::Export { since, .. }, "--since") => {
                *since = Some(arguments.next()?.to_str()?.parse().ok()?)
            }
            (Wish::Verify { anchors }, "--anchors") => *anchors = true,
            (Wish::Export { .. } | Wish::Verify { .. }, _) => return None,
        }
    }
    Some((home, wish))
}

fn verified(home: &Path, anchored: bool) -> Result<Report, String> {
    let directory = home.join(place::DIRECTORY);
    let chains =
        place::chains(&directory).map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
    if chains.is_empty() {
        return Ok(Report::default());
    }
    let key = AuditKey::existing(home).map_err(|error| error.to_string())?;
    let mut anchors = Vec::new();
    if anchored {
        for line in io::stdin().lock().take(MOST_ANCHORS).lines() {
            let line = line.map_err(|error| format!("cannot read the anchors: {error}"))?;
            anchors.push(anchor(&line).ok_or_else(|| format!("cannot use the anchor {line:?}"))?);
        }
    }
    verify::verify(home, &key, &anchors).map_err(|error| error.to_string())
}

/// `CHAIN SEQ CODE`.
fn anchor(line: &str) -> Option<Anchor> {
    let mut words = line.split(' ');
    let (chain, seq, mac) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    words.next().is_none().then(|| Anchor { chain: chain.to_owned(), seq, mac: mac.to_owned() })
}

/// Prints every whole line of every chain, oldest chain first; then what is added, until nobody reads any more.
fn export(home: &Path, follow: bool, since: Option<u64>, out: &mut impl Write) -> io::Result<()> {
    let directory = home.join(place::DIRECTORY);
    let mut read: BTreeMap<PathBuf, u64> = BTreeMap::new();
    loop {
        for part in place::chains(&directory)?.into_iter().flat_map(|files| files.parts) {
            let from = read.get(&part).copied().unwrap_or(0);
            let found = part.metadata()?;
            let old = since.is_some_and(|since| {
                found.modified().is_ok_and(|time| time < UNIX_EPOCH + Duration::from_secs(since))
            });
            if found.len() > from && !old {
                let to = print_from(&part, from, out)?;
                read.insert(part, to);
            }
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        if nobody_reads()? {
            return Ok(());
        }
    }
}

/// Waits a little, and tells whether the reader has gone meanwhile.
fn nobody_reads() -> io::Result<bool> {
    let stdout = io::stdout();
    // Nothing but errors: a reader that goes away is one.
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    Ok(poll(&mut watched, PollTimeout::from(LOOK))? > 0)
}

fn print_from(path: &Path, from: u64, out: &mut impl Write) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file);
    let mut at = from;
    while let Some(Line::Whole(line)) = next_line(&mut reader)? {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        at = at.saturating_add(u64::try_from(line.len()).unwrap_or(MAX_LINE)).saturating_add(1);
    }
    Ok(at)
}

/// UTC with milliseconds, for example `2026-11-21T23:46:40.123Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Civil date from days since 1970, after Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn dates_are_right() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_304_800, "2026-11-21T23:46:40.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn command_line_is_strict() {
        let wish = |text: &str| parse(words(text)).map(|(_, wish)| wish);
        assert_eq!(
            wish("--home /h export --follow --since 5"),
            Some(Wish::Export { follow: true, since: Some(5) })
        );
        assert_eq!(wish("--home /h verify --anchors"), Some(Wish::Verify { anchors: true }));
        for bad in
            ["", "--home", "--home /h", "--home /h verify --follow", "--home /h export --since x", "verify"]
        {
            assert_eq!(wish(bad), None, "{bad}");
        }
    }

    #[test]
    fn anchor_is_three_words() {
        assert!(anchor("a 1 00").is_some());
        for bad in ["", "a 1", "a x 00", "a 1 00 2"] {
            assert_eq!(anchor(bad), None, "{bad}");
        }
    }

    #[test]
    fn torn_line_is_not_printed_and_is_once_it_is_whole() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("audit")).unwrap();
        let path = home.path().join("audit/a.jsonl");
        std::fs::write(&path, "{\"a\":1}\n{\"b\"").unwrap();
        let mut out = Vec::new();
        let at = print_from(&path, 0, &mut out).unwrap();
        assert_eq!((at, out.as_slice()), (8, &b"{\"a\":1}\n"[..]));
        std::fs::write(&path, "{\"a\":1}\n{\"b\":2}\n").unwrap();
        assert_eq!(print_from(&path, at, &mut out).unwrap(), 16);
        assert!(out.ends_with(b"{\"b\":2}\n"));
    }
}
