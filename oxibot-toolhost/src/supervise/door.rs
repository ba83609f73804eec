//! A socket that listens, and who may come in: the kernel says who is at the other end, nothing a peer says counts.
//!
//! A unit with `PrivateUsers=` lives in a user namespace in which most users have no number; the kernel then calls them all
//! the overflow user. There the kernel decides by owner and mode of the socket who gets as far as here, `service` has made
//! sure that these leave one possibility, and what is left to tell apart is told apart.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::{Gid, Uid, geteuid};

use crate::sys;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// The user we run as, and root.
    Ourselves,
    /// This user only: main's.
    User(Uid),
    /// Root and members of a group, but never this user: what is said here must not hang on main's word.
    Administrators { group: Gid, never: Uid },
    /// Somebody without a number here: neither root nor ourselves. Where the socket lets nobody else in but main.
    Unnamed,
    /// Root, and somebody without a number here. Where the socket lets in root and a group.
    RootOrUnnamed,
}

/// What the kernel calls whoever has no number in our user namespace (`/proc/sys/kernel/overflowuid`, never changed).
const OVERFLOW: Uid = Uid::from_raw(65_534);

/// Who is at the other end, as the kernel had it when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Peer {
    user: Uid,
    group: Gid,
    more_groups: Vec<u32>,
}

impl Admitted {
    fn admits(self, peer: &Peer) -> bool {
        match self {
            Self::Ourselves => peer.user == geteuid() || peer.user.is_root(),
            Self::User(user) => peer.user == user,
            Self::Administrators { group, never } => {
                let member = peer.group == group || peer.more_groups.contains(&group.as_raw());
                peer.user != never && (peer.user.is_root() || member)
            }
            Self::Unnamed => peer.user == OVERFLOW && peer.user != geteuid(),
            Self::RootOrUnnamed => peer.user.is_root() || (peer.user == OVERFLOW && peer.user != geteuid()),
        }
    }
}

/// Who knocked.
#[derive(Debug)]
pub(crate) enum Knock {
    /// One that may come in, and its process.
    Admitted(OwnedFd, i32),
    /// One that may not; its connection is closed already.
    Refused(Uid),
    /// Nobody any more.
    Nobody,
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    admitted: Admitted,
}

impl Door {
    /// The listener must not block.
    pub(crate) fn new(listener: UnixListener, admitted: Admitted) -> Self {
        Self { listener, admitted }
    }

    /// For poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// The next connection. Does not block.
    pub(crate) fn accept(&self) -> Knock {
        let socket = loop {
            match self.listener.accept() {
                Ok((stream, _)) => break OwnedFd::from(stream),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Knock::Nobody,
            }
        };
        let Ok(credentials) = getsockopt(&socket, sockopt::PeerCredentials) else { return Knock::Nobody };
        let peer = peer(&socket, credentials);
        if self.admitted.admits(&peer) {
            Knock::Admitted(socket, credentials.pid())
        } else {
            Knock::Refused(peer.user)
        }
    }
}

fn peer(socket: &OwnedFd, credentials: UnixCredentials) -> Peer {
    Peer {
        user: Uid::from_raw(credentials.uid()),
        group: Gid::from_raw(credentials.gid()),
        // Who has more groups than fit has none that count.
        more_groups: sys::peer_groups(socket.as_fd()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(user: u32, group: u32, more: &[u32]) -> Peer {
        Peer { user: Uid::from_raw(user), group: Gid::from_raw(group), more_groups: more.to_vec() }
    }

    #[test]
    fn main_alone_may_call() {
        let door = Admitted::User(Uid::from_raw(991));
        assert!(door.admits(&peer(991, 991, &[])));
        for other in [0, 990, 65534] {
            assert!(!door.admits(&peer(other, 991, &[991])), "{other}");
        }
    }

    #[test]
    fn administrators_are_root_and_the_group_and_never_main() {
        let never = Uid::from_raw(991);
        let door = Admitted::Administrators { group: Gid::from_raw(50), never };
        assert!(door.admits(&peer(0, 0, &[])));
        assert!(door.admits(&peer(1000, 50, &[])));
        assert!(door.admits(&peer(1000, 100, &[4, 50])));
        assert!(!door.admits(&peer(1000, 100, &[4])));
        assert!(!door.admits(&peer(991, 50, &[50])), "main, even as a member");
    }

    #[test]
    fn in_a_user_namespace_root_and_ourselves_are_told_from_the_one_the_socket_lets_in() {
        let (main, root) = (peer(65_534, 65_534, &[]), peer(0, 0, &[]));
        let ourselves = peer(geteuid().as_raw(), 0, &[]);
        assert!(Admitted::Unnamed.admits(&main));
        assert!(!Admitted::Unnamed.admits(&root) && !Admitted::Unnamed.admits(&ourselves));
        assert!(Admitted::RootOrUnnamed.admits(&main) && Admitted::RootOrUnnamed.admits(&root));
        assert!(!Admitted::RootOrUnnamed.admits(&peer(1000, 0, &[])));
    }

    #[test]
    fn kernel_names_the_peer_and_its_groups() {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let door = Door::new(listener, Admitted::Ourselves);
        assert!(matches!(door.accept(), Knock::Nobody));
        let client = std::os::unix::net::UnixStream::connect(directory.path().join("s")).unwrap();
        assert!(matches!(door.accept(), Knock::Admitted(..)));
        let mut groups: Vec<u32> = nix::unistd::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
        let mut told = sys::peer_groups(client.as_fd()).unwrap();
        groups.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, groups);
    }
}
