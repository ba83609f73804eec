//! A configuration that is wrong is refused with its place, the nearest right thing and exit status 78; nothing runs.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use oxibot_tests::fixture::{Fixture, describe};
use serde_json::Value;

fn with(text: &str, mode: u32, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let fixture = Fixture::new();
    let path = fixture.home().join("config.json");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    fixture.oxibot().args(arguments).envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn every_fault_names_its_place_and_what_to_do() {
    for (text, needles) in [
        ("{\n  \"tools\": {\n", vec!["line", "column", "config.json"]),
        ("{\"tolls\": {}}", vec!["tolls", "tools"]),
        ("{\"tools\": {\"exec\": {\"timeot\": 5}}}", vec!["tools.exec.timeot", "timeout"]),
        ("{\"tools\": {\"exec\": {\"timeout\": \"soon\"}}}", vec!["tools.exec.timeout"]),
        ("{\"tools\": {\"exec\": {\"timeout\": 0}}}", vec!["tools.exec.timeout"]),
        ("{\"sandbox\": {\"require\": \"off\"}}", vec!["sandbox.require"]),
        ("{\"gateway\": {\"port\": 99999}}", vec!["gateway.port"]),
        ("[]", vec!["config.json"]),
        ("", vec!["config.json"]),
    ] {
        let output = with(text, 0o600, &["config", "check"], &[]);
        assert_eq!(output.status.code(), Some(78), "{text}: {}", describe(&output));
        let said =
            String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned();
        for needle in needles {
            assert!(said.contains(needle), "{text}: no {needle} in {said}");
        }
    }
}

#[test]
fn nothing_runs_with_a_bad_configuration_and_the_error_is_an_object() {
    let output = with(
        "{\"sandbox\": {\"reqire\": \"full\"}}",
        0o600,
        &["tool", "call", "bash", "{\"command\":\"echo ran\"}", "--json"],
        &[],
    );
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    let value: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    for key in ["kind", "message", "hint"] {
        assert!(value["error"][key].is_string(), "{value}");
    }
    assert!(value["error"]["message"].as_str().unwrap().contains("sandbox.reqire"), "{value}");
}

#[test]
fn a_readable_file_with_a_secret_is_refused_with_the_chmod_to_run() {
    let text = "{\"providers\": {\"openai\": {\"apiKey\": \"sk-test-4711\"}}}";
    let output = with(text, 0o644, &["status"], &[]);
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "{}", describe(&output));
    // The controls: the same file closed, and an open one without a secret.
    assert_eq!(with(text, 0o600, &["status"], &[]).status.code(), Some(0));
    assert_eq!(with("{\"gateway\": {\"port\": 1234}}", 0o644, &["status"], &[]).status.code(), Some(0));
}

#[test]
fn a_secret_is_never_printed() {
    let text = "{\"providers\": {\"openai\": {\"apiKey\": \"sk-test-4711\"}}}";
    for arguments in
        [&["config", "show"][..], &["status"], &["status", "--json"], &["config", "check"], &["doctor"]]
    {
        let output = with(text, 0o600, arguments, &[]);
        assert!(!describe(&output).contains("sk-test-4711"), "{arguments:?}: {}", describe(&output));
    }
}

#[test]
fn booleans_from_the_environment_are_strict() {
    for (value, code) in [("true", 0), ("false", 0), ("yes", 78), ("True", 78), ("", 78)] {
        let output =
            with("{}", 0o600, &["config", "check"], &[("OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE", value)]);
        assert_eq!(output.status.code(), Some(code), "{value:?}: {}", describe(&output));
    }
}

#[test]
fn no_file_is_a_valid_configuration_and_agent_says_what_is_missing() {
    let fixture = Fixture::new();
    let check = fixture.oxibot().args(["config", "check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", describe(&check));
    let agent = fixture.oxibot().args(["agent", "-m", "hello"]).output().unwrap();
    assert_eq!(agent.status.code(), Some(78), "{}", describe(&agent));
    assert!(String::from_utf8_lossy(&agent.stderr).contains("oxibot onboard"), "{}", describe(&agent));
}

#[test]
fn usage_errors_are_two() {
    let fixture = Fixture::new();
    for arguments in [&["no-such-command"][..], &["tool", "call"], &["agent", "--no-such-flag"], &[]] {
        let output = fixture.oxibot().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", describe(&output));
    }
}

#[test]
fn the_schema_accepts_what_is_accepted_and_refuses_what_is_refused() {
    let fixture = Fixture::new();
    let output = fixture.oxibot().args(["config", "schema"]).output().unwrap();
    let schema: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good = serde_json::json!({
        "agents": {"defaults": {"model": "openai/gpt-4o", "maxTokens": 100}},
        "providers": {"openai": {"apiKey": "x"}},
        "channels": {"telegram": {"token": "t", "allowedUsers": ["1"]}},
        "tools": {"restrictToWorkspace": true, "exec": {"timeout": 5}},
        "sandbox": {"require": "full"}
    });
    assert!(
        validator.is_valid(&good),
        "{:?}",
        validator.iter_errors(&good).map(|e| e.to_string()).collect::<Vec<_>>()
    );
    for bad in [
        serde_json::json!({"tolls": {}}),
        serde_json::json!({"tools": {"exec": {"timeout": "x"}}}),
        serde_json::json!({"sandbox": {"require": "most"}}),
    ] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}

#[test]
fn what_is_wrong_is_said_once() {
    for (text, needle) in [
        ("{\n  \"tools\": {\n", "EOF while parsing"),
        ("{\"sandbox\": {\"reqire\": \"full\"}}", "sandbox.reqire"),
        ("{\"agents\": {\"defaults\": {\"workspace\": \"/etc\"}}}", "/etc"),
    ] {
        let output = with(text, 0o600, &["tool", "list"], &[]);
        assert_eq!(output.status.code(), Some(78), "{text}: {}", describe(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.matches(needle).count(), 1, "{text}: {said}");
    }
}

#[test]
fn a_link_to_a_file_of_our_own_is_followed_and_one_that_others_can_turn_is_not() {
    let fixture = Fixture::new();
    let kept = fixture.root().join("dotfiles");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("oxibot.json"), "{\"gateway\": {\"port\": 4711}}").unwrap();
    std::fs::set_permissions(kept.join("oxibot.json"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(kept.join("oxibot.json"), fixture.home().join("config.json")).unwrap();
    let run = |arguments: &[&str]| fixture.oxibot().args(arguments).output().unwrap();
    let shown = run(&["config", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("gateway.port = 4711"), "{}", describe(&shown));
    let listed = run(&["tool", "list"]);
    assert_eq!(listed.status.code(), Some(0), "{}", describe(&listed));
    std::fs::set_permissions(&kept, std::fs::Permissions::from_mode(0o777)).unwrap();
    let refused = run(&["config", "show"]);
    assert_eq!(refused.status.code(), Some(78), "{}", describe(&refused));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("symbolic link") && said.contains("dotfiles") && said.contains("--config"),
        "{said}"
    );
}
