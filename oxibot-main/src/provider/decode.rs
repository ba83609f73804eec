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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// JSON made of the words both formats use, in shapes they do not.
    fn hostile() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "type",
            "index",
            "delta",
            "choices",
            "error",
            "code",
            "usage",
            "content",
            "text",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "id",
            "content_block",
            "content_block_start",
            "content_block_delta",
            "message_delta",
            "stop_reason",
            "tool_use",
            "thinking",
            "reasoning_details",
            "finish_reason",
            "base_resp",
            "status_code",
            "message_stop",
            "extra_content",
            "input",
            "cost",
            "partial_json",
            "",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..5).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn hostile_events_never_panic(events in prop::collection::vec(hostile(), 1..6), whole in hostile()) {
            let decoders = || [
                Decoder::OpenAi(OpenAiDecoder::new("p")),
                Decoder::Anthropic(AnthropicDecoder::new("p")),
            ];
            for mut decoder in decoders() {
                for event in &events {
                    for body in [event.clone(), json!({"choices": [{"delta": event}]}), json!({"type": "content_block_start", "index": 0, "content_block": event})] {
                        let event = SseEvent { name: String::new(), data: body.to_string().into_bytes() };
                        drop(decoder.event(&event, &mut |_| {}));
                    }
                }
                drop(decoder.finish());
            }
            for mut decoder in decoders() {
                drop(decoder.whole(whole.clone(), &mut |_| {}));
                drop(decoder.finish());
            }
        }
    }
}
