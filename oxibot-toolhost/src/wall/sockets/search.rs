//! Looking for sockets that somebody holds, in trees that others may change at the same time.
//!
//! A walk reads one directory after the other, so a socket or a directory that is moved meanwhile may be missed, and
//! missed each time by somebody who watches the walk. What cannot be hidden is that a directory was changed: each move
//! sets the change time of the directory it leaves and of the one it enters, and nobody can set it back. A tree whose
//! directories have the same times after the walk as before, none of them so young that the clock could not tell two
//! changes apart, held still.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::MAX_COVERED;
use crate::wall::fault::Step;
use crate::wire::WallFault;

/// Longest one search may take. Prevents a tree of millions of files from holding up each call; what was not reached
/// is only found by its name.
const SEARCH_TIME: Duration = Duration::from_millis(500);
/// Directories that may wait in one search. Prevents a tree from filling memory.
const MAX_WAITING: usize = 100_000;
/// Entries between two looks at the clock.
const PACE: usize = 256;
/// Two changes within one tick of the kernel's clock (10 ms at most) may bear the same time.
const TICK: i128 = 20_000_000;

/// Which file a path led to, and by how many names it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    pub(super) number: u64,
    pub(super) names: u64,
}

impl Inode {
    pub(super) fn of(status: &FileStat) -> Self {
        // The width of a link count differs by architecture.
        #[allow(clippy::useless_conversion, reason = "the width differs by architecture")]
        let names = u64::from(status.st_nlink);
        Self { device: status.st_dev, number: status.st_ino, names }
    }

    pub(super) fn is(self, other: Self) -> bool {
        (self.device, self.number) == (other.device, other.number)
    }
}

/// Held sockets by the path they were found at.
pub(super) type Live = BTreeMap<PathBuf, Inode>;

/// One walk.
pub(super) struct Walk {
    /// Whether all was looked at.
    pub(super) whole: bool,
    /// Each directory, and what told it from itself later.
    visited: Vec<(PathBuf, Mark)>,
    began: i128,
}

/// A directory at one moment: device, number, time of its last change in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64, u64, i128);

impl Mark {
    fn of(status: &FileStat) -> Self {
        let changed = nanoseconds(status.st_ctime, status.st_ctime_nsec);
        Self(status.st_dev, status.st_ino, changed)
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(rest))
}

impl Walk {
    /// Whether all was looked at while nothing was moved.
    pub(super) fn still(&self, root: BorrowedFd<'_>) -> bool {
        let oldest = self.began.saturating_sub(TICK);
        self.whole
            && self.visited.iter().all(|(path, mark)| {
                mark.2 < oldest
                    && open_plain(root, path, OFlag::O_PATH)
                        .and_then(|place| fstat(&place))
                        .is_ok_and(|status| Mark::of(&status) == *mark)
            })
    }
}

/// Walks the roots, breadth first, and adds every socket that is held.
pub(super) fn walk(root: BorrowedFd<'_>, roots: &[PathBuf], live: &mut Live) -> Result<Walk, WallFault> {
    let clock = SystemTime::UNIX_EPOCH.elapsed().step("read the clock")?;
    let began = i128::try_from(clock.as_nanos()).unwrap_or_default();
    let mut done = Walk { whole: true, visited: Vec::new(), began };
    let until = Instant::now().checked_add(SEARCH_TIME);
    let late = || until.is_none_or(|until| Instant::now() >= until);
    let mut queue: VecDeque<PathBuf> = roots.iter().cloned().collect();
    while let Some(path) = queue.pop_front() {
        if late() || live.len() > MAX_COVERED {
            done.whole = false;
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
                done.whole = false;
                continue;
            }
            // Gone, which its parent's times tell, or unreadable: nothing in it can be named.
            other => other,
        };
        let Ok(directory) = opened else { continue };
        let mark = Mark::of(&fstat(&directory).step_on("look at", path.display())?);
        let Ok(mut entries) = Dir::from_fd(directory) else { continue };
        for (count, entry) in entries.iter().filter_map(Result::ok).enumerate() {
            if count.checked_rem(PACE) == Some(0) && late() {
                done.whole = false;
                break;
            }
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let below = || path.join(std::ffi::OsStr::from_bytes(name));
            match entry.file_type().or_else(|| type_of(root, &below())) {
                Some(Type::Directory) if queue.len() < MAX_WAITING => queue.push_back(below()),
                Some(Type::Directory) => done.whole = false,
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
        done.visited.push((path, mark));
    }
    Ok(done)
}

/// Adds a path if a socket is there that somebody holds. Links are followed: a program may have bound by one.
pub(super) fn note(root: BorrowedFd<'_>, path: &Path, live: &mut Live) -> Result<bool, WallFault> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Vanished, unreachable for this call, or no path at all: nothing to cover.
    let Ok(handle) = openat2(root, below_root(path), how) else { return Ok(false) };
    let Some(inode) = held(handle.as_fd())? else { return Ok(false) };
    let name = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).step("name a socket")?;
    live.insert(name, inode);
    Ok(true)
}

/// The inode, if this is a socket that some process, wherever it lives, holds open.
fn held(handle: BorrowedFd<'_>) -> Result<Option<Inode>, WallFault> {
    let status = fstat(handle).step("look at a socket")?;
    if !is_socket(&status) {
        return Ok(None);
    }
    let step = "ask for the holder of a socket";
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Datagram, flags, None).step(step)?;
    let place = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let address = UnixAddr::new(place.as_str()).step(step)?;
    Ok(match connect(asking.as_raw_fd(), &address) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => None,
        // EPROTOTYPE for a stream; EPERM for one that talks to somebody; EACCES, which says nothing, counts as held.
        Ok(()) | Err(_) => Some(Inode::of(&status)),
    })
}

pub(super) fn is_socket(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Opens what is at a path, no link followed.
pub(super) fn open_plain(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Answered when a directory anywhere is renamed at the same moment.
    for _ in 0..64 {
        match openat2(root, below_root(path), how) {
            Err(Errno::EAGAIN) => {}
            answer => return answer,
        }
    }
    Err(Errno::EAGAIN)
}

/// For file systems that do not say it in a listing.
fn type_of(root: BorrowedFd<'_>, path: &Path) -> Option<Type> {
    let handle = open_plain(root, path, OFlag::O_PATH).ok()?;
    let status = fstat(&handle).ok()?;
    let format = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    if format == SFlag::S_IFDIR {
        Some(Type::Directory)
    } else if format == SFlag::S_IFSOCK {
        Some(Type::Socket)
    } else {
        None
    }
}

fn hold(root: BorrowedFd<'_>, path: &Path, live: &mut Live) -> Result<(), WallFault> {
    if let Ok(handle) = open_plain(root, path, OFlag::O_PATH)
        && let Some(inode) = held(handle.as_fd())?
    {
        live.insert(path.to_owned(), inode);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use nix::fcntl::open;
    use nix::sys::stat::Mode;

    use super::*;

    fn is_held(path: &Path) -> bool {
        let handle = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        held(handle.as_fd()).unwrap().is_some()
    }

    #[test]
    fn holders_are_found_without_their_noticing() {
        let dir = tempfile::tempdir().unwrap();
        let stream = UnixListener::bind(dir.path().join("s")).unwrap();
        stream.set_nonblocking(true).unwrap();
        let datagram = UnixDatagram::bind(dir.path().join("d")).unwrap();
        datagram.set_nonblocking(true).unwrap();
        assert!(is_held(&dir.path().join("s")) && is_held(&dir.path().join("d")));
        assert!(stream.accept().is_err(), "nobody connected");
        assert!(datagram.recv(&mut [0; 8]).is_err(), "nothing was sent");
        drop((stream, datagram));
        assert!(!is_held(&dir.path().join("s")) && !is_held(&dir.path().join("d")));
        fs::write(dir.path().join("f"), "").unwrap();
        assert!(!is_held(&dir.path().join("f")));
    }

    #[test]
    fn any_move_during_a_walk_is_noticed_and_a_change_just_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::create_dir(top.join("c")).unwrap();
        fs::write(top.join("a/b/f"), "").unwrap();
        let root = open("/", OFlag::O_PATH, Mode::empty()).unwrap();
        let look = || walk(root.as_fd(), std::slice::from_ref(&top), &mut Live::new()).unwrap();
        assert!(!look().still(root.as_fd()), "made this very moment");
        let quiet = || std::thread::sleep(Duration::from_millis(50));
        quiet();
        assert!(look().still(root.as_fd()));
        let moves: [&dyn Fn(); 5] = [
            &|| fs::rename(top.join("a/b/f"), top.join("c/f")).unwrap(),
            &|| fs::rename(top.join("a/b"), top.join("c/b")).unwrap(),
            &|| fs::rename(top.join("c/b"), top.join("c/d")).unwrap(),
            &|| fs::hard_link(top.join("c/f"), top.join("a/g")).unwrap(),
            // There and back again.
            &|| {
                fs::rename(top.join("c"), top.join("e")).unwrap();
                fs::rename(top.join("e"), top.join("c")).unwrap();
            },
        ];
        for (number, make) in moves.iter().enumerate() {
            let walked = look();
            make();
            assert!(!walked.still(root.as_fd()), "move {number}");
            quiet();
            assert!(look().still(root.as_fd()), "move {number}");
        }
        // What changes files alone moves nothing.
        let walked = look();
        fs::write(top.join("c/f"), "more").unwrap();
        assert!(walked.still(root.as_fd()));
    }
}
