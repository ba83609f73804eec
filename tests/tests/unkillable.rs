//! A call the kernel cannot end: its answer comes all the same, its zygote is used no more, and once the kernel lets go
//! nothing is left.
//!
//! The version 1 freezer stands in for a process in uninterruptible sleep: what is frozen there ignores SIGKILL until it
//! is thawed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oxibot_proto::message::Outcome;
use oxibot_tests::fixture::{Fixture, skip};
use oxibot_tests::leftovers::Leftovers;
use oxibot_tests::peer::{PATIENCE, Peer};
use oxibot_tests::processes::{anywhere, below, one};
use serde_json::json;

const FREEZER: &str = "/sys/fs/cgroup/freezer";
/// Promised after the deadline, and some for a busy machine.
const LATE: Duration = Duration::from_secs(5 + 2);

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A group of frozen processes, thawed when the test ends however it ends.
struct Frozen(PathBuf);

impl Frozen {
    fn new(name: &str) -> Option<Self> {
        let directory = Path::new(FREEZER).join(format!("oxibot-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).ok()?;
        let group = Self(directory);
        group.0.join("freezer.state").exists().then_some(group)
    }

    fn freeze(&self, pids: &[i32]) {
        for pid in pids {
            std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        std::fs::write(self.0.join("freezer.state"), "FROZEN").unwrap();
        let state = || std::fs::read_to_string(self.0.join("freezer.state")).unwrap();
        eventually("frozen", || state().trim() == "FROZEN");
    }

    fn thaw(&self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Zygotes proper: children of the nursery.
fn zygotes(peer: &Peer) -> Vec<i32> {
    let supervisor = i32::try_from(peer.child.id()).unwrap();
    below(supervisor, "oxibot-toolhost zygote")
        .into_iter()
        .filter(|process| one(process.parent).is_some_and(|parent| parent.command.contains("nursery")))
        .map(|process| process.pid)
        .collect()
}

fn stuck_call_is_answered_and_its_zygote_replaced(name: &str, mark: &str, arguments: &[&str]) {
    let Some(frozen) = Frozen::new(name) else {
        return skip(name, "needs root and the freezer of cgroup version 1");
    };
    let fixture = Fixture::new();
    let before = Leftovers::look();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), arguments);
    let old = zygotes(&peer);
    assert_eq!(old.len(), 1, "{old:?}");
    let command = json!({ "command": format!("sleep {mark}"), "timeout_s": 3 });
    let start = Instant::now();
    let call = peer.call("bash", &command);
    let asleep = || anywhere(&format!("sleep {mark}"));
    eventually("it runs", || !asleep().is_empty());
    let payload = asleep().first().unwrap().clone();
    let mut init = one(payload.parent).unwrap();
    while !init.command.contains("oxibot-toolhost") {
        init = one(init.parent).unwrap();
    }
    frozen.freeze(&[init.pid, payload.pid]);

    let result = peer.result(call);
    let took = start.elapsed();
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    assert!(result.notes.iter().any(|note| note.contains("could not be ended")), "{result:?}");
    assert!(took < Duration::from_secs(3) + LATE, "{took:?}");
    assert!(one(init.pid).is_some() && one(payload.pid).is_some(), "the control: they are stuck indeed");

    let next = peer.bash("echo served");
    assert_eq!(
        (&next.outcome, next.output.head.as_slice()),
        (&Outcome::Completed, &b"served\n"[..]),
        "{next:?}"
    );
    let new = zygotes(&peer);
    assert!(new.iter().any(|zygote| !old.contains(zygote)), "{old:?} {new:?}");
    eventually("the old zygote is ended", || zygotes(&peer).iter().all(|zygote| !old.contains(zygote)));

    frozen.thaw();
    eventually("the stuck processes are gone", || {
        [init.pid, payload.pid].iter().all(|pid| one(*pid).is_none_or(|process| process.state == 'Z'))
    });
    assert_eq!(peer.bash("echo again").output.head, b"again\n");
    drop(peer);
    drop(frozen);
    before.nothing_since();
}

#[test]
fn stuck_call_at_full_is_answered_and_its_zygote_replaced() {
    stuck_call_is_answered_and_its_zygote_replaced("full", "96.01", &[]);
}

#[test]
fn stuck_call_at_kernel_is_answered_and_its_zygote_replaced() {
    stuck_call_is_answered_and_its_zygote_replaced("kernel", "96.02", &["--without-namespaces"]);
}
