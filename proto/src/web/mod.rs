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

use bincode::{Decode, Encode};

use crate::message::Denial;
use crate::settings::SearchProvider;

/// Longest URL, in bytes: what servers take, and no page is worth more.
pub const MAX_URL: usize = 8 * 1024;

/// What main leaves for the fetch worker, once, on a socket of their own: the search service and its key. Neither the
/// supervisor nor a request ever holds it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SearchService {
    /// Which service.
    pub provider: SearchProvider,
    /// Its address, where it is not the provider's own.
    pub base_url: Option<String>,
    /// Key for that address and no other.
    pub key: Option<String>,
    /// Results of one search unless it asks for another number.
    pub max_results: u32,
}

/// A refusal with the rule's id, as results carry it.
pub(crate) fn denial(rule: &str, reason: String, hint: &str) -> Denial {
    Denial { rule: rule.to_owned(), reason, hint: hint.to_owned() }
}
