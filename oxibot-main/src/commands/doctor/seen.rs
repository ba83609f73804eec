//! One path as it was found: its owner, its mode, and what below it is open to others. Opens no file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use crate::trust::is_private_group;

/// Most entries of a directory that are looked at.
const MOST: usize = 1000;

/// One path as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    pub(super) what: What,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing.
    Absent,
    /// Something that cannot be looked at.
    Hidden(String),
    /// This.
    There {
        /// Its owner.
        uid: u32,
        /// The owner's name, looked up while that is possible.
        owner: String,
        /// Permission bits, sticky and set-ID included.
        mode: u32,
        /// Its group is its owner's own, as Debian gives each user one.
        private_group: bool,
        /// Names below it that somebody else may read or write.
        loose: Vec<String>,
    },
}

impl Seen {
    pub(super) fn at(path: &Path) -> Self {
        Self::of(path, Vec::new())
    }

    /// As [`Seen::at`], with the files directly below.
    pub(super) fn deep(path: &Path) -> Self {
        let loose = std::fs::read_dir(path).map_or_else(
            |_| Vec::new(),
            |entries| {
                entries
                    .take(MOST)
                    .filter_map(|entry| {
                        let entry = entry.ok()?;
                        let about = entry.metadata().ok()?;
                        let open = others(about.mode(), private(&about)) != 0 && !about.is_symlink();
                        open.then(|| entry.file_name().to_string_lossy().into_owned())
                    })
                    .collect()
            },
        );
        Self::of(path, loose)
    }

    fn of(path: &Path, loose: Vec<String>) -> Self {
        let what = match path.metadata() {
            Ok(about) => What::There {
                uid: about.uid(),
                owner: name_of(about.uid()),
                mode: about.mode() & 0o7777,
                private_group: private(&about),
                loose,
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => What::Absent,
            Err(error) => What::Hidden(error.to_string()),
        };
        Self { path: path.to_path_buf(), what }
    }
}

fn private(about: &Metadata) -> bool {
    about.mode() & 0o070 == 0 || is_private_group(about.uid(), about.gid())
}

/// The bits that let somebody else in.
pub(super) fn others(mode: u32, private_group: bool) -> u32 {
    mode & if private_group { 0o007 } else { 0o077 }
}

/// Path, owner and mode.
pub(super) fn stands(seen: &Seen) -> String {
    let path = seen.path.display();
    match &seen.what {
        What::There { owner, mode, .. } => format!("{path} is {owner}'s, mode {mode:04o}"),
        What::Absent => format!("{path} is not there"),
        What::Hidden(why) => format!("{path}: {why}"),
    }
}

fn name_of(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}
