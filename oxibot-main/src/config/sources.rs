//! Secrets from outside the configuration file: variables, files that variables name, systemd's credentials directory.
//!
//! Each may come from one of these only. A plain variable is a layer like any other and is stronger than the file; a
//! `_FILE` or a credential beside a key in the file is an error, because nobody can say which was meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::environment::{Environment, Overlay};
use super::error::{ConfigError, Origin, Problem};
use super::file::{self, Links, MAX_SECRET_BYTES, shell};
use super::shape::{Shape, root};

/// Secrets found, and what was wrong.
#[derive(Default)]
pub(crate) struct Secrets {
    /// Path of the key, origin, value; each path once.
    pub(crate) found: Vec<(Vec<String>, Origin, Value)>,
    /// Files read, so that main may still read their directories once it is confined.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
}

/// Collects them. `in_file` are the secrets the configuration file holds, with their places.
pub(crate) fn collect(
    overlay: &mut Overlay,
    environment: &Environment,
    in_file: &BTreeMap<String, Origin>,
) -> Secrets {
    let mut secrets = Secrets::default();
    let mut named: BTreeMap<String, Vec<(Vec<String>, Origin)>> = BTreeMap::new();
    let mut values: BTreeMap<(String, Origin), Value> = BTreeMap::new();
    for secret in overlay.secrets.drain(..) {
        let (key, origin) = (secret.path.join("."), Origin::Variable(secret.variable));
        named.entry(key.clone()).or_default().push((secret.path, origin.clone()));
        values.insert((key, origin), secret.value);
    }
    for (path, variable, file) in overlay.secret_files.drain(..) {
        named.entry(path.join(".")).or_default().push((path, Origin::SecretFile { variable, path: file }));
    }
    let directory = environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    if let Some(directory) = &directory {
        for (key, file) in credentials(directory, &mut secrets) {
            let path = key.split('.').map(str::to_owned).collect();
            named.entry(key).or_default().push((path, Origin::Credential(file)));
        }
    }
    #[cfg(feature = "keyring")]
    for (key, value) in in_keyring(environment, &mut secrets) {
        let path = key.split('.').map(str::to_owned).collect();
        named.entry(key.clone()).or_default().push((path, Origin::Keyring));
        values.insert((key, Origin::Keyring), Value::String(value));
    }
    for (key, mut sources) in named {
        // The plain variable is a layer above the file; everything else beside the file is a second naming.
        let beside_file =
            in_file.get(&key).filter(|_| !matches!(sources.as_slice(), [(_, Origin::Variable(_))]));
        let mut origins: Vec<String> = beside_file.into_iter().map(ToString::to_string).collect();
        origins.extend(sources.iter().map(|(_, origin)| origin.to_string()));
        let Some((path, origin)) = sources.pop() else { continue };
        if origins.len() > 1 {
            secrets.problems.push(Problem {
                origin,
                key,
                what: format!("named twice: {}", origins.join(" and ")),
                hint: "keep one of them".into(),
            });
            continue;
        }
        let value = match &origin {
            Origin::Variable(_) | Origin::Keyring => values.remove(&(key.clone(), origin.clone())),
            Origin::SecretFile { path: file, .. } | Origin::Credential(file) => {
                read(&key, &origin, file, directory.as_deref(), &mut secrets).map(Value::String)
            }
            Origin::Default | Origin::File { .. } | Origin::Flag(_) => None,
        };
        if let Some(value) = value {
            secrets.found.push((path, origin, value));
        }
    }
    secrets
}

/// The secrets of the keyring that are ours. What is wrong with it is a problem: somebody built this in to have it used.
#[cfg(feature = "keyring")]
fn in_keyring(environment: &Environment, secrets: &mut Secrets) -> Vec<(String, String)> {
    let problem = |key: &str, what: String, hint: &str| Problem {
        origin: Origin::Keyring,
        key: key.to_owned(),
        what,
        hint: hint.to_owned(),
    };
    let entries = match super::keyring::entries(environment) {
        Ok(entries) => entries,
        Err(error) => {
            let hint = "unlock it, or unset DBUS_SESSION_BUS_ADDRESS to do without";
            secrets.problems.push(problem("", error.to_string(), hint));
            return Vec::new();
        }
    };
    let mut known = Vec::new();
    root().for_each_leaf(&mut |path, shape| {
        if *shape == Shape::Secret {
            known.push(path.to_owned());
        }
    });
    entries
        .into_iter()
        .filter(|(key, _)| {
            let ours = known.contains(key);
            if !ours {
                let hint = "store it under its key, for example: secret-tool store --label OxiBot service oxibot key \
                            providers.openrouter.apiKey";
                secrets.problems.push(problem(&super::reader::quoted(key), "no such secret".into(), hint));
            }
            ours
        })
        .collect()
}

/// The files of the credentials directory that are ours: named as the key, `providers.openrouter.apiKey`.
fn credentials(directory: &Path, secrets: &mut Secrets) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            secrets.problems.push(Problem {
                origin: Origin::Variable("CREDENTIALS_DIRECTORY".into()),
                key: String::new(),
                what: format!("cannot list {}: {error}", directory.display()),
                hint: "let systemd set it, or unset it".into(),
            });
            return found;
        }
    };
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    root().for_each_leaf(&mut |path, shape| {
        known.insert(path.to_owned(), *shape == Shape::Secret);
    });
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Other credentials of the same unit are not our business.
        if !name.contains('.') || name.split('.').next().is_none_or(|section| root().field(section).is_none())
        {
            continue;
        }
        if known.get(&name) == Some(&true) {
            found.push((name, entry.path()));
            continue;
        }
        let near = oxibot_proto::nearest::nearest(
            &name,
            known.iter().filter(|(_, secret)| **secret).map(|(key, _)| key.as_str()),
        );
        secrets.problems.push(Problem {
            origin: Origin::Credential(entry.path()),
            key: super::reader::quoted(&name),
            what: "no such secret".into(),
            hint: near.map_or_else(
                || "name the credential as its key, for example providers.openrouter.apiKey".into(),
                |near| format!("did you mean {near}?"),
            ),
        });
    }
    found
}

/// Reads one secret; what is wrong is put to the problems.
fn read(
    key: &str,
    origin: &Origin,
    path: &Path,
    credentials: Option<&Path>,
    secrets: &mut Secrets,
) -> Option<String> {
    let problem =
        |what: String, hint: String| Problem { origin: origin.clone(), key: key.to_owned(), what, hint };
    let contents = match file::read(path, Links::Follow, MAX_SECRET_BYTES, credentials) {
        Ok(Some(contents)) => contents,
        Ok(None) => {
            secrets
                .problems
                .push(problem("there is no such file".into(), "create it, or name another".into()));
            return None;
        }
        Err(ConfigError::Unreadable { cause, hint, .. }) => {
            secrets.problems.push(problem(cause, hint));
            return None;
        }
        Err(other) => {
            secrets.problems.push(problem(other.to_string(), other.hint()));
            return None;
        }
    };
    secrets.files.push(path.to_path_buf());
    if contents.is_readable_by_others() {
        let what = format!("others may read this file (mode {:04o})", contents.mode);
        match contents.excuse {
            None => {
                secrets.problems.push(problem(what, format!("run `chmod 600 {}`", shell(path))));
                return None;
            }
            // Inside systemd's own directory the mode is systemd's business and nobody else gets there.
            Some(excuse) if !matches!(origin, Origin::Credential(_)) => {
                secrets.warnings.push(problem(what, format!("accepted, because {excuse}")));
            }
            Some(_) => {}
        }
    }
    let Ok(text) = std::str::from_utf8(&contents.bytes) else {
        secrets.problems.push(problem("is not UTF-8".into(), "write the secret as text, on one line".into()));
        return None;
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        secrets.problems.push(problem("the file is empty".into(), "write the secret into it".into()));
        return None;
    }
    Some(text.to_owned())
}
