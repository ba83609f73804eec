//! What a new chain says of the earlier ones: where each ended, so that a chain cut short or taken away is missed.
//!
//! `audit/open` lists the chains that were not yet named after their end: those that are still written, and those that
//! ended since the last start. It is authenticated with the audit key; without it, or if it is not ours, every chain
//! there is gets named again. Reading and writing it is guarded by a lock on `audit/key`. Starts must stay quick: what
//! is read is the end of the few chains on the list.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use hmac::Mac;
use serde::{Deserialize, Serialize};

use super::chain::{from_hex, to_hex};
use super::key::{AuditKey, NAME as KEY, Unfit, open_private};
use super::place::{self, Files};

/// The list, in the audit directory.
const OPEN: &str = "open";
const PURPOSE: &str = "oxibot audit open 1";
/// Bytes of the list that are read.
const MOST_BYTES: u64 = 1024 * 1024;
/// How long another start may hold the lock. It needs a millisecond; one that was stopped must not stop us.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where an earlier chain ended, or stood while it was still written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) chain: String,
    pub(crate) seq: u64,
    pub(crate) mac: String,
}

/// Names the earlier chains and enters `name` in the list. What cannot be done is said in the second value and keeps
/// nobody from starting: the chain itself does not hang on it.
pub(crate) fn name_earlier(home: &Path, key: &AuditKey, name: &str) -> (Vec<Head>, Option<String>) {
    let directory = home.join(place::DIRECTORY);
    let (_lock, mut trouble) = match lock(&home.join(KEY)) {
        Ok(lock) => (Some(lock), None),
        Err(why) => (None, Some(format!("the audit chains cannot be listed alone: {why}"))),
    };
    let chains = match place::chains(&directory) {
        Ok(chains) => chains,
        Err(error) => return (Vec::new(), Some(format!("cannot look for earlier audit chains: {error}"))),
    };
    let listed =
        read(&directory, key).unwrap_or_else(|| chains.iter().map(|files| files.name.clone()).collect());
    let mut heads = Vec::new();
    let mut open = BTreeSet::from([name.to_owned()]);
    for files in chains.iter().filter(|files| files.name != name && listed.contains(&files.name)) {
        // In this order: what ends in between stays on the list.
        if is_written(files) {
            open.insert(files.name.clone());
        }
        if let Some(tail) = place::tail(files) {
            heads.push(Head { chain: files.name.clone(), seq: tail.seq, mac: tail.mac });
        }
    }
    // A chain that is on the list and no longer there stays on it, so that `verify` misses it.
    open.extend(listed.into_iter().filter(|listed| !chains.iter().any(|files| files.name == *listed)));
    if let Err(error) = write(&directory, key, &open) {
        trouble.get_or_insert(format!("cannot write the list of open audit chains: {error}"));
    }
    (heads, trouble)
}

/// Names on the list; `None` when there is none that counts.
pub(crate) fn read(directory: &Path, key: &AuditKey) -> Option<BTreeSet<String>> {
    let file = match open_private(&directory.join(OPEN)) {
        Ok(file) => file,
        Err(Unfit::Absent | Unfit::Not(_)) => return None,
    };
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    let (code, json) = text.trim_end().split_once(' ')?;
    let mut expected = key.code(PURPOSE);
    expected.update(json.as_bytes());
    expected.verify_slice(&from_hex(code)?).ok()?;
    serde_json::from_str(json).ok()
}

fn write(directory: &Path, key: &AuditKey, names: &BTreeSet<String>) -> std::io::Result<()> {
    let json = serde_json::to_string(names)?;
    let mut code = key.code(PURPOSE);
    code.update(json.as_bytes());
    let text = format!("{} {json}\n", to_hex(&code.finalize().into_bytes()));
    let new = directory.join(format!(".open-{}", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&new, directory.join(OPEN))).inspect_err(
        |_| {
            let _ = std::fs::remove_file(&new);
        },
    )
}

fn lock(key: &Path) -> Result<File, String> {
    let file = File::open(key).map_err(|error| error.to_string())?;
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(5);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if waited < PATIENCE => {}
            Err(TryLockError::WouldBlock) => return Err("another start holds the lock".to_owned()),
            Err(TryLockError::Error(error)) => return Err(error.to_string()),
        }
        std::thread::sleep(step);
        waited += step;
    }
}

/// Marks a chain's first file as being written, for as long as it is open.
pub(crate) fn mark_written(file: &File) -> std::io::Result<()> {
    file.try_lock_shared().map_err(std::io::Error::from)
}

/// Whether somebody still writes it. When in doubt it stays on the list and is named once more.
fn is_written(files: &Files) -> bool {
    let Some(first) = files.parts.first() else { return false };
    File::open(first).map_or(true, |file| file.try_lock().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Chain;

    fn home() -> (tempfile::TempDir, AuditKey) {
        let home = tempfile::tempdir().unwrap();
        let key = AuditKey::open(home.path()).unwrap();
        (home, key)
    }

    fn chain(home: &Path, key: &AuditKey, name: &str, records: u64) -> File {
        let mut chain = Chain::begin(key, name);
        let path = home.join("audit").join(format!("{name}.jsonl"));
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        for _ in 0..records {
            file.write_all(&chain.seal(String::new(), "test", serde_json::json!({})).unwrap()).unwrap();
        }
        file
    }

    fn names(heads: &[Head]) -> Vec<(&str, u64)> {
        heads.iter().map(|head| (head.chain.as_str(), head.seq)).collect()
    }

    #[test]
    fn chain_is_named_while_it_is_written_and_once_after_its_end() {
        let (home, key) = home();
        let file = chain(home.path(), &key, "a", 3);
        mark_written(&file).unwrap();
        let (heads, trouble) = name_earlier(home.path(), &key, "b");
        assert_eq!((names(&heads), trouble), (vec![("a", 2)], None));
        let (heads, _) = name_earlier(home.path(), &key, "c");
        assert_eq!(names(&heads), [("a", 2)], "it is still written; b has no record yet");
        drop(file);
        assert_eq!(names(&name_earlier(home.path(), &key, "d").0), [("a", 2)], "it has ended");
        assert_eq!(names(&name_earlier(home.path(), &key, "e").0), [], "it was named after its end");
    }

    #[test]
    fn list_that_is_not_ours_is_made_anew_and_one_taken_away_is_missed() {
        let (home, key) = home();
        drop((chain(home.path(), &key, "a", 1), chain(home.path(), &key, "b", 2)));
        name_earlier(home.path(), &key, "c");
        assert_eq!(names(&name_earlier(home.path(), &key, "d").0), [], "the control: all are named");
        let list = home.path().join("audit/open");
        let text = std::fs::read_to_string(&list).unwrap().replace("\"d\"", "\"e\"");
        std::fs::write(&list, text).unwrap();
        assert_eq!(names(&name_earlier(home.path(), &key, "e").0), [("a", 0), ("b", 1)]);
        let (heads, _) = name_earlier(home.path(), &key, "f");
        assert_eq!(names(&heads), []);
        assert!(read(&home.path().join("audit"), &key).unwrap().contains("e"), "it never came to be a file");
    }
}
