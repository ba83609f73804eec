//! The clock: whether the date can be true, and whether something keeps it right.

use std::time::{Duration, SystemTime};

use oxibot_proto::facts::ClockFacts as KernelClock;

use super::report::Check;

/// Start of 2025 in seconds: before OxiBot was written.
const EARLIEST: u64 = 1_735_689_600;
/// Start of 2100: by then somebody looks at this again.
const LATEST: u64 = 4_102_444_800;
/// A program cannot be newer than now; copying may round its time up.
const ROUNDING: Duration = Duration::from_secs(120);

/// What is known of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockFacts {
    /// Seconds since 1970; none before it.
    pub(super) now: Option<u64>,
    /// When the running program was written.
    pub(super) built: Option<u64>,
    /// What the kernel says; none when it could not be asked.
    pub(super) kernel: Option<KernelClock>,
}

impl ClockFacts {
    /// Looks. `kernel` comes from the toolhost's program.
    pub(super) fn gather(kernel: Option<KernelClock>) -> Self {
        let seconds =
            |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs());
        let built =
            std::fs::metadata("/proc/self/exe").and_then(|about| about.modified()).ok().and_then(seconds);
        Self { now: seconds(SystemTime::now()), built, kernel }
    }
}

/// The date.
pub(super) fn date(facts: &ClockFacts) -> Vec<Check> {
    let id = "clock.date";
    let wrong =
        "certificates look expired or not valid yet, conversations and approvals expire at the wrong time";
    let remedy = "as root: timedatectl set-ntp true";
    let year = |seconds: u64| {
        // Close enough to name a year: 365.2425 days.
        1970_u64.saturating_add(seconds / 31_556_952)
    };
    vec![match facts.now {
        None => Check::fail(id, "before 1970", wrong, remedy),
        Some(now) if !(EARLIEST..LATEST).contains(&now) => {
            Check::fail(id, format!("the year {}", year(now)), wrong, remedy)
        }
        Some(now) if facts.built.is_some_and(|built| built > now.saturating_add(ROUNDING.as_secs())) => {
            Check::warn(id, "before this program was installed", wrong, remedy)
        }
        Some(now) => Check::ok(id, format!("the year {} is plausible", year(now))),
    }]
}

/// Whether it is kept right.
pub(super) fn synchronised(facts: &ClockFacts) -> Vec<Check> {
    let id = "clock.synchronised";
    vec![match facts.kernel {
        Some(kernel) if kernel.synchronised => Check::ok(
            id,
            format!(
                "kept right by a time service, within {} ms",
                kernel.max_error_us.saturating_add(999) / 1000
            ),
        ),
        Some(_) => Check::info(
            id,
            "the kernel knows of no time service",
            "the clock may drift, unless a virtual machine's host keeps it right",
            "as root: apt install systemd-timesyncd && timedatectl set-ntp true",
        ),
        None => Check::info(id, "the kernel would not say", "", "timedatectl"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    const NOW: u64 = 1_795_000_000;

    fn facts(now: Option<u64>, built: Option<u64>) -> ClockFacts {
        ClockFacts { now, built, kernel: None }
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn a_date_that_cannot_be_true_fails() {
        let good = one(date(&facts(Some(NOW), Some(NOW - 5))));
        assert_eq!((good.state, good.found.as_str()), (State::Ok, "the year 2026 is plausible"));
        let epoch = one(date(&facts(Some(100), None)));
        assert_eq!((epoch.state, epoch.found.as_str()), (State::Fail, "the year 1970"));
        assert_eq!(one(date(&facts(Some(LATEST), None))).found, "the year 2100");
        assert_eq!(one(date(&facts(Some(EARLIEST), None))).found, "the year 2025 is plausible");
        assert_eq!(one(date(&facts(None, None))).state, State::Fail);
    }

    #[test]
    fn a_date_before_the_program_was_installed_is_doubtful() {
        assert_eq!(one(date(&facts(Some(NOW), Some(NOW + 86_400)))).state, State::Warn);
        assert_eq!(one(date(&facts(Some(NOW), Some(NOW + 1)))).state, State::Ok, "copying rounds");
    }

    #[test]
    fn synchronised_or_not_or_not_known() {
        let with = |kernel| one(synchronised(&ClockFacts { kernel, ..facts(Some(NOW), None) }));
        let kept = with(Some(KernelClock { synchronised: true, max_error_us: 1500 }));
        assert_eq!(
            (kept.state, kept.found.as_str()),
            (State::Ok, "kept right by a time service, within 2 ms")
        );
        assert_eq!(
            with(Some(KernelClock { synchronised: false, max_error_us: 16_000_000 })).state,
            State::Info
        );
        assert_eq!(with(None).state, State::Info);
    }
}
