//! A request in the form of Anthropic messages.

use serde_json::{Map, Value, json};

use crate::model::{Message, ModelRequest, Part, Role};
use crate::provider::adapt::Adaptation;
use crate::provider::history::{History, argument_object, wire_id};
use crate::provider::openai::rounded;
use crate::provider::presets::IdRule;

/// Smallest thinking budget the API takes.
const LEAST_BUDGET: u32 = 1024;

/// The body of the request. `provider` is the configured name: reasoning goes back only to who produced it.
pub(crate) fn encode(request: &ModelRequest, provider: &str, adaptation: Adaptation) -> Value {
    let history = History::repaired(&request.messages);
    let mut turns: Vec<Turn> = Vec::new();
    for message in &history.messages {
        let role = match message.role {
            Role::Assistant => "assistant",
            Role::User | Role::Tool | Role::System => "user",
        };
        let blocks = blocks(message, provider);
        if blocks.is_empty() {
            continue;
        }
        match turns.last_mut() {
            // Roles must alternate: results of several calls, and what the person adds, are one message.
            Some(last) if last.role == role => last.blocks.extend(blocks),
            _ => turns.push(Turn { role, blocks }),
        }
    }
    if turns.first().is_some_and(|turn| turn.role == "assistant") {
        let blocks =
            vec![json!({"type": "text", "text": "(The beginning of the conversation was left out.)"})];
        turns.insert(0, Turn { role: "user", blocks });
    }
    for turn in turns.iter_mut().filter(|turn| turn.role == "user") {
        // Results must come first in the message that answers the calls.
        turn.blocks.sort_by_key(|block| block.get("type").is_some_and(|kind| kind != "tool_result"));
    }
    let thinking = thinking(request, &turns, adaptation);
    if let Some(block) = turns.last_mut().and_then(|turn| turn.blocks.last_mut()) {
        mark(block);
    }

    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("stream".to_owned(), json!(true));
    if !history.system.trim().is_empty() {
        let mut block = json!({"type": "text", "text": history.system});
        mark(&mut block);
        body.insert("system".to_owned(), json!([block]));
    }
    let messages = turns.into_iter().map(|turn| json!({"role": turn.role, "content": turn.blocks}));
    body.insert("messages".to_owned(), messages.collect());
    if !request.tools.is_empty() {
        let mut tools: Vec<Value> = request
            .tools
            .iter()
            .map(|tool| {
                json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters})
            })
            .collect();
        tools.last_mut().map(mark);
        body.insert("tools".to_owned(), Value::Array(tools));
    }
    let mut max_tokens = request.max_tokens;
    let mut temperature = request.temperature.filter(|_| !adaptation.no_temperature);
    match thinking {
        Thinking::None => {}
        Thinking::Adaptive(effort) => {
            body.insert("thinking".to_owned(), json!({"type": "adaptive"}));
            body.insert("output_config".to_owned(), json!({"effort": effort}));
            temperature = None;
        }
        Thinking::Budget(budget) => {
            body.insert("thinking".to_owned(), json!({"type": "enabled", "budget_tokens": budget}));
            // The budget counts against max_tokens: what was asked for is what the answer itself may take.
            max_tokens = max_tokens.saturating_add(budget);
            temperature = None;
        }
    }
    body.insert("max_tokens".to_owned(), json!(max_tokens));
    if let Some(temperature) = temperature {
        // Other vendors take up to 2.
        body.insert("temperature".to_owned(), rounded(temperature.clamp(0.0, 1.0)));
    }
    Value::Object(body)
}

#[derive(Debug)]
struct Turn {
    role: &'static str,
    blocks: Vec<Value>,
}

enum Thinking {
    None,
    Adaptive(String),
    Budget(u32),
}

/// How to ask for thinking: newer models choose the amount themselves, up to 4.5 it is a budget of tokens. A wrong
/// guess is answered with a refusal, and [`Adaptation`] then turns it round.
fn thinking(request: &ModelRequest, turns: &[Turn], adaptation: Adaptation) -> Thinking {
    let Some(effort) = request.reasoning_effort.as_ref().filter(|_| !adaptation.no_effort) else {
        return Thinking::None;
    };
    if takes_budget(&request.model) == adaptation.other_thinking {
        return Thinking::Adaptive(effort.clone());
    }
    // With a budget, a tool call under way must begin with the thinking that led to it; a call made by another vendor
    // (a fallback in the middle of a turn) has none, and the request would be refused.
    let under_way = turns.iter().rfind(|turn| turn.role == "assistant");
    let calls_without_thinking = under_way.is_some_and(|turn| {
        let has = |kinds: &[&str]| {
            turn.blocks.iter().any(|block| {
                block.get("type").and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind))
            })
        };
        has(&["tool_use"]) && !has(&["thinking", "redacted_thinking"])
    });
    if calls_without_thinking {
        return Thinking::None;
    }
    Thinking::Budget(match effort.as_str() {
        "low" | "minimal" => LEAST_BUDGET,
        "medium" => 8 * LEAST_BUDGET,
        _ => 24 * LEAST_BUDGET,
    })
}

/// `claude-3-7-sonnet…`, `claude-sonnet-4-20250514`, `claude-opus-4-1-…`, `claude-haiku-4-5`.
fn takes_budget(model: &str) -> bool {
    let numbers: Vec<u32> = model
        .split(['-', '.', '@'])
        .filter_map(|word| word.parse().ok())
        .filter(|number| *number < 100)
        .collect();
    match numbers.as_slice() {
        [major, ..] if *major < 4 => true,
        [4, minor, ..] => *minor <= 5,
        [4] => true,
        _ => false,
    }
}

fn blocks(message: &Message, provider: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    for part in &message.parts {
        match part {
            // Blocks without text are refused, and so is text of white space alone.
            Part::Text { text } if text.trim().is_empty() => {}
            Part::Text { text } => blocks.push(json!({"type": "text", "text": text})),
            Part::Image { media_type, data } => blocks.push(json!({
                "type": "image", "source": {"type": "base64", "media_type": media_type, "data": data},
            })),
            Part::Reasoning(reasoning) => {
                if reasoning.provider == provider
                    && let Some(block) = reasoning.opaque.as_ref().filter(|block| block.get("type").is_some())
                {
                    blocks.push(block.clone());
                }
            }
            Part::ToolCall(call) => blocks.push(json!({
                "type": "tool_use", "id": wire_id(&call.id, IdRule::Plain), "name": call.name,
                "input": argument_object(&call.arguments),
            })),
            Part::ToolResult(answer) => {
                let text = if answer.text.trim().is_empty() { "(no output)" } else { &answer.text };
                let mut block = json!({
                    "type": "tool_result", "tool_use_id": wire_id(&answer.id, IdRule::Plain), "content": text,
                });
                if let (true, Some(object)) = (answer.is_error, block.as_object_mut()) {
                    object.insert("is_error".to_owned(), json!(true));
                }
                blocks.push(block);
            }
        }
    }
    blocks
}

/// Keeps the prefix up to here in the vendor's cache. Three marks of the four allowed: tools, system, last message.
fn mark(block: &mut Value) {
    let is_thinking = block
        .get("type")
        .and_then(Value::as_str)
        .is_some_and(|kind| matches!(kind, "thinking" | "redacted_thinking"));
    if let (false, Some(object)) = (is_thinking, block.as_object_mut()) {
        object.insert("cache_control".to_owned(), json!({"type": "ephemeral"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OfferedTool, Reasoning, ToolAnswer, ToolCall};

    fn request(model: &str, messages: Vec<Message>) -> ModelRequest {
        ModelRequest {
            model: model.to_owned(),
            messages,
            tools: vec![OfferedTool {
                name: "bash".to_owned(),
                description: "run".to_owned(),
                parameters: json!({"type": "object"}),
            }],
            max_tokens: 100,
            temperature: Some(1.5),
            reasoning_effort: None,
        }
    }

    fn call(id: &str, arguments: &str) -> Part {
        Part::ToolCall(ToolCall {
            id: id.to_owned(),
            name: "bash".to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    fn result(id: &str, text: &str, is_error: bool) -> Part {
        Part::ToolResult(ToolAnswer {
            id: id.to_owned(),
            name: "bash".to_owned(),
            text: text.to_owned(),
            is_error,
        })
    }

    fn thought(provider: &str) -> Part {
        Part::Reasoning(Reasoning {
            text: "hm".to_owned(),
            opaque: Some(json!({"type": "thinking", "thinking": "hm", "signature": "s"})),
            provider: provider.to_owned(),
        })
    }

    fn working(provider: &str) -> Vec<Message> {
        vec![
            Message::text(Role::System, "be brief"),
            Message::text(Role::User, "go"),
            Message {
                role: Role::Assistant,
                parts: vec![thought(provider), call("a", "{\"x\":1}"), call("b:1", "nonsense")],
            },
            Message { role: Role::Tool, parts: vec![result("a", " ", false)] },
            Message { role: Role::Tool, parts: vec![result("b:1", "bad", true)] },
            Message::text(Role::User, "and now?"),
        ]
    }

    #[test]
    fn conversation_becomes_alternating_messages_with_results_first() {
        let body = encode(&request("claude-x", working("anthropic")), "anthropic", Adaptation::default());
        let messages = body["messages"].as_array().unwrap();
        let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "user"]);
        assert_eq!(
            messages[1]["content"][0],
            json!({"type": "thinking", "thinking": "hm", "signature": "s"})
        );
        assert_eq!(messages[1]["content"][1]["input"], json!({"x": 1}));
        assert_eq!(messages[1]["content"][2]["input"], json!({"_malformed_arguments": "nonsense"}));
        let answers = messages[2]["content"].as_array().unwrap();
        assert_eq!(answers[0]["content"], "(no output)");
        assert_eq!(answers[1]["tool_use_id"], messages[1]["content"][2]["id"]);
        assert_eq!(answers[1]["is_error"], true);
        assert_eq!(answers[2]["text"], "and now?");
        assert_eq!(body["temperature"], 1.0);
    }

    #[test]
    fn system_tools_and_last_message_are_marked_for_the_cache() {
        let body = encode(&request("claude-x", working("anthropic")), "anthropic", Adaptation::default());
        for path in ["/system/0", "/tools/0", "/messages/2/content/2"] {
            assert_eq!(body.pointer(path).unwrap()["cache_control"], json!({"type": "ephemeral"}), "{path}");
        }
        assert_eq!(body.to_string().matches("cache_control").count(), 3);
    }

    #[test]
    fn thinking_of_others_is_left_out_and_the_first_message_is_the_users() {
        let mut messages = working("openrouter");
        messages.remove(1);
        let body = encode(&request("claude-x", messages), "anthropic", Adaptation::default());
        assert_eq!(body["messages"][0]["role"], "user");
        assert_eq!(body["messages"][1]["content"][0]["type"], "tool_use");
    }

    #[test]
    fn thinking_is_asked_for_in_the_way_of_the_model() {
        let ask = |model: &str, provider: &str, adaptation: Adaptation| {
            let mut request = request(model, working(provider));
            request.reasoning_effort = Some("low".to_owned());
            encode(&request, "anthropic", adaptation)
        };
        let old = ask("claude-sonnet-4-5-20250929", "anthropic", Adaptation::default());
        assert_eq!(old["thinking"], json!({"type": "enabled", "budget_tokens": 1024}));
        assert_eq!(old["max_tokens"], 1124);
        assert!(old.get("temperature").is_none());
        let new = ask("claude-opus-4-7", "anthropic", Adaptation::default());
        assert_eq!(new["thinking"], json!({"type": "adaptive"}));
        assert_eq!(new["output_config"], json!({"effort": "low"}));
        let turned = Adaptation { other_thinking: true, ..Adaptation::default() };
        assert_eq!(ask("claude-opus-4-7", "anthropic", turned)["thinking"]["type"], "enabled");
        let foreign = ask("claude-sonnet-4-5", "deepseek", Adaptation::default());
        assert!(foreign.get("thinking").is_none(), "a call by another vendor has no thinking before it");
    }

    #[test]
    fn models_up_to_4_5_take_a_budget() {
        for old in [
            "claude-3-7-sonnet-20250219",
            "claude-sonnet-4-20250514",
            "claude-opus-4-1",
            "claude-haiku-4-5-20251001",
        ] {
            assert!(takes_budget(old), "{old}");
        }
        for new in ["claude-opus-4-6", "claude-sonnet-5", "claude-mythos-preview", "claude-opus-4.7"] {
            assert!(!takes_budget(new), "{new}");
        }
    }
}
