//! Tests of the configuration as a whole: every key, both older documents, layers, secrets, refusals.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;

/// A home of its own, with a configuration file.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn with(text: &str) -> Self {
        let home = Self::empty();
        home.write("config.json", text, 0o600);
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let options = Options { home: Some(self.directory.path().into()), config: None };
        let mut all = vec![("HOME", "/home/nobody")];
        all.extend(variables);
        load(&options, &Environment::of(&all))
    }

    /// The error's text, home replaced by `~`.
    fn refusal(&self, variables: &[(&str, &str)]) -> String {
        let error = match self.load(variables) {
            Err(error) => error,
            Ok(loaded) => panic!("should be refused: {:?} {:?}", loaded.origins, loaded.warnings),
        };
        assert_eq!(error.exit_code(), 78);
        assert!(!error.hint().is_empty(), "{error}");
        error.to_string().replace(self.directory.path().to_str().unwrap(), "~")
    }
}

fn refusal(text: &str) -> String {
    Home::with(text).refusal(&[])
}

// --- the samples of the two older documents, unchanged -----------------------------------------------------------

const OXIBOT_SANDBOX: &str = r#"{
  "tools": {
    "restrictToWorkspace": true
  }
}"#;

const OXIBOT_CHANNELS: &str = r#"{
  "channels": {
    "telegram": {
      "token": "...",
      "allowedUsers": ["123456789"]
    },
    "discord": {
      "token": "...",
      "allowedUsers": ["987654321"]
    },
    "whatsapp": {
      "bridgeUrl": "ws://localhost:3001",
      "allowedUsers": ["+1234567890"]
    },
    "slack": {
      "botToken": "xoxb-...",
      "appToken": "xapp-...",
      "allowedUsers": ["U01ABCDEF"]
    },
    "email": {
      "allowedUsers": ["trusted@example.com"]
    }
  }
}"#;

const NANOBOT_CHANNELS: &str = r#"{
  "channels": {
    "telegram": {
      "enabled": true,
      "token": "YOUR_BOT_TOKEN",
      "allowFrom": ["123456789", "987654321"]
    },
    "whatsapp": {
      "enabled": true,
      "allowFrom": ["+1234567890"]
    }
  }
}"#;

#[test]
fn the_older_oxibots_samples_load_unchanged() {
    assert!(Home::with(OXIBOT_SANDBOX).load(&[]).unwrap().config.tools.restrict_to_workspace);
    let loaded = Home::with(OXIBOT_CHANNELS).load(&[]).unwrap();
    let channels = &loaded.config.channels;
    let states: Vec<_> = channels.overview().into_iter().map(|c| (c.name, c.state)).collect();
    let without =
        "allowedUsers without imapHost, imapPassword, smtpHost, smtpPassword, authservId".to_owned();
    assert_eq!(
        states,
        [
            ("telegram", ChannelState::Configured),
            ("discord", ChannelState::Configured),
            ("whatsapp", ChannelState::Configured),
            ("slack", ChannelState::Configured),
            ("email", ChannelState::NotConfigured { why: without }),
        ]
    );
    assert_eq!(channels.slack.as_ref().unwrap().allowed_users, ["U01ABCDEF"]);
    assert_eq!(channels.whatsapp.as_ref().unwrap().allowed_users, ["+1234567890"]);
}

#[test]
fn nanobots_sample_loads_unchanged() {
    let loaded = Home::with(NANOBOT_CHANNELS).load(&[]).unwrap();
    let channels = &loaded.config.channels;
    assert_eq!(channels.telegram.as_ref().unwrap().allowed_users, ["123456789", "987654321"]);
    assert_eq!(channels.whatsapp.as_ref().unwrap().bridge(), Some("ws://localhost:3001"));
    let states: Vec<_> = channels.overview().into_iter().map(|c| c.state).collect();
    use ChannelState::{Absent, Configured};
    assert_eq!(states, [Configured, Absent, Configured, Absent, Absent]);
}

#[test]
fn the_older_documents_variables_work() {
    let home = Home::empty();
    home.write("key", "sk-or-v1-abc123\n", 0o600);
    let key = home.path("key");
    let loaded = home
        .load(&[
            ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", "true"),
            ("OXIBOT_PROVIDERS__OPENROUTER__API_KEY_FILE", key.to_str().unwrap()),
        ])
        .unwrap();
    let openrouter = loaded.config.providers.get("openrouter").unwrap();
    assert_eq!(openrouter.api_key.as_ref().unwrap().expose_secret(), "sk-or-v1-abc123");
    assert_eq!(loaded.secret_files, [key]);
    let loaded = home.load(&[("OXIBOT_PROVIDERS__OPENROUTER__API_KEY", "sk-x")]).unwrap();
    assert!(loaded.config.providers.get("openrouter").unwrap().is_configured("openrouter"));
}

// --- every key ---------------------------------------------------------------------------------------------------

/// Every documented key with a value that is not its default, and the same as a variable's text.
fn documented() -> Vec<(String, Value, String)> {
    let table = [
        ("agents.defaults.workspace", json!("/srv/w")),
        ("agents.defaults.model", json!("ollama/llama3.2")),
        ("agents.defaults.maxTokens", json!(100)),
        ("agents.defaults.temperature", json!(0.3)),
        ("agents.defaults.maxToolIterations", json!(5)),
        ("agents.defaults.contextWindowTokens", json!(32_000)),
        ("agents.defaults.fallbackModels", json!(["openai/gpt"])),
        ("agents.defaults.reasoningEffort", json!("high")),
        ("agents.defaults.vision", json!(true)),
        ("agents.defaults.turnTimeoutSeconds", json!(30)),
        ("agents.defaults.turnTokenBudget", json!(5000)),
        ("agents.workspaceScope", json!("sender")),
        ("channels.telegram.enabled", json!(false)),
        ("channels.telegram.token", json!("t")),
        ("channels.telegram.allowedUsers", json!(["1"])),
        ("channels.telegram.proxy", json!("socks5://u:p@localhost:1080")),
        ("channels.telegram.baseUrl", json!("http://127.0.0.1:8081")),
        ("channels.telegram.groupPolicy", json!("open")),
        ("channels.telegram.groupAllowFrom", json!(["-100"])),
        ("channels.discord.enabled", json!(true)),
        ("channels.discord.token", json!("t")),
        ("channels.discord.allowedUsers", json!(["1"])),
        ("channels.discord.gatewayUrl", json!("wss://gateway.discord.gg")),
        ("channels.discord.intents", json!(37_377)),
        ("channels.whatsapp.enabled", json!(true)),
        ("channels.whatsapp.bridgeUrl", json!("ws://127.0.0.1:3002")),
        ("channels.whatsapp.bridgeToken", json!("t")),
        ("channels.whatsapp.allowedUsers", json!(["+34"])),
        ("channels.slack.enabled", json!(true)),
        ("channels.slack.mode", json!("socket")),
        ("channels.slack.botToken", json!("xoxb")),
        ("channels.slack.appToken", json!("xapp")),
        ("channels.slack.allowedUsers", json!(["U1"])),
        ("channels.slack.groupPolicy", json!("open")),
        ("channels.slack.groupAllowFrom", json!(["C1"])),
        ("channels.slack.dm.enabled", json!(false)),
        ("channels.slack.dm.policy", json!("allowlist")),
        ("channels.slack.dm.allowFrom", json!(["U1"])),
        ("channels.email.enabled", json!(true)),
        ("channels.email.consentGranted", json!(true)),
        ("channels.email.imapHost", json!("imap.example.com")),
        ("channels.email.imapPort", json!(143)),
        ("channels.email.imapUsername", json!("u")),
        ("channels.email.imapPassword", json!("p")),
        ("channels.email.imapMailbox", json!("Bot")),
        ("channels.email.imapUseSsl", json!(false)),
        ("channels.email.smtpHost", json!("smtp.example.com")),
        ("channels.email.smtpPort", json!(465)),
        ("channels.email.smtpUsername", json!("u")),
        ("channels.email.smtpPassword", json!("p")),
        ("channels.email.smtpUseTls", json!(true)),
        ("channels.email.smtpUseSsl", json!(true)),
        ("channels.email.fromAddress", json!("bot@example.com")),
        ("channels.email.autoReplyEnabled", json!(false)),
        ("channels.email.pollIntervalSeconds", json!(60)),
        ("channels.email.markSeen", json!(false)),
        ("channels.email.maxBodyChars", json!(500)),
        ("channels.email.subjectPrefix", json!("AW: ")),
        ("channels.email.authservId", json!("mx.example.com")),
        ("channels.email.requireAuthentication", json!(false)),
        ("channels.email.maxMailsPerHour", json!(5)),
        ("channels.email.allowedUsers", json!(["a@example.com"])),
        ("tools.restrictToWorkspace", json!(false)),
        ("tools.exec.timeout", json!(10)),
        ("tools.exec.network", json!(["a.example.org", "*.b.example.org:8443"])),
        ("tools.disabled", json!(["bash"])),
        ("tools.web.search.apiKey", json!("BSA")),
        ("tools.web.search.provider", json!("searxng")),
        ("tools.web.search.maxResults", json!(3)),
        ("tools.web.search.baseUrl", json!("http://localhost:9/search")),
        ("web.allowPrivate", json!(["10.1.0.0/16:443"])),
        ("sandbox.require", json!("full")),
        ("sandbox.read", json!(["/opt"])),
        ("sandbox.write", json!(["/srv/out"])),
        ("sandbox.env", json!({"A": "b"})),
        ("sandbox.git.name", json!("N")),
        ("sandbox.git.email", json!("n@example.com")),
        ("sandbox.protect", json!([".env"])),
        ("limits.maxTimeoutSeconds", json!(300)),
        ("limits.cpuSeconds", json!(10)),
        ("limits.memoryMb", json!(512)),
        ("limits.processes", json!(64)),
        ("limits.fileSizeMb", json!(10)),
        ("limits.openFiles", json!(256)),
        ("limits.tmpMb", json!(64)),
        ("policy.unknown.unreadable", json!("block")),
        ("policy.unknown.runtime", json!("ask")),
        ("policy.places", json!({"data": ["/srv/data/**"]})),
        (
            "policy.rules",
            json!([{"id": "own.rule", "verdict": "ask", "reason": "r", "alternative": "a",
                "when": [{"program": "deploy", "flags": ["-f|--force"]}],
                "match": ["deploy -f"], "not_match": ["deploy"]}]),
        ),
        ("policy.overrides", json!([{"rule": "git.force-push", "verdict": "block", "commands": []}])),
        ("limits.senders.callsPerMinute", json!(3)),
        ("limits.senders.callBurst", json!(4)),
        ("limits.senders.callsPerDay", json!(5)),
        ("limits.senders.messagesPerMinute", json!(6)),
        ("limits.senders.messageBurst", json!(7)),
        ("limits.senders.tokensPerDay", json!(8)),
        ("limits.senders.terminal", json!(true)),
        ("approvals.mode", json!("deny")),
        ("audit.detail", json!("digest")),
        ("audit.rotateMb", json!(2)),
        ("gateway.host", json!("0.0.0.0")),
        ("gateway.port", json!(8080)),
        ("gateway.health", json!(false)),
        ("gateway.admins", json!(["telegram:42"])),
        ("transcription.enabled", json!(false)),
        ("transcription.provider", json!("openai")),
        ("transcription.apiKey", json!("gsk")),
        ("transcription.model", json!("whisper-1")),
        ("transcription.language", json!("en")),
        ("sessions.idleDays", json!(7)),
        ("sessions.maxDays", json!(90)),
        ("logging.level", json!("debug")),
        ("logging.file", json!("/var/log/oxibot.log")),
        ("logging.format", json!("json")),
        ("groups.memory", json!(true)),
    ];
    let mut all: Vec<(String, Value)> =
        table.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for name in PROVIDERS {
        all.push((format!("providers.{name}.apiKey"), json!("sk-1")));
        all.push((format!("providers.{name}.apiBase"), json!("https://llm.example.com/v1")));
        all.push((format!("providers.{name}.extraHeaders"), json!({"X-Title": "t"})));
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    all.into_iter().map(|(key, value)| (key, value.clone(), text(&value))).collect()
}

/// What must stand beside a key so that it makes sense.
fn companions(key: &str) -> Vec<(&'static str, Value)> {
    match key {
        "agents.defaults.fallbackModels" => vec![("agents.defaults.model", json!("ollama/x"))],
        "tools.web.search.provider" => vec![("tools.web.search.baseUrl", json!("http://localhost:9/"))],
        "providers.custom.apiKey" => vec![("providers.custom.apiBase", json!("https://llm.example.com"))],
        _ => vec![],
    }
}

fn document(pairs: &[(&str, Value)]) -> String {
    let mut root = json!({});
    for (key, value) in pairs {
        let mut at = &mut root;
        for segment in key.split('.') {
            at = &mut at[segment];
        }
        *at = value.clone();
    }
    root.to_string()
}

/// The typed value at a key, as it is shown; secrets as their mask.
fn effective(config: &Config, key: &str) -> Value {
    if key == "tools.web.search.apiKey" {
        return config.search_key.as_ref().map_or(Value::Null, |_| json!(MASK));
    }
    let pointer = format!("/{}", key.replace('.', "/"));
    serde_json::to_value(config).unwrap().pointer(&pointer).cloned().unwrap_or(Value::Null)
}

fn shown(key: &str, value: &Value) -> Value {
    let secret = ["apiKey", "oken", "assword", "proxy"].iter().any(|end| key.ends_with(end));
    if let (Value::Object(map), true) = (value, key.ends_with("extraHeaders")) {
        return map.keys().map(|name| (name.clone(), json!(MASK))).collect();
    }
    if secret { json!(MASK) } else { value.clone() }
}

/// Keys with one possible value, which is the default.
const ONLY_ONE: [&str; 1] = ["channels.slack.mode"];

#[test]
fn the_table_names_every_key() {
    let mut known = shape::root().leaves();
    known.retain(|key| key != "$schema");
    let mut listed: Vec<String> = documented().into_iter().map(|(key, ..)| key).collect();
    listed.sort();
    known.sort();
    assert_eq!(listed, known);
}

#[test]
fn every_key_loads_from_the_file_and_changes_the_value() {
    for (key, value, _) in documented() {
        let mut pairs = companions(&key);
        pairs.push((&key, value.clone()));
        let config =
            parse(document(&pairs).as_bytes(), Path::new("c.json")).unwrap_or_else(|e| panic!("{key}: {e}"));
        let found = effective(&config, &key);
        assert_eq!(found, shown(&key, &value), "{key}");
        if !ONLY_ONE.contains(&key.as_str()) {
            assert_ne!(found, effective(&Config::default(), &key), "{key}");
        }
    }
}

#[test]
fn every_key_loads_from_the_environment_over_the_file() {
    for (key, value, text) in documented() {
        let home = Home::with(&document(&companions(&key)));
        let variable = variable_of(&key);
        let loaded = home.load(&[(&variable, &text)]).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(effective(&loaded.config, &key), shown(&key, &value), "{key}");
        assert_eq!(loaded.origins.get(&key), Some(&Origin::Variable(variable)), "{key}");
    }
}

#[test]
fn every_secret_loads_from_a_file_and_from_the_credentials_directory() {
    let mut secrets = Vec::new();
    shape::root().for_each_leaf(&mut |key, shape| {
        if *shape == shape::Shape::Secret {
            secrets.push(key.to_owned());
        }
    });
    assert!(secrets.len() > 20);
    for key in secrets {
        let value = if key.ends_with("proxy") { "http://localhost:1" } else { "secret" };
        let home = Home::with(&document(&companions(&key)));
        let file = home.write("one", &format!("{value}\n"), 0o600);
        let variable = format!("{}_FILE", variable_of(&key));
        let loaded =
            home.load(&[(&variable, file.to_str().unwrap())]).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(effective(&loaded.config, &key), json!(MASK), "{key}");
        std::fs::create_dir(home.path("credentials")).unwrap();
        home.write(&format!("credentials/{key}"), value, 0o644);
        let directory = home.path("credentials");
        let loaded = home.load(&[("CREDENTIALS_DIRECTORY", directory.to_str().unwrap())]).unwrap();
        assert_eq!(effective(&loaded.config, &key), json!(MASK), "{key}");
        assert_eq!(loaded.origins.get(&key), Some(&Origin::Credential(directory.join(&key))));
        assert!(!format!("{loaded:?}").contains(&format!("\"{value}\"")), "{key} is in the debug output");
    }
}

// --- layers ------------------------------------------------------------------------------------------------------

#[test]
fn no_file_is_a_valid_configuration() {
    let home = Home::empty();
    let loaded = home.load(&[]).unwrap();
    assert!(!loaded.file_found);
    assert!(loaded.config.tools.restrict_to_workspace);
    assert_eq!(loaded.config.gateway.port, 18_790);
    assert_eq!(loaded.paths.workspace, home.path("workspace"));
    let missing = loaded.config.require_model().unwrap_err();
    assert_eq!(missing.exit_code(), 78);
    assert!(missing.hint().contains("oxibot onboard"), "{}", missing.hint());
}

#[test]
fn layers_are_default_file_environment_command_line() {
    let home = Home::with(r#"{"agents":{"defaults":{"model":"a/file","maxTokens":7}}}"#);
    let options = Options { home: Some(home.directory.path().into()), config: None };
    let variables = Environment::of(&[("HOME", "/"), ("OXIBOT_AGENTS__DEFAULTS__MODEL", "a/env")]);
    let loaded = load(&options, &variables).unwrap();
    assert_eq!(loaded.config.agents.defaults.model.as_deref(), Some("a/env"));
    assert_eq!(loaded.config.agents.defaults.max_tokens, 7);
    assert_eq!(loaded.config.agents.defaults.max_tool_iterations, 20);
    let flag = Override { key: "agents.defaults.model", value: json!("a/flag"), flag: "--model" };
    let loaded = load_with(&options, &variables, &[flag]).unwrap();
    assert_eq!(loaded.config.agents.defaults.model.as_deref(), Some("a/flag"));
    assert_eq!(loaded.origins.get("agents.defaults.model"), Some(&Origin::Flag("--model".into())));
    let Some(Origin::File { line: 1, column: 53, .. }) = loaded.origins.get("agents.defaults.maxTokens")
    else {
        panic!("{:?}", loaded.origins)
    };
}

#[test]
fn a_workspace_that_is_said_is_taken_literally() {
    let home = Home::with(r#"{"agents":{"defaults":{"workspace":"~/.oxibot/workspace"}}}"#);
    assert_eq!(home.load(&[]).unwrap().paths.workspace, Path::new("/home/nobody/.oxibot/workspace"));
}

#[test]
fn variables_are_judged_strictly() {
    let cases = [
        ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", "True", "give true, false, 1 or 0"),
        ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", "yes", "give true, false, 1 or 0"),
        ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", "", "give true, false, 1 or 0"),
        ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPCE", "true", "did you mean OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE?"),
        ("OXIBOT_TOOL__EXEC__TIMEOUT", "1", "did you mean OXIBOT_TOOLS__EXEC__TIMEOUT?"),
        (
            "OXIBOT_PROVIDERS__OPENRUOTER__API_KEY",
            "sk-secret",
            "did you mean OXIBOT_PROVIDERS__OPENROUTER__API_KEY?",
        ),
        ("OXIBOT_GATEWAY__PORT", "http", "give a whole number from 1 to 65535"),
        ("OXIBOT_GATEWAY__PORT", "65536", "give a whole number from 1 to 65535"),
        ("OXIBOT_GATEWAY__PORT", "18790.0", "give a whole number"),
        ("OXIBOT_CHANNELS__TELEGRAM__ALLOWED_USERS", "123", "give a list of texts"),
        ("OXIBOT_CHANNELS__TELEGRAM__ALLOWED_USERS", "[123]", "give a text in quotes"),
        ("OXIBOT_PROVIDERS__XAI__API_KEY", "", "unset it, or give it the secret"),
        ("OXIBOT_PROVIDERS__XAI__API_KEY_FILE", "/nonexistent/key", "there is no such file"),
        ("OXIBOT_PROVIDERS__XAI__API_KEY_FILE", "", "give the path of a file"),
        ("OXIBOT_PROVIDERS__XAI__API_BASE_FILE", "/x", "no such setting"),
        ("OXIBOT_TOOLS__EXEC", "{}", "no such setting"),
        ("OXIBOT_LOGGING__LEVEL", "loud", "one of debug"),
        ("OXIBOT_AGENTS__DEFAULTS__TEMPERATURE", "nan", "give a number from 0 to 2"),
    ];
    for (variable, value, expected) in cases {
        let refusal = Home::empty().refusal(&[(variable, value)]);
        assert!(refusal.starts_with(variable), "{variable}={value}: {refusal}");
        assert!(refusal.contains(expected), "{variable}={value}: {refusal}");
        assert!(!refusal.contains("sk-secret"), "{refusal}");
    }
}

#[test]
fn variables_of_any_form_that_is_allowed_work() {
    let loaded = Home::empty()
        .load(&[
            ("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", "0"),
            ("OXIBOT_CHANNELS__TELEGRAM__ALLOW_FROM", r#"["1", "2"]"#),
            ("OXIBOT_SANDBOX__ENV__MY_VAR", "x"),
            ("OXIBOT_AGENTS__DEFAULTS__TEMPERATURE", "0.5"),
            ("OXIBOT_TOOLS__BASH__TIMEOUT", "30"),
            ("OXIBOT_UNRELATED", "x"),
        ])
        .unwrap();
    assert!(!loaded.config.tools.restrict_to_workspace);
    assert_eq!(loaded.config.channels.telegram.unwrap().allowed_users, ["1", "2"]);
    assert_eq!(loaded.config.sandbox.env.get("MY_VAR").map(String::as_str), Some("x"));
    assert_eq!(loaded.config.agents.defaults.temperature, Some(0.5));
    assert_eq!(loaded.config.tools.exec.timeout, 30);
}

#[test]
fn two_variables_for_one_key_are_an_error() {
    let refusal =
        Home::empty().refusal(&[("OXIBOT_TOOLS__EXEC__TIMEOUT", "1"), ("OXIBOT_TOOLS__BASH__TIMEOUT", "2")]);
    assert!(refusal.contains("which OXIBOT_TOOLS__EXEC__TIMEOUT sets too"), "{refusal}");
}

#[test]
fn a_single_underscore_is_warned_about() {
    let loaded = Home::empty().load(&[("OXIBOT_TOOLS_RESTRICT_TO_WORKSPACE", "false")]).unwrap();
    let warning = loaded.warnings.first().unwrap().to_string();
    assert!(warning.contains("did you mean OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE?"), "{warning}");
}

// --- secrets -----------------------------------------------------------------------------------------------------

const KEYED: &str = r#"{"providers":{"openrouter":{"apiKey":"sk-in-file"}}}"#;

#[test]
fn a_file_with_a_secret_that_others_may_read_is_refused() {
    for mode in [0o644, 0o640, 0o604] {
        let home = Home::empty();
        home.write("config.json", KEYED, mode);
        let refusal = home.refusal(&[]);
        assert!(refusal.contains("run `chmod 600 ~/config.json`"), "{refusal}");
        assert!(refusal.contains("providers.openrouter.apiKey"), "{refusal}");
        assert!(!refusal.contains("sk-in-file"));
        let header = r#"{"providers":{"custom":{"extraHeaders":{"Authorization":"Bearer x"}}}}"#;
        home.write("config.json", header, mode);
        assert!(home.refusal(&[]).contains("chmod 600"));
        home.write("config.json", OXIBOT_SANDBOX, mode);
        home.load(&[]).expect("no secret, no harm");
    }
}

#[test]
fn a_secret_file_that_others_may_read_is_refused() {
    let home = Home::empty();
    let file = home.write("key", "sk-1", 0o644);
    let refusal = home.refusal(&[("OXIBOT_PROVIDERS__XAI__API_KEY_FILE", file.to_str().unwrap())]);
    assert!(refusal.contains("run `chmod 600 ~/key`"), "{refusal}");
    let directory = home.directory.path().to_str().unwrap();
    let variables = [
        ("OXIBOT_PROVIDERS__XAI__API_KEY_FILE", file.to_str().unwrap()),
        ("CREDENTIALS_DIRECTORY", directory),
    ];
    let loaded = home.load(&variables).expect("in the credentials directory the mode is systemd's");
    assert!(
        loaded.warnings.iter().any(|w| w.hint.contains("credentials directory")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn files_that_hold_no_usable_secret_are_refused() {
    let home = Home::empty();
    let variable = "OXIBOT_PROVIDERS__XAI__API_KEY_FILE";
    for (text, expected) in [("", "empty"), ("\n", "empty"), ("a\nb", "line break"), ("a\u{0}b", "control")] {
        let file = home.write("key", text, 0o600);
        let refusal = home.refusal(&[(variable, file.to_str().unwrap())]);
        assert!(refusal.contains(expected), "{text:?}: {refusal}");
    }
    std::fs::write(home.path("key"), [0xff, 0xfe]).unwrap();
    assert!(home.refusal(&[(variable, home.path("key").to_str().unwrap())]).contains("not UTF-8"));
    assert!(
        home.refusal(&[(variable, home.directory.path().to_str().unwrap())]).contains("not a regular file")
    );
    std::fs::write(home.path("key"), vec![b'x'; 70_000]).unwrap();
    assert!(
        home.refusal(&[(variable, home.path("key").to_str().unwrap())]).contains("larger than 65536 bytes")
    );
}

#[test]
fn a_secret_named_twice_is_an_error_that_names_both() {
    let home = Home::with(KEYED);
    let file = home.write("key", "sk-1", 0o600);
    let file = file.to_str().unwrap();
    std::fs::create_dir(home.path("c")).unwrap();
    home.write("c/providers.openrouter.apiKey", "sk-2", 0o400);
    let credentials = home.path("c");
    let (plain, by_file, by_systemd) = (
        ("OXIBOT_PROVIDERS__OPENROUTER__API_KEY", "sk-3"),
        ("OXIBOT_PROVIDERS__OPENROUTER__API_KEY_FILE", file),
        ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap()),
    );
    for (variables, both) in [
        (vec![plain, by_file], ["OXIBOT_PROVIDERS__OPENROUTER__API_KEY ", "API_KEY_FILE=~/key"]),
        (
            vec![plain, by_systemd],
            ["OXIBOT_PROVIDERS__OPENROUTER__API_KEY ", "~/c/providers.openrouter.apiKey"],
        ),
        (vec![by_file, by_systemd], ["API_KEY_FILE=~/key", "~/c/providers.openrouter.apiKey"]),
        (vec![by_file], ["~/config.json:1:38", "API_KEY_FILE=~/key"]),
        (vec![by_systemd], ["~/config.json:1:38", "~/c/providers.openrouter.apiKey"]),
    ] {
        let refusal = home.refusal(&variables);
        assert!(refusal.contains("named twice"), "{refusal}");
        assert!(both.iter().all(|one| refusal.contains(one)), "{refusal}");
        assert!(!refusal.contains("sk-"), "{refusal}");
    }
    let loaded = home.load(&[plain]).expect("a plain variable is a layer above the file");
    let key = loaded.config.providers.get("openrouter").and_then(|p| p.api_key.as_ref()).unwrap();
    assert_eq!(key.expose_secret(), "sk-3");
}

#[test]
fn other_credentials_of_the_unit_are_left_alone_and_misspelt_ones_are_not() {
    let home = Home::empty();
    std::fs::create_dir(home.path("c")).unwrap();
    home.write("c/tls.key", "x", 0o400);
    home.write("c/other", "x", 0o400);
    let variables = home.path("c");
    let variables = [("CREDENTIALS_DIRECTORY", variables.to_str().unwrap())];
    home.load(&variables).unwrap();
    home.write("c/providers.openrouter.apikey", "x", 0o400);
    let refusal = home.refusal(&variables);
    assert!(refusal.contains("did you mean providers.openrouter.apiKey?"), "{refusal}");
}

#[test]
fn nothing_prints_a_secret() {
    let text = r#"{"providers":{"xai":{"apiKey":"sk-one","extraHeaders":{"X-Key":"sk-two"}}},
        "tools":{"web":{"search":{"apiKey":"sk-three"}}},"channels":{"telegram":{"token":"sk-four"}}}"#;
    let loaded = Home::with(text).load(&[]).unwrap();
    let printed =
        format!("{loaded:?} {:#?} {}", loaded.config, serde_json::to_string(&loaded.config).unwrap());
    assert!(!printed.contains("sk-"), "{printed}");
    assert_eq!(loaded.config.search_key.unwrap().expose_secret(), "sk-three");
}

#[test]
fn empty_secrets_of_older_files_are_no_secrets() {
    let home = Home::empty();
    home.write("config.json", r#"{"providers":{"openai":{"apiKey":"","apiBase":null}}}"#, 0o644);
    let loaded = home.load(&[]).unwrap();
    assert!(!loaded.config.providers.get("openai").unwrap().is_configured("openai"));
}

// --- refusals ----------------------------------------------------------------------------------------------------

#[test]
fn refusals_name_file_line_key_and_remedy() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["cannot parse ~/config.json, line 1, column 1:", "EOF"]),
        (
            "{\n  \"tools\": {,}\n}",
            &["cannot parse ~/config.json, line 2, column 13:", "key must be a string"],
        ),
        ("[]", &["~/config.json:1:1", "a list is not what belongs here", "give an object"]),
        ("{} x", &["cannot parse ~/config.json, line 1, column 4:"]),
        (
            "{\n \"tools\": {\n  \"restrictToWorkspce\": true}}",
            &[
                "~/config.json:3:3: tools.restrictToWorkspce: unknown key",
                "did you mean `tools.restrictToWorkspace`?",
            ],
        ),
        (r#"{"restrictToWorkspace":true}"#, &["did you mean `tools.restrictToWorkspace`?"]),
        (r#"{"tools":{"restrict_to_workspace":true}}"#, &["did you mean `tools.restrictToWorkspace`?"]),
        (
            r#"{"tools":{"restrictToWorkspace":"true"}}"#,
            &["~/config.json:1:33", "give true or false, without quotes"],
        ),
        (r#"{"tools":{"restrictToWorkspace":null}}"#, &["null is not what belongs here"]),
        (
            r#"{"tools":{"exec":{"timeout":601}}}"#,
            &["tools.exec.timeout: 601 is out of range", "from 1 to 600"],
        ),
        (r#"{"tools":{"exec":{"timeout":0}}}"#, &["tools.exec.timeout: 0 is out of range"]),
        (
            r#"{"tools":{"exec":{"timeout":1},"bash":{"timeout":2}}}"#,
            &["said twice", "`bash` is another name of it"],
        ),
        (r#"{"tools":{"restrictToWorkspace":true,"restrictToWorkspace":false}}"#, &[":1:38", "said twice"]),
        (r#"{"gateway":{"port":70000}}"#, &["gateway.port: 70000 is out of range", "from 1 to 65535"]),
        (r#"{"gateway":{"port":1.5}}"#, &["gateway.port: 1.5 is out of range"]),
        (
            r#"{"gateway":{"admins":["42"]}}"#,
            &["gateway.admins: `42` is no channel and id", "telegram:123456789"],
        ),
        (r#"{"gateway":{"admins":["telegram:*"]}}"#, &["gateway.admins: `telegram:*` is no channel and id"]),
        (r#"{"gateway":{"host":"everywhere"}}"#, &["gateway.host: `everywhere` is no address"]),
        (
            r#"{"channels":{"feishu":{}}}"#,
            &["channels.feishu: unknown key", "known here: discord, email, slack"],
        ),
        (
            r#"{"channels":{"telegram":{"allowedUsers":[123]}}}"#,
            &["allowedUsers[0]", "give a text in quotes"],
        ),
        (r#"{"channels":{"telegram":{"allowedUsers":"123"}}}"#, &["give a list of texts"]),
        (r#"{"providers":{"openruoter":{}}}"#, &["did you mean `providers.openrouter`?"]),
        (r#"{"sandbox":{"require":"off"}}"#, &["sandbox.require", "cannot be switched off in a file"]),
        (r#"{"sandbox":{"require":"ful"}}"#, &["did you mean `full`?"]),
        (r#"{"sandbox":{"read":["data"]}}"#, &["sandbox.read: `data` is not an absolute path"]),
        (r#"{"limits":{"maxTimeoutSeconds":30}}"#, &["contradicts limits.maxTimeoutSeconds, which is 30"]),
        (r#"{"agents":{"defaults":{"fallbackModels":["a/b"]}}}"#, &["contradicts agents.defaults.model"]),
        (
            r#"{"agents":{"defaults":{"maxTokens":200000}}}"#,
            &["contradicts agents.defaults.contextWindowTokens"],
        ),
        (r#"{"agents":{"defaults":{"workspace":"here"}}}"#, &["`here` is not an absolute path"]),
        (r#"{"agents":{"defaults":{"model":""}}}"#, &["is no name of a model"]),
        (r#"{"sessions":{"idleDays":9,"maxDays":3}}"#, &["contradicts sessions.maxDays, which is 3"]),
        (r#"{"transcription":{"language":"English"}}"#, &["no language code"]),
        (r#"{"logging":{"file":"x.log"}}"#, &["`x.log` is not an absolute path"]),
        (
            r#"{"channels":{"email":{"smtpUseTls":true,"smtpUseSsl":true}}}"#,
            &["smtpUseTls: contradicts channels.email.smtpUseSsl"],
        ),
        (
            r#"{"channels":{"email":{"imapHost":"h.example","imapPassword":"p","imapUseSsl":false}}}"#,
            &["imapUseSsl: a password would cross the network unencrypted"],
        ),
        (
            r#"{"channels":{"email":{"smtpHost":"h.example","smtpPassword":"p","smtpUseTls":false}}}"#,
            &["smtpUseTls: a password would cross the network unencrypted"],
        ),
        (r#"{"channels":{"whatsapp":{"bridgeUrl":"ws://10.0.0.1:3001"}}}"#, &["unencrypted", "use wss://"]),
        (r#"{"channels":{"telegram":{"proxy":"u:p"}}}"#, &["telegram.proxy: is not an address of a proxy"]),
    ];
    for (text, expected) in cases {
        let refusal = refusal(text);
        for piece in *expected {
            assert!(refusal.contains(piece), "{text}\n{refusal}\nlacks {piece}");
        }
    }
}

#[test]
fn every_problem_is_listed_at_once() {
    let error = Home::with(r#"{"a":1,"gateway":{"port":0,"hots":1},"tools":{"exec":{"timeout":"x"}}}"#)
        .load(&[("OXIBOT_LOGGING__LEVEL", "loud")])
        .unwrap_err();
    let ConfigError::Invalid(problems) = error else { panic!("{error}") };
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.hint.is_empty()));
}

#[test]
fn a_key_goes_unencrypted_to_this_machine_only() {
    let with = |base: &str, key: &str| {
        let text = format!(r#"{{"providers":{{"vllm":{{"apiBase":"{base}"{key}}}}}}}"#);
        parse(text.as_bytes(), Path::new("c.json")).map(drop).map_err(|error| error.to_string())
    };
    let key = r#","apiKey":"sk-1""#;
    let header = r#","extraHeaders":{"X-Api-Key":"sk-1"}"#;
    for base in [
        "http://localhost:8000/v1",
        "http://127.0.0.1:8000",
        "http://127.8.8.8",
        "http://[::1]:8000",
        "https://x.example",
    ] {
        assert_eq!(with(base, key), Ok(()), "{base}");
    }
    for base in [
        "http://x.example",
        "http://10.0.0.1:8000",
        "http://localhost.example",
        "http://0.0.0.0",
        "http://127.0.0.1.example",
    ] {
        assert!(with(base, key).unwrap_err().contains("unencrypted"), "{base}");
        assert!(with(base, header).unwrap_err().contains("unencrypted"), "{base}");
        assert_eq!(with(base, ""), Ok(()), "{base} without a key");
    }
    for base in ["ftp://x.example", "x.example/v1", "", "https://", "file:///etc/passwd"] {
        assert!(with(base, "").unwrap_err().contains("is not an address"), "{base}");
    }
    assert!(with("https://me:sk-1@x.example", "").unwrap_err().contains("holds a user name or password"));
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let home = Home::empty();
    std::os::unix::fs::symlink(home.path("nowhere.json"), home.path("config.json")).unwrap();
    assert!(
        home.refusal(&[])
            .contains("cannot read ~/config.json: it is a symbolic link that cannot be followed")
    );
    std::fs::remove_file(home.path("config.json")).unwrap();
    std::fs::create_dir(home.path("config.json")).unwrap();
    assert!(home.refusal(&[]).contains("not a regular file"));
    let home = Home::with(&format!("{{}}{}", " ".repeat(1024 * 1024)));
    assert!(home.refusal(&[]).contains("larger than 1048576 bytes"));
    let home = Home::empty();
    std::fs::write(home.path("config.json"), b"{\"a\":\"\xff\"}").unwrap();
    assert!(home.refusal(&[]).contains("cannot parse ~/config.json, line 1, "));
    let options = Options { config: Some(home.path("none.json")), home: None };
    let error = load(&options, &Environment::of(&[("HOME", "/")])).unwrap_err();
    assert!(error.to_string().contains("there is no such file"), "{error}");
}

#[test]
fn deep_nesting_is_an_error_and_no_crash() {
    let text = format!("{}{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    assert!(refusal(&text).contains("recursion limit"));
}

// --- properties --------------------------------------------------------------------------------------------------

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop_oneof![
        "[a-zA-Z_.\\[\\]$]{0,12}",
        prop::sample::select(vec![
            "tools",
            "exec",
            "channels",
            "telegram",
            "providers",
            "xai",
            "apiKey",
            "agents",
            "sandbox",
            "env"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(keys.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn arbitrary_json_never_panics(value in any_json()) {
        if let Err(error) = parse(value.to_string().as_bytes(), Path::new("c.json")) {
            prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n'));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, Path::new("c.json"));
    }

    #[test]
    fn arbitrary_variables_never_panic(name in "[A-Z_]{0,30}", value in any::<String>()) {
        let name = format!("OXIBOT_{name}");
        let overlay = environment::overlay(&Environment::of(&[(&name, &value)]));
        prop_assert!(overlay.problems.len() <= 1);
    }
}
