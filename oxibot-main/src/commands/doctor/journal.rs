//! The journal, where the audit log has its second place.

use std::os::unix::fs::FileTypeExt;

use super::report::Check;

/// Where journald listens, as the toolhost looks for it.
const SOCKET: &str = "/run/systemd/journal/socket";

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalFacts {
    /// Its socket is there.
    pub(super) there: bool,
}

impl JournalFacts {
    /// Looks; connects to nothing.
    pub(super) fn gather() -> Self {
        Self { there: std::fs::metadata(SOCKET).is_ok_and(|found| found.file_type().is_socket()) }
    }
}

/// Whether the head of the audit log is kept where this user cannot take it back.
pub(super) fn anchor(facts: JournalFacts) -> Vec<Check> {
    let id = "audit.anchor";
    vec![if facts.there {
        Check::ok(id, "the head of the audit log goes to the journal every minute and at stop")
    } else {
        Check::info(
            id,
            format!("{SOCKET} is not there"),
            "damage of the audit log is found, a log written anew by this user is not",
            "run under systemd, or copy `oxibot audit export` elsewhere now and then",
        )
    }]
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn machine_without_a_journal_is_told_what_that_costs() {
        let state = |there| anchor(JournalFacts { there }).remove(0).state;
        assert_eq!(state(true), State::Ok);
        assert_eq!(state(false), State::Info);
    }
}
