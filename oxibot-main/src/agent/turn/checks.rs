//! What can be said of a call without asking anyone: whether it can be sent, and whether it keeps failing.
//!
//! It is no policy. A call that passes here is judged by the toolhost like any other.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Part, ToolCall};

/// Failures of the same call, one after another, after which it is not run again in this turn.
pub(super) const SAME_FAILURES: u32 = 3;
/// Refusals of repeated calls after which the turn ends: the model does not listen.
pub(super) const DEAF: u32 = 3;
/// Longest id of a call that is kept; vendors cap theirs far below.
const MAX_ID: usize = 128;

/// Why a call cannot be sent, in words the model can act on.
pub(super) fn unsendable(call: &ToolCall, tools: &BTreeSet<String>) -> Option<String> {
    if !tools.contains(&call.name) {
        let known: Vec<&str> = tools.iter().map(String::as_str).collect();
        return Some(format!("there is no tool of that name; there are: {}", known.join(", ")));
    }
    let limit = oxibot_proto::message::MAX_ARGUMENTS;
    if call.arguments.len() > limit {
        return Some(format!(
            "the arguments have {} bytes and may have {limit}; do it in smaller steps",
            call.arguments.len()
        ));
    }
    // Some vendors send nothing at all for a tool without arguments.
    if call.arguments.trim().is_empty() {
        return None;
    }
    match serde_json::from_str::<serde_json::Value>(&call.arguments) {
        Ok(serde_json::Value::Object(_)) => None,
        Ok(_) => Some("the arguments must be one JSON object".to_owned()),
        Err(error) => Some(format!("the arguments are not valid JSON ({error}); send one JSON object")),
    }
}

/// Gives calls without an id, or with one that was used before, an id of their own.
///
/// Some local servers number the calls of each reply from 0, which other vendors refuse in a history.
pub(super) fn unique_ids(parts: &mut [Part], taken: &mut BTreeSet<String>, round: u32) {
    for (index, part) in parts.iter_mut().enumerate() {
        let call = match part {
            Part::ToolCall(call) => call,
            Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => continue,
        };
        if call.id.is_empty() || call.id.len() > MAX_ID || taken.contains(&call.id) {
            let mut number = 0u32;
            call.id = loop {
                let id = format!("call_{round}_{index}_{number}");
                if !taken.contains(&id) {
                    break id;
                }
                number += 1;
            };
        }
        taken.insert(call.id.clone());
    }
}

/// Calls that failed, by what they ask for.
#[derive(Debug, Default)]
pub(super) struct Failures {
    same: BTreeMap<(String, String), u32>,
    refused: u32,
}

impl Failures {
    /// Counts an ending. Success forgives earlier failures of the same call.
    pub(super) fn note(&mut self, call: &ToolCall, failed: bool) {
        if failed {
            *self.same.entry(canonical(call)).or_default() += 1;
        } else {
            self.same.remove(&canonical(call));
        }
    }

    /// Why this call is not run again, if it is not.
    pub(super) fn refuse(&mut self, call: &ToolCall) -> Option<String> {
        let failures = self.same.get(&canonical(call)).copied().unwrap_or(0);
        if failures < SAME_FAILURES {
            return None;
        }
        self.refused += 1;
        Some(format!(
            "this very call failed {failures} times in this turn; change something, or tell the user"
        ))
    }

    /// Whether the model keeps asking for what was refused.
    pub(super) fn stuck(&self) -> bool {
        self.refused >= DEAF
    }
}

/// Name and arguments, the latter without differences of spacing and order of keys.
fn canonical(call: &ToolCall) -> (String, String) {
    let arguments = serde_json::from_str::<serde_json::Value>(&call.arguments)
        .map_or_else(|_| call.arguments.clone(), |value| value.to_string());
    (call.name.clone(), arguments)
}
