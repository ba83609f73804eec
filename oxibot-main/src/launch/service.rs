//! The toolhost of a service: another unit's, which is connected to and neither started nor ended here.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::LaunchError;
use super::toolhost::Toolhost;

/// Whose toolhost it is.
#[derive(Debug)]
pub enum Host {
    /// Started by us, and gone with us.
    Own(Toolhost),
    /// A service's.
    Service,
}

impl Host {
    /// Process id of one that is ours.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Own(toolhost) => Some(toolhost.id()),
            Self::Service => None,
        }
    }

    /// Waits for the end of one that is ours, as [`Toolhost::finish`].
    ///
    /// # Errors
    /// As [`Toolhost::finish`].
    pub fn finish(self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Own(toolhost) => toolhost.finish().map(Some),
            Self::Service => Ok(None),
        }
    }
}

/// Connects to a service. Its socket belongs to the one user it serves.
///
/// # Errors
/// [`LaunchError::NotOurs`] for any other user, root included; [`LaunchError::System`] when nobody listens.
pub fn connect(socket: &Path) -> Result<UnixStream, LaunchError> {
    let step = "reach the service";
    let metadata = socket.metadata().map_err(LaunchError::system(step))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        let user = nix::unistd::User::from_uid(metadata.uid().into()).ok().flatten();
        return Err(LaunchError::NotOurs {
            socket: PathBuf::from(socket),
            user: user.map_or_else(|| metadata.uid().to_string(), |user| user.name),
        });
    }
    UnixStream::connect(socket).map_err(LaunchError::system(step))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn service_of_another_user_is_refused_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("toolhost.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(connect(&path).is_ok());
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            let error = connect(&path).unwrap_err();
            assert!(matches!(&error, LaunchError::NotOurs { user, .. } if user == "nobody"), "{error}");
        }
        assert!(matches!(connect(&directory.path().join("none")), Err(LaunchError::System { .. })));
    }
}
