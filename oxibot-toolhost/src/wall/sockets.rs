//! Sockets of others among the files of a call are covered, so that the call cannot talk to whoever listens there.
//!
//! A connection to a path asks for the right to write to the socket's inode and for nothing else: a read-only mount
//! does not stop it, a network namespace does not, and Landlock does from ABI 9 on only. Until then each call's init,
//! while it can still mount, puts an empty file over every such socket: of host programs, of containers, of other
//! calls. What is left is a socket that is bound after its call began.
//!
//! Whether anybody holds a socket is asked of the kernel by a datagram connect to it: a stream socket answers that the
//! type is wrong and notices nothing, a datagram socket is told nothing either, and one that nobody holds is refused.
//! So files that dead servers left, also those of earlier calls, stay what they are. Nothing is decided by name.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{Mode, SFlag, fstat};
use oxibot_proto::message::Denial;

use super::fault::{Step, fault};
use super::grants::path_of;
use crate::sys::{self, Reach};
use crate::wire::{FoundSockets, Profile, Sockets, WallFault};

/// First Landlock ABI that refuses connections to sockets of another domain.
const RESOLVE_UNIX_ABI: u32 = 9;
/// Most sockets covered. Each costs a mount, and a workspace with more is no workspace.
const MAX_COVERED: usize = 128;
/// Longest one search may take. Prevents a tree of millions of files from holding up each call; what was not reached
/// is only found by its name.
const SEARCH_TIME: Duration = Duration::from_millis(500);
/// Directories that may wait in one search. Prevents a tree from filling memory.
const MAX_WAITING: usize = 100_000;
/// Entries between two looks at the clock.
const PACE: usize = 256;
/// Rounds of covering and looking again, against somebody who moves directories meanwhile.
const ROUNDS: usize = 4;
/// Where the cover is made: a file system of this call alone, writable, in every view.
const COVER: &str = "/dev/shm/.oxibot-cover";

/// What came of it.
#[derive(Debug)]
pub(super) enum Hidden {
    /// Covered. With what was found, when there was a search.
    Yes(Option<FoundSockets>),
    /// They cannot be covered: this call must not run.
    No(Denial),
}

/// Covers what `asked` names and, if it asks for a search, all that is there.
pub(super) fn hide(profile: &Profile, abi: u32, asked: &Sockets) -> Result<Hidden, WallFault> {
    if abi >= RESOLVE_UNIX_ABI {
        return Ok(Hidden::Yes(None));
    }
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).step("open the view")?;
    let root = root.as_fd();
    let mut live = BTreeSet::new();
    let mut search = asked.search;
    for path in &asked.known {
        // It was there a moment ago: moved, or its owner has ended.
        search |= !note(root, path_of(path), &mut live)?;
    }
    for path in &asked.named {
        note(root, path_of(path), &mut live)?;
    }
    let roots = roots(profile);
    let found = if search { Some(look_everywhere(root, &roots, &mut live)?) } else { None };
    if live.is_empty() {
        return Ok(Hidden::Yes(found));
    }
    let writable: Vec<&Path> =
        [&profile.workspace].into_iter().chain(&profile.write).map(|path| path_of(path)).collect();
    let cover = cover_file()?;
    let hidden = cover_all(root, live, (&roots, &writable), cover.as_fd());
    // Its name is needed as long as it is mounted anew.
    std::fs::remove_file(COVER).step("remove the name of the cover")?;
    Ok(match hidden? {
        Ok(()) => Hidden::Yes(found),
        Err(reason) => Hidden::No(denial(reason)),
    })
}

/// Covers these and looks again until none is a socket any more; else why that cannot be.
fn cover_all(
    root: BorrowedFd<'_>,
    mut live: BTreeSet<PathBuf>,
    (roots, writable): (&[PathBuf], &[&Path]),
    cover: BorrowedFd<'_>,
) -> Result<Result<(), String>, WallFault> {
    let mut pinned = BTreeSet::new();
    for _ in 0..ROUNDS {
        if live.len() > MAX_COVERED {
            return Ok(Err(format!("there are more than {MAX_COVERED}")));
        }
        let mut moved = false;
        for path in &live {
            // Who could move a directory on the way would show the socket where the next call does not look.
            for parent in parents(path, writable) {
                if pinned.insert(parent.to_owned()) {
                    pin(root, parent)?;
                }
            }
            moved |= !put_over(root, path, cover)?;
        }
        // Covered ones are plain files by now. What is still a socket was moved here meanwhile.
        let mut again = BTreeSet::new();
        for path in &live {
            note(root, path, &mut again)?;
        }
        if moved {
            look_everywhere(root, roots, &mut again)?;
        }
        if again.is_empty() {
            return Ok(Ok(()));
        }
        live = again;
    }
    Ok(Err("they are moved while they are covered".to_owned()))
}

fn denial(reason: String) -> Denial {
    Denial {
        rule: "sockets.others".into(),
        reason: format!("sockets of other programs among the files of this call cannot be covered: {reason}"),
        hint: "end those programs, or have them make their sockets outside the workspace".into(),
    }
}

/// Where sockets are looked for: granted trees, without those inside another.
fn roots(profile: &Profile) -> Vec<PathBuf> {
    let granted = [&profile.workspace].into_iter().chain(&profile.write).chain(&profile.read);
    let mut roots: Vec<PathBuf> = granted.map(|path| path_of(path).to_owned()).collect();
    roots.sort();
    roots.dedup_by(|later, earlier| later.starts_with(earlier));
    roots
}

/// Directories between a writable root and a socket below it, outermost first. In a tree that a call cannot write
/// nothing can be moved.
fn parents<'a>(path: &'a Path, writable: &[&Path]) -> Vec<&'a Path> {
    let mut parents: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .filter(|parent| writable.iter().any(|root| parent.starts_with(root) && parent != root))
        .collect();
    parents.reverse();
    parents
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn open_plain(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, below_root(path), how)
}

/// Adds a path if a socket is there that somebody holds. Links are followed: a program may have bound by one.
fn note(root: BorrowedFd<'_>, path: &Path, live: &mut BTreeSet<PathBuf>) -> Result<bool, WallFault> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Vanished, unreachable for this call, or no path at all: nothing to cover.
    let Ok(handle) = openat2(root, below_root(path), how) else { return Ok(false) };
    if !is_held(handle.as_fd())? {
        return Ok(false);
    }
    let name = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).step("name a socket")?;
    live.insert(name);
    Ok(true)
}

/// Whether this is a socket that some process, wherever it lives, holds open.
fn is_held(handle: BorrowedFd<'_>) -> Result<bool, WallFault> {
    let mode = SFlag::from_bits_truncate(fstat(handle).step("look at a socket")?.st_mode);
    if mode & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Ok(false);
    }
    let step = "ask for the holder of a socket";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Datagram, flags, None).step(step)?;
    let place = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let address = UnixAddr::new(place.as_str()).step(step)?;
    Ok(match connect(asking.as_raw_fd(), &address) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => false,
        // EPROTOTYPE for a stream; EPERM for one that talks to somebody; EACCES, which says nothing, counts as held.
        Ok(()) | Err(_) => true,
    })
}

/// Walks the roots, breadth first, and adds every socket that is held.
fn look_everywhere(
    root: BorrowedFd<'_>,
    roots: &[PathBuf],
    live: &mut BTreeSet<PathBuf>,
) -> Result<FoundSockets, WallFault> {
    let until = Instant::now().checked_add(SEARCH_TIME);
    let late = || until.is_none_or(|until| Instant::now() >= until);
    let mut queue: VecDeque<PathBuf> = roots.iter().cloned().collect();
    let mut whole = true;
    while let Some(path) = queue.pop_front() {
        if late() || live.len() > MAX_COVERED {
            whole = false;
            break;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK;
        let opened = match open_plain(root, &path, flags) {
            // A single file was granted.
            Err(Errno::ENOTDIR) => {
                hold(root, &path, live)?;
                continue;
            }
            // Deeper than a path can say.
            Err(Errno::ENAMETOOLONG) => {
                whole = false;
                continue;
            }
            // Gone or unreadable: nothing in it can be named.
            other => other,
        };
        let Some(mut entries) = opened.ok().and_then(|directory| Dir::from_fd(directory).ok()) else {
            continue;
        };
        for (count, entry) in entries.iter().filter_map(Result::ok).enumerate() {
            if count.checked_rem(PACE) == Some(0) && late() {
                whole = false;
                break;
            }
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = || path.join(std::ffi::OsStr::from_bytes(name));
            match entry.file_type().or_else(|| type_of(root, &below())) {
                Some(Type::Directory) if queue.len() < MAX_WAITING => queue.push_back(below()),
                Some(Type::Directory) => whole = false,
                Some(Type::Socket) if live.len() <= MAX_COVERED => hold(root, &below(), live)?,
                Some(
                    Type::Socket
                    | Type::Fifo
                    | Type::CharacterDevice
                    | Type::BlockDevice
                    | Type::File
                    | Type::Symlink,
                )
                | None => {}
            }
        }
    }
    let paths = live.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    Ok(FoundSockets { paths, whole })
}

/// For file systems that do not say it in a listing.
fn type_of(root: BorrowedFd<'_>, path: &Path) -> Option<Type> {
    let handle = open_plain(root, path, OFlag::O_PATH).ok()?;
    let format = SFlag::from_bits_truncate(fstat(&handle).ok()?.st_mode) & SFlag::S_IFMT;
    if format == SFlag::S_IFDIR {
        Some(Type::Directory)
    } else if format == SFlag::S_IFSOCK {
        Some(Type::Socket)
    } else {
        None
    }
}

fn hold(root: BorrowedFd<'_>, path: &Path, live: &mut BTreeSet<PathBuf>) -> Result<(), WallFault> {
    if let Ok(handle) = open_plain(root, path, OFlag::O_PATH)
        && is_held(handle.as_fd())?
    {
        live.insert(path.to_owned());
    }
    Ok(())
}

/// An empty file, to be mounted as often as it is needed.
fn cover_file() -> Result<OwnedFd, WallFault> {
    let step = "make a cover for sockets";
    let file = File::options().write(true).create_new(true).open(COVER).step(step)?;
    let handle =
        open(COVER, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    drop(file);
    Ok(handle)
}

/// Covers a socket; `false` when there is none any more.
fn put_over(root: BorrowedFd<'_>, path: &Path, cover: BorrowedFd<'_>) -> Result<bool, WallFault> {
    let Ok(place) = open_plain(root, path, OFlag::O_PATH) else { return Ok(false) };
    let mode = SFlag::from_bits_truncate(fstat(&place).step_on("look at", path.display())?.st_mode);
    if mode & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Ok(false);
    }
    let tree = sys::open_tree_clone(cover).step("copy the cover of a socket")?;
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    sys::set_mount(tree.as_fd(), attributes, None, Reach::This).step("make the cover read-only")?;
    match sys::move_mount(tree.as_fd(), place.as_fd()) {
        Ok(()) => Ok(true),
        // Removed meanwhile.
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(fault(format!("cover {}", path.display()), errno)),
    }
}

/// Makes a directory immovable by mounting it on itself.
fn pin(root: BorrowedFd<'_>, path: &Path) -> Result<(), WallFault> {
    let Ok(place) = open_plain(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY) else { return Ok(()) };
    let tree = sys::open_tree_clone(place.as_fd()).step_on("pin", path.display())?;
    match sys::move_mount(tree.as_fd(), place.as_fd()) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(fault(format!("pin {}", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn held(path: &Path) -> bool {
        let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        is_held(handle.as_fd()).unwrap()
    }

    #[test]
    fn holders_are_found_without_their_noticing() {
        let dir = tempfile::tempdir().unwrap();
        let stream = UnixListener::bind(dir.path().join("s")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let datagram = UnixDatagram::bind(dir.path().join("d")).unwrap();
        datagram.set_nonblocking(true).unwrap();
        assert!(held(&dir.path().join("s")) && held(&dir.path().join("d")));
        assert!(stream.accept().is_err(), "nobody connected");
        assert!(datagram.recv(&mut [0; 8]).is_err(), "nothing was sent");
        drop((stream, datagram));
        assert!(!held(&dir.path().join("s")) && !held(&dir.path().join("d")));
        std::fs::write(dir.path().join("f"), "").unwrap();
        assert!(!held(&dir.path().join("f")));
    }

    #[test]
    fn parents_are_those_a_call_could_move() {
        let path = Path::new("/w/a/b/s");
        assert_eq!(parents(path, &[Path::new("/w")]), [Path::new("/w/a"), Path::new("/w/a/b")]);
        assert_eq!(parents(path, &[Path::new("/x")]), Vec::<&Path>::new());
        assert_eq!(parents(Path::new("/w/s"), &[Path::new("/w")]), Vec::<&Path>::new());
    }
}
