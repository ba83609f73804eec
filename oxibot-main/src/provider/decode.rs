//! What both wire formats share when an answer is put together: faults, bounds and ids of tool calls.

use std::hash::{BuildHasher, RandomState};

use serde_json::Value;

use crate::model::{ModelReply, StreamEvent};

use super::anthropic::AnthropicDecoder;
use super::openai::OpenAiDecoder;
use super::sse::SseEvent;

/// Most tool calls of one reply: a model in a loop must not fill memory or the conversation.
pub(crate) const MAX_TOOL_CALLS: usize = 64;

/// Most bytes of one call's arguments. Above what any tool takes, so that the tool gives the better refusal.
pub(crate) const MAX_ARGUMENTS: usize = 4 * 1024 * 1024;

/// Most bytes of one whole answer on the wire.
pub(crate) const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Why an answer cannot be put together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum StreamFault {
    /// Not what the format says.
    Garbage(String),
    /// Beyond a bound.
    TooLarge { what: &'static str, limit: usize },
    /// Ended before it was whole.
    Truncated,
    /// The vendor reported an error inside the stream; the status is the one it stands for.
    Vendor { status: u16, body: Value },
}

/// Whether more of the answer is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Read on.
    More,
    /// The answer is whole; what may follow is bookkeeping that need not come.
    Whole,
    /// The vendor said that nothing follows.
    Ended,
}

/// Receives what streams in.
pub(crate) type Emit<'a> = &'a mut (dyn FnMut(StreamEvent) + Send);

/// A decoder of either wire format.
#[derive(Debug)]
pub(crate) enum Decoder {
    OpenAi(OpenAiDecoder),
    Anthropic(AnthropicDecoder),
}

impl Decoder {
    pub(crate) fn event(&mut self, event: &SseEvent, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        match self {
            Self::OpenAi(decoder) => decoder.event(event, emit),
            Self::Anthropic(decoder) => decoder.event(event, emit),
        }
    }

    /// Takes an answer that came whole although a stream was asked for, as some gateways do.
    pub(crate) fn whole(&mut self, body: Value, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        match self {
            Self::OpenAi(decoder) => decoder.whole(body, emit),
            Self::Anthropic(_) => Err(StreamFault::Garbage("an answer that is no event stream".to_owned())),
        }
    }

    pub(crate) fn finish(self) -> Result<ModelReply, StreamFault> {
        match self {
            Self::OpenAi(decoder) => decoder.finish(),
            Self::Anthropic(decoder) => decoder.finish(),
        }
    }
}

/// Reads the JSON of an event. `serde_json` bounds the depth itself.
pub(crate) fn parse(event: &SseEvent) -> Result<Value, StreamFault> {
    match serde_json::from_slice(&event.data) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        Ok(_) => Err(StreamFault::Garbage("an event of the stream is no JSON object".to_owned())),
        Err(error) => Err(StreamFault::Garbage(format!("an event of the stream is no JSON ({error})"))),
    }
}

/// Adds to the arguments of a call, within the bound.
pub(crate) fn extend_arguments(arguments: &mut String, more: &str) -> Result<(), StreamFault> {
    if arguments.len() + more.len() > MAX_ARGUMENTS {
        return Err(StreamFault::TooLarge { what: "bytes of a tool call's arguments", limit: MAX_ARGUMENTS });
    }
    arguments.push_str(more);
    Ok(())
}

/// An id for a call whose vendor sent none, or one twice. Random, because ids of one conversation must differ.
pub(crate) fn fresh_id() -> String {
    format!("call_{:016x}", random())
}

/// Random enough for ids and jitter: the standard library seeds each hasher anew from the system's entropy.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A number of tokens or of anything else, whatever JSON number it came as.
pub(crate) fn count(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
        (number.is_finite() && (0.0..1e15).contains(&number)).then_some(number.round() as u64)
    })
}
