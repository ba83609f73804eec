//! What people and scripts see: bounded and neutralised text, the frozen JSON of a result, and writing to a terminal.
//!
//! Everything that came from a confined program, a file or the toolhost passes through [`neutral`] before it is shown.
//! Nothing here talks to the toolhost.

pub mod neutral;
pub mod output;
pub mod report;
pub mod terminal;
