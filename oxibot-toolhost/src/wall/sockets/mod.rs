//! Sockets of others among the files of a call are covered, so that the call cannot talk to whoever listens there.
//!
//! A connection to a path asks for the right to write to the socket's inode and for nothing else: a read-only mount
//! does not stop it, a network namespace does not, and Landlock does from ABI 9 on only. Until then each call's init,
//! while it can still mount, puts an empty file over every such socket: of host programs, of containers, of other
//! calls. What is left is a socket that is bound after its call began.
//!
//! A call that is older than a socket may move it about while younger calls start. They start only when they know that
//! they missed none: each socket that the kernel lists was covered and has no second name, or nothing moved during one
//! whole search (see `search`). Else they are refused.
//!
//! Whether anybody holds a socket is asked of the kernel by a datagram connect to it: a stream socket answers that the
//! type is wrong and notices nothing, a datagram socket is told nothing either, and one that nobody holds is refused.
//! So files that dead servers left, also those of earlier calls, stay what they are. Nothing is decided by name.

mod search;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use oxibot_proto::message::Denial;

use self::search::{Inode, Live, Walk, is_socket, note, open_plain, walk};
use super::fault::{Step, fault};
use super::grants::path_of;
use crate::sys::{self, Reach};
use crate::wire::{FoundSockets, Movers, Profile, Sockets, WallFault};

/// First Landlock ABI that refuses connections to sockets of another domain.
const RESOLVE_UNIX_ABI: u32 = 9;
/// Most sockets covered. Each costs a mount, and a workspace with more is no workspace.
const MAX_COVERED: usize = 128;
/// Rounds of covering and looking again, against somebody who moves directories meanwhile.
const ROUNDS: usize = 4;
/// As long as nothing is known to be left, a call that is not alone tries again this long, then it is refused.
const PERSISTENCE: Duration = Duration::from_secs(1);
/// Between two tries. A tree that is to be seen to hold still must have done so for a while.
const PAUSE: Duration = Duration::from_millis(25);
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
    let mut hiding = Hiding::new(root.as_fd(), profile, asked);
    let mut live = Live::new();
    let mut search = asked.search;
    for path in &asked.known {
        // It was there a moment ago: moved, or its owner has ended.
        search |= !note(root.as_fd(), path_of(path), &mut live)?;
    }
    for path in &asked.named {
        note(root.as_fd(), path_of(path), &mut live)?;
    }
    let done = hiding.all(live, search);
    if hiding.cover.is_some() {
        // Its name is needed as long as it is mounted anew.
        std::fs::remove_file(COVER).step("remove the name of the cover")?;
    }
    Ok(match done? {
        Ok(()) => Hidden::Yes(hiding.found),
        Err(reason) => Hidden::No(denial(reason)),
    })
}

/// What has been done so far.
struct Hiding<'a> {
    root: BorrowedFd<'a>,
    /// Where sockets are looked for.
    roots: Vec<PathBuf>,
    /// Where somebody could move them.
    writable: Vec<&'a Path>,
    asked: &'a Sockets,
    cover: Option<OwnedFd>,
    pinned: BTreeSet<PathBuf>,
    covered: BTreeSet<u32>,
    /// One of them goes by another name, too.
    linked: bool,
    found: Option<FoundSockets>,
}

impl<'a> Hiding<'a> {
    fn new(root: BorrowedFd<'a>, profile: &'a Profile, asked: &'a Sockets) -> Self {
        let writable = [&profile.workspace].into_iter().chain(&profile.write).map(|path| path_of(path));
        Self {
            root,
            roots: roots(profile),
            writable: writable.collect(),
            asked,
            cover: None,
            pinned: BTreeSet::new(),
            covered: BTreeSet::new(),
            linked: false,
            found: None,
        }
    }

    /// Covers these, and all that a search finds, until none is left; else why that cannot be.
    fn all(&mut self, mut live: Live, mut search: bool) -> Result<Result<(), String>, WallFault> {
        let began = Instant::now();
        let mut round = 0_usize;
        loop {
            let walked = if search { Some(walk(self.root, &self.roots, &mut live)?) } else { None };
            if live.len() > MAX_COVERED {
                return Ok(Err(format!("there are more than {MAX_COVERED}")));
            }
            // Asked before the covering takes its time.
            let still = walked.as_ref().is_some_and(|walked| self.was_still(walked, &live));
            if let Some(walked) = &walked {
                self.remember(&live, walked.whole, if still { self.missing(&live) } else { Vec::new() });
            }
            let left = self.cover(&live)?;
            if !left && (walked.is_none() || self.nothing_missed(still)) {
                return Ok(Ok(()));
            }
            round = round.saturating_add(1);
            let patient = match self.asked.movers {
                Movers::Nobody => round < ROUNDS,
                Movers::Calls => round < ROUNDS || began.elapsed() < PERSISTENCE,
            };
            if !patient {
                return Ok(Err("they are moved while they are covered".to_owned()));
            }
            if !left {
                std::thread::sleep(PAUSE);
            }
            // Covered ones are plain files by now.
            (live, search) = (Live::new(), true);
        }
    }

    /// Whether nothing moved during this walk, where it matters: looking at every directory again has its price.
    fn was_still(&self, walked: &Walk, live: &Live) -> bool {
        let matters = match (self.asked.movers, &self.asked.expected) {
            (Movers::Nobody, None) => false,
            (Movers::Calls, None) => true,
            (Movers::Calls, Some(_)) if self.linked || live.values().any(|inode| inode.names > 1) => true,
            (Movers::Nobody | Movers::Calls, Some(_)) => !self.missing(live).is_empty(),
        };
        matters && walked.still(self.root)
    }

    /// What is expected and was not found.
    fn missing(&self, live: &Live) -> Vec<u32> {
        let found: BTreeSet<u32> =
            live.values().copied().map(low).chain(self.covered.iter().copied()).collect();
        let expected = self.asked.expected.iter().flatten();
        expected.copied().filter(|one| !found.contains(one)).collect()
    }

    /// What is told about a search: all that was found, over all rounds.
    fn remember(&mut self, live: &Live, whole: bool, elsewhere: Vec<u32>) {
        let before = self.found.take().map(|found| found.paths).unwrap_or_default();
        let mut paths: BTreeSet<Vec<u8>> = before.into_iter().collect();
        paths.extend(live.keys().map(|path| path.as_os_str().as_bytes().to_vec()));
        self.found = Some(FoundSockets { paths: paths.into_iter().collect(), whole, elsewhere });
    }

    /// Whether the search that was just made can have missed none.
    fn nothing_missed(&self, still: bool) -> bool {
        match self.asked.movers {
            Movers::Nobody => true,
            Movers::Calls => {
                let all = self.asked.expected.is_some() && self.missing(&Live::new()).is_empty();
                still || (all && !self.linked)
            }
        }
    }

    /// Covers each; whether one is left, or may be because something moved.
    fn cover(&mut self, live: &Live) -> Result<bool, WallFault> {
        let mut left = false;
        for (path, inode) in live {
            // Who could move a directory on the way would show the socket where the next call does not look.
            for parent in parents(path, &self.writable) {
                if self.pinned.insert(parent.to_owned()) {
                    pin(self.root, parent)?;
                }
            }
            let cover = match self.cover.take() {
                Some(cover) => cover,
                None => cover_file()?,
            };
            let put = put_over(self.root, path, *inode, cover.as_fd());
            self.cover = Some(cover);
            match put? {
                Some(names) => {
                    self.covered.insert(low(*inode));
                    self.linked |= names > 1;
                }
                None => left = true,
            }
        }
        // What is still a socket was moved here meanwhile.
        let mut again = Live::new();
        for path in live.keys() {
            note(self.root, path, &mut again)?;
        }
        Ok(left || !again.is_empty())
    }
}

/// As the kernel lists it.
fn low(inode: Inode) -> u32 {
    u32::try_from(inode.number & u64::from(u32::MAX)).unwrap_or_default()
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

/// An empty file, to be mounted as often as it is needed.
fn cover_file() -> Result<OwnedFd, WallFault> {
    let step = "make a cover for sockets";
    let file = File::options().write(true).create_new(true).open(COVER).step(step)?;
    let handle =
        open(COVER, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()).step(step)?;
    drop(file);
    Ok(handle)
}

/// Covers a socket, and says how many names it has; `None` when it is not there any more.
fn put_over(
    root: BorrowedFd<'_>,
    path: &Path,
    expected: Inode,
    cover: BorrowedFd<'_>,
) -> Result<Option<u64>, WallFault> {
    let Ok(place) = open_plain(root, path, OFlag::O_PATH) else { return Ok(None) };
    let status = fstat(&place).step_on("look at", path.display())?;
    if !is_socket(&status) {
        return Ok(None);
    }
    let tree = sys::open_tree_clone(cover).step("copy the cover of a socket")?;
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    sys::set_mount(tree.as_fd(), attributes, None, Reach::This).step("make the cover read-only")?;
    let found = Inode::of(&status);
    match sys::move_mount(tree.as_fd(), place.as_fd()) {
        // Another one that took its place is covered, too, but it is not the one.
        Ok(()) => Ok(found.is(expected).then_some(found.names)),
        // Removed meanwhile.
        Err(Errno::ENOENT) => Ok(None),
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
    use super::*;

    #[test]
    fn parents_are_those_a_call_could_move() {
        let path = Path::new("/w/a/b/s");
        assert_eq!(parents(path, &[Path::new("/w")]), [Path::new("/w/a"), Path::new("/w/a/b")]);
        assert_eq!(parents(path, &[Path::new("/x")]), Vec::<&Path>::new());
        assert_eq!(parents(Path::new("/w/s"), &[Path::new("/w")]), Vec::<&Path>::new());
    }
}
