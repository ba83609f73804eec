//! Many calls, large output: nothing of ours grows, nothing is left.

use oxibot_proto::message::Outcome;
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::Peer;
use oxibot_tests::processes::{descriptors, memory, tree};
use serde_json::json;

#[derive(Debug)]
struct Sum {
    processes: usize,
    zombies: usize,
    descriptors: usize,
    memory_kb: u64,
    mounts: usize,
}

fn sum(root: i32) -> Sum {
    let all = tree(root);
    Sum {
        processes: all.len(),
        zombies: all.iter().filter(|process| process.state == 'Z').count(),
        descriptors: all.iter().map(|process| descriptors(process.pid)).sum(),
        memory_kb: all.iter().map(|process| memory(process.pid, "Pss")).sum(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
    }
}

/// The most of several looks at rest, each after another call: the inits that wait are made at different moments, and one
/// that is made later holds copies of a few more descriptors until it is used. What leaks grows with every call instead.
fn most_at_rest(peer: &mut Peer, root: i32) -> Sum {
    let looks = (0..14).map(|_| {
        assert_eq!(peer.bash(":").outcome, Outcome::Completed);
        std::thread::sleep(std::time::Duration::from_millis(400));
        sum(root)
    });
    looks.max_by_key(|look| look.descriptors).unwrap()
}

#[test]
fn a_thousand_calls_in_a_row_leave_no_trace_alone() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let root = i32::try_from(peer.child.id()).unwrap();
    for _ in 0..50 {
        assert_eq!(peer.bash(":").outcome, Outcome::Completed);
    }
    let before = most_at_rest(&mut peer, root);
    for n in 0..1000 {
        let result = peer.bash("echo $$");
        assert_eq!(result.outcome, Outcome::Completed, "call {n}: {result:?}");
    }
    let after = most_at_rest(&mut peer, root);
    assert_eq!(after.zombies, 0, "{after:?}");
    assert!(after.processes <= before.processes + 1, "{before:?} {after:?}");
    assert!(after.descriptors <= before.descriptors + 4, "{before:?} {after:?}");
    assert!(after.memory_kb <= before.memory_kb + 1024, "{before:?} {after:?}");
    assert_eq!(after.mounts, before.mounts);
}

#[test]
fn sixty_four_calls_at_once_all_answer_alone() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let root = i32::try_from(peer.child.id()).unwrap();
    assert_eq!(peer.bash(":").outcome, Outcome::Completed);
    let before = sum(root);
    let calls: Vec<_> = (0..64)
        .map(|n| peer.call("bash", &json!({"command": format!("sleep 0.2; echo call-{n}")})))
        .collect();
    let mut missing: std::collections::BTreeMap<_, _> =
        calls.iter().enumerate().map(|(n, call)| (*call, n)).collect();
    while !missing.is_empty() {
        if let Some(oxibot_proto::message::ToMain::CallResult(result)) = peer.receive() {
            let n = missing.remove(&result.call).expect("each answers once");
            assert_eq!(result.outcome, Outcome::Completed, "{result:?}");
            assert_eq!(String::from_utf8_lossy(&result.output.head), format!("call-{n}\n"));
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let after = sum(root);
    assert!(after.processes <= before.processes + 3, "{before:?} {after:?}");
    assert_eq!(after.zombies, 0, "{after:?}");
}

#[test]
fn two_gigabytes_of_output_cost_no_memory_alone() {
    let fixture = Fixture::new();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let root = i32::try_from(peer.child.id()).unwrap();
    assert_eq!(peer.bash("seq 1 10000").outcome, Outcome::Completed);
    let before = memory(root, "VmHWM");
    let call = peer.call("bash", &json!({"command": "head -c 2147483648 /dev/zero", "timeout_s": 300}));
    let result = peer.result(call);
    assert_eq!(result.outcome, Outcome::Completed, "{result:?}");
    assert_eq!(result.output.total_bytes, 2_147_483_648);
    assert!(result.output.head.len() + result.output.tail.len() <= 64 * 1024);
    let after = memory(root, "VmHWM");
    assert!(after < before + 4 * 1024, "{before} KiB became {after} KiB");
}

#[test]
fn a_fork_bomb_ends_with_its_call_alone() {
    let fixture = Fixture::new();
    // In a file the bomb gets past the policy, which reads only the command.
    std::fs::write(fixture.workspace().join("bomb"), "f() { f | f & }; f; sleep 30").unwrap();
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    let call = peer.call("bash", &json!({"command": "bash ./bomb", "timeout_s": 3}));
    let result = peer.result(call);
    assert!(matches!(result.outcome, Outcome::TimedOut | Outcome::Completed), "{result:?}");
    assert!(result.duration_ms < 20_000, "{result:?}");
    assert_eq!(peer.bash("echo alive").output.head, b"alive\n");
}
