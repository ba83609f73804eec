//! From a message to a confined tool call and back, with the real binaries and a strict scripted model.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use oxibot_tests::fixture::{Fixture, describe};
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use oxibot_tests::processes::anywhere;
use serde_json::{Value, json};

const KEY: &str = "sk-test-8c1f";

/// A home configured for `server` by one of the two wire forms.
fn configured(server: &ModelServer, provider: &str) -> Fixture {
    let fixture = Fixture::new();
    let base = if provider == "anthropic" { server.url() } else { server.openai_base() };
    let text = json!({
        "agents": {"defaults": {"model": format!("{provider}/test-model"), "workspace": fixture.workspace()}},
        "providers": {provider: {"apiKey": KEY, "apiBase": base}},
    });
    let path = fixture.home().join("config.json");
    std::fs::write(&path, text.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    fixture
}

fn ask(fixture: &Fixture, text: &str, more: &[&str]) -> Output {
    fixture.oxibot().args(["agent", "-m", text, "--json"]).args(more).output().unwrap()
}

fn object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", describe(output)))
}

#[test]
fn a_turn_with_tools_works_over_both_wires() {
    for provider in ["custom", "anthropic"] {
        let server = ModelServer::start(
            Rules::with_key(KEY),
            vec![
                Answer::calls(&[
                    ("a", "bash", r#"{"command":"echo made > file; ls /root; echo $((6*7))"}"#),
                    ("b", "list_dir", r#"{"path":"."}"#),
                ]),
                Answer::text("It is 42."),
            ],
        );
        let fixture = configured(&server, provider);
        let output = ask(&fixture, "what is six times seven?", &[]);
        assert_eq!(output.status.code(), Some(0), "{provider}: {}", describe(&output));
        let value = object(&output);
        assert_eq!(value["reply"], "It is 42.", "{value}");
        assert_eq!(value["tool_calls"].as_array().unwrap().len(), 2, "{value}");
        assert_eq!(server.problems(), Vec::<String>::new(), "{provider}");
        let second = server.requests().last().unwrap().body.to_string();
        assert!(second.contains("42"), "{provider}: {second}");
        assert!(second.contains("<<<"), "what a tool printed is delimited: {second}");
        assert!(fixture.workspace().join("file").is_file());
        assert!(!describe(&output).contains(KEY));
    }
}

#[test]
fn a_conversation_goes_on_where_it_was() {
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::text("Noted."), Answer::text("Your name is Ada.")],
    );
    let fixture = configured(&server, "custom");
    assert_eq!(ask(&fixture, "my name is Ada", &["-s", "work"]).status.code(), Some(0));
    assert_eq!(ask(&fixture, "what is my name?", &["-s", "work"]).status.code(), Some(0));
    let body = server.requests().last().unwrap().body.to_string();
    assert!(body.contains("my name is Ada") && body.contains("Noted."), "{body}");
    let listed = fixture.oxibot().args(["sessions", "list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("work"), "{}", describe(&listed));
    let mode = |name: &str| {
        let mut found = Vec::new();
        let mut stack = vec![fixture.home()];
        while let Some(directory) = stack.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    stack.push(path);
                } else if path.to_string_lossy().contains(name) {
                    found.push(std::fs::metadata(path).unwrap().permissions().mode() & 0o777);
                }
            }
        }
        found
    };
    let modes = mode(".db").into_iter().chain(mode(".sqlite")).collect::<Vec<_>>();
    assert!(!modes.is_empty() && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
}

#[test]
fn every_failure_of_a_provider_is_told_apart_and_never_becomes_an_answer() {
    for (answer, code, needle) in [
        (Answer::error(401, "bad key"), 78, "key"),
        (Answer::error(404, "no such model"), 78, "model"),
        (Answer::error(400, "you sent nonsense"), 1, ""),
        (Answer::Html(200), 1, ""),
        (Answer::Raw(b"garbage\n\n".to_vec()), 1, ""),
    ] {
        // The same answer for as many tries as are made.
        let server = ModelServer::start(Rules::with_key(KEY), vec![answer.clone(); 6]);
        let fixture = configured(&server, "custom");
        let output = ask(&fixture, "hello", &[]);
        let code_found = output.status.code();
        assert!(
            code_found == Some(code) || code_found == Some(75),
            "{answer:?}: {code_found:?} is not {code}: {}",
            describe(&output)
        );
        assert!(!describe(&output).contains(KEY));
        let said = describe(&output).to_lowercase();
        assert!(said.contains(needle), "{answer:?}: {said}");
        let value = object(&output);
        assert!(value["reply"].as_str().unwrap_or_default().is_empty(), "{answer:?}: {value}");
        assert!(!value["error"].is_null(), "{answer:?}: {value}");
        // What failed is not in the history of the next turn.
        server.push(Answer::text("Hello."));
    }
}

#[test]
fn a_rate_limit_is_waited_out() {
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::retry_after(429, "1"), Answer::text("Here I am.")],
    );
    let fixture = configured(&server, "custom");
    let output = ask(&fixture, "hello", &[]);
    assert_eq!(object(&output)["reply"], "Here I am.", "{}", describe(&output));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn main_killed_during_a_call_reports_unknown_and_never_runs_it_again() {
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![
            Answer::calls(&[("a", "bash", r#"{"command":"echo ran >> count; sleep 94.17"}"#)]),
            Answer::text("I do not know how that ended."),
        ],
    );
    let fixture = configured(&server, "custom");
    let mut child = fixture
        .oxibot()
        .args(["agent", "-m", "do it", "-s", "s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    while anywhere("sleep 94.17").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "the call runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let start = std::time::Instant::now();
    while !anywhere("sleep 94.17").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "the call ends with its main");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = ask(&fixture, "what happened?", &["-s", "s"]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let body = server.requests().last().unwrap().body.to_string();
    assert!(body.contains("unknown"), "the model is told: {body}");
    assert_eq!(server.problems(), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(fixture.workspace().join("count")).unwrap(), "ran\n", "once");
}

#[test]
fn a_recording_can_be_made_and_played() {
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::calls(&[("a", "bash", r#"{"command":"echo hi"}"#)]), Answer::text("Said hi.")],
    );
    let fixture = configured(&server, "custom");
    let file = fixture.root().join("recording.jsonl");
    let path = file.display().to_string();
    let output = ask(&fixture, "say hi", &["--record", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let model = format!("replay/{path}");
    let output = ask(&fixture, "say hi", &["--model", &model, "-s", "again"]);
    assert_eq!(object(&output)["reply"], "Said hi.", "{}", describe(&output));
    assert_eq!(server.left(), 0);
}

#[test]
fn workspace_files_reach_the_prompt_through_the_broker() {
    let server = ModelServer::start(Rules::with_key(KEY), vec![Answer::text("ok")]);
    let fixture = configured(&server, "custom");
    std::fs::write(fixture.workspace().join("AGENTS.md"), "Always answer in haiku, marker-551.").unwrap();
    std::fs::write(fixture.root().join("outside"), "marker-outside").unwrap();
    std::os::unix::fs::symlink("../outside", fixture.workspace().join("SOUL.md")).unwrap();
    assert_eq!(ask(&fixture, "hello", &[]).status.code(), Some(0));
    let body = server.requests().last().unwrap().body.to_string();
    assert!(body.contains("marker-551"), "{body}");
    assert!(!body.contains("marker-outside"), "a link out of the workspace is not followed");
}

#[test]
fn main_is_confined_while_it_talks() {
    let server =
        ModelServer::start(Rules::with_key(KEY), vec![Answer::text("late").after(Duration::from_secs(3))]);
    let fixture = configured(&server, "custom");
    let mut child = fixture
        .oxibot()
        .args(["agent", "-m", "hello"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    while server.requests().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
    assert!(child.wait().unwrap().success());
}
