//! Turns the configuration of an older OxiBot or of nanobot into one of ours, and says what it means now.
//!
//! Leniency lives here and nowhere else: the result is read as strictly as any other file. No value is repeated in a
//! note, because any of them may be a secret.

use serde_json::{Map, Value};
use std::path::Path;

use crate::config::reader::{Findings, Part, Reader, quoted};
use crate::config::shape::{Shape, join, root};
use crate::config::{ChannelState, Config, ConfigError, DmPolicy, Origin, PROVIDERS, parse, variable_of};

/// Most values removed one after the other because they make no sense; there are fewer keys than that.
const MAX_ROUNDS: usize = 200;

/// What came out.
#[derive(Debug)]
pub(super) struct Imported {
    /// The new configuration, fit to be written.
    pub(super) tree: Value,
    /// What was dropped, changed, or means something else now.
    pub(super) notes: Vec<String>,
}

/// Converts the text of an older file.
///
/// # Errors
/// When it is no JSON object.
pub(super) fn convert(text: &[u8], path: &Path) -> Result<Imported, ConfigError> {
    let mut old: Value = match serde_json::from_slice(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(_) => {
            let cause = "it is no configuration".to_owned();
            let hint = "name the config.json of an older OxiBot or of nanobot".to_owned();
            return Err(ConfigError::Unreadable { path: path.to_path_buf(), cause, hint });
        }
        Err(error) => {
            return Err(ConfigError::Syntax {
                path: path.to_path_buf(),
                line: error.line().max(1),
                column: error.column().max(1),
                cause: "it is not valid JSON".into(),
            });
        }
    };
    let mut notes = Vec::new();
    let provider = old.pointer("/agents/defaults/provider").and_then(Value::as_str).map(str::to_owned);
    camel(root(), &mut old);
    rearrange(&mut old, &mut notes);
    let mut tree = lenient(root(), old, "", &mut notes).unwrap_or_else(|| Value::Object(Map::new()));
    let config = settle(&mut tree, path, &mut notes)?;
    prefix_model(&mut tree, &config, provider.as_deref(), &mut notes);
    name_meanings(&config, &mut notes);
    Ok(Imported { tree, notes })
}

/// `api_key` as `apiKey`, wherever that is a key of ours; nanobot reads both.
fn camel(shape: &Shape, value: &mut Value) {
    let Value::Object(map) = value else { return };
    let names: Vec<String> = map.keys().cloned().collect();
    for name in names {
        let camel_name = camel_name(&name);
        let known = if shape.field(&name).is_some() { name.clone() } else { camel_name };
        let Some((_, field)) = shape.field(&known) else { continue };
        if let Some(mut inner) = map.remove(&name) {
            camel(&field.shape, &mut inner);
            map.entry(known).or_insert(inner);
        }
    }
}

fn camel_name(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// Keys that moved, and values that mean something else here.
fn rearrange(old: &mut Value, notes: &mut Vec<String>) {
    let section = |value: &'_ mut Value, pointer: &str, name: &str| -> Option<Value> {
        value.pointer_mut(pointer)?.as_object_mut()?.remove(name)
    };
    let moved = section(old, "/tools/exec", "restrictToWorkspace");
    let restricted = section(old, "/tools", "restrictToWorkspace").or(moved);
    match restricted {
        Some(Value::Bool(true)) => {
            if let Some(tools) = old.get_mut("tools").and_then(Value::as_object_mut) {
                tools.insert("restrictToWorkspace".into(), Value::Bool(true));
            }
        }
        Some(_) => notes.push(
            "tools.restrictToWorkspace: was false, the default of the older systems; here it is true, and tools see the \
             workspace only. Set it to false to let them read the rest"
                .into(),
        ),
        None => {}
    }
    let timeout = old.pointer("/tools/exec/timeout").and_then(Value::as_i64);
    if let Some(seconds) = timeout.filter(|seconds| *seconds == 0 || *seconds > 600)
        && let Some(exec) = old.pointer_mut("/tools/exec").and_then(Value::as_object_mut)
    {
        exec.insert("timeout".into(), Value::from(600));
        notes.push(format!("tools.exec.timeout: was {seconds}, is 600, the most there is"));
    }
    let host = old.pointer("/gateway/host").and_then(Value::as_str);
    if host.is_some_and(|host| !["127.0.0.1", "localhost", "::1"].contains(&host)) {
        section(old, "/gateway", "host");
        notes.push(
            "gateway.host: dropped; the health endpoint listens on 127.0.0.1. Set it again inside a container".into(),
        );
    }
    let flag = |name: &str| old.pointer(&format!("/channels/email/{name}")).and_then(Value::as_bool);
    if flag("smtpUseTls") == Some(true) && flag("smtpUseSsl") == Some(true) {
        section(old, "/channels/email", "smtpUseTls");
        notes.push(
            "channels.email.smtpUseTls: dropped; smtpUseSsl was stronger in the older systems too".into(),
        );
    }
}

/// Keeps what is understood; the rest is dropped and named.
fn lenient(shape: &Shape, value: Value, path: &str, notes: &mut Vec<String>) -> Option<Value> {
    if value.is_null() {
        return None;
    }
    let (Shape::Section(_), Value::Object(_)) = (shape, &value) else {
        return leaf(shape, value, path, notes);
    };
    let Value::Object(map) = value else { return None };
    let mut out = Map::new();
    for (name, value) in map {
        match shape.field(&name) {
            None => {
                // The provider of the model was read before.
                let is_known = path == "agents.defaults" && name == "provider";
                if !is_known && !is_empty(&value) {
                    notes.push(format!(
                        "{}: dropped; there is no such setting here",
                        join(path, &quoted(&name))
                    ));
                }
            }
            Some((canonical, field)) => {
                if let Some(value) = lenient(&field.shape, value, &join(path, canonical), notes) {
                    out.insert(canonical.to_owned(), value);
                }
            }
        }
    }
    Some(Value::Object(out))
}

fn leaf(shape: &Shape, value: Value, path: &str, notes: &mut Vec<String>) -> Option<Value> {
    if value.as_str().is_some_and(|text| text.starts_with("${")) {
        notes.push(format!(
            "{path}: dropped, because it refers to a variable; set {} instead",
            variable_of(path)
        ));
        return None;
    }
    let mut findings = Findings::default();
    let nowhere = |_: &str, _: Part| Origin::Default;
    let read = Reader { origin: &nowhere, findings: &mut findings }.read(shape, value, path, path);
    if let Some(problem) = findings.problems.first() {
        notes.push(format!("{path}: dropped, because it does not fit; {}", problem.hint));
        return None;
    }
    read
}

/// Nothing anybody would miss: `""`, `[]`, `false`, and objects of only these.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
    }
}

/// Removes what makes no sense until the strict reader has nothing more to say.
fn settle(tree: &mut Value, path: &Path, notes: &mut Vec<String>) -> Result<Config, ConfigError> {
    for _ in 0..MAX_ROUNDS {
        let error = match parse(tree.to_string().as_bytes(), path) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let ConfigError::Invalid(problems) = &error else { return Err(error) };
        let mut removed = false;
        for problem in problems {
            let whole = removal(&problem.key);
            if remove(tree, whole) {
                removed = true;
                notes.push(format!("{whole}: dropped; {}: {}; {}", problem.key, problem.what, problem.hint));
            }
        }
        if !removed {
            return Err(error);
        }
    }
    parse(tree.to_string().as_bytes(), path)
}

/// What goes when a key is wrong. Without its address a key would go to another host than it was meant for, so a
/// provider goes as a whole.
fn removal(key: &str) -> &str {
    match key.strip_prefix("providers.").and_then(|rest| rest.split_once('.')) {
        Some((_, last)) => key.strip_suffix(last).and_then(|key| key.strip_suffix('.')).unwrap_or(key),
        None => key,
    }
}

fn remove(tree: &mut Value, key: &str) -> bool {
    let (parent, last) = key.rsplit_once('.').unwrap_or(("", key));
    let pointer = if parent.is_empty() { String::new() } else { format!("/{}", parent.replace('.', "/")) };
    tree.pointer_mut(&pointer).and_then(Value::as_object_mut).is_some_and(|map| map.remove(last).is_some())
}

/// Here the word before the slash is the provider; there it was the vendor, at whatever provider had a key.
fn prefix_model(tree: &mut Value, config: &Config, provider: Option<&str>, notes: &mut Vec<String>) {
    let Some(model) = config.agents.defaults.model.clone() else { return };
    let ready = |name: &str| config.providers.get(name).is_some_and(|provider| provider.is_configured(name));
    let first = model.split('/').next().unwrap_or_default();
    let chosen = match provider.filter(|name| PROVIDERS.contains(name)) {
        Some(name) if first != name => Some(name),
        Some(_) => None,
        None if PROVIDERS.contains(&first) && ready(first) => None,
        None => ["openrouter", "aihubmix"].into_iter().find(|name| ready(name) && first != *name),
    };
    let Some(chosen) = chosen else { return };
    let renamed = format!("{chosen}/{model}");
    notes.push(format!("agents.defaults.model: is {} now; the provider comes first", quoted(&renamed)));
    if let Some(defaults) = tree.pointer_mut("/agents/defaults").and_then(Value::as_object_mut) {
        defaults.insert("model".into(), Value::String(renamed));
    }
}

/// Channels whose empty list admitted everyone.
fn name_meanings(config: &Config, notes: &mut Vec<String>) {
    for channel in config.channels.overview() {
        if channel.state == ChannelState::Configured && channel.allowed_users.is_empty() {
            notes.push(format!(
                "channels.{}.allowedUsers: is empty, which admitted everyone before and admits nobody now; add your id",
                channel.name
            ));
        }
    }
    if let Some(slack) = &config.channels.slack
        && slack.dm.policy == DmPolicy::Open
        && !slack.allowed_users.is_empty()
    {
        notes.push(
            "channels.slack.dm: `open` admitted everyone before; now allowedUsers holds there too".into(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> (Config, Vec<String>) {
        let imported = convert(text.as_bytes(), Path::new("old.json")).unwrap();
        let config = parse(imported.tree.to_string().as_bytes(), Path::new("new.json")).unwrap();
        (config, imported.notes)
    }

    #[test]
    fn a_whole_file_of_the_older_oxibot_comes_over() {
        let (config, notes) = converted(
            r#"{"agents":{"defaults":{"workspace":"~/.oxibot/workspace","model":"anthropic/claude-sonnet-4-20250514",
                "maxTokens":8192,"temperature":0.7,"maxToolIterations":20}},
            "providers":{"anthropic":{"apiKey":""},"openrouter":{"apiKey":"sk-or-1"},"openai":{"apiKey":"","apiBase":null}},
            "channels":{"telegram":{"token":"tg","allowedUsers":[]},"discord":{"token":"","allowedUsers":[]},
                "whatsapp":{"bridgeUrl":"","allowedUsers":[]},
                "slack":{"botToken":"xoxb","appToken":"xapp","allowedUsers":["U1"],"groupPolicy":"mention","groupAllowFrom":[],
                    "dm":{"enabled":true,"policy":"open","allowFrom":[]}},
                "email":{"imapHost":"","imapPort":993,"imapUsername":"","imapPassword":"","imapMailbox":"INBOX","imapUseSsl":true,
                    "smtpHost":"","smtpPort":587,"smtpUsername":"","smtpPassword":"","smtpUseTls":true,"smtpUseSsl":false,
                    "fromAddress":"","pollIntervalSeconds":30,"markSeen":true,"maxBodyChars":12000,"subjectPrefix":"Re: ","allowedUsers":[]},
                "feishu":{"appId":"","appSecret":"","allowedUsers":[]},"mochat":{"url":"https://x"}},
            "tools":{"web":{"search":{"apiKey":"","maxResults":5}},"exec":{"timeout":60},"restrictToWorkspace":false},
            "gateway":{"host":"0.0.0.0","port":18790},
            "transcription":{"enabled":true,"provider":"groq","apiKey":"","model":"whisper-large-v3"}}"#,
        );
        assert_eq!(
            config.agents.defaults.model.as_deref(),
            Some("openrouter/anthropic/claude-sonnet-4-20250514")
        );
        assert_eq!(config.agents.defaults.temperature, Some(0.7));
        assert!(config.tools.restrict_to_workspace);
        assert_eq!(config.gateway.host, "127.0.0.1");
        assert!(config.providers.get("openrouter").unwrap().api_key.is_some());
        let about = |key: &str| notes.iter().filter(|note| note.starts_with(key)).count();
        for key in [
            "channels.telegram.allowedUsers: is empty",
            "channels.slack.dm",
            "channels.mochat: dropped",
            "tools.restrictToWorkspace: was false",
            "gateway.host",
            "agents.defaults.model",
        ] {
            assert_eq!(about(key), 1, "{key}: {notes:#?}");
        }
        assert_eq!(notes.len(), 6, "nothing to say about what was empty: {notes:#?}");
    }

    #[test]
    fn nanobot_in_either_spelling_comes_over() {
        let (config, notes) = converted(
            r#"{"agents":{"defaults":{"model":"claude-x","provider":"anthropic","max_tool_iterations":200}},
            "providers":{"anthropic":{"api_key":"sk-1","extra_headers":{"X-A":"b"}},"openai_codex":{"apiKey":"sk-2"}},
            "channels":{"telegram":{"enabled":true,"token":"t","allow_from":["1"]},
                "whatsapp":{"enabled":true,"bridgeUrl":"ws://localhost:3001","allowFrom":[]},
                "feishu":{"enabled":true,"appId":"x"}},
            "tools":{"exec":{"timeout":0,"restrictToWorkspace":true},"web":{"search":{"provider":"duckduckgo","apiKey":"${BRAVE}"}},
                "mcpServers":{"a":{"command":"npx"}}}}"#,
        );
        assert_eq!(config.agents.defaults.model.as_deref(), Some("anthropic/claude-x"));
        assert_eq!(config.agents.defaults.max_tool_iterations, 200);
        assert_eq!(config.providers.get("anthropic").unwrap().extra_headers.len(), 1);
        assert_eq!(config.channels.telegram.as_ref().unwrap().allowed_users, ["1"]);
        assert_eq!(config.tools.exec.timeout, 600);
        assert!(config.tools.restrict_to_workspace && config.search_key.is_none());
        let all = notes.join("\n");
        for key in [
            "providers.openai_codex: dropped",
            "channels.feishu: dropped",
            "tools.mcpServers: dropped",
            "tools.web.search.provider: dropped",
            "tools.web.search.apiKey: dropped, because it refers to a variable; set OXIBOT_TOOLS__WEB__SEARCH__API_KEY",
            "channels.whatsapp.allowedUsers: is empty",
            "tools.exec.timeout: was 0, is 600",
        ] {
            assert!(all.contains(key), "{key} in {all}");
        }
        assert!(!all.contains("sk-"), "{all}");
    }

    #[test]
    fn what_makes_no_sense_is_dropped_and_a_key_never_changes_its_host() {
        let (config, notes) = converted(
            r#"{"providers":{"openai":{"apiKey":"sk-1","apiBase":"http://proxy.example/v1"}},
            "channels":{"email":{"smtpHost":"h.example","smtpPassword":"p","smtpUseTls":false},"telegram":"x"},
            "agents":{"defaults":{"maxTokens":"many","fallbackModels":["a/b"]}}}"#,
        );
        assert!(!config.providers.contains_key("openai"), "{notes:#?}");
        assert!(config.channels.email.as_ref().unwrap().starttls());
        assert_eq!(config.agents.defaults.max_tokens, 8192);
        assert_eq!(notes.len(), 5, "{notes:#?}");
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["", "[]", "{", "1"] {
            assert_eq!(
                convert(text.as_bytes(), Path::new("old.json")).unwrap_err().exit_code(),
                78,
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_else_is_converted_without_panic(
            key in "[a-zA-Z_.]{0,10}",
            text in proptest::prelude::any::<String>(),
            number in proptest::prelude::any::<i64>(),
        ) {
            let odd = serde_json::json!({
                key.clone(): text.clone(), "agents": {"defaults": {"model": text.clone(), "maxTokens": number}},
                "channels": {"telegram": {key.clone(): number, "token": text.clone()}, "email": {"imapPort": number}},
                "providers": {"openai": {"apiBase": text.clone(), "apiKey": text, "extraHeaders": {key: "v"}}},
            });
            let _ = convert(odd.to_string().as_bytes(), Path::new("old.json"));
        }
    }
}
