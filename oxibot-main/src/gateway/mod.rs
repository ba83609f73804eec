//! The gateway: channels in, turns, channels out, for weeks.
//!
//! What holds it together is the post of the store: a message is kept before its vendor is told, a reply is written in
//! the transaction that calls its message answered, a delivery is noted before and after each attempt. Reading order:
//! `intake` (who may talk, and keeping what they said), `hub` (one worker a conversation), `worker` (a message, a turn,
//! an answer), `consent` (a person's yes), `recover` (what a crash left), `courier` (delivering), `supervise` (channels that come and go), `health`
//! (seen from outside), `run` (all of it together). `command` and `words` are pure.
//!
//! It speaks to no vendor itself and decides nothing about tools.

mod command;
mod consent;
mod courier;
mod exits;
mod figures;
mod health;
mod hub;
mod intake;
mod office;
mod recover;
mod rooms;
mod run;
mod supervise;
mod watcher;
mod words;
mod worker;

pub use exits::Exits;
pub use health::Listener;
pub use intake::Door;
pub use office::Voice;
pub use rooms::Rooms;
pub use run::{Setup, run};
pub use supervise::State;
