//! The conversation at a terminal: one message, or a prompt with history.
//!
//! `desk` holds a turn for a person, `screen` shows it, `command` reads what was typed, `prompt` asks for a line on its
//! own thread, `once` is `agent -m`, `conversation` the prompt's loop. Nothing here talks to a vendor or to the toolhost.

mod command;
pub mod consent;
mod conversation;
mod desk;
mod once;
mod prompt;
pub mod screen;
pub mod table;

pub use consent::AtTerminal;
pub use conversation::converse;
pub use desk::{Desk, OpenMind, exit_of, exit_of_error};
pub use once::once;
pub use screen::Screen;
