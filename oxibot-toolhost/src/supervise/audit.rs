//! The record of what was done: JSON lines, one file for each supervisor, opened before it shuts itself in.
//!
//! It holds who asked (as main claims), what was asked, what was decided and how it ended; never output, file
//! contents or environment. It is not yet a keyed chain: a later issue adds that. What cannot be recorded is not run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oxibot_proto::message::{Level, Origin, Protection};
use serde::Serialize;

/// Bytes of a command line or path kept in a record.
const MAX_DETAIL: usize = 4096;
/// Bytes of a claimed name kept in a record. Prevents main from filling the disk with its claims.
const MAX_CLAIM: usize = 256;

/// The file, or nothing when there is no home to keep it in.
#[derive(Debug)]
pub(crate) struct Audit {
    file: Option<File>,
    now: fn() -> SystemTime,
}

/// A record could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log: {0}")]
pub(crate) struct Unwritable(String);

/// What a call is recorded as.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Subject {
    pub(crate) call_id: String,
    pub(crate) tool: String,
    pub(crate) who: String,
    pub(crate) channel: String,
    pub(crate) session: String,
    pub(crate) workspace: String,
    /// Command line or path, capped.
    pub(crate) detail: String,
}

impl Subject {
    /// A subject with every claimed string capped.
    pub(crate) fn new(call_id: &str, tool: &str, origin: &Origin, workspace: &str, detail: &str) -> Self {
        Self {
            call_id: call_id.to_owned(),
            tool: capped(tool, MAX_CLAIM),
            who: capped(&origin.who, MAX_CLAIM),
            channel: capped(&origin.channel, MAX_CLAIM),
            session: capped(&origin.session, MAX_CLAIM),
            workspace: workspace.to_owned(),
            detail: capped(detail, MAX_DETAIL),
        }
    }
}

/// Cuts at a character boundary.
pub(crate) fn capped(text: &str, limit: usize) -> String {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default().to_owned()
}

#[derive(Serialize)]
struct Record<'a, T> {
    time: String,
    event: &'a str,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize)]
struct Start<'a> {
    pid: u32,
    version: &'a str,
    level: Level,
    protections: &'a [Protection],
}

#[derive(Serialize)]
struct Decided<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    verdict: &'a str,
    rule: Option<&'a str>,
    level: Level,
}

#[derive(Serialize)]
struct Ended<'a> {
    call_id: &'a str,
    tool: &'a str,
    outcome: &'a str,
    rule: Option<&'a str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    level: Level,
    duration_ms: u64,
    output_bytes: u64,
}

/// A connection a call asked its proxy for, and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Connection<'a> {
    pub(crate) call_id: &'a str,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) verdict: &'a str,
    pub(crate) rule: Option<&'a str>,
    pub(crate) address: Option<&'a str>,
}

/// How a call ended, for its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) outcome: &'a str,
    pub(crate) rule: Option<&'a str>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) level: Level,
    pub(crate) duration: Duration,
    pub(crate) output_bytes: u64,
}

impl Audit {
    /// No home, no log. Only for a toolhost that was started without `--home`.
    pub(crate) fn none() -> Self {
        Self { file: None, now: SystemTime::now }
    }

    /// Opens `audit/<name>.jsonl` below `home`.
    pub(crate) fn open(home: &Path, name: &str) -> std::io::Result<Self> {
        let directory = home.join("audit");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(directory.join(format!("{name}.jsonl")))?;
        Ok(Self { file: Some(file), now: SystemTime::now })
    }

    fn write<T: Serialize>(&mut self, event: &str, body: T, sync: Sync) -> Result<(), Unwritable> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let record = Record { time: rfc3339((self.now)()), event, body };
        let mut line = serde_json::to_vec(&record).map_err(|error| Unwritable(error.to_string()))?;
        line.push(b'\n');
        let written = file.write_all(&line).and_then(|()| match sync {
            Sync::Yes => file.sync_data(),
            Sync::No => Ok(()),
        });
        written.map_err(|error| Unwritable(error.to_string()))
    }

    /// The supervisor is ready.
    pub(crate) fn start(&mut self, level: Level, protections: &[Protection]) -> Result<(), Unwritable> {
        let body = Start { pid: std::process::id(), version: env!("CARGO_PKG_VERSION"), level, protections };
        self.write("start", body, Sync::Yes)
    }

    /// A call was judged; it runs only if this was written.
    pub(crate) fn call(
        &mut self,
        subject: &Subject,
        verdict: &str,
        rule: Option<&str>,
        level: Level,
    ) -> Result<(), Unwritable> {
        let sync = if rule.is_some() { Sync::Yes } else { Sync::No };
        self.write(&format!("tool_call: {}", subject.tool), Decided { subject, verdict, rule, level }, sync)
    }

    /// A call ended.
    pub(crate) fn result(&mut self, subject: &Subject, end: End<'_>) -> Result<(), Unwritable> {
        let body = Ended {
            call_id: &subject.call_id,
            tool: &subject.tool,
            outcome: end.outcome,
            rule: end.rule,
            exit_code: end.exit_code,
            signal: end.signal,
            level: end.level,
            duration_ms: u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
            output_bytes: end.output_bytes,
        };
        self.write("tool_result", body, Sync::No)
    }

    /// The proxy of a call decided.
    pub(crate) fn connection(&mut self, connection: Connection<'_>) -> Result<(), Unwritable> {
        self.write("connection", connection, Sync::No)
    }

    /// Something of the whole process: `stop`, `emergency_stop`.
    pub(crate) fn event(&mut self, event: &str) -> Result<(), Unwritable> {
        self.write(event, serde_json::Map::new(), Sync::Yes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Yes,
    No,
}

/// UTC with milliseconds, for example `2026-11-21T23:46:40.123Z`.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Civil date from days, after Howard Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn origin() -> Origin {
        Origin { who: "w".repeat(1000), channel: "terminal".into(), session: "s".into() }
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
    fn records_are_json_lines_in_a_private_file() {
        let home = tempfile::tempdir().unwrap();
        let mut audit = Audit::open(home.path(), "x").unwrap();
        audit.start(Level::Full, &[]).unwrap();
        let subject = Subject::new("id", "bash", &origin(), "/w", &"é".repeat(4000));
        audit.call(&subject, "allow", None, Level::Full).unwrap();
        audit.event("stop").unwrap();
        let path = home.path().join("audit/x.jsonl");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let lines: Vec<serde_json::Value> = std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["event"], "tool_call: bash");
        assert_eq!(lines[1]["detail"].as_str().unwrap().len(), 4096);
        assert_eq!(lines[1]["who"].as_str().unwrap().len(), 256);
    }

    #[test]
    fn full_disk_is_an_error() {
        let mut audit = Audit {
            file: Some(OpenOptions::new().append(true).open("/dev/full").unwrap()),
            now: SystemTime::now,
        };
        assert!(audit.event("stop").is_err());
    }
}
