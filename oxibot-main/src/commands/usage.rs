//! `usage`: tokens, and the cost providers reported, by day. Needs no toolhost.

use std::path::Path;

use crate::agent::runner::now_millis;
use crate::cli::UsageArgs;
use crate::exit::Exit;
use crate::render::terminal;

use super::fault::Fault;
use crate::repl::{exit_of_error, table};
use crate::store::{Database, StoreError};

/// Prints it. Blocks.
pub fn run(args: &UsageArgs, state: &Path) -> Exit {
    match text(args, state) {
        Ok(text) => match terminal::out(&text) {
            Ok(()) => Exit::Done,
            Err(error) => {
                terminal::complain(&format!("cannot write to standard output: {error}"));
                Exit::Failed
            }
        },
        Err(error) => {
            let (exit, kind, hint) = exit_of_error(&error);
            // A hint that only sends back to the message is for JSON, where there must be one.
            let hint = if hint == "see the message" { "" } else { hint };
            Fault::new(exit, kind, error.to_string()).with_hint(hint).report(false)
        }
    }
}

fn text(args: &UsageArgs, state: &Path) -> Result<String, StoreError> {
    let rows = Database::open(state)?.usage(args.days, now_millis())?;
    Ok(if args.json { table::usage_json(&rows) } else { table::usage(&rows, args.days) })
}
