//! `demo`: the tour on a machine with no key.

use crate::cli::Global;
use crate::exit::Exit;
use crate::render::terminal;

/// Plays it.
pub fn run(_global: &Global) -> Exit {
    terminal::complain("the demo is not built yet");
    Exit::Internal
}
