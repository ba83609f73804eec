//! `oxibot config check | show | schema | path`: looks at the configuration and changes nothing.

use std::io::{self, Write};

use serde_json::Value;

use crate::config::{
    Config, ConfigError, EXIT_CONFIGURATION, Environment, Loaded, MASK, Options, Paths, load,
    published_schema,
};

/// Reads everything as every command does; prints each problem, or `ok` and each warning. Returns the exit status, 0
/// or 78.
///
/// # Errors
/// Those of the output.
pub fn check(options: &Options, environment: &Environment, out: &mut dyn Write) -> io::Result<u8> {
    match load(options, environment) {
        Ok(loaded) => {
            let file = loaded.paths.config_file.display();
            if loaded.file_found {
                writeln!(out, "ok: {file}")?;
            } else {
                writeln!(
                    out,
                    "ok: there is no {file}, and none is needed; everything else is at its default"
                )?;
            }
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            Ok(0)
        }
        Err(error) => {
            writeln!(out, "{error}")?;
            let count = match &error {
                ConfigError::Invalid(problems) => problems.len(),
                ConfigError::Home(_)
                | ConfigError::Unreadable { .. }
                | ConfigError::Syntax { .. }
                | ConfigError::Missing { .. } => {
                    // These carry what to do apart from the text; a list of problems has it in each line.
                    writeln!(out, "{}", error.hint())?;
                    1
                }
            };
            writeln!(
                out,
                "{count} {}: nothing starts until it is corrected",
                if count == 1 { "problem" } else { "problems" }
            )?;
            Ok(EXIT_CONFIGURATION)
        }
    }
}

/// Prints the value of every key in force, secrets masked, and where each that is no default came from.
///
/// # Errors
/// Those of the output.
pub fn show(loaded: &Loaded, out: &mut dyn Write) -> io::Result<u8> {
    let file = loaded.paths.config_file.display();
    writeln!(out, "# file: {file}{}", if loaded.file_found { "" } else { " (not there)" })?;
    writeln!(out, "# home: {}", loaded.paths.home.display())?;
    writeln!(out, "# workspace: {}", loaded.paths.workspace.display())?;
    for (key, value) in effective(&loaded.config) {
        match loaded.origins.get(&key) {
            Some(origin) => writeln!(out, "{key} = {}    # {origin}", printable(&value))?,
            None => writeln!(out, "{key} = {}", printable(&value))?,
        }
    }
    Ok(0)
}

/// Prints the JSON Schema of the file.
///
/// # Errors
/// Those of the output.
pub fn schema(out: &mut dyn Write) -> io::Result<u8> {
    serde_json::to_writer_pretty(&mut *out, &published_schema())?;
    writeln!(out)?;
    Ok(0)
}

/// Prints where the file is, or would be. Reads nothing.
///
/// # Errors
/// Those of the output; the inner one when there is no home.
pub fn path(
    options: &Options,
    environment: &Environment,
    out: &mut dyn Write,
) -> io::Result<Result<u8, ConfigError>> {
    match Paths::find(options, environment) {
        Ok(paths) => {
            writeln!(out, "{}", paths.config_file.display())?;
            Ok(Ok(0))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Every key that has a value, in order; secrets as [`MASK`].
fn effective(config: &Config) -> Vec<(String, Value)> {
    let tree = serde_json::to_value(config).unwrap_or_default();
    let mut values = Vec::new();
    for key in crate::config::keys() {
        let pointer = format!("/{}", key.replace('.', "/"));
        if key == "tools.web.search.apiKey" {
            if config.search_key.is_some() {
                values.push((key, Value::from(MASK)));
            }
        } else if let Some(value) = tree.pointer(&pointer) {
            values.push((key, value.clone()));
        }
    }
    values
}

/// JSON on one line in which nothing can steer a terminal.
fn printable(value: &Value) -> String {
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut text = String::new();
    for c in value.to_string().chars() {
        if invisible(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(text: &str) -> (tempfile::TempDir, Options) {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let options = Options { home: Some(directory.path().into()), config: None };
        (directory, options)
    }

    fn checked(text: &str) -> (u8, String) {
        let (_directory, options) = home(text);
        let mut out = Vec::new();
        let code = check(&options, &Environment::of(&[]), &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn check_says_ok_or_lists_every_problem() {
        assert_eq!(checked("{}").0, 0);
        assert!(checked("{}").1.starts_with("ok: "));
        let (code, said) = checked(r#"{"tolls":{},"gateway":{"port":0}}"#);
        assert_eq!(code, 78);
        assert!(said.contains("did you mean `tools`?") && said.contains("gateway.port"), "{said}");
        assert!(said.ends_with("2 problems: nothing starts until it is corrected\n"), "{said}");
        let (code, said) = checked("{");
        assert!(
            code == 78 && said.contains("line 1, column 1") && said.contains("correct the file"),
            "{said}"
        );
        let (code, said) = checked(r#"{"channels":{"email":{"allowedUsers":["a@b"]}}}"#);
        assert!(code == 0 && said.contains("warning: ") && said.contains("not configured"), "{said}");
    }

    #[test]
    fn show_masks_secrets_and_names_origins() {
        let (_directory, options) = home(
            r#"{"providers":{"xai":{"apiKey":"sk-one","extraHeaders":{"X-Key":"sk-two"}}},
            "agents":{"defaults":{"model":"xai/grok\u202e","temperature":0.7}},
            "tools":{"web":{"search":{"apiKey":"sk-three"}}}}"#,
        );
        let loaded =
            load(&options, &Environment::of(&[("HOME", "/"), ("OXIBOT_GATEWAY__PORT", "9000")])).unwrap();
        let mut out = Vec::new();
        show(&loaded, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        for line in [
            "gateway.port = 9000    # OXIBOT_GATEWAY__PORT\n",
            "gateway.host = \"127.0.0.1\"\n",
            "agents.defaults.temperature = 0.7    # ",
            "agents.defaults.model = \"xai/grok\\u202e\"    # ",
            "providers.xai.apiKey = \"***\"    # ",
            "providers.xai.extraHeaders = {\"X-Key\":\"***\"}    # ",
            "tools.web.search.apiKey = \"***\"    # ",
            "tools.restrictToWorkspace = true\n",
        ] {
            assert!(said.contains(line), "{line} in\n{said}");
        }
        assert!(said.contains("config.json:1:") && !said.contains("sk-"), "{said}");
    }

    #[test]
    fn path_needs_no_file() {
        let options = Options { home: Some("/nonexistent/home".into()), config: None };
        let mut out = Vec::new();
        path(&options, &Environment::of(&[]), &mut out).unwrap().unwrap();
        assert_eq!(out, b"/nonexistent/home/config.json\n");
    }

    #[test]
    fn the_schema_knows_older_names_and_refuses_unknown_ones() {
        let mut out = Vec::new();
        schema(&mut out).unwrap();
        let schema: Value = serde_json::from_slice(&out).unwrap();
        let telegram = schema.pointer("/properties/channels/properties/telegram").unwrap();
        let telegram = telegram.get("anyOf").and_then(|v| v.get(0)).unwrap_or(telegram);
        assert_eq!(telegram.pointer("/properties/allowFrom/deprecated"), Some(&Value::Bool(true)));
        assert_eq!(telegram.pointer("/additionalProperties"), Some(&Value::Bool(false)));
        assert_eq!(
            schema.pointer("/properties/tools/properties/exec/properties/timeout/maximum"),
            Some(&Value::from(600))
        );
        assert_eq!(schema.pointer("/properties/tools/properties/bash/deprecated"), Some(&Value::Bool(true)));
        assert!(schema.pointer("/properties/$schema").is_some());
        assert!(
            schema.pointer("/properties/tools/properties/web/properties/search/properties/apiKey").is_some()
        );
    }
}
