//! An answer out of the events of chat completions.
//!
//! Written to what services do and not only to what the reference says: Gemini sends tool calls without an index,
//! others repeat ids and names in each delta, send reasoning under four names, report errors inside a stream that
//! began with 200, and end without `[DONE]`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::model::{ModelReply, Part, Reasoning, StopReason, StreamEvent, TokenUsage, ToolCall};
use crate::provider::decode::{
    Emit, Flow, MAX_TOOL_CALLS, StreamFault, count, extend_arguments, fresh_id, parse,
};
use crate::provider::sse::SseEvent;

/// Most entries of `reasoning_details`, each of which goes back with every later request.
const MAX_DETAILS: usize = 4096;

/// Puts one answer together.
#[derive(Debug)]
pub(crate) struct OpenAiDecoder {
    provider: String,
    text: String,
    reasoning: String,
    details: Vec<Value>,
    calls: Vec<Draft>,
    finish: Option<String>,
    done: bool,
    usage: TokenUsage,
}

#[derive(Debug, Default)]
struct Draft {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Option<Value>,
}

impl OpenAiDecoder {
    pub(crate) fn new(provider: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            text: String::new(),
            reasoning: String::new(),
            details: Vec::new(),
            calls: Vec::new(),
            finish: None,
            done: false,
            usage: TokenUsage::default(),
        }
    }

    pub(crate) fn event(&mut self, event: &SseEvent, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        if event.data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(Flow::Ended);
        }
        self.chunk(&parse(event)?, emit)
    }

    pub(crate) fn whole(&mut self, mut body: Value, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        if let Some(choices) = body.get_mut("choices").and_then(Value::as_array_mut) {
            for choice in choices.iter_mut().filter_map(Value::as_object_mut) {
                if let Some(message) = choice.remove("message") {
                    choice.insert("delta".to_owned(), message);
                }
            }
        } else if fault_in(&body).is_none() {
            return Err(StreamFault::Garbage("JSON without `choices`".to_owned()));
        }
        self.chunk(&body, emit)?;
        Ok(Flow::Ended)
    }

    fn chunk(&mut self, chunk: &Value, emit: Emit<'_>) -> Result<Flow, StreamFault> {
        if let Some(fault) = fault_in(chunk) {
            return Err(fault);
        }
        for usage in [chunk.get("usage"), chunk.pointer("/x_groq/usage"), chunk.pointer("/choices/0/usage")] {
            if let Some(usage) = usage.filter(|usage| usage.is_object()) {
                self.usage = read_usage(usage);
            }
        }
        let Some(choice) = chunk.pointer("/choices/0") else { return Ok(self.flow()) };
        if let Some(delta) = choice.get("delta") {
            self.delta(delta, emit)?;
        }
        if let Some(reason) =
            choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty())
        {
            if matches!(reason, "error" | "network_error") {
                return Err(StreamFault::Vendor { status: 502, body: choice.clone() });
            }
            self.finish = Some(reason.to_owned());
        }
        Ok(self.flow())
    }

    fn flow(&self) -> Flow {
        if self.finish.is_some() { Flow::Whole } else { Flow::More }
    }

    fn delta(&mut self, delta: &Value, emit: Emit<'_>) -> Result<(), StreamFault> {
        let reasoning = ["reasoning_content", "reasoning"].iter().find_map(|name| delta.get(name)?.as_str());
        if let Some(reasoning) = reasoning {
            self.add_reasoning(reasoning, emit);
        }
        if let Some(details) = delta.get("reasoning_details").and_then(Value::as_array) {
            for detail in details {
                // The text is in `reasoning` as well where a vendor sends both.
                if reasoning.is_none()
                    && let Some(text) = detail.get("text").or(detail.get("summary")).and_then(Value::as_str)
                {
                    self.add_reasoning(text, emit);
                }
                self.add_detail(detail)?;
            }
        }
        match delta.get("content") {
            Some(Value::String(text)) => self.add_text(text, emit),
            Some(Value::Array(chunks)) => {
                for chunk in chunks {
                    self.content_chunk(chunk, emit);
                }
            }
            _ => {}
        }
        // A refusal in words is still what the model said to the person.
        if let Some(refusal) = delta.get("refusal").and_then(Value::as_str) {
            self.add_text(refusal, emit);
        }
        for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
            self.add_call(call, emit)?;
        }
        Ok(())
    }

    /// Mistral's reasoning models send content in typed chunks.
    fn content_chunk(&mut self, chunk: &Value, emit: Emit<'_>) {
        if let Some(text) = chunk.get("text").and_then(Value::as_str) {
            self.add_text(text, emit);
        }
        for thought in chunk.get("thinking").and_then(Value::as_array).into_iter().flatten() {
            if let Some(text) = thought.get("text").and_then(Value::as_str) {
                self.add_reasoning(text, emit);
            }
        }
    }

    fn add_text(&mut self, text: &str, emit: Emit<'_>) {
        if !text.is_empty() {
            self.text.push_str(text);
            emit(StreamEvent::Text(text.to_owned()));
        }
    }

    fn add_reasoning(&mut self, text: &str, emit: Emit<'_>) {
        if !text.is_empty() {
            self.reasoning.push_str(text);
            emit(StreamEvent::Reasoning(text.to_owned()));
        }
    }

    /// Entries come in pieces: those of one index and type that follow each other are one.
    fn add_detail(&mut self, detail: &Value) -> Result<(), StreamFault> {
        let Some(detail) = detail.as_object() else { return Ok(()) };
        if let Some(last) = self.details.last_mut().and_then(Value::as_object_mut)
            && last.get("type") == detail.get("type")
            && last.get("index") == detail.get("index")
            && detail.get("type").and_then(Value::as_str) != Some("reasoning.encrypted")
        {
            merge(last, detail);
            return Ok(());
        }
        if self.details.len() >= MAX_DETAILS {
            return Err(StreamFault::TooLarge { what: "reasoning entries", limit: MAX_DETAILS });
        }
        self.details.push(Value::Object(detail.clone()));
        Ok(())
    }

    fn add_call(&mut self, call: &Value, emit: Emit<'_>) -> Result<(), StreamFault> {
        let index = call.get("index").and_then(Value::as_u64);
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
        let name = call.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
        let position = self.position_of(index, id, name);
        if position.is_none() {
            if self.calls.len() >= MAX_TOOL_CALLS {
                return Err(StreamFault::TooLarge {
                    what: "tool calls of one answer",
                    limit: MAX_TOOL_CALLS,
                });
            }
            self.calls.push(Draft { index, id: id.to_owned(), ..Draft::default() });
        }
        let draft = match position {
            Some(at) => self.calls.get_mut(at),
            None => self.calls.last_mut(),
        };
        let Some(draft) = draft else { return Ok(()) };
        if draft.id.is_empty() {
            id.clone_into(&mut draft.id);
        }
        if draft.name.is_empty() && !name.is_empty() {
            draft.name = name.to_owned();
            emit(StreamEvent::ToolCall { name: name.to_owned() });
        }
        match call.pointer("/function/arguments") {
            Some(Value::String(text)) => extend_arguments(&mut draft.arguments, text)?,
            Some(object @ Value::Object(_)) => extend_arguments(&mut draft.arguments, &object.to_string())?,
            _ => {}
        }
        if let Some(extra) = call.get("extra_content").filter(|extra| extra.is_object()) {
            draft.extra.get_or_insert_with(|| extra.clone());
        }
        Ok(())
    }

    /// The call that a delta goes on with; none if it begins a new one.
    fn position_of(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let at = match index {
            Some(_) => self.calls.iter().rposition(|draft| draft.index == index)?,
            None if id.is_empty() && name.is_empty() => self.calls.len().checked_sub(1)?,
            None => return self.calls.iter().position(|draft| !id.is_empty() && draft.id == id),
        };
        let draft = self.calls.get(at)?;
        // Calls without ids under one index: a name after whole arguments begins the next one.
        if id.is_empty()
            && !name.is_empty()
            && !draft.name.is_empty()
            && serde_json::from_str::<Value>(&draft.arguments).is_ok()
        {
            return None;
        }
        // Another id under the same index is another call (Gemini and some gateways number them all 0).
        (id.is_empty() || draft.id.is_empty() || draft.id == id).then_some(at)
    }

    pub(crate) fn finish(self) -> Result<ModelReply, StreamFault> {
        let has_content = !self.text.is_empty() || !self.calls.is_empty();
        if self.finish.is_none() && !(self.done && has_content) {
            return Err(StreamFault::Truncated);
        }
        let stop = match self.finish.as_deref() {
            Some("length" | "max_tokens") => StopReason::Length,
            Some("content_filter" | "sensitive") => StopReason::Refusal,
            _ if self.calls.is_empty() => StopReason::EndTurn,
            _ => StopReason::ToolUse,
        };
        let mut seen = BTreeSet::new();
        let mut extras = Map::new();
        let mut calls = Vec::new();
        for draft in self.calls {
            let id = if draft.id.is_empty() || seen.contains(&draft.id) { fresh_id() } else { draft.id };
            if let Some(extra) = draft.extra {
                extras.insert(id.clone(), extra);
            }
            seen.insert(id.clone());
            calls.push(Part::ToolCall(ToolCall { id, name: draft.name, arguments: draft.arguments }));
        }
        let mut opaque = Map::new();
        if !self.details.is_empty() {
            opaque.insert("reasoning_details".to_owned(), Value::Array(self.details));
        }
        if !extras.is_empty() {
            opaque.insert("tool_extra".to_owned(), Value::Object(extras));
        }
        let mut parts = Vec::new();
        if !self.reasoning.is_empty() || !opaque.is_empty() {
            let opaque = (!opaque.is_empty()).then_some(Value::Object(opaque));
            parts.push(Part::Reasoning(Reasoning { text: self.reasoning, opaque, provider: self.provider }));
        }
        if !self.text.is_empty() {
            parts.push(Part::Text { text: self.text });
        }
        parts.extend(calls);
        Ok(ModelReply { parts, stop, usage: self.usage })
    }
}

fn merge(last: &mut Map<String, Value>, detail: &Map<String, Value>) {
    for (key, value) in detail {
        match (last.get_mut(key), value) {
            (_, Value::Null) => {}
            (Some(Value::String(old)), Value::String(new))
                if matches!(key.as_str(), "text" | "summary" | "data") =>
            {
                old.push_str(new);
            }
            _ => drop(last.insert(key.clone(), value.clone())),
        }
    }
}

/// An error inside a stream: OpenAI's shape with OpenRouter's numeric code, or MiniMax's `base_resp`.
fn fault_in(chunk: &Value) -> Option<StreamFault> {
    if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
        let code =
            error.get("code").and_then(Value::as_u64).or_else(|| error.get("status").and_then(Value::as_u64));
        let status = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
        return Some(StreamFault::Vendor { status: status.unwrap_or(502), body: chunk.clone() });
    }
    let code = chunk.pointer("/base_resp/status_code").and_then(Value::as_i64).filter(|code| *code != 0)?;
    let status = match code {
        1004 | 2049 => 401,
        1008 => 402,
        1002 | 1039 => 429,
        2013 => 400,
        _ => 502,
    };
    let message = chunk.pointer("/base_resp/status_msg").cloned().unwrap_or(Value::Null);
    Some(StreamFault::Vendor { status, body: json!({"error": {"message": message}}) })
}

fn read_usage(usage: &Value) -> TokenUsage {
    let first = |paths: &[&str]| paths.iter().find_map(|path| count(usage.pointer(path))).unwrap_or(0);
    let cost = usage.get("cost").and_then(Value::as_f64).map(|dollars| json!(dollars * 1e6));
    TokenUsage {
        input: first(&["/prompt_tokens", "/input_tokens"]),
        output: first(&["/completion_tokens", "/output_tokens"]),
        cache_read: first(&[
            "/prompt_tokens_details/cached_tokens",
            "/prompt_cache_hit_tokens",
            "/cached_tokens",
        ]),
        cache_write: first(&["/prompt_tokens_details/cache_write_tokens"]),
        cost_microusd: count(cost.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[Value]) -> Result<ModelReply, StreamFault> {
        let mut decoder = OpenAiDecoder::new("p");
        for chunk in chunks {
            let event = SseEvent { name: String::new(), data: chunk.to_string().into_bytes() };
            decoder.event(&event, &mut |_| {})?;
        }
        decoder.finish()
    }

    fn delta(delta: Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn end(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn calls(reply: &ModelReply) -> Vec<(String, String, String)> {
        reply
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::ToolCall(call) => Some((call.id.clone(), call.name.clone(), call.arguments.clone())),
                Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => None,
            })
            .collect()
    }

    fn function(index: Option<u64>, id: &str, name: &str, arguments: &str) -> Value {
        let mut call = json!({"function": {"name": name, "arguments": arguments}, "type": "function"});
        if let Some(index) = index {
            call["index"] = json!(index);
        }
        if !id.is_empty() {
            call["id"] = json!(id);
        }
        delta(json!({"tool_calls": [call]}))
    }

    #[test]
    fn interleaved_calls_are_put_together_by_index() {
        let reply = decode(&[
            function(Some(0), "a", "bash", "{\"x\""),
            function(Some(1), "b", "grep", "{"),
            function(Some(0), "", "", ":1}"),
            function(Some(1), "", "", "}"),
            end("tool_calls"),
        ])
        .unwrap();
        assert_eq!(reply.stop, StopReason::ToolUse);
        let expected = [("a", "bash", "{\"x\":1}"), ("b", "grep", "{}")];
        assert_eq!(calls(&reply), expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
    }

    #[test]
    fn calls_without_index_with_one_index_for_all_or_with_repeated_ids_stay_apart() {
        for indices in [[None, None], [Some(0), Some(0)]] {
            let reply = decode(&[
                function(indices[0], "a", "bash", "{\"x\":1}"),
                function(indices[1], "b", "bash", "{\"x\":2}"),
                end("stop"),
            ])
            .unwrap();
            assert_eq!(calls(&reply).len(), 2, "{indices:?}");
            assert_eq!(reply.stop, StopReason::ToolUse);
        }
        let reply = decode(&[
            function(Some(0), "a", "bash", "{"),
            function(Some(0), "a", "bash", "}"),
            function(Some(1), "a", "grep", "{}"),
            end("tool_calls"),
        ])
        .unwrap();
        let calls = calls(&reply);
        assert_eq!(calls[0], ("a".to_owned(), "bash".to_owned(), "{}".to_owned()));
        assert!(calls[1].0 != "a" && calls[1].1 == "grep", "{calls:?}");
    }

    #[test]
    fn malformed_arguments_are_kept_as_text() {
        let reply = decode(&[function(Some(0), "a", "bash", "{\"command\": rm"), end("tool_calls")]).unwrap();
        assert_eq!(calls(&reply)[0].2, "{\"command\": rm");
    }

    #[test]
    fn reasoning_under_any_name_and_its_opaque_parts_are_kept() {
        let reply = decode(&[
            delta(json!({"reasoning": "a", "reasoning_details":
                [{"type": "reasoning.text", "index": 0, "text": "a", "signature": null}]})),
            delta(json!({"reasoning": "b", "reasoning_details":
                [{"type": "reasoning.text", "index": 0, "text": "b", "signature": "s"}]})),
            delta(json!({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "x"}]})),
            delta(json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "c"}]},
                {"type": "text", "text": "hello"}]})),
            delta(json!({"tool_calls": [{"id": "a", "function": {"name": "bash", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "sig"}}}]})),
            end("stop"),
        ])
        .unwrap();
        let Part::Reasoning(reasoning) = &reply.parts[0] else { panic!("{reply:?}") };
        assert_eq!(reasoning.text, "abc");
        let opaque = reasoning.opaque.as_ref().unwrap();
        assert_eq!(
            opaque["reasoning_details"],
            json!([{"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
                {"type": "reasoning.encrypted", "index": 1, "data": "x"}])
        );
        assert_eq!(opaque["tool_extra"]["a"]["google"]["thought_signature"], "sig");
        assert_eq!(reply.parts[1], Part::Text { text: "hello".to_owned() });
    }

    #[test]
    fn usage_of_every_dialect_is_read() {
        let usage =
            |usage: Value| decode(&[end("stop"), json!({"choices": [], "usage": usage})]).unwrap().usage;
        let openai = usage(json!({"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.0015,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1}}));
        let expected =
            TokenUsage { input: 10, output: 2, cache_read: 4, cache_write: 1, cost_microusd: Some(1500) };
        assert_eq!(openai, expected);
        let deepseek = json!({"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_hit_tokens": 3});
        assert_eq!(usage(deepseek).cache_read, 3);
        assert_eq!(
            usage(json!({"prompt_tokens": -1, "completion_tokens": 1e300, "cost": -1})),
            TokenUsage::default()
        );
    }

    #[test]
    fn errors_inside_the_stream_are_faults_and_never_text() {
        let status = |chunk: Value| match decode(&[chunk]) {
            Err(StreamFault::Vendor { status, .. }) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status(json!({"error": {"code": 429, "message": "slow"}})), 429);
        assert_eq!(status(json!({"error": "boom"})), 502);
        assert_eq!(
            status(json!({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}})),
            402
        );
        assert_eq!(status(end("error")), 502);
        assert!(decode(&[json!({"base_resp": {"status_code": 0}}), end("stop")]).is_ok());
    }

    #[test]
    fn half_a_stream_is_truncated_and_a_length_stop_is_named() {
        assert_eq!(decode(&[delta(json!({"content": "hal"}))]), Err(StreamFault::Truncated));
        assert_eq!(decode(&[]), Err(StreamFault::Truncated));
        let cut = decode(&[function(Some(0), "a", "bash", "{\"c"), end("length")]).unwrap();
        assert_eq!(cut.stop, StopReason::Length);
    }

    #[test]
    fn tool_calls_and_arguments_are_bounded() {
        let many: Vec<Value> =
            (0..65).map(|n| function(Some(n), &format!("c{n}"), "bash", "{}")).chain([end("stop")]).collect();
        assert!(matches!(decode(&many), Err(StreamFault::TooLarge { limit: 64, .. })));
        let long = "x".repeat(1024 * 1024);
        let parts: Vec<Value> = (0..5).map(|_| function(Some(0), "a", "bash", &long)).collect();
        assert!(matches!(decode(&parts), Err(StreamFault::TooLarge { .. })));
    }

    #[test]
    fn answer_that_came_whole_is_read_too() {
        let mut decoder = OpenAiDecoder::new("p");
        let body = json!({"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]});
        decoder.whole(body, &mut |_| {}).unwrap();
        assert_eq!(decoder.finish().unwrap().parts, [Part::Text { text: "hi".to_owned() }]);
        let garbage = OpenAiDecoder::new("p").whole(json!({"hello": 1}), &mut |_| {});
        assert!(matches!(garbage, Err(StreamFault::Garbage(_))));
    }
}
