//! Take each mechanism away in turn: the toolhost refuses or reports the lower level, never the higher.

use std::process::Command;

use oxibot_proto::message::{Level, Outcome, ToMain};
use oxibot_tests::fixture::{Fixture, binary};
use oxibot_tests::peer::{Peer, hello};
use serde_json::json;

/// Starts a toolhost without `mechanism`; its level, or `None` when it refused to start.
fn level_without(mechanism: &str, require: &str) -> Option<Level> {
    let fixture = Fixture::new();
    let configuration = fixture.home().join("config.json");
    std::fs::write(&configuration, json!({"sandbox": {"require": require}, "policy": {"overrides": [{"rule": "*", "verdict": "allow"}]}}).to_string()).unwrap();
    std::fs::set_permissions(&configuration, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = Command::new(binary("sabotage"));
    command.env_clear().args([mechanism, "--"]).arg(binary("oxibot-toolhost"));
    let mut peer = Peer::start_as(
        command,
        &fixture.home(),
        &fixture.workspace(),
        &["--config", &configuration.display().to_string()],
    );
    peer.send(&hello());
    let level = match peer.receive() {
        Some(ToMain::Hello(hello)) => hello.wall.level,
        Some(ToMain::Bye(_)) | None => {
            assert!(peer.ends());
            assert_ne!(peer.child.wait().unwrap().code(), Some(0), "{mechanism}: a refusal is not a success");
            return None;
        }
        other => panic!("{other:?}"),
    };
    // What is reported must hold in a real call.
    let result = peer.bash(
        "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; echo x > /etc/oxibot-sabotage",
    );
    assert_eq!(result.outcome, Outcome::Completed, "{mechanism}: {result:?}");
    let text = String::from_utf8_lossy(&result.output.head).into_owned();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(text.contains(line), "{mechanism}: {text}");
    }
    assert!(!std::path::Path::new("/etc/oxibot-sabotage").exists(), "{mechanism}: wrote outside");
    Some(level)
}

#[test]
fn nothing_taken_away_is_full() {
    // The control: `sabotage` itself changes nothing.
    assert_eq!(
        level_without("pid-namespace-control", "kernel"),
        None,
        "an unknown mechanism is refused by sabotage"
    );
    let fixture = Fixture::new();
    let (_, hello) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    assert_eq!(hello.wall.level, Level::Full, "{:?}", hello.wall);
}

#[test]
fn without_namespaces_the_level_is_kernel() {
    for mechanism in
        ["user-namespace", "pid-namespace", "network-namespace", "mount", "idmapped-mount", "container"]
    {
        let level = level_without(mechanism, "kernel");
        assert_eq!(level, Some(Level::Kernel), "{mechanism}");
    }
}

#[test]
fn without_namespaces_full_is_refused_when_required() {
    for mechanism in ["user-namespace", "container"] {
        assert_eq!(level_without(mechanism, "full"), None, "{mechanism}");
    }
}

#[test]
fn without_the_core_it_refuses_to_start() {
    for mechanism in ["landlock", "seccomp"] {
        assert_eq!(level_without(mechanism, "reduced"), None, "{mechanism}");
    }
}

#[test]
fn a_kernel_that_only_pretends_is_found_out() {
    for mechanism in ["pretend-landlock", "pretend-seccomp", "pretend-capset", "pretend-rlimits"] {
        assert_eq!(level_without(mechanism, "reduced"), None, "{mechanism}");
    }
}

#[test]
fn older_landlock_without_namespaces_is_reduced_and_named() {
    let fixture = Fixture::new();
    let configuration = fixture.home().join("config.json");
    std::fs::write(&configuration, json!({"sandbox": {"require": "reduced"}}).to_string()).unwrap();
    std::fs::set_permissions(&configuration, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command
        .env_clear()
        .arg(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/landlock_abi.py"))
        .arg("4")
        .arg(binary("sabotage"))
        .args(["container", "--"])
        .arg(binary("oxibot-toolhost"));
    let mut peer = Peer::start_as(
        command,
        &fixture.home(),
        &fixture.workspace(),
        &["--config", &configuration.display().to_string()],
    );
    peer.send(&hello());
    let Some(ToMain::Hello(hello)) = peer.receive() else { panic!("it starts") };
    assert_eq!(hello.wall.level, Level::Reduced, "{:?}", hello.wall);
    assert_eq!(hello.wall.landlock_abi, 4);
    assert!(
        hello.wall.protections.iter().any(|p| p.name.contains("scope") && !p.detail.is_empty()),
        "what is missing is listed by name: {:?}",
        hello.wall.protections
    );
}
