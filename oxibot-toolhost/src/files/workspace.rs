//! The workspace handle, and the only way from a path a model wrote to an open file.
//!
//! The kernel resolves every path below the handle (`openat2`, BENEATH and NO_MAGICLINKS), at the moment of use: there
//! is no check that a renamed directory or a swapped symbolic link could outrun. Nothing is canonicalised here, no
//! path is opened by its absolute name, and `/proc` is not needed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::fault::Fault;
use super::text;

/// `openat2` answers EAGAIN when a rename anywhere on the system could have confused `..`. More tries than this mean
/// that somebody is doing it on purpose.
const MAX_RETRIES: u32 = 64;

/// A path relative to the workspace. Only [`Workspace::locate`] makes one from outside text; the kernel still decides
/// where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inside(PathBuf);

impl Inside {
    /// For the kernel, relative to the handle.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// For the model.
    pub(super) fn shown(&self) -> String {
        text::name(self.0.as_os_str().as_bytes())
    }

    /// Where a symbolic link found at this path leads: relative to the directory that holds it.
    pub(super) fn follow(&self, link: &Path) -> Self {
        Self(self.0.parent().map_or_else(|| link.to_path_buf(), |parent| parent.join(link)))
    }
}

/// One workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    handle: OwnedFd,
    /// Where it is, to recognise absolute paths below it. Never opened.
    path: PathBuf,
    /// Names that may not be written when they exist.
    protect: Vec<PathBuf>,
}

/// Device and inode: what a file is, whatever it is called.
pub(super) type Identity = (u64, u64);

impl Workspace {
    /// A workspace whose directory is already open.
    pub(super) fn new(handle: OwnedFd, path: PathBuf, protect: Vec<PathBuf>) -> Self {
        Self { handle, path, protect }
    }

    /// The directory itself.
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Guarded names, relative to the workspace.
    pub(super) fn protect(&self) -> &[PathBuf] {
        &self.protect
    }

    /// What a path means: `~` is the workspace, an absolute path below it is taken relative to it.
    pub(super) fn locate(&self, typed: &str) -> Result<Inside, Fault> {
        if typed.is_empty() {
            return Err(Fault::Failed(
                "the path is empty: give a file name, or `.` for the workspace".into(),
            ));
        }
        if typed.contains('\0') {
            return Err(Fault::Failed("the path contains a NUL character, which no path can".into()));
        }
        let path = if typed == "~" { "." } else { typed.strip_prefix("~/").unwrap_or(typed) };
        // `~//etc` is below the workspace too, not the root.
        let path = if typed.starts_with("~/") { path.trim_start_matches('/') } else { path };
        let path = Path::new(path);
        let relative = if path.is_absolute() {
            path.strip_prefix(&self.path).map_err(|_| Fault::outside(&text::name(typed.as_bytes())))?
        } else {
            path
        };
        let mut plain: PathBuf = relative.components().filter(|part| *part != Component::CurDir).collect();
        if plain.as_os_str().is_empty() {
            plain.push(".");
        } else if typed.ends_with('/') {
            // Kept, so that the kernel insists on a directory.
            plain.push("");
        }
        Ok(Inside(plain))
    }

    /// Opens below the workspace.
    pub(super) fn open(&self, at: &Inside, flags: OFlag, verb: &str) -> Result<OwnedFd, Fault> {
        open_beneath(self.handle(), at.path(), flags, Mode::empty())
            .map_err(|errno| Fault::errno(verb, &at.shown(), errno))
    }

    /// Opens a regular file for reading. A FIFO, device, socket or directory is refused and never waited for.
    pub(super) fn open_file(&self, at: &Inside, verb: &str) -> Result<(File, FileStat), Fault> {
        let fd = self.open(at, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, verb)?;
        let stat = fstat(&fd).map_err(|errno| Fault::errno(verb, &at.shown(), errno))?;
        match kind(&stat) {
            Kind::File => Ok((File::from(fd), stat)),
            Kind::Directory => Err(Fault::failed(verb, &at.shown(), "it is a directory; list_dir shows it")),
            other @ (Kind::Link | Kind::Pipe | Kind::Socket | Kind::Device) => {
                Err(Fault::failed(verb, &at.shown(), &format!("it is a {}, not a file", other.name())))
            }
        }
    }

    /// Opens a directory.
    pub(super) fn open_directory(&self, at: &Inside, verb: &str) -> Result<OwnedFd, Fault> {
        self.open(at, OFlag::O_RDONLY | OFlag::O_DIRECTORY, verb)
    }

    /// Device and inode of the workspace.
    pub(super) fn identity(&self) -> Result<Identity, Fault> {
        let stat = fstat(self.handle()).map_err(|errno| Fault::errno("look at", "the workspace", errno))?;
        Ok(identity(&stat))
    }
}

/// Opens a path below `dir`; it cannot leave `dir`, whatever is renamed meanwhile.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    open_how(dir, path, flags, mode, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens a name in `dir` itself, following no symbolic link.
pub(super) fn open_name(
    dir: BorrowedFd<'_>,
    name: &Path,
    flags: OFlag,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_how(dir, name, flags | OFlag::O_NOFOLLOW, mode, resolve)
}

/// The directory above. Not BENEATH, because that is the question; the result is only looked at, never written.
pub(super) fn open_above(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    open_how(dir, Path::new(".."), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty(), ResolveFlag::empty())
}

fn open_how(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    let mut tries = 0;
    loop {
        match openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) if tries < MAX_RETRIES => tries += 1,
            result => return result,
        }
    }
}

/// What a name in a directory is, without following a symbolic link.
pub(super) fn look(dir: BorrowedFd<'_>, name: &Path) -> Result<FileStat, Errno> {
    fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Kinds of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Pipe,
    Socket,
    Device,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "dir",
            Self::Link => "link",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
            Self::Device => "device",
        }
    }
}

/// Kind of what was looked at.
pub(super) fn kind(stat: &FileStat) -> Kind {
    let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if format == SFlag::S_IFREG {
        Kind::File
    } else if format == SFlag::S_IFDIR {
        Kind::Directory
    } else if format == SFlag::S_IFLNK {
        Kind::Link
    } else if format == SFlag::S_IFIFO {
        Kind::Pipe
    } else if format == SFlag::S_IFSOCK {
        Kind::Socket
    } else {
        Kind::Device
    }
}

/// Device and inode of what was looked at.
pub(super) fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// Size in bytes.
pub(super) fn size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workspace(at: &Path) -> Workspace {
        Workspace::new(File::open(at).unwrap().into(), at.to_path_buf(), Vec::new())
    }

    fn located(workspace: &Workspace, typed: &str) -> PathBuf {
        workspace.locate(typed).unwrap().path().to_path_buf()
    }

    #[test]
    fn paths_are_taken_relative_to_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().to_str().unwrap();
        let workspace = workspace(dir.path());
        for typed in [".", "~", "~/", "./", top, &format!("{top}/"), &format!("/{top}//.")] {
            assert_eq!(located(&workspace, typed), Path::new("."), "{typed}");
        }
        for typed in ["a/b", "./a//b", "~/a/./b", "~//a/b", &format!("{top}/a/b"), &format!("{top}//a/b")] {
            assert_eq!(located(&workspace, typed), Path::new("a/b"), "{typed}");
        }
        assert_eq!(located(&workspace, "~user/x"), Path::new("~user/x"));
        assert_eq!(located(&workspace, "a/../b"), Path::new("a/../b"), "left to the kernel");
        assert!(located(&workspace, "a/").as_os_str().as_bytes().ends_with(b"/"));
    }

    #[test]
    fn absolute_path_elsewhere_is_denied() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        for typed in ["/", "/etc/passwd", "//etc", &format!("{}x/a", dir.path().display())] {
            let Err(Fault::Denied(denial)) = workspace.locate(typed) else { panic!("{typed}") };
            assert_eq!(denial.rule, "path.outside");
            assert!(denial.hint.contains("relative"));
        }
        assert!(matches!(workspace.locate(""), Err(Fault::Failed(_))));
        assert!(matches!(workspace.locate("a\0b"), Err(Fault::Failed(_))));
    }

    #[test]
    fn what_leaves_is_denied_and_what_stays_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path());
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("../file", dir.path().join("sub/inside")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", dir.path().join("up")).unwrap();
        let open = |typed: &str| workspace.open_file(&workspace.locate(typed)?, "read").map(drop);
        for typed in ["file", "sub/../file", "sub/inside", "sub/../sub/inside"] {
            assert_eq!(open(typed), Ok(()), "{typed}");
        }
        for typed in ["../x", "sub/../../x", "absolute", "up/etc/passwd", "sub/../../../../../../etc/passwd"]
        {
            assert!(
                matches!(open(typed), Err(Fault::Denied(denial)) if denial.rule == "path.outside"),
                "{typed}"
            );
        }
        assert!(matches!(open("file/"), Err(Fault::Failed(text)) if text.contains("not a directory")));
        assert!(matches!(open("none"), Err(Fault::Failed(text)) if text.contains("find_files")));
        assert!(matches!(open("sub"), Err(Fault::Failed(text)) if text.contains("list_dir")));
    }

    proptest! {
        #[test]
        fn no_text_opens_anything_outside(typed in "(\\.\\./|\\./|/|~|sub|up|etc|passwd|absolute){0,12}") {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("sub")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
            std::os::unix::fs::symlink("../../../../..", dir.path().join("up")).unwrap();
            let workspace = workspace(dir.path());
            if let Ok(at) = workspace.locate(&typed) {
                prop_assert!(workspace.open_file(&at, "read").is_err());
            }
        }
    }
}
