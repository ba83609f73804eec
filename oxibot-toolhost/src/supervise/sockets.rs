//! Which sockets of the host appeared since a workspace was last searched for them: when a call's init has to look
//! again before its program may run. See `wall::sockets` for why.
//!
//! The kernel is asked for its list (unix_diag) over a socket that was opened before we shut ourselves in; it reads no
//! file and opens no path. The list holds one network namespace only, so a search is due from time to time all the same.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};

use crate::wire::{FoundSockets, Movers, Profile, Sockets};

/// A search is due after this long: containers bind sockets that our list does not show, and files are moved.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// Most sockets listed. Prevents a host with millions from holding up each call; beyond it a search is due.
const MAX_LISTED: usize = 8192;
/// Most names passed on with one job.
const MAX_NAMED: usize = 256;
/// Most bytes of names found earlier that are passed on with a job, which has to fit a frame. Beyond it the init looks
/// for itself.
const MAX_KNOWN: usize = 16 * 1024;
/// Most sockets that a call which is not alone has to find before it runs. Beyond it the tree has to hold still.
const MAX_EXPECTED: usize = 512;
/// One answer of the kernel is at most this long.
const BUFFER: usize = 32 * 1024;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST and NLM_F_DUMP.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// TCP_LISTEN and TCP_CLOSE: what others may connect or send to. Accepted connections carry the name, too, and are many.
const STATES: u32 = (1 << 10) | (1 << 7);
/// UDIAG_SHOW_NAME and UDIAG_SHOW_VFS.
const SHOW: u32 = 3;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;

/// One socket that has a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Never used twice by the kernel.
    cookie: u64,
    /// As its owner wrote it: relative to a directory we do not know, perhaps, or renamed since.
    name: Vec<u8>,
    /// Low half of the number of its file.
    inode: u32,
}

/// The kernel's list.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Where it is to be had.
    socket: Option<OwnedFd>,
    buffer: Vec<u8>,
}

impl Listing {
    /// None: each call searches.
    pub(crate) fn none() -> Self {
        Self { socket: None, buffer: Vec::new() }
    }

    /// Opens it, before the supervisor shuts itself in. Where it cannot be had each call searches.
    pub(crate) fn open() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).ok();
        if let Some(socket) = &socket {
            // One answer holds some dozens of sockets. Only speed depends on it.
            let _ = setsockopt(socket, sockopt::RcvBuf, &(1024 * 1024));
        }
        Self { socket, buffer: vec![0; BUFFER] }
    }

    /// What is bound to a path now; `None` when that cannot be known.
    pub(crate) fn now(&mut self) -> Option<Vec<Bound>> {
        let listed = self.ask();
        if listed.is_none() {
            // What is left of a broken answer would be taken for the next one.
            self.socket = None;
        }
        listed
    }

    fn ask(&mut self) -> Option<Vec<Bound>> {
        let socket = self.socket.as_ref()?.as_raw_fd();
        send(socket, &request(), MsgFlags::MSG_DONTWAIT).ok()?;
        let mut bound = Vec::new();
        loop {
            let length = recv(socket, &mut self.buffer, MsgFlags::MSG_DONTWAIT).ok()?;
            let mut rest = self.buffer.get(..length)?;
            while !rest.is_empty() {
                let (kind, body, after) = message(rest)?;
                match kind {
                    NLMSG_DONE => return (bound.len() <= MAX_LISTED).then_some(bound),
                    NLMSG_ERROR => return None,
                    SOCK_DIAG_BY_FAMILY if bound.len() <= MAX_LISTED => bound.extend(read(body)),
                    _ => {}
                }
                rest = after;
            }
        }
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend_from_slice(&40_u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&DUMP.to_ne_bytes());
    // Sequence number, our address; then family (AF_UNIX), protocol and padding.
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[1, 0, 0, 0]);
    request.extend_from_slice(&STATES.to_ne_bytes());
    // Any inode.
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(&SHOW.to_ne_bytes());
    // Any cookie.
    request.extend_from_slice(&[0xff; 8]);
    request
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Kind and body of the first message, and what follows it. Messages and attributes start at multiples of four.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let kind = u16_at(bytes, 4)?;
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default()))
}

/// A socket with a path; those without are of no interest.
fn read(body: &[u8]) -> Option<Bound> {
    let cookie = body.get(8..16)?;
    let cookie = u64::from_ne_bytes(cookie.try_into().ok()?);
    let (mut name, mut inode) = (Vec::new(), None);
    let mut rest = body.get(16..)?;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        match u16_at(rest, 2)? {
            UNIX_DIAG_NAME => name = value.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            UNIX_DIAG_VFS => inode = u32_at(value, 0),
            _ => {}
        }
        rest = rest.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    }
    inode.map(|inode| Bound { cookie, name, inode })
}

/// What is known about sockets of others in one workspace and the other paths granted to its calls.
#[derive(Debug)]
pub(crate) struct Others {
    roots: Vec<PathBuf>,
    /// All of the file system is in view.
    everywhere: bool,
    searched: Option<Searched>,
    /// Sockets known to be elsewhere, from where no call can bring them here.
    settled: HashSet<u64>,
}

#[derive(Debug)]
struct Searched {
    at: Instant,
    /// What the kernel had then.
    cookies: HashSet<u64>,
    found: Vec<Vec<u8>>,
}

/// A search that a call's init was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    at: Instant,
    cookies: HashSet<u64>,
    expected: Vec<Expected>,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    cookie: u64,
    inode: u32,
}

impl Others {
    pub(crate) fn new(profile: &Profile) -> Self {
        let granted = [&profile.workspace].into_iter().chain(&profile.write).chain(&profile.read);
        let roots = granted.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
        Self { roots, everywhere: !profile.restrict_to_workspace, searched: None, settled: HashSet::new() }
    }

    /// What to tell the init of a call that starts now. `accompanied`: other calls of this workspace run, whose sockets
    /// no list shows.
    pub(crate) fn ask(
        &self,
        listed: Option<&[Bound]>,
        accompanied: bool,
        now: Instant,
    ) -> (Sockets, Option<Asked>) {
        let fresh = self.searched.as_ref().filter(|searched| {
            !accompanied
                && searched.found.iter().map(Vec::len).sum::<usize>() <= MAX_KNOWN
                && now.saturating_duration_since(searched.at) < SEARCH_EVERY
                && listed.is_some_and(|all| all.iter().all(|one| searched.cookies.contains(&one.cookie)))
        });
        let expected = listed.and_then(|all| self.expected(all));
        let listed = listed.unwrap_or_default();
        let asked = fresh.is_none().then(|| {
            let cookies = listed.iter().map(|bound| bound.cookie).collect();
            Asked { at: now, cookies, expected: expected.iter().flatten().copied().collect() }
        });
        let sockets = Sockets {
            // A search finds them anyway.
            known: fresh.map(|searched| searched.found.clone()).unwrap_or_default(),
            named: listed
                .iter()
                .filter(|b| self.shows(&b.name))
                .take(MAX_NAMED)
                .map(|b| b.name.clone())
                .collect(),
            search: asked.is_some(),
            expected: expected.map(|all| all.iter().map(|one| one.inode).collect()),
            movers: if accompanied { Movers::Calls } else { Movers::Nobody },
        };
        (sockets, asked)
    }

    /// Sockets that may be among the files of a call: not known to be elsewhere, nor bound by a name that is.
    fn expected(&self, listed: &[Bound]) -> Option<Vec<Expected>> {
        let expected: Vec<Expected> = listed
            .iter()
            .filter(|bound| !self.settled.contains(&bound.cookie) && self.may_hold(&bound.name))
            .map(|bound| Expected { cookie: bound.cookie, inode: bound.inode })
            .collect();
        (expected.len() <= MAX_EXPECTED).then_some(expected)
    }

    /// Whether what calls run elsewhere may change something here.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        self.roots
            .iter()
            .any(|one| other.roots.iter().any(|two| one.starts_with(two) || two.starts_with(one)))
    }

    /// A search came to this. Without `asked` the init found a reason of its own.
    pub(crate) fn found(&mut self, asked: Option<Asked>, found: FoundSockets) {
        match asked {
            Some(Asked { at, cookies, expected }) => {
                self.settled.retain(|cookie| cookies.contains(cookie));
                let elsewhere = expected.iter().filter(|one| found.elsewhere.contains(&one.inode));
                self.settled.extend(elsewhere.map(|one| one.cookie));
                self.searched = Some(Searched { at, cookies, found: found.paths });
            }
            None => {
                if let Some(searched) = &mut self.searched {
                    searched.found = found.paths;
                }
            }
        }
    }

    /// Whether a socket bound by this name may lie where calls can write.
    fn may_hold(&self, name: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(name));
        // By a descriptor: it may be anywhere.
        let by_handle = path.starts_with("/proc") || path.starts_with("/dev/fd");
        !path.is_absolute() || by_handle || self.roots.iter().any(|root| path.starts_with(root))
    }

    /// Whether a name is one of a file that calls may see.
    fn shows(&self, name: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(name));
        path.is_absolute() && (self.everywhere || self.roots.iter().any(|root| path.starts_with(root)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn kernel_lists_sockets_with_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["s", "d"].map(|name| dir.path().join(name));
        let mut listing = Listing::open();
        let before = listing.now().unwrap();
        let held = (UnixListener::bind(&names[0]).unwrap(), UnixDatagram::bind(&names[1]).unwrap());
        let listed = listing.now().unwrap();
        for name in &names {
            let found: Vec<_> =
                listed.iter().filter(|bound| bound.name == name.as_os_str().as_bytes()).collect();
            assert_eq!(found.len(), 1, "{listed:?}");
            assert!(!before.contains(found[0]));
        }
        drop(held);
        assert!(
            listing
                .now()
                .unwrap()
                .iter()
                .all(|bound| !Path::new(OsStr::from_bytes(&bound.name)).starts_with(dir.path()))
        );
    }

    #[test]
    fn many_sockets_are_listed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let held: Vec<_> =
            (0..400).map(|n| UnixListener::bind(dir.path().join(format!("{n}"))).unwrap()).collect();
        let mut listing = Listing::open();
        let started = Instant::now();
        let listed = listing.now().unwrap();
        let took = started.elapsed();
        let ours = listed.iter().filter(|b| b.name.starts_with(dir.path().as_os_str().as_bytes())).count();
        assert_eq!(ours, held.len(), "in {took:?}");
    }

    #[test]
    fn garbage_is_answered() {
        assert!(message(&[0; 15]).is_none() && message(&[0; 16]).is_none());
        assert!(message(&[0xff; 64]).is_none());
        assert!(read(&[0; 16]).is_none() && read(&[0; 19]).is_none() && read(&[0xff; 40]).is_none());
        assert!(read(&[0; 40]).is_none(), "an attribute of length zero is not followed for ever");
    }

    fn others(everywhere: bool) -> Others {
        Others { roots: vec!["/w".into()], everywhere, searched: None, settled: HashSet::new() }
    }

    fn bound(cookie: u64, name: &str) -> Bound {
        Bound { cookie, name: name.into(), inode: u32::try_from(cookie).unwrap() + 100 }
    }

    #[test]
    fn search_is_asked_for_when_something_may_be_new() {
        let now = Instant::now();
        let mut others = others(false);
        let first = [bound(1, "/run/x")];
        let (sockets, asked) = others.ask(Some(&first), false, now);
        assert!(sockets.search && sockets.known.is_empty());
        others.found(asked, FoundSockets { paths: vec![b"/w/s".to_vec()], whole: true, elsewhere: vec![] });
        let (sockets, asked) = others.ask(Some(&first), false, now);
        assert!(!sockets.search && asked.is_none());
        assert_eq!(sockets.known, [b"/w/s".to_vec()]);
        assert!(others.ask(Some(&[]), false, now).1.is_none(), "one less is nothing new");
        let second = [bound(1, "/run/x"), bound(2, "s")];
        assert!(others.ask(Some(&second), false, now).0.search, "a relative name may be anywhere");
        assert!(others.ask(Some(&first), true, now).0.search, "other calls run");
        assert!(others.ask(None, false, now).0.search, "nothing is known");
        assert!(others.ask(Some(&first), false, now + SEARCH_EVERY).0.search, "it is long ago");
        let many = (0..40).map(|n| vec![n; 500]).collect();
        others.found(
            others.ask(None, true, now).1,
            FoundSockets { paths: many, whole: true, elsewhere: vec![] },
        );
        let (sockets, _) = others.ask(Some(&[]), false, now);
        assert!(sockets.search && sockets.known.is_empty(), "too many to pass on");
    }

    #[test]
    fn a_call_that_is_not_alone_has_to_find_what_is_not_known_to_be_elsewhere() {
        let now = Instant::now();
        let mut others = others(false);
        let listed = [
            bound(1, "/w/s"),
            bound(2, "/var/x"),
            bound(3, "s"),
            bound(4, "/proc/self/fd/3/s"),
            bound(5, "/wx"),
        ];
        assert_eq!(others.ask(Some(&listed), false, now).0.movers, Movers::Nobody);
        assert_eq!(others.ask(Some(&listed), true, now).0.movers, Movers::Calls);
        let expected = |others: &Others, listed| others.ask(listed, true, now).0.expected;
        assert_eq!(expected(&others, None), None);
        assert_eq!(expected(&others, Some(&listed)), Some(vec![101, 103, 104]));
        let asked = others.ask(Some(&listed), true, now).1;
        others.found(asked, FoundSockets { paths: vec![], whole: true, elsewhere: vec![103, 999] });
        assert_eq!(expected(&others, Some(&listed)), Some(vec![101, 104]));
        let many: Vec<_> = (0..600).map(|cookie| bound(1000 + cookie, "s")).collect();
        assert_eq!(expected(&others, Some(&many)), None);
    }

    #[test]
    fn names_are_passed_on_where_they_are_in_view() {
        let now = Instant::now();
        let listed = [bound(1, "/w/s"), bound(2, "/var/x"), bound(3, "s")];
        let named = |everywhere| others(everywhere).ask(Some(&listed), false, now).0.named;
        assert_eq!(named(false), [b"/w/s".to_vec()]);
        assert_eq!(named(true), [b"/w/s".to_vec(), b"/var/x".to_vec()]);
    }
}
