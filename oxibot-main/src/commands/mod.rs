//! What each command does. Parsing the command line is not here.

pub mod config;
pub mod onboard;
pub mod status;
