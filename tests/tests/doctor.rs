//! `doctor` on real homes, sound and doctored: every form of its report, and that it looks and changes nothing.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use oxibot_tests::fixture::{Fixture, describe, skip};
use serde_json::Value;

/// An id no package uses.
const USER: u32 = 48_219;

fn doctor(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.oxibot().arg("doctor").args(arguments).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(output)))
}

fn check(report: &Value, id: &str) -> Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {report}")).clone()
}

fn state(report: &Value, id: &str) -> String {
    check(report, id)["state"].as_str().unwrap().to_owned()
}

fn configure(fixture: &Fixture, text: &str) {
    let path = fixture.home().join("config.json");
    std::fs::write(&path, text).unwrap();
    mode(&path, 0o600);
}

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

#[test]
fn an_empty_home_is_in_order_and_what_is_not_chosen_is_information() {
    let fixture = Fixture::new();
    let output = doctor(&fixture, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let report = report(&output);
    let fields: Vec<&String> = report.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["attacks", "checks", "level"], "{report}");
    assert!(report["level"].is_string(), "{report}");
    let mut ids = Vec::new();
    for check in report["checks"].as_array().unwrap() {
        let fields: Vec<&String> = check.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["consequence", "found", "id", "remedy", "state"], "{check}");
        assert!(["ok", "info", "warn"].contains(&check["state"].as_str().unwrap()), "{check}");
        ids.push(check["id"].as_str().unwrap().to_owned());
    }
    for id in [
        "kernel.version",
        "kernel.landlock",
        "kernel.seccomp",
        "kernel.yama",
        "namespaces.tried",
        "namespaces.limit",
        "namespaces.unprivileged",
        "namespaces.apparmor",
        "cgroup.version",
        "cgroup.delegation",
        "cgroup.release",
        "sandbox.programs",
        "sandbox.toolhost",
        "sandbox.level",
        "sandbox.require",
        "sandbox.protection.landlock",
        "sandbox.main",
        "sandbox.stop",
        "sandbox.sockets",
        "files.home",
        "files.config",
        "files.secrets",
        "files.state",
        "files.audit",
        "files.run",
        "files.workspace",
        "files.program",
        "files.above",
        "audit.anchor",
        "configuration.file",
        "configuration.model",
        "configuration.workspace",
        "channels.none",
        "gateway.port",
        "gateway.host",
        "clock.date",
        "clock.synchronised",
        "disk.home",
        "disk.workspace",
        "disk.tmp",
        "disk.swap",
    ] {
        assert!(ids.iter().any(|known| known == id), "no {id} in {ids:?}");
    }
    for id in ["configuration.file", "configuration.model", "channels.none"] {
        assert_eq!(state(&report, id), "info");
    }
    let mut once = ids.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "each id once");
}

#[test]
fn text_fits_80_columns_and_says_nothing_by_colour() {
    let fixture = Fixture::new();
    configure(&fixture, r#"{"tools":{"restrictToWorkspace":false},"channels":{"telegram":{"token":"t"}}}"#);
    let output = doctor(&fixture, &[]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    assert!(text.chars().all(|c| c == '\n' || (c as u32) >= 0x20), "no control character");
    assert!(text.contains("\nsandbox\n") && text.contains("  warn  telegram: "), "{text}");
    // What is found may differ a little from one run to the next, and with it where lines are folded; not what is checked.
    let names = |text: &str| -> Vec<String> {
        let heads = text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        heads.filter_map(|line| Some(line.get(8..)?.split(':').next()?.to_owned())).collect()
    };
    assert!(names(&text).len() > 20, "{text}");
    for alone in ["--plain", "--format=text"] {
        let same = String::from_utf8(doctor(&fixture, &[alone]).stdout).unwrap();
        assert_eq!(names(&same), names(&text));
    }
}

#[test]
fn prometheus_lists_every_check_once() {
    let fixture = Fixture::new();
    let output = doctor(&fixture, &["--format", "prometheus"]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let checks = report(&doctor(&fixture, &["--json"]))["checks"].as_array().unwrap().len();
    let series = text.lines().filter(|line| line.starts_with("oxibot_doctor_check_state{")).count();
    assert_eq!(series, checks, "{text}");
    assert!(text.ends_with('\n'));
    assert_eq!(text.lines().filter(|line| line.starts_with("oxibot_sandbox_level{")).count(), 4);
}

#[test]
fn files_others_may_read_or_write_are_named_with_the_command() {
    let fixture = Fixture::new();
    configure(&fixture, "{}");
    let sound = report(&doctor(&fixture, &["--json"]));
    assert_eq!((state(&sound, "files.home"), state(&sound, "files.config")), ("ok".into(), "ok".into()));
    mode(&fixture.home(), 0o755);
    mode(&fixture.home().join("config.json"), 0o644);
    mode(&fixture.home().join("audit"), 0o777);
    let output = doctor(&fixture, &["--json"]);
    let bad = report(&output);
    assert_eq!(state(&bad, "files.home"), "warn");
    let home = fixture.home().display().to_string();
    assert_eq!(check(&bad, "files.home")["remedy"], format!("chmod 700 {home}"));
    assert_eq!(state(&bad, "files.config"), "info", "there is no secret in it");
    assert_eq!(state(&bad, "files.audit"), "fail");
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    // The remedies, run as they are printed, mend it.
    for id in ["files.home", "files.config", "files.audit"] {
        let remedy = check(&bad, id)["remedy"].as_str().unwrap().to_owned();
        assert!(Command::new("sh").args(["-c", &remedy]).status().unwrap().success(), "{remedy}");
    }
    let mended = doctor(&fixture, &["--json"]);
    assert_eq!(mended.status.code(), Some(0), "{}", describe(&mended));
    for id in ["files.home", "files.config", "files.audit"] {
        assert_eq!(state(&report(&mended), id), "ok");
    }
}

#[test]
fn a_configuration_that_is_wrong_fails_with_its_place() {
    for (text, needle) in [
        ("{\"tolls\": {}}", "tolls"),
        ("{", "line 1"),
        ("{\"sandbox\": {\"require\": \"off\"}}", "sandbox.require"),
    ] {
        let fixture = Fixture::new();
        configure(&fixture, text);
        let output = doctor(&fixture, &["--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
        let check = check(&report(&output), "configuration.file");
        assert_eq!(check["state"], "fail", "{check}");
        assert!(check["found"].as_str().unwrap().contains(needle), "{check}");
        assert!(!check["remedy"].as_str().unwrap().is_empty(), "{check}");
    }
}

#[test]
fn a_world_readable_secret_fails_with_the_chmod() {
    let fixture = Fixture::new();
    configure(&fixture, r#"{"providers":{"openai":{"apiKey":"sk-test-4711"}}}"#);
    mode(&fixture.home().join("config.json"), 0o644);
    let output = doctor(&fixture, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    assert!(!describe(&output).contains("sk-test-4711"));
    let check = check(&report(&output), "configuration.file");
    assert!(check["remedy"].as_str().unwrap().contains("chmod 600"), "{check}");
}

#[test]
fn allow_lists_say_who_is_admitted() {
    let fixture = Fixture::new();
    configure(
        &fixture,
        r#"{"channels":{
            "telegram":{"token":"t","allowedUsers":["1"]},
            "discord":{"token":"t"},
            "slack":{"botToken":"a","appToken":"b","allowFrom":["*"]}}}"#,
    );
    let report = report(&doctor(&fixture, &["--json"]));
    assert_eq!(state(&report, "channels.telegram"), "ok");
    assert_eq!(state(&report, "channels.discord"), "warn");
    assert!(check(&report, "channels.discord")["consequence"].as_str().unwrap().starts_with("nobody"));
    assert_eq!(state(&report, "channels.slack"), "warn");
    assert!(check(&report, "channels.slack")["consequence"].as_str().unwrap().starts_with("everyone"));
}

#[test]
fn a_taken_port_and_an_open_host_are_doubtful() {
    let fixture = Fixture::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    configure(&fixture, &format!("{{\"gateway\":{{\"port\":{port}}}}}"));
    let output = doctor(&fixture, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "a doubt is no failure: {}", describe(&output));
    let bad = report(&output);
    assert_eq!((state(&bad, "gateway.port"), state(&bad, "gateway.host")), ("warn".into(), "ok".into()));
    drop(taken);
    configure(&fixture, &format!("{{\"gateway\":{{\"port\":{port},\"host\":\"0.0.0.0\"}}}}"));
    let open = report(&doctor(&fixture, &["--json"]));
    assert_eq!((state(&open, "gateway.port"), state(&open, "gateway.host")), ("ok".into(), "warn".into()));
}

#[test]
fn a_full_home_fails_and_a_roomy_one_does_not() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a_full_home_fails_and_a_roomy_one_does_not", "needs root to mount a small file system");
    }
    // In a mount namespace of its own, so that nothing is left behind whatever happens.
    let script = |size: &str| {
        let fixture = Fixture::new();
        let oxibot = oxibot_tests::fixture::binary("oxibot").display().to_string();
        let home = fixture.home().display().to_string();
        let command = format!(
            "mount -t tmpfs -o size={size},mode=700 none {home} && exec {oxibot} --home {home} doctor --json"
        );
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", &command])
            .env("HOME", fixture.root())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        state(&report(&output), "disk.home")
    };
    assert_eq!(script("2m"), "fail");
    assert_eq!(script("64m"), "warn");
    assert_eq!(script("1g"), "ok");
}

#[test]
fn live_sockets_in_the_workspace_are_counted() {
    let fixture = Fixture::new();
    let workspace = fixture.workspace();
    configure(&fixture, &serde_json::json!({"agents": {"defaults": {"workspace": workspace}}}).to_string());
    assert_eq!(state(&report(&doctor(&fixture, &["--json"])), "sandbox.sockets"), "ok");
    let _agent = UnixListener::bind(workspace.join("agent.sock")).unwrap();
    let report = report(&doctor(&fixture, &["--json"]));
    assert!(check(&report, "sandbox.sockets")["found"].as_str().unwrap().contains("agent.sock"), "{report}");
}

#[test]
fn an_emergency_stop_is_named() {
    let fixture = Fixture::new();
    std::fs::write(fixture.home().join("STOP"), "").unwrap();
    let report = report(&doctor(&fixture, &["--json"]));
    assert_eq!(state(&report, "sandbox.stop"), "warn");
}

#[test]
fn a_user_is_told_of_a_strangers_home() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a_user_is_told_of_a_strangers_home", "needs root to become another user");
    }
    let fixture = Fixture::new();
    let programs = fixture.programs_for_anyone();
    let run = |owner: u32| {
        nix::unistd::chown(&fixture.home(), Some(owner.into()), Some(owner.into())).unwrap();
        mode(&fixture.home(), if owner == USER { 0o700 } else { 0o777 });
        let output = Command::new("setpriv")
            .args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"])
            .arg(programs.join("oxibot"))
            .args(["doctor", "--json"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", fixture.root())
            .env("OXIBOT_HOME", fixture.home())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (report(&output), output.status.code())
    };
    let (own, code) = run(USER);
    assert_eq!((state(&own, "files.home"), code), ("ok".into(), Some(0)), "{own}");
    let (foreign, code) = run(USER + 1);
    assert_eq!((state(&foreign, "files.home"), code), ("fail".into(), Some(1)), "{foreign}");
    assert!(check(&foreign, "files.home")["remedy"].as_str().unwrap().starts_with("as root: chown "));
}

#[test]
fn a_program_others_may_replace_fails() {
    let fixture = Fixture::new();
    let programs = fixture.programs_for_anyone();
    let run = || {
        let output = Command::new(programs.join("oxibot"))
            .args(["doctor", "--json"])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", fixture.root())
            .env("OXIBOT_HOME", fixture.home())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (report(&output), output.status.code())
    };
    assert_eq!(run().1, Some(0), "the control: {}", run().0);
    mode(&programs, 0o777);
    let (bad, code) = run();
    assert_eq!(code, Some(1), "{bad}");
    for id in ["sandbox.programs", "sandbox.toolhost", "files.above"] {
        assert_eq!(state(&bad, id), "fail", "{bad}");
    }
    assert!(bad["level"].is_null(), "nothing is claimed: {bad}");
}

#[test]
fn without_namespaces_the_refusal_is_named() {
    let fixture = Fixture::new();
    let output = Command::new(oxibot_tests::fixture::binary("sabotage"))
        .args(["container", "--"])
        .arg(oxibot_tests::fixture::binary("oxibot"))
        .args(["doctor", "--json"])
        .env("OXIBOT_HOME", fixture.home())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = report(&output);
    assert_eq!(state(&report, "namespaces.tried"), "warn", "{report}");
    assert!(check(&report, "namespaces.tried")["found"].as_str().unwrap().contains("EPERM"), "{report}");
    assert_ne!(report["level"], "full", "{report}");
    assert_eq!(state(&report, "sandbox.protection.pid-namespace"), "warn", "{report}");
}

#[test]
fn looking_changes_nothing_of_the_users() {
    let fixture = Fixture::new();
    configure(&fixture, "{}");
    let list = || {
        let mut found = Vec::new();
        let mut stack = vec![fixture.home()];
        while let Some(directory) = stack.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                // What every start of a toolhost leaves: its log.
                if entry.path().starts_with(fixture.home().join("audit")) {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    stack.push(entry.path());
                }
                found.push((entry.path(), entry.metadata().unwrap().permissions().mode()));
            }
        }
        found.sort();
        found
    };
    assert_eq!(doctor(&fixture, &[]).status.code(), Some(0));
    let before = list();
    assert_eq!(doctor(&fixture, &[]).status.code(), Some(0));
    assert_eq!(list(), before);
}
