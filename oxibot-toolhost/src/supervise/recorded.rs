//! The pass that commands which do one thing may reuse: `audit/proven`, one line for each sandbox configuration.
//!
//! A line says under which conditions the battery held, and carries a code of the audit key over all of it. Whatever is
//! not exactly as it should be is ignored, said, and costs the time of a battery; nothing read here can make a wall
//! pass that was not attacked under these very conditions. It is no defence against the same user, who can replace the
//! program itself.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::Mac;
use oxibot_proto::message::Level;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::audit::chain::{from_hex, to_hex};
use crate::audit::key::{AuditKey, Unfit, open_private};

/// Name below the home.
const NAME: &str = "audit/proven";
/// What codes of these lines are for.
const PURPOSE: &str = "oxibot proven 1";
/// How long a pass counts.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Lines kept: configurations and workspaces in use at a time.
const MOST_LINES: usize = 64;
/// Bytes read. Prevents a planted file from costing more than a battery.
const MOST_BYTES: u64 = 128 * 1024;

/// What has to be the same for a pass to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conditions {
    /// Of this boot, as the kernel names it.
    pub(crate) boot: String,
    pub(crate) user: u32,
    /// Release and version of the kernel.
    pub(crate) kernel: String,
    pub(crate) level: Level,
    pub(crate) landlock_abi: u32,
    /// SHA-256 of everything the wall is built from: profile, sandbox section, limits.
    pub(crate) configuration: String,
}

/// The toolhost's own binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    sha256: String,
    /// Device, inode, size and time of the last change, which only the kernel sets: as long as they are the same so
    /// are the bytes, and need not be read again.
    identity: [u64; 5],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    conditions: Conditions,
    binary: Binary,
    /// Seconds since 1970.
    at: u64,
    attacks: usize,
}

/// Why no recorded pass is used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotUsed {
    /// Nothing was ever recorded for this configuration.
    None,
    /// Something was, and it does not count. To be said.
    Ignored(String),
}

fn ignored<T>(why: impl Into<String>) -> Result<T, NotUsed> {
    Err(NotUsed::Ignored(why.into()))
}

/// The record of one home.
#[derive(Debug)]
pub(crate) struct Recorded {
    path: PathBuf,
    key: AuditKey,
    /// Our own binary.
    program: PathBuf,
}

impl Recorded {
    pub(crate) fn new(home: &Path, key: AuditKey) -> Self {
        Self { path: home.join(NAME), key, program: "/proc/self/exe".into() }
    }

    /// Looks for a pass under these conditions.
    pub(crate) fn find(&self, conditions: &Conditions, now: SystemTime) -> Result<(), NotUsed> {
        let text = self.read()?;
        let mut why = NotUsed::None;
        for line in text.lines() {
            let Some(line) = self.authentic(line) else {
                return ignored(format!("{} holds a line that was not written by us", self.path.display()));
            };
            if line.conditions.configuration != conditions.configuration {
                continue;
            }
            match self.fits(&line, conditions, now) {
                Ok(()) => return Ok(()),
                Err(found) => why = found,
            }
        }
        Err(why)
    }

    fn fits(&self, line: &Line, conditions: &Conditions, now: SystemTime) -> Result<(), NotUsed> {
        let found = &line.conditions;
        let differs = [
            ("boot", found.boot != conditions.boot),
            ("user", found.user != conditions.user),
            ("kernel", found.kernel != conditions.kernel),
            ("level", found.level != conditions.level || found.landlock_abi != conditions.landlock_abi),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            return ignored(format!("the recorded pass is of another {what}"));
        }
        let at = UNIX_EPOCH + Duration::from_secs(line.at);
        match now.duration_since(at) {
            Ok(age) if age > LIFE => return ignored("the recorded pass is older than a day"),
            Err(_) => return ignored("the recorded pass is of the future"),
            Ok(_) => {}
        }
        let identity = identity(&self.program).map_err(NotUsed::Ignored)?;
        let same = identity == line.binary.identity
            || digest_of(&self.program).map_err(NotUsed::Ignored)? == line.binary.sha256;
        if same { Ok(()) } else { ignored("the recorded pass is of another toolhost") }
    }

    fn read(&self) -> Result<String, NotUsed> {
        let file = match open_private(&self.path) {
            Ok(file) => file,
            Err(Unfit::Absent) => return Err(NotUsed::None),
            Err(Unfit::Not(why)) => return ignored(format!("cannot use {}: {why}", self.path.display())),
        };
        let mut text = String::new();
        match file.take(MOST_BYTES + 1).read_to_string(&mut text) {
            Ok(_) if text.len() as u64 <= MOST_BYTES => Ok(text),
            Ok(_) => ignored(format!("cannot use {}: it is too large", self.path.display())),
            Err(error) => ignored(format!("cannot use {}: {error}", self.path.display())),
        }
    }

    /// `CODE JSON`, parsed only once the code is right.
    fn authentic(&self, line: &str) -> Option<Line> {
        let (code, json) = line.split_once(' ')?;
        let mut expected = self.key.code(PURPOSE);
        expected.update(json.as_bytes());
        expected.verify_slice(&from_hex(code)?).ok()?;
        serde_json::from_str(json).ok()
    }

    /// Records a pass, with the others that may still count, by a new file that takes the old one's place.
    pub(crate) fn keep(&self, conditions: Conditions, attacks: usize, now: SystemTime) -> Result<(), String> {
        let binary = Binary { identity: identity(&self.program)?, sha256: digest_of(&self.program)? };
        let at = now.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
        let mut lines: Vec<Line> = self
            .read()
            .unwrap_or_default()
            .lines()
            .filter_map(|line| self.authentic(line))
            .filter(|line| {
                line.conditions.boot == conditions.boot
                    && line.conditions.configuration != conditions.configuration
                    && at.saturating_sub(line.at) <= LIFE.as_secs()
            })
            .collect();
        lines.push(Line { conditions, binary, at, attacks });
        let newest = lines.len().saturating_sub(MOST_LINES);
        let mut text = String::new();
        for line in lines.iter().skip(newest) {
            let json = serde_json::to_string(line).map_err(|error| error.to_string())?;
            let mut code = self.key.code(PURPOSE);
            code.update(json.as_bytes());
            text.push_str(&format!("{} {json}\n", to_hex(&code.finalize().into_bytes())));
        }
        self.replace(&text).map_err(|error| error.to_string())
    }

    fn replace(&self, text: &str) -> std::io::Result<()> {
        let new = self.path.with_file_name(format!(".proven-{}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&new, &self.path)).inspect_err(|_| {
            let _ = std::fs::remove_file(&new);
        })
    }
}

/// SHA-256 of parts, each with its length, so that no two lists of parts have the same.
pub(crate) fn digest_of_parts(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    to_hex(&digest.finalize())
}

fn digest_of(program: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot read our own binary: {error}");
    let mut file = File::open(program).map_err(failed)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(to_hex(&digest.finalize())),
            count => digest.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

fn identity(program: &Path) -> Result<[u64; 5], String> {
    let found = program.metadata().map_err(|error| format!("cannot look at our own binary: {error}"))?;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok([found.dev(), found.ino(), found.size(), number(found.ctime()), number(found.ctime_nsec())])
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
