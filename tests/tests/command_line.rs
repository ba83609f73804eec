//! Small promises of the command line that scripts and people lean on, each named by what once broke it.

use std::os::unix::fs::PermissionsExt as _;

use oxibot_tests::fixture::{Fixture, describe, skip};
use serde_json::json;

#[test]
fn verbose_says_launch_hello_start_and_end_of_a_call_and_never_what_was_in_it() {
    let fixture = Fixture::new();
    let call = json!({"command": "echo 4711-in-the-output"}).to_string();
    let run = |flags: &[&str]| {
        let output = fixture.oxibot().args(flags).args(["tool", "call", "bash", &call]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&["-v", "-v"]);
    for event in
        ["the toolhost runs", "said hello", "the call started", "the call ended", "outcome=\"completed\""]
    {
        assert!(said.contains(event), "no {event:?} in {said}");
    }
    assert!(!said.contains("4711-in-the-output"), "{said}");
    assert!(!run(&["-v"]).contains("said hello"));
    assert_eq!(run(&[]), "");
}

#[test]
fn damaged_conversations_are_named_with_what_to_do() {
    let fixture = Fixture::new();
    let state = fixture.home().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = state.join("conversations.db");
    std::fs::write(&file, "no database at all, but long enough to be read as one ".repeat(100)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = fixture.oxibot().args(["sessions", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", describe(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("conversations.db") && said.contains("move conversations.db"), "{said}");
}

#[test]
fn a_file_directly_below_the_root_is_imported() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a_file_directly_below_the_root_is_imported", "needs root to write there");
    }
    struct Gone(std::path::PathBuf);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
    let older = Gone(format!("/oxibot-test-import-{}.json", std::process::id()).into());
    let text = json!({
        "agents": {"defaults": {"model": "openai/gpt-4o"}},
        "providers": {"openai": {"apiKey": "sk-old"}},
    });
    std::fs::write(&older.0, text.to_string()).unwrap();
    std::fs::set_permissions(&older.0, std::fs::Permissions::from_mode(0o600)).unwrap();
    let fixture = Fixture::new();
    let output = fixture.oxibot().args(["onboard", "--yes", "--import"]).arg(&older.0).output().unwrap();
    assert!(fixture.home().join("config.json").is_file(), "{}", describe(&output));
    assert!(!describe(&output).contains("confine"), "{}", describe(&output));
}

#[test]
fn an_emergency_stop_is_one_remark_and_not_one_for_each_file_of_the_prompt() {
    let fixture = Fixture::new();
    let server = oxibot_tests::model_server::ModelServer::start(
        oxibot_tests::model_server::Rules::with_key("k"),
        vec![oxibot_tests::model_server::Answer::text("Hello.")],
    );
    let config = json!({
        "agents": {"defaults": {"model": "custom/m"}},
        "providers": {"custom": {"apiKey": "k", "apiBase": server.openai_base()}},
    });
    let path = fixture.home().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(fixture.home().join("STOP"), "").unwrap();
    let output = fixture.oxibot().args(["agent", "-m", "hello"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.matches("not in the prompt").count() <= 1, "{}", describe(&output));
}

/// Each command that prints, and what makes it.
const PRINTING: [&[&str]; 20] = [
    &["--version"],
    &["--help"],
    &["tool", "list"],
    &["tool", "list", "--json"],
    &["tool", "call", "list_dir", r#"{"path":"."}"#],
    &["tool", "call", "list_dir", r#"{"path":"."}"#, "--json"],
    &["tool", "call", "bash", r#"{"command":"true"}"#, "--dry-run"],
    &["sandbox", "status"],
    &["sandbox", "status", "--json"],
    &["doctor"],
    &["doctor", "--format", "prometheus"],
    &["config", "show"],
    &["config", "schema"],
    &["config", "path"],
    &["completions", "bash"],
    &["status"],
    &["sessions", "list"],
    &["approvals", "list"],
    &["audit", "verify"],
    &["audit", "export"],
];

/// Standard output that is closed cannot be told here: the language's runtime opens `/dev/null` in its place before any
/// code of ours runs.
#[test]
fn what_cannot_be_printed_is_a_failure_that_is_said() {
    let fixture = Fixture::new();
    for arguments in PRINTING {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = fixture.oxibot().args(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", describe(&output));
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = "cannot write to standard output: No space left on device";
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_nothing_is_said() {
    let fixture = Fixture::new();
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = fixture.oxibot().args(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", describe(&output));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("write") && !said.contains("panic"), "{arguments:?}: {said}");
    }
}

/// `trap '' CHLD` in a shell and some service managers leave that behind; the kernel then throws away how a child ended.
#[test]
fn parent_that_ignores_its_ended_children_changes_no_exit_status() {
    for (arguments, status) in [
        (&["gateway"][..], 78),
        (&["tool", "call", "web_get", r#"{"url":"http://127.0.0.1:9/"}"#, "--json"][..], 3),
        (&["tool", "call", "list_dir", r#"{"path":"."}"#, "--json"][..], 0),
        (&["audit", "verify"][..], 0),
    ] {
        let fixture = Fixture::new();
        let inner = fixture.oxibot();
        let output = std::process::Command::new("bash")
            .env_clear()
            .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .args(["-c", "trap '' CHLD; exec \"$@\"", "bash"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", describe(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("No child") && !said.contains("ended by"), "{arguments:?}: {said}");
    }
}
