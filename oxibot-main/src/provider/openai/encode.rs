//! A request in the form of chat completions.

use serde_json::{Map, Value, json};

use crate::model::{Message, ModelRequest, Part, Reasoning, Role, ToolAnswer};
use crate::provider::adapt::Adaptation;
use crate::provider::history::{History, argument_object, wire_id};
use crate::provider::presets::{EffortField, Preset, ReasoningEcho};

/// The body of the request. `provider` is the configured name: reasoning goes back only to who produced it.
pub(crate) fn encode(
    request: &ModelRequest,
    preset: &Preset,
    provider: &str,
    adaptation: Adaptation,
) -> Value {
    let history = History::repaired(&request.messages);
    let mut messages = Vec::new();
    if !history.system.trim().is_empty() {
        messages.push(json!({"role": "system", "content": history.system}));
    }
    let mut images = Vec::new();
    for message in &history.messages {
        if message.role == Role::Tool {
            tool_messages(message, preset, &mut messages, &mut images);
            continue;
        }
        flush_images(&mut images, &mut messages);
        match message.role {
            Role::Assistant => messages.extend(assistant_message(message, preset, provider)),
            Role::User => messages.extend(user_message(message)),
            Role::System | Role::Tool => {}
        }
    }
    flush_images(&mut images, &mut messages);
    if preset.name == "openrouter" && request.model.starts_with("anthropic/") {
        mark_for_cache(&mut messages);
    }

    let mut body = Map::new();
    body.insert("model".to_owned(), json!(request.model));
    body.insert("messages".to_owned(), Value::Array(messages));
    body.insert("stream".to_owned(), json!(true));
    if preset.stream_options && !adaptation.no_stream_options {
        body.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    let tokens_field = if preset.completion_tokens_field == adaptation.other_tokens_field {
        "max_tokens"
    } else {
        "max_completion_tokens"
    };
    body.insert(tokens_field.to_owned(), json!(request.max_tokens));
    if let Some(temperature) = request.temperature.filter(|_| !adaptation.no_temperature) {
        body.insert("temperature".to_owned(), rounded(temperature));
    }
    if let Some(effort) = request.reasoning_effort.as_ref().filter(|_| !adaptation.no_effort) {
        match preset.effort {
            EffortField::None => {}
            EffortField::ReasoningEffort => {
                body.insert("reasoning_effort".to_owned(), json!(effort));
            }
            EffortField::ReasoningObject => {
                body.insert("reasoning".to_owned(), json!({"effort": effort}));
            }
        }
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            json!({"type": "function", "function":
                {"name": tool.name, "description": tool.description, "parameters": tool.parameters}})
        });
        body.insert("tools".to_owned(), tools.collect());
    }
    match preset.name {
        // The price of the request in the last chunk.
        "openrouter" => drop(body.insert("usage".to_owned(), json!({"include": true}))),
        // Without it the reasoning comes inside the text, in <think> tags.
        "minimax" => drop(body.insert("reasoning_split".to_owned(), json!(true))),
        _ => {}
    }
    Value::Object(body)
}

/// `0.7`, not `0.699999988079071`: some vendors bound the number of digits.
pub(crate) fn rounded(temperature: f32) -> Value {
    json!((f64::from(temperature) * 1000.0).round() / 1000.0)
}

fn tool_messages(message: &Message, preset: &Preset, out: &mut Vec<Value>, images: &mut Vec<Value>) {
    for part in &message.parts {
        match part {
            Part::ToolResult(ToolAnswer { id, text, .. }) => out.push(json!({
                "role": "tool", "tool_call_id": wire_id(id, preset.ids), "content": text,
            })),
            Part::Image { media_type, data } => images.push(image(media_type, data)),
            Part::Text { .. } | Part::Reasoning(_) | Part::ToolCall(_) => {}
        }
    }
}

/// A tool message holds text only, and results must follow their calls unbroken: images come after the last of them.
fn flush_images(images: &mut Vec<Value>, out: &mut Vec<Value>) {
    if !images.is_empty() {
        out.push(json!({"role": "user", "content": std::mem::take(images)}));
    }
}

fn image(media_type: &str, data: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": format!("data:{media_type};base64,{data}")}})
}

fn user_message(message: &Message) -> Option<Value> {
    let mut content = Vec::new();
    let mut has_image = false;
    for part in &message.parts {
        match part {
            Part::Text { text } if !text.is_empty() => content.push(json!({"type": "text", "text": text})),
            Part::Image { media_type, data } => {
                has_image = true;
                content.push(image(media_type, data));
            }
            Part::Text { .. } | Part::Reasoning(_) | Part::ToolCall(_) | Part::ToolResult(_) => {}
        }
    }
    if content.is_empty() {
        return None;
    }
    // Plain text as a string: some local servers know nothing else. Parts stay apart: one may be the user's and the next
    // a note of ours.
    let content = if has_image {
        Value::Array(content)
    } else {
        let texts: Vec<&str> = content.iter().filter_map(|part| part.get("text")?.as_str()).collect();
        json!(texts.join("\n\n"))
    };
    Some(json!({"role": "user", "content": content}))
}

fn assistant_message(message: &Message, preset: &Preset, provider: &str) -> Option<Value> {
    let reasoning: Vec<&Reasoning> = message
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Reasoning(reasoning) if reasoning.provider == provider => Some(reasoning),
            Part::Reasoning(_)
            | Part::Text { .. }
            | Part::Image { .. }
            | Part::ToolCall(_)
            | Part::ToolResult(_) => None,
        })
        .collect();
    let opaque = |key: &str| reasoning.iter().find_map(|block| block.opaque.as_ref()?.get(key));
    let tool_extra = opaque("tool_extra");
    let calls: Vec<Value> = crate::provider::history::calls(message)
        .map(|call| {
            // Text that is an object already goes back unchanged, so that the vendor's cache still matches.
            let arguments = match serde_json::from_str::<Map<String, Value>>(&call.arguments) {
                Ok(_) => call.arguments.clone(),
                Err(_) => Value::Object(argument_object(&call.arguments)).to_string(),
            };
            let mut wire = json!({
                "id": wire_id(&call.id, preset.ids), "type": "function",
                "function": {"name": call.name, "arguments": arguments},
            });
            if let (Some(extra), Some(object)) =
                (tool_extra.and_then(|extra| extra.get(&call.id)), wire.as_object_mut())
            {
                object.insert("extra_content".to_owned(), extra.clone());
            }
            wire
        })
        .collect();
    let text = message.joined_text();
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    let mut wire = Map::new();
    wire.insert("role".to_owned(), json!("assistant"));
    wire.insert("content".to_owned(), if text.is_empty() { Value::Null } else { json!(text) });
    if !calls.is_empty() {
        wire.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    let reasoning_text = reasoning.iter().map(|block| block.text.as_str()).collect::<String>();
    match preset.echo {
        ReasoningEcho::Never => {}
        ReasoningEcho::Content if !reasoning_text.is_empty() => {
            wire.insert("reasoning_content".to_owned(), json!(reasoning_text));
        }
        ReasoningEcho::Plain if !reasoning_text.is_empty() => {
            wire.insert("reasoning".to_owned(), json!(reasoning_text));
        }
        ReasoningEcho::Content | ReasoningEcho::Plain => {}
        ReasoningEcho::Details => {
            if let Some(details) = opaque("reasoning_details") {
                wire.insert("reasoning_details".to_owned(), details.clone());
            }
        }
    }
    Some(Value::Object(wire))
}

/// Anthropic's prompt cache behind OpenRouter: the prefix up to each mark is kept. Marked are the system message (with
/// the tools before it) and the last message that has text.
fn mark_for_cache(messages: &mut [Value]) {
    let last = messages.iter().rposition(|message| message.get("content").is_some_and(Value::is_string));
    for (at, message) in messages.iter_mut().enumerate() {
        let is_system = message.get("role").is_some_and(|role| role == "system");
        if !is_system && Some(at) != last {
            continue;
        }
        let Some(content) = message.get_mut("content") else { continue };
        if let Some(text) = content.as_str().filter(|text| !text.is_empty()) {
            *content = json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OfferedTool, ToolCall};
    use crate::provider::presets::preset;

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
            temperature: Some(0.7),
            reasoning_effort: Some("low".to_owned()),
        }
    }

    fn conversation(provider: &str) -> Vec<Message> {
        vec![
            Message::text(Role::System, "be brief"),
            Message {
                role: Role::User,
                parts: vec![
                    Part::Text { text: "look".to_owned() },
                    Part::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() },
                ],
            },
            Message {
                role: Role::Assistant,
                parts: vec![
                    Part::Reasoning(Reasoning {
                        text: "hm".to_owned(),
                        opaque: Some(json!({
                            "reasoning_details": [{"type": "reasoning.text", "text": "hm"}],
                            "tool_extra": {"call.1": {"google": {"thought_signature": "sig"}}},
                        })),
                        provider: provider.to_owned(),
                    }),
                    Part::ToolCall(ToolCall {
                        id: "call.1".to_owned(),
                        name: "bash".to_owned(),
                        arguments: "{\"command\": ".to_owned(),
                    }),
                ],
            },
            Message {
                role: Role::Tool,
                parts: vec![
                    Part::Image { media_type: "image/png".to_owned(), data: "BBBB".to_owned() },
                    Part::ToolResult(ToolAnswer {
                        id: "call.1".to_owned(),
                        name: "bash".to_owned(),
                        text: "bad arguments".to_owned(),
                        is_error: true,
                    }),
                ],
            },
        ]
    }

    fn encoded(provider: &str, model: &str) -> Value {
        let preset = preset(provider).unwrap();
        encode(&request(model, conversation(provider)), preset, provider, Adaptation::default())
    }

    #[test]
    fn conversation_becomes_the_wire_form() {
        let body = encoded("openai", "gpt-5");
        let messages = body["messages"].as_array().unwrap();
        let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        assert_eq!(messages[1]["content"][1]["image_url"]["url"], "data:image/png;base64,AAAA");
        let call = &messages[2]["tool_calls"][0];
        assert_eq!(messages[2]["content"], Value::Null);
        assert_eq!(call["id"], messages[3]["tool_call_id"]);
        assert_eq!(
            serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).unwrap(),
            json!({"_malformed_arguments": "{\"command\": "})
        );
        assert_eq!(messages[4]["content"][0]["image_url"]["url"], "data:image/png;base64,BBBB");
        assert_eq!(body["max_completion_tokens"], 100);
        assert_eq!(body["temperature"], 0.7);
        assert_eq!(body["reasoning_effort"], "low");
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
    }

    #[test]
    fn reasoning_goes_back_in_the_way_of_the_vendor_and_only_to_him() {
        assert_eq!(encoded("deepseek", "d")["messages"][2]["reasoning_content"], "hm");
        assert_eq!(encoded("ollama", "d")["messages"][2]["reasoning"], "hm");
        assert_eq!(encoded("openrouter", "x/y")["messages"][2]["reasoning_details"][0]["text"], "hm");
        let gemini = encoded("gemini", "gemini-3");
        assert_eq!(
            gemini["messages"][2]["tool_calls"][0]["extra_content"]["google"]["thought_signature"],
            "sig"
        );
        let foreign = encode(
            &request("d", conversation("openrouter")),
            preset("deepseek").unwrap(),
            "deepseek",
            Adaptation::default(),
        );
        let assistant = foreign["messages"][2].as_object().unwrap();
        assert_eq!(assistant.keys().collect::<Vec<_>>(), ["content", "role", "tool_calls"]);
    }

    #[test]
    fn vendors_that_refuse_fields_do_not_get_them() {
        let mistral = encoded("mistral", "mistral-large");
        let keys: Vec<_> = mistral.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["max_tokens", "messages", "model", "stream", "temperature", "tools"]);
        assert_eq!(mistral["messages"][2]["tool_calls"][0]["id"].as_str().unwrap().len(), 9);
        let adaptation =
            Adaptation { no_temperature: true, other_tokens_field: true, ..Adaptation::default() };
        let adapted =
            encode(&request("m", conversation("openai")), preset("openai").unwrap(), "openai", adaptation);
        assert!(adapted.get("temperature").is_none() && adapted["max_tokens"] == 100);
    }

    #[test]
    fn claude_behind_openrouter_gets_cache_marks_and_others_do_not() {
        let body = encoded("openrouter", "anthropic/claude-x");
        assert_eq!(body["messages"][0]["content"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!(body["messages"][3]["content"][0]["cache_control"]["type"], "ephemeral");
        assert_eq!(body["usage"], json!({"include": true}));
        assert_eq!(body["reasoning"], json!({"effort": "low"}));
        assert!(!encoded("openrouter", "openai/gpt-5").to_string().contains("cache_control"));
    }
}
