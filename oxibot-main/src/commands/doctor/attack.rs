//! `doctor --attack`: the wall attacked inside real calls, each attack with what answered it.
//!
//! The attacks run in the toolhost; here is only where the command asks for them. Until it offers the long form this
//! says so, and claims nothing.

use crate::exit::Exit;

use super::super::fault::Fault;
use super::report::Attack;

/// Runs the long form.
///
/// # Errors
/// When it cannot be run: then nothing is known about the wall.
pub(super) fn run() -> Result<Vec<Attack>, Fault> {
    Err(Fault::new(
        Exit::Internal,
        "attack",
        "cannot attack the wall: this build of the toolhost does not offer the long form yet".to_owned(),
    )
    .with_hint("`oxibot sandbox status` shows what was found to hold, `oxibot doctor` the rest"))
}
