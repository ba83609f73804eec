//! A conversation made fit for strict vendors, without I/O.
//!
//! Every vendor refuses a history in which a tool call has no result or a result no call, and then the conversation is
//! stuck for good. The store keeps what happened; here the gaps are closed in what is sent, never in what is kept.

use serde_json::{Map, Value, json};

use crate::model::{Message, Part, Role, ToolAnswer, ToolCall};

use super::presets::IdRule;

/// Key under which arguments that are no JSON object are shown back to the model that wrote them.
const MALFORMED: &str = "_malformed_arguments";

/// What stands in for a result that was never recorded.
const NO_RESULT: &str = "No result was recorded for this call: whether it ran is unknown.";

/// A conversation whose tool calls and results match.
#[derive(Debug)]
pub(crate) struct History {
    /// Text of all system messages.
    pub(crate) system: String,
    /// Everything else; a `Tool` message always follows the calls it answers.
    pub(crate) messages: Vec<Message>,
}

impl History {
    /// Drops results without a call, adds results that are missing, gathers the system text.
    pub(crate) fn repaired(messages: &[Message]) -> Self {
        let mut system = Vec::new();
        let mut kept = Vec::new();
        let mut open: Vec<ToolCall> = Vec::new();
        for message in messages {
            match message.role {
                Role::System => system.push(message.joined_text()),
                Role::Tool => {
                    let parts: Vec<Part> =
                        message.parts.iter().filter(|part| belongs(part, &mut open)).cloned().collect();
                    if !parts.is_empty() {
                        kept.push(Message { role: Role::Tool, parts });
                    }
                }
                Role::User | Role::Assistant => {
                    close(&mut open, &mut kept);
                    if message.role == Role::Assistant {
                        open = calls(message).cloned().collect();
                    }
                    kept.push(message.clone());
                }
            }
        }
        close(&mut open, &mut kept);
        Self { system: system.join("\n\n"), messages: kept }
    }
}

/// Tool calls of a message.
pub(crate) fn calls(message: &Message) -> impl Iterator<Item = &ToolCall> {
    message.parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(call),
        Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => None,
    })
}

fn belongs(part: &Part, open: &mut Vec<ToolCall>) -> bool {
    match part {
        Part::ToolResult(answer) => match open.iter().position(|call| call.id == answer.id) {
            Some(at) => {
                open.remove(at);
                true
            }
            None => false,
        },
        Part::Image { .. } => true,
        Part::Text { .. } | Part::Reasoning(_) | Part::ToolCall(_) => false,
    }
}

fn close(open: &mut Vec<ToolCall>, kept: &mut Vec<Message>) {
    if open.is_empty() {
        return;
    }
    let parts = open
        .drain(..)
        .map(|call| {
            Part::ToolResult(ToolAnswer {
                id: call.id,
                name: call.name,
                text: NO_RESULT.to_owned(),
                is_error: true,
            })
        })
        .collect();
    kept.push(Message { role: Role::Tool, parts });
}

/// Arguments as the object that every vendor wants in a history, whatever the model wrote.
pub(crate) fn argument_object(text: &str) -> Map<String, Value> {
    if text.trim().is_empty() {
        return Map::new();
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) | Err(_) => Map::from_iter([(MALFORMED.to_owned(), json!(text))]),
    }
}

/// An id the vendor accepts; the same id always gives the same one, so that call and result still match.
pub(crate) fn wire_id(id: &str, rule: IdRule) -> String {
    let fits = match rule {
        IdRule::Plain => {
            (1..=40).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        }
        IdRule::NineAlphanumerics => id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
    };
    if fits {
        return id.to_owned();
    }
    // FNV-1a: no secret is protected here, two ids of one conversation only must not meet.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut left = hash;
    let mut derived = String::with_capacity(9);
    for _ in 0..9 {
        let digit = u32::try_from(left % 36).unwrap_or(0);
        derived.push(char::from_digit(digit, 36).unwrap_or('0'));
        left /= 36;
    }
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Part {
        Part::ToolCall(ToolCall { id: id.to_owned(), name: "bash".to_owned(), arguments: "{}".to_owned() })
    }

    fn result(id: &str) -> Part {
        Part::ToolResult(ToolAnswer {
            id: id.to_owned(),
            name: "bash".to_owned(),
            text: "ok".to_owned(),
            is_error: false,
        })
    }

    fn ids(history: &History) -> Vec<String> {
        let mut ids = Vec::new();
        for part in history.messages.iter().flat_map(|message| &message.parts) {
            match part {
                Part::ToolCall(call) => ids.push(format!("call {}", call.id)),
                Part::ToolResult(answer) => {
                    ids.push(format!("{} {}", answer.text.split(' ').next().unwrap(), answer.id))
                }
                Part::Text { text } => ids.push(text.clone()),
                Part::Image { .. } | Part::Reasoning(_) => {}
            }
        }
        ids
    }

    #[test]
    fn missing_results_are_added_and_orphans_dropped() {
        let history = History::repaired(&[
            Message::text(Role::System, "s1"),
            Message { role: Role::Tool, parts: vec![result("lost")] },
            Message { role: Role::Assistant, parts: vec![call("a"), call("b")] },
            Message { role: Role::Tool, parts: vec![result("b"), result("b")] },
            Message::text(Role::System, "s2"),
            Message::text(Role::User, "go on"),
            Message { role: Role::Assistant, parts: vec![call("c")] },
        ]);
        assert_eq!(history.system, "s1\n\ns2");
        assert_eq!(ids(&history), ["call a", "call b", "ok b", "No a", "go on", "call c", "No c"]);
    }

    #[test]
    fn arguments_that_are_no_object_are_shown_back_as_text() {
        assert_eq!(Value::Object(argument_object("{\"a\":1}")), json!({"a": 1}));
        assert_eq!(Value::Object(argument_object(" ")), json!({}));
        assert_eq!(Value::Object(argument_object("{\"a\":")), json!({MALFORMED: "{\"a\":"}));
        assert_eq!(Value::Object(argument_object("[1]")), json!({MALFORMED: "[1]"}));
        let deep = "[".repeat(100_000);
        assert_eq!(Value::Object(argument_object(&deep)), json!({MALFORMED: deep}));
    }

    #[test]
    fn ids_are_kept_where_they_fit_and_derived_where_not() {
        assert_eq!(wire_id("toolu_01-A", IdRule::Plain), "toolu_01-A");
        assert_eq!(wire_id("Abc123xyz", IdRule::NineAlphanumerics), "Abc123xyz");
        for odd in ["", "functions.bash:0", &"x".repeat(41), "call_1"] {
            let derived = wire_id(odd, IdRule::NineAlphanumerics);
            assert_eq!(derived.len(), 9);
            assert!(derived.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_eq!(derived, wire_id(odd, IdRule::NineAlphanumerics));
        }
        assert_ne!(
            wire_id("call_1", IdRule::NineAlphanumerics),
            wire_id("call_2", IdRule::NineAlphanumerics)
        );
        assert_eq!(wire_id("functions.bash:0", IdRule::Plain).len(), 9);
    }
}
