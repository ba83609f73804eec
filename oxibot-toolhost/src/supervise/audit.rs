//! The record of what was done: one chain of JSON lines for each supervisor, opened before it shuts itself in.
//!
//! It holds who asked (as main claims), what was asked, what was decided and how it ended; never output, file
//! contents or environment. A record is written before what it tells of happens, and what cannot be recorded is not
//! run. It is synced a second later, and at once where somebody decided something; what a full disk refuses is kept in
//! bounded memory and written first as soon as there is room. How a chain is built and checked is in `crate::audit`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use oxibot_proto::message::{Level, Origin, Protection, Proven, Usage};
use oxibot_proto::redact::Redactor;
use oxibot_proto::settings::{Audit as Settings, AuditDetail};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::journal::Journal;
use super::{log, workspace};
use crate::audit::chain::{Chain, to_hex};
use crate::audit::heads::{self, Head};
use crate::audit::key::AuditKey;
use crate::audit::place::{self, DIRECTORY, ROTATED};
use crate::audit::rfc3339;

/// Bytes of a command line or path kept in a record.
const MAX_DETAIL: usize = 4096;
/// Bytes of a claimed name kept in a record. Prevents main from filling the disk with its claims.
const MAX_CLAIM: usize = 256;
/// Bytes of records that wait for room on the disk. What does not fit is counted and the count recorded.
const MAX_WAITING: usize = 256 * 1024;
/// How long a record may be in the page cache only.
const SYNC: Duration = Duration::from_secs(1);
/// How often the head goes to the journal, if it moved.
const ANCHOR: Duration = Duration::from_secs(60);
/// Earlier chains named in one record, so that a record stays short.
const HEADS: usize = 64;

/// The log, or nothing when there is no home to keep it in.
#[derive(Debug)]
pub(crate) struct Audit {
    log: Option<Log>,
    detail: AuditDetail,
    /// Takes what has the shape of a key out of command lines and claims.
    redactor: Option<Redactor>,
    now: fn() -> SystemTime,
}

#[derive(Debug)]
struct Log {
    chain: Chain,
    file: File,
    /// Open as long as we live: the lock on it tells the chains that are written from those that ended.
    _first: File,
    rotated: File,
    /// Number of the current part, from 1.
    part: u32,
    bytes: u64,
    rotate_at: u64,
    /// Sealed and not on the disk, oldest first; may begin in the middle of a line.
    waiting: Vec<u8>,
    /// Records that found no room even there.
    lost: u64,
    /// When what was written has to be synced.
    sync_by: Option<Instant>,
    /// The last sync failed: what the kernel took may not be there.
    unsynced: bool,
    journal: Option<Journal>,
    anchored: u64,
    anchor_at: Instant,
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
    /// Command line or path, capped, for us; never recorded from here.
    #[serde(skip)]
    pub(crate) text: String,
    /// The same for the record, unless `audit.detail` is `digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// SHA-256 of command line or path, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail_sha256: Option<String>,
    /// Bytes of what would be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
}

/// What a call is about: its command line or path, and the size of what it writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) text: String,
    pub(crate) size: Option<u64>,
}

/// Cuts at a character boundary.
pub(crate) fn capped(text: &str, limit: usize) -> String {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default().to_owned()
}

#[derive(Serialize)]
struct Open<'a> {
    pid: u32,
    uid: u32,
    version: &'a str,
    heads: &'a [Head],
}

#[derive(Serialize)]
struct Heads<'a> {
    heads: &'a [Head],
}

#[derive(Serialize)]
struct Start<'a> {
    level: Level,
    proven: Option<Proven>,
    protections: &'a [Protection],
}

#[derive(Serialize)]
struct Decided<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    verdict: &'a str,
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a str>,
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
    usage: Option<Usage>,
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
    pub(crate) usage: Option<Usage>,
}

/// What a series of attacks on our own wall came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct SelfAttack<'a> {
    /// `held`, `broken`, or `recorded` for a pass of an earlier start.
    pub(crate) result: &'a str,
    pub(crate) level: Level,
    /// Which got through, or why it could not be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
}

#[derive(Serialize)]
struct Nothing {}

/// When a record reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Before this returns: somebody decided something.
    Now,
    /// Within a second.
    Soon,
}

impl Audit {
    /// No home, no log. Only for a toolhost that was started without `--home`.
    pub(crate) fn none() -> Self {
        Self { log: None, detail: AuditDetail::Calls, redactor: None, now: SystemTime::now }
    }

    /// Begins the chain `name` below `home` and names the earlier ones.
    pub(crate) fn open(home: &Path, name: &str, settings: &Settings) -> std::io::Result<Self> {
        let directory = home.join(DIRECTORY);
        let rotated = directory.join(ROTATED);
        workspace::create(&rotated)?;
        let key = AuditKey::open(home).map_err(std::io::Error::other)?;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(directory.join(format!("{name}.jsonl")))?;
        heads::mark_written(&file)?;
        let (earlier, trouble) = heads::name_earlier(home, &key, name);
        if let Some(trouble) = trouble {
            log::always(&trouble);
        }
        let log = Log {
            chain: Chain::begin(&key, name),
            _first: file.try_clone()?,
            file,
            rotated: File::open(&rotated)?,
            part: 1,
            bytes: 0,
            rotate_at: u64::from(settings.rotate_mb) * 1024 * 1024,
            waiting: Vec::new(),
            lost: 0,
            sync_by: None,
            unsynced: false,
            journal: Journal::open(),
            anchored: 0,
            anchor_at: Instant::now(),
        };
        let mut audit =
            Self { log: Some(log), detail: settings.detail, redactor: None, now: SystemTime::now };
        let (first, rest) = earlier.split_at(earlier.len().min(HEADS));
        let open = Open {
            pid: std::process::id(),
            uid: nix::unistd::geteuid().as_raw(),
            version: env!("CARGO_PKG_VERSION"),
            heads: first,
        };
        audit.write("open", open, Sync::Soon).map_err(std::io::Error::other)?;
        for heads in rest.chunks(HEADS) {
            audit.write("heads", Heads { heads }, Sync::Soon).map_err(std::io::Error::other)?;
        }
        Ok(audit)
    }

    /// The directory in which the supervisor goes on making files, for the rule that allows it.
    pub(crate) fn rotated(&self) -> Option<&File> {
        self.log.as_ref().map(|log| &log.rotated)
    }

    /// From here on no record holds what has the shape of a key.
    pub(crate) fn redact_with(&mut self, redactor: &Redactor) {
        self.redactor = Some(redactor.clone());
    }

    /// A subject with every claimed string capped, and keys taken out of all that is recorded.
    pub(crate) fn subject(
        &self,
        call_id: &str,
        tool: &str,
        origin: &Origin,
        workspace: &str,
        about: &About,
    ) -> Subject {
        let text = capped(&about.text, MAX_DETAIL);
        let clean = |text: &str, most: usize| match &self.redactor {
            Some(redactor) => capped(&redactor.text(text), most),
            None => capped(text, most),
        };
        let (detail, detail_sha256) = match self.detail {
            // Before it is cut: half a key is not recognised.
            AuditDetail::Calls => (Some(clean(&about.text, MAX_DETAIL)), None),
            AuditDetail::Digest => (None, Some(to_hex(&Sha256::digest(about.text.as_bytes())))),
        };
        Subject {
            call_id: call_id.to_owned(),
            tool: clean(tool, MAX_CLAIM),
            who: clean(&origin.who, MAX_CLAIM),
            channel: clean(&origin.channel, MAX_CLAIM),
            session: clean(&origin.session, MAX_CLAIM),
            workspace: workspace.to_owned(),
            text,
            detail,
            detail_sha256,
            size: about.size,
        }
    }

    fn write<T: Serialize>(&mut self, event: &str, body: T, sync: Sync) -> Result<(), Unwritable> {
        let now = self.now;
        let Some(log) = &mut self.log else { return Ok(()) };
        log.write(now(), event, body, sync)
    }

    /// The supervisor is ready.
    pub(crate) fn start(
        &mut self,
        level: Level,
        proven: Option<Proven>,
        protections: &[Protection],
    ) -> Result<(), Unwritable> {
        self.write("start", Start { level, proven, protections }, Sync::Now)?;
        self.anchor();
        Ok(())
    }

    /// A series of attacks on our own wall ended.
    pub(crate) fn self_attack(&mut self, attack: SelfAttack<'_>) -> Result<(), Unwritable> {
        self.write("self_attack", attack, Sync::Soon)
    }

    /// A call was judged; it runs only if this was written.
    pub(crate) fn call(
        &mut self,
        subject: &Subject,
        verdict: &str,
        rule: Option<&str>,
        approval: Option<&str>,
        level: Level,
    ) -> Result<(), Unwritable> {
        let sync = if rule.is_some() { Sync::Now } else { Sync::Soon };
        self.write(
            &format!("tool_call: {}", subject.tool),
            Decided { subject, verdict, rule, approval, level },
            sync,
        )
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
            usage: end.usage,
        };
        self.write("tool_result", body, Sync::Soon)
    }

    /// Something of the whole process: `emergency_stop` and the like.
    pub(crate) fn event(&mut self, event: &str) -> Result<(), Unwritable> {
        self.write(event, Nothing {}, Sync::Now)
    }

    /// Something with fields of its own, for example an approval.
    pub(crate) fn told<T: Serialize>(&mut self, event: &str, body: T, sync: Sync) -> Result<(), Unwritable> {
        self.write(event, body, sync)
    }

    /// The end: the last record, on the disk, and its head in the journal.
    pub(crate) fn stop(&mut self) -> Result<(), Unwritable> {
        self.event("stop")?;
        self.anchor();
        Ok(())
    }

    /// When something is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let log = self.log.as_ref()?;
        let anchor = (log.journal.is_some() && log.anchored < log.chain.next()).then_some(log.anchor_at);
        [log.sync_by, anchor].into_iter().flatten().min()
    }

    /// Syncs, writes what waits, tells the journal, each if it is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Unwritable> {
        let wall = self.now;
        let Some(log) = &mut self.log else { return Ok(()) };
        if log.journal.is_some() && log.anchored < log.chain.next() && now >= log.anchor_at {
            log.anchor();
        }
        if log.sync_by.is_none_or(|by| now < by) {
            return Ok(());
        }
        log.sync_by = Some(now + SYNC);
        log.catch_up(wall())?;
        log.sync()
    }

    fn anchor(&mut self) {
        if let Some(log) = &mut self.log {
            log.anchor();
        }
    }
}

impl Log {
    fn write<T: Serialize>(
        &mut self,
        time: SystemTime,
        event: &str,
        body: T,
        sync: Sync,
    ) -> Result<(), Unwritable> {
        let ready = self.catch_up(time);
        if ready.is_ok() && self.bytes >= self.rotate_at {
            self.rotate(time);
        }
        if self.waiting.len() >= MAX_WAITING {
            self.lost += 1;
            return ready;
        }
        let line = self.chain.seal(rfc3339(time), event, body).map_err(Unwritable)?;
        self.append(&line)?;
        ready?;
        match sync {
            Sync::Now => self.sync(),
            Sync::Soon if self.unsynced => Err(unsynced()),
            Sync::Soon => Ok(()),
        }
    }

    /// Puts a sealed line on the disk, or with what waits for it: its place in the chain is taken either way.
    fn append(&mut self, line: &[u8]) -> Result<(), Unwritable> {
        self.sync_by.get_or_insert_with(|| Instant::now() + SYNC);
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(line);
            return Err(Unwritable("the disk is full".to_owned()));
        }
        let (written, result) = write_some(&mut self.file, line);
        self.bytes += written as u64;
        self.waiting.extend_from_slice(line.get(written..).unwrap_or_default());
        result
    }

    /// Writes what waits, and how much was lost meanwhile.
    fn catch_up(&mut self, time: SystemTime) -> Result<(), Unwritable> {
        if !self.waiting.is_empty() {
            let (written, result) = write_some(&mut self.file, &self.waiting);
            self.bytes += written as u64;
            self.waiting.drain(..written);
            result?;
        }
        if self.lost > 0 {
            #[derive(Serialize)]
            struct Gap {
                lost: u64,
            }
            let line = self.chain.seal(rfc3339(time), "gap", Gap { lost: self.lost }).map_err(Unwritable)?;
            self.lost = 0;
            self.append(&line)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Unwritable> {
        match self.file.sync_data() {
            Ok(()) => {
                self.unsynced = false;
                if self.waiting.is_empty() {
                    self.sync_by = None;
                }
                Ok(())
            }
            Err(error) => {
                self.unsynced = true;
                Err(Unwritable(error.to_string()))
            }
        }
    }

    /// Goes on in a new file. If none can be made the old one grows further.
    fn rotate(&mut self, time: SystemTime) {
        #[derive(Serialize)]
        struct Rotate {
            next: String,
        }
        let next = place::rotated(self.chain.name(), self.part + 1);
        let flags = OFlag::O_CREAT
            | OFlag::O_EXCL
            | OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let Ok(file) = openat(&self.rotated, next.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) else {
            return;
        };
        // The record first: a file that is not announced is empty, one that is announced is there.
        let announced = match self.chain.seal(rfc3339(time), "rotate", Rotate { next }) {
            Ok(line) => self.append(&line),
            Err(error) => Err(Unwritable(error)),
        };
        if announced.and_then(|()| self.sync()).is_ok() {
            self.file = File::from(file);
            self.part += 1;
            self.bytes = 0;
        }
    }

    fn anchor(&mut self) {
        self.anchor_at = Instant::now() + ANCHOR;
        let Some(journal) = &self.journal else { return };
        let Some(last) = self.chain.next().checked_sub(1) else { return };
        // A journal that is busy gets the next one.
        if journal.anchor(self.chain.name(), last, &to_hex(self.chain.head())).is_ok() {
            self.anchored = self.chain.next();
        }
    }
}

fn unsynced() -> Unwritable {
    Unwritable("what was written before could not be synced".to_owned())
}

/// Writes as much as goes, and how much that was.
fn write_some(file: &mut File, bytes: &[u8]) -> (usize, Result<(), Unwritable>) {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (done, Err(Unwritable("nothing can be written".to_owned()))),
            Ok(count) => done += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(Unwritable(error.to_string()))),
        }
    }
    (done, Ok(()))
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
