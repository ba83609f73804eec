//! What the configuration may look like: the JSON Schema of the types, reduced to what reading needs.
//!
//! The schema is made from the types, so that key, kind, range, secrecy and older name are said once. It reads no file
//! and judges no value (`reader.rs` does).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Config, secret};

/// Kind of value at one place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A section with known keys.
    Section(BTreeMap<String, Field>),
    /// Keys of the user's choice.
    Map(Box<Shape>),
    List(Box<Shape>),
    Text,
    Choice(Vec<String>),
    /// This word, or a list.
    WordOrList(String, Box<Shape>),
    Secret,
    Boolean,
    Integer {
        least: Option<i64>,
        most: Option<i64>,
    },
    Number {
        least: Option<f64>,
        most: Option<f64>,
    },
    /// Nothing is known: the typed layer decides. No key of ours has it, and a test says so.
    Anything,
}

/// One key of a section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) shape: Shape,
    /// Whether `null` is as good as no word.
    pub(crate) nullable: bool,
    /// An older name of the key.
    pub(crate) alias: Option<String>,
}

impl Shape {
    /// The field of this name or older name, with its canonical name.
    pub(crate) fn field(&self, name: &str) -> Option<(&str, &Field)> {
        let Self::Section(fields) = self else { return None };
        if let Some((canonical, field)) = fields.get_key_value(name) {
            return Some((canonical, field));
        }
        let (canonical, field) = fields.iter().find(|(_, field)| field.alias.as_deref() == Some(name))?;
        Some((canonical, field))
    }

    /// Calls `visit` with the dotted path of every key that is no section.
    pub(crate) fn for_each_leaf(&self, visit: &mut impl FnMut(&str, &Shape)) {
        fn walk(shape: &Shape, path: &str, visit: &mut impl FnMut(&str, &Shape)) {
            match shape {
                Shape::Section(fields) => {
                    for (name, field) in fields {
                        walk(&field.shape, &join(path, name), visit);
                    }
                }
                Shape::Map(_)
                | Shape::List(_)
                | Shape::Text
                | Shape::Choice(_)
                | Shape::WordOrList(..)
                | Shape::Secret
                | Shape::Boolean
                | Shape::Integer { .. }
                | Shape::Number { .. }
                | Shape::Anything => visit(path, shape),
            }
        }
        walk(self, "", visit);
    }

    /// Paths of all leaves.
    pub(crate) fn leaves(&self) -> Vec<String> {
        let mut leaves = Vec::new();
        self.for_each_leaf(&mut |path, _| leaves.push(path.to_owned()));
        leaves
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The shape of the whole configuration.
pub(crate) fn root() -> &'static Shape {
    static ROOT: OnceLock<Shape> = OnceLock::new();
    ROOT.get_or_init(|| from_schema(&published()))
}

/// The JSON Schema that editors are given, without the older names.
pub(crate) fn published() -> Value {
    let generator = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Config>());
    // The one secret in a section whose type is shared with a process that may not know it.
    if let Some(properties) = schema
        .pointer_mut("/properties/tools/properties/web/properties/search/properties")
        .and_then(Value::as_object_mut)
    {
        let description = "The key. Better kept out of the file: `OXIBOT_TOOLS__WEB__SEARCH__API_KEY_FILE`.";
        let key = json!({
            "description": description, "type": ["string", "null"], "writeOnly": true, "x-secret": true
        });
        properties.insert("apiKey".into(), key);
    }
    schema
}

/// As [`published`], with each older name as a deprecated key beside the present one, so that editors accept it.
pub(crate) fn published_with_older_names() -> Value {
    fn add(schema: &mut Value) {
        match schema {
            Value::Object(map) => {
                map.values_mut().for_each(add);
                let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) else {
                    return;
                };
                let aliases: Vec<(String, Value)> = properties
                    .iter()
                    .filter_map(|(name, field)| {
                        let alias = field.get(secret::ALIAS)?.as_str()?.to_owned();
                        let mut field = field.clone();
                        field.as_object_mut()?.insert("deprecated".into(), Value::Bool(true));
                        let description = format!("Another name of `{name}`.");
                        field.as_object_mut()?.insert("description".into(), Value::String(description));
                        Some((alias, field))
                    })
                    .collect();
                properties.extend(aliases);
            }
            Value::Array(items) => items.iter_mut().for_each(add),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut schema = published();
    add(&mut schema);
    schema
}

fn from_schema(schema: &Value) -> Shape {
    let Some(schema) = schema.as_object() else { return Shape::Anything };
    if schema.contains_key(secret::KEYWORD) {
        return Shape::Secret;
    }
    if let Some(shape) = word_or_list(schema) {
        return shape;
    }
    if let Some(choices) = choices(schema) {
        return Shape::Choice(choices);
    }
    match kind(schema) {
        Some("object") => object(schema),
        Some("array") => Shape::List(Box::new(schema.get("items").map_or(Shape::Anything, from_schema))),
        Some("string") => Shape::Text,
        Some("boolean") => Shape::Boolean,
        Some("integer") => Shape::Integer {
            least: schema.get("minimum").and_then(Value::as_i64),
            most: schema.get("maximum").and_then(Value::as_i64),
        },
        Some("number") => Shape::Number {
            least: schema.get("minimum").and_then(Value::as_f64),
            most: schema.get("maximum").and_then(Value::as_f64),
        },
        Some(_) => Shape::Anything,
        None => variants(schema).find(|variant| !is_null(variant)).map_or(Shape::Anything, from_schema),
    }
}

/// A word beside a list: `anyOf` of the two, in this order.
fn word_or_list(schema: &Map<String, Value>) -> Option<Shape> {
    let [word, list] = schema.get("anyOf")?.as_array()?.as_slice() else { return None };
    let list = list.as_object().filter(|list| kind(list) == Some("array"))?;
    let [word] = choices(word.as_object()?)?.try_into().ok()?;
    Some(Shape::WordOrList(word, Box::new(list.get("items").map_or(Shape::Anything, from_schema))))
}

fn object(schema: &Map<String, Value>) -> Shape {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let field = |schema: &Value| Field {
            shape: from_schema(schema),
            nullable: is_nullable(schema),
            alias: schema.get(secret::ALIAS).and_then(Value::as_str).map(str::to_owned),
        };
        return Shape::Section(
            properties.iter().map(|(name, schema)| (name.clone(), field(schema))).collect(),
        );
    }
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => Shape::Map(Box::new(from_schema(values))),
        Some(_) | None => Shape::Section(BTreeMap::new()),
    }
}

fn kind(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

fn variants(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|word| schema.get(word)).filter_map(Value::as_array).flatten()
}

/// The names an enum may have: `enum`, or `oneOf` of `const`, or the two mixed.
fn choices(schema: &Map<String, Value>) -> Option<Vec<String>> {
    let words = |value: &Value| -> Vec<String> {
        let listed = value.get("enum").and_then(Value::as_array).into_iter().flatten();
        listed.chain(value.get("const")).filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut found: Vec<String> = words(&Value::Object(schema.clone()));
    for variant in variants(schema) {
        found.extend(words(variant));
        found.extend(variant.as_object().and_then(choices).unwrap_or_default());
    }
    found.sort();
    found.dedup();
    (!found.is_empty()).then_some(found)
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

fn is_nullable(schema: &Value) -> bool {
    let listed = schema.get("type").and_then(Value::as_array);
    listed.is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
        || schema.as_object().is_some_and(|schema| variants(schema).any(is_null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_known_kind() {
        let mut count = 0;
        root().for_each_leaf(&mut |path, shape| {
            count += 1;
            let inner = if let Shape::List(inner) | Shape::Map(inner) | Shape::WordOrList(_, inner) = shape {
                inner
            } else {
                shape
            };
            assert_ne!(*inner, Shape::Anything, "{path}");
        });
        assert!(count > 100, "{count} keys");
    }

    #[test]
    fn what_is_secret_is_known() {
        let mut secrets = Vec::new();
        root().for_each_leaf(&mut |path, shape| {
            if *shape == Shape::Secret && !path.starts_with("providers.") {
                secrets.push(path.to_owned());
            }
        });
        assert_eq!(
            secrets,
            [
                "channels.discord.token",
                "channels.email.imapPassword",
                "channels.email.smtpPassword",
                "channels.slack.appToken",
                "channels.slack.botToken",
                "channels.telegram.proxy",
                "channels.telegram.token",
                "channels.whatsapp.bridgeToken",
                "tools.web.search.apiKey",
                "transcription.apiKey",
            ]
        );
    }

    #[test]
    fn choices_ranges_and_older_names_survive() {
        let leaf = |path: &str| {
            let mut shape = root();
            for name in path.split('.') {
                shape = &shape.field(name).unwrap().1.shape;
            }
            shape.clone()
        };
        assert_eq!(
            leaf("sandbox.require"),
            Shape::Choice(["full", "kernel", "off", "reduced"].map(String::from).into())
        );
        assert_eq!(
            leaf("agents.workspaceScope"),
            Shape::Choice(["conversation", "sender", "shared"].map(String::from).into())
        );
        assert_eq!(leaf("gateway.port"), Shape::Integer { least: Some(1), most: Some(65_535) });
        assert_eq!(leaf("tools.bash.timeout"), Shape::Integer { least: Some(1), most: Some(600) });
        assert_eq!(leaf("channels.email.allowFrom"), Shape::List(Box::new(Shape::Text)));
        assert_eq!(leaf("tools.bash.network"), Shape::WordOrList("none".into(), Box::new(Shape::Text)));
        assert_eq!(leaf("sandbox.env"), Shape::Map(Box::new(Shape::Text)));
    }
}
