//! The files the store owns: private from their first byte, and locks that die with their holder.
//!
//! It opens nothing but files of the state directory and never repairs a mode it finds: a database others can read is
//! refused, because whoever could read it may have done so.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::StoreError;

/// How long opening waits for another process that is just opening or migrating the same database.
const OPENING_PATIENCE: Duration = Duration::from_secs(30);

/// Makes the directory if need be; refuses one that others can enter.
pub(super) fn private_directory(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| StoreError::File {
        verb: "make",
        path: path.to_owned(),
        cause,
    })?;
    let found = path.metadata().map_err(|cause| StoreError::File {
        verb: "inspect",
        path: path.to_owned(),
        cause,
    })?;
    refuse_public(path, found.mode(), "700")
}

/// Makes an empty 0600 file. `false` when there is one already.
pub(super) fn create_private(path: &Path) -> Result<bool, StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path);
    match made {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(cause) => Err(StoreError::File { verb: "create", path: path.to_owned(), cause }),
    }
}

/// Makes the file if need be; refuses one that others can read, or that is a link.
pub(super) fn private_file(path: &Path) -> Result<(), StoreError> {
    if create_private(path)? {
        return Ok(());
    }
    let found = path.symlink_metadata().map_err(|cause| StoreError::File {
        verb: "inspect",
        path: path.to_owned(),
        cause,
    })?;
    if !found.is_file() {
        return Err(StoreError::NotAFile { path: path.to_owned() });
    }
    refuse_public(path, found.mode(), "600")
}

fn refuse_public(path: &Path, mode: u32, wanted: &'static str) -> Result<(), StoreError> {
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(StoreError::Public { path: path.to_owned(), mode: mode & 0o7777, wanted })
}

/// A lock on one byte of the lock file. Released when dropped, and by the kernel when the process dies.
///
/// An open-file-description lock: two handles of one process exclude each other as two processes do.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Byte of the lock file held while a database is opened or migrated; sessions lock the byte of their id, from 1.
pub(super) const OPENING: i64 = 0;

/// Takes the lock, or says `None` when someone else has it.
pub(super) fn try_lock(lock_file: &Path, byte: i64) -> Result<Option<Lock>, StoreError> {
    let fault = |cause| StoreError::File { verb: "lock", path: lock_file.to_owned(), cause };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(lock_file)
        .map_err(fault)?;
    let range = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&range)) {
        Ok(_) => Ok(Some(Lock { file })),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(None),
        Err(errno) => Err(fault(errno.into())),
    }
}

/// Takes the place of the one gateway of a home, and writes down who has it.
///
/// # Errors
/// [`StoreError::SecondGateway`] when another process has it.
pub fn lock_gateway(directory: &Path) -> Result<Lock, StoreError> {
    let path = directory.join("gateway.lock");
    let Some(lock) = try_lock(&path, OPENING)? else {
        let pid = std::fs::read_to_string(&path).unwrap_or_default();
        let pid = pid.trim().parse::<u32>().map_or_else(|_| "unknown".to_owned(), |pid| pid.to_string());
        return Err(StoreError::SecondGateway { pid, home: directory.to_owned() });
    };
    let written = lock.file.set_len(0).and_then(|()| {
        use std::io::Write as _;
        (&lock.file).write_all(format!("{}\n", std::process::id()).as_bytes())
    });
    written.map_err(|cause| StoreError::File { verb: "write", path, cause })?;
    Ok(lock)
}

/// Takes the opening lock, waiting a bounded time.
pub(super) fn lock_opening(lock_file: &Path) -> Result<Lock, StoreError> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = try_lock(lock_file, OPENING)? {
            return Ok(lock);
        }
        if begun.elapsed() > OPENING_PATIENCE {
            return Err(StoreError::OpeningBusy { file: lock_file.to_owned() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The lock file beside a database.
pub(super) fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn second_gateway_is_refused_naming_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock_gateway(directory.path()).unwrap();
        let error = lock_gateway(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(lock_gateway(directory.path()).is_ok());
    }

    #[test]
    fn lock_excludes_a_second_holder_and_ends_with_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = try_lock(&path, 7).unwrap();
        assert!(first.is_some());
        assert!(try_lock(&path, 7).unwrap().is_none());
        assert!(try_lock(&path, 8).unwrap().is_some());
        drop(first);
        assert!(try_lock(&path, 7).unwrap().is_some());
    }

    #[test]
    fn public_directory_file_and_link_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = private_directory(&open).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");

        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(private_file(&file).unwrap_err().to_string().contains("chmod 600"));

        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(private_file(&link), Err(StoreError::NotAFile { .. })));
    }
}
