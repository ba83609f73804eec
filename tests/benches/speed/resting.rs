//! Starts, and what stays in memory when nothing goes on.

use std::process::Command;
use std::time::{Duration, Instant};

use oxibot_proto::message::{Proven, ToMain};
use oxibot_tests::conversation::Conversation;
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{Peer, hello};

use crate::measure::{Times, alone, effort, in_turn};
use crate::report::{Figure, Report, Row, Side};
use crate::sides::{self, Warm, cold, installed};

/// What a start may take, in microseconds.
const START: f64 = 60_000.0;
/// What the attack at each start may add to it, in microseconds.
const BATTERY: f64 = 50_000.0;
/// What all processes may keep, in KiB.
const MEMORY: f64 = 8192.0;

fn against_the_clock(what: &str, times: Times) -> Row {
    let (ours, theirs) = (Side::Times(times), Side::Number(START));
    Row { what: what.to_owned(), unit: "us", ours, theirs, bars: Vec::new() }.at_most(Figure::P50, 1.0)
}

/// Whole processes.
pub fn start(report: &mut Report) {
    let fixture = Fixture::new();
    cold(&fixture, ":");
    if installed("bwrap") {
        let workspace = fixture.workspace();
        let bubblewrap = || {
            let mut command = crate::rivals::bubblewrap(&workspace);
            command.args(["/bin/bash", "--norc", "--noprofile", "-c", ":"]);
            sides::environment(&mut command, &workspace);
            assert!(command.output().unwrap().status.success());
        };
        let pair = in_turn(effort(100, 15), || cold(&fixture, ":"), bubblewrap);
        report.rows.push(Row::times("oxibot tool call bash / bubblewrap", pair).at_most(Figure::P50, 3.0));
    } else {
        report.remarks.push("not measured: oxibot tool call / bubblewrap, which is not installed".to_owned());
    }
    let mut homes: Vec<Fixture> = (0..12).map(|_| Fixture::new()).collect();
    let first = alone(effort(10, 10), || cold(&homes.pop().unwrap_or_default(), ":"));
    report.rows.push(against_the_clock("first oxibot tool call of a home / 60 ms", first));
    let ready: Vec<Duration> = (0..15).map(|_| Warm::start().ready_after).collect();
    report.rows.push(against_the_clock("exec to ready, attack included / 60 ms", Times::new(&ready)));
    battery(report);
}

/// The same start with the attack, and with a recorded pass in its place.
fn battery(report: &mut Report) {
    let fixture = Fixture::new();
    let programs = sides::programs();
    let start = |more: &[&str]| {
        let mut command = Command::new(programs.join("oxibot-toolhost"));
        command.env_clear();
        let mut peer = Peer::start_as(command, &fixture.home(), &fixture.workspace(), more);
        peer.send(&hello());
        let Some(ToMain::Hello(hello)) = peer.receive() else { unreachable!("it says hello first") };
        hello.wall.proven
    };
    assert_eq!(start(&["--one-shot"]), Some(Proven::Start));
    let with = || assert_eq!(start(&[]), Some(Proven::Start));
    let without = || assert_eq!(start(&["--one-shot"]), Some(Proven::Recorded));
    let (with, without) = in_turn(effort(60, 20), with, without);
    let added = with.quantile(0.5) - without.quantile(0.5);
    let row = Row::numbers("what the attack adds to a start / 50 ms", "us", added, BATTERY);
    report.rows.push(row.at_most(Figure::P50, 1.0));
}

/// A conversation that waits for its next line: launcher, main, supervisor, keeper, nursery, zygote, two inits.
pub fn idle(report: &mut Report) {
    let fixture = Fixture::new();
    let conversation = Conversation::start(&sides::programs(), &fixture, 3);
    std::thread::sleep(Duration::from_secs(if crate::quick() { 5 } else { 60 }));
    let sum = sides::proportional(conversation.root());
    conversation.end();
    let row = Row::numbers("memory of main and toolhost after 60 s / 8 MB", "kB", sum, MEMORY);
    report.rows.push(row.at_most(Figure::P50, 1.0));
}

/// The toolhost alone, which is all that calls go through besides main.
pub fn after_many_calls(report: &mut Report) {
    let warm = Warm::start();
    warm.bash(":");
    std::thread::sleep(Duration::from_secs(3));
    let before = warm.memory_kib();
    let until = Instant::now() + Duration::from_secs(60);
    let mut calls = 0;
    while calls < 10_000 && Instant::now() < until {
        warm.bash(":");
        calls += 1;
    }
    std::thread::sleep(Duration::from_secs(3));
    let what = format!("memory of the toolhost after {calls} calls / 1");
    report.rows.push(Row::numbers(what, "kB", warm.memory_kib(), before));
}
