//! Kill or stop each process of ours at a bad moment: the outcome is exact, nothing is left, nothing hangs.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oxibot_proto::message::{Outcome, ToMain};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::{PATIENCE, Peer};
use oxibot_tests::processes::{anywhere, below, one, tree};
use serde_json::json;

/// A process that is gone already, with its parent for example, has had what was meant for it.
fn signal(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("cannot signal {pid}: {error}"),
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A peer with a call running that can be found by `mark`.
fn running(fixture: &Fixture, mark: &str) -> (Peer, oxibot_proto::message::CallNumber) {
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({ "command": format!("setsid sleep {mark} & sleep {mark}") }));
    eventually("the call runs", || anywhere(&format!("sleep {mark}")).len() >= 2);
    (peer, call)
}

fn gone(pids: &[i32]) -> bool {
    pids.iter().all(|pid| one(*pid).is_none_or(|process| process.state == 'Z'))
}

fn pids(peer: &Peer) -> Vec<i32> {
    tree(i32::try_from(peer.child.id()).unwrap()).iter().map(|process| process.pid).collect()
}

#[test]
fn main_dies_and_everything_below_ends() {
    let fixture = Fixture::new();
    let (mut peer, _) = running(&fixture, "95.01");
    let all = pids(&peer);
    assert!(all.len() >= 4, "supervisor, nursery, zygote, init: {all:?}");
    peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(peer.ends(), "the supervisor ends with its main");
    eventually("every process is gone", || gone(&all) && anywhere("sleep 95.01").is_empty());
}

#[test]
fn supervisor_dies_and_everything_below_ends() {
    let fixture = Fixture::new();
    let (mut peer, _) = running(&fixture, "95.02");
    let all = pids(&peer);
    peer.child.kill().unwrap();
    peer.child.wait().unwrap();
    while peer.receive().is_some() {}
    eventually("every process is gone", || gone(&all) && anywhere("sleep 95.02").is_empty());
}

#[test]
fn zygote_dies_and_its_call_is_internal_and_the_next_one_works() {
    let fixture = Fixture::new();
    let (mut peer, call) = running(&fixture, "95.03");
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    let zygotes = below(supervisor, "oxibot-toolhost zygote");
    assert!(!zygotes.is_empty(), "{:?}", tree(supervisor));
    for zygote in zygotes {
        signal(zygote.pid, Signal::SIGKILL);
    }
    let result = peer.result(call);
    assert!(matches!(result.outcome, Outcome::Internal { .. } | Outcome::Killed { .. }), "{result:?}");
    eventually("its processes are gone", || anywhere("sleep 95.03").is_empty());
    let next = peer.bash("echo alive");
    assert_eq!(next.outcome, Outcome::Completed, "{next:?}");
    assert_eq!(next.output.head, b"alive\n");
}

#[test]
fn init_dies_and_its_call_is_reported_and_the_next_one_works() {
    let fixture = Fixture::new();
    let (mut peer, call) = running(&fixture, "95.04");
    let sleeper = anywhere("sleep 95.04").first().unwrap().pid;
    // Upwards from the sleeper to the process that is the namespace's init.
    let mut pid = sleeper;
    let init = loop {
        let process = one(pid).unwrap();
        if process.command.contains("oxibot-toolhost") {
            break pid;
        }
        pid = process.parent;
    };
    signal(init, Signal::SIGKILL);
    let result = peer.result(call);
    assert!(matches!(result.outcome, Outcome::Internal { .. } | Outcome::Killed { .. }), "{result:?}");
    eventually("its processes are gone", || anywhere("sleep 95.04").is_empty());
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
}

#[test]
fn payload_killed_from_outside_is_killed() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": "exec sleep 95.05"}));
    eventually("it runs", || !anywhere("sleep 95.05").is_empty());
    signal(anywhere("sleep 95.05").first().unwrap().pid, Signal::SIGKILL);
    let result = peer.result(call);
    assert_eq!((&result.outcome, result.signal), (&Outcome::Killed { limit: None }, Some(9)), "{result:?}");
}

#[test]
fn files_worker_dies_and_the_next_file_call_works() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("write_file", &json!({"path": "a", "content": "one"}));
    assert_eq!(peer.result(call).outcome, Outcome::Completed);
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    let workers = below(supervisor, "oxibot-toolhost files");
    assert!(!workers.is_empty(), "{:?}", tree(supervisor));
    for worker in workers {
        signal(worker.pid, Signal::SIGKILL);
    }
    let call = peer.call("read_file", &json!({"path": "a"}));
    let first = peer.result(call);
    assert!(matches!(first.outcome, Outcome::Completed | Outcome::Internal { .. }), "{first:?}");
    let call = peer.call("read_file", &json!({"path": "a"}));
    let second = peer.result(call);
    assert_eq!(second.outcome, Outcome::Completed, "{second:?}");
}

#[test]
fn stopped_payload_still_ends_at_its_deadline() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": "kill -STOP $$; sleep 95.06", "timeout_s": 1}));
    let result = peer.result(call);
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    assert!(result.duration_ms < 5_000, "{result:?}");
}

#[test]
fn stopped_files_worker_does_not_hold_a_call_past_its_deadline() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("write_file", &json!({"path": "a", "content": "one"}));
    assert_eq!(peer.result(call).outcome, Outcome::Completed);
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    for worker in below(supervisor, "oxibot-toolhost files") {
        signal(worker.pid, Signal::SIGSTOP);
    }
    let number = peer.number();
    peer.send(&oxibot_proto::message::ToToolhost::Call(oxibot_proto::message::CallRequest {
        call: number,
        tool: "read_file".into(),
        arguments: json!({"path": "a"}).to_string(),
        workspace: None,
        timeout_ms: Some(1_000),
        origin: oxibot_tests::peer::origin(),
        approval: None,
    }));
    let result = peer.result(number);
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    let call = peer.call("read_file", &json!({"path": "a"}));
    assert_eq!(peer.result(call).outcome, Outcome::Completed);
}

#[test]
fn cancel_ends_the_call_and_its_children() {
    let fixture = Fixture::new();
    let (mut peer, call) = running(&fixture, "95.07");
    peer.send(&oxibot_proto::message::ToToolhost::Cancel(call));
    let result = peer.result(call);
    assert_eq!(result.outcome, Outcome::Cancelled, "{result:?}");
    eventually("its processes are gone", || anywhere("sleep 95.07").is_empty());
}

#[test]
fn nursery_dies_and_the_supervisor_does_not_pretend() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    for nursery in below(supervisor, "oxibot-toolhost nursery") {
        signal(nursery.pid, Signal::SIGKILL);
    }
    assert!(peer.ends(), "a supervisor that can start nothing more ends, so that it is started again");
    while let Some(message) = peer.receive() {
        assert!(!matches!(message, ToMain::CallResult(_)), "{message:?}");
    }
}

#[test]
fn stopped_init_does_not_hold_a_call_past_its_deadline() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": "sleep 95.08", "timeout_s": 2}));
    eventually("it runs", || !anywhere("sleep 95.08").is_empty());
    let sleeper = anywhere("sleep 95.08").first().unwrap().clone();
    let mut init = one(sleeper.parent).unwrap();
    while !init.command.contains("oxibot-toolhost") {
        init = one(init.parent).unwrap();
    }
    signal(init.pid, Signal::SIGSTOP);
    let result = peer.result(call);
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    eventually("its processes are gone", || anywhere("sleep 95.08").is_empty());
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
}

#[test]
fn stopped_zygote_is_replaced_or_reported_and_nothing_hangs() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    assert_eq!(peer.bash(":").outcome, Outcome::Completed);
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    for process in below(supervisor, "oxibot-toolhost zygote") {
        if one(process.parent).is_some_and(|parent| parent.command.contains("nursery")) {
            signal(process.pid, Signal::SIGSTOP);
        }
    }
    // Ready inits still serve; then a stopped zygote makes no more, and a call must not wait for ever.
    for n in 0..6 {
        let call = peer.call("bash", &json!({"command": "echo alive", "timeout_s": 5}));
        let result = peer.result(call);
        let ended =
            matches!(result.outcome, Outcome::Completed | Outcome::TimedOut | Outcome::Internal { .. });
        assert!(ended, "call {n}: {result:?}");
    }
}

#[test]
fn stopped_supervisor_does_not_hang_main() {
    let fixture = Fixture::new();
    let mut main = fixture
        .oxibot()
        .args(["tool", "call", "bash", r#"{"command":"sleep 95.09","timeout_s":3}"#, "--json", "--workspace"])
        .arg(fixture.workspace())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Our own command line holds the words too.
    let asleep = || anywhere("sleep 95.09").iter().any(|process| process.command.starts_with("sleep"));
    eventually("it runs", asleep);
    let pid = i32::try_from(main.id()).unwrap();
    let all: Vec<i32> = tree(pid).iter().map(|process| process.pid).filter(|other| *other != pid).collect();
    for process in below(pid, "oxibot-toolhost serve") {
        signal(process.pid, Signal::SIGSTOP);
    }
    let start = Instant::now();
    while main.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            main.kill().unwrap();
            panic!("main hangs");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = main.wait_with_output().unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((result["outcome"].as_str(), output.status.code()), (Some("internal"), Some(70)), "{result}");
    eventually("every process is gone", || gone(&all) && !asleep());
}
