//! Which files there are: `audit/<chain>.jsonl`, and what a chain went on in, `audit/rotated/<chain>.<n>.jsonl`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chain::{self, to_hex};

/// Directory of the log below a home.
pub(crate) const DIRECTORY: &str = "audit";
/// Directory of what was rotated, below it. Apart, because the supervisor keeps the right to make files there and must
/// not have it where the key is.
pub(crate) const ROTATED: &str = "rotated";
/// Bytes at the end of a file in which its last record is looked for; no record is half as long.
const TAIL: u64 = 256 * 1024;

/// One chain's files, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) name: String,
    pub(crate) parts: Vec<PathBuf>,
}

/// Where a chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) seq: u64,
    /// In hexadecimal.
    pub(crate) mac: String,
}

/// A name that [`rotated`] and the supervisor give: letters, digits and `-` only.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// File of a chain's part `number`, from 2, below [`ROTATED`].
pub(crate) fn rotated(name: &str, number: u32) -> String {
    format!("{name}.{number}.jsonl")
}

/// Every chain of a directory, oldest first. A directory that is not there holds none.
pub(crate) fn chains(directory: &Path) -> std::io::Result<Vec<Files>> {
    let mut found: BTreeMap<String, BTreeMap<u32, PathBuf>> = BTreeMap::new();
    let mut look = |directory: &Path, first: bool| -> std::io::Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let Some(stem) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jsonl"))
            else {
                continue;
            };
            let (name, number) = match stem.split_once('.') {
                None if first => (stem, Some(1)),
                Some((name, number)) if !first => (name, number.parse().ok().filter(|number| *number > 1)),
                None | Some(_) => continue,
            };
            if let (true, Some(number)) = (is_name(name), number) {
                found.entry(name.to_owned()).or_default().insert(number, path);
            }
        }
        Ok(())
    };
    look(directory, true)?;
    look(&directory.join(ROTATED), false)?;
    let chains = found.into_iter().map(|(name, parts)| Files { name, parts: parts.into_values().collect() });
    Ok(chains.collect())
}

/// The last whole record of a chain, as it says. `None` when there is none, or none that looks like ours.
pub(crate) fn tail(files: &Files) -> Option<Tail> {
    #[derive(Deserialize)]
    struct Seq {
        seq: u64,
    }
    files.parts.iter().rev().find_map(|part| {
        let line = last_line(part).ok()??;
        let (_, code) = chain::split(&line)?;
        let Seq { seq } = serde_json::from_slice(&line).ok()?;
        Some(Tail { seq, mac: to_hex(&code) })
    })
}

fn last_line(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    // What follows the last line feed was torn off by the end of its writer.
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(None) };
    bytes.truncate(end);
    let begin = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(bytes.get(begin..).map(<[u8]>::to_vec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_found_with_their_parts_in_order_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path();
        std::fs::create_dir(directory.join(ROTATED)).unwrap();
        for name in [
            "b-1.jsonl",
            "a-1.jsonl",
            "key",
            "proven",
            "a-1.2.jsonl",
            "rotated/a-1.10.jsonl",
            "rotated/a-1.2.jsonl",
            "rotated/a-1.1.jsonl",
            "rotated/a-1.x.jsonl",
            "rotated/b-1.jsonl",
        ] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let found = chains(directory).unwrap();
        let names: Vec<(&str, usize)> = found.iter().map(|f| (f.name.as_str(), f.parts.len())).collect();
        assert_eq!(names, [("a-1", 3), ("b-1", 1)]);
        assert!(found[0].parts[2].ends_with("rotated/a-1.10.jsonl"));
        assert_eq!(chains(&directory.join("none")).unwrap(), []);
    }
}
