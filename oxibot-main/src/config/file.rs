//! Reading files that may hold secrets, and writing files nobody else may read.
//!
//! It knows who else may read a file and nothing of what is in it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags};
use zeroize::Zeroizing;

use super::error::ConfigError;
use crate::trust::Owners;

/// Largest configuration: a device or a log named by mistake must not fill the memory.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Largest file that holds one secret.
pub(crate) const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Whether a symbolic link may stand in for the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Refused: whoever can write the directory could make us read or replace another file.
    Refuse,
    /// Followed where each link, each directory on the way and the file belong to root or to us and nobody else may
    /// write them: then nobody else can make us read another file.
    Trusted,
    /// Followed: secret stores hand out links (`/run/secrets/..data/key`), and the person named the path.
    Follow,
}

/// A file that was read.
pub(crate) struct Contents {
    /// Wiped when dropped.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Why it is all right that others may read it, if it is.
    pub(crate) excuse: Option<&'static str>,
}

impl Contents {
    pub(crate) fn is_readable_by_others(&self) -> bool {
        self.mode & 0o044 != 0
    }
}

/// Reads a whole file; `None` when there is none.
pub(crate) fn read(
    path: &Path,
    links: Links,
    most: u64,
    credentials: Option<&Path>,
) -> Result<Option<Contents>, ConfigError> {
    let unreadable =
        |cause: String, hint: String| ConfigError::Unreadable { path: path.to_path_buf(), cause, hint };
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match links {
        Links::Refuse | Links::Trusted => flags |= OFlags::NOFOLLOW,
        Links::Follow => {}
    }
    let opened = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::LOOP) if links == Links::Trusted => {
            let end = trusted_end(path).map_err(|cause| {
                let hint = "chown it to yourself or root and take write permission from others (chmod go-w), or name \
                            the file it points to with --config";
                unreadable(format!("it is a symbolic link that cannot be followed: {cause}"), hint.into())
            })?;
            rustix::fs::open(&end, flags, Mode::empty())
        }
        opened => opened,
    };
    let descriptor = match opened {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(unreadable(
                "it is a symbolic link".into(),
                "name the file it points to with --config".into(),
            ));
        }
        Err(rustix::io::Errno::ACCESS) => {
            let hint = format!(
                "run as its owner, or give this user the right: chown, then chmod 600 {}",
                shell(path)
            );
            return Err(unreadable("permission denied".into(), hint));
        }
        Err(errno) => return Err(unreadable(io::Error::from(errno).to_string(), "check the path".into())),
    };
    let file = File::from(descriptor);
    let about =
        file.metadata().map_err(|error| unreadable(error.to_string(), "check the file system".into()))?;
    if !about.is_file() {
        return Err(unreadable("it is not a regular file".into(), "name a file".into()));
    }
    if about.mode() & 0o002 != 0 {
        let hint = format!("run `chmod 600 {}` after checking what is in it", shell(path));
        return Err(unreadable("everyone may write it".into(), hint));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len().min(most) as usize + 1));
    let read = (&file).take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(error.to_string(), "check the file system".into()))?;
    if bytes.len() as u64 > most {
        return Err(unreadable(format!("it is larger than {most} bytes"), "name the right file".into()));
    }
    let excuse = excuse(&file, path, credentials);
    Ok(Some(Contents { bytes, mode: about.mode() & 0o777, excuse }))
}

/// Links followed one after the other before it is taken for a circle.
const MAX_LINKS: usize = 8;

/// Where a link ends, without a link in it, if nobody but root and us could have led it elsewhere.
fn trusted_end(link: &Path) -> Result<PathBuf, String> {
    let owners = Owners::of_this_process();
    let shown = |path: &Path, why: &str| format!("{}: {why}", path.display());
    let mut at = link.to_path_buf();
    for _ in 0..=MAX_LINKS {
        // Links among the directories are resolved here: what counts is where they lead.
        let directory = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = directory.canonicalize().map_err(|error| shown(directory, &error.to_string()))?;
        let Some(name) = at.file_name() else { return Err(shown(&at, "it names no file")) };
        let here = directory.join(name);
        let about = here.symlink_metadata().map_err(|error| shown(&here, &error.to_string()))?;
        if let Some((above, why)) =
            owners.distrust_above(&here).map_err(|error| shown(&here, &error.to_string()))?
        {
            return Err(shown(&above, &why));
        }
        if !about.is_symlink() {
            return match owners.distrust(&about) {
                None => Ok(here),
                Some(why) => Err(shown(&here, &why)),
            };
        }
        if let Some(why) = owners.distrust_link(&about) {
            return Err(shown(&here, &why));
        }
        let target = std::fs::read_link(&here).map_err(|error| shown(&here, &error.to_string()))?;
        at = directory.join(target);
    }
    Err("it leads in a circle".to_owned())
}

/// Where the permission bits are not the owner's choice: files handed in by systemd, a container or a secret store.
fn excuse(file: &File, path: &Path, credentials: Option<&Path>) -> Option<&'static str> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if real.starts_with("/run/secrets") {
        return Some("it is under /run/secrets");
    }
    let credentials = credentials.and_then(|directory| std::fs::canonicalize(directory).ok());
    if credentials.is_some_and(|directory| real.starts_with(directory)) {
        return Some("it is in the credentials directory");
    }
    is_mount_root(file).then_some("it is a mount of its own")
}

fn is_mount_root(file: &File) -> bool {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).is_ok_and(|about| {
        about.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
            && about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    })
}

/// A path as it can be pasted into a shell.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What to do with a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it and fail with `AlreadyExists`.
    Keep,
    /// Put the new one in its place.
    Replace,
}

/// Writes a file 0600, whole or not at all: temporary file beside it, synced, then renamed.
pub(crate) fn write_private(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = temporary_beside(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?);
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        let flags = match existing {
            Existing::Keep => RenameFlags::NOREPLACE,
            Existing::Replace => RenameFlags::empty(),
        };
        rustix::fs::renameat_with(rustix::fs::CWD, &temporary, rustix::fs::CWD, path, flags)?;
        File::open(directory)?.sync_all()
    });
    if written.is_err() {
        // Best effort: the first error is the one worth reporting.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cause(result: Result<Option<Contents>, ConfigError>) -> String {
        match result {
            Err(ConfigError::Unreadable { cause, hint, .. }) => format!("{cause}; {hint}"),
            other => panic!("{:?}", other.map(|contents| contents.map(|c| c.mode))),
        }
    }

    #[test]
    fn only_regular_files_of_bearable_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let read = |path: &Path| read(path, Links::Refuse, 8, None);
        assert!(read(&path).unwrap().is_none());
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().bytes.as_slice(), b"12345678");
        std::fs::write(&path, "123456789").unwrap();
        assert!(cause(read(&path)).contains("larger than 8 bytes"));
        assert!(cause(read(directory.path())).contains("not a regular file"));
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(cause(read(&fifo)).contains("not a regular file"), "and it does not hang");
    }

    #[test]
    fn a_link_is_refused_or_followed_as_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("f"), directory.path().join("l"));
        std::fs::write(&path, "x").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(cause(read(&link, Links::Refuse, 8, None)).contains("symbolic link"));
        assert!(read(&link, Links::Follow, 8, None).unwrap().is_some());
    }

    #[test]
    fn a_link_is_followed_where_nobody_else_could_have_led_it_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("dotfiles")).unwrap();
        std::fs::write(at("dotfiles/f"), "x").unwrap();
        std::os::unix::fs::symlink("dotfiles/f", at("second")).unwrap();
        std::os::unix::fs::symlink(at("second"), at("link")).unwrap();
        let read = |name: &str| read(&at(name), Links::Trusted, 8, None);
        assert!(read("link").unwrap().is_some(), "the control");
        let mode = |name: &str, bits| {
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(bits)).unwrap();
        };
        mode("dotfiles", 0o777);
        assert!(cause(read("link")).contains("dotfiles: everybody may write"));
        mode("dotfiles", 0o1777);
        assert!(read("link").unwrap().is_some(), "sticky: nobody else can rename it");
        mode("dotfiles", 0o755);
        mode("dotfiles/f", 0o646);
        assert!(cause(read("link")).contains("everybody may write"));
        mode("dotfiles/f", 0o600);
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(at("second"), Some(12_345), None).unwrap();
            assert!(cause(read("link")).contains("belongs to user 12345"));
        }
        std::os::unix::fs::symlink("round", at("round")).unwrap();
        assert!(cause(read("round")).contains("circle"));
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        assert!(cause(read("dangling")).contains("nowhere"));
    }

    #[test]
    fn a_file_everyone_may_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(cause(read(&path, Links::Refuse, 8, None)).contains("chmod 600"));
    }

    #[test]
    fn mounts_and_the_credentials_directory_are_excused() {
        assert!(is_mount_root(&File::open("/proc").unwrap()));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        std::fs::write(&path, "x").unwrap();
        assert!(!is_mount_root(&File::open(&path).unwrap()));
        let excuse = |credentials| read(&path, Links::Follow, 8, credentials).unwrap().unwrap().excuse;
        assert_eq!(excuse(None), None);
        assert_eq!(excuse(Some(directory.path())), Some("it is in the credentials directory"));
    }

    #[test]
    fn writing_is_private_and_whole_and_overwrites_only_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_private(&path, b"one", Existing::Keep).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = write_private(&path, b"two", Existing::Keep).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write_private(&path, b"two", Existing::Replace).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file left");
    }

    #[test]
    fn a_path_is_quoted_for_the_shell_when_it_must_be() {
        assert_eq!(shell(Path::new("/a/b-c.json")), "/a/b-c.json");
        assert_eq!(shell(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
