//! The supervisor: small, synchronous, single-threaded. It judges a call, has it started, watches it and ends it.
//!
//! Reading order: `start` (the fixed order from the first instruction to the loop), `confine` (how it shuts itself
//! in), `broker` (the loop), `admit`, `asking` and `requests` (messages become calls or refusals), `approvals`, `answer` and `whole` (a
//! person's yes), `senders` and `tally` (how much one may
//! ask for, and has), `calls`, `drive` and `conclude` (calls become
//! results), `network` (the way out of a call that has one), `farewell` (the end). The
//! decisions are pure state machines with tests of their own: `life` (a program), `transfer`, `web`, `spill`, `collect`,
//! `seen`, `sockets`, `workspace`. What a command would do is read in a worker (`reader`), never here. Deliberately absent: an
//! async runtime, threads, the network, any secret, opening a path that a model chose, deciding anything by what a
//! program printed.

mod admit;
mod answer;
mod approvals;
mod arguments;
mod asking;
mod attacks;
mod audit;
mod battery;
mod broker;
mod calls;
mod collect;
mod conclude;
mod confine;
mod control;
mod desk;
mod drive;
mod environment;
mod explain;
mod farewell;
mod journal;
mod life;
mod link;
mod log;
mod network;
mod people;
mod place;
mod process;
mod prove;
mod reader;
mod recorded;
mod requests;
mod seen;
mod senders;
mod settings;
mod sockets;
mod spill;
mod start;
mod tally;
mod transfer;
mod web;
mod whole;
pub(crate) mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

/// Role `serve`: the supervisor on descriptor 0. Returns when main's connection has ended and every call with it.
/// Prints what is wrong on standard error; exit status 2 usage, 78 configuration or level, 70 internal.
pub fn serve_role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match start::serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.told {
                log::always(&failed.error.to_string());
            }
            ExitCode::from(failed.error.status())
        }
    }
}

/// Role `settings`: prints the toolhost's sections of a configuration file as JSON and exits, 78 if it is wrong.
pub fn settings_role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    settings::role(arguments)
}
