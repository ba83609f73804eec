//! What main and the toolhost say to each other.
//!
//! Bytes go in, messages come out: [`codec`] frames and limits, [`message`] names what can be said, [`state`] says
//! when it is legal, [`settings`] holds the configuration sections that both sides must read alike, [`facts`] what
//! `doctor` has tried for it, [`nearest`] guesses the name a slip meant, [`reach`] says which hosts a call may
//! reach, [`web`] which addresses are public, [`redact`] takes secrets out of text. Nothing here opens a socket, a file or a process, and no AI vendor's or chat vendor's vocabulary appears, so that the
//! crate can be fuzzed whole and carried by another transport.
#![forbid(unsafe_code)]

pub mod codec;
pub mod facts;
pub mod message;
pub mod nearest;
pub mod reach;
pub mod redact;
pub mod settings;
pub mod state;
pub mod view;
pub mod web;

/// Version of the wire. Both sides must name the same one in their first message; there is no negotiation.
pub const PROTOCOL_VERSION: u32 = 1;

/// First field of every hello, so that a stray client is told apart from an old one ("OXIB").
pub const MAGIC: u32 = 0x4f58_4942;
