//! What can be wrong with a configuration, and where a value came from.
//!
//! No text here ever holds the value of a secret: problems are made from keys, kinds and places.

use std::fmt;
use std::path::{Path, PathBuf};

/// Exit status of every error of configuration (`EX_CONFIG`).
pub const EXIT_CONFIGURATION: u8 = 78;

/// Where a value came from, or a problem lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// Line, from 1; 0 when the problem is the file as a whole.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A file that an environment variable names.
    SecretFile {
        /// The variable.
        variable: String,
        /// The file.
        path: PathBuf,
    },
    /// A file of systemd's credentials directory.
    Credential(PathBuf),
    /// The desktop's keyring.
    Keyring,
    /// An option of the command line.
    Flag(String),
}

impl Origin {
    /// The file as a whole.
    #[must_use]
    pub fn whole_file(path: &Path) -> Self {
        Self::File { path: path.to_path_buf(), line: 0, column: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::SecretFile { variable, path } => write!(f, "{variable}={}", path.display()),
            Self::Credential(path) => write!(f, "{}", path.display()),
            Self::Keyring => f.write_str("the keyring"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it lies.
    pub origin: Origin,
    /// The key, for example `channels.telegram.token`; empty when it is the file as a whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Why there is no configuration. Whatever the variant, nothing starts and the exit status is 78.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Neither option nor environment says where the home is.
    #[error("cannot find the home directory: {0}")]
    Home(String),
    /// The file is there and cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// The file is no JSON.
    #[error("cannot parse {path}, line {line}, column {column}: {cause}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser expected.
        cause: String,
    },
    /// Values that cannot be used: all of them, in the order found.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    /// Something a command needs was never set.
    #[error("{key} is not set")]
    Missing {
        /// The key.
        key: &'static str,
        /// The command that sets it.
        command: &'static str,
    },
}

impl ConfigError {
    /// Exit status: always [`EXIT_CONFIGURATION`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        EXIT_CONFIGURATION
    }

    /// Kind, as JSON output names it: always `configuration`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        "configuration"
    }

    /// What to do, in one line.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Home(_) => "set OXIBOT_HOME or give --home DIR".into(),
            Self::Unreadable { hint, .. } => hint.clone(),
            Self::Syntax { .. } => {
                "correct the file; nothing starts with a file that is not valid JSON".into()
            }
            Self::Invalid(problems) => match problems.as_slice() {
                [one] => one.hint.clone(),
                _ => "correct each of them; `oxibot config check` lists them again".into(),
            },
            Self::Missing { key, command } => {
                let variable = super::environment::variable_of(key);
                format!("run `{command}`, or set {key} in the configuration or {variable} in the environment")
            }
        }
    }
}
