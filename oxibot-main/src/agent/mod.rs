//! The agent loop: from a person's message to an answer, with tool calls between.
//!
//! [`turn`] decides (pure: events in, effects out), [`runner`] carries out, `asking` makes a request fit. [`transcript`] and [`history`] read the
//! journal, [`prompt`] and [`untrusted`] put words before the model, [`hands`] names what the loop needs of the world.
//! It starts no program, opens no file of a workspace, and judges no call: that is the toolhost's.

pub mod acting;
pub mod allowance;
mod asking;
pub mod consent;
#[cfg(test)]
pub(crate) mod fakes;
pub mod hands;
pub mod history;
pub mod image;
pub mod prompt;
pub mod runner;
pub mod thinking;
pub mod transcript;
pub mod turn;
pub mod untrusted;
