//! What the guard costs: a verdict on a command as a call waits for it, the redactor, the audit log, and what a flood made
//! for the redactor does to others.

use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_proto::message::{CallRequest, ToMain, ToToolhost};
use oxibot_proto::redact::Redactor;
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{Peer, hello, origin};
use oxibot_toolhost::shell::{Policy, judge};

use crate::measure::{Times, alone, effort};
use crate::report::{Figure, Report, Row, Side};
use crate::sides::{self, Warm, call};

/// What 95 % of verdicts may take, in microseconds.
const VERDICT: f64 = 300.0;
/// What a call's output comes at, in MB/s: a pipe that is read in pieces.
const OUTPUT: f64 = 100.0;
/// A line that begins many keys and finishes none, without a blank anywhere.
const HOSTILE: &str = "sk-ant-api03-ghp_xoxb-eyJhbGciOiJIUzI1NiJ9.sk-proj-AKIAASIAglpat-npm_AIzaSyhf_SG.";

/// Every corpus, dangerous and ordinary.
fn commands() -> Vec<String> {
    [
        include_str!("../../../oxibot-toolhost/tests/shell_corpus/dangerous.txt"),
        include_str!("../../../oxibot-toolhost/tests/shell_corpus/ordinary.txt"),
        include_str!("../../../oxibot-toolhost/tests/shell_corpus/fresh_dangerous.txt"),
        include_str!("../../../oxibot-toolhost/tests/shell_corpus/fresh_ordinary.txt"),
    ]
    .iter()
    .flat_map(|text| text.lines())
    .filter(|line| !line.starts_with("# "))
    .filter_map(|line| line.split_once(": "))
    .map(|(_, command)| command.replace('⏎', "\n"))
    .collect()
}

/// Verdicts: through supervisor, socket and worker, as a call waits for one; and by the reader's code alone.
pub fn verdicts(report: &mut Report) {
    let commands = commands();
    let policy = Policy::standard().unwrap();
    // Expressions are compiled when they are first needed, once in the life of a reader.
    let each = |judged: &mut dyn FnMut(&str)| -> Vec<Duration> {
        let timed = |command: &String| {
            let begun = Instant::now();
            judged(command);
            begun.elapsed()
        };
        commands.iter().map(timed).collect()
    };
    let mut alone = |command: &str| drop(judge(&policy, command));
    each(&mut alone);
    let alone = Times::new(&each(&mut alone));

    let fixture = Fixture::new();
    let mut program = Command::new(sides::programs().join("oxibot-toolhost"));
    program.env_clear();
    let mut peer = Peer::start_as(program, &fixture.home(), &fixture.workspace(), &[]);
    peer.send(&hello());
    assert!(matches!(peer.receive(), Some(ToMain::Hello(_))));
    let mut through = |command: &str| {
        let call = peer.number();
        peer.send(&ToToolhost::Judge(CallRequest {
            call,
            tool: "bash".into(),
            arguments: serde_json::json!({ "command": command }).to_string(),
            workspace: None,
            timeout_ms: None,
            origin: origin(),
            approval: None,
        }));
        assert!(matches!(peer.receive(), Some(ToMain::Judgement(_))));
    };
    each(&mut through);
    let through = Times::new(&each(&mut through));
    let clock = |what: &str, times| Row {
        what: what.to_owned(),
        unit: "us",
        ours: Side::Times(times),
        theirs: Side::Number(VERDICT),
        bars: Vec::new(),
    };
    report.rows.push(clock("verdict on a command, end to end / 300 us", through).at_most(Figure::P95, 1.0));
    report.rows.push(clock("verdict, the reader's code alone / 300 us", alone));
}

/// How fast output loses its keys.
pub fn redactor(report: &mut Report) {
    let redactor = Redactor::load().unwrap().knowing("known", "a-secret-of-main's own 17");
    let ordinary = include_str!("../../../oxibot-toolhost/src/shell/policy.json").repeat(64);
    let hostile = HOSTILE.repeat(ordinary.len() / HOSTILE.len());
    // A flood without a line end may pass for one key, and then goes as a whole.
    let sides = [("ordinary output", ordinary, true, 1.0), ("a flood of half keys", hostile, false, 0.1)];
    for (name, text, whole, least) in sides {
        let begun = Instant::now();
        let (mut out, mut stream) = (Vec::with_capacity(text.len()), redactor.stream());
        // In the pieces in which it comes out of a pipe.
        for piece in text.as_bytes().chunks(64 * 1024) {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        assert!(out.len() == text.len() || !whole && out.len() < text.len(), "{name}: {}", out.len());
        let rate = text.len() as f64 / 1e6 / begun.elapsed().as_secs_f64();
        let row = Row::numbers(format!("redactor, {name} / 100 MB/s"), "MB/s", rate, OUTPUT);
        report.rows.push(row.at_least(least));
    }
}

/// What another call waits while four calls of the same toolhost print what the redactor is slowest with.
pub fn flood(report: &mut Report) {
    let warm = Warm::start();
    std::fs::write(warm.fixture.workspace().join("small"), "x").unwrap();
    let read = || drop(warm.call("read_file", r#"{"path":"small"}"#));
    let quiet = alone(effort(300, 5), read);
    let command = format!("yes '{}' | tr -d '\\n'", HOSTILE.repeat(40));
    let arguments = serde_json::json!({"command": command, "timeout_s": 12}).to_string();
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (broker, arguments) = (warm.broker.clone(), arguments.clone());
            warm.runtime.spawn(async move { call(&broker, "bash", &arguments, None).await })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let loud = alone(effort(300, 6), read);
    let going = floods.iter().all(|flood| !flood.is_finished());
    for flood in floods {
        let _ = warm.runtime.block_on(flood);
    }
    if going {
        report.rows.push(Row::times("read_file beside 4 floods of half keys / quiet", (loud, quiet)));
    } else {
        report.remarks.push("not measured: a flood of half keys ended too early".to_owned());
    }
}

/// How fast a log is verified, and how long a record of it is.
pub fn audit(report: &mut Report) {
    let warm = Warm::start();
    let calls = if crate::quick() { 500 } else { 5000 };
    for _ in 0..calls {
        warm.call("list_dir", r#"{"path":"."}"#);
    }
    let audit = warm.fixture.home().join("audit");
    let bytes: u64 = std::fs::read_dir(&audit)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "jsonl"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    let home = warm.fixture.home();
    let begun = Instant::now();
    let verified = Command::new(sides::programs().join("oxibot"))
        .arg("--home")
        .arg(&home)
        .args(["audit", "verify"])
        .output();
    let rate = 2.0 * f64::from(calls) / begun.elapsed().as_secs_f64();
    assert!(verified.unwrap().status.success());
    report
        .rows
        .push(Row::numbers("audit records verified / 10,000 a second", "/s", rate, 10_000.0).at_least(1.0));
    let each = bytes as f64 / f64::from(calls);
    report.rows.push(
        Row::numbers("bytes of audit log for a call / 1 KiB", "B", each, 1024.0).at_most(Figure::P50, 1.0),
    );
}
