//! Walks directories of the workspace: sorted, iterative, bounded in depth, entries and time.
//!
//! Each directory is opened by name in the directory that holds it, never by path, and no symbolic link is followed:
//! nothing that is renamed meanwhile can lead the walk out. `.git` is shown but not entered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::fault::Fault;
use super::gitignore::{self, Gitignore};
use super::read::read_at;
use super::workspace::{Inside, Kind, Workspace, kind, look, open_name};

/// Deepest level entered. Each holds one descriptor.
const MAX_DEPTH: usize = 64;
/// Names kept of one directory, because sorting needs them all.
const MAX_NAMES: usize = 200_000;
/// Entries visited in one walk.
const MAX_ENTRIES: u64 = 1_000_000;
/// Time for one walk and what is done with its entries.
pub(super) const MAX_TIME: Duration = Duration::from_secs(10);

/// What to visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything to this depth.
    Levels(u32),
    /// Everything that no `.gitignore` names.
    NotIgnored,
    /// Everything.
    All,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the workspace.
    pub path: PathBuf,
    /// The directory that holds it.
    pub directory: Rc<OwnedFd>,
    /// Its name there.
    pub name: PathBuf,
    /// What it was when the directory was read.
    pub kind: Kind,
}

struct Level {
    directory: Rc<OwnedFd>,
    prefix: PathBuf,
    names: std::vec::IntoIter<(PathBuf, Option<Kind>)>,
    /// Patterns of this directory, and the length of its path in components.
    ignore: Option<(Gitignore, usize)>,
}

/// A walk under way.
pub(super) struct Walk {
    levels: Vec<Level>,
    /// Patterns of the directories above the start.
    above: Vec<(Gitignore, usize)>,
    scope: Scope,
    enter: Option<(Rc<OwnedFd>, PathBuf, PathBuf)>,
    until: Instant,
    visited: u64,
    ignored: u64,
    notes: Vec<String>,
}

impl Walk {
    /// Starts in a directory.
    pub(super) fn start(workspace: &Workspace, at: &Inside, scope: Scope) -> Result<Self, Fault> {
        let directory = workspace.open_directory(at, "search")?;
        let prefix =
            if at.path() == Path::new(".") { PathBuf::new() } else { at.path().components().collect() };
        let mut walk = Self {
            levels: Vec::new(),
            above: Vec::new(),
            scope,
            enter: None,
            until: Instant::now().checked_add(MAX_TIME).unwrap_or_else(Instant::now),
            visited: 0,
            ignored: 0,
            notes: Vec::new(),
        };
        let plain = !prefix.components().any(|part| part.as_os_str() == "..");
        if scope == Scope::NotIgnored && plain {
            for above in prefix.ancestors().skip(1) {
                let at = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                if let Ok(fd) = super::workspace::open_beneath(workspace.handle(), at, flags, Mode::empty())
                    && let Some(ignore) = patterns(fd.as_fd())
                {
                    walk.above.push((ignore, above.components().count()));
                }
            }
        }
        walk.push(directory, prefix);
        Ok(walk)
    }

    /// The next entry; directories come before what is in them.
    pub(super) fn next(&mut self) -> Option<Entry> {
        if let Some((parent, name, path)) = self.enter.take() {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            match open_name(parent.as_fd(), &name, flags, Mode::empty()) {
                Ok(directory) => self.push(directory, path),
                // Gone, swapped or not readable: as if it were empty.
                Err(_) => self.note("some directories could not be read"),
            }
        }
        loop {
            if self.visited >= MAX_ENTRIES || self.is_late() {
                self.note("stopped early: too much to look through; give a narrower path");
                return None;
            }
            let level = self.levels.last_mut()?;
            let Some((name, known)) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            self.visited = self.visited.saturating_add(1);
            let directory = Rc::clone(&level.directory);
            let path = level.prefix.join(&name);
            let Some(kind) = known.or_else(|| look(directory.as_fd(), &name).ok().as_ref().map(kind)) else {
                continue;
            };
            if self.scope == Scope::NotIgnored {
                if name.as_os_str() == ".git" {
                    continue;
                }
                if self.is_ignored(&path, kind == Kind::Directory) {
                    self.ignored = self.ignored.saturating_add(1);
                    continue;
                }
            }
            let wanted = match self.scope {
                Scope::Levels(levels) => self.levels.len() < usize::try_from(levels).unwrap_or(usize::MAX),
                Scope::NotIgnored | Scope::All => true,
            };
            if kind == Kind::Directory && wanted && name.as_os_str() != ".git" {
                if self.levels.len() >= MAX_DEPTH {
                    self.note("some directories are too deep to enter");
                } else {
                    self.enter = Some((Rc::clone(&directory), name.clone(), path.clone()));
                }
            }
            return Some(Entry { path, directory, name, kind });
        }
    }

    /// Whether the time is up; for work on an entry that may take long.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Adds a remark for the result, once.
    pub(super) fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.notes.push(text.to_owned());
        }
    }

    /// Remarks, and how much `.gitignore` hid.
    pub(super) fn into_notes(mut self) -> Vec<String> {
        if self.ignored > 0 {
            self.notes.push(format!("{} files or directories skipped by .gitignore", self.ignored));
        }
        self.notes
    }

    fn push(&mut self, directory: OwnedFd, prefix: PathBuf) {
        let ignore = match self.scope {
            Scope::NotIgnored => {
                patterns(directory.as_fd()).map(|ignore| (ignore, prefix.components().count()))
            }
            Scope::Levels(_) | Scope::All => None,
        };
        let Some((names, all)) = names(&directory) else {
            self.note("some directories could not be read");
            return;
        };
        if !all {
            self.note(&format!("a directory has more than {MAX_NAMES} entries; the rest is left out"));
        }
        self.levels.push(Level { directory: Rc::new(directory), prefix, names: names.into_iter(), ignore });
    }

    fn is_ignored(&self, path: &Path, is_directory: bool) -> bool {
        let below = self.levels.iter().rev().filter_map(|level| level.ignore.as_ref());
        below
            .chain(&self.above)
            .find_map(|(ignore, depth)| {
                let relative: PathBuf = path.components().skip(*depth).collect();
                ignore.decides(&relative, is_directory)
            })
            .unwrap_or(false)
    }
}

/// Patterns of a directory's own `.gitignore`, if it is a plain file.
fn patterns(directory: BorrowedFd<'_>) -> Option<Gitignore> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let fd = open_name(directory, Path::new(".gitignore"), flags, Mode::empty()).ok()?;
    let stat = nix::sys::stat::fstat(&fd).ok()?;
    if kind(&stat) != Kind::File {
        return None;
    }
    Gitignore::parse(&read_at(&fd.into(), 0, gitignore::MAX_FILE).ok()?)
}

type Names = Vec<(PathBuf, Option<Kind>)>;

/// All names of a directory, sorted, and whether they are all. `None` when it cannot be read.
fn names(directory: &OwnedFd) -> Option<(Names, bool)> {
    let mut reader = Dir::from_fd(directory.try_clone().ok()?).ok()?;
    let mut names = Vec::new();
    let mut all = true;
    for entry in reader.iter() {
        let Ok(entry) = entry else { break };
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." {
            continue;
        }
        if names.len() >= MAX_NAMES {
            all = false;
            break;
        }
        let kind = entry.file_type().map(|kind| match kind {
            Type::File => Kind::File,
            Type::Directory => Kind::Directory,
            Type::Symlink => Kind::Link,
            Type::Fifo => Kind::Pipe,
            Type::Socket => Kind::Socket,
            Type::CharacterDevice | Type::BlockDevice => Kind::Device,
        });
        names.push((PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec())), kind));
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Some((names, all))
}
