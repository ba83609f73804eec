//! `sandbox status`: what holds on one screen, also where too little is to be had for anything to run.

use std::process::{Command, Output, Stdio};

use oxibot_tests::fixture::{Fixture, binary, describe};
use serde_json::Value;

fn status(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.oxibot().args(["sandbox", "status"]).args(arguments).output().unwrap()
}

/// As in a container: no namespaces, no mounts.
fn contained(fixture: &Fixture, arguments: &[&str]) -> Output {
    Command::new(binary("sabotage"))
        .args(["container", "--"])
        .arg(binary("oxibot"))
        .args(["sandbox", "status"])
        .args(arguments)
        .env("OXIBOT_HOME", fixture.home())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn fits_one_screen() {
    let fixture = Fixture::new();
    let output = status(&fixture, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let lines = lines(&output);
    assert!(
        lines.len() <= 23, // and the prompt
        "{} lines: {}",
        lines.len(),
        describe(&output)
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", describe(&output));
    assert!(lines.iter().any(|line| line.starts_with("active       landlock ")), "{}", describe(&output));
}

#[test]
fn what_a_container_refuses_is_named_with_what_it_means_and_needs() {
    let fixture = Fixture::new();
    let output = contained(&fixture, &[]);
    let lines = lines(&output);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("unavailable  pid-namespace ") && line.contains("list of all")),
        "{}",
        describe(&output)
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", describe(&output));
    let output = contained(&fixture, &["--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let protections = value["protections"].as_array().unwrap();
    let pid = protections.iter().find(|one| one["name"] == "pid-namespace").unwrap();
    assert_eq!((&pid["state"], &pid["needs"]), (&"unavailable".into(), &"user namespaces".into()), "{value}");
}

#[test]
fn a_level_below_what_is_required_is_shown_and_refused() {
    let fixture = Fixture::new();
    let path = fixture.home().join("config.json");
    std::fs::write(&path, r#"{"sandbox":{"require":"full"}}"#).unwrap();
    let output = contained(&fixture, &[]);
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    assert!(
        lines(&output).iter().any(|line| line.starts_with("unavailable  mount-namespace ")),
        "{}",
        describe(&output)
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("sandbox.require"), "{}", describe(&output));
    // The control: where everything is to be had, the same file is fine.
    assert_eq!(status(&fixture, &[]).status.code(), Some(0));
    let doctor = Command::new(binary("sabotage"))
        .args(["container", "--"])
        .arg(binary("oxibot"))
        .args(["doctor", "--json"])
        .env("OXIBOT_HOME", fixture.home())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(doctor.status.code(), Some(1), "{}", describe(&doctor));
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let require =
        report["checks"].as_array().unwrap().iter().find(|one| one["id"] == "sandbox.require").unwrap();
    assert_eq!(require["state"], "fail", "{report}");
}

#[test]
fn a_configuration_that_is_wrong_is_refused_here_too() {
    let fixture = Fixture::new();
    std::fs::write(fixture.home().join("config.json"), r#"{"tolls":{}}"#).unwrap();
    let output = status(&fixture, &["--json"]);
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["error"]["kind"], "configuration", "{value}");
}
