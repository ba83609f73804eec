//! The configuration: whether it can be used, what is doubtful in it, what is not chosen yet, which workspace it gives.
//!
//! A key, model or file that is not there is information: OxiBot runs without. What each list of people means is in
//! `channels`.

use std::path::{Path, PathBuf};

use crate::config::{ConfigError, KEYLESS, Loaded, Problem};

use super::report::Check;

/// What is known of the configuration.
#[derive(Debug, Clone)]
pub(super) struct ConfigurationFacts {
    /// The values, or why there are none.
    pub(super) loaded: Result<Loaded, ConfigError>,
    /// Workspaces the toolhost admits, the default first; none when it does not run.
    pub(super) admitted: Option<Vec<PathBuf>>,
    /// The configured workspace without links, where it exists.
    pub(super) workspace: Option<PathBuf>,
}

impl ConfigurationFacts {
    /// Takes what was read, and where the workspace really is.
    pub(super) fn gather(loaded: Result<Loaded, ConfigError>, admitted: Option<Vec<PathBuf>>) -> Self {
        let workspace = loaded.as_ref().ok().and_then(|loaded| loaded.paths.workspace.canonicalize().ok());
        Self { loaded, admitted, workspace }
    }
}

/// Whether it can be used.
pub(super) fn file(facts: &ConfigurationFacts) -> Vec<Check> {
    let id = "configuration.file";
    vec![match &facts.loaded {
        Err(error) => {
            Check::fail(id, error.to_string(), "nothing starts until it is corrected", error.hint())
        }
        Ok(loaded) if loaded.file_found => Check::ok(
            id,
            format!("{} is valid, every key in it is known", loaded.paths.config_file.display()),
        ),
        Ok(loaded) => Check::info(
            id,
            format!("{} is not there", loaded.paths.config_file.display()),
            "defaults hold",
            "oxibot onboard",
        ),
    }]
}

/// What is doubtful in it and not said by another check.
pub(super) fn doubts(facts: &ConfigurationFacts) -> Vec<Check> {
    let Ok(loaded) = &facts.loaded else { return Vec::new() };
    loaded.warnings.iter().filter(|warning| !said_elsewhere(warning)).map(doubt).collect()
}

fn said_elsewhere(warning: &Problem) -> bool {
    let parts: Vec<&str> = warning.key.split('.').collect();
    matches!(parts.as_slice(), ["gateway", "host"] | ["channels", _] | ["channels", _, "allowedUsers"])
}

fn doubt(warning: &Problem) -> Check {
    let key = if warning.key.is_empty() { "exposure" } else { &warning.key };
    let found = format!("{}: {}", warning.origin, warning.what);
    Check::warn(
        format!("configuration.{key}"),
        found,
        "it is accepted, and may not be what you mean",
        &warning.hint,
    )
}

/// The model, and whether its provider has a key.
pub(super) fn model(facts: &ConfigurationFacts) -> Vec<Check> {
    let Ok(loaded) = &facts.loaded else { return Vec::new() };
    let id = "configuration.model";
    let Some(model) = &loaded.config.agents.defaults.model else {
        return vec![Check::info(
            id,
            "none is chosen",
            "`oxibot agent` has nobody to ask; demo and tools work",
            "oxibot onboard",
        )];
    };
    let provider = model.split('/').next().unwrap_or_default();
    let known = loaded.config.providers.get(provider);
    let has_key =
        known.is_some_and(|provider| provider.api_key.is_some() || !provider.extra_headers.is_empty());
    if has_key || KEYLESS.contains(&provider) || known.is_some_and(|provider| provider.api_base.is_some()) {
        return vec![Check::ok(id, model)];
    }
    vec![Check::info(
        id,
        format!("{model}, and no key for {provider}"),
        "the provider will refuse; demo and tools work",
        "oxibot onboard",
    )]
}

/// The workspace, and whether the toolhost admits it.
pub(super) fn workspace(facts: &ConfigurationFacts) -> Vec<Check> {
    let Ok(loaded) = &facts.loaded else { return Vec::new() };
    let id = "configuration.workspace";
    let path = facts.workspace.as_deref().unwrap_or(&loaded.paths.workspace);
    let shown = path.display();
    vec![match &facts.admitted {
        None => Check::info(id, format!("{shown}, not judged: no toolhost runs"), "", "see sandbox.toolhost"),
        Some(admitted) if admitted.iter().any(|one| one == path) => {
            Check::ok(id, format!("{shown} is admitted"))
        }
        Some(admitted) => Check::warn(
            id,
            format!("{shown} is not what the toolhost works in: {}", list(admitted)),
            "files of the configured workspace are not reached by tools",
            "set agents.defaults.workspace to one directory of your own, for example ~/.oxibot/workspace",
        ),
    }]
}

fn list(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> =
        paths.iter().map(|path: &PathBuf| Path::new(path).display().to_string()).collect();
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;
    use crate::config::{Environment, Options, load};

    fn facts(text: Option<&str>) -> ConfigurationFacts {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            let file = home.path().join("config.json");
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let options = Options { home: Some(home.path().into()), config: None };
        let loaded = load(&options, &Environment::of(&[("HOME", "/nonexistent")]));
        ConfigurationFacts::gather(loaded, None)
    }

    fn one(checks: Vec<Check>) -> Check {
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn a_file_is_valid_absent_or_wrong_with_its_place() {
        assert_eq!(one(file(&facts(Some("{}")))).state, State::Ok);
        assert_eq!(one(file(&facts(None))).state, State::Info);
        let unknown = one(file(&facts(Some("{\"tolls\": {}}"))));
        assert_eq!(unknown.state, State::Fail);
        assert!(unknown.found.contains("unknown key") && unknown.remedy.contains("tools"), "{unknown:?}");
    }

    #[test]
    fn doubts_are_named_by_key_and_not_said_twice() {
        assert_eq!(doubts(&facts(Some("{}"))), []);
        let facts = facts(Some(
            r#"{"tools":{"restrictToWorkspace":false},"gateway":{"host":"0.0.0.0"},
                "channels":{"telegram":{"token":"t"},"discord":{"allowedUsers":["1"]}}}"#,
        ));
        let doubts = doubts(&facts);
        let ids: Vec<&str> = doubts.iter().map(|check| check.id.as_str()).collect();
        assert_eq!(ids, ["configuration.tools.restrictToWorkspace"]);
        assert_eq!(doubts[0].state, State::Warn);
    }

    #[test]
    fn model_and_key_that_are_not_there_are_information() {
        let state = |text| one(model(&facts(Some(text)))).state;
        assert_eq!(state("{}"), State::Info);
        assert_eq!(state(r#"{"agents":{"defaults":{"model":"openai/gpt-4o"}}}"#), State::Info);
        assert_eq!(
            state(
                r#"{"agents":{"defaults":{"model":"openai/gpt-4o"}},"providers":{"openai":{"apiKey":"k"}}}"#
            ),
            State::Ok
        );
        assert_eq!(state(r#"{"agents":{"defaults":{"model":"ollama/llama3.2"}}}"#), State::Ok);
    }

    #[test]
    fn workspace_is_judged_by_the_toolhost() {
        let with = |admitted: Option<Vec<PathBuf>>| {
            let mut facts = facts(Some("{}"));
            facts.workspace = Some("/w".into());
            one(workspace(&ConfigurationFacts { admitted, ..facts }))
        };
        assert_eq!(with(Some(vec!["/w".into()])).state, State::Ok);
        assert_eq!(with(Some(vec!["/other".into()])).state, State::Warn);
        assert_eq!(with(None).state, State::Info);
    }
}
