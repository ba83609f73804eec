//! How long a verdict takes: by the reader alone, and as the supervisor sees it, with the worker and the socket.
//!
//! `cargo bench -p oxibot-tests --bench verdict`. The aim is 95 % below 300 microseconds.

use std::time::{Duration, Instant};

use oxibot_proto::message::{CallRequest, ToMain, ToToolhost};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{Peer, origin};
use oxibot_toolhost::shell::{Policy, judge};

fn commands() -> Vec<String> {
    [
        include_str!("../../oxibot-toolhost/tests/shell_corpus/dangerous.txt"),
        include_str!("../../oxibot-toolhost/tests/shell_corpus/ordinary.txt"),
    ]
    .iter()
    .flat_map(|text| text.lines())
    .filter_map(|line| line.split_once(": "))
    .map(|(_, command)| command.replace('⏎', "\n"))
    .collect()
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{name}: {} verdicts, median {:?}, 95 % {:?}, 99 % {:?}", times.len(), at(50), at(95), at(99));
}

fn main() {
    let commands = commands();
    let policy = Policy::standard().expect("policy");
    // Expressions are compiled when they are first needed, once in the life of a reader.
    for command in &commands {
        let _ = judge(&policy, command);
    }
    let timed = |command: &String| {
        let start = Instant::now();
        let _ = judge(&policy, command);
        start.elapsed()
    };
    report("reader alone", commands.iter().map(timed).collect());

    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let mut ask = |command: &String| {
        let call = peer.number();
        let start = Instant::now();
        peer.send(&ToToolhost::Judge(CallRequest {
            call,
            tool: "bash".into(),
            arguments: serde_json::json!({ "command": command }).to_string(),
            workspace: None,
            timeout_ms: None,
            origin: origin(),
            approval: None,
        }));
        match peer.receive() {
            Some(ToMain::Judgement(_)) => start.elapsed(),
            other => panic!("{other:?}"),
        }
    };
    for command in &commands {
        ask(command);
    }
    report("through the toolhost", commands.iter().map(ask).collect());
}
