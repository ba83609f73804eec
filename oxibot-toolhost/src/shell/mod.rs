//! The shell filter: reads a command with the grammar of bash and says what the policy thinks of it.
//!
//! It is a guard-rail for mistakes, not the boundary: whoever means harm gets past any reader of programs, and the
//! sandbox is what then holds. It runs in a worker of its own that can do nothing but answer ([`serve`]); the
//! supervisor never reads a command. It expands nothing by running anything, opens no file and knows no network.
//!
//! Reading order: [`tree`] (what is read), [`read`], [`compound`], [`simple`] and [`words`] (how), [`value`], [`pattern`], [`path`] and
//! [`options`] (what words mean), [`walk`], [`expand`], [`run`], [`unwrap`], [`streams`] and [`foreign`] (what would
//! run), [`rules`], [`load`] and [`judge`] (what is thought of it), [`confine`] and [`serve`] (the worker).

mod compound;
mod confine;
mod expand;
mod foreign;
mod judge;
mod load;
mod options;
mod path;
mod pattern;
mod read;
mod rules;
mod run;
mod serve;
mod simple;
mod state;
mod streams;
mod tree;
mod unwrap;
mod value;
mod walk;
mod words;

pub use judge::judge;
pub use load::PolicyError;
pub(crate) use load::STANDARD;
pub use read::Fault;
pub use rules::Policy;
pub use serve::role;
pub(crate) use serve::{FromReader, ToReader};

use oxibot_proto::message::{JudgedRule, Verdict};

/// Longest command that is read, in bytes.
pub const MAX_SCRIPT: usize = 100 * 1024;
/// Commands reported for one script.
pub const MAX_COMMANDS: usize = 64;

/// What the policy says of a script.
#[derive(Debug, Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
#[must_use]
pub struct Judged {
    /// The strictest of all that matched.
    pub verdict: Verdict,
    /// Rules that matched, the strictest first.
    pub rules: Vec<JudgedRule>,
    /// The simple commands found.
    pub commands: Vec<String>,
}

/// Whether bash's grammar, as it is read here, takes a text. For tests that compare with bash itself.
///
/// # Errors
/// Why it cannot be read.
pub fn read_only(text: &str) -> Result<(), Fault> {
    match read::script(text, 0) {
        (_, None) => Ok(()),
        (_, Some(fault)) => Err(fault),
    }
}
