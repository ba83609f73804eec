//! Names and arguments of the tools: what a model may ask for, and the one place where its JSON becomes a typed
//! request.
//!
//! To add a tool, add a row to [`table`]; name, aliases, schema, checks and messages follow from it. Nothing here
//! judges a call, opens a path or knows a workspace: a path stays the text the model wrote until the kernel resolves
//! it (`crate::files`).

mod parse;
mod table;

pub use parse::{ArgumentError, parse};
pub use table::all;

use oxibot_proto::message::ToolSpec;
use serde_json::{Map, Value, json};

use crate::wire::FilesWork;

/// Longest `command`, in bytes. The kernel refuses a single argument of 128 KiB; this leaves room and says so first.
pub const MAX_COMMAND: usize = 100 * 1024;
/// Longest text a file tool takes, in bytes. Keeps request and answer inside one frame.
pub const MAX_CONTENT: usize = 768 * 1024;
/// Longest path, in bytes: the kernel's own limit.
pub const MAX_PATH: usize = 4096;
/// Longest pattern or glob, in bytes. Compiling one costs memory in proportion to its length.
pub const MAX_PATTERN: usize = 4096;
/// Longest search query, in bytes: what the services take.
pub const MAX_QUERY: usize = 400;
/// Most results of one search.
pub const MAX_RESULTS: u64 = 10;
/// Longest `timeout_s`; the configured limit is applied later and can only be lower.
pub const MAX_TIMEOUT_S: u64 = 600;
/// Most levels `list_dir` shows.
pub const MAX_DEPTH: u64 = 16;

/// A tool call whose arguments are known to be of the right shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolRequest {
    /// A shell command.
    Bash {
        /// For `bash -c`; at most [`MAX_COMMAND`] bytes, no NUL.
        command: String,
        /// Deadline asked for, 1 to [`MAX_TIMEOUT_S`].
        timeout_s: Option<u32>,
        /// Directory to start in, as the model wrote it.
        cwd: Option<String>,
    },
    /// Work for a files worker.
    Files(FilesWork),
    /// Work for the fetch worker.
    Web(WebRequest),
}

/// What is asked of the web, as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebRequest {
    /// A page.
    Get {
        /// Any text: whether it is a URL, and one that may be asked for, the fetch worker says.
        url: String,
        /// First character to show, from 0.
        offset: u64,
    },
    /// A search.
    Search {
        /// 1 to [`MAX_QUERY`] bytes.
        query: String,
        /// Results asked for, 1 to [`MAX_RESULTS`].
        count: Option<u32>,
    },
}

/// One row of the table.
#[derive(Debug)]
pub struct Tool {
    /// Canonical name.
    pub name: &'static str,
    /// Other names accepted in a call.
    pub aliases: &'static [&'static str],
    /// One paragraph for the model: what it does, what to do instead.
    pub description: &'static str,
    /// Everything it takes.
    pub arguments: &'static [Argument],
    /// Makes the request of arguments that passed the checks of this row.
    build: fn(parse::Given) -> Result<ToolRequest, ArgumentError>,
}

/// One argument of a tool.
#[derive(Debug)]
pub struct Argument {
    /// Key in the JSON object.
    pub name: &'static str,
    /// What is accepted.
    pub kind: Kind,
    /// Whether a call may leave it out.
    pub need: Need,
    /// For the model.
    pub description: &'static str,
}

/// Whether an argument may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It may not.
    Required,
    /// It may; `null` counts as left out.
    Optional,
}

/// What an argument accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string of at most so many bytes.
    Text {
        /// Most bytes.
        max: usize,
        /// What to do when it is longer.
        advice: &'static str,
    },
    /// As `Text`, neither empty nor with NUL characters, because it becomes an argument of a program or a pattern.
    Line {
        /// Most bytes.
        max: usize,
        /// What to do when it is longer.
        advice: &'static str,
    },
    /// A path: 1 to [`MAX_PATH`] bytes, no NUL.
    Path,
    /// A whole number.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
}

impl Kind {
    fn schema(self) -> Map<String, Value> {
        let value = match self {
            Self::Text { max, .. } => json!({ "type": "string", "maxLength": max }),
            Self::Line { max, .. } => json!({ "type": "string", "minLength": 1, "maxLength": max }),
            Self::Path => json!({ "type": "string", "minLength": 1, "maxLength": MAX_PATH }),
            Self::Count { min, max: u64::MAX } => json!({ "type": "integer", "minimum": min }),
            Self::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Self::Flag => json!({ "type": "boolean" }),
        };
        match value {
            Value::Object(map) => map,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        }
    }
}

impl Tool {
    /// JSON Schema of the arguments object.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut properties = Map::new();
        for argument in self.arguments {
            let mut schema = argument.kind.schema();
            schema.insert("description".into(), argument.description.into());
            properties.insert(argument.name.into(), Value::Object(schema));
        }
        let required: Vec<&str> =
            self.arguments.iter().filter(|a| a.need == Need::Required).map(|a| a.name).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    /// As it crosses the wire.
    #[must_use]
    pub fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.into(),
            aliases: self.aliases.iter().map(|alias| (*alias).into()).collect(),
            description: self.description.into(),
            parameters: self.schema().to_string(),
        }
    }
}

/// All tools as they cross the wire, in the order of the table.
#[must_use]
pub fn specs() -> Vec<ToolSpec> {
    all().iter().map(Tool::spec).collect()
}

/// The tool a name or alias means.
#[must_use]
pub fn find(name: &str) -> Option<&'static Tool> {
    all().iter().find(|tool| tool.name == name || tool.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for tool in all() {
            assert!(seen.insert(tool.name), "{}", tool.name);
            for alias in tool.aliases {
                assert!(seen.insert(alias), "{alias}");
            }
        }
        assert!(seen.contains("bash") && seen.contains("exec"));
    }

    #[test]
    fn schemas_are_closed_and_name_what_is_required() {
        for spec in specs() {
            let schema: Value = serde_json::from_str(&spec.parameters).unwrap();
            assert_eq!(schema["type"], "object", "{}", spec.name);
            assert_eq!(schema["additionalProperties"], false, "{}", spec.name);
            for name in schema["required"].as_array().unwrap() {
                assert!(schema["properties"].get(name.as_str().unwrap()).is_some(), "{}", spec.name);
            }
            for (name, property) in schema["properties"].as_object().unwrap() {
                assert!(property["description"].as_str().unwrap().len() > 8, "{} {name}", spec.name);
            }
            assert!(spec.description.len() < 600, "{} teaches briefly", spec.name);
        }
    }
}
