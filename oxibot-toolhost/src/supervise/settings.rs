//! Reads the sections the toolhost obeys out of the configuration file, in a short-lived child.
//!
//! The child parses the whole file, keeps `tools`, `sandbox`, `limits`, `policy`, `approvals`, `audit` and the workspace, and
//! prints only these, so
//! that no key or token of the other sections ever is in the supervisor's memory. Main checks the rest of the file.
//! Error texts name keys and positions, never values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use oxibot_proto::message::Level;
use oxibot_proto::nearest::nearest;
use oxibot_proto::settings::{
    Approvals, Audit, Exec, Limits, MAX_ALLOW_PRIVATE, MAX_TIMEOUT_SECONDS, Policy, Sandbox,
    ToolhostSettings, Tools, WebAccess,
};
use oxibot_proto::web::Exceptions;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{arguments, log};
use crate::shell;

/// Largest configuration file, and largest answer of the child. Prevents a device or a log from being read whole.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Variables that may override a setting, by the start of their name. Everything else stays out of the child.
const OVERRIDES: [&str; 7] = [
    "OXIBOT_TOOLS__",
    "OXIBOT_SANDBOX__",
    "OXIBOT_LIMITS__",
    "OXIBOT_POLICY__",
    "OXIBOT_APPROVALS__",
    "OXIBOT_AUDIT__",
    "OXIBOT_WEB__",
];
/// Below this one the search key may be given, which the toolhost must not know.
const SECRETS: &str = "OXIBOT_TOOLS__WEB__";
/// The one override outside our sections.
const WORKSPACE_OVERRIDE: &str = "OXIBOT_AGENTS__DEFAULTS__WORKSPACE";
/// And the one that says who shares it.
const SCOPE_OVERRIDE: &str = "OXIBOT_AGENTS__WORKSPACE_SCOPE";

/// Objects we read. serde would also take an array in their place, by position.
const SECTIONS: [&str; 15] = [
    "",
    "/tools",
    "/tools/exec",
    "/tools/bash",
    "/sandbox",
    "/sandbox/git",
    "/limits",
    "/policy",
    "/policy/unknown",
    "/web",
    "/limits/senders",
    "/approvals",
    "/audit",
    "/agents",
    "/agents/defaults",
];

/// The configuration cannot be obeyed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SettingsError {
    #[error("cannot read {path}: {cause}")]
    Read { path: String, cause: String },
    #[error("cannot use {path}: {cause}")]
    Syntax { path: String, cause: String },
    #[error("cannot use the environment variable {name}: {cause}")]
    Variable { name: String, cause: String },
    #[error("cannot use {key}: {cause}")]
    Value { key: &'static str, cause: String },
    #[error(transparent)]
    Policy(#[from] shell::PolicyError),
    #[error("cannot read the configuration: {0}")]
    Child(String),
    /// What the child found wrong, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// Role `settings`: reads, checks, prints the sections as JSON.
pub(crate) fn role(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let result = arguments::settings(arguments)
        .map_err(|error| SettingsError::Child(error.to_string()))
        .and_then(|file| extract_file(file.as_deref(), &environment()));
    match result {
        Ok(settings) => {
            let printed = serde_json::to_string(&settings)
                .map_err(|error| error.to_string())
                .and_then(|text| writeln!(std::io::stdout(), "{text}").map_err(|error| error.to_string()));
            match printed {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(70),
            }
        }
        Err(error) => {
            log::always(&error.to_string());
            ExitCode::from(78)
        }
    }
}

fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| is_override(name))
        .collect()
}

fn is_override(name: &str) -> bool {
    let ours = OVERRIDES.iter().any(|prefix| name.starts_with(prefix));
    name == WORKSPACE_OVERRIDE || name == SCOPE_OVERRIDE || (ours && !name.starts_with(SECRETS))
}

/// Runs the child and takes its answer. Blocks until it ends; the launcher watches over us.
pub(crate) fn read(file: Option<&Path>) -> Result<ToolhostSettings, SettingsError> {
    let child_error = |error: std::io::Error| SettingsError::Child(error.to_string());
    // The child's own /proc/self/exe is this very program, whatever its path means by now.
    let mut command = Command::new("/proc/self/exe");
    command.arg("settings").env_clear().envs(environment());
    if let Some(file) = file {
        command.arg("--file").arg(file);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(child_error)?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_FILE).read_to_string(&mut text).map_err(child_error)?;
    }
    // It says at most a line there, so neither pipe can fill while the other is read.
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_FILE).read_to_string(&mut said).map_err(child_error)?;
    }
    let status = child.wait().map_err(child_error)?;
    if !status.success() {
        let said = said.trim().trim_start_matches("oxibot-toolhost: ");
        return Err(if said.is_empty() {
            SettingsError::Child(format!("it ended with {status}"))
        } else {
            SettingsError::Refused(said.to_owned())
        });
    }
    serde_json::from_str(&text).map_err(|error| SettingsError::Child(error.to_string()))
}

fn extract_file(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Result<ToolhostSettings, SettingsError> {
    let Some(path) = file else { return extract("{}", "the defaults", environment) };
    let shown = path.display().to_string();
    let read_error = |cause: String| SettingsError::Read { path: shown.clone(), cause };
    let mut text = String::new();
    let opened = std::fs::File::open(path).map_err(|error| read_error(error.to_string()))?;
    opened.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| read_error(error.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(read_error(format!("it is larger than {MAX_FILE} bytes")));
    }
    extract(&text, &shown, environment)
}

/// The whole file as far as we read it. Unknown sections are main's to refuse.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Whole {
    tools: ToolsSection,
    sandbox: Sandbox,
    limits: Limits,
    policy: Policy,
    web: WebAccess,
    approvals: Approvals,
    audit: Audit,
    agents: AgentsSection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ToolsSection {
    restrict_to_workspace: bool,
    #[serde(alias = "bash")]
    exec: Exec,
    disabled: Vec<String>,
    /// Read by main and the fetch worker; holds the search key, so it is skipped unread.
    #[serde(rename = "web")]
    _web: Option<IgnoredAny>,
    /// Not ours yet.
    #[serde(rename = "mcpServers")]
    _mcp_servers: Option<IgnoredAny>,
}

impl Default for ToolsSection {
    fn default() -> Self {
        let Tools { restrict_to_workspace, exec, disabled, web: _ } = Tools::default();
        Self { restrict_to_workspace, exec, disabled, _web: None, _mcp_servers: None }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AgentsSection {
    defaults: AgentDefaults,
    workspace_scope: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AgentDefaults {
    workspace: Option<String>,
}

fn extract(
    text: &str,
    shown: &str,
    environment: &BTreeMap<String, String>,
) -> Result<ToolhostSettings, SettingsError> {
    let syntax = |error: &serde_json::Error| SettingsError::Syntax {
        path: shown.to_owned(),
        cause: explain(&error.to_string()),
    };
    // The typed reading comes first, because only it knows line and column.
    let mut whole: Whole = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    let mut tree: Value = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    for section in SECTIONS {
        if !tree.pointer(section).is_none_or(Value::is_object) {
            let cause =
                format!("{} must be an object", if section.is_empty() { "the file" } else { section });
            return Err(SettingsError::Syntax { path: shown.to_owned(), cause });
        }
    }
    for (name, value) in environment {
        whole = overridden(&mut tree, name, value)?;
    }
    let ToolsSection { restrict_to_workspace, exec, disabled, .. } = whole.tools;
    let settings = ToolhostSettings {
        tools: Tools { restrict_to_workspace, exec, disabled, ..Tools::default() },
        sandbox: whole.sandbox,
        limits: whole.limits,
        policy: whole.policy,
        web: whole.web,
        approvals: whole.approvals,
        audit: whole.audit,
        workspaces: whole.agents.defaults.workspace.into_iter().collect(),
        people: whole.agents.workspace_scope.as_deref() != Some("shared"),
    };
    check(&settings)?;
    // Ours are tested where they are made; loading them costs a moment, which a start without own rules is spared.
    if settings.policy != Policy::default() {
        shell::Policy::load(&settings.policy)?;
    }
    Ok(settings)
}

/// Applies one variable `OXIBOT_A__B_C` as key `a.bC`: as JSON if that fits the key, as plain text otherwise.
fn overridden(tree: &mut Value, name: &str, value: &str) -> Result<Whole, SettingsError> {
    let path = key_path(name);
    let mut cause = String::new();
    // As main reads them: booleans may also be 1 and 0, which come last so that a number stays a number.
    let as_json = serde_json::from_str::<Value>(value).ok();
    let as_boolean = match value {
        "1" => Some(Value::Bool(true)),
        "0" => Some(Value::Bool(false)),
        _ => None,
    };
    for candidate in as_json.into_iter().chain([Value::String(value.to_owned())]).chain(as_boolean) {
        let mut attempt = tree.clone();
        set(&mut attempt, &path, candidate);
        match typed::<Whole>(&attempt) {
            Ok(whole) => {
                *tree = attempt;
                return Ok(whole);
            }
            // The first refusal is about the value as it looks; the others would only puzzle.
            Err(error) if cause.is_empty() => cause = error,
            Err(_) => {}
        }
    }
    Err(SettingsError::Variable { name: name.to_owned(), cause })
}

/// `OXIBOT_A__B_C` is `a.bC`; below `sandbox.env` a name is of the user's choice and taken as it is.
fn key_path(name: &str) -> Vec<String> {
    const FREE: &str = "SANDBOX__ENV__";
    let rest = name.strip_prefix("OXIBOT_").unwrap_or(name);
    match rest.strip_prefix(FREE) {
        Some(own) => vec!["sandbox".to_owned(), "env".to_owned(), own.to_owned()],
        None => rest.split("__").map(camel_case).collect(),
    }
}

fn typed<T: DeserializeOwned>(tree: &Value) -> Result<T, String> {
    T::deserialize(tree).map_err(|error| explain(&error.to_string()))
}

fn camel_case(segment: &str) -> String {
    let mut out = String::new();
    for (index, word) in segment.to_ascii_lowercase().split('_').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if index > 0 => out.extend(first.to_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.extend(letters);
    }
    out
}

fn set(tree: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(map) = tree {
        // Two names of one key in one object would be a duplicate: the older name gives way to the canonical one.
        let name = if first == "bash" { "exec" } else { first };
        if name == "exec"
            && let Some(older) = map.remove("bash")
        {
            map.insert(name.to_owned(), older);
        }
        set(map.entry(name.to_owned()).or_insert(Value::Null), rest, value);
    }
}

/// Takes quoted values out of a serde error and adds the nearest known key.
fn explain(error: &str) -> String {
    // serde quotes values as string "..." and names in backticks; only names may be shown.
    let mut text = String::new();
    let mut quoted = false;
    let mut escaped = false;
    for letter in error.chars() {
        match letter {
            '"' if !escaped => {
                quoted = !quoted;
                text.push('"');
            }
            _ if quoted => {}
            other => text.push(other),
        }
        escaped = quoted && letter == '\\' && !escaped;
    }
    if !text.contains("unknown field") && !text.contains("unknown variant") {
        return text;
    }
    let names: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let meant = names.split_first().and_then(|(unknown, known)| nearest(unknown, known.iter().copied()));
    match meant {
        Some(name) => format!("{text}; did you mean `{name}`?"),
        None => text,
    }
}

fn check(settings: &ToolhostSettings) -> Result<(), SettingsError> {
    let value = |key, cause: &str| Err(SettingsError::Value { key, cause: cause.to_owned() });
    let seconds = 1..=MAX_TIMEOUT_SECONDS;
    if settings.sandbox.require == Level::Off {
        return value("sandbox.require", "`off` is only to be had by --no-sandbox for one run");
    }
    if !seconds.contains(&settings.tools.exec.timeout) {
        return value("tools.exec.timeout", "it must be 1 to 600");
    }
    if !seconds.contains(&settings.limits.max_timeout_seconds) {
        return value("limits.maxTimeoutSeconds", "it must be 1 to 600");
    }
    let Limits {
        max_timeout_seconds: _,
        cpu_seconds,
        memory_mb,
        processes,
        file_size_mb,
        open_files,
        tmp_mb,
        senders,
    } = settings.limits;
    for (key, per_minute, burst) in [
        ("limits.senders.callBurst", senders.calls_per_minute, senders.call_burst),
        ("limits.senders.messageBurst", senders.messages_per_minute, senders.message_burst),
    ] {
        if per_minute > 0 && burst == 0 {
            return value(key, "it must be at least 1");
        }
    }
    if !(1..=1024).contains(&settings.audit.rotate_mb) {
        return value("audit.rotateMb", "it must be 1 to 1024");
    }
    for (key, limit, least) in [
        ("limits.cpuSeconds", cpu_seconds, 1),
        ("limits.memoryMb", memory_mb, 16),
        ("limits.processes", processes, 1),
        ("limits.fileSizeMb", file_size_mb, 1),
        ("limits.openFiles", open_files, 16),
        ("limits.tmpMb", tmp_mb, 1),
    ] {
        if limit < least {
            return value(key, &format!("it must be at least {least}"));
        }
    }
    for (key, paths) in [("sandbox.read", &settings.sandbox.read), ("sandbox.write", &settings.sandbox.write)]
    {
        if paths.iter().any(|path| !path.starts_with('/') && !path.starts_with("~/")) {
            return value(key, "its paths must be absolute");
        }
    }
    let good_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    if settings.sandbox.env.iter().any(|(name, value)| !good_name(name) || value.contains('\0')) {
        return value("sandbox.env", "a name is empty or holds `=`, or a value holds NUL");
    }
    let inside = |name: &String| {
        let path = PathBuf::from(name);
        path.components().count() > 0
            && path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    if !settings.sandbox.protect.iter().all(inside) {
        return value("sandbox.protect", "its names must be relative and without `..`");
    }
    if settings.web.allow_private.len() > MAX_ALLOW_PRIVATE {
        return value("web.allowPrivate", "it has too many entries");
    }
    match Exceptions::parse(&settings.web.allow_private) {
        Ok(_) => Ok(()),
        Err(cause) => value("web.allowPrivate", &cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<ToolhostSettings, SettingsError> {
        extract(text, "config.json", &BTreeMap::new())
    }

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<ToolhostSettings, SettingsError> {
        let map = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        extract(text, "config.json", &map)
    }

    #[test]
    fn only_our_sections_come_through_and_no_secret() {
        let settings = from(
            r#"{"providers":{"openrouter":{"apiKey":"sk-secret"}},
                "tools":{"restrictToWorkspace":false,"bash":{"timeout":7},"web":{"search":{"apiKey":"BSA-secret"}}},
                "agents":{"defaults":{"workspace":"~/w","model":"x"}},"limits":{"tmpMb":9}}"#,
        )
        .unwrap();
        assert!(!settings.tools.restrict_to_workspace);
        assert_eq!((settings.tools.exec.timeout, settings.limits.tmp_mb), (7, 9));
        assert_eq!(settings.workspaces, ["~/w"]);
        assert!(!serde_json::to_string(&settings).unwrap().contains("secret"));
    }

    #[test]
    fn unknown_key_is_refused_with_position_and_nearest_name() {
        let error = from("{\n \"sandbox\": {\n  \"requires\": \"full\"}}").unwrap_err().to_string();
        assert!(error.contains("line 3 column 12"), "{error}");
        assert!(error.contains("did you mean `require`?"), "{error}");
    }

    #[test]
    fn values_are_never_in_the_error() {
        for text in [
            r#"{"limits":{"memoryMb":"se\"cret"}}"#,
            r#"{"sandbox":{"read":"secret"}}"#,
            r#"{"tools":"secret"}"#,
        ] {
            let error = from(text).unwrap_err().to_string();
            assert!(!error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn variables_override_the_file_with_their_type() {
        let settings = with(
            r#"{"tools":{"bash":{"timeout":7}}}"#,
            &[
                ("OXIBOT_TOOLS__EXEC__TIMEOUT", "9"),
                ("OXIBOT_SANDBOX__REQUIRE", "full"),
                ("OXIBOT_SANDBOX__READ", "[\"/opt\"]"),
                ("OXIBOT_SANDBOX__GIT__NAME", "1234"),
                ("OXIBOT_SANDBOX__ENV__My_VAR__X", "1"),
                ("OXIBOT_LIMITS__MAX_TIMEOUT_SECONDS", "100"),
                ("OXIBOT_AGENTS__DEFAULTS__WORKSPACE", "/w"),
            ],
        )
        .unwrap();
        assert_eq!((settings.tools.exec.timeout, settings.limits.max_timeout_seconds), (9, 100));
        assert_eq!((settings.sandbox.require, settings.sandbox.git.name.as_str()), (Level::Full, "1234"));
        assert_eq!(
            (settings.sandbox.read, settings.workspaces),
            (vec!["/opt".to_owned()], vec!["/w".to_owned()])
        );
    }

    #[test]
    fn booleans_are_strict_and_the_variable_is_named() {
        for (value, expected) in [("0", false), ("1", true), ("false", false)] {
            let settings = with("{}", &[("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", value)]).unwrap();
            assert_eq!(settings.tools.restrict_to_workspace, expected);
        }
        for value in ["yes", "2", "TRUE", ""] {
            let error =
                with("{}", &[("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", value)]).unwrap_err().to_string();
            assert!(error.contains("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE"), "{error}");
        }
        let error = with("{}", &[("OXIBOT_LIMITS__MEMROY_MB", "5")]).unwrap_err().to_string();
        assert!(error.contains("did you mean `memoryMb`?"), "{error}");
    }

    #[test]
    fn variables_that_may_hold_a_secret_stay_out() {
        assert!(
            is_override("OXIBOT_TOOLS__EXEC__TIMEOUT")
                && is_override(WORKSPACE_OVERRIDE)
                && is_override(SCOPE_OVERRIDE)
        );
        for name in ["OXIBOT_TOOLS__WEB__SEARCH__API_KEY", "OXIBOT_PROVIDERS__XAI__API_KEY", "PATH"] {
            assert!(!is_override(name), "{name}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for text in [
            r#"{"tools":{"exec":{"timeout":0}}}"#,
            r#"{"tools":{"exec":{"timeout":601}}}"#,
            r#"{"sandbox":{"require":"off"}}"#,
            r#"{"sandbox":{"env":{"A=B":"1"}}}"#,
            r#"{"sandbox":{"protect":["../x"]}}"#,
            r#"{"sandbox":{"write":["x"]}}"#,
            r#"{"limits":{"processes":0}}"#,
        ] {
            assert!(matches!(from(text), Err(SettingsError::Value { .. })), "{text}");
        }
    }

    #[test]
    fn garbage_is_one_error() {
        for text in ["", "[]", r#"{"limits":[1]}"#, "{", "{} x", "\u{feff}{}", "null"] {
            assert!(matches!(from(text), Err(SettingsError::Syntax { .. })), "{text:?}");
        }
    }
}
