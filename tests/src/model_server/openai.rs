//! What OpenAI's chat completions refuse, checked against the reference, field by field.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Rules, is_tool_name, unknown_field};

const BODY: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "reasoning_effort",
    "tools",
    "tool_choice",
];

/// The first reason to refuse the body.
pub(super) fn check(body: &Value, rules: &Rules) -> Result<(), String> {
    let body = body.as_object().ok_or("the body must be an object")?;
    if let Some(field) = unknown_field(body, BODY, &rules.body_fields) {
        return Err(format!("Unrecognized request argument supplied: {field}"));
    }
    if body.get("model").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err("you must provide a model parameter".to_owned());
    }
    if body.get("stream") != Some(&Value::Bool(true)) {
        return Err("stream: the client under test always streams".to_owned());
    }
    if body
        .get("stream_options")
        .is_some_and(|options| *options != serde_json::json!({"include_usage": true}))
    {
        return Err("stream_options: not understood".to_owned());
    }
    let limits: Vec<&Value> =
        ["max_tokens", "max_completion_tokens"].iter().filter_map(|name| body.get(*name)).collect();
    match limits.as_slice() {
        [limit] if limit.as_u64().is_some_and(|limit| limit > 0) => {}
        other => return Err(format!("max_tokens: exactly one positive limit, not {other:?}")),
    }
    if body
        .get("temperature")
        .is_some_and(|value| value.as_f64().is_none_or(|value| !(0.0..=2.0).contains(&value)))
    {
        return Err("temperature: must be from 0 to 2".to_owned());
    }
    if let Some(effort) = body.get("reasoning_effort")
        && !matches!(effort.as_str(), Some("minimal" | "low" | "medium" | "high"))
    {
        return Err(format!("reasoning_effort: {effort} is not supported"));
    }
    if let Some(tools) = body.get("tools") {
        check_tools(tools)?;
    }
    check_messages(body.get("messages").and_then(Value::as_array).ok_or("messages: required")?, rules)
}

fn check_tools(tools: &Value) -> Result<(), String> {
    let tools = tools
        .as_array()
        .filter(|tools| !tools.is_empty())
        .ok_or("tools: must be a list that is not empty")?;
    let mut names = BTreeSet::new();
    for tool in tools {
        let object = tool.as_object().ok_or("tools: not an object")?;
        if let Some(field) = unknown_field(object, &["type", "function"], &[]) {
            return Err(format!("tools: unknown field {field}"));
        }
        let function = tool["function"].as_object().ok_or("tools: function is required")?;
        if let Some(field) = unknown_field(function, &["name", "description", "parameters"], &[]) {
            return Err(format!("tools: unknown field function.{field}"));
        }
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        if tool["type"] != "function" || !is_tool_name(name) || !names.insert(name) {
            return Err(format!("tools: bad or repeated function {name:?}"));
        }
        if tool["function"]["parameters"]["type"] != "object" {
            return Err(format!(
                "Invalid schema for function '{name}': schema must be a JSON Schema of 'type: object'"
            ));
        }
    }
    Ok(())
}

fn check_messages(messages: &[Value], rules: &Rules) -> Result<(), String> {
    let mut open: BTreeSet<String> = BTreeSet::new();
    let mut last_role = "";
    for (at, message) in messages.iter().enumerate() {
        let place = format!("messages.[{at}]");
        let object = message.as_object().ok_or_else(|| format!("{place}: not an object"))?;
        let role = object.get("role").and_then(Value::as_str).unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return Err(format!(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. Missing: {open:?}"
            ));
        }
        match role {
            "system" => {
                if at != 0 {
                    return Err(format!("{place}: a system message must be the first"));
                }
                fields(object, &["role", "content"], &[], &place)?;
                text_content(object, rules, &place)?;
            }
            "user" => {
                fields(object, &["role", "content"], &[], &place)?;
                user_content(&message["content"], rules, &place)?;
            }
            "assistant" => assistant(object, rules, &place, &mut open)?,
            "tool" => {
                fields(object, &["role", "content", "tool_call_id"], &[], &place)?;
                text_content(object, rules, &place)?;
                let id = object.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
                if !open.remove(id) {
                    return Err(format!(
                        "{place}: messages with role 'tool' must be a response to a preceding message with 'tool_calls' ({id:?})"
                    ));
                }
            }
            other => return Err(format!("{place}: invalid role {other:?}")),
        }
        last_role = role;
    }
    if !open.is_empty() {
        return Err(format!("tool calls without a response: {open:?}"));
    }
    if !matches!(last_role, "user" | "tool") {
        return Err(format!("the last message must be a user's or a tool's, not {last_role:?}"));
    }
    Ok(())
}

fn fields(object: &Map<String, Value>, known: &[&str], more: &[String], place: &str) -> Result<(), String> {
    match unknown_field(object, known, more) {
        Some(field) => Err(format!("{place}: unknown field {field}")),
        None => Ok(()),
    }
}

fn text_content(object: &Map<String, Value>, rules: &Rules, place: &str) -> Result<(), String> {
    match object.get("content") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => parts.iter().try_for_each(|part| {
            if part["type"] == "text" {
                text_part(part, rules, place)
            } else {
                Err(format!("{place}: only text"))
            }
        }),
        other => Err(format!("{place}.content: invalid: {other:?}")),
    }
}

fn text_part(part: &Value, rules: &Rules, place: &str) -> Result<(), String> {
    let object = part.as_object().ok_or_else(|| format!("{place}: part is no object"))?;
    fields(object, &["type", "text"], &rules.message_fields, place)?;
    match part["text"].as_str() {
        Some(text) if !text.is_empty() => Ok(()),
        _ => Err(format!("{place}: empty text part")),
    }
}

fn user_content(content: &Value, rules: &Rules, place: &str) -> Result<(), String> {
    match content {
        Value::String(text) if !text.is_empty() => Ok(()),
        Value::Array(parts) if !parts.is_empty() => {
            parts.iter().try_for_each(|part| match part["type"].as_str() {
                Some("text") => text_part(part, rules, place),
                Some("image_url") => {
                    let url = part["image_url"]["url"].as_str().unwrap_or_default();
                    let is_data = url.starts_with("data:image/") && url.contains(";base64,");
                    if is_data { Ok(()) } else { Err(format!("{place}: not a data URL: {url:.40}")) }
                }
                other => Err(format!("{place}: unknown part {other:?}")),
            })
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => Err(format!("{place}.content: invalid: {content}")),
    }
}

fn assistant(
    object: &Map<String, Value>,
    rules: &Rules,
    place: &str,
    open: &mut BTreeSet<String>,
) -> Result<(), String> {
    fields(object, &["role", "content", "tool_calls"], &rules.message_fields, place)?;
    let calls = object.get("tool_calls");
    match object.get("content") {
        Some(Value::String(text)) if !text.is_empty() => {}
        Some(Value::Null) if calls.is_some() => {}
        other => return Err(format!("{place}.content: {other:?} without tool calls")),
    }
    let Some(calls) = calls else { return Ok(()) };
    let calls = calls
        .as_array()
        .filter(|calls| !calls.is_empty())
        .ok_or_else(|| format!("{place}.tool_calls: empty"))?;
    for call in calls {
        let call_object = call.as_object().ok_or_else(|| format!("{place}: call is no object"))?;
        fields(call_object, &["id", "type", "function"], &rules.message_fields, place)?;
        let id = call["id"].as_str().unwrap_or_default();
        if id.is_empty() || id.len() > 40 || !open.insert(id.to_owned()) {
            return Err(format!("{place}: bad or repeated tool call id {id:?}"));
        }
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let good = serde_json::from_str::<Map<String, Value>>(arguments).is_ok();
        if call["type"] != "function"
            || !is_tool_name(call["function"]["name"].as_str().unwrap_or_default())
            || !good
        {
            return Err(format!("{place}: bad tool call: {call}"));
        }
    }
    Ok(())
}
