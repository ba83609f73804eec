//! The tour: plays everywhere, tells the truth, leaves nothing.

use std::process::{Command, Output, Stdio};

use oxibot_tests::fixture::{Fixture, binary, describe, skip};

fn played(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", describe(output));
    assert!(text.contains("9 of 9 attempts were stopped"), "{text}");
    assert!(!text.contains("BROKEN"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "80 columns: {text}");
    text
}

fn demo(program: &mut Command) -> Output {
    program
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn leftovers() -> Vec<String> {
    std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("oxibot-demo-"))
        .collect()
}

#[test]
fn plays_and_says_its_level_first_and_last_alone() {
    let output = demo(Command::new(binary("oxibot")).arg("demo"));
    let text = played(&output);
    assert_eq!(text.matches("level: full").count(), 2, "{text}");
    assert!(text.contains("ada") && text.contains("62"), "the useful part is real: {text}");
    assert_eq!(leftovers(), Vec::<String>::new());
    assert!(!std::path::Path::new("/etc/cron.d/oxibot-demo").exists());
}

#[test]
fn plays_without_namespaces_and_names_what_raises_the_level_alone() {
    let output =
        demo(Command::new(binary("sabotage")).args(["container", "--"]).arg(binary("oxibot")).arg("demo"));
    let text = played(&output);
    assert_eq!(text.matches("level: kernel").count(), 2, "{text}");
    assert!(text.contains("to raise it:"), "{text}");
}

#[test]
fn plays_for_an_ordinary_user_without_namespaces_alone() {
    if !nix::unistd::geteuid().is_root() {
        return skip(
            "plays_for_an_ordinary_user_without_namespaces_alone",
            "needs root to become another user",
        );
    }
    let fixture = Fixture::new();
    let programs = fixture.programs_for_anyone();
    for (before, level) in [(&[][..], "full"), (&["container", "--"][..], "kernel")] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "48213", "--regid", "48213", "--clear-groups"]);
        if !before.is_empty() {
            command.arg(programs.join("sabotage")).args(before);
        }
        let text = played(&demo(command.arg(programs.join("oxibot")).arg("demo")));
        assert!(text.contains(&format!("level: {level}")), "{text}");
    }
}

#[test]
fn plays_on_an_older_landlock_alone() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/landlock_abi.py");
    let output =
        demo(Command::new("/usr/bin/python3").arg(&script).arg("4").arg(binary("oxibot")).arg("demo"));
    let text = played(&output);
    assert!(text.contains("level: full (Landlock ABI 4)"), "{text}");
    // Without namespaces there is less: it plays at `reduced`, and says so.
    let output = demo(
        Command::new("/usr/bin/python3")
            .arg(&script)
            .arg("4")
            .arg(binary("sabotage"))
            .args(["container", "--"])
            .arg(binary("oxibot"))
            .arg("demo"),
    );
    let text = played(&output);
    assert!(text.contains("level: reduced"), "{}", describe(&output));
    assert!(text.contains("to raise it:"), "{text}");
}

#[test]
fn sabotage_never_ends_in_success_alone() {
    for mechanism in ["landlock", "pretend-landlock", "seccomp", "pretend-seccomp", "pretend-capset"] {
        let output =
            demo(Command::new(binary("sabotage")).args([mechanism, "--"]).arg(binary("oxibot")).arg("demo"));
        assert_ne!(output.status.code(), Some(0), "{mechanism}: {}", describe(&output));
        assert!(!output.stderr.is_empty(), "{mechanism}: it says why");
    }
}

#[test]
fn no_sandbox_refuses_to_play() {
    let output = demo(Command::new(binary("oxibot")).args(["--no-sandbox", "--no-sandbox", "demo"]));
    assert_ne!(output.status.code(), Some(0), "{}", describe(&output));
    assert!(output.stdout.is_empty(), "{}", describe(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-sandbox"), "{}", describe(&output));
}
