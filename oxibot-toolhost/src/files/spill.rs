//! Whole outputs of calls, kept in `.oxibot-output` of the workspace.
//!
//! The directory belongs to the confined programs as much as to us, so nothing in it is trusted: entries are replaced
//! and never opened, and the directory must not be a symbolic link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::Fault;
use super::workspace::{Kind, Workspace, kind, look, open_name, size};

/// Where outputs are kept.
pub(super) const DIRECTORY: &str = ".oxibot-output";
/// Files kept, the one being opened included.
const MAX_KEPT: usize = 50;
/// Bytes kept, room for the one being opened included.
const MAX_TOTAL: u64 = 256 * 1024 * 1024;
/// Bytes of one output; what follows is dropped.
pub(super) const MAX_SPILL: u64 = 16 * 1024 * 1024;
/// Longest name.
const MAX_NAME: usize = 64;
/// Files open at once. More than the calls that can run.
const MAX_OPEN: usize = 128;
/// Entries looked at while making room: a program may have filled the directory.
const MAX_SCANNED: usize = 100_000;

/// Outputs being written.
#[derive(Debug, Default)]
pub(super) struct Spills {
    open: BTreeMap<String, (File, u64)>,
}

impl Spills {
    /// Makes room and opens `.oxibot-output/<name>.txt`.
    pub(super) fn open(&mut self, workspace: &Workspace, name: &str) -> Result<(), Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            return Err(Fault::Failed("cannot keep the output: bad name".into()));
        }
        if self.open.len() >= MAX_OPEN {
            return Err(Fault::Failed("cannot keep the output: too many are being written".into()));
        }
        let fail = |errno| Fault::errno("keep the output in", DIRECTORY, errno);
        let directory = directory(workspace)?;
        self.make_room(directory.as_fd())?;
        let file = format!("{name}.txt");
        match unlinkat(&directory, Path::new(&file), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let fd = create(directory.as_fd(), &file).map_err(fail)?;
        self.open.insert(name.to_owned(), (fd, 0));
        Ok(())
    }

    /// Appends; beyond [`MAX_SPILL`] the bytes are dropped.
    pub(super) fn write(&mut self, name: &str, data: &[u8]) -> Result<(), Fault> {
        let Some((file, written)) = self.open.get_mut(name) else {
            return Err(Fault::Failed("cannot keep the output: it was not opened".into()));
        };
        let room = usize::try_from(MAX_SPILL.saturating_sub(*written)).unwrap_or(usize::MAX);
        let data = data.get(..data.len().min(room)).unwrap_or_default();
        file.write_all(data).map_err(|error| Fault::io("keep the output in", DIRECTORY, &error))?;
        *written = written.saturating_add(data.len() as u64);
        Ok(())
    }

    /// Closes. Closing what is not open is no error: the opening may have failed.
    pub(super) fn close(&mut self, name: &str) {
        self.open.remove(name);
    }

    fn make_room(&self, directory: BorrowedFd<'_>) -> Result<(), Fault> {
        let fail = |errno| Fault::errno("keep the output in", DIRECTORY, errno);
        let copy = directory.try_clone_to_owned().map_err(|error| Fault::io("read", DIRECTORY, &error))?;
        let mut reader = Dir::from_fd(copy).map_err(fail)?;
        let mut kept = Vec::new();
        for entry in reader.iter().take(MAX_SCANNED) {
            let Ok(entry) = entry else { break };
            let Some(name) = entry.file_name().to_str().ok().filter(|name| name.ends_with(".txt")) else {
                continue;
            };
            let Ok(stat) = look(directory, Path::new(name)) else { continue };
            if kind(&stat) != Kind::Directory {
                kept.push(((stat.st_mtime, stat.st_mtime_nsec), name.to_owned(), size(&stat)));
            }
        }
        kept.sort_unstable_by(|a, b| b.cmp(a));
        let mut count = 1_usize;
        let mut total = MAX_SPILL;
        for (_, name, bytes) in kept {
            count = count.saturating_add(1);
            total = total.saturating_add(bytes);
            let being_written = name.strip_suffix(".txt").is_some_and(|name| self.open.contains_key(name));
            if (count > MAX_KEPT || total > MAX_TOTAL) && !being_written {
                // Best effort: a file that cannot be removed costs room, not correctness.
                let _ = unlinkat(directory, Path::new(&name), UnlinkatFlags::NoRemoveDir);
            }
        }
        Ok(())
    }
}

/// The directory, made when it is not there, with a `.gitignore` that hides it.
fn directory(workspace: &Workspace) -> Result<OwnedFd, Fault> {
    let path = Path::new(DIRECTORY);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let fail = |errno| {
        if errno == Errno::ELOOP || errno == Errno::ENOTDIR {
            Fault::failed("keep the output in", DIRECTORY, "it is not a directory of its own; remove it")
        } else {
            Fault::errno("keep the output in", DIRECTORY, errno)
        }
    };
    let directory = match open_name(workspace.handle(), path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {
            match mkdirat(workspace.handle(), path, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            open_name(workspace.handle(), path, flags, Mode::empty()).map_err(fail)?
        }
        result => result.map_err(fail)?,
    };
    if look(directory.as_fd(), Path::new(".gitignore")) == Err(Errno::ENOENT)
        && let Ok(mut file) = create(directory.as_fd(), ".gitignore")
    {
        // Best effort: without it git shows the files, nothing else.
        let _ = file.write_all(b"*\n");
    }
    Ok(directory)
}

fn create(directory: BorrowedFd<'_>, name: &str) -> Result<File, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    open_name(directory, Path::new(name), flags, Mode::from_bits_truncate(0o600)).map(File::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::{Duration, SystemTime};

    use super::*;

    fn workspace(at: &Path) -> Workspace {
        Workspace::new(File::open(at).unwrap().into(), at.to_path_buf(), Vec::new())
    }

    fn spill(spills: &mut Spills, workspace: &Workspace, name: &str, data: &[u8]) {
        spills.open(workspace, name).unwrap();
        spills.write(name, data).unwrap();
        spills.close(name);
    }

    #[test]
    fn output_is_kept_privately_and_hidden_from_git() {
        let dir = tempfile::tempdir().unwrap();
        let mut spills = Spills::default();
        spill(&mut spills, &workspace(dir.path()), "c-1", b"whole");
        let kept = dir.path().join(DIRECTORY);
        assert_eq!(std::fs::read(kept.join("c-1.txt")).unwrap(), b"whole");
        assert_eq!(std::fs::read(kept.join(".gitignore")).unwrap(), b"*\n");
        assert_eq!(std::fs::metadata(&kept).unwrap().mode() & 0o777, 0o700);
        assert!(spills.write("c-1", b"x").is_err(), "closed");
    }

    #[test]
    fn names_are_validated() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        for name in ["", "..", "a/b", "a.b", "a\0", "ü", &"x".repeat(65)] {
            assert!(Spills::default().open(&workspace, name).is_err(), "{name:?}");
        }
        assert!(!dir.path().join(DIRECTORY).exists());
    }

    #[test]
    fn directory_that_is_a_link_is_refused_and_an_entry_that_is_one_is_replaced() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        symlink(outside.path(), dir.path().join(DIRECTORY)).unwrap();
        assert!(Spills::default().open(&workspace, "a").is_err());
        std::fs::remove_file(dir.path().join(DIRECTORY)).unwrap();
        symlink(".", dir.path().join(DIRECTORY)).unwrap();
        assert!(Spills::default().open(&workspace, "a").is_err());
        std::fs::remove_file(dir.path().join(DIRECTORY)).unwrap();

        std::fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        std::fs::write(dir.path().join("victim"), "kept").unwrap();
        symlink("../victim", dir.path().join(DIRECTORY).join("a.txt")).unwrap();
        spill(&mut Spills::default(), &workspace, "a", b"new");
        assert_eq!(std::fs::read(dir.path().join("victim")).unwrap(), b"kept");
        assert_eq!(std::fs::read(dir.path().join(DIRECTORY).join("a.txt")).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_output_is_capped() {
        let dir = tempfile::tempdir().unwrap();
        let mut spills = Spills::default();
        spills.open(&workspace(dir.path()), "a").unwrap();
        for _ in 0..70 {
            spills.write("a", &vec![b'x'; 256 * 1024]).unwrap();
        }
        spills.close("a");
        let kept = dir.path().join(DIRECTORY).join("a.txt");
        assert_eq!(std::fs::metadata(kept).unwrap().len(), MAX_SPILL);
    }

    #[test]
    fn newest_fifty_and_256_mib_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        let kept = dir.path().join(DIRECTORY);
        let mut spills = Spills::default();
        spill(&mut spills, &workspace, "first", b"x");
        let old = |name: &str, age: u64, length: u64| {
            let file = File::create(kept.join(name)).unwrap();
            file.set_len(length).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        (0..60).for_each(|n| old(&format!("n{n}.txt"), 100 + n, 1));
        spill(&mut spills, &workspace, "second", b"x");
        let outputs = || std::fs::read_dir(&kept).unwrap().count() - 1;
        assert_eq!(outputs(), MAX_KEPT);
        assert!(kept.join("n0.txt").exists() && !kept.join("n59.txt").exists());
        old("huge.txt", 1000, 250 << 20);
        old("newer-huge.txt", 0, 200 << 20);
        spill(&mut spills, &workspace, "third", b"x");
        assert!(kept.join("newer-huge.txt").exists() && !kept.join("huge.txt").exists());
    }
}
