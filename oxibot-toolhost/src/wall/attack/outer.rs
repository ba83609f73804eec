//! A filter that was there before ours, as that of a systemd unit, answers first where it refuses more, and with an errno
//! of its own: `RestrictAddressFamilies=` with EAFNOSUPPORT, where ours says EPERM.
//!
//! That errno is the kernel's own for a family it does not have, so by itself it proves no filter. It counts only where
//! more filters are in force than we install.

use nix::errno::Errno;

use crate::sys::Attempt;

/// Most filters a call has from us: the zygote's, the payload's, and one where there are no namespaces.
const OURS: u32 = 3;

/// What was answered, as our own filter would have said it where an outer one was faster.
pub(super) fn translated(call: Attempt, tried: nix::Result<()>) -> nix::Result<()> {
    match (call, tried) {
        (Attempt::Socket(..), Err(Errno::EAFNOSUPPORT)) if filters() > OURS => Err(Errno::EPERM),
        (_, tried) => tried,
    }
}

/// Filters in force for this process, 0 where the kernel does not count them (before 5.9).
fn filters() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn family_that_is_not_there_proves_nothing_without_an_outer_filter() {
        let call = Attempt::Socket(40, 1, 0);
        if filters() <= OURS {
            assert_eq!(translated(call, Err(Errno::EAFNOSUPPORT)), Err(Errno::EAFNOSUPPORT));
        }
        assert_eq!(translated(call, Ok(())), Ok(()), "what got through stays so");
        assert_eq!(translated(Attempt::Clone3, Err(Errno::EAFNOSUPPORT)), Err(Errno::EAFNOSUPPORT));
    }
}
