//! The fetch worker: a process with the network and nothing else.
//!
//! It resolves names and connects to public addresses for `web_get` and `web_search`. It sees no file, starts no
//! program, knows no workspace and no policy but the exceptions a request carries. Everything it reads is hostile: URLs
//! a model wrote, answers of name servers, pages. What turns pages into text overflows its stack or takes for ever on
//! pages made for that, so it runs in a process of its own each time ([`convert`]).
//!
//! Reading order: [`start`] (the fixed order of confinement), [`serve`] (requests in, answers out), [`get`] (a page,
//! hop by hop), then one file a concern.
//!
//! Arguments: `--socket-fd N` (a connected packet socket to the supervisor) or, with `LISTEN_FDS`, a listening one;
//! `--key-fd N` (where main leaves the search key); `--unconfined` with `--no-sandbox`.
#![forbid(unsafe_code)]

mod start;

mod confine;
mod serve;

mod body;
mod cache;
mod charset;
mod connection;
mod get;
mod hop;
mod pace;
mod page;
mod slots;

mod convert;
mod markdown;

mod dns;
mod resolve;

mod search;
mod secret;

fn main() -> std::process::ExitCode {
    start::run()
}
