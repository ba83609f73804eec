//! Room: space and inodes where OxiBot and its calls write, and swap that would keep what was in memory.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::facts::{text, trimmed};
use crate::confine::Locked;

use super::report::{Check, State};

/// Below this a place is as good as full: a conversation and its journal need more.
const FULL: u64 = 4 * 1024 * 1024;
/// Below this it will be full soon.
const LITTLE: u64 = 256 * 1024 * 1024;
/// Below so many free inodes a place is as good as full.
const NO_INODES: u64 = 16;
/// Below this they will be gone soon.
const FEW_INODES: u64 = 2_000;

/// What was found of room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskFacts {
    pub(super) home: Room,
    pub(super) workspace: Room,
    pub(super) tmp: Room,
    pub(super) swaps: Vec<Swap>,
}

/// Room at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) path: PathBuf,
    /// None when it cannot be asked.
    pub(super) left: Option<Left>,
}

/// What is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Bytes for us.
    pub(super) bytes: u64,
    /// Inodes for us; none where the file system does not count them.
    pub(super) inodes: Option<u64>,
    /// Mounted read-only.
    pub(super) read_only: bool,
}

/// One swap area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) name: String,
    /// In memory only, or encrypted.
    pub(super) harmless: bool,
}

impl DiskFacts {
    /// Looks at the places, or at the nearest directory above those that are not there yet.
    pub(super) fn gather(home: &Path, workspace: &Path) -> Self {
        let swaps = swap_names(&text("/proc/swaps").unwrap_or_default())
            .into_iter()
            .map(|name| Swap { harmless: is_harmless(&name, Path::new("/sys/class/block")), name })
            .collect();
        Self { home: room(home), workspace: room(workspace), tmp: room(Path::new("/tmp")), swaps }
    }
}

fn room(path: &Path) -> Room {
    let left =
        path.ancestors().find(|path| path.exists()).and_then(|path| statvfs(path).ok()).map(|about| Left {
            bytes: about.blocks_available().saturating_mul(about.fragment_size()),
            inodes: (about.files() > 0).then(|| about.files_available()),
            read_only: about.flags().contains(FsFlags::ST_RDONLY),
        });
    Room { path: path.to_path_buf(), left }
}

/// Names of the swap areas, from `/proc/swaps`.
fn swap_names(swaps: &str) -> Vec<String> {
    swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Compressed memory, or a device-mapper device whose kind is encryption. A file takes what its file system gives, which
/// is not asked further.
fn is_harmless(name: &str, block: &Path) -> bool {
    let real = std::fs::canonicalize(name).unwrap_or_else(|_| PathBuf::from(name));
    let Some(device) = real.file_name().and_then(|name| name.to_str()) else { return false };
    if device.starts_with("zram") {
        return true;
    }
    trimmed(block.join(device).join("dm/uuid")).is_some_and(|uuid| uuid.starts_with("CRYPT-"))
}

/// Where conversations and the audit log go.
pub(super) fn home(facts: &DiskFacts) -> Vec<Check> {
    let cost = "conversations and the audit log cannot be written, and without the log no tool runs";
    vec![judge("disk.home", &facts.home, cost, State::Fail)]
}

/// Where tools work.
pub(super) fn workspace(facts: &DiskFacts) -> Vec<Check> {
    vec![judge("disk.workspace", &facts.workspace, "tools cannot write files", State::Warn)]
}

/// The machine's own; a call has its own in memory.
pub(super) fn tmp(facts: &DiskFacts) -> Vec<Check> {
    let cost = "calls at level kernel and reduced have their temporary files there";
    vec![judge("disk.tmp", &facts.tmp, cost, State::Warn)]
}

fn judge(id: &str, room: &Room, cost: &str, full: State) -> Check {
    let path = room.path.display();
    let remedy =
        format!("see what is large: du -xh {} | sort -h | tail", crate::config::file::shell(&room.path));
    let Some(left) = room.left else {
        return Check::info(id, format!("{path}: what is left cannot be asked"), "", format!("df -h {path}"));
    };
    let found = match left.inodes {
        Some(inodes) => format!("{} and {inodes} inodes left for {path}", size(left.bytes)),
        None => format!("{} left for {path}", size(left.bytes)),
    };
    if left.read_only {
        let remedy = format!("as root: mount -o remount,rw $(findmnt -nT {path} -o TARGET)");
        return Check::new(id, full, format!("{path} is mounted read-only"), cost, remedy);
    }
    let few = |least: u64| left.inodes.is_some_and(|inodes| inodes < least);
    if left.bytes < FULL || few(NO_INODES) {
        Check::new(id, full, found, cost, remedy)
    } else if left.bytes < LITTLE || few(FEW_INODES) {
        Check::warn(id, found, format!("soon: {cost}"), remedy)
    } else {
        Check::ok(id, found)
    }
}

/// Swap that is not encrypted.
pub(super) fn swap(facts: &DiskFacts) -> Vec<Check> {
    let id = "disk.swap";
    let open: Vec<&str> =
        facts.swaps.iter().filter(|swap| !swap.harmless).map(|swap| swap.name.as_str()).collect();
    vec![match (facts.swaps.is_empty(), open.is_empty()) {
        (true, _) => Check::ok(id, "none"),
        (false, true) => Check::ok(id, "in memory or encrypted"),
        (false, false) => Check::info(
            id,
            format!("{} is not known to be encrypted", open.join(", ")),
            "parts of conversations and keys may stay on that disk after the machine is off",
            "as root: apt install cryptsetup, and in /etc/crypttab: swap DEVICE /dev/urandom swap; in /etc/fstab: \
             /dev/mapper/swap none swap sw 0 0",
        ),
    }]
}

/// Whether main's memory may get there.
pub(super) fn locked(locked: &Locked) -> Vec<Check> {
    let id = "disk.locked";
    vec![match locked {
        Locked::All => Check::ok(id, "main's memory is never written to swap"),
        Locked::Read => Check::ok(id, "what main read of secrets at its start is never written to swap"),
        Locked::Nothing(why) => Check::info(
            id,
            format!("main's memory cannot be locked: {why}"),
            "parts of it, keys among them, may be written to swap",
            "raise the limit (ulimit -l 8192; in a unit: LimitMEMLOCK=infinity), or encrypt swap",
        ),
    }]
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const GIB: u64 = 1024 * MIB;
    match bytes {
        GIB.. => format!("{} GiB", bytes / GIB),
        MIB.. => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(left: Option<Left>) -> DiskFacts {
        let room = Room { path: "/p".into(), left };
        DiskFacts { home: room.clone(), workspace: room.clone(), tmp: room, swaps: Vec::new() }
    }

    fn left(bytes: u64, inodes: Option<u64>) -> Option<Left> {
        Some(Left { bytes, inodes, read_only: false })
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn room_is_enough_little_or_none() {
        let states = |left| {
            let facts = at(left);
            [home, workspace, tmp].map(|check| one(check(&facts)).state)
        };
        assert_eq!(states(left(1 << 40, Some(1 << 20))), [State::Ok; 3]);
        assert_eq!(states(left(1 << 40, None)), [State::Ok; 3], "btrfs counts no inodes");
        assert_eq!(states(left(LITTLE - 1, None)), [State::Warn; 3]);
        assert_eq!(states(left(1 << 40, Some(FEW_INODES - 1))), [State::Warn; 3]);
        assert_eq!(states(left(FULL - 1, None)), [State::Fail, State::Warn, State::Warn]);
        assert_eq!(states(left(1 << 40, Some(0))), [State::Fail, State::Warn, State::Warn]);
        assert_eq!(
            states(Some(Left { bytes: 1 << 40, inodes: None, read_only: true })),
            [State::Fail, State::Warn, State::Warn]
        );
        assert_eq!(states(None), [State::Info; 3]);
    }

    #[test]
    fn a_real_place_has_room_and_a_missing_one_is_asked_above() {
        let facts = DiskFacts::gather(Path::new("/nonexistent/home"), &std::env::temp_dir());
        assert!(facts.home.left.is_some() && facts.tmp.left.is_some());
    }

    #[test]
    fn swap_in_the_clear_is_information_at_most() {
        let table = "Filename\t\t\tType\t\tSize\n/dev/sda2 partition 1 0 -2\n/dev/zram0 partition 1 0 5\n";
        assert_eq!(swap_names(table), ["/dev/sda2", "/dev/zram0"]);
        assert_eq!(one(swap(&at(None))).state, State::Ok);
        let with = |harmless| {
            let swaps = vec![Swap { name: "/dev/sda2".into(), harmless }];
            one(swap(&DiskFacts { swaps, ..at(None) })).state
        };
        assert_eq!((with(true), with(false)), (State::Ok, State::Info));
    }

    #[test]
    fn memory_that_cannot_be_locked_is_said() {
        assert_eq!(one(locked(&Locked::All)).state, State::Ok);
        let check = one(locked(&Locked::Nothing("Cannot allocate memory".into())));
        assert_eq!(check.state, State::Info);
        assert!(check.found.contains("Cannot allocate memory"), "{check:?}");
    }

    #[test]
    fn encryption_is_told_by_the_device_mapper() {
        let block = tempfile::tempdir().unwrap();
        for (device, uuid) in [("dm-0", "CRYPT-PLAIN-swap"), ("dm-1", "LVM-abc")] {
            std::fs::create_dir_all(block.path().join(device).join("dm")).unwrap();
            std::fs::write(block.path().join(device).join("dm/uuid"), uuid).unwrap();
        }
        assert!(is_harmless("/dev/dm-0", block.path()));
        assert!(!is_harmless("/dev/dm-1", block.path()));
        assert!(is_harmless("/dev/zram0", block.path()));
        assert!(!is_harmless("/dev/sda2", block.path()));
    }
}
