//! `oxibot onboard`: the first set-up. A provider, its key tried by a real call, a model from the list it offers.
//!
//! It writes the configuration and nothing else: the first files of the workspace go back to the caller, who hands
//! them to the toolhost. It overwrites no value that was set and no file that is there.

mod console;
mod import;
mod ollama;
mod templates;
mod wizard;

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::file::{self, Existing, Links, MAX_CONFIG_BYTES, shell};
use crate::config::{
    ConfigError, EXIT_CONFIGURATION, Environment, Loaded, Options, ProviderConfig, load, parse,
};

pub use self::console::{Console, NoAnswer};
pub use self::ollama::{OLLAMA, find as find_ollama};
pub use self::templates::{TEMPLATES, Template};

/// What tries a provider. The command line's part of the program connects it with the provider module.
pub trait ProviderProbe {
    /// Names of the models on offer, without the provider's prefix. One real call, with the key.
    ///
    /// # Errors
    /// Whether the key was refused or something else failed.
    fn list_models(&mut self, name: &str, provider: &ProviderConfig) -> Result<Vec<String>, ProbeError>;

    /// Models of the ollama on this machine, if one runs.
    fn local_ollama(&mut self) -> Option<Vec<String>> {
        find_ollama(OLLAMA)
    }
}

/// Why a provider could not be tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It answered that the key is wrong.
    #[error("the key was refused: {0}")]
    KeyRefused(String),
    /// Anything else: no network, another answer.
    #[error("cannot ask for the models: {0}")]
    Failed(String),
}

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Where home and file are.
    pub options: &'a Options,
    /// The environment, from which `--yes` takes everything.
    pub environment: &'a Environment,
    /// `--import FILE`.
    pub import: Option<&'a Path>,
    /// `--yes`: ask nothing.
    pub yes: bool,
}

/// What was done.
#[derive(Debug)]
pub struct Onboarded {
    /// The configuration as it is now.
    pub loaded: Loaded,
    /// Whether the file was written.
    pub written: bool,
    /// Files for the workspace (`loaded.paths.workspace`), to be written through the toolhost where none is.
    pub templates: &'static [Template],
}

/// Why there is no set-up.
#[derive(Debug, thiserror::Error)]
pub enum OnboardError {
    /// The person ended it; nothing was written.
    #[error("cancelled; nothing was written")]
    Cancelled,
    /// The terminal.
    #[error("{0}")]
    Terminal(io::Error),
    /// The present or the older configuration, or what came out.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--import` over a file that is there.
    #[error("cannot import: {path} is there already")]
    AlreadyThere {
        /// The file.
        path: PathBuf,
    },
    /// `--yes`, and something has no answer.
    #[error("cannot choose {what} without asking")]
    Undecided {
        /// A provider or a model.
        what: &'static str,
        /// What to set.
        hint: String,
    },
    /// The provider does not accept what was given.
    #[error("cannot use {provider}: {cause}")]
    Provider {
        /// Its name.
        provider: String,
        /// What it said.
        cause: ProbeError,
    },
    /// The file.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

impl OnboardError {
    /// Exit status.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Cancelled => 130,
            Self::Config(_) | Self::Undecided { .. } => EXIT_CONFIGURATION,
            Self::Terminal(_) | Self::AlreadyThere { .. } | Self::Provider { .. } | Self::Write { .. } => 1,
        }
    }

    /// What to do, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Cancelled => "run `oxibot onboard` again".into(),
            Self::Terminal(_) => "run it in a terminal, or give --yes".into(),
            Self::Config(error) => error.hint(),
            Self::AlreadyThere { path } => {
                format!("move it away first: mv {} {}.old", shell(path), shell(path))
            }
            Self::Undecided { hint, .. } => hint.clone(),
            Self::Provider { .. } => "correct the key or the address, and run `oxibot onboard` again".into(),
            Self::Write { .. } => "check that the directory is yours and the disk not full".into(),
        }
    }
}

impl From<NoAnswer> for OnboardError {
    fn from(error: NoAnswer) -> Self {
        match error {
            NoAnswer::Cancelled => Self::Cancelled,
            NoAnswer::Io(error) => Self::Terminal(error),
        }
    }
}

/// Sets OxiBot up. Blocks for answers and for the probe's calls.
///
/// # Errors
/// See [`OnboardError`]. Nothing is written then, unless the error is about the last step.
pub fn run(
    request: &Request<'_>,
    probe: &mut dyn ProviderProbe,
    console: &mut Console<'_>,
) -> Result<Onboarded, OnboardError> {
    let loaded = load(request.options, request.environment)?;
    let path = loaded.paths.config_file.clone();
    let mut tree = match request.import {
        Some(_) if loaded.file_found => return Err(OnboardError::AlreadyThere { path }),
        Some(old) => import(old, console)?,
        None => present(&path)?,
    };
    let before = tree.clone();
    // What is in the environment counts as answered; what an import brought is read as the file it will be.
    let known = if request.import.is_some() {
        parse(tree.to_string().as_bytes(), &path)?
    } else {
        loaded.config.clone()
    };
    if known.agents.defaults.model.is_some() || loaded.config.agents.defaults.model.is_some() {
        console.say("A model is chosen already; it stays.")?;
    } else {
        let answers = wizard::ask(request, &known, &loaded.origins, probe, console)?;
        answers.put_into(&mut tree);
    }
    let written = !loaded.file_found || tree != before;
    if written {
        write(&path, &tree, loaded.file_found)?;
        console.say(&format!("Written: {} (readable by you only)", path.display()))?;
    } else {
        console.say(&format!("Nothing to change: {}", path.display()))?;
    }
    let loaded = load(request.options, request.environment)?;
    Ok(Onboarded { loaded, written, templates: &TEMPLATES })
}

fn import(old: &Path, console: &mut Console<'_>) -> Result<Value, OnboardError> {
    let unreadable = |cause: &str| ConfigError::Unreadable {
        path: old.to_path_buf(),
        cause: cause.into(),
        hint: "name the config.json of an older OxiBot or of nanobot".into(),
    };
    let contents = file::read(old, Links::Follow, MAX_CONFIG_BYTES, None)?
        .ok_or_else(|| unreadable("there is no such file"))?;
    let imported = import::convert(&contents.bytes, old)?;
    console.say(&format!("Imported from {}:", old.display()))?;
    for note in &imported.notes {
        console.say(&format!("  - {note}"))?;
    }
    if imported.notes.is_empty() {
        console.say("  everything, unchanged")?;
    }
    if contents.is_readable_by_others() {
        console.say(&format!("Others may read the old file: chmod 600 {0}, or rm {0}", shell(old)))?;
    }
    Ok(imported.tree)
}

/// The file as it is, to be added to. It was judged when it was loaded.
fn present(path: &Path) -> Result<Value, OnboardError> {
    let Some(contents) = file::read(path, Links::Refuse, MAX_CONFIG_BYTES, None)? else {
        return Ok(Value::Object(Map::new()));
    };
    Ok(serde_json::from_slice(&contents.bytes).unwrap_or_else(|_| Value::Object(Map::new())))
}

/// Checks what will be written as strictly as any file, keeps a copy of what was there, then writes.
fn write(path: &Path, tree: &Value, replace: bool) -> Result<(), OnboardError> {
    let failed = |cause: io::Error| OnboardError::Write { path: path.to_path_buf(), cause };
    let mut text = zeroize::Zeroizing::new(
        serde_json::to_vec_pretty(tree).map_err(|error| failed(io::Error::other(error)))?,
    );
    text.push(b'\n');
    parse(&text, path)?;
    if let Some(directory) = path.parent() {
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700)
            .create(directory)
            .map_err(failed)?;
    }
    if replace {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".before-onboard");
        let old = file::read(path, Links::Refuse, MAX_CONFIG_BYTES, None)?;
        if let Some(old) = old {
            file::write_private(&path.with_file_name(name), &old.bytes, Existing::Replace).map_err(failed)?;
        }
    }
    let existing = if replace { Existing::Replace } else { Existing::Keep };
    file::write_private(path, &text, existing).map_err(failed)
}

#[cfg(test)]
mod tests;
