//! Whole files into and out of the workspace, in pieces.
//!
//! A file that comes in is a temporary file until all of it is there; one that goes out is read from one open file, so
//! that renames meanwhile change nothing. Nothing is kept in memory.

use std::collections::BTreeMap;
use std::fs::File;

use oxibot_proto::message::{MAX_CHUNK, MAX_TRANSFER};

use super::fault::Fault;
use super::read::read_at;
use super::workspace::{Workspace, size};
use super::write::{Draft, Target, find_target};

/// Transfers in each direction at once. Each holds descriptors.
const MAX_TRANSFERS: usize = 32;

struct Put {
    target: Target,
    draft: Draft,
    size: u64,
    written: u64,
}

/// Transfers under way, by the number that opened them. Dropping it removes unfinished files.
#[derive(Default)]
pub(super) struct Transfers {
    puts: BTreeMap<u64, Put>,
    gets: BTreeMap<u64, File>,
}

impl Transfers {
    /// Begins a transfer in.
    pub(super) fn put_open(
        &mut self,
        workspace: &Workspace,
        number: u64,
        path: &str,
        size: u64,
    ) -> Result<(), Fault> {
        if size > MAX_TRANSFER {
            return Err(too_large(path, size, MAX_TRANSFER));
        }
        if self.puts.len() >= MAX_TRANSFERS || self.puts.contains_key(&number) {
            return Err(Fault::failed("write", "the file", "too many transfers at once; try again"));
        }
        let target = find_target(workspace, path)?;
        let draft = Draft::new(&target)?;
        self.puts.insert(number, Put { target, draft, size, written: 0 });
        Ok(())
    }

    /// Next bytes. More than announced ends the transfer.
    pub(super) fn put_write(&mut self, number: u64, data: &[u8]) -> Result<(), Fault> {
        let Some(put) = self.puts.get_mut(&number) else { return Err(unknown()) };
        put.written = put.written.saturating_add(data.len() as u64);
        let written = if put.written > put.size {
            Err(Fault::failed("write", put.target.shown(), "more bytes came than were announced"))
        } else {
            put.draft.append(data, &put.target)
        };
        written.inspect_err(|_| drop(self.puts.remove(&number)))
    }

    /// Puts the file in its place, if it is whole.
    pub(super) fn put_close(&mut self, number: u64) -> Result<(), Fault> {
        let Some(put) = self.puts.remove(&number) else { return Err(unknown()) };
        if put.written != put.size {
            let cause = format!("{} of {} bytes came", put.written, put.size);
            return Err(Fault::failed("write", put.target.shown(), &cause));
        }
        put.draft.finish(&put.target).map(drop)
    }

    /// Gives a transfer in up.
    pub(super) fn put_abort(&mut self, number: u64) {
        self.puts.remove(&number);
    }

    /// Begins a transfer out; the size of the file.
    pub(super) fn get_open(
        &mut self,
        workspace: &Workspace,
        number: u64,
        path: &str,
        max: u64,
    ) -> Result<u64, Fault> {
        if self.gets.len() >= MAX_TRANSFERS || self.gets.contains_key(&number) {
            return Err(Fault::failed("read", "the file", "too many transfers at once; try again"));
        }
        let (file, stat) = workspace.open_file(&workspace.locate(path)?, "read")?;
        let max = max.min(MAX_TRANSFER);
        if size(&stat) > max {
            return Err(too_large(path, size(&stat), max));
        }
        self.gets.insert(number, file);
        Ok(size(&stat))
    }

    /// Bytes at an offset, fewer than asked for at the end of the file.
    pub(super) fn get_read(&self, number: u64, offset: u64, length: u32) -> Result<Vec<u8>, Fault> {
        let Some(file) = self.gets.get(&number) else { return Err(unknown()) };
        let length = usize::try_from(length).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
        if offset > MAX_TRANSFER {
            return Err(Fault::failed("read", "the file", "it grew beyond what can be transferred"));
        }
        read_at(file, offset, length).map_err(|error| Fault::io("read", "the file", &error))
    }

    /// Ends a transfer out.
    pub(super) fn get_close(&mut self, number: u64) {
        self.gets.remove(&number);
    }
}

fn unknown() -> Fault {
    Fault::Failed("cannot go on with the transfer: it is not open".into())
}

fn too_large(path: &str, size: u64, max: u64) -> Fault {
    Fault::failed(
        "transfer",
        &super::text::name(path.as_bytes()),
        &format!("{size} bytes, the limit is {max}"),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn workspace(at: &Path) -> Workspace {
        Workspace::new(File::open(at).unwrap().into(), at.to_path_buf(), Vec::new())
    }

    fn entries(at: &Path) -> usize {
        std::fs::read_dir(at).unwrap().count()
    }

    #[test]
    fn file_appears_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        let mut transfers = Transfers::default();
        transfers.put_open(&workspace, 7, "sub/f.bin", 6).unwrap();
        transfers.put_write(7, b"abc").unwrap();
        assert!(!dir.path().join("sub/f.bin").exists());
        transfers.put_write(7, b"def").unwrap();
        transfers.put_close(7).unwrap();
        assert_eq!(std::fs::read(dir.path().join("sub/f.bin")).unwrap(), b"abcdef");
        assert_eq!(entries(&dir.path().join("sub")), 1);
    }

    #[test]
    fn short_long_and_aborted_transfers_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        let mut transfers = Transfers::default();
        transfers.put_open(&workspace, 1, "short", 6).unwrap();
        transfers.put_write(1, b"abc").unwrap();
        assert!(transfers.put_close(1).is_err());
        transfers.put_open(&workspace, 2, "long", 2).unwrap();
        assert!(transfers.put_write(2, b"abc").is_err());
        assert!(transfers.put_write(2, b"a").is_err(), "it ended");
        transfers.put_open(&workspace, 3, "aborted", 2).unwrap();
        transfers.put_abort(3);
        transfers.put_open(&workspace, 4, "dropped", 2).unwrap();
        drop(transfers);
        assert_eq!(entries(dir.path()), 0);
    }

    #[test]
    fn limits_hold() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        let mut transfers = Transfers::default();
        assert!(transfers.put_open(&workspace, 0, "f", MAX_TRANSFER + 1).is_err());
        for number in 0..MAX_TRANSFERS as u64 {
            transfers.put_open(&workspace, number, "f", 1).unwrap();
        }
        assert!(transfers.put_open(&workspace, 99, "f", 1).is_err());
        std::fs::write(dir.path().join("g"), b"0123456789").unwrap();
        assert!(transfers.get_open(&workspace, 0, "g", 9).is_err());
        assert_eq!(transfers.get_open(&workspace, 0, "g", 10).unwrap(), 10);
        assert_eq!(transfers.get_read(0, 8, 100).unwrap(), b"89");
        assert_eq!(transfers.get_read(0, 100, 100).unwrap(), b"");
        assert!(transfers.get_read(5, 0, 1).is_err());
        transfers.get_close(0);
        assert!(transfers.get_read(0, 0, 1).is_err());
    }
}
