//! Attacks on files: one thing done to one path.
//!
//! Links and the like are made in the directory for temporary files, which is the call's own, so that an attack leaves
//! nothing in the workspace; what must lie in the workspace to mean anything is removed again.

use std::fs::{self, OpenOptions};
use std::io::Result;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::{Answer, Target, Targets};
use crate::sys;
use crate::wire::Profile;

/// Not there, not allowed, read-only and not across: what a wall looks like. Anything else is the thing itself.
const HELD: &[Errno] = &[Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::EROFS, Errno::EXDEV];

/// Name of what an attack makes for itself.
const OWN: &str = ".oxibot-attack";

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as they are")]
pub enum Op {
    Read,
    List,
    /// Opens for writing; makes it where it is absent.
    Write,
    /// Opens for writing what must exist.
    OpenToWrite,
    Remove,
    Truncate,
    /// Makes something new there.
    MakeDirectory,
    MakePipe,
    MakeLink,
    MakeSocket,
    Execute,
    ReadByLink,
    WriteByLink,
    /// Gives it a second name in the workspace.
    HardLink,
    /// Renames it into the workspace, and back.
    MoveIn,
    /// Renames a file of the workspace to it.
    MoveOut,
    /// By `/proc/self/root`.
    ReadByRoot,
    /// By `..` from the working directory as `/proc` names it.
    ReadByWorkingDirectory,
    /// By `..` from a working directory that was removed.
    ReadFromRemoved,
    /// By a handle without rights, opened again as `/proc` names it.
    ReadByHandle,
    /// By `..` of the root itself, on which a mount may have been left.
    ListAboveRoot,
    /// The same, looked at only, which Landlock does not know.
    StatAboveRoot,
    Connect,
    SendDatagram,
    Chmod,
    Chown,
    Touch,
    Mark,
    Stat,
    Watch,
}

/// Which path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The same everywhere.
    At(&'static str),
    /// Made or found by whoever asks.
    Of(Target),
}

impl Place {
    pub(super) fn path(self, targets: &Targets) -> Option<PathBuf> {
        match self {
            Self::At(path) => Some(path.into()),
            Self::Of(target) => targets.get(target).map(PathBuf::from),
        }
    }
}

impl Op {
    /// Whether it makes what it is aimed at, so that it need not exist.
    pub(super) fn makes(self) -> bool {
        match self {
            Self::Write
            | Self::WriteByLink
            | Self::MakeDirectory
            | Self::MakePipe
            | Self::MakeLink
            | Self::MakeSocket
            | Self::MoveOut => true,
            Self::Read
            | Self::List
            | Self::OpenToWrite
            | Self::Remove
            | Self::Truncate
            | Self::Execute
            | Self::ReadByLink
            | Self::HardLink
            | Self::MoveIn
            | Self::ReadByRoot
            | Self::ReadByWorkingDirectory
            | Self::ReadFromRemoved
            | Self::ReadByHandle
            | Self::ListAboveRoot
            | Self::StatAboveRoot
            | Self::Connect
            | Self::SendDatagram
            | Self::Chmod
            | Self::Chown
            | Self::Touch
            | Self::Mark
            | Self::Stat
            | Self::Watch => false,
        }
    }

    fn only_reads(self) -> bool {
        match self {
            Self::Read
            | Self::List
            | Self::Execute
            | Self::ReadByLink
            | Self::ReadByRoot
            | Self::ReadByWorkingDirectory
            | Self::ReadFromRemoved
            | Self::ReadByHandle
            | Self::ListAboveRoot
            | Self::StatAboveRoot
            | Self::Stat
            | Self::Watch => true,
            Self::Write
            | Self::OpenToWrite
            | Self::Remove
            | Self::Truncate
            | Self::MakeDirectory
            | Self::MakePipe
            | Self::MakeLink
            | Self::MakeSocket
            | Self::WriteByLink
            | Self::HardLink
            | Self::MoveIn
            | Self::MoveOut
            | Self::Connect
            | Self::SendDatagram
            | Self::Chmod
            | Self::Chown
            | Self::Touch
            | Self::Mark => false,
        }
    }
}

/// Directories that are empty, private or absent even where the rest of the file system is shown.
const NEVER_SHOWN: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// Why doing this to this path is no attack on a call of this profile.
pub(super) fn granted(op: Op, path: &str, profile: &Profile) -> Option<&'static str> {
    let path = Path::new(path);
    let of = super::super::grants::path_of;
    let near = |granted: &Vec<u8>| {
        let granted = of(granted);
        // Listing a directory that leads to a granted one shows the way there and nothing else.
        path.starts_with(granted) || (op == Op::List && granted.starts_with(path))
    };
    if [&profile.workspace].into_iter().chain(&profile.write).any(near) {
        return Some("the workspace or sandbox.write is there");
    }
    if op.only_reads() && profile.read.iter().any(near) {
        return Some("sandbox.read is there");
    }
    let shown = !profile.restrict_to_workspace && !NEVER_SHOWN.iter().any(|hidden| path.starts_with(hidden));
    (op.only_reads() && shown).then_some("tools.restrictToWorkspace is false")
}

/// Why listing this directory is no attack: it shows the way to what is granted, and nothing else.
pub(super) fn leads_there(op: Op, path: &str, profile: &Profile) -> Option<&'static str> {
    let of = super::super::grants::path_of;
    let path = Path::new(path);
    let mut granted = [&profile.workspace].into_iter().chain(&profile.write).chain(&profile.read);
    let leads = op == Op::List && granted.any(|granted| of(granted) != path && of(granted).starts_with(path));
    leads.then_some("the workspace or another granted path is below it")
}

/// Does it.
pub(super) fn attempt(op: Op, path: &Path) -> Answer {
    match op {
        Op::Read => held(fs::File::open(path)),
        Op::List => list(path),
        Op::Write => write(path, true),
        Op::OpenToWrite => write(path, false),
        Op::Remove => held(fs::remove_file(path)),
        Op::Truncate => {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            kernel(nix::unistd::truncate(path, i64::try_from(length).unwrap_or(0)))
        }
        Op::MakeDirectory => made(path, fs::create_dir(path), |path| fs::remove_dir(path)),
        Op::MakePipe => {
            made(path, nix::unistd::mkfifo(path, Mode::S_IRWXU).map_err(std::io::Error::from), |path| {
                fs::remove_file(path)
            })
        }
        Op::MakeLink => made(path, symlink("/", path), |path| fs::remove_file(path)),
        Op::MakeSocket => made(path, UnixListener::bind(path).map(drop), |path| fs::remove_file(path)),
        Op::Execute => {
            let quiet = Stdio::null;
            let child = Command::new(path).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
            held(child.and_then(|mut child| child.wait()))
        }
        Op::ReadByLink => by_link(path, |link| held(fs::File::open(link))),
        Op::WriteByLink => by_link(path, |link| {
            let absent = fs::symlink_metadata(path).is_err();
            let answer = write(link, true);
            if absent {
                let _ = fs::remove_file(path);
            }
            answer
        }),
        Op::HardLink => made(Path::new(OWN), fs::hard_link(path, OWN), |path| fs::remove_file(path)),
        Op::MoveIn => held(fs::rename(path, OWN).and_then(|()| fs::rename(OWN, path))),
        Op::MoveOut => {
            if fs::write(OWN, "").is_err() {
                return Answer::Skipped;
            }
            let answer = held(fs::rename(OWN, path));
            let _ = (fs::remove_file(OWN), fs::remove_file(path));
            answer
        }
        Op::ReadByRoot => held(fs::File::open(below("/proc/self/root", path))),
        Op::ReadByWorkingDirectory => {
            held(fs::File::open(below(&format!("/proc/self/cwd{}", "/..".repeat(UP)), path)))
        }
        Op::ReadFromRemoved => from_removed(path),
        Op::ReadByHandle => by_handle(path),
        Op::ListAboveRoot => list(&below("/..", path)),
        Op::StatAboveRoot => held(fs::metadata(below("/..", path))),
        Op::Connect => held(UnixStream::connect(path)),
        Op::SendDatagram => held(UnixDatagram::unbound().and_then(|socket| socket.send_to(b"x", path))),
        Op::Chmod => held(fs::set_permissions(path, fs::Permissions::from_mode(0o600))),
        Op::Chown => held(std::os::unix::fs::chown(
            path,
            Some(nix::unistd::getuid().as_raw()),
            Some(nix::unistd::getgid().as_raw()),
        )),
        Op::Touch => {
            let then = TimeSpec::new(1, 0);
            kernel(utimensat(nix::fcntl::AT_FDCWD, path, &then, &then, UtimensatFlags::FollowSymlink))
        }
        Op::Mark => match std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) {
            Ok(path) => match sys::set_attribute(&path) {
                Err(Errno::ENOTSUP) => Answer::Skipped,
                tried => kernel(tried),
            },
            Err(_) => Answer::Skipped,
        },
        Op::Stat => held(fs::metadata(path)),
        Op::Watch => kernel(
            Inotify::init(InitFlags::IN_CLOEXEC)
                .and_then(|watcher| watcher.add_watch(path, AddWatchFlags::IN_OPEN)),
        ),
    }
}

/// More directories than any working directory is deep.
const UP: usize = 40;

fn held<T>(tried: Result<T>) -> Answer {
    Answer::of(tried, HELD)
}

fn kernel<T>(tried: nix::Result<T>) -> Answer {
    Answer::of_call(tried.map(drop), HELD)
}

fn below(start: &str, path: &Path) -> PathBuf {
    PathBuf::from(start).join(path.strip_prefix("/").unwrap_or(path))
}

fn made(path: &Path, tried: Result<()>, undo: fn(&Path) -> Result<()>) -> Answer {
    if tried.is_ok() {
        let _ = undo(path);
    }
    held(tried)
}

/// An empty listing is what a directory of ours looks like once it is covered.
fn list(path: &Path) -> Answer {
    match fs::read_dir(path).map(|mut listing| listing.next().is_some()) {
        Ok(false) => Answer::Held(None),
        tried => held(tried),
    }
}

fn write(path: &Path, make: bool) -> Answer {
    let existed = fs::symlink_metadata(path).is_ok();
    let opened = OpenOptions::new().write(true).create(make).truncate(false).open(path);
    if opened.is_ok() && !existed {
        let _ = fs::remove_file(path);
    }
    held(opened)
}

/// A directory of the call's own.
fn scratch() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

fn own(what: &str) -> PathBuf {
    scratch().join(format!("{OWN}-{what}-{}", std::process::id()))
}

fn by_link(path: &Path, attack: impl Fn(&Path) -> Answer) -> Answer {
    let link = own("link");
    if symlink(path, &link).is_err() {
        return Answer::Skipped;
    }
    let answer = attack(&link);
    let _ = fs::remove_file(&link);
    answer
}

fn from_removed(path: &Path) -> Answer {
    let directory = own("directory");
    let before = std::env::current_dir();
    let entered = fs::create_dir(&directory).and_then(|()| std::env::set_current_dir(&directory));
    let gone = fs::remove_dir(&directory);
    match (before, entered.and(gone)) {
        (Ok(before), Ok(())) => {
            let answer = held(fs::File::open(below(&"../".repeat(UP), path)));
            let _ = std::env::set_current_dir(before);
            answer
        }
        (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(())) => Answer::Skipped,
    }
}

fn by_handle(path: &Path) -> Answer {
    use std::os::fd::AsRawFd;
    let handle = OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(path);
    held(handle.and_then(|handle| fs::File::open(format!("/proc/self/fd/{}", handle.as_raw_fd()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wanted;

    fn profile(workspace: &str) -> Profile {
        Profile {
            workspace: workspace.into(),
            read: vec![],
            write: vec![],
            covered: vec![],
            restrict_to_workspace: true,
            protect: vec![],
            wanted: Wanted::Strongest,
            tmp_mb: 1,
            limits: oxibot_proto::settings::Limits::default(),
            proxy: false,
        }
    }

    #[test]
    fn what_the_configuration_grants_is_no_attack() {
        let mut profile = profile("/root/.oxibot/workspace");
        assert!(granted(Op::List, "/root", &profile).is_some(), "it shows the way to the workspace");
        assert!(granted(Op::Write, "/root/x", &profile).is_none());
        assert!(granted(Op::Read, "/etc/shadow", &profile).is_none());
        assert!(leads_there(Op::List, "/root/.oxibot", &profile).is_some());
        assert!(leads_there(Op::Read, "/root/.oxibot", &profile).is_none());
        assert!(leads_there(Op::List, "/root/.oxibot/audit", &profile).is_none());
        assert!(leads_there(Op::List, "/root/.oxibot/workspace", &profile).is_none(), "that would be ours");
        profile.read.push(b"/etc".to_vec());
        assert!(granted(Op::Read, "/etc/shadow", &profile).is_some());
        assert!(granted(Op::Write, "/etc/x", &profile).is_none());
        profile.restrict_to_workspace = false;
        assert!(granted(Op::List, "/var/lib", &profile).is_some());
        assert!(granted(Op::Read, "/proc/kcore", &profile).is_none());
        assert!(granted(Op::Write, "/usr/x", &profile).is_none());
    }

    #[test]
    fn everything_works_on_a_directory_of_ones_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        for op in [
            Op::Read,
            Op::OpenToWrite,
            Op::Truncate,
            Op::ReadByLink,
            Op::ReadByRoot,
            Op::ReadByWorkingDirectory,
            Op::ReadByHandle,
            Op::Chmod,
            Op::Chown,
            Op::Touch,
            Op::Stat,
            Op::Watch,
            Op::Remove,
        ] {
            assert_eq!(attempt(op, &file), Answer::Broken, "{op:?}");
        }
        assert_eq!(
            attempt(Op::List, directory.path()),
            Answer::Held(None),
            "nothing is seen of an empty one"
        );
        fs::create_dir(directory.path().join("name")).unwrap();
        assert_eq!(attempt(Op::ListAboveRoot, directory.path()), Answer::Broken);
        for op in [Op::Write, Op::WriteByLink, Op::MakeDirectory, Op::MakePipe, Op::MakeLink, Op::MakeSocket]
        {
            assert_eq!(attempt(op, &file), Answer::Broken, "{op:?}");
            assert!(fs::symlink_metadata(&file).is_err(), "{op:?} leaves something behind");
        }
        assert_eq!(attempt(Op::Read, &file), Answer::Held(Some(Errno::ENOENT)));
    }
}
