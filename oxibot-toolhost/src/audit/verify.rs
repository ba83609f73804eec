//! Whether the log is what was written: every record of every chain, and no chain cut short or taken away.
//!
//! A line torn at the end of a chain, and a chain without a last record `stop`, are what a killed process or a lost
//! machine leaves; they are told and are no fault. Everything else that is not as it was written is, and the first
//! such record is named. It cannot tell a log that was written anew by someone who can read the audit key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::{Bad, Chain, Code, from_hex, split};
use super::heads::{self, Head};
use super::key::AuditKey;
use super::place::{self, Files};

/// Longest line that is read. A record is a tenth of it at most; prevents a planted file from filling the memory.
pub(super) const MAX_LINE: u64 = 1024 * 1024;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) chains: u64,
    pub(super) records: u64,
    /// Files whose last line was torn off.
    pub(super) torn: Vec<String>,
    /// Chains that do not end in a record `stop`: running, killed, or cut.
    pub(super) unfinished: Vec<String>,
    /// Files of before there was a chain.
    pub(super) unchained: Vec<String>,
    /// Anchors of the journal that were compared.
    pub(super) anchors: u64,
    /// The first bad record; nothing when the log is whole.
    pub(super) bad: Option<Finding>,
}

/// Where the log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) file: String,
    /// From 1.
    pub(super) line: Option<u64>,
    pub(super) why: String,
}

/// A head somebody else keeps: the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) chain: String,
    pub(super) seq: u64,
    pub(super) mac: String,
}

/// The log cannot be read at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {cause}")]
pub(super) struct Unreadable {
    pub(super) path: String,
    pub(super) cause: String,
}

#[derive(Default)]
struct Seen {
    codes: Vec<Code>,
    heads: Vec<Head>,
    last_event: String,
    file: String,
}

#[derive(Deserialize)]
struct Heads {
    #[serde(default)]
    heads: Vec<Head>,
}

/// Verifies everything below `home/audit`.
pub(super) fn verify(home: &Path, key: &AuditKey, anchors: &[Anchor]) -> Result<Report, Unreadable> {
    let directory = home.join(place::DIRECTORY);
    let chains = place::chains(&directory).map_err(|error| unreadable(&directory, &error))?;
    let mut report = Report::default();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for files in &chains {
        if let Some(found) = chain(files, key, &mut report)? {
            seen.insert(files.name.clone(), found);
        }
        if report.bad.is_some() {
            return Ok(report);
        }
    }
    report.bad = named(&directory, key, &seen, anchors, &mut report.anchors);
    Ok(report)
}

/// Checks one chain. Nothing comes back for a file of before there was a chain.
fn chain(files: &Files, key: &AuditKey, report: &mut Report) -> Result<Option<Seen>, Unreadable> {
    let mut chain = Chain::begin(key, &files.name);
    let mut seen = Seen::default();
    for (index, part) in files.parts.iter().enumerate() {
        let file = File::open(part).map_err(|error| unreadable(part, &error))?;
        let mut reader = BufReader::new(file);
        let mut number = 0;
        let shown = shown(part);
        if seen.file.is_empty() {
            seen.file.clone_from(&shown);
        }
        let bad = |line: u64, why: String| Some(Finding { file: shown.clone(), line: Some(line), why });
        let is_last = index + 1 == files.parts.len();
        while let Some(line) = next_line(&mut reader).map_err(|error| unreadable(part, &error))? {
            number += 1;
            let line = match line {
                Line::Whole(line) => line,
                // Only the end of a chain can be torn by the end of its writer.
                Line::Torn if is_last || files.parts.len() > 1 && rest_is_empty(&files.parts, index) => {
                    report.torn.push(shown.clone());
                    break;
                }
                Line::Torn => {
                    report.bad = bad(number, "the line is torn, and the chain goes on after it".to_owned());
                    return Ok(None);
                }
            };
            if index == 0 && number == 1 && is_older(&line) {
                report.unchained.push(shown);
                return Ok(None);
            }
            if index > 0 && number == 1 && seen.last_event != "rotate" {
                let why = "the file before it does not end in a record `rotate`: its end was cut off";
                report.bad = bad(number, why.to_owned());
                return Ok(None);
            }
            match chain.check(&line) {
                Ok(header) => {
                    report.records += 1;
                    seen.codes.push(*chain.head());
                    if matches!(header.event.as_str(), "open" | "heads")
                        && let Ok(Heads { heads }) = serde_json::from_slice(&line)
                    {
                        seen.heads.extend(heads);
                    }
                    seen.last_event = header.event;
                }
                Err(Bad::Misplaced) => {
                    report.bad = bad(number, Bad::Misplaced.to_string());
                    return Ok(None);
                }
                Err(why @ (Bad::NoCode | Bad::Code | Bad::Newer(_))) => {
                    report.bad = bad(number, why.to_string());
                    return Ok(None);
                }
            }
        }
    }
    report.chains += 1;
    if seen.last_event != "stop" {
        report.unfinished.push(files.name.clone());
    }
    Ok(Some(seen))
}

/// What others say of a chain: later chains, the list of open ones, the journal.
fn named(
    directory: &Path,
    key: &AuditKey,
    seen: &BTreeMap<String, Seen>,
    anchors: &[Anchor],
    compared: &mut u64,
) -> Option<Finding> {
    let missing = |chain: &str, by: &str| Finding {
        file: format!("{chain}.jsonl"),
        line: None,
        why: format!("it is missing, and {by} names it"),
    };
    let differs = |name: &str, seq: u64, mac: &str, by: &str| {
        let Some(found) = seen.get(name) else { return Some(missing(name, by)) };
        let position = usize::try_from(seq).unwrap_or(usize::MAX);
        let there = found.codes.len();
        let why = match found.codes.get(position) {
            Some(code) if from_hex(mac).is_some_and(|mac| mac == *code) => return None,
            Some(_) => format!("record {seq} is another one than {by} names: the log was written anew"),
            None => format!("{by} names its record {seq}, and it has {there}: its end was cut off"),
        };
        Some(Finding { file: found.file.clone(), line: None, why })
    };
    for (later, found) in seen {
        for head in &found.heads {
            let by = format!("the chain {later}");
            let known_of_before =
                !seen.contains_key(&head.chain) && directory.join(format!("{}.jsonl", head.chain)).exists();
            if !known_of_before && let Some(finding) = differs(&head.chain, head.seq, &head.mac, &by) {
                return Some(finding);
            }
        }
    }
    for anchor in anchors {
        // Anchors of another home, or of a log that was put away, are not ours to judge.
        if seen.contains_key(&anchor.chain) {
            if let Some(finding) = differs(&anchor.chain, anchor.seq, &anchor.mac, "the journal") {
                return Some(finding);
            }
            *compared += 1;
        }
    }
    let list = heads::read(directory, key).unwrap_or_default();
    list.iter()
        .find(|name| !directory.join(format!("{name}.jsonl")).exists())
        .map(|name| missing(name, "the list of open chains"))
}

fn rest_is_empty(parts: &[PathBuf], index: usize) -> bool {
    parts.iter().skip(index + 1).all(|part| part.metadata().is_ok_and(|found| found.len() == 0))
}

/// A record of before there was a chain has neither version nor code.
fn is_older(line: &[u8]) -> bool {
    split(line).is_none()
        && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line)
            .is_ok_and(|record| !record.contains_key("v") && record.contains_key("event"))
}

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole(Vec<u8>),
    /// Without a line feed, or far too long.
    Torn,
}

pub(super) fn next_line(reader: &mut impl BufRead) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut limited = std::io::Read::take(reader, MAX_LINE);
    limited.read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Line::Whole(line))),
        Some(_) => Ok(Some(Line::Torn)),
    }
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Unreadable {
    Unreadable { path: path.display().to_string(), cause: error.to_string() }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
