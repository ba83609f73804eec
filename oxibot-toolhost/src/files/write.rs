//! `write_file`, and the way every other writer replaces a file: temporary file beside it, fsync, rename.
//!
//! A file is never opened for writing in place, so a hard link to something outside is broken and not written
//! through, a FIFO or device is never touched, and a reader sees the old or the new content and nothing between.
//! Ownership, extended attributes and access lists of the old file are not copied.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::fault::Fault;
use super::workspace::{
    Identity, Kind, Workspace, identity, kind, look, open_above, open_beneath, open_name,
};

/// Symbolic links followed at the end of a path before it is called a loop. The kernel follows those inside it.
const MAX_LINKS: u32 = 16;
/// Directories above a target that are looked at for guarded names.
const MAX_ABOVE: u32 = 256;
/// Names tried for a temporary file.
const MAX_NAMES: u32 = 64;

/// What a file is to become: an entry of a directory that is held open.
#[derive(Debug)]
pub(super) struct Target {
    parent: OwnedFd,
    name: OsString,
    existing: Option<FileStat>,
    shown: String,
}

impl Target {
    /// For messages.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// What is there now.
    pub(super) fn existing(&self) -> Option<&FileStat> {
        self.existing.as_ref()
    }

    /// Opens what is there now for reading, if it is still the same file.
    pub(super) fn open(&self) -> Result<File, Fault> {
        let fail = |errno| Fault::errno("read", &self.shown, errno);
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file =
            open_name(self.parent.as_fd(), Path::new(&self.name), flags, Mode::empty()).map_err(fail)?;
        let stat = fstat(&file).map_err(fail)?;
        if kind(&stat) == Kind::File && Some(identity(&stat)) == self.existing.as_ref().map(identity) {
            Ok(File::from(file))
        } else {
            Err(self.changed())
        }
    }

    /// Whether the entry is still what it was when this target was found.
    pub(super) fn is_unchanged(&self) -> bool {
        let now = look(self.parent.as_fd(), Path::new(&self.name)).ok();
        let version = |stat: &FileStat| {
            (
                identity(stat),
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            )
        };
        now.as_ref().map(version) == self.existing.as_ref().map(version)
    }

    /// Somebody else wrote it meanwhile.
    pub(super) fn changed(&self) -> Fault {
        Fault::failed("write", &self.shown, "it changed meanwhile; read it again")
    }
}

/// `write_file`. Returns text for the model.
pub(super) fn write(workspace: &Workspace, path: &str, content: &str) -> Result<String, Fault> {
    let target = find_target(workspace, path)?;
    let existed = target.existing.is_some();
    let notes = replace(&target, content.as_bytes())?;
    let what = if existed { "replaced" } else { "new file" };
    let mut text = format!("wrote {} bytes to {} ({what})\n", content.len(), target.shown);
    for note in notes {
        text.push_str(&note);
        text.push('\n');
    }
    Ok(text)
}

/// Finds the directory entry a path means for writing: missing directories are made, symbolic links that stay inside
/// are followed to where they lead.
pub(super) fn find_target(workspace: &Workspace, path: &str) -> Result<Target, Fault> {
    let first = workspace.locate(path)?;
    let shown = first.shown();
    let guarded = guarded(workspace);
    let mut at = first;
    for _ in 0..=MAX_LINKS {
        let is_name = matches!(at.path().components().next_back(), Some(Component::Normal(_)));
        let (Some(name), true, false) = (at.path().file_name(), is_name, shown.ends_with('/')) else {
            return Err(Fault::failed("write", &shown, "that is a directory; name a file in it"));
        };
        let name = name.to_os_string();
        let parent = make_parents(workspace, &guarded, at.path().parent().unwrap_or(Path::new(".")), &shown)?;
        let existing = match look(parent.as_fd(), Path::new(&name)) {
            Ok(stat) => Some(stat),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(Fault::errno("write", &shown, errno)),
        };
        match existing.as_ref().map(kind) {
            Some(Kind::Link) => {
                let link = readlinkat(&parent, Path::new(&name))
                    .map_err(|errno| Fault::errno("write", &shown, errno))?;
                let link = PathBuf::from(link);
                if link.is_absolute() {
                    return Err(Fault::outside(&shown));
                }
                at = at.follow(&link);
            }
            Some(Kind::Directory) => {
                return Err(Fault::failed("write", &shown, "it is a directory; name a file in it"));
            }
            Some(other @ (Kind::Pipe | Kind::Socket | Kind::Device)) => {
                return Err(Fault::failed("write", &shown, &format!("it is a {}, not a file", other.name())));
            }
            Some(Kind::File) | None => {
                refuse_guarded(workspace, &guarded, &parent, existing.as_ref(), &shown)?;
                return Ok(Target { parent, name, existing, shown });
            }
        }
    }
    Err(Fault::errno("write", &shown, Errno::ELOOP))
}

/// Opens a directory below the workspace, making what is missing of it.
fn make_parents(
    workspace: &Workspace,
    guarded: &[Identity],
    path: &Path,
    shown: &str,
) -> Result<OwnedFd, Fault> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let fail = |errno| Fault::errno("write", shown, errno);
    match open_beneath(workspace.handle(), path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        result => return result.map_err(fail),
    }
    // Each prefix is resolved from the top again: `..` after a link means what the kernel says it means.
    let mut prefix = PathBuf::new();
    let mut above = open_beneath(workspace.handle(), Path::new("."), flags, Mode::empty()).map_err(fail)?;
    for part in path.components() {
        prefix.push(part);
        above = match open_beneath(workspace.handle(), &prefix, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                let Component::Normal(name) = part else {
                    return Err(fail(Errno::ENOENT));
                };
                refuse_guarded(workspace, guarded, &above, None, shown)?;
                match mkdirat(&above, name, Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(fail(errno)),
                }
                open_beneath(workspace.handle(), &prefix, flags, Mode::empty()).map_err(fail)?
            }
            result => result.map_err(fail)?,
        };
    }
    Ok(above)
}

/// What the guarded names are now. Taken before anything is made: a name that is absent may be created, as a command
/// in the sandbox may create it too.
fn guarded(workspace: &Workspace) -> Vec<Identity> {
    let mut guarded = Vec::new();
    for name in workspace.protect() {
        for flags in [OFlag::O_PATH, OFlag::O_PATH | OFlag::O_NOFOLLOW] {
            if let Ok(fd) = open_beneath(workspace.handle(), name, flags, Mode::empty())
                && let Ok(stat) = fstat(&fd)
            {
                guarded.push(identity(&stat));
            }
        }
    }
    guarded
}

/// Guarded names are compared by device and inode, from the target up to the workspace: a path can be spelt in many
/// ways, and a directory can be renamed.
fn refuse_guarded(
    workspace: &Workspace,
    guarded: &[Identity],
    parent: &OwnedFd,
    existing: Option<&FileStat>,
    shown: &str,
) -> Result<(), Fault> {
    if guarded.is_empty() {
        return Ok(());
    }
    if existing.is_some_and(|stat| guarded.contains(&identity(stat))) {
        return Err(Fault::protected(shown));
    }
    let top = workspace.identity()?;
    let fail = |errno| Fault::errno("write", shown, errno);
    let mut above = parent.try_clone().map_err(|error| Fault::io("write", shown, &error))?;
    for _ in 0..MAX_ABOVE {
        let here = identity(&fstat(&above).map_err(fail)?);
        if here == top {
            return Ok(());
        }
        if guarded.contains(&here) {
            return Err(Fault::protected(shown));
        }
        above = open_above(above.as_fd()).map_err(fail)?;
    }
    Err(Fault::failed("write", shown, "it is too deep, or its directory was moved"))
}

/// Puts `content` where `target` is. Returns notes for the model.
pub(super) fn replace(target: &Target, content: &[u8]) -> Result<Vec<String>, Fault> {
    let mut draft = Draft::new(target)?;
    draft.append(content, target)?;
    draft.finish(target)
}

/// As [`replace`], with these permission bits whatever is there now.
pub(super) fn replace_as(target: &Target, content: &[u8], mode: u32) -> Result<(), Fault> {
    let mut draft = Draft::new(target)?;
    // First, because the content may be private.
    fchmod(&draft.file, Mode::from_bits_truncate(mode & 0o777))
        .map_err(|errno| Fault::errno("write", &target.shown, errno))?;
    draft.append(content, target)?;
    draft.file.sync_all().map_err(|error| Fault::io("write", &target.shown, &error))?;
    draft.place(target)
}

/// A temporary file beside its target. Removed when dropped before [`Draft::finish`].
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    directory: OwnedFd,
    name: Option<String>,
}

static DRAFTS: AtomicU64 = AtomicU64::new(0);

impl Draft {
    /// An empty temporary file in the target's directory.
    pub(super) fn new(target: &Target) -> Result<Self, Fault> {
        let fail = |errno| Fault::errno("write", &target.shown, errno);
        let directory =
            target.parent.try_clone().map_err(|error| Fault::io("write", &target.shown, &error))?;
        // What exists may be private: its copy starts private too, and gets the old mode before it takes its place.
        let mode = if target.existing.is_some() { 0o600 } else { 0o666 };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        for _ in 0..MAX_NAMES {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let count = DRAFTS.fetch_add(1, Ordering::Relaxed);
            let name = format!(".oxibot-{:x}-{count:x}.tmp", since.as_nanos());
            match open_name(directory.as_fd(), Path::new(&name), flags, Mode::from_bits_truncate(mode)) {
                Ok(fd) => return Ok(Self { file: File::from(fd), directory, name: Some(name) }),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Err(fail(Errno::EEXIST))
    }

    /// Writes the next bytes.
    pub(super) fn append(&mut self, bytes: &[u8], target: &Target) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(|error| Fault::io("write", &target.shown, &error))
    }

    /// Makes it the target. Returns notes for the model.
    pub(super) fn finish(self, target: &Target) -> Result<Vec<String>, Fault> {
        let fail = |errno| Fault::errno("write", &target.shown, errno);
        let mut notes = Vec::new();
        if let Some(existing) = &target.existing {
            // Never set-user-id: the owner may be another one now.
            fchmod(&self.file, Mode::from_bits_truncate(existing.st_mode & 0o777)).map_err(fail)?;
            if existing.st_nlink > 1 {
                notes.push(format!(
                    "{} had {} hard links; it is a file of its own now and the others keep the old content",
                    target.shown, existing.st_nlink
                ));
            }
        }
        self.file.sync_all().map_err(|error| Fault::io("write", &target.shown, &error))?;
        self.place(target)?;
        Ok(notes)
    }

    fn place(mut self, target: &Target) -> Result<(), Fault> {
        let fail = |errno| Fault::errno("write", &target.shown, errno);
        let Some(name) = self.name.take() else {
            return Err(fail(Errno::ENOENT));
        };
        let renamed = renameat(&self.directory, Path::new(&name), &target.parent, Path::new(&target.name));
        if let Err(errno) = renamed {
            self.name = Some(name);
            return Err(fail(errno));
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Best effort: a name that is gone needs no removing, and there is nobody left to tell of another error.
            let _ = unlinkat(&self.directory, Path::new(name), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A target in a directory that is already open, for our own files. Never a symbolic link: that is replaced.
pub(super) fn target_in(directory: OwnedFd, name: impl AsRef<OsStr>, shown: &str) -> Target {
    let name = name.as_ref();
    let existing = look(directory.as_fd(), Path::new(name)).ok();
    Target { parent: directory, name: name.into(), existing, shown: shown.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn workspace(at: &Path, protect: &[&str]) -> Workspace {
        let protect = protect.iter().map(PathBuf::from).collect();
        Workspace::new(File::open(at).unwrap().into(), at.to_path_buf(), protect)
    }

    fn rule(result: Result<String, Fault>) -> String {
        match result {
            Err(Fault::Denied(denial)) => denial.rule,
            other => panic!("{other:?}"),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn parents_are_made_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path(), &[]);
        assert!(write(&workspace, "a/b/c.txt", "hello").unwrap().contains("5 bytes to a/b/c.txt (new file)"));
        assert!(write(&workspace, "~/a/b/../b/c.txt", "bye").unwrap().contains("replaced"));
        assert_eq!(std::fs::read_to_string(dir.path().join("a/b/c.txt")).unwrap(), "bye");
        assert_eq!(names(&dir.path().join("a/b")), ["c.txt"]);
        assert_eq!(std::fs::metadata(dir.path().join("a/b/c.txt")).unwrap().mode() & 0o600, 0o600);
    }

    #[test]
    fn mode_is_kept_and_set_user_id_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "old").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4751)).unwrap();
        write(&workspace(dir.path(), &[]), "f", "new").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o751);
    }

    #[test]
    fn hard_link_to_an_outside_file_is_broken() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir_in(outside.path()).unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        std::fs::hard_link(outside.path().join("secret"), dir.path().join("f")).unwrap();
        let text = write(&workspace(dir.path(), &[]), "f", "new").unwrap();
        assert!(text.contains("hard links"), "{text}");
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "outside");
        assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "new");
    }

    #[test]
    fn link_inside_is_written_through_and_link_outside_is_denied() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir_in(outside.path()).unwrap();
        let workspace = workspace(dir.path(), &[]);
        std::fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        std::fs::write(dir.path().join("real"), "old").unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        symlink("../../real", dir.path().join("sub/deep/link")).unwrap();
        symlink("sub/deep/link", dir.path().join("link2")).unwrap();
        write(&workspace, "link2", "through").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("real")).unwrap(), "through");
        assert!(dir.path().join("sub/deep/link").is_symlink());

        symlink("../secret", dir.path().join("out")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("absolute")).unwrap();
        symlink("..", dir.path().join("up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        for path in ["out", "absolute", "up/secret", "../secret", "up/new", "sub/../../new/file"] {
            assert_eq!(rule(write(&workspace, path, "x")), "path.outside", "{path}");
        }
        assert!(matches!(write(&workspace, "loop", "x"), Err(Fault::Failed(text)) if text.contains("links")));
        assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "outside");
        assert_eq!(names(outside.path()).len(), 2, "nothing was made outside");
    }

    #[test]
    fn directories_and_special_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path(), &[]);
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        nix::unistd::mkfifo(&dir.path().join("p"), Mode::S_IRWXU).unwrap();
        for path in ["d", ".", "~", "d/", "d/..", "new/", "p", "f/x"] {
            assert!(matches!(write(&workspace, path, "x"), Err(Fault::Failed(_))), "{path}");
        }
        assert_eq!(names(dir.path()), ["d", "f", "p"]);
        let long = "n".repeat(300);
        assert!(
            matches!(write(&workspace, &long, "x"), Err(Fault::Failed(text)) if text.contains("too long"))
        );
    }

    #[test]
    fn guarded_names_are_refused_however_they_are_spelt() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path(), &[".git/hooks", ".envrc", ".idea"]);
        std::fs::create_dir_all(dir.path().join(".git/hooks/sub")).unwrap();
        std::fs::write(dir.path().join(".envrc"), "old").unwrap();
        symlink(".git/hooks", dir.path().join("alias")).unwrap();
        symlink(".envrc", dir.path().join("env")).unwrap();
        for path in
            [".git/hooks/pre-commit", ".git/hooks/new/x", ".git/hooks/sub/x", "alias/x", ".envrc", "env"]
        {
            assert_eq!(rule(write(&workspace, path, "x")), "path.protected", "{path}");
        }
        write(&workspace, ".git/description", "x").unwrap();
        write(&workspace, ".idea/x", "absent names may be made").unwrap();
        assert_eq!(rule(write(&workspace, ".idea/x", "now it exists")), "path.protected");
        assert_eq!(names(&dir.path().join(".git/hooks")), ["sub"]);
    }

    #[test]
    fn draft_that_is_given_up_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = workspace(dir.path(), &[]);
        let target = find_target(&workspace, "f").unwrap();
        let mut draft = Draft::new(&target).unwrap();
        draft.append(b"half", &target).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
        drop(draft);
        assert!(names(dir.path()).is_empty());
    }
}
