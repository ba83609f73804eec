//! `completions SHELL`: the script that teaches a shell our command line. Made from the same definition as the parser.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::exit::Exit;

/// Prints it.
pub(super) fn run(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "oxibot", &mut script);
    super::print(&String::from_utf8_lossy(&script))
}
