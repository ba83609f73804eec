//! An answer out of the events of Anthropic messages.
//!
//! Unknown kinds of events, blocks and deltas are passed over, as the vendor's versioning policy asks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::model::{ModelReply, Part, Reasoning, StopReason, StreamEvent, TokenUsage, ToolCall};
use crate::provider::decode::{
    Emit, Flow, MAX_TOOL_CALLS, StreamFault, count, extend_arguments, fresh_id, parse,
};
use crate::provider::sse::SseEvent;

/// Most content blocks of one answer, whatever their kind.
const MAX_BLOCKS: usize = 1024;

/// Puts one answer together.
#[derive(Debug)]
pub(crate) struct AnthropicDecoder {
    provider: String,
    blocks: BTreeMap<u64, Block>,
    stop: Option<String>,
    stopped: bool,
    usage: Usage,
}

#[derive(Debug, Default)]
struct Usage {
    fresh: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    /// Encrypted by the vendor; goes back unchanged.
    Redacted(Value),
    ToolUse {
        id: String,
        name: String,
        arguments: String,
        whole: Option<Value>,
    },
    /// A kind we do not know.
    Other,
}

impl AnthropicDecoder {
    pub(crate) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            blocks: BTreeMap::new(),
            stop: None,
            stopped: false,
            usage: Usage::default(),
        }
    }

    pub(crate) fn event(&mut self, event: &SseEvent, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        let body = parse(event)?;
        match body.get("type").and_then(Value::as_str) {
            Some("message_start") => self.read_usage(body.pointer("/message/usage")),
            Some("content_block_start") => self.start(&body, emit)?,
            Some("content_block_delta") => self.delta(&body, emit)?,
            Some("message_delta") => {
                if let Some(stop) = body.pointer("/delta/stop_reason").and_then(Value::as_str) {
                    self.stop = Some(stop.to_owned());
                }
                self.read_usage(body.get("usage"));
            }
            Some("message_stop") => {
                self.stopped = true;
                return Ok(Flow::Ended);
            }
            Some("error") => return Err(StreamFault::Vendor { status: status_of(&body), body }),
            Some(_) => {}
            None => return Err(StreamFault::Garbage("an event without `type`".to_owned())),
        }
        Ok(Flow::More)
    }

    /// Numbers of a later event replace those of an earlier one: they are cumulative.
    fn read_usage(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage else { return };
        let read = |name: &str, slot: &mut u64| {
            if let Some(number) = count(usage.get(name)) {
                *slot = number;
            }
        };
        read("input_tokens", &mut self.usage.fresh);
        read("cache_read_input_tokens", &mut self.usage.cache_read);
        read("cache_creation_input_tokens", &mut self.usage.cache_write);
        read("output_tokens", &mut self.usage.output);
    }

    fn start(&mut self, body: &Value, emit: Emit<'_>) -> Result<(), StreamFault> {
        let index = index(body)?;
        let Some(block) = body.get("content_block") else {
            return Err(StreamFault::Garbage("a content block without content".to_owned()));
        };
        let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let started = match block.get("type").and_then(Value::as_str) {
            Some("text") => {
                let text = text("text");
                if !text.is_empty() {
                    emit(StreamEvent::Text(text.clone()));
                }
                Block::Text(text)
            }
            Some("thinking") => Block::Thinking { text: text("thinking"), signature: text("signature") },
            Some("redacted_thinking") => Block::Redacted(block.clone()),
            Some("tool_use") => {
                let calls =
                    self.blocks.values().filter(|block| matches!(block, Block::ToolUse { .. })).count();
                if calls >= MAX_TOOL_CALLS {
                    return Err(StreamFault::TooLarge {
                        what: "tool calls of one answer",
                        limit: MAX_TOOL_CALLS,
                    });
                }
                emit(StreamEvent::ToolCall { name: text("name") });
                let whole =
                    block.get("input").filter(|input| input.as_object().is_some_and(|map| !map.is_empty()));
                Block::ToolUse {
                    id: text("id"),
                    name: text("name"),
                    arguments: String::new(),
                    whole: whole.cloned(),
                }
            }
            _ => Block::Other,
        };
        if self.blocks.len() >= MAX_BLOCKS {
            return Err(StreamFault::TooLarge { what: "content blocks of one answer", limit: MAX_BLOCKS });
        }
        if self.blocks.insert(index, started).is_some() {
            return Err(StreamFault::Garbage("two content blocks with one index".to_owned()));
        }
        Ok(())
    }

    fn delta(&mut self, body: &Value, emit: Emit<'_>) -> Result<(), StreamFault> {
        let Some(block) = self.blocks.get_mut(&index(body)?) else {
            return Err(StreamFault::Garbage("a delta of a content block that did not begin".to_owned()));
        };
        let piece = |name: &str| body.get("delta").and_then(|delta| delta.get(name)).and_then(Value::as_str);
        match block {
            Block::Text(text) => {
                if let Some(more) = piece("text").filter(|more| !more.is_empty()) {
                    text.push_str(more);
                    emit(StreamEvent::Text(more.to_owned()));
                }
            }
            Block::Thinking { text, signature } => {
                if let Some(more) = piece("thinking").filter(|more| !more.is_empty()) {
                    text.push_str(more);
                    emit(StreamEvent::Reasoning(more.to_owned()));
                }
                signature.push_str(piece("signature").unwrap_or_default());
            }
            Block::ToolUse { arguments, .. } => {
                extend_arguments(arguments, piece("partial_json").unwrap_or_default())?;
            }
            Block::Redacted(_) | Block::Other => {}
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<ModelReply, StreamFault> {
        let (true, Some(stop)) = (self.stopped, self.stop.as_deref()) else {
            return Err(StreamFault::Truncated);
        };
        let provider = self.provider;
        let mut parts = Vec::new();
        for block in self.blocks.into_values() {
            match block {
                Block::Text(text) if text.is_empty() => {}
                Block::Text(text) => parts.push(Part::Text { text }),
                Block::Thinking { text, signature } => {
                    // Without its signature the vendor does not take a thought back.
                    let opaque = (!signature.is_empty())
                        .then(|| json!({"type": "thinking", "thinking": text, "signature": signature}));
                    parts.push(Part::Reasoning(Reasoning { text, opaque, provider: provider.clone() }));
                }
                Block::Redacted(block) => parts.push(Part::Reasoning(Reasoning {
                    text: String::new(),
                    opaque: Some(block),
                    provider: provider.clone(),
                })),
                Block::ToolUse { id, name, arguments, whole } => {
                    let arguments = match whole {
                        Some(whole) if arguments.is_empty() => whole.to_string(),
                        _ if arguments.is_empty() => Value::Object(Map::new()).to_string(),
                        _ => arguments,
                    };
                    let id = if id.is_empty() { fresh_id() } else { id };
                    parts.push(Part::ToolCall(ToolCall { id, name, arguments }));
                }
                Block::Other => {}
            }
        }
        let stop = match stop {
            "tool_use" => StopReason::ToolUse,
            "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
            "refusal" => StopReason::Refusal,
            _ => StopReason::EndTurn,
        };
        let usage = TokenUsage {
            input: self
                .usage
                .fresh
                .saturating_add(self.usage.cache_read)
                .saturating_add(self.usage.cache_write),
            output: self.usage.output,
            cache_read: self.usage.cache_read,
            cache_write: self.usage.cache_write,
            cost_microusd: None,
        };
        Ok(ModelReply { parts, stop, usage })
    }
}

fn index(body: &Value) -> Result<u64, StreamFault> {
    body.get("index")
        .and_then(Value::as_u64)
        .ok_or_else(|| StreamFault::Garbage("a content block without index".to_owned()))
}

/// The status an error of this type would have had before the stream began.
fn status_of(body: &Value) -> u16 {
    match body.pointer("/error/type").and_then(Value::as_str) {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(events: &[Value]) -> Result<ModelReply, StreamFault> {
        let mut decoder = AnthropicDecoder::new("anthropic");
        for event in events {
            decoder.event(
                &SseEvent { name: String::new(), data: event.to_string().into_bytes() },
                &mut |_| {},
            )?;
        }
        decoder.finish()
    }

    fn start(index: u64, block: Value) -> Value {
        json!({"type": "content_block_start", "index": index, "content_block": block})
    }

    fn delta(index: u64, delta: Value) -> Value {
        json!({"type": "content_block_delta", "index": index, "delta": delta})
    }

    fn end(reason: &str) -> [Value; 2] {
        [
            json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}}),
            json!({"type": "message_stop"}),
        ]
    }

    #[test]
    fn thinking_text_and_calls_are_put_together_in_order() {
        let mut events = vec![
            json!({"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1,
                "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3}}}),
            start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "sig"})),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "ping"}),
            json!({"type": "a_kind_of_next_year"}),
            start(1, json!({"type": "redacted_thinking", "data": "zzz"})),
            start(2, json!({"type": "text", "text": ""})),
            delta(2, json!({"type": "text_delta", "text": "hel"})),
            delta(2, json!({"type": "text_delta", "text": "lo"})),
            start(3, json!({"type": "tool_use", "id": "t1", "name": "bash", "input": {}})),
            delta(3, json!({"type": "input_json_delta", "partial_json": "{\"command\""})),
            delta(3, json!({"type": "input_json_delta", "partial_json": ":\"ls\"}"})),
            start(4, json!({"type": "tool_use", "id": "t2", "name": "list_dir", "input": {}})),
            start(5, json!({"type": "a_block_of_next_year"})),
        ];
        events.extend(end("tool_use"));
        let reply = decode(&events).unwrap();
        assert_eq!(reply.stop, StopReason::ToolUse);
        let expected =
            TokenUsage { input: 28, output: 7, cache_read: 20, cache_write: 3, cost_microusd: None };
        assert_eq!(reply.usage, expected);
        let opaque: Vec<_> = reply
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Reasoning(reasoning) => reasoning.opaque.clone(),
                Part::Text { .. } | Part::Image { .. } | Part::ToolCall(_) | Part::ToolResult(_) => None,
            })
            .collect();
        assert_eq!(
            opaque,
            [
                json!({"type": "thinking", "thinking": "hm", "signature": "sig"}),
                json!({"type": "redacted_thinking", "data": "zzz"})
            ]
        );
        assert_eq!(reply.parts[2], Part::Text { text: "hello".to_owned() });
        let call = |id: &str, name: &str, arguments: &str| {
            Part::ToolCall(ToolCall {
                id: id.to_owned(),
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            })
        };
        assert_eq!(reply.parts[3], call("t1", "bash", "{\"command\":\"ls\"}"));
        assert_eq!(reply.parts[4], call("t2", "list_dir", "{}"));
    }

    #[test]
    fn stream_without_its_end_is_truncated() {
        let events = [start(0, json!({"type": "text", "text": "hal"})), end("end_turn")[0].clone()];
        assert_eq!(decode(&events), Err(StreamFault::Truncated));
    }

    #[test]
    fn errors_and_broken_order_are_faults() {
        let overloaded =
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
        assert!(matches!(decode(&[overloaded]), Err(StreamFault::Vendor { status: 529, .. })));
        for broken in
            [delta(0, json!({"text": "x"})), json!({"index": 0}), json!({"type": "content_block_start"})]
        {
            assert!(matches!(decode(&[broken]), Err(StreamFault::Garbage(_))));
        }
        let twice = [start(0, json!({"type": "text"})), start(0, json!({"type": "text"}))];
        assert!(matches!(decode(&twice), Err(StreamFault::Garbage(_))));
    }

    #[test]
    fn tool_calls_are_bounded() {
        let events: Vec<Value> =
            (0..65).map(|n| start(n, json!({"type": "tool_use", "id": "t", "name": "bash"}))).collect();
        assert!(matches!(decode(&events), Err(StreamFault::TooLarge { limit: 64, .. })));
    }
}
