//! Why a command could not even begin: one error, what to do about it, the exit status.

use crate::broker::BrokerError;
use crate::cli::Global;
use crate::config::{self, ConfigError, Environment, Loaded};
use crate::confine::{ConfineError, Confined};
use crate::exit::Exit;
use crate::launch::LaunchError;
use crate::render::report::error_object;
use crate::render::terminal;

use super::options;

/// A command could not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// How the process ends.
    pub exit: Exit,
    /// Stable name of the kind.
    pub kind: &'static str,
    /// What is wrong; possibly several lines.
    pub message: String,
    /// What to do; possibly empty.
    pub hint: String,
}

impl Fault {
    /// Without a hint.
    #[must_use]
    pub fn new(exit: Exit, kind: &'static str, message: String) -> Self {
        Self { exit, kind, message, hint: String::new() }
    }

    /// With what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Says so: on standard error, or as one JSON object on standard output.
    pub fn report(&self, json: bool) -> Exit {
        if json {
            // Standard output that cannot be written leaves the exit status, which says the same.
            drop(terminal::out(&error_object(self.kind, &self.message, &self.hint)));
        } else {
            if !self.message.is_empty() {
                terminal::complain(&crate::render::neutral::text(&self.message));
            }
            if !self.hint.is_empty() {
                terminal::note(&format!("  {}", self.hint));
            }
        }
        self.exit
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Configuration, "configuration", error.to_string()).with_hint(error.hint())
    }
}

impl From<LaunchError> for Fault {
    fn from(error: LaunchError) -> Self {
        Self::new(Exit::Internal, "launch", error.to_string()).with_hint(error.hint())
    }
}

impl From<ConfineError> for Fault {
    fn from(error: ConfineError) -> Self {
        Self::new(Exit::Internal, "confinement", error.to_string())
            .with_hint("nothing runs in a process that is not confined; see `oxibot doctor`")
    }
}

impl Fault {
    /// Kind of a toolhost that refused to start.
    pub(super) const REFUSED: &str = "toolhost";

    /// The toolhost refused to start and said why.
    pub(super) fn refused(reason: &str, configuration: bool) -> Self {
        let exit = if configuration { Exit::Configuration } else { Exit::Internal };
        let message = format!("the toolhost {}", crate::render::neutral::text(reason));
        Self::new(exit, Self::REFUSED, message)
            .with_hint("`oxibot doctor` and `oxibot sandbox status` show what this machine gives")
    }
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        Self::new(Exit::Internal, "toolhost", error.to_string()).with_hint("see `oxibot doctor`")
    }
}

/// Reads the configuration as every command does.
pub(super) fn load_quietly(global: &Global) -> Result<Loaded, ConfigError> {
    config::load(&options(global), &Environment::of_process())
}

/// As [`load_quietly`], and starts the log it asks for; says what is doubtful.
pub(super) fn load(global: &Global) -> Result<Loaded, Fault> {
    let loaded = load_quietly(global)?;
    crate::logging::start(global, &loaded.config.logging)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// Says what this kernel lacks altogether for main's own confinement.
pub(super) fn warn_of(confined: &Confined) {
    for missing in confined.absent() {
        terminal::complain(&format!("warning: {missing}"));
    }
}
