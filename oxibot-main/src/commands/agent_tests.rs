//! `agent -m` from its arguments to its exit status, with a recording for a model and a scripted toolhost.

use std::io::Write as _;

use oxibot_proto::message::{Outcome, ToMain, ToToolhost, TransferEnd};

use super::*;
use crate::broker::{Connection, fake, greet};
use crate::config::{Environment, Options, load};

fn args(message: &str, model: Option<&str>) -> AgentArgs {
    AgentArgs {
        message: Some(message.to_owned()),
        session: None,
        model: model.map(str::to_owned),
        record: None,
        json: false,
    }
}

fn loaded(home: &Path) -> Loaded {
    let options = Options { home: Some(home.to_owned()), config: None };
    load(&options, &Environment::of(&[("HOME", "/nonexistent")])).unwrap()
}

/// A toolhost that offers bash, has no files, and answers each call with `printed`.
async fn toolhost() -> (Broker, Connection, std::thread::JoinHandle<Vec<String>>) {
    let (answer, calls) = std::sync::mpsc::channel();
    let (stream, thread) = fake::start(move |fake| {
        let mut seen = Vec::new();
        while let Some(message) = fake.receive() {
            if let ToToolhost::ListTools = message {
                fake.send(&ToMain::Tools(vec![ToolSpec {
                    name: "bash".into(),
                    aliases: vec!["exec".into()],
                    description: "runs".into(),
                    parameters: "{\"type\":\"object\"}".into(),
                }]));
            } else if let ToToolhost::Get(get) = message {
                let outcome = Outcome::Failed { message: "no such file or directory".into() };
                fake.send(&ToMain::TransferEnd(TransferEnd { call: get.call, outcome, size: 0 }));
            } else if let ToToolhost::Call(call) = message {
                fake.started(call.call);
                fake.result(call.call, Outcome::Completed, b"printed");
                seen.push(format!("{} {} {}", call.tool, call.arguments, call.origin.session));
            }
        }
        answer.send(seen).unwrap();
    });
    let greeted = tokio::task::spawn_blocking(move || greet(stream)).await.unwrap().unwrap();
    let (broker, connection) = Broker::start(greeted).unwrap();
    let joined = std::thread::spawn(move || {
        thread.join().unwrap();
        calls.recv().unwrap()
    });
    (broker, connection, joined)
}

const PIPE: Terminal = Terminal { stdout: false, stderr: false, fancy: false };

fn recording(dir: &Path) -> String {
    let file = dir.join("talk.jsonl");
    let mut out = std::fs::File::create(&file).unwrap();
    writeln!(
        out,
        r#"{{"reply":{{"parts":[{{"kind":"tool_call","id":"1","name":"bash","arguments":"{{}}"}}],"stop":"tool_use","usage":{{"input":5,"output":1,"cache_read":0,"cache_write":0}}}}}}"#
    )
    .unwrap();
    writeln!(
        out,
        r#"{{"expect_last":"printed","reply":{{"parts":[{{"kind":"text","text":"it printed"}}],"stop":"end_turn","usage":{{"input":7,"output":2,"cache_read":0,"cache_write":0}}}}}}"#
    )
    .unwrap();
    format!("replay/{}", file.display())
}

#[test]
fn no_model_and_no_provider_are_configuration_and_name_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let unready = prepare(&args("hi", None), &loaded(dir.path())).unwrap_err();
    assert_eq!(unready.exit, Exit::Configuration);
    assert!(format!("{} {}", unready.message, unready.hint).contains("oxibot onboard"), "{unready:?}");
    let unready = prepare(&args("hi", Some("openai/gpt-4o")), &loaded(dir.path())).unwrap_err();
    assert_eq!(unready.exit, Exit::Configuration);
    assert!(unready.hint.contains("oxibot onboard"), "{unready:?}");
    let unready = prepare(&args(" ", Some("ollama/x")), &loaded(dir.path())).unwrap_err();
    assert_eq!(unready.exit, Exit::Usage);
}

#[tokio::test]
async fn message_goes_through_tools_to_an_answer_that_is_kept_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = loaded(&dir.path().join("home"));
    let prepared = prepare(&args("run it", Some(&recording(dir.path()))), &loaded).unwrap();
    let (broker, connection, calls) = toolhost().await;
    assert_eq!(run(prepared, broker, PIPE).await, Exit::Done);
    drop(connection);
    let calls = tokio::task::spawn_blocking(move || calls.join().unwrap()).await.unwrap();
    assert_eq!(calls, ["bash {} terminal:default"]);
    let database = crate::store::Database::open(&loaded.paths.state).unwrap();
    let session = database.session("terminal:default").unwrap();
    assert_eq!(session.turns, 1);
    let usage = database.usage(1, crate::agent::runner::now_millis()).unwrap();
    assert_eq!((usage[0].requests, usage[0].tokens.input), (2, 12));
}

#[tokio::test]
async fn failing_model_fails_the_command_and_a_busy_session_says_try_again() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = loaded(&dir.path().join("home"));
    let empty = dir.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let model = format!("replay/{}", empty.display());
    let (broker, _connection, _calls) = toolhost().await;
    let prepared = prepare(&args("hi", Some(&model)), &loaded).unwrap();
    assert_eq!(run(prepared, broker.clone(), PIPE).await, Exit::Failed);

    let database = crate::store::Database::open(&loaded.paths.state).unwrap();
    let _lock = database.lock(&database.session("terminal:default").unwrap()).unwrap();
    let prepared = prepare(&args("hi", Some(&model)), &loaded).unwrap();
    assert_eq!(run(prepared, broker, PIPE).await, Exit::TryAgain);
}

#[test]
fn days_of_zero_never_end_a_conversation() {
    let mut config = Config::default();
    config.sessions.idle_days = 0;
    config.sessions.max_days = 2;
    let expiry = expiry(&config);
    assert_eq!((expiry.idle, expiry.absolute), (None, Some(Duration::from_secs(172_800))));
}
