//! As root and as an ordinary user, with and without user namespaces: where files land, who a call is, what holds.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use oxibot_tests::fixture::{ACCEPT_REDUCED, Fixture, describe, level_without_namespaces, skip};
use serde_json::{Value, json};

/// An id no package uses.
const USER: u32 = 48_213;

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Programs where any user can run them, and a home and workspace of that user's.
fn for_user(fixture: &Fixture) -> PathBuf {
    let programs = fixture.programs_for_anyone();
    for directory in [fixture.home(), fixture.workspace()] {
        nix::unistd::chown(&directory, Some(USER.into()), Some(USER.into())).unwrap();
    }
    programs
}

fn as_user(fixture: &Fixture, program: &Path, arguments: &[&str]) -> Output {
    Command::new("setpriv")
        .args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"])
        .arg(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", fixture.root())
        .env("OXIBOT_HOME", fixture.home())
        .env(ACCEPT_REDUCED.0, ACCEPT_REDUCED.1)
        .env("OXIBOT_POLICY__OVERRIDES", r#"[{"rule":"*","verdict":"allow"}]"#)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn call(fixture: &Fixture, program: &Path, before: &[&str], command: &str) -> Value {
    let workspace = fixture.workspace().display().to_string();
    let text = json!({ "command": command }).to_string();
    let mut arguments = before.to_vec();
    arguments.extend(["tool", "call", "bash", &text, "--json", "--workspace", &workspace]);
    let output = as_user(fixture, program, &arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(&output)))
}

#[test]
fn ordinary_user_gets_full_and_owns_what_is_made() {
    if !root() {
        return skip("ordinary_user_gets_full_and_owns_what_is_made", "needs root to become another user");
    }
    let fixture = Fixture::new();
    let programs = for_user(&fixture);
    let result = call(&fixture, &programs.join("oxibot"), &[], "id -u; echo x > made; cat /etc/shadow");
    assert_eq!(result["level"], "full", "{result}");
    assert!(result["output"].as_str().unwrap().starts_with(&format!("{USER}\n")), "{result}");
    let made = std::fs::metadata(fixture.workspace().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (USER, USER));
}

#[test]
fn ordinary_user_without_user_namespaces_gets_kernel() {
    if !root() {
        return skip(
            "ordinary_user_without_user_namespaces_gets_kernel",
            "needs root to become another user",
        );
    }
    let fixture = Fixture::new();
    let programs = for_user(&fixture);
    let oxibot = programs.join("oxibot").display().to_string();
    let result = call(
        &fixture,
        &programs.join("sabotage"),
        &["container", "--", &oxibot],
        "echo x > made; cat made; cat /etc/shadow; echo y > /tmp/outside-oxibot; ls / > /dev/null",
    );
    assert_eq!(result["level"], level_without_namespaces(), "{result}");
    assert!(result["output"].as_str().unwrap().starts_with("x\n"), "{result}");
    assert!(!Path::new("/tmp/outside-oxibot").exists());
}

#[test]
fn root_never_runs_a_call_as_the_kernels_root() {
    if !root() {
        return skip("root_never_runs_a_call_as_the_kernels_root", "needs root");
    }
    let fixture = Fixture::new();
    let (result, _) =
        fixture.tool("bash", &json!({"command": "echo x > made; sleep 0.1; cat /proc/self/uid_map; id -u"}));
    assert_eq!(result["level"], "full", "{result}");
    let text = result["output"].as_str().unwrap();
    let fields: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(fields.first(), Some(&"0"), "inside it is 0: {text}");
    assert_ne!(fields.get(1), Some(&"0"), "outside it is not: {text}");
    let made = std::fs::metadata(fixture.workspace().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0), "on disk the file is root's");
}

#[test]
fn root_runs_a_users_workspace_as_that_user() {
    if !root() {
        return skip("root_runs_a_users_workspace_as_that_user", "needs root");
    }
    let fixture = Fixture::new();
    nix::unistd::chown(&fixture.workspace(), Some(USER.into()), Some(USER.into())).unwrap();
    let (result, _) = fixture.tool("bash", &json!({"command": "echo x > made; id -u"}));
    assert_eq!(result["output"], format!("{USER}\n"), "{result}");
    let made = std::fs::metadata(fixture.workspace().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (USER, USER));
    let (result, _) = fixture.tool("write_file", &json!({"path": "tool", "content": "x"}));
    assert_eq!(result["outcome"], "completed", "{result}");
    assert_eq!(std::fs::metadata(fixture.workspace().join("tool")).unwrap().uid(), USER);
}

#[test]
fn eight_processes_share_one_home() {
    let fixture = Fixture::new();
    let children: Vec<_> = (0..8)
        .map(|n| {
            fixture
                .oxibot()
                .args([
                    "tool",
                    "call",
                    "bash",
                    &json!({"command": format!("sleep 0.3; echo {n} >> all; echo {n}")}).to_string(),
                ])
                .args(["--json", "--workspace"])
                .arg(fixture.workspace())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let result: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)));
        assert_eq!(result["output"], format!("{n}\n"), "{}", describe(&output));
    }
    let all = std::fs::read_to_string(fixture.workspace().join("all")).unwrap();
    assert_eq!(all.lines().count(), 8);
    assert!(
        oxibot_tests::processes::anywhere(&fixture.home().display().to_string()).is_empty(),
        "nobody is left behind"
    );
}

#[test]
fn no_sandbox_says_so_everywhere_and_root_must_say_it_twice() {
    let fixture = Fixture::new();
    let run = |flags: &[&str]| {
        let mut command = fixture.oxibot();
        command.args(flags).args([
            "tool",
            "call",
            "bash",
            r#"{"command":"echo hi"}"#,
            "--json",
            "--workspace",
        ]);
        command.arg(fixture.workspace()).output().unwrap()
    };
    if root() {
        let output = run(&["--no-sandbox"]);
        assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    }
    let output = run(&["--no-sandbox", "--no-sandbox"]);
    let result: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", describe(&output)));
    assert_eq!(result["level"], "off", "{}", describe(&output));
    assert_eq!(result["output"], "hi\n");
    assert!(!output.stderr.is_empty(), "a banner on standard error");
    for name in ["OXIBOT_NO_SANDBOX", "OXIBOT_SANDBOX__NO_SANDBOX", "OXIBOT_SANDBOX__REQUIRE"] {
        let output = fixture
            .oxibot()
            .env(name, "off")
            .args(["tool", "call", "bash", r#"{"command":"echo hi"}"#, "--json", "--workspace"])
            .arg(fixture.workspace())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains("\"off\""), "{name}: {}", describe(&output));
    }
}
