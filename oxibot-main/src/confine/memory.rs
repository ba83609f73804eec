//! Keeps secrets out of swap, as far as this user may lock memory.
//!
//! Where no limit counts, all of main is locked, what it will use later included. Where one does (8 MiB are usual), that
//! would make a later allocation fail; then the heap and the stack are locked as they are now, in which the
//! configuration with its secrets lies. What the heap grows by afterwards is not.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use rustix::mm::{MlockAllFlags, mlockall};

/// What is kept out of swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locked {
    /// Everything, now and later.
    All,
    /// What was read before this process confined itself.
    Read,
    /// Nothing, and why.
    Nothing(String),
}

/// Locks what may be locked. Before capabilities are dropped: root's limit is raised with one of them.
pub(super) fn lock() -> Locked {
    let limit = || getrlimit(Resource::RLIMIT_MEMLOCK);
    if limit().is_ok_and(|(soft, _)| soft != RLIM_INFINITY) {
        // Granted to root, and to those whose hard limit is none; for anybody else it stays as it is.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
    let unlimited = limit().is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    let everything = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unlimited && mlockall(everything).is_ok() {
        return Locked::All;
    }
    match std::fs::read_to_string("/proc/self/maps") {
        Ok(maps) => lock_ranges(&ranges(&maps)),
        Err(error) => Locked::Nothing(error.to_string()),
    }
}

/// Heap and stack in the kernel's list of mappings.
fn ranges(maps: &str) -> Vec<(usize, usize)> {
    maps.lines()
        .filter(|line| line.ends_with("[heap]") || line.ends_with("[stack]"))
        .filter_map(|line| line.split_once(' ')?.0.split_once('-'))
        .filter_map(|(from, to)| {
            Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
        })
        .collect()
}

fn lock_ranges(ranges: &[(usize, usize)]) -> Locked {
    for (from, to) in ranges {
        match region::lock(std::ptr::without_provenance::<u8>(*from), to.saturating_sub(*from)) {
            // For as long as this process lives; its guard would unlock.
            Ok(guard) => {
                Box::leak(Box::new(guard));
            }
            Err(error) => return Locked::Nothing(error.to_string()),
        }
    }
    if ranges.is_empty() {
        Locked::Nothing("there is no heap in /proc/self/maps".to_owned())
    } else {
        Locked::Read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_and_stack_are_found_and_nothing_else() {
        let maps = "00400000-00500000 r-xp 00000000 08:01 1 /usr/bin/oxibot\n\
                    01c00000-01d00000 rw-p 00000000 00:00 0 [heap]\n\
                    7ffc0000-7ffd0000 rw-p 00000000 00:00 0                          [stack]\n\
                    7fff0000-7fff2000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(ranges(maps), [(0x01c0_0000, 0x01d0_0000), (0x7ffc_0000, 0x7ffd_0000)]);
        assert_eq!(lock_ranges(&[]), Locked::Nothing("there is no heap in /proc/self/maps".to_owned()));
    }
}
