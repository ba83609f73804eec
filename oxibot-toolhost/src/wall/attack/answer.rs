//! What came of an attack, and how it fits an exit status.
//!
//! Numbers only: whoever asked trusts nothing else of a confined program.

use nix::errno::Errno;
use oxibot_proto::message::Level;

use super::{Op, Tried};

/// Largest errno of Linux; statuses up to it mean "held, with this errno".
const LAST_ERRNO: u8 = 133;
const SIGNALLED: u8 = 140;
const BROKEN: u8 = 200;
const SKIPPED: u8 = 201;

/// What came of one attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The wall held; the errno it answered with, if there was one.
    Held(Option<Errno>),
    /// The wall ended the attacker.
    Signalled,
    /// It got through.
    Broken,
    /// There was nothing to attack, or it needs a target it was not given.
    Skipped,
}

impl Answer {
    pub(super) fn of_call(tried: nix::Result<()>, held: &[Errno]) -> Self {
        match tried {
            Err(errno) if held.contains(&errno) => Self::Held(Some(errno)),
            Err(_) | Ok(()) => Self::Broken,
        }
    }

    /// Held by one of these errnos; broken if it went through or failed otherwise.
    pub(super) fn of<T>(tried: std::io::Result<T>, held: &[Errno]) -> Self {
        Self::of_call(tried.map(drop).map_err(|error| errno_of(&error)), held)
    }

    /// As the exit status of an attacker.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Held(None) => 0,
            Self::Held(Some(errno)) => u8::try_from(errno as i32).map_or(0, |errno| errno.min(LAST_ERRNO)),
            Self::Signalled => SIGNALLED,
            Self::Broken => BROKEN,
            Self::Skipped => SKIPPED,
        }
    }

    /// From an exit status. A status that none has means that the attacker did something else, which is no proof.
    #[must_use]
    pub fn from_status(status: i32) -> Option<Self> {
        match u8::try_from(status).ok()? {
            0 => Some(Self::Held(None)),
            errno if errno <= LAST_ERRNO => Some(Self::Held(Some(Errno::from_raw(errno.into())))),
            SIGNALLED => Some(Self::Signalled),
            BROKEN => Some(Self::Broken),
            SKIPPED => Some(Self::Skipped),
            _ => None,
        }
    }

    pub(super) fn detail(self) -> String {
        match self {
            Self::Held(None) => "held".to_owned(),
            Self::Held(Some(errno)) => match meaning(errno) {
                "" => format!("{errno:?}"),
                meaning => format!("{errno:?}: {meaning}"),
            },
            Self::Signalled => "it was ended".to_owned(),
            Self::Broken => "it got through".to_owned(),
            Self::Skipped => "there is nothing to attack here".to_owned(),
        }
    }
}

pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn meaning(errno: Errno) -> &'static str {
    if errno == Errno::ENOENT {
        "not in the view"
    } else if errno == Errno::EXDEV {
        "not from one place to the other"
    } else if errno == Errno::ESRCH {
        "no such process"
    } else if errno == Errno::ENETUNREACH {
        "no route"
    } else if errno == Errno::ECONNREFUSED {
        "nobody there"
    } else if errno == Errno::ENOSYS || errno == Errno::EINVAL {
        "not there for a call"
    } else {
        ""
    }
}

/// What must have answered with this errno, as far as it can be told.
pub(super) fn mechanism(errno: Errno, level: Level, tried: Tried, expected: &'static str) -> &'static str {
    match tried {
        Tried::Call(..) | Tried::Beyond(_) => expected,
        Tried::Path(Op::Connect | Op::SendDatagram, _) if errno == Errno::EPERM => "system call filter",
        Tried::Path(..) => {
            if errno == Errno::ENOENT {
                "file view"
            } else if errno == Errno::EROFS {
                "read-only mount"
            } else if errno == Errno::EPERM {
                "file ownership, capabilities"
            } else if errno == Errno::EACCES || errno == Errno::EXDEV {
                "Landlock or file permissions"
            } else {
                expected
            }
        }
        Tried::Process(_) | Tried::By(..) => {
            if errno == Errno::ESRCH {
                "PID namespace"
            } else if errno == Errno::ENETUNREACH || errno == Errno::ECONNREFUSED {
                "network namespace"
            } else if errno == Errno::EINVAL {
                "IPC namespace"
            } else if errno == Errno::EPERM && level < Level::Full {
                "system call filter or Landlock scope"
            } else {
                expected
            }
        }
    }
}

/// What came of several attacks in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All were held.
    Held,
    /// This one, by its place in the list, got through.
    Broken(u8),
    /// This one could not be tried; none before it got through.
    NotTried(u8),
}

impl Verdict {
    /// Attacks one process may try, so that each has two statuses of its own.
    pub const MOST: u8 = 100;

    pub(super) fn over(answers: impl Iterator<Item = Answer>) -> Self {
        let mut verdict = Self::Held;
        for (answer, place) in answers.zip(0_u8..) {
            match answer {
                Answer::Held(_) | Answer::Signalled => {}
                Answer::Broken => return Self::Broken(place),
                Answer::Skipped if verdict == Self::Held => verdict = Self::NotTried(place),
                Answer::Skipped => {}
            }
        }
        verdict
    }

    /// As an exit status: 0, then a hundred for each kind.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Broken(place) => place.min(Self::MOST - 1) + 1,
            Self::NotTried(place) => place.min(Self::MOST - 1) + Self::MOST + 1,
        }
    }

    /// From an exit status; `None` for one that none has.
    #[must_use]
    pub fn from_status(status: i32) -> Option<Self> {
        match u8::try_from(status).ok()? {
            0 => Some(Self::Held),
            status if status <= Self::MOST => Some(Self::Broken(status - 1)),
            status if status <= 2 * Self::MOST => Some(Self::NotTried(status - Self::MOST - 1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_survives_an_exit_status() {
        for answer in [
            Answer::Held(None),
            Answer::Held(Some(Errno::EPERM)),
            Answer::Held(Some(Errno::ENETUNREACH)),
            Answer::Signalled,
            Answer::Broken,
            Answer::Skipped,
        ] {
            assert_eq!(Answer::from_status(answer.status().into()), Some(answer));
        }
        for status in [-9, 139, 255, 256] {
            assert_eq!(Answer::from_status(status), None, "{status}");
        }
    }

    #[test]
    fn every_verdict_survives_an_exit_status() {
        for place in 0..Verdict::MOST {
            for verdict in [Verdict::Held, Verdict::Broken(place), Verdict::NotTried(place)] {
                assert_eq!(Verdict::from_status(verdict.status().into()), Some(verdict));
            }
        }
        for status in [-9, 201, 255] {
            assert_eq!(Verdict::from_status(status), None, "{status}");
        }
    }

    #[test]
    fn one_that_gets_through_counts_more_than_one_that_was_not_tried() {
        let (held, skipped, broken) = (Answer::Held(None), Answer::Skipped, Answer::Broken);
        assert_eq!(Verdict::over([held, skipped, broken].into_iter()), Verdict::Broken(2));
        assert_eq!(Verdict::over([held, skipped, skipped].into_iter()), Verdict::NotTried(1));
        assert_eq!(Verdict::over([held, Answer::Signalled].into_iter()), Verdict::Held);
    }
}
