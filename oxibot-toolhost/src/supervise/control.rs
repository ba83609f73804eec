//! The emergency stop and the socket beside it: `run/stop` in the home, and `run/<pid>.sock` for `status` and `stop`.
//!
//! The file counts, not our memory: it is looked at before every call, so that one command stops every process that
//! shares the home. Whoever cannot tell whether it is there refuses.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat, umask};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::door::{Admitted, Door, Knock};
use super::workspace;

/// Name of the stop file in `run/`.
const STOP: &str = "stop";
/// Name of a person's stop file in the home.
const HOME_STOP: &str = "STOP";
/// An administrator's stop for every home of the machine.
const MACHINE_STOP: &str = "/run/oxibot/STOP";

/// What refuses new calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `oxibot stop --all`, here or in another process of the home.
    Command,
    /// The file `STOP` in the home.
    HomeFile,
    /// The file of the machine's administrator.
    MachineFile,
}

impl Stop {
    /// How to accept calls again.
    pub(crate) fn remedy(self) -> &'static str {
        match self {
            Self::Command => "run `oxibot stop --clear` to accept calls again",
            Self::HomeFile => "a person removes the file STOP in OxiBot's home to accept calls again",
            Self::MachineFile => "the machine's administrator removes /run/oxibot/STOP to accept calls again",
        }
    }
}

/// The stop, by file where there is a home, by flag where there is none.
#[derive(Debug)]
pub(crate) struct StopSwitch {
    run: Option<File>,
    home: Option<File>,
    flag: bool,
}

impl StopSwitch {
    /// With directory handles opened before we shut ourselves in.
    pub(crate) fn new(run: Option<File>, home: Option<File>) -> Self {
        Self { run, home, flag: false }
    }

    /// Whether new calls are refused.
    pub(crate) fn is_set(&self) -> bool {
        self.cause().is_some()
    }

    /// What refuses new calls, if anything does.
    pub(crate) fn cause(&self) -> Option<Stop> {
        let there = |directory: &Option<File>, name: &str| {
            directory.as_ref().is_some_and(|directory| {
                !matches!(fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW), Err(Errno::ENOENT))
            })
        };
        // Only a clear "no such file" means no; but the machine's directory may be closed to us, which is no stop.
        if self.flag || there(&self.run, STOP) {
            Some(Stop::Command)
        } else if there(&self.home, HOME_STOP) {
            Some(Stop::HomeFile)
        } else {
            nix::sys::stat::lstat(MACHINE_STOP).is_ok().then_some(Stop::MachineFile)
        }
    }

    /// Refuses new calls from now on, here and in every process of this home.
    pub(crate) fn set(&mut self) -> nix::Result<()> {
        self.flag = true;
        let Some(run) = &self.run else { return Ok(()) };
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(run, STOP, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(drop)
    }

    /// Accepts calls again, unless a file remains that is not ours to remove.
    pub(crate) fn clear(&mut self) -> nix::Result<()> {
        self.flag = false;
        let Some(run) = &self.run else { return Ok(()) };
        match unlinkat(run, STOP, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// The socket for `status`, `stop` and approvals: `run/<pid>.sock`, or one that systemd made.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    door: Door,
    /// What we made ourselves and remove at the end.
    made: Option<(File, String)>,
}

/// `run/` of a home, private, and its path.
pub(crate) fn open_run(home: &Path) -> std::io::Result<(File, PathBuf)> {
    let path = home.join("run");
    workspace::create(&path)?;
    Ok((File::open(&path)?, path))
}

impl ControlSocket {
    /// Binds it, 0600 from its first moment, and removes sockets that nobody listens on any more.
    pub(crate) fn bind(run: &File, path: &Path) -> std::io::Result<Self> {
        remove_stale(path);
        let name = format!("{}.sock", std::process::id());
        // Bind-then-chmod would leave a moment in which others can connect.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path.join(&name));
        umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(Self { door: Door::new(listener, Admitted::Ourselves), made: Some((run.try_clone()?, name)) })
    }

    /// One that a service manager made, and keeps.
    pub(crate) fn handed(door: Door) -> Self {
        Self { door, made: None }
    }

    /// For poll.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.door.fd()
    }

    /// A connection of somebody who may; others are closed without a word.
    pub(crate) fn accept(&self) -> Knock {
        self.door.accept()
    }

    /// Removes the name we made. Does not block.
    pub(crate) fn remove(&self) {
        if let Some((run, name)) = &self.made {
            // It may have been removed with the home.
            let _ = unlinkat(run, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A process that was killed leaves its socket behind; connecting tells, a process id would lie across containers.
fn remove_stale(run: &Path) {
    let Ok(entries) = std::fs::read_dir(run) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let refused = path.extension().is_some_and(|extension| extension == "sock")
            && UnixStream::connect(&path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            // Another process may have been faster.
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn stop_is_a_file_that_others_see() {
        let home = tempfile::tempdir().unwrap();
        let open = || {
            let (run, _) = open_run(home.path()).unwrap();
            StopSwitch::new(Some(run), Some(File::open(home.path()).unwrap()))
        };
        let (mut ours, other) = (open(), open());
        assert!(!other.is_set());
        ours.set().unwrap();
        assert!(other.is_set() && home.path().join("run/stop").exists());
        ours.clear().unwrap();
        assert!(!other.is_set() && !ours.is_set());
        std::fs::write(home.path().join("STOP"), "").unwrap();
        assert_eq!(other.cause(), Some(Stop::HomeFile));
        ours.set().unwrap();
        assert_eq!(other.cause(), Some(Stop::Command));
    }

    #[test]
    fn socket_is_private_and_stale_ones_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let (run, path) = open_run(home.path()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(UnixListener::bind(path.join("1.sock")).unwrap());
        let control = ControlSocket::bind(&run, &path).unwrap();
        assert!(!path.join("1.sock").exists());
        let name = path.join(format!("{}.sock", std::process::id()));
        assert_eq!(name.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(control.accept(), Knock::Nobody));
        let _peer = UnixStream::connect(&name).unwrap();
        assert!(matches!(control.accept(), Knock::Admitted(..)));
        control.remove();
        assert!(!name.exists());
    }
}
