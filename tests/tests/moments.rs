//! SIGKILL and SIGSTOP to every process of ours, at every moment: whoever asked gets an answer or a clear end within a
//! bound, and once the toolhost is gone nothing of it is left, no process, cgroup, directory or mount.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oxibot_proto::message::{Outcome, ToMain};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::leftovers::Leftovers;
use oxibot_tests::peer::{PATIENCE, Peer, hello};
use oxibot_tests::processes::{Process, anywhere, below, one, tree};
use serde_json::json;

/// Generous: two walls that are tried for ten seconds each, and the patience of everyone who waits for them.
const BOUND: Duration = Duration::from_secs(45);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Supervisor,
    Keeper,
    Nursery,
    Zygote,
    Init,
    Payload,
    Files,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// As soon as the process is there.
    Starting,
    /// After the greeting, before the first call.
    Ready,
    DuringCall,
    BetweenCalls,
}

const LEVELS: [&[&str]; 2] = [&[], &["--without-namespaces"]];

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn parent_is(process: &Process, text: &str) -> bool {
    one(process.parent).is_some_and(|parent| parent.command.contains(text))
}

fn find(target: Target, supervisor: i32, mark: &str) -> Vec<i32> {
    let named = |name: &str| below(supervisor, &format!("oxibot-toolhost {name}"));
    let found = match target {
        Target::Supervisor => return vec![supervisor],
        Target::Keeper => named("keeper"),
        Target::Nursery => named("nursery"),
        Target::Zygote => named("zygote").into_iter().filter(|one| parent_is(one, "nursery")).collect(),
        Target::Init => named("zygote").into_iter().filter(|one| parent_is(one, "zygote")).collect(),
        Target::Payload => anywhere(mark),
        Target::Files => named("files"),
    };
    found.into_iter().map(|process| process.pid).collect()
}

fn strike(target: Target, signal: Signal, supervisor: i32, mark: &str) {
    eventually(&format!("{target:?} is there"), || !find(target, supervisor, mark).is_empty());
    for pid in find(target, supervisor, mark) {
        // It may have ended by itself, or with another one that was struck.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// What came of waiting for a result.
#[derive(Debug)]
enum Answer {
    Result(Outcome),
    /// The connection ended, which main reports as what it is.
    End,
}

fn ask(peer: &mut Peer) -> Answer {
    let call = peer.call("bash", &json!({"command": "echo alive", "timeout_s": 5}));
    wait_for(peer, call)
}

fn wait_for(peer: &mut Peer, call: oxibot_proto::message::CallNumber) -> Answer {
    let start = Instant::now();
    loop {
        let message = peer.receive();
        assert!(start.elapsed() < BOUND, "an answer after {:?}", start.elapsed());
        match message {
            None => return Answer::End,
            Some(ToMain::CallResult(result)) if result.call == call => {
                if let Outcome::Internal { message } = &result.outcome {
                    assert!(!message.is_empty(), "an error says what it is");
                }
                return Answer::Result(result.outcome);
            }
            Some(_) => {}
        }
    }
}

fn survives(target: Target) -> bool {
    match target {
        Target::Supervisor | Target::Keeper | Target::Nursery => false,
        Target::Zygote | Target::Init | Target::Payload | Target::Files => true,
    }
}

fn one_case(target: Target, signal: Signal, moment: Moment, level: &[&str], number: usize) {
    let case = format!("{signal} to {target:?}, {moment:?}, {level:?}");
    let fixture = Fixture::new();
    let before = Leftovers::look();
    // A length of sleep that no other test uses finds the processes of this one.
    let mark = format!("sleep 97.{number:02}{}", std::process::id());
    let mut peer = Peer::start(&fixture.home(), &fixture.workspace(), level);
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    let mut all = Vec::new();
    if moment == Moment::Starting {
        strike(target, signal, supervisor, &mark);
    }
    peer.send(&hello());
    let start = Instant::now();
    let greeted = matches!(peer.receive(), Some(ToMain::Hello(_)));
    assert!(start.elapsed() < BOUND, "{case}: greeted after {:?}", start.elapsed());
    if greeted {
        all.extend(tree(supervisor).iter().map(|process| process.pid));
        match moment {
            Moment::Starting => {}
            Moment::Ready => strike(target, signal, supervisor, &mark),
            Moment::DuringCall => {
                let call = peer.call(
                    "bash",
                    &json!({"command": format!("setsid {mark} & (setsid {mark} &); {mark}"), "timeout_s": 4}),
                );
                eventually("the call runs", || anywhere(&mark).len() >= 3);
                all.extend(tree(supervisor).iter().map(|process| process.pid));
                strike(target, signal, supervisor, &mark);
                let _ = wait_for(&mut peer, call);
            }
            Moment::BetweenCalls => {
                assert!(matches!(ask(&mut peer), Answer::Result(Outcome::Completed)), "{case}");
                all.extend(tree(supervisor).iter().map(|process| process.pid));
                strike(target, signal, supervisor, &mark);
            }
        }
        let answer = ask(&mut peer);
        if survives(target) {
            assert!(matches!(answer, Answer::Result(_)), "{case}: {answer:?}");
            if signal == Signal::SIGKILL {
                // Its end may come a moment after the signal, to an init that was just given a call.
                let mut answers = vec![answer];
                while answers.len() < 4 && !matches!(answers.last(), Some(Answer::Result(Outcome::Completed)))
                {
                    answers.push(ask(&mut peer));
                }
                answers.push(ask(&mut peer));
                assert!(
                    answers.iter().any(|answer| matches!(answer, Answer::Result(Outcome::Completed))),
                    "{case}: {answers:?}"
                );
            }
        }
    }
    all.extend(tree(supervisor).iter().map(|process| process.pid));
    let start = Instant::now();
    drop(peer);
    assert!(start.elapsed() < BOUND, "{case}: it ends after {:?}", start.elapsed());
    let alive = || -> Vec<Process> {
        all.iter().filter_map(|pid| one(*pid)).filter(|process| process.state != 'Z').collect()
    };
    let start = Instant::now();
    while !(alive().is_empty() && anywhere(&mark).is_empty()) {
        assert!(start.elapsed() < PATIENCE, "{case}: {:?} {:?}", alive(), anywhere(&mark));
        std::thread::sleep(Duration::from_millis(10));
    }
    before.nothing_since();
}

fn every_moment(target: Target, signal: Signal, moments: &[Moment]) {
    let mut number = 0;
    for level in LEVELS {
        for moment in moments {
            number += 1;
            one_case(target, signal, *moment, level, number);
        }
    }
}

const ALL: [Moment; 4] = [Moment::Starting, Moment::Ready, Moment::DuringCall, Moment::BetweenCalls];
const ONCE_READY: [Moment; 3] = [Moment::Ready, Moment::DuringCall, Moment::BetweenCalls];

#[test]
fn killed_supervisor() {
    every_moment(Target::Supervisor, Signal::SIGKILL, &ALL);
}

#[test]
fn asked_to_end() {
    every_moment(Target::Supervisor, Signal::SIGTERM, &ALL);
}

#[test]
fn killed_keeper() {
    every_moment(Target::Keeper, Signal::SIGKILL, &ALL);
}

#[test]
fn killed_nursery() {
    every_moment(Target::Nursery, Signal::SIGKILL, &ALL);
}

#[test]
fn killed_zygote() {
    every_moment(Target::Zygote, Signal::SIGKILL, &ALL);
}

#[test]
fn killed_init() {
    every_moment(Target::Init, Signal::SIGKILL, &ALL);
}

#[test]
fn killed_payload() {
    every_moment(Target::Payload, Signal::SIGKILL, &[Moment::DuringCall]);
}

#[test]
fn killed_files_worker() {
    // It is started by the first call that needs it.
    every_moment(Target::Files, Signal::SIGKILL, &[Moment::DuringCall, Moment::BetweenCalls]);
}

#[test]
fn stopped_keeper() {
    every_moment(Target::Keeper, Signal::SIGSTOP, &ALL);
}

#[test]
fn stopped_nursery() {
    every_moment(Target::Nursery, Signal::SIGSTOP, &ALL);
}

#[test]
fn stopped_zygote() {
    every_moment(Target::Zygote, Signal::SIGSTOP, &ALL);
}

#[test]
fn stopped_init() {
    every_moment(Target::Init, Signal::SIGSTOP, &ONCE_READY);
}

#[test]
fn stopped_payload() {
    every_moment(Target::Payload, Signal::SIGSTOP, &[Moment::DuringCall]);
}

#[test]
fn stopped_files_worker() {
    every_moment(Target::Files, Signal::SIGSTOP, &[Moment::DuringCall, Moment::BetweenCalls]);
}

/// `oxibot tool call` in mid-call.
fn main_in_a_call(fixture: &Fixture, mark: &str) -> Child {
    let main = fixture
        .oxibot()
        .args(["tool", "call", "bash"])
        .arg(json!({"command": format!("{mark}; echo over"), "timeout_s": 30}).to_string())
        .args(["--json", "--workspace"])
        .arg(fixture.workspace())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asleep = || anywhere(mark).iter().any(|process| process.command.starts_with("sleep"));
    eventually("the call runs", asleep);
    main
}

#[test]
fn killed_main() {
    let fixture = Fixture::new();
    let before = Leftovers::look();
    for (number, wait) in [0, 5, 30, 100].into_iter().enumerate() {
        // While it starts, wherever it is by then.
        let mut main = fixture
            .oxibot()
            .args(["sandbox", "run", "--workspace"])
            .arg(fixture.workspace())
            .args(["--", "sleep", &format!("97.5{number}")])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let all: Vec<i32> =
            tree(i32::try_from(main.id()).unwrap()).iter().map(|process| process.pid).collect();
        main.kill().unwrap();
        main.wait().unwrap();
        eventually("everything is gone", || {
            all.iter().all(|pid| one(*pid).is_none_or(|process| process.state == 'Z'))
                && anywhere(&format!("sleep 97.5{number}")).is_empty()
        });
    }
    let mark = format!("sleep 97.6{}", std::process::id());
    let mut main = main_in_a_call(&fixture, &mark);
    main.kill().unwrap();
    main.wait().unwrap();
    eventually("everything is gone", || {
        anywhere(&mark).is_empty() && anywhere(&fixture.home().display().to_string()).is_empty()
    });
    before.nothing_since();
}

#[test]
fn stopped_main_goes_on_where_it_was() {
    let fixture = Fixture::new();
    let before = Leftovers::look();
    let main = main_in_a_call(&fixture, "sleep 2.71");
    let pid = Pid::from_raw(i32::try_from(main.id()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    kill(pid, Signal::SIGCONT).unwrap();
    let output = main.wait_with_output().unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["outcome"], &result["output"]), (&"completed".into(), &"over\n".into()), "{result}");
    before.nothing_since();
}
