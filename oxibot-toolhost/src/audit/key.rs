//! The audit key: 32 random bytes in `audit/key`, made on first use, readable by its owner only.
//!
//! It authenticates what the supervisor wrote itself and reads again. It protects against damage and against other
//! users; whoever is the same user can read it, which is why no call and no main ever sees the directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, Mac};
use nix::fcntl::OFlag;
use sha2::Sha256;

use crate::supervise::workspace;

/// Name below the home.
pub(crate) const NAME: &str = "audit/key";
const LENGTH: usize = 32;

/// The key. Never printed.
pub(crate) struct AuditKey([u8; LENGTH]);

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AuditKey")
    }
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {NAME}: {0}")]
pub(crate) struct NoKey(String);

impl AuditKey {
    /// Reads it, or makes it. A key that others could read or write is refused, never used and never replaced: what
    /// it authenticated before would be lost.
    pub(crate) fn open(home: &Path) -> Result<Self, NoKey> {
        let failed = |error: std::io::Error| NoKey(error.to_string());
        let path = home.join(NAME);
        match open_private(&path) {
            Err(Unfit::Absent) => {
                let directory = home.join("audit");
                workspace::create(&directory).map_err(failed)?;
                make(&directory, &path).map_err(failed)?;
            }
            Err(Unfit::Not(why)) => return Err(NoKey(why)),
            Ok(_) => {}
        }
        Self::existing(home)
    }

    /// Reads it, and makes none: what is to be verified was written under one that is there.
    pub(crate) fn existing(home: &Path) -> Result<Self, NoKey> {
        let failed = |error: std::io::Error| NoKey(error.to_string());
        let mut file = match open_private(&home.join(NAME)) {
            Ok(file) => file,
            Err(Unfit::Absent) => return Err(NoKey("it is not there".to_owned())),
            Err(Unfit::Not(why)) => return Err(NoKey(why)),
        };
        let mut key = [0; LENGTH];
        file.read_exact(&mut key).map_err(|_short| NoKey(format!("it is not {LENGTH} bytes long")))?;
        match file.read(&mut [0; 1]) {
            Ok(0) => Ok(Self(key)),
            Ok(_) => Err(NoKey(format!("it is not {LENGTH} bytes long"))),
            Err(error) => Err(failed(error)),
        }
    }

    /// The beginning of an authentication code, bound to what it is for, so that one can never pass for another.
    pub(crate) fn code(&self, purpose: &str) -> Hmac<Sha256> {
        // A key shorter than a block counts as filled up with zeros (RFC 2104): like this nothing can fail.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(self.0) {
            *to = from;
        }
        let mut code = <Hmac<Sha256> as Mac>::new((&block).into());
        code.update(purpose.as_bytes());
        code.update(&[0]);
        code
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

/// Why a private file is not used.
#[derive(Debug)]
pub(crate) enum Unfit {
    Absent,
    Not(String),
}

/// Opens a file that nobody else may read or write: ours, regular, one name, no link.
pub(crate) fn open_private(path: &Path) -> Result<File, Unfit> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Unfit::Absent),
        Err(error) => return Err(Unfit::Not(error.to_string())),
    };
    let found = file.metadata().map_err(|error| Unfit::Not(error.to_string()))?;
    let fault = if !found.is_file() {
        "it is not a regular file".to_owned()
    } else if found.uid() != nix::unistd::geteuid().as_raw() {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & 0o077 != 0 {
        format!("others may use it (mode {:04o}); run chmod 600 {}", found.mode() & 0o7777, path.display())
    } else if found.nlink() != 1 {
        "it has a second name".to_owned()
    } else {
        return Ok(file);
    };
    Err(Unfit::Not(fault))
}

/// A fresh key under a name of its own, then linked into place: of two that start at once both use the same.
fn make(directory: &Path, path: &Path) -> std::io::Result<()> {
    let mut key = [0; LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let name = directory.join(format!(".key-{}", std::process::id()));
    let _ = std::fs::remove_file(&name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    let linked =
        file.write_all(&key).and_then(|()| file.sync_all()).and_then(|()| {
            match std::fs::hard_link(&name, path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        });
    std::fs::remove_file(&name).and(linked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn code(key: &AuditKey, purpose: &str) -> Vec<u8> {
        key.code(purpose).finalize().into_bytes().to_vec()
    }

    #[test]
    fn key_is_made_once_and_private() {
        let home = tempfile::tempdir().unwrap();
        let first = AuditKey::open(home.path()).unwrap();
        let again = AuditKey::open(home.path()).unwrap();
        assert_eq!(code(&first, "x"), code(&again, "x"));
        assert_ne!(code(&first, "x"), code(&first, "y"), "a code is bound to its purpose");
        let path = home.path().join(NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        let names: Vec<_> = std::fs::read_dir(home.path().join("audit")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(format!("{first:?}"), "AuditKey");
    }

    #[test]
    fn key_of_another_kind_is_refused_and_kept() {
        let home = tempfile::tempdir().unwrap();
        AuditKey::open(home.path()).unwrap();
        let path = home.path().join(NAME);
        let bytes = std::fs::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o622] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(AuditKey::open(home.path()).is_err(), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        for content in [&b"short"[..], &[7; 33]] {
            std::fs::write(&path, content).unwrap();
            assert!(AuditKey::open(home.path()).is_err());
        }
        std::fs::write(&path, &bytes).unwrap();
        std::fs::hard_link(&path, home.path().join("second")).unwrap();
        assert!(AuditKey::open(home.path()).is_err(), "a second name");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(home.path().join("second"), &path).unwrap();
        assert!(AuditKey::open(home.path()).is_err(), "a link");
    }
}
