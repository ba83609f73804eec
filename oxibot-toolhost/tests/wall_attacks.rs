//! Every attack of the battery is held at level `full` and at level `kernel`, as root and as a user, and every one
//! gets through at level `off` as root: an attack that cannot succeed anywhere proves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]

mod wall_support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;
use oxibot_toolhost::wall::attack::{BROKEN, HELD, all};
use oxibot_toolhost::wire::{Job, Sockets, Wanted};
use wall_support::{Wall, again_as_a_user, root};

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

/// Runs the battery with real targets on the host and returns each attack's exit status, -signal if it was killed.
fn battery(wanted: Wanted, level: Level) -> BTreeMap<&'static str, i32> {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("oxibot-attack-{}-{wanted:?}", std::process::id());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let targets = BTreeMap::from([
        ("read-planted-secret", secret.to_str().unwrap().to_owned()),
        ("write-outside-workspace", outside.path().join("written").to_str().unwrap().to_owned()),
        ("connect-host-loopback", listener.local_addr().unwrap().port().to_string()),
        ("connect-abstract-socket", name),
        ("walk-supervisor-root", std::process::id().to_string()),
        ("signal-supervisor", std::process::id().to_string()),
    ]);
    let mut wall = Wall::with(|profile| profile.wanted = wanted);
    assert_eq!(wall.zygote.obtained().level, level);
    let mut results = BTreeMap::new();
    for attack in all() {
        let target = targets.get(attack.id).map(String::as_str);
        assert_eq!(attack.needs_target(), target.is_some(), "{}", attack.id);
        let job = Job {
            argv: attack.argv(target),
            environment: vec![],
            directory: vec![],
            limits: Limits::default(),
            umask: 0o022,
            sockets: Sockets::search(),
        };
        let ran = wall.run(&job);
        let ending = ran.ending.unwrap_or_else(|| panic!("{}: {ran:?}", attack.id));
        results.insert(attack.id, ending.exit_code.unwrap_or(-ending.signal.unwrap_or(999)));
    }
    results
}

#[test]
fn every_attack_is_held_at_level_full() {
    for (id, status) in battery(Wanted::Strongest, Level::Full) {
        assert_eq!(status, HELD, "{id}");
    }
}

#[test]
fn every_attack_is_held_at_level_kernel() {
    for (id, status) in battery(Wanted::WithoutNamespaces, Level::Kernel) {
        assert_eq!(status, HELD, "{id}");
    }
}

#[test]
fn control_every_attack_gets_through_without_a_wall() {
    if !root() {
        // Much is refused to an ordinary user anyway; root is the one without any other wall.
        return;
    }
    let held: Vec<_> =
        battery(Wanted::Off, Level::Off).into_iter().filter(|(_, status)| *status != BROKEN).collect();
    // No x32 in most kernels, and nothing is inherited even without a wall: these cannot break here.
    let expected = [("entry-x32", HELD), ("inherit-descriptors", HELD)];
    assert_eq!(held, expected);
}

#[test]
fn bombs_are_bounded_and_everything_dies_with_the_call() {
    let mut wall = Wall::new();
    let mut bomb = wall_support::job("f() { f | f & }; f; sleep 1; echo survived");
    bomb.limits.processes = 64;
    let ran = wall.run(&bomb);
    assert!(ran.ending.is_some(), "{ran:?}");
    assert_eq!(wall.bash("echo next call works").ok(), "next call works");
}

#[test]
fn executing_memory_is_allowed_and_gains_nothing() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "python3 - <<'END'
import os
fd = os.memfd_create('x', 0)
os.write(fd, open('/bin/cat', 'rb').read())
os.execve(fd, ['cat', '/proc/self/status'], {})
END",
    );
    assert!(ran.ok().contains("NoNewPrivs:\t1") && ran.output.contains("Seccomp:\t2"), "{ran:?}");
    assert!(ran.output.contains("CapEff:\t0000000000000000"));
}

#[test]
fn setuid_programs_gain_nothing() {
    let mut wall = Wall::new();
    let ran = wall.bash("su -c id root </dev/null; id -u; cat /proc/self/status | grep CapEff");
    assert!(ran.output.contains("CapEff:\t0000000000000000"), "{ran:?}");
}
