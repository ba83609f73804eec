//! What systemd hands the toolhost of a service: sockets that listen already, by name (sd_listen_fds(3)).
//!
//! Who may connect is decided here once: names of user and group become numbers before anything is shut in. That the
//! sockets have owners and modes as well is the unit's; the kernel's word on who is at the other end is what counts.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

use super::door::{Admitted, Door};
use crate::sys;

/// First descriptor of socket activation.
const FIRST: i32 = 3;
/// `FileDescriptorName=` of the socket for main.
const CALLS: &str = "toolhost";
/// The same of the socket for administrators.
const CONTROL: &str = "control";

/// Who may ask what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// User that main runs as.
    pub(crate) main: String,
    /// Group whose members may stop, look and approve.
    pub(crate) administrators: String,
}

/// The sockets of a service.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) calls: Door,
    pub(crate) control: Door,
}

/// The service manager did not hand over what a service needs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoService {
    #[error(
        "cannot serve: --service is for a unit with the sockets \"toolhost\" and \"control\" (LISTEN_FDS)"
    )]
    NotActivated,
    #[error("cannot serve: {0} is not handed over exactly once; see FileDescriptorName= of the socket units")]
    Missing(&'static str),
    #[error("cannot serve: there is no {kind} {name:?}; systemd-sysusers makes it")]
    Unknown { kind: &'static str, name: String },
    #[error(
        "cannot serve: main's user {0:?} is root, which may do everything anyway; give main a user of its own"
    )]
    Root(String),
    #[error("cannot serve: {} has mode {mode:o}, so that others than main may connect; see SocketMode=", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("cannot serve: a socket has no file, and no mode that says who may connect")]
    Abstract,
    #[error("cannot serve: {step}: {cause}")]
    System { step: &'static str, cause: String },
}

/// Takes the sockets; every other descriptor above standard error is closed. For the start of a process.
pub(crate) fn take(names: &Names) -> Result<Doors, NoService> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let own = variable("LISTEN_PID") == std::process::id().to_string();
    let handed = handed(own, &variable("LISTEN_FDS"), &variable("LISTEN_FDNAMES"))?;
    let after = FIRST.unsigned_abs().saturating_add(2);
    sys::close_from(after).map_err(system("close descriptors"))?;
    sys::close_on_exec_from(FIRST.unsigned_abs()).map_err(system("mark descriptors"))?;
    let main = match User::from_name(&names.main) {
        Ok(Some(user)) if user.uid.is_root() => return Err(NoService::Root(names.main.clone())),
        Ok(Some(user)) => user.uid,
        Ok(None) => return Err(NoService::Unknown { kind: "user", name: names.main.clone() }),
        Err(errno) => return Err(system("look up main's user")(errno)),
    };
    let group = match Group::from_name(&names.administrators) {
        Ok(Some(group)) => group.gid,
        Ok(None) => return Err(NoService::Unknown { kind: "group", name: names.administrators.clone() }),
        Err(errno) => return Err(system("look up the administrators")(errno)),
    };
    doors(handed, main, group)
}

fn doors(handed: Handed, main: Uid, group: Gid) -> Result<Doors, NoService> {
    let calls = listener(handed.calls, CALLS)?;
    let control = listener(handed.control, CONTROL)?;
    let map = std::fs::read_to_string("/proc/self/uid_map").map_err(system("read /proc/self/uid_map"))?;
    let (who_calls, who_controls) = if has_number(&map, main.as_raw()) {
        (Admitted::User(main), Admitted::Administrators { group, never: main })
    } else {
        // The kernel cannot name main to us; it let main in, and nobody else.
        closed_to(&calls, 0o077)?;
        closed_to(&control, 0o007)?;
        (Admitted::Unnamed, Admitted::RootOrUnnamed)
    };
    Ok(Doors { calls: Door::new(calls, who_calls), control: Door::new(control, who_controls) })
}

fn listener(number: i32, name: &'static str) -> Result<UnixListener, NoService> {
    let socket: OwnedFd = sys::take_inherited(number).ok_or(NoService::Missing(name))?;
    let listens = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::AcceptConn);
    if listens != Ok(true) {
        return Err(NoService::Missing(name));
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true).map_err(system("use a socket"))?;
    Ok(listener)
}

/// Whether a user of the machine has a number in our user namespace (user_namespaces(7); the unit's maps are one to one).
fn has_number(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) => {
                inside == outside && user >= inside && user - inside < count
            }
            (_, _, _) => false,
        }
    })
}

/// The file of a socket keeps away everybody these bits of the mode are for.
fn closed_to(listener: &UnixListener, others: u32) -> Result<(), NoService> {
    let address = listener.local_addr().map_err(system("find the file of a socket"))?;
    let path = address.as_pathname().ok_or(NoService::Abstract)?;
    let mode = path.metadata().map_err(system("look at the file of a socket"))?.mode();
    if mode & others == 0 {
        Ok(())
    } else {
        Err(NoService::Open { path: path.to_path_buf(), mode: mode & 0o777 })
    }
}

/// Numbers of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Handed {
    calls: i32,
    control: i32,
}

fn handed(own: bool, count: &str, names: &str) -> Result<Handed, NoService> {
    // Meant for another process: our descriptors of these numbers are something else.
    if !own || count != "2" {
        return Err(NoService::NotActivated);
    }
    let position = |wanted: &'static str| {
        let mut found = names.split(':').zip(FIRST..).filter(|(name, _)| *name == wanted);
        match (found.next(), found.next()) {
            (Some((_, number)), None) => Ok(number),
            (_, _) => Err(NoService::Missing(wanted)),
        }
    };
    Ok(Handed { calls: position(CALLS)?, control: position(CONTROL)? })
}

/// Standard input and output of a service are nobody's.
pub(crate) fn silence() -> Result<(), NoService> {
    let step = "open /dev/null";
    let null = File::options().read(true).write(true).open("/dev/null").map_err(system(step))?;
    nix::unistd::dup2_stdin(&null).map_err(system(step))?;
    nix::unistd::dup2_stdout(&null).map_err(system(step))
}

fn system<E: std::fmt::Display>(step: &'static str) -> impl FnOnce(E) -> NoService {
    move |cause| NoService::System { step, cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_their_names_in_any_order() {
        assert_eq!(handed(true, "2", "toolhost:control"), Ok(Handed { calls: 3, control: 4 }));
        assert_eq!(handed(true, "2", "control:toolhost"), Ok(Handed { calls: 4, control: 3 }));
    }

    #[test]
    fn what_is_meant_for_others_or_not_whole_is_refused() {
        assert_eq!(handed(false, "2", "toolhost:control"), Err(NoService::NotActivated));
        assert_eq!(handed(true, "1", "toolhost"), Err(NoService::NotActivated));
        assert_eq!(handed(true, "", ""), Err(NoService::NotActivated));
        assert_eq!(handed(true, "2", "toolhost:toolhost"), Err(NoService::Missing("toolhost")));
        assert_eq!(handed(true, "2", "toolhost:other"), Err(NoService::Missing("control")));
    }

    #[test]
    fn users_without_a_number_are_known_by_the_map() {
        let everybody = "         0          0 4294967295\n";
        let unit = "         0          0          1\n       992        992          1\n";
        assert!(has_number(everybody, 991));
        assert!(has_number(unit, 992) && has_number(unit, 0));
        assert!(!has_number(unit, 991) && !has_number("0 1000 65536", 991));
    }

    #[test]
    fn socket_that_others_may_connect_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        for (mode, closed) in [(0o600, true), (0o660, false), (0o666, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(closed_to(&listener, 0o077).is_ok(), closed, "{mode:o}");
        }
    }

    #[test]
    fn unknown_user_is_named() {
        let names = |main: &str| Names { main: main.into(), administrators: "root".into() };
        // Not activated: found out before any user is looked up.
        assert_eq!(take(&names("nobody-such")).unwrap_err(), NoService::NotActivated);
    }
}
