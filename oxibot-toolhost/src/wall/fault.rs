//! Making a [`WallFault`]: every step of the wall that fails says which step and what the kernel answered.

use std::fmt::Display;

use crate::wire::WallFault;

/// A fault of one step.
pub(super) fn fault(step: impl Into<String>, cause: impl Display) -> WallFault {
    WallFault { step: step.into(), cause: cause.to_string() }
}

/// Names the step a result belongs to.
pub(crate) trait Step<T> {
    /// The error becomes "cannot `step`: error".
    fn step(self, step: &str) -> Result<T, WallFault>;
    /// As [`Step::step`], with a path or name behind the step.
    fn step_on(self, step: &str, what: impl Display) -> Result<T, WallFault>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, WallFault> {
        self.map_err(|error| fault(step, error))
    }

    fn step_on(self, step: &str, what: impl Display) -> Result<T, WallFault> {
        self.map_err(|error| fault(format!("{step} {what}"), error))
    }
}
