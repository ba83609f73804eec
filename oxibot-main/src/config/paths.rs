//! Where OxiBot keeps its things: home, configuration file, state, workspace.
//!
//! It names paths and makes our own private directories; it opens nothing in a workspace.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::agents::DEFAULT_WORKSPACE;
use super::environment::Environment;
use super::error::ConfigError;
use super::{Config, Options};

/// The places of one OxiBot. All are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `--home`, `OXIBOT_HOME` or `~/.oxibot`.
    pub home: PathBuf,
    /// `--config` or `config.json` in the home.
    pub config_file: PathBuf,
    /// Main's own database and the like: `state` in the home.
    pub state: PathBuf,
    /// The default workspace.
    pub workspace: PathBuf,
}

impl Paths {
    /// Finds them without reading a file; the workspace is the default until a configuration says otherwise.
    ///
    /// # Errors
    /// When nothing says where the home is.
    pub fn find(options: &Options, environment: &Environment) -> Result<Self, ConfigError> {
        let home = match (&options.home, environment.get("OXIBOT_HOME")) {
            (Some(home), _) => home.clone(),
            (None, Some(home)) if home.is_empty() => {
                return Err(ConfigError::Home("OXIBOT_HOME is empty".into()));
            }
            (None, Some(home)) => expand(Path::new(home), environment)?,
            (None, None) => user_home(environment)?.join(".oxibot"),
        };
        let home = absolute(&home)?;
        let config_file = match &options.config {
            Some(file) => absolute(file)?,
            None => home.join("config.json"),
        };
        Ok(Self { state: home.join("state"), workspace: home.join("workspace"), home, config_file })
    }

    /// Takes the workspace from the configuration, if it says one.
    pub(crate) fn with_workspace(
        mut self,
        config: &Config,
        said: bool,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let workspace = &config.agents.defaults.workspace;
        if said || (workspace != DEFAULT_WORKSPACE) {
            self.workspace = absolute(&expand(Path::new(workspace), environment)?)?;
        }
        Ok(self)
    }

    /// Makes home and state, 0700, where they are not there yet.
    ///
    /// # Errors
    /// Whatever the kernel says; an existing directory is left as it is.
    pub fn make_private_directories(&self) -> io::Result<()> {
        make_private(&self.home)?;
        make_private(&self.state)
    }
}

/// A directory and its missing parents, 0700.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// `~` and `~/...` below the user's home; everything else as it is.
pub(crate) fn expand(path: &Path, environment: &Environment) -> Result<PathBuf, ConfigError> {
    match path.strip_prefix("~") {
        Ok(rest) if rest.as_os_str().is_empty() => user_home(environment),
        Ok(rest) => Ok(user_home(environment)?.join(rest)),
        Err(_) => Ok(path.to_path_buf()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|error| ConfigError::Home(format!("{}: {error}", path.display())))
}

fn user_home(environment: &Environment) -> Result<PathBuf, ConfigError> {
    if let Some(home) = environment.get("HOME").filter(|home| Path::new(home).is_absolute()) {
        return Ok(PathBuf::from(home));
    }
    match nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        Ok(Some(user)) if user.dir.is_absolute() => Ok(user.dir),
        Ok(_) => {
            Err(ConfigError::Home("HOME is not set and this user has no entry in the user database".into()))
        }
        Err(errno) => Err(ConfigError::Home(format!("HOME is not set and the user database says: {errno}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(home: Option<&str>, config: Option<&str>, variables: &[(&str, &str)]) -> Paths {
        let options = Options { home: home.map(Into::into), config: config.map(Into::into) };
        Paths::find(&options, &Environment::of(variables)).unwrap()
    }

    #[test]
    fn home_is_option_then_variable_then_default() {
        let user = ("HOME", "/home/u");
        assert_eq!(find(None, None, &[user]).home, Path::new("/home/u/.oxibot"));
        assert_eq!(find(None, None, &[user]).config_file, Path::new("/home/u/.oxibot/config.json"));
        assert_eq!(find(None, None, &[user, ("OXIBOT_HOME", "/srv/o")]).home, Path::new("/srv/o"));
        assert_eq!(find(None, None, &[user, ("OXIBOT_HOME", "~/o")]).home, Path::new("/home/u/o"));
        assert_eq!(find(Some("/a"), None, &[user, ("OXIBOT_HOME", "/srv/o")]).home, Path::new("/a"));
        assert_eq!(find(Some("/a"), Some("/etc/c.json"), &[]).config_file, Path::new("/etc/c.json"));
        assert_eq!(find(Some("/a"), None, &[]).state, Path::new("/a/state"));
    }

    #[test]
    fn an_empty_home_is_an_error() {
        let options = Options::default();
        assert!(matches!(
            Paths::find(&options, &Environment::of(&[("OXIBOT_HOME", "")])),
            Err(ConfigError::Home(_))
        ));
    }
}
