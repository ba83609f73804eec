//! The way out of one call: a proxy that takes names of hosts, one process for each call that may have one.
//!
//! The call's network namespace holds a loopback and nothing else. Its init listens there, before the program exists,
//! and the listening socket comes here over the supervisor; so connections of the call are accepted in this process,
//! which has the machine's network and no file, no program to start and no other call. It reads hostile bytes from two
//! sides and is confined before the first of them.
//!
//! Reading order: `serve` (the order of things, and the loop), `confine`, `connection` (one connection from its first
//! byte to its last), `request` with `http`, `body` and `socks` (what is asked), `rules` (what is allowed), `lookup`
//! with `dns` and `local` (names to addresses), `told` (what the supervisor learns). Deliberately absent: TLS, a cache,
//! threads, more than one call, any address that was not judged.

mod body;
mod confine;
mod connection;
mod dns;
mod http;
mod local;
mod lookup;
mod pipe;
mod request;
mod rules;
mod serve;
mod socks;
mod told;
pub(crate) mod words;

use std::process::ExitCode;

/// Entry point of the role `egress`: fd 0 is the supervisor's socket, on which its order comes first.
#[must_use]
pub fn role() -> ExitCode {
    match serve::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
