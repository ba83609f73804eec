//! The address guard: which addresses and names of the outside a request may go to. Pure functions, no I/O.
//!
//! Only globally routable unicast passes. [`address`] judges what would be connected to, [`exception`] is what the
//! configuration allows beside that, [`name`] judges host names before anybody looks them up. Whoever connects judges
//! every address a name resolves to and connects to the judged address, never to the name. `url` (a feature, because of
//! the parser it takes) puts them together for a whole URL.

pub mod address;
pub mod exception;
pub mod name;
#[cfg(feature = "url")]
pub mod url;

pub use address::{judge_address, special_block};
pub use exception::{Exception, Exceptions};
pub use name::{HostName, judge_name};
#[cfg(feature = "url")]
pub use url::{Target, TargetHost, judge_redirect, judge_url};

use crate::message::Denial;

/// A refusal with the rule's id, as results carry it.
pub(crate) fn denial(rule: &str, reason: String, hint: &str) -> Denial {
    Denial { rule: rule.to_owned(), reason, hint: hint.to_owned() }
}
