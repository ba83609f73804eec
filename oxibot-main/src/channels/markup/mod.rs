//! A model's Markdown in the words of a vendor.
//!
//! Addresses in pictures are dropped: a client that loads one tells whoever owns it, which is a way out for whatever the
//! model was talked into. Links stay links, because a person decides to follow them.

mod mail;
mod telegram;

pub use mail::{page, plain};
pub use telegram::html;
