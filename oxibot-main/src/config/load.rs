//! From files and variables to one [`Config`]: the order of layers, and who may read the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::redaction;

use super::environment::{self, Environment};
use super::error::{ConfigError, Origin, Problem};
use super::file::{self, Contents, Links, MAX_CONFIG_BYTES, shell};
use super::paths::Paths;
use super::position::{Place, Places};
use super::reader::{Findings, Part, Reader};
use super::shape::{Shape, root};
use super::sources;
use super::{Config, check};

/// What the command line says about the configuration itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--config FILE`: this file must be there.
    pub config: Option<PathBuf>,
    /// `--home DIR`.
    pub home: Option<PathBuf>,
}

/// A key that an option of the command line sets, the strongest layer.
#[derive(Debug, Clone)]
pub struct Override {
    /// The key, for example `agents.defaults.model`.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// The option, for example `--model`.
    pub flag: &'static str,
}

/// A configuration and all that is known about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where things are.
    pub paths: Paths,
    /// Where each value came from that is no default, by key.
    pub origins: BTreeMap<String, Origin>,
    /// What is doubtful and does not refuse the start.
    pub warnings: Vec<Problem>,
    /// Files that secrets were read from: main needs their directories once it is confined.
    pub secret_files: Vec<PathBuf>,
    /// Whether there is a configuration file.
    pub file_found: bool,
}

/// Reads the configuration.
///
/// # Errors
/// Everything that is wrong, all of it at once where possible. Nothing may start then; the exit status is 78.
pub fn load(options: &Options, environment: &Environment) -> Result<Loaded, ConfigError> {
    load_with(options, environment, &[])
}

/// As [`load`], with values from the command line.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    options: &Options,
    environment: &Environment,
    overrides: &[Override],
) -> Result<Loaded, ConfigError> {
    let paths = Paths::find(options, environment)?;
    let credentials = environment.get("CREDENTIALS_DIRECTORY").map(Path::new);
    let contents = file::read(&paths.config_file, Links::Trusted, MAX_CONFIG_BYTES, credentials)?;
    if contents.is_none() && options.config.is_some() {
        return Err(ConfigError::Unreadable {
            path: paths.config_file,
            cause: "there is no such file".into(),
            hint: "check the path given with --config, or run `oxibot onboard` to create it".into(),
        });
    }
    let mut findings = Findings::default();
    let mut warnings = Vec::new();
    let mut tree = Value::Object(Map::new());
    if let Some(contents) = &contents {
        tree = read_text(&contents.bytes, &paths.config_file, &mut findings)?;
        judge_exposure(contents, &paths.config_file, &mut findings, &mut warnings);
    }
    let secret_files = overlay(&mut tree, environment, &mut findings, &mut warnings);
    for set in overrides {
        let Some((path, shape)) = key(set.key) else { continue };
        let origin = Origin::Flag(set.flag.to_owned());
        put_read(&mut tree, &path, shape, set.value.clone(), origin, &mut findings);
    }
    learn(&findings);
    let (config, warned) = typed(tree, &mut findings)?;
    warnings.extend(warned);
    let said = findings.origins.contains_key("agents.defaults.workspace");
    let paths = paths.with_workspace(&config, said, environment)?;
    let Findings { origins, .. } = findings;
    Ok(Loaded { config, paths, origins, warnings, secret_files, file_found: contents.is_some() })
}

/// Reads a configuration from text alone, as `onboard` and tests do; `path` is used in messages only.
///
/// # Errors
/// As [`load`], without what concerns the file itself.
pub fn parse(text: &[u8], path: &Path) -> Result<Config, ConfigError> {
    let mut findings = Findings::default();
    let tree = read_text(text, path, &mut findings)?;
    learn(&findings);
    Ok(typed(tree, &mut findings)?.0)
}

/// From here on nothing that is shown or logged holds them.
fn learn(findings: &Findings) {
    for (key, secret) in &findings.values {
        redaction::learn(key, secret);
    }
}

/// Text to a tree with canonical keys; problems of values go to the findings.
fn read_text(text: &[u8], path: &Path, findings: &mut Findings) -> Result<Value, ConfigError> {
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        let cause = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        ConfigError::Syntax {
            path: path.to_path_buf(),
            line: error.line().max(1),
            column: error.column().max(1),
            cause: cause.strip_suffix(&place).unwrap_or(&cause).to_owned(),
        }
    })?;
    let places = Places::of(text);
    let at = |place: Option<Place>| {
        let place = place.unwrap_or_default();
        Origin::File { path: path.to_path_buf(), line: place.line, column: place.column }
    };
    for (key, place) in &places.repeated {
        findings.problems.push(Problem {
            origin: at(Some(*place)),
            key: super::reader::quoted(key),
            what: "said twice".into(),
            hint: "keep one of the two".into(),
        });
    }
    let origin = |written: &str, part: Part| match part {
        Part::Key => at(places.key(written)),
        Part::Value => at(places.value(written)),
    };
    let mut reader = Reader { origin: &origin, findings };
    Ok(reader.read(root(), value, "", "").unwrap_or_else(|| Value::Object(Map::new())))
}

/// A file with a secret in it that others may read is refused, unless its mode is not the owner's choice.
fn judge_exposure(contents: &Contents, path: &Path, findings: &mut Findings, warnings: &mut Vec<Problem>) {
    let Some(secret) = findings.secrets.first().filter(|_| contents.is_readable_by_others()) else { return };
    let what = format!("others may read this file (mode {:04o}), and it holds {secret}", contents.mode);
    let problem = |hint: String| Problem {
        origin: Origin::whole_file(path),
        key: String::new(),
        what: what.clone(),
        hint,
    };
    match contents.excuse {
        Some(excuse) => warnings.push(problem(format!("accepted, because {excuse}"))),
        None => findings.problems.push(problem(format!("run `chmod 600 {}`", shell(path)))),
    }
}

/// Lays the environment over the tree; returns the files that secrets were read from.
fn overlay(
    tree: &mut Value,
    environment: &Environment,
    findings: &mut Findings,
    warnings: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let in_file: BTreeMap<String, Origin> = findings
        .secrets
        .iter()
        .map(|key| (key.clone(), findings.origins.get(key).cloned().unwrap_or(Origin::Default)))
        .collect();
    let mut overlay = environment::overlay(environment);
    let mut secrets = sources::collect(&mut overlay, environment, &in_file);
    findings.problems.append(&mut overlay.problems);
    findings.problems.append(&mut secrets.problems);
    warnings.append(&mut overlay.warnings);
    warnings.append(&mut secrets.warnings);
    for set in overlay.values {
        put_read(tree, &set.path, set.shape, set.value, Origin::Variable(set.variable), findings);
    }
    for (path, origin, value) in secrets.found {
        put_read(tree, &path, &Shape::Secret, value, origin, findings);
    }
    secrets.files
}

/// Judges one value and puts it into the tree, over what was there.
fn put_read(
    tree: &mut Value,
    path: &[String],
    shape: &Shape,
    value: Value,
    origin: Origin,
    findings: &mut Findings,
) {
    let key = path.join(".");
    let below = format!("{key}.");
    findings.origins.retain(|known, _| *known != key && !known.starts_with(&below));
    let always = |_: &str, _: Part| origin.clone();
    let value = Reader { origin: &always, findings }.read(shape, value, &key, &key);
    if let Some(value) = value {
        put(tree, path, value);
    }
}

fn put(tree: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(map) = tree {
        put(map.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

/// Path and shape of a key of ours.
fn key(dotted: &str) -> Option<(Vec<String>, &'static Shape)> {
    let mut shape = root();
    let mut path = Vec::new();
    for segment in dotted.split('.') {
        let (canonical, field) = shape.field(segment)?;
        path.push(canonical.to_owned());
        shape = &field.shape;
    }
    Some((path, shape))
}

/// The tree as the typed value, checked for sense.
fn typed(mut tree: Value, findings: &mut Findings) -> Result<(Config, Vec<Problem>), ConfigError> {
    let search_key = take(&mut tree, &["tools", "web", "search"], "apiKey");
    let mut warnings = Vec::new();
    match serde_path_to_error::deserialize::<_, Config>(tree) {
        Ok(mut config) => {
            config.search_key = search_key;
            let verdict = check::check(&config, &findings.origins);
            // A value that was refused is missing here: what follows from its absence would only confuse.
            if findings.problems.is_empty() {
                findings.problems = verdict.problems;
            }
            warnings = verdict.warnings;
            if findings.problems.is_empty() {
                return Ok((config, warnings));
            }
        }
        // The shape is made from the types, so this is a kind of value the shape is too coarse for.
        Err(error) => {
            let key = error.path().to_string();
            let origin = findings.origins.get(&key).cloned().unwrap_or(Origin::Default);
            let what = error.into_inner().to_string();
            findings.problems.push(Problem { origin, key, what, hint: "see `oxibot config schema`".into() });
        }
    }
    drop(warnings);
    Err(ConfigError::Invalid(std::mem::take(&mut findings.problems)))
}

fn take(tree: &mut Value, sections: &[&str], name: &str) -> Option<SecretString> {
    let mut map = tree.as_object_mut()?;
    for section in sections {
        map = map.get_mut(*section)?.as_object_mut()?;
    }
    match map.remove(name)? {
        Value::String(secret) => Some(SecretString::from(secret)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
