//! Judges a JSON value against the shape of the configuration: what comes out has canonical keys and right kinds.
//!
//! It collects every problem instead of stopping at the first, and never repeats the value of a secret.

use std::collections::BTreeMap;

use oxibot_proto::nearest::{nearest, same_letters};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::error::{Origin, Problem};
use super::secret;
use super::shape::{Shape, join, root};

/// Longest piece of a stranger's text repeated in a message.
const QUOTED: usize = 60;

/// Where a part of the source lies: the key, or the value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Key,
    Value,
}

/// What reading found out besides the value.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    /// Origin of each value, by canonical path.
    pub(crate) origins: BTreeMap<String, Origin>,
    /// Canonical paths of what is secret and not empty.
    pub(crate) secrets: Vec<String>,
    /// What they are. Also of a configuration that is refused: a message must not repeat it.
    pub(crate) values: Vec<(String, SecretString)>,
}

/// Reads one source.
pub(crate) struct Reader<'a> {
    /// Where a path, as written in the source, lies.
    pub(crate) origin: &'a dyn Fn(&str, Part) -> Origin,
    pub(crate) findings: &'a mut Findings,
}

impl Reader<'_> {
    /// `written` is the path as the source has it, `path` the canonical one. `None` means no value: it was empty or wrong.
    pub(crate) fn read(&mut self, shape: &Shape, value: Value, written: &str, path: &str) -> Option<Value> {
        let read = match (shape, value) {
            (Shape::Section(_), Value::Object(map)) => return Some(self.section(shape, map, written, path)),
            (Shape::Map(inner), Value::Object(map)) => self.map(inner, map, written, path),
            (Shape::List(inner) | Shape::WordOrList(_, inner), Value::Array(items)) => {
                let item = |(index, item)| {
                    let at = format!("{written}[{index}]");
                    self.read(inner, item, &at, &format!("{path}[{index}]"))
                };
                Some(Value::Array(items.into_iter().enumerate().filter_map(item).collect()))
            }
            (Shape::Secret, Value::String(text)) => {
                // The older systems write every key they know, the unset ones as "".
                if text.is_empty() {
                    return None;
                }
                self.findings.secrets.push(path.to_owned());
                self.findings.values.push((path.to_owned(), SecretString::from(text.as_str())));
                if text.chars().any(char::is_control) {
                    let what = "holds a line break or another control character".into();
                    return self.problem(
                        Part::Value,
                        written,
                        path,
                        what,
                        "give the secret on one line".into(),
                    );
                }
                Some(Value::String(text))
            }
            (Shape::Text, value @ Value::String(_)) | (Shape::Boolean, value @ Value::Bool(_)) => Some(value),
            (Shape::WordOrList(word, _), Value::String(text)) if text == *word => Some(Value::String(text)),
            (Shape::Choice(choices), Value::String(text)) => self.choice(choices, text, written, path),
            (Shape::Integer { least, most }, Value::Number(number)) => {
                let within =
                    |n: i64| least.is_none_or(|least| n >= least) && most.is_none_or(|most| n <= most);
                match number.as_i64() {
                    Some(n) if within(n) => Some(Value::Number(number)),
                    Some(_) | None => {
                        let what = format!("{number} is out of range");
                        self.problem(Part::Value, written, path, what, expected(shape))
                    }
                }
            }
            (Shape::Number { least, most }, Value::Number(number)) => {
                let within =
                    |n: f64| least.is_none_or(|least| n >= least) && most.is_none_or(|most| n <= most);
                match number.as_f64() {
                    Some(n) if within(n) => Some(Value::Number(number)),
                    Some(_) | None => {
                        let what = format!("{number} is out of range");
                        self.problem(Part::Value, written, path, what, expected(shape))
                    }
                }
            }
            (Shape::Anything, value) => Some(value),
            (shape, value) => {
                let what = format!("{} is not what belongs here", kind(&value));
                self.problem(Part::Value, written, path, what, expected(shape))
            }
        };
        if read.is_some() {
            self.findings.origins.insert(path.to_owned(), (self.origin)(written, Part::Value));
        }
        read
    }

    fn section(&mut self, shape: &Shape, map: Map<String, Value>, written: &str, path: &str) -> Value {
        let mut out = Map::new();
        for (name, value) in map {
            let at = join(written, &name);
            let Some((canonical, field)) = shape.field(&name) else {
                let shown = join(written, &quoted(&name));
                let hint = unknown_hint(shape, &name, path);
                let origin = (self.origin)(&at, Part::Key);
                self.findings.problems.push(Problem { origin, key: shown, what: "unknown key".into(), hint });
                continue;
            };
            if field.nullable && value.is_null() {
                continue;
            }
            let target = join(path, canonical);
            if out.contains_key(canonical) {
                let what =
                    format!("said twice: `{}` is another name of it", field.alias.as_deref().unwrap_or(""));
                self.problem(Part::Key, &at, &target, what, "keep one of the two".into());
                continue;
            }
            if let Some(value) = self.read(&field.shape, value, &at, &target) {
                out.insert(canonical.to_owned(), value);
            }
        }
        Value::Object(out)
    }

    fn map(&mut self, inner: &Shape, map: Map<String, Value>, written: &str, path: &str) -> Option<Value> {
        let mut out = Map::new();
        for (name, value) in map {
            let (at, target) = (join(written, &name), join(path, &quoted(&name)));
            if let Some(value) = self.read(inner, value, &at, &target) {
                if path.ends_with(".extraHeaders") && secret::is_credential_header(&name) {
                    if let Value::String(text) = &value {
                        self.findings.values.push((target.clone(), SecretString::from(text.as_str())));
                    }
                    self.findings.secrets.push(target);
                }
                out.insert(name, value);
            }
        }
        Some(Value::Object(out))
    }

    fn choice(&mut self, choices: &[String], text: String, written: &str, path: &str) -> Option<Value> {
        if choices.contains(&text) {
            return Some(Value::String(text));
        }
        let mut hint = format!("one of {}", choices.join(", "));
        if let Some(near) = nearest(&text, choices.iter().map(String::as_str)) {
            hint = format!("did you mean `{near}`? {hint}");
        }
        let what = format!("`{}` is not known here", quoted(&text));
        self.problem(Part::Value, written, path, what, hint)
    }

    fn problem(
        &mut self,
        part: Part,
        written: &str,
        path: &str,
        what: String,
        hint: String,
    ) -> Option<Value> {
        let origin = (self.origin)(written, part);
        self.findings.problems.push(Problem { origin, key: quoted_path(path), what, hint });
        None
    }
}

/// What a shape wants, as the end of an instruction.
pub(crate) fn expected(shape: &Shape) -> String {
    let range = |least: Option<String>, most: Option<String>| match (least, most) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(" of at least {least}"),
        (None, Some(most)) => format!(" of at most {most}"),
        (None, None) => String::new(),
    };
    match shape {
        Shape::Section(_) => "give an object, { ... }".into(),
        Shape::Map(_) => "give an object of names and texts, { \"name\": \"text\" }".into(),
        Shape::List(_) => "give a list of texts, [\"a\", \"b\"]".into(),
        Shape::Text | Shape::Secret => "give a text in quotes".into(),
        Shape::WordOrList(word, _) => format!("give \"{word}\" or a list of texts, [\"a\", \"b\"]"),
        Shape::Choice(choices) => format!("give one of {}", choices.join(", ")),
        Shape::Boolean => "give true or false, without quotes".into(),
        Shape::Integer { least, most } => {
            format!("give a whole number{}", range(least.map(|n| n.to_string()), most.map(|n| n.to_string())))
        }
        Shape::Number { least, most } => {
            format!("give a number{}", range(least.map(|n| n.to_string()), most.map(|n| n.to_string())))
        }
        Shape::Anything => String::new(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A name from outside, fit to be printed.
pub(crate) fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    if name.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    shown
}

/// As [`quoted`], for a whole path: canonical names are ours, but names inside a map are not.
fn quoted_path(path: &str) -> String {
    path.chars().take(4 * QUOTED).flat_map(char::escape_debug).collect()
}

/// What to do about an unknown key: the nearest beside it, the same name elsewhere, or what there is.
fn unknown_hint(shape: &Shape, name: &str, path: &str) -> String {
    let Shape::Section(fields) = shape else { return "remove it".into() };
    if let Some(near) = nearest(name, fields.keys().map(String::as_str)) {
        return format!("did you mean `{}`?", join(path, near));
    }
    let last = |leaf: &str| leaf.rsplit('.').next().is_some_and(|last| same_letters(last, name));
    if let Some(elsewhere) = root().leaves().into_iter().find(|leaf| last(leaf)) {
        return format!("did you mean `{elsewhere}`?");
    }
    let known: Vec<&str> = fields.keys().map(String::as_str).filter(|name| *name != "$schema").collect();
    format!("remove it; known here: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_made_printable() {
        assert_eq!(quoted("a\u{1b}[31m"), "a\\u{1b}[31m");
        assert!(quoted(&"x".repeat(5000)).len() < 70);
    }
}
