//! Exit statuses of `oxibot`, frozen: scripts depend on them.
//!
//! One meaning a number, the same in every command but `sandbox run`, which passes on what its program ended with.

use std::process::ExitCode;

use oxibot_proto::message::{Outcome, Verdict};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// Done. For `tool call`: completed, whatever the command's own exit status.
    Done,
    /// What was asked for failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Denied, or a person must approve first.
    Refused,
    /// The deadline passed.
    TimedOut,
    /// A signal or a limit ended the call.
    Killed,
    /// OxiBot itself failed.
    Internal,
    /// Try again later, or start again.
    TryAgain,
    /// The configuration does not allow it.
    Configuration,
    /// Cancelled by the person who asked.
    Cancelled,
    /// `sandbox run` only: what its program ended with.
    Program(u8),
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::TimedOut => 4,
            Self::Killed => 5,
            Self::Internal => 70,
            Self::TryAgain => 75,
            Self::Configuration => 78,
            Self::Cancelled => 130,
            Self::Program(code) => code,
        }
    }

    /// The status `tool call` ends with for an outcome.
    pub fn of_outcome(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Done,
            Outcome::Denied(_) | Outcome::NeedsApproval(_) => Self::Refused,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Killed { .. } => Self::Killed,
            Outcome::Internal { .. } => Self::Internal,
        }
    }

    /// The status `tool call --dry-run` ends with for a verdict.
    pub fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Done,
            Verdict::Ask | Verdict::Block => Self::Refused,
        }
    }

    /// The status `sandbox run` ends with: 124 timed out, 125 refused or failed, 128+n signal, else the program's own.
    pub fn of_run(outcome: &Outcome, exit_code: Option<i32>, signal: Option<i32>) -> Self {
        let number = match outcome {
            Outcome::TimedOut => 124,
            Outcome::Denied(_)
            | Outcome::NeedsApproval(_)
            | Outcome::Failed { .. }
            | Outcome::Internal { .. } => 125,
            Outcome::Cancelled => 130,
            Outcome::Completed | Outcome::Killed { .. } => match (exit_code, signal) {
                (_, Some(signal)) => signal.saturating_add(128),
                (Some(code), None) => code,
                // Neither: a limit ended it before the kernel could say how; what SIGKILL gives.
                (None, None) => 137,
            },
        };
        Self::Program(u8::try_from(number).unwrap_or(125))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::Denial;

    use super::*;

    #[test]
    fn statuses_are_frozen() {
        let all = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Refused, 3),
            (Exit::TimedOut, 4),
            (Exit::Killed, 5),
            (Exit::Internal, 70),
            (Exit::TryAgain, 75),
            (Exit::Configuration, 78),
            (Exit::Cancelled, 130),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code);
        }
    }

    #[test]
    fn run_passes_on_what_its_program_ended_with() {
        let denied =
            Outcome::Denied(Denial { rule: String::new(), reason: String::new(), hint: String::new() });
        assert_eq!(Exit::of_run(&Outcome::Completed, Some(17), None).code(), 17);
        assert_eq!(Exit::of_run(&Outcome::Killed { limit: None }, None, Some(15)).code(), 143);
        assert_eq!(Exit::of_run(&Outcome::TimedOut, None, Some(9)).code(), 124);
        assert_eq!(Exit::of_run(&denied, None, None).code(), 125);
        assert_eq!(Exit::of_run(&Outcome::Cancelled, None, Some(9)).code(), 130);
    }
}
