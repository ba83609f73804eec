//! A conversation at a real terminal: the prompt, an answer as it streams, Ctrl-C on a running call, Ctrl-D.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_tests::fixture::Fixture;
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use oxibot_tests::processes::anywhere;
use rexpect::session::{PtySession, spawn_command};
use serde_json::json;

const KEY: &str = "sk-test-8c1f";
/// As long as a busy machine may take.
const PATIENCE: u64 = Duration::from_secs(60).as_millis() as u64;

fn configured(server: &ModelServer) -> Fixture {
    let fixture = Fixture::new();
    let text = json!({
        "agents": {"defaults": {"model": "custom/test-model", "workspace": fixture.workspace()}},
        "providers": {"custom": {"apiKey": KEY, "apiBase": server.openai_base()}},
    });
    let path = fixture.home().join("config.json");
    std::fs::write(&path, text.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    fixture
}

/// `oxibot agent` on a terminal of its own; `term` decides whether lines are edited.
fn sit_down(fixture: &Fixture, term: &str, arguments: &[&str]) -> PtySession {
    let plain = fixture.oxibot();
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args()).arg("agent").args(arguments).env_clear().env("HOME", fixture.root());
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TERM", term).env("LANG", "C.UTF-8");
    spawn_command(command, Some(PATIENCE)).unwrap()
}

/// Whether the program ends by itself with status 0.
fn leaves(person: &mut PtySession) -> bool {
    person.exp_eof().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // The type is not to be named from here; its Debug form is `Exited(Pid(1), 0)`.
        let status = format!("{:?}", person.process().status());
        if status.contains("Exited") {
            return status.contains(", 0)");
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(fixture: &Fixture) {
    let home = fixture.home().display().to_string();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !anywhere(&home).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", anywhere(&home));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_person_asks_is_answered_and_leaves_with_ctrl_d() {
    for term in ["xterm", "dumb"] {
        let server = ModelServer::start(
            Rules::with_key(KEY),
            vec![Answer::text("Good morning, it is a fine day."), Answer::text("You are welcome.")],
        );
        let fixture = configured(&server);
        let mut person = sit_down(&fixture, term, &[]);
        let banner = person.exp_string("/help lists commands.").unwrap();
        assert!(banner.contains("test-model") && banner.contains("sandbox"), "{term}: {banner}");
        person.exp_string("> ").unwrap();
        person.send_line("hello").unwrap();
        person.exp_string("it is a fine day.").unwrap();
        person.exp_string("> ").unwrap();
        person.send_line("thanks").unwrap();
        person.exp_string("You are welcome.").unwrap();
        person.exp_string("> ").unwrap();
        person.send_control('d').unwrap();
        assert!(leaves(&mut person), "{term}");
        assert_eq!(server.problems(), Vec::<String>::new(), "{term}");
        ended(&fixture);
    }
}

#[test]
fn ctrl_c_ends_the_running_call_and_not_the_conversation() {
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![
            Answer::calls(&[("a", "bash", r#"{"command":"echo $$ > running; sleep 300 & sleep 300"}"#)]),
            Answer::text("What next?"),
        ],
    );
    let fixture = configured(&server);
    let mut person = sit_down(&fixture, "xterm", &[]);
    person.exp_string("> ").unwrap();
    person.send_line("wait for me").unwrap();
    let mark = fixture.workspace().join("running");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !mark.exists() {
        assert!(Instant::now() < deadline, "the call never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    person.send_control('c').unwrap();
    person.exp_string("cancelling").unwrap();
    person.exp_string("[cancelled]").unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    // The conversation goes on.
    person.exp_string("> ").unwrap();
    person.send_line("are you there?").unwrap();
    person.exp_string("What next?").unwrap();
    person.exp_string("> ").unwrap();
    person.send_control('d').unwrap();
    assert!(leaves(&mut person));
    ended(&fixture);
}

#[test]
fn ctrl_c_at_the_prompt_leaves_at_the_second_time() {
    let server = ModelServer::start(Rules::with_key(KEY), Vec::new());
    let fixture = configured(&server);
    let mut person = sit_down(&fixture, "xterm", &[]);
    person.exp_string("> ").unwrap();
    person.send_control('c').unwrap();
    person.exp_string("Ctrl-C again leaves").unwrap();
    person.exp_string("> ").unwrap();
    person.send_control('c').unwrap();
    assert!(leaves(&mut person));
    ended(&fixture);
}

#[test]
fn banner_of_a_long_model_fits_the_screen() {
    let server = ModelServer::start(Rules::with_key(KEY), Vec::new());
    let fixture = configured(&server);
    let model = "custom/some-vendor/some-rather-long-model-name";
    let mut person = sit_down(&fixture, "dumb", &["--model", model, "-s", "a-conversation-with-a-long-name"]);
    let banner = person.exp_string("lists commands.").unwrap();
    assert!(banner.contains(model), "{banner}");
    for line in format!("{banner}lists commands.").lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    person.exp_string("> ").unwrap();
    person.send_control('d').unwrap();
    assert!(leaves(&mut person));
}

#[test]
fn a_model_that_the_provider_does_not_list_is_not_taken() {
    let models = json!({"object": "list", "data": [{"id": "small-model"}, {"id": "test-model"}]});
    let server = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::Json(200, models.clone()), Answer::Json(200, models)],
    );
    let fixture = configured(&server);
    let mut person = sit_down(&fixture, "dumb", &[]);
    person.exp_string("> ").unwrap();
    person.send_line("/model nosuch/x").unwrap();
    person.exp_string("still custom/test-model").unwrap();
    person.exp_string("> ").unwrap();
    person.send_line("/model custom/small-model").unwrap();
    person.exp_string("[going on with custom/small-model]").unwrap();
    person.exp_string("> ").unwrap();
    person.send_control('d').unwrap();
    assert!(leaves(&mut person));
}
