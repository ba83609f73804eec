//! First set-up, walked by a person at a terminal: provider, key typed hidden and tried by a real call, a model from the
//! list, and then the first answer.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use oxibot_tests::fixture::{Fixture, describe};
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use rexpect::session::{PtySession, spawn_command};
use serde_json::{Value, json};

const KEY: &str = "sk-typed-in-secret";

/// As long as a busy machine may take.
const PATIENCE: u64 = Duration::from_secs(60).as_millis() as u64;

fn walk(fixture: &Fixture) -> PtySession {
    let plain = fixture.oxibot();
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args()).arg("onboard").env_clear().env("HOME", fixture.root());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TERM", "xterm").env("LANG", "C.UTF-8");
    spawn_command(command, Some(PATIENCE)).unwrap()
}

#[test]
fn a_person_gets_from_nothing_to_a_first_answer() {
    let models = json!({"object": "list", "data": [{"id": "small-model"}, {"id": "test-model"}]});
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::Json(200, models), Answer::text("Good morning.")],
    );
    let fixture = Fixture::new();
    let mut person = walk(&fixture);
    person.exp_string("Number or name").unwrap();
    person.send_line("custom").unwrap();
    person.exp_string("Address").unwrap();
    person.send_line(&server.openai_base()).unwrap();
    person.exp_regex("(?i)key").unwrap();
    person.send_line(KEY).unwrap();
    let shown = person.exp_string("test-model").unwrap();
    assert!(!shown.contains(KEY), "the key is typed hidden: {shown}");
    person.exp_regex(r"\]: |: $").unwrap();
    person.send_line("test-model").unwrap();
    let rest = person.exp_eof().unwrap();
    assert!(!rest.contains(KEY), "{rest}");

    let path = fixture.home().join("config.json");
    let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["agents"]["defaults"]["model"], "custom/test-model", "{written}\n{rest}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for name in ["AGENTS.md", "SOUL.md", "USER.md", "memory/MEMORY.md"] {
        assert!(
            fixture.home().join("workspace").join(name).is_file(),
            "{name} was written through the broker\n{rest}"
        );
    }
    let output = fixture.oxibot().args(["agent", "-m", "hello"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Good morning."), "{}", describe(&output));
    assert_eq!(server.problems(), Vec::<String>::new());
}

#[test]
fn without_a_terminal_and_without_a_choice_it_says_what_to_set() {
    let fixture = Fixture::new();
    let output = fixture.oxibot().args(["onboard", "--yes"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("OXIBOT_PROVIDERS__"), "{}", describe(&output));
}

#[test]
fn an_older_configuration_is_imported_and_changed_meaning_is_named() {
    let fixture = Fixture::new();
    let older = fixture.root().join("older.json");
    let text = json!({
        "agents": {"defaults": {"model": "openai/gpt-4o", "maxTokens": 4096}},
        "providers": {"openai": {"apiKey": "sk-old"}},
        "channels": {"telegram": {"enabled": true, "token": "123:abc", "allowFrom": []}},
        "tools": {"exec": {"timeout": 30}},
    });
    std::fs::write(&older, text.to_string()).unwrap();
    std::fs::set_permissions(&older, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = fixture.oxibot().args(["onboard", "--yes", "--import"]).arg(&older).output().unwrap();
    let said = describe(&output);
    assert!(said.contains("telegram"), "the channel whose empty list changes meaning is named: {said}");
    let written: Value =
        serde_json::from_slice(&std::fs::read(fixture.home().join("config.json")).unwrap()).unwrap();
    assert_eq!(written["tools"]["exec"]["timeout"], 30, "{written}");
    assert_eq!(written["providers"]["openai"]["apiKey"], "sk-old", "{written}");
}
