//! The environment as a layer of the configuration: `OXIBOT_A__B_C` is the key `a.bC`.
//!
//! It turns variables into values of the right kind; reading the files that `_FILE` variables name is done in
//! `sources.rs`.

use oxibot_proto::nearest::nearest;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::Value;

use super::error::{Origin, Problem};
use super::reader::{expected, quoted};
use super::shape::{Shape, root};

/// Secrets that were taken out of this process's environment when it began, see `launch::held`.
static HELD: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// Variables of a process. The values may be secrets and are never printed.
#[derive(Clone, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// Those of this process, and those it no longer shows.
    #[must_use]
    pub fn of_process() -> Self {
        Self(std::env::vars_os().chain(Self::held().iter().cloned()).collect())
    }

    /// Keeps secrets that are no longer in the environment. Once, at the beginning of a process.
    pub(crate) fn hold(secrets: Vec<(OsString, OsString)>) {
        let _once = HELD.set(secrets);
    }

    /// What [`Environment::hold`] was given.
    pub(crate) fn held() -> &'static [(OsString, OsString)] {
        HELD.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// Variables that hold a secret: those that set one, and misspelt ones that look as if they meant to.
    pub(crate) fn secrets(&self) -> Vec<OsString> {
        let ours =
            |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.contains("__"));
        if !self.0.iter().any(|(name, _)| ours(name)) {
            return Vec::new();
        }
        let overlay = overlay(self);
        let known = |name: &str| overlay.secrets.iter().any(|secret| secret.variable == name);
        let plain = |name: &str| {
            overlay.values.iter().any(|value| value.variable == name)
                || overlay.secret_files.iter().any(|(_, variable, _)| variable == name)
        };
        let looks_secret =
            |name: &str| ["KEY", "TOKEN", "SECRET", "PASS"].iter().any(|word| name.contains(word));
        let names = self.0.iter().map(|(name, _)| name).filter(|name| ours(name));
        names
            .filter(|name| {
                let name = name.to_string_lossy();
                known(&name) || (!plain(&name) && looks_secret(&name))
            })
            .cloned()
            .collect()
    }

    /// Those given.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What the environment says.
#[derive(Default)]
pub(crate) struct Overlay {
    /// Values that are no secrets.
    pub(crate) values: Vec<Assignment>,
    /// Secrets themselves.
    pub(crate) secrets: Vec<Assignment>,
    /// Files that hold a secret: path of the key, variable, file.
    pub(crate) secret_files: Vec<(Vec<String>, String, PathBuf)>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// One key and its value.
pub(crate) struct Assignment {
    pub(crate) path: Vec<String>,
    pub(crate) shape: &'static Shape,
    pub(crate) value: Value,
    pub(crate) variable: String,
}

const PREFIX: &str = "OXIBOT_";

/// The variable that sets a key.
#[must_use]
pub fn variable_of(key: &str) -> String {
    let segments: Vec<String> = key.split('.').map(snake).collect();
    format!("{PREFIX}{}", segments.join("__"))
}

/// Reads every `OXIBOT_` variable with `__` in it.
pub(crate) fn overlay(environment: &Environment) -> Overlay {
    let mut overlay = Overlay::default();
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in &environment.0 {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if !rest.contains("__") {
            overlay.warnings.extend(forgotten_underscore(name));
            continue;
        }
        let problem = |what: String, hint: String| {
            let variable = quoted(name);
            Problem { origin: Origin::Variable(variable), key: String::new(), what, hint }
        };
        let segments: Vec<&str> = rest.split("__").collect();
        let Some((path, target)) = resolve(&segments) else {
            overlay.problems.push(problem("no such setting".into(), unknown_hint(name)));
            continue;
        };
        let place = path.join(".");
        if let Some((_, other)) =
            seen.iter().find(|(key, _)| *key == place && matches!(target, Target::Key(_)))
        {
            let what = format!("sets {place}, which {other} sets too");
            overlay.problems.push(problem(what, "unset one of the two".into()));
            continue;
        }
        match target {
            Target::Key(shape) => {
                seen.push((place.clone(), name.to_owned()));
                match parse(shape, value) {
                    Ok(value) => {
                        let assignment = Assignment { path, shape, value, variable: name.to_owned() };
                        if *shape == Shape::Secret {
                            overlay.secrets.push(assignment);
                        } else {
                            overlay.values.push(assignment);
                        }
                    }
                    Err((what, hint)) => overlay.problems.push(Problem { key: place, ..problem(what, hint) }),
                }
            }
            Target::SecretFile if value.is_empty() => {
                let hint = "give the path of a file, or unset it".into();
                overlay.problems.push(Problem { key: place, ..problem("is empty".into(), hint) });
            }
            Target::SecretFile => overlay.secret_files.push((path, name.to_owned(), PathBuf::from(value))),
        }
    }
    overlay
}

enum Target {
    Key(&'static Shape),
    SecretFile,
}

/// Finds the key that the segments of a variable's name mean.
fn resolve(segments: &[&str]) -> Option<(Vec<String>, Target)> {
    let mut shape: &'static Shape = root();
    let mut path = Vec::new();
    let mut rest = segments.iter();
    while let Some(segment) = rest.next() {
        match shape {
            Shape::Section(fields) => {
                let named = |wanted: &str| {
                    fields.iter().find(|(name, field)| {
                        snake(name).eq_ignore_ascii_case(wanted)
                            || field
                                .alias
                                .as_deref()
                                .is_some_and(|alias| snake(alias).eq_ignore_ascii_case(wanted))
                    })
                };
                if let Some((name, field)) = named(segment) {
                    path.push(name.clone());
                    shape = &field.shape;
                    continue;
                }
                let secret = segment.strip_suffix("_FILE").and_then(named)?;
                path.push(secret.0.clone());
                let is_last = rest.next().is_none();
                return (is_last && secret.1.shape == Shape::Secret).then_some((path, Target::SecretFile));
            }
            // The rest is one name of the user's choice, written as it is.
            Shape::Map(inner) => {
                let mut name = (*segment).to_owned();
                for more in rest {
                    name.push_str("__");
                    name.push_str(more);
                }
                path.push(name);
                return Some((path, Target::Key(inner)));
            }
            Shape::List(_)
            | Shape::Text
            | Shape::Choice(_)
            | Shape::WordOrList(..)
            | Shape::Secret
            | Shape::Boolean
            | Shape::Integer { .. }
            | Shape::Number { .. }
            | Shape::Anything => return None,
        }
    }
    (!matches!(shape, Shape::Section(_))).then_some((path, Target::Key(shape)))
}

/// A variable's text as a value of the kind wanted. The error never repeats a secret.
fn parse(shape: &Shape, text: &OsStr) -> Result<Value, (String, String)> {
    let Some(text) = text.to_str() else {
        return Err(("is not UTF-8".into(), "set it again, in UTF-8".into()));
    };
    let wrong = |hint: String| (format!("`{}` is not what belongs here", quoted(text)), hint);
    match shape {
        Shape::Secret if text.is_empty() => {
            Err(("is empty".into(), "unset it, or give it the secret".into()))
        }
        Shape::Text | Shape::Secret | Shape::Choice(_) => Ok(Value::String(text.to_owned())),
        Shape::Boolean => match text {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err(wrong("give true, false, 1 or 0".into())),
        },
        Shape::Integer { .. } => text.parse::<i64>().map(Value::from).map_err(|_| wrong(expected(shape))),
        Shape::Number { .. } => {
            let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            number.map(Value::Number).ok_or_else(|| wrong(expected(shape)))
        }
        Shape::WordOrList(word, _) if text == word => Ok(Value::String(text.to_owned())),
        Shape::List(_) | Shape::WordOrList(..) | Shape::Map(_) | Shape::Section(_) | Shape::Anything => {
            // Maps may hold keys of providers: the text is not repeated.
            serde_json::from_str(text).map_err(|_| ("is not JSON".into(), expected(shape)))
        }
    }
}

fn unknown_hint(name: &str) -> String {
    let known = known_variables();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "unset it; `oxibot config schema` lists every key, and a.bC is OXIBOT_A__B_C".into(),
    }
}

/// `OXIBOT_TOOLS_RESTRICT_TO_WORKSPACE` does nothing, and nobody would notice.
fn forgotten_underscore(name: &str) -> Option<Problem> {
    let letters = |s: &str| s.replace('_', "");
    let meant = known_variables().into_iter().find(|known| letters(known) == letters(name))?;
    Some(Problem {
        origin: Origin::Variable(name.to_owned()),
        key: String::new(),
        what: "does nothing".into(),
        hint: format!("did you mean {meant}?"),
    })
}

fn known_variables() -> Vec<String> {
    let mut known = Vec::new();
    root().for_each_leaf(&mut |path, shape| {
        let variable = variable_of(path);
        if *shape == Shape::Secret {
            known.push(format!("{variable}_FILE"));
        }
        known.push(variable);
    });
    known
}

/// `maxTokens` as `MAX_TOKENS`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_follow_the_keys() {
        assert_eq!(
            variable_of("agents.defaults.maxToolIterations"),
            "OXIBOT_AGENTS__DEFAULTS__MAX_TOOL_ITERATIONS"
        );
        assert_eq!(variable_of("channels.email.imapUseSsl"), "OXIBOT_CHANNELS__EMAIL__IMAP_USE_SSL");
    }

    #[test]
    fn every_key_can_be_reached_by_its_variable() {
        root().for_each_leaf(&mut |path, shape| {
            if path == "$schema" {
                return;
            }
            let variable = variable_of(path);
            let segments: Vec<&str> = variable.strip_prefix(PREFIX).unwrap().split("__").collect();
            if let Shape::Map(_) = shape {
                return;
            }
            if segments.len() > 1 {
                assert_eq!(resolve(&segments).unwrap().0.join("."), path);
            }
        });
    }

    #[test]
    fn names_print_and_values_do_not() {
        let shown = format!("{:?}", Environment::of(&[("OXIBOT_PROVIDERS__XAI__API_KEY", "sk-1")]));
        assert!(shown.contains("XAI") && !shown.contains("sk-1"));
    }
}
