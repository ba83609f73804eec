//! From the JSON text a model wrote to a [`ToolRequest`], or to one message that says what to write instead.
//!
//! Checks shape and size only. What a call may do is the policy's to say, and where a path leads the kernel's.

use oxibot_proto::nearest::nearest;
use std::collections::BTreeMap;

use oxibot_proto::message::MAX_ARGUMENTS;
use serde_json::Value;

use super::{Argument, Kind, MAX_PATH, Need, Tool, ToolRequest, all, find};

/// Most characters of a name a model invented that are repeated to it.
const MAX_ECHO: usize = 60;

/// Why arguments were not understood. Always the caller's doing; the text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// There is no such tool.
    #[error("there is no tool named `{name}`{}; the tools are {}", did_you_mean(*.meant), tool_names())]
    UnknownTool {
        /// What was asked for, shortened.
        name: String,
        /// The tool probably meant.
        meant: Option<&'static str>,
    },
    /// The arguments exceed what a frame carries.
    #[error(
        "cannot read the arguments of {tool}: {bytes} bytes of JSON, the limit is {MAX_ARGUMENTS}; send less text in one call"
    )]
    TooLarge {
        /// Tool.
        tool: &'static str,
        /// Size of the JSON text.
        bytes: usize,
    },
    /// Not JSON.
    #[error(
        "cannot read the arguments of {tool}: not valid JSON: {cause}; send one object such as {example}"
    )]
    NotJson {
        /// Tool.
        tool: &'static str,
        /// What the parser said, with line and column.
        cause: String,
        /// A call that works.
        example: String,
    },
    /// JSON, but not an object.
    #[error("cannot read the arguments of {tool}: found {found}, expected one object such as {example}")]
    NotObject {
        /// Tool.
        tool: &'static str,
        /// What was there instead.
        found: &'static str,
        /// A call that works.
        example: String,
    },
    /// An argument the tool does not take.
    #[error("{tool} takes no argument `{name}`{}; it takes {takes}", did_you_mean(*.meant))]
    UnknownArgument {
        /// Tool.
        tool: &'static str,
        /// What was given, shortened.
        name: String,
        /// The argument probably meant.
        meant: Option<&'static str>,
        /// All arguments.
        takes: String,
    },
    /// A required argument is not there.
    #[error("{tool} needs the argument `{name}`: {description}")]
    Missing {
        /// Tool.
        tool: &'static str,
        /// Argument.
        name: &'static str,
        /// What it is.
        description: &'static str,
    },
    /// The argument is of another type.
    #[error("argument `{name}` of {tool} must be {expected}, found {found}")]
    WrongType {
        /// Tool.
        tool: &'static str,
        /// Argument.
        name: &'static str,
        /// What it must be.
        expected: String,
        /// What it was.
        found: &'static str,
    },
    /// The text is longer than the tool takes.
    #[error("argument `{name}` of {tool} has {bytes} bytes, the limit is {max}: {advice}")]
    TooLong {
        /// Tool.
        tool: &'static str,
        /// Argument.
        name: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
        /// What to do.
        advice: &'static str,
    },
    /// The text contains a NUL character.
    #[error(
        "argument `{name}` of {tool} contains a NUL character, which no path or program argument can: remove it"
    )]
    Nul {
        /// Tool.
        tool: &'static str,
        /// Argument.
        name: &'static str,
    },
    /// The text is empty.
    #[error("argument `{name}` of {tool} is empty: {description}")]
    Empty {
        /// Tool.
        tool: &'static str,
        /// Argument.
        name: &'static str,
        /// What it is.
        description: &'static str,
    },
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn tool_names() -> String {
    all().iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ")
}

/// Arguments of one call that passed the checks of their table row. Missing ones are absent.
#[derive(Debug)]
pub(super) struct Given {
    tool: &'static Tool,
    values: BTreeMap<&'static str, Checked>,
}

#[derive(Debug)]
enum Checked {
    Text(String),
    Count(u64),
    Flag(bool),
}

impl Given {
    /// A text that may be absent.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.values.remove(name) {
            Some(Checked::Text(text)) => Some(text),
            Some(Checked::Count(_) | Checked::Flag(_)) | None => None,
        }
    }

    /// A text that was checked to be there. The error covers a table row whose builder names another argument.
    pub(super) fn required(&mut self, name: &'static str) -> Result<String, ArgumentError> {
        let missing = ArgumentError::Missing { tool: self.tool.name, name, description: "it was left out" };
        self.text(name).ok_or(missing)
    }

    /// A number that may be absent.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        match self.values.get(name) {
            Some(Checked::Count(count)) => Some(*count),
            Some(Checked::Text(_) | Checked::Flag(_)) | None => None,
        }
    }

    /// A flag; absent means false.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some(Checked::Flag(true)))
    }
}

/// Turns a tool's name and JSON arguments into a request. No I/O; costs at most a few times the length of `json`.
///
/// # Errors
/// [`ArgumentError`], whose text is meant for the model as it is.
pub fn parse(name: &str, json: &str) -> Result<ToolRequest, ArgumentError> {
    let Some(tool) = find(name) else {
        let names = all().iter().flat_map(|tool| std::iter::once(&tool.name).chain(tool.aliases));
        return Err(ArgumentError::UnknownTool { name: shorten(name), meant: nearest(name, names.copied()) });
    };
    if json.len() > MAX_ARGUMENTS {
        return Err(ArgumentError::TooLarge { tool: tool.name, bytes: json.len() });
    }
    let value: Value = serde_json::from_str(json).map_err(|error| ArgumentError::NotJson {
        tool: tool.name,
        cause: error.to_string(),
        example: example(tool),
    })?;
    let found = type_name(&value);
    let Value::Object(object) = value else {
        return Err(ArgumentError::NotObject { tool: tool.name, found, example: example(tool) });
    };
    let mut given = Given { tool, values: BTreeMap::new() };
    for (name, value) in object {
        let Some(argument) = tool.arguments.iter().find(|argument| argument.name == name) else {
            let names = || tool.arguments.iter().map(|argument| argument.name);
            return Err(ArgumentError::UnknownArgument {
                tool: tool.name,
                meant: nearest(&name, names()),
                name: shorten(&name),
                takes: names().collect::<Vec<_>>().join(", "),
            });
        };
        if let Some(checked) = check(tool, argument, value)? {
            given.values.insert(argument.name, checked);
        }
    }
    for argument in tool.arguments {
        if argument.need == Need::Required && !given.values.contains_key(argument.name) {
            return Err(ArgumentError::Missing {
                tool: tool.name,
                name: argument.name,
                description: argument.description,
            });
        }
    }
    (tool.build)(given)
}

fn check(tool: &Tool, argument: &Argument, value: Value) -> Result<Option<Checked>, ArgumentError> {
    let found = type_name(&value);
    let wrong =
        |expected: String| ArgumentError::WrongType { tool: tool.name, name: argument.name, expected, found };
    if value.is_null() && argument.need == Need::Optional {
        return Ok(None);
    }
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(wrong("a string".into()))
        }
    };
    let checked = match argument.kind {
        Kind::Text { max, advice } => Checked::Text(bounded(tool, argument, text(value)?, max, advice)?),
        Kind::Line { max, advice } => {
            let text = bounded(tool, argument, text(value)?, max, advice)?;
            Checked::Text(plain(tool, argument, text)?)
        }
        Kind::Path => {
            let text =
                bounded(tool, argument, text(value)?, MAX_PATH, "no path is that long, use a shorter one")?;
            Checked::Text(plain(tool, argument, text)?)
        }
        Kind::Count { min, max } => match whole(&value) {
            Some(count) if (min..=max).contains(&count) => Checked::Count(count),
            Some(_) | None if max == u64::MAX => {
                return Err(wrong(format!("a whole number of at least {min}")));
            }
            Some(_) | None => return Err(wrong(format!("a whole number from {min} to {max}"))),
        },
        Kind::Flag => Checked::Flag(value.as_bool().ok_or_else(|| wrong("true or false".into()))?),
    };
    Ok(Some(checked))
}

fn bounded(
    tool: &Tool,
    argument: &Argument,
    text: String,
    max: usize,
    advice: &'static str,
) -> Result<String, ArgumentError> {
    if text.len() > max {
        return Err(ArgumentError::TooLong {
            tool: tool.name,
            name: argument.name,
            bytes: text.len(),
            max,
            advice,
        });
    }
    Ok(text)
}

fn plain(tool: &Tool, argument: &Argument, text: String) -> Result<String, ArgumentError> {
    if text.contains('\0') {
        return Err(ArgumentError::Nul { tool: tool.name, name: argument.name });
    }
    if text.is_empty() {
        return Err(ArgumentError::Empty {
            tool: tool.name,
            name: argument.name,
            description: argument.description,
        });
    }
    Ok(text)
}

/// Some models write `10.0` for a whole number.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64()?;
        // 2^53: above it a float no longer names one whole number.
        if float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float) {
            format!("{float:.0}").parse().ok()
        } else {
            None
        }
    })
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn example(tool: &Tool) -> String {
    let fields: Vec<String> = tool
        .arguments
        .iter()
        .filter(|argument| argument.need == Need::Required)
        .map(|argument| format!("\"{}\": \"...\"", argument.name))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn shorten(name: &str) -> String {
    let mut short: String = name.chars().take(MAX_ECHO).collect::<String>().escape_debug().to_string();
    if name.chars().nth(MAX_ECHO).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{MAX_COMMAND, MAX_CONTENT};
    use super::*;
    use crate::wire::FilesWork;

    fn message(name: &str, arguments: &Value) -> String {
        parse(name, &arguments.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn alias_means_the_canonical_tool() {
        let request = parse("exec", r#"{"command":"ls","timeout_s":5,"cwd":null}"#).unwrap();
        assert_eq!(request, ToolRequest::Bash { command: "ls".into(), timeout_s: Some(5), cwd: None });
    }

    #[test]
    fn defaults_are_filled_in() {
        assert_eq!(
            parse("read_file", r#"{"path":"a"}"#).unwrap(),
            ToolRequest::Files(FilesWork::Read { path: "a".into(), offset: 1, limit: None, numbers: false })
        );
        assert_eq!(
            parse("grep", r#"{"pattern":"x"}"#).unwrap(),
            ToolRequest::Files(FilesWork::Grep {
                pattern: "x".into(),
                path: ".".into(),
                glob: None,
                offset: 1
            })
        );
        assert_eq!(
            parse("list_dir", r#"{"path":"~", "depth": 2.0}"#).unwrap(),
            ToolRequest::Files(FilesWork::List { path: "~".into(), depth: 2, offset: 1 })
        );
    }

    #[test]
    fn unknown_tool_names_the_nearest() {
        let text = message("raed_file", &json!({}));
        assert!(text.contains("did you mean `read_file`") && text.contains("list_dir"), "{text}");
        let text = message(&"\u{1b}x".repeat(1 << 16), &json!({}));
        assert!(text.len() < 600 && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn unknown_argument_names_the_nearest() {
        let text = message("read_file", &json!({"path": "a", "ofset": 3}));
        assert!(text.contains("did you mean `offset`") && text.contains("limit"), "{text}");
    }

    #[test]
    fn not_an_object_is_refused_with_an_example() {
        for json in ["", "{", "[]", "null", "\"ls\"", "3", "{\"command\":\"x\"} trailing"] {
            let text = parse("bash", json).unwrap_err().to_string();
            assert!(text.contains("{\"command\": \"...\"}"), "{json}: {text}");
        }
        assert!(parse("bash", &"[".repeat(100_000)).is_err(), "deep nesting does not overflow the stack");
    }

    #[test]
    fn missing_and_wrong_types_are_named() {
        assert!(message("write_file", &json!({"path": "a"})).contains("needs the argument `content`"));
        assert!(
            message("write_file", &json!({"path": 1, "content": ""}))
                .contains("must be a string, found a number")
        );
        assert!(message("read_file", &json!({"path": null})).contains("must be a string, found null"));
        assert!(message("read_file", &json!({"path": "a", "offset": 0})).contains("at least 1"));
        assert!(message("read_file", &json!({"path": "a", "offset": 1.5})).contains("with a fraction"));
        assert!(message("read_file", &json!({"path": "a", "numbers": "yes"})).contains("true or false"));
        assert!(message("bash", &json!({"command": "ls", "timeout_s": 601})).contains("from 1 to 600"));
    }

    #[test]
    fn command_limit_is_exact_and_says_what_to_do() {
        let at = json!({"command": "x".repeat(MAX_COMMAND)}).to_string();
        assert!(parse("bash", &at).is_ok());
        let text = message("bash", &json!({"command": "x".repeat(MAX_COMMAND + 1)}));
        assert!(text.contains("102400") && text.contains("write_file"), "{text}");
    }

    #[test]
    fn content_limit_is_exact() {
        let at = json!({"path": "a", "content": "x".repeat(MAX_CONTENT)}).to_string();
        assert!(parse("write_file", &at).is_ok());
        assert!(
            message("write_file", &json!({"path": "a", "content": "x".repeat(MAX_CONTENT + 1)}))
                .contains("786432")
        );
        let huge = json!({"path": "a", "content": "x".repeat(3 << 20)});
        assert!(message("write_file", &huge).contains("limit is 1000000"));
    }

    #[test]
    fn unusable_paths_are_refused() {
        assert!(message("read_file", &json!({"path": "a\0b"})).contains("NUL"));
        assert!(message("read_file", &json!({"path": ""})).contains("empty"));
        assert!(message("read_file", &json!({"path": "x".repeat(4097)})).contains("4096"));
        assert!(parse("read_file", &json!({"path": "x".repeat(4096)}).to_string()).is_ok());
        assert!(message("bash", &json!({"command": "ls", "cwd": "a\0"})).contains("NUL"));
        assert!(message("bash", &json!({"command": ""})).contains("empty"));
    }

    #[test]
    fn empty_content_is_a_file() {
        assert!(parse("write_file", r#"{"path":"a","content":""}"#).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(name in ".{0,20}", json in ".{0,200}") {
            let _ = parse(&name, &json);
            for tool in all() {
                let _ = parse(tool.name, &json);
            }
        }
    }
}
