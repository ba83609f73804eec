//! Anthropic messages: our vocabulary to and from that wire. No I/O, no retries.

mod decode;
mod encode;

pub(crate) use decode::AnthropicDecoder;
pub(crate) use encode::encode;
