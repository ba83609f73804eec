//! Whether somebody else could have written a file, or put another in its place.
//!
//! Whoever can write a file, or rename a directory above it, decides what is in it. So file and directories must belong
//! to root or to us, and nobody else may write to them. Judged by what was looked at; who calls looks at the opened
//! file and at the canonical path, so that each directory that counts is seen.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

const WRITE_GROUP: u32 = 0o020;
const WRITE_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Who may own what is trusted: root and this user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owners {
    us: Uid,
}

impl Owners {
    /// The effective user.
    pub(crate) fn of_this_process() -> Self {
        Self { us: nix::unistd::geteuid() }
    }

    /// Another user, for tests.
    #[cfg(test)]
    pub(crate) fn of(us: u32) -> Self {
        Self { us: Uid::from_raw(us) }
    }

    fn trusted(self, uid: u32) -> bool {
        uid == 0 || uid == self.us.as_raw()
    }

    /// Why a file cannot be trusted, if it cannot.
    pub(crate) fn distrust(self, metadata: &Metadata) -> Option<String> {
        self.judge(metadata, false)
    }

    /// Why a link cannot: its mode means nothing, its owner made it.
    pub(crate) fn distrust_link(self, metadata: &Metadata) -> Option<String> {
        self.judge(metadata, true)
    }

    /// The first directory above a canonical path that cannot be trusted, and why.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub(crate) fn distrust_above(self, path: &Path) -> io::Result<Option<(PathBuf, String)>> {
        for directory in path.ancestors().skip(1) {
            let metadata = directory.symlink_metadata()?;
            if !metadata.is_dir() {
                return Ok(Some((directory.to_path_buf(), "it is not a directory".into())));
            }
            // In a sticky directory others may add names, but neither rename nor remove what belongs to root or to us;
            // that what we walk through does belong so is checked one step below.
            let sticky = metadata.mode() & STICKY != 0;
            if let Some(reason) = self.judge(&metadata, sticky) {
                return Ok(Some((directory.to_path_buf(), reason)));
            }
        }
        Ok(None)
    }

    fn judge(self, metadata: &Metadata, others_may_write: bool) -> Option<String> {
        if !self.trusted(metadata.uid()) {
            return Some(format!("it belongs to user {}, not to root or to you", metadata.uid()));
        }
        if others_may_write {
            return None;
        }
        if metadata.mode() & WRITE_OTHERS != 0 {
            return Some("everybody may write to it".into());
        }
        if metadata.mode() & WRITE_GROUP != 0 && !is_private_group(metadata.uid(), metadata.gid()) {
            return Some(format!("group {} may write to it", metadata.gid()));
        }
        None
    }
}

/// Whether the group is the owner's own (Debian's user private groups): its name and number are the user's primary ones
/// and it has no other member. Unknown is no.
pub(crate) fn is_private_group(uid: u32, gid: u32) -> bool {
    let (Ok(Some(user)), Ok(Some(group))) =
        (User::from_uid(Uid::from_raw(uid)), Group::from_gid(Gid::from_raw(gid)))
    else {
        return false;
    };
    user.gid == group.gid && user.name == group.name && group.mem.iter().all(|member| *member == user.name)
}
