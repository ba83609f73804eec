//! OpenAI-compatible chat completions: our vocabulary to and from that wire. No I/O, no retries.

mod decode;
mod encode;

pub(crate) use decode::OpenAiDecoder;
pub(crate) use encode::{encode, rounded};
