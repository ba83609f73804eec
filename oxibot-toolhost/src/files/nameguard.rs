//! The guarded names of the workspace (`sandbox.protect`) before and after a call, where no mount makes them read-only.
//!
//! What was there when the call began is there afterwards as it was: content, permission bits, directories and symbolic
//! links; what was added below it is removed. A name that was not there may be made, as anywhere. Bounded: what is too
//! large or too much to be kept is only compared, and reported when it is another one. While the call runs the names say
//! what the call wrote; owners, times and extended attributes are not put back. `.git` is [`super::gitguard`]'s.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};

use super::reinstate::{Budget, Notes, find_sibling, put_back, rename_back};
use super::text;
use super::tree::{names_of, open_directory};
use super::workspace::{Identity, Kind, Workspace, identity, kind, look, open_name, size};

/// Bytes of files kept from before a call, together.
const MAX_KEPT: u64 = 8 * 1024 * 1024;
/// Largest file that is kept.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// Files and directories looked at before a call, together.
const MAX_NODES: usize = 4096;
/// Levels below a guarded name.
const MAX_DEPTH: usize = 12;

/// What a name was.
#[derive(Debug)]
pub(super) enum Node {
    File {
        bytes: Vec<u8>,
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link, and where it leads.
    Link(OsString),
    Directory {
        mode: u32,
        entries: BTreeMap<OsString, Node>,
        /// Where these are not all: what is not among them may have been there before, and is only told by this.
        incomplete: Option<Version>,
    },
    /// Not kept.
    Other(Version),
}

/// What tells that a file or directory was not touched: the time of change cannot be set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    identity: Identity,
    mode: u32,
    size: i64,
    changed: (i64, i64),
}

impl Version {
    pub(super) fn of(stat: &FileStat) -> Self {
        Self {
            identity: identity(stat),
            mode: stat.st_mode,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// One guarded name that was there.
#[derive(Debug)]
struct Guarded {
    path: PathBuf,
    identity: Identity,
    node: Node,
}

/// What was recorded. Calls may overlap: the first checkpoint of an overlapping group counts.
#[derive(Debug, Default)]
pub(super) struct NameGuard {
    /// Nothing where mounts guard the names.
    names: Vec<PathBuf>,
    before: Option<Vec<Guarded>>,
    open: u32,
}

impl NameGuard {
    /// For these names, relative to the workspace.
    pub(super) fn new(names: &[PathBuf]) -> Self {
        let is_own = |path: &&PathBuf| {
            let mut parts = path.components().filter(|part| *part != Component::CurDir);
            parts.next().is_some_and(|first| first != Component::Normal(".git".as_ref()))
        };
        Self { names: names.iter().filter(is_own).cloned().collect(), before: None, open: 0 }
    }

    /// Records the state before a call.
    pub(super) fn checkpoint(&mut self, workspace: &Workspace) {
        if self.names.is_empty() {
            return;
        }
        if self.before.is_none() {
            self.before = Some(record(workspace, &self.names));
        }
        self.open = self.open.saturating_add(1);
    }

    /// Whether a call was recorded and not compared yet.
    pub(super) fn is_open(&self) -> bool {
        self.before.is_some()
    }

    /// Compares, puts back, and says what was done.
    pub(super) fn restore(&mut self, workspace: &Workspace) -> Vec<String> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let Some(before) = &self.before else {
            // The worker that recorded it has died.
            return vec![
                "could not compare the guarded names of the workspace: what they were before this call is not known"
                    .to_owned(),
            ];
        };
        let mut notes = Notes::default();
        for guarded in before {
            restore(workspace, guarded, &mut notes);
        }
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.before = None;
        }
        notes.finish()
    }
}

fn record(workspace: &Workspace, names: &[PathBuf]) -> Vec<Guarded> {
    let mut room = Room { bytes: MAX_KEPT, nodes: MAX_NODES };
    let mut found: Vec<Guarded> = Vec::new();
    for path in names {
        let Some(guarded) = read_top(workspace, path, &mut room) else { continue };
        // Guarded is also what a guarded link leads to; what lies outside is not in reach of a call.
        let target = match &guarded.node {
            Node::Link(to) => {
                path.parent().and_then(|parent| read_top(workspace, &parent.join(to), &mut room))
            }
            Node::File { .. } | Node::Directory { .. } | Node::Other(_) => None,
        };
        found.push(guarded);
        found.extend(target);
    }
    found
}

fn read_top(workspace: &Workspace, path: &Path, room: &mut Room) -> Option<Guarded> {
    let (parent, name) = split(path)?;
    let parent = open_name(workspace.handle(), parent, DIRECTORY, Mode::empty()).ok()?;
    let stat = look(parent.as_fd(), name).ok()?;
    let node = read(&parent, name, &stat, room, MAX_DEPTH);
    Some(Guarded { path: path.to_path_buf(), identity: identity(&stat), node })
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY);

/// The directory of a path, and its name there.
fn split(path: &Path) -> Option<(&Path, &Path)> {
    let name = Path::new(path.file_name()?);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Some((parent.unwrap_or(Path::new(".")), name))
}

/// How much may still be kept.
struct Room {
    bytes: u64,
    nodes: usize,
}

fn read(parent: &OwnedFd, name: &Path, stat: &FileStat, room: &mut Room, depth: usize) -> Node {
    room.nodes = room.nodes.saturating_sub(1);
    let kept = match kind(stat) {
        Kind::File => read_file(parent, name, stat, room),
        Kind::Link => readlinkat(parent, name).ok().map(Node::Link),
        Kind::Directory => read_directory(parent, name, stat, room, depth),
        Kind::Pipe | Kind::Socket | Kind::Device => None,
    };
    kept.unwrap_or_else(|| Node::Other(Version::of(stat)))
}

fn read_file(parent: &OwnedFd, name: &Path, stat: &FileStat, room: &mut Room) -> Option<Node> {
    if size(stat) > MAX_FILE.min(room.bytes) {
        return None;
    }
    let bytes = content(parent, name, room.bytes.min(MAX_FILE))?;
    room.bytes = room.bytes.saturating_sub(bytes.len() as u64);
    Some(Node::File { bytes, mode: stat.st_mode & 0o777 })
}

/// The content of a plain file of at most so many bytes.
pub(super) fn content(parent: &OwnedFd, name: &Path, most: u64) -> Option<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = open_name(parent.as_fd(), name, flags, Mode::empty()).ok()?;
    if kind(&fstat(&file).ok()?) != Kind::File {
        return None;
    }
    let most = usize::try_from(most).ok()?;
    let bytes = super::read::read_at(&File::from(file), 0, most.saturating_add(1)).ok()?;
    (bytes.len() <= most).then_some(bytes)
}

fn read_directory(
    parent: &OwnedFd,
    name: &Path,
    stat: &FileStat,
    room: &mut Room,
    depth: usize,
) -> Option<Node> {
    let below = depth.checked_sub(1)?;
    let directory = open_directory(parent, name).ok()?;
    let (names, listed_all) = names_of(&directory, room.nodes);
    let mut entries = BTreeMap::new();
    let mut complete = listed_all;
    for name in names {
        if room.nodes == 0 {
            complete = false;
            break;
        }
        let Ok(stat) = look(directory.as_fd(), Path::new(&name)) else { continue };
        let node = read(&directory, Path::new(&name), &stat, room, below);
        entries.insert(name, node);
    }
    let incomplete = (!complete).then(|| Version::of(stat));
    Some(Node::Directory { mode: stat.st_mode & 0o7777, entries, incomplete })
}

/// One guarded name: moved back if it was moved aside, then compared with what it was.
fn restore(workspace: &Workspace, guarded: &Guarded, notes: &mut Notes) {
    let shown = text::name(guarded.path.as_os_str().as_bytes());
    let Some((parent, name)) = split(&guarded.path) else { return };
    let Ok(parent) = open_name(workspace.handle(), parent, DIRECTORY, Mode::empty()) else {
        notes.failed(&shown, "the directory it was in is gone");
        return;
    };
    let now = look(parent.as_fd(), name).ok().as_ref().map(identity);
    let by_content = matches!(guarded.node, Node::File { .. } | Node::Link(_));
    if now != Some(guarded.identity)
        && !by_content
        && let Some(sibling) = find_sibling(&parent, guarded.identity)
    {
        match rename_back(&parent, &sibling, name) {
            Ok(()) => notes.did("put back", &shown),
            Err(errno) => notes.failed(&shown, errno.desc()),
        }
    }
    let mut budget = Budget::new();
    put_back(&parent, name, &guarded.node, &shown, &mut budget, notes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Place(tempfile::TempDir, Workspace);

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let workspace =
                Workspace::new(File::open(dir.path()).unwrap().into(), dir.path().to_path_buf(), Vec::new());
            let place = Self(dir, workspace);
            fs::create_dir_all(place.at(".vscode/sub")).unwrap();
            for path in [".vscode/tasks.json", ".vscode/sub/a", ".envrc"] {
                fs::write(place.at(path), "harmless").unwrap();
            }
            fs::write(place.at("elsewhere"), "harmless").unwrap();
            symlink("elsewhere", place.at(".mcp.json")).unwrap();
            place
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        /// All that is there, with modes.
        fn state(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
            let mut found = Vec::new();
            let mut queue = vec![self.0.path().to_path_buf()];
            while let Some(at) = queue.pop() {
                let meta = fs::symlink_metadata(&at).unwrap();
                let content = if meta.is_symlink() {
                    fs::read_link(&at).unwrap().as_os_str().as_bytes().to_vec()
                } else if meta.is_dir() {
                    queue.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
                    Vec::new()
                } else {
                    fs::read(&at).unwrap()
                };
                found.push((at, meta.permissions().mode(), content));
            }
            found.sort();
            found
        }

        fn after(&self, act: impl FnOnce(&Self)) -> Vec<String> {
            let names =
                [".git/hooks", ".vscode", ".envrc", ".mcp.json", ".claude", "sub/.envrc"].map(PathBuf::from);
            let mut guard = NameGuard::new(&names);
            guard.checkpoint(&self.1);
            act(self);
            let notes = guard.restore(&self.1);
            assert!(!guard.is_open());
            notes
        }
    }

    #[test]
    fn whatever_a_call_does_to_guarded_names_they_are_as_they_were() {
        let remove = |place: &Place| {
            for path in [".vscode", ".envrc", ".mcp.json"] {
                fs::remove_dir_all(place.at(path)).or_else(|_| fs::remove_file(place.at(path))).unwrap();
            }
        };
        let mode = |place: &Place, path: &str, mode| {
            fs::set_permissions(place.at(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        type Act<'a> = (&'a str, &'a dyn Fn(&Place));
        let acts: [Act<'_>; 9] = [
            ("written", &|place| {
                for path in [".vscode/tasks.json", ".vscode/sub/a", ".vscode/new", ".envrc", ".mcp.json"] {
                    fs::write(place.at(path), "evil").unwrap();
                }
            }),
            ("removed", &remove),
            ("other kinds", &|place| {
                remove(place);
                fs::write(place.at(".vscode"), "evil").unwrap();
                fs::create_dir_all(place.at(".envrc/deep/deeper")).unwrap();
                fs::write(place.at(".envrc/deep/evil"), "evil").unwrap();
                fs::create_dir(place.at(".mcp.json")).unwrap();
            }),
            ("links", &|place| {
                remove(place);
                for path in [".vscode", ".envrc", ".mcp.json"] {
                    symlink("/etc", place.at(path)).unwrap();
                }
            }),
            ("modes", &|place| {
                mode(place, ".vscode/tasks.json", 0o777);
                mode(place, ".vscode/sub", 0o555);
                mode(place, ".vscode", 0o777);
                mode(place, ".envrc", 0);
            }),
            ("directories added", &|place| {
                fs::create_dir_all(place.at(".vscode/a/b/c")).unwrap();
                fs::write(place.at(".vscode/a/b/evil"), "evil").unwrap();
                symlink("/etc", place.at(".vscode/a/link")).unwrap();
                mode(place, ".vscode/a/b", 0o555);
            }),
            ("kinds exchanged below", &|place| {
                fs::remove_dir_all(place.at(".vscode/sub")).unwrap();
                fs::write(place.at(".vscode/sub"), "evil").unwrap();
                fs::remove_file(place.at(".vscode/tasks.json")).unwrap();
                fs::create_dir(place.at(".vscode/tasks.json")).unwrap();
            }),
            ("same size, same time", &|place| {
                let path = place.at(".envrc");
                let times = fs::metadata(&path).unwrap().modified().unwrap();
                fs::write(&path, "HARMLESS").unwrap();
                File::options().write(true).open(&path).unwrap().set_modified(times).unwrap();
            }),
            ("moved aside", &|place| {
                fs::rename(place.at(".vscode"), place.at("aside")).unwrap();
                fs::write(place.at("aside/tasks.json"), "evil").unwrap();
                symlink("aside", place.at(".vscode")).unwrap();
            }),
        ];
        for (what, act) in acts {
            let place = Place::new();
            let before = place.state();
            let notes = place.after(act);
            assert!(
                !notes.is_empty() && notes.iter().all(|note| !note.starts_with("could not")),
                "{what}: {notes:?}"
            );
            assert_eq!(place.state(), before, "{what}");
            assert!(place.after(|_| {}).is_empty(), "{what}: nothing is left to do");
        }
    }

    #[test]
    fn what_is_not_guarded_or_was_not_there_is_left_alone() {
        let place = Place::new();
        let notes = place.after(|place| {
            fs::create_dir(place.at(".claude")).unwrap();
            fs::write(place.at(".claude/new"), "mine").unwrap();
            fs::create_dir_all(place.at(".git/hooks")).unwrap();
            fs::write(place.at("other"), "mine").unwrap();
        });
        assert!(notes.is_empty(), "{notes:?}");
        assert!(place.at(".claude/new").exists() && place.at("other").exists());
    }

    #[test]
    fn what_is_too_large_is_compared_and_reported_and_found_again_by_its_inode() {
        let place = Place::new();
        let large = usize::try_from(MAX_FILE).unwrap() + 1;
        fs::write(place.at(".vscode/large"), vec![b'x'; large]).unwrap();
        assert!(place.after(|_| {}).is_empty());
        let notes = place.after(|place| fs::write(place.at(".vscode/large"), "evil").unwrap());
        assert!(notes.len() == 1 && notes[0].starts_with("could not put back .vscode/large: "), "{notes:?}");
        fs::write(place.at(".vscode/large"), vec![b'x'; large]).unwrap();
        let notes = place.after(|place| {
            fs::rename(place.at(".vscode"), place.at("aside")).unwrap();
            fs::create_dir(place.at(".vscode")).unwrap();
            fs::write(place.at(".vscode/large"), "evil").unwrap();
        });
        assert_eq!(notes, ["put back .vscode: programs outside the sandbox do what it says"]);
        assert_eq!(fs::metadata(place.at(".vscode/large")).unwrap().len(), large as u64);
        assert!(!place.at("aside").exists());
    }

    #[test]
    fn more_than_is_looked_at_is_neither_put_back_nor_removed_in_silence() {
        let place = Place::new();
        for number in 0..MAX_NODES + 10 {
            fs::write(place.at(&format!(".vscode/{number:05}")), "").unwrap();
        }
        let added = |place: &Place| fs::write(place.at(".vscode/zzz"), "evil").unwrap();
        let notes = place.after(added);
        assert!(notes.iter().any(|note| note.starts_with("could not put back .vscode: ")), "{notes:?}");
        assert!(place.after(|_| {}).is_empty(), "untouched, nothing is said");
    }

    #[test]
    fn a_record_that_was_lost_is_told() {
        let place = Place::new();
        let notes = NameGuard::new(&[PathBuf::from(".envrc")]).restore(&place.1);
        assert!(notes.len() == 1 && notes[0].starts_with("could not compare the guarded names"), "{notes:?}");
        assert!(NameGuard::default().restore(&place.1).is_empty(), "where mounts guard them there is none");
    }
}
