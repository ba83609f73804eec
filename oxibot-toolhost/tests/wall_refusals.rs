//! What the system call filter refuses is told: which rule, which numbers, once. Each test runs as root and as a user.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]

mod wall_support;

use std::time::{Duration, Instant};

use oxibot_proto::message::{Level, ProtectionState};
use oxibot_toolhost::sys;
use oxibot_toolhost::wall::attack::{Answer, Targets, all};
use oxibot_toolhost::wire::{FromInit, Job, Refusal, Wanted};
use wall_support::{Ran, Wall, again_as_a_user, program};

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

/// Numbers a program needs to make calls by hand, on the architecture of this build.
fn numbers() -> String {
    [
        ("SOCKET", libc::SYS_socket),
        ("PTRACE", libc::SYS_ptrace),
        ("MOUNT", libc::SYS_mount),
        ("UNSHARE", libc::SYS_unshare),
        ("KEYCTL", libc::SYS_keyctl),
        ("SETNS", libc::SYS_setns),
        ("FCHMOD", libc::SYS_fchmod),
        ("FCNTL", libc::SYS_fcntl),
        ("IOCTL", libc::SYS_ioctl),
    ]
    .map(|(name, number)| format!("{name} = {number}\n"))
    .concat()
}

/// A program that makes system calls by hand: `call(number, a, b, c)` gives the errno, 0 for success.
fn python(body: &str) -> Job {
    let head = "import ctypes, os, sys, threading, time, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    arguments = [ctypes.c_long(one) for one in arguments]
    return 0 if libc.syscall(ctypes.c_long(number), *arguments) >= 0 else ctypes.get_errno()
";
    program(&["/usr/bin/python3", "-c", &format!("{head}{}{body}", numbers())])
}

fn told(ran: &Ran) -> Vec<(&str, [u64; 3])> {
    ran.refusals.iter().map(|refusal| (refusal.rule.as_str(), refusal.arguments)).collect()
}

#[test]
fn each_refused_kind_is_told_once_with_its_numbers() {
    let mut wall = Wall::new();
    let ran = wall.run(&python(
        "print([call(SOCKET, 40, 1, 0) for _ in range(3)], call(SOCKET, 16, 3, 9), call(MOUNT, 1, 2, 3),
      call(UNSHARE, 0x10000000), call(PTRACE, 16, 1, 0), call(FCHMOD, -1, 0o4755), call(FCNTL, 0, 1024, 1),
      call(IOCTL, 0, 0x5412))",
    ));
    assert_eq!(ran.ok(), "[1, 1, 1] 1 1 1 1 1 1 1");
    assert_eq!(
        told(&ran),
        [
            ("sockets.family", [40, 1, 0]),
            ("sockets.netlink", [16, 3, 9]),
            ("mounts.mount", [0, 0, 0]),
            ("mounts.namespace", [0x1000_0000, 0, 0]),
            ("processes.trace", [16, 1, 0]),
            ("files.set-id", [0, 0o4755, 0]),
            ("files.lease", [0, 1024, 0]),
            ("processes.terminal", [0, 0x5412, 0]),
        ]
    );
}

#[test]
fn ordinary_programs_are_refused_nothing() {
    let everywhere = "python3 -c 'import subprocess, threading
subprocess.run([\"true\"]); t = threading.Thread(target=print); t.start(); t.join()'
         perl -e 'print getpwuid(0), \"\\n\"'; mkdir d; chmod 755 d; (sleep 0.1 & wait); ls -l / >/dev/null
         mkfifo p; mktemp >/dev/null; date >/dev/null; tar c d | tar t; timeout 5 true; id >/dev/null";
    let sockets = "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 0))
print(socket.getaddrinfo(\"localhost\", 80)); socket.socketpair()'; ps >/dev/null";
    for (wanted, command) in [
        (Wanted::Strongest, format!("{everywhere}; {sockets}")),
        (Wanted::WithoutNamespaces, everywhere.to_owned()),
    ] {
        let ran = Wall::with(|profile| profile.wanted = wanted).bash(&command);
        assert_eq!(ran.code(), 0, "{wanted:?} {ran:?}");
        assert_eq!(told(&ran), [], "{wanted:?} {ran:?}");
    }
}

#[test]
fn socket_of_a_call_without_namespaces_is_told_and_without_a_wall_nothing_is() {
    let body = "print(call(SOCKET, 2, 1, 0) == 1)";
    let mut wall = Wall::with(|profile| profile.wanted = Wanted::WithoutNamespaces);
    let ran = wall.run(&python(body));
    assert_eq!((ran.ok(), told(&ran)), ("True", vec![("sockets.none", [2, 1, 0])]));
    let mut wall = Wall::with(|profile| profile.wanted = Wanted::Off);
    let ran = wall.run(&python(body));
    assert_eq!((ran.ok(), told(&ran)), ("False", vec![]));
}

#[test]
fn at_most_twenty_kinds_are_told() {
    let mut wall = Wall::new();
    let ran = wall.run(&python("print({call(SOCKET, 40, 1, n) for n in range(500)})"));
    assert_eq!(ran.ok(), "{1}");
    assert_eq!(ran.refusals.len(), 20);
}

/// Many threads, many processes, all refused all the time, some killed in the middle of it.
const FLOOD: &str = "
def flood(until):
    while time.monotonic() < until: call(KEYCTL, -1, os.getpid())
until = time.monotonic() + 2
children = []
for _ in range(12):
    child = os.fork()
    if child == 0:
        for _ in range(4): threading.Thread(target=flood, args=(until,)).start()
        flood(until); os._exit(0)
    children.append(child)
time.sleep(0.5)
for child in children[:4]: os.kill(child, signal.SIGKILL)
while time.monotonic() < until:
    if os.fork() == 0: os._exit(call(KEYCTL, -1))
    if os.wait()[0] in children: pass
print('done')
";

#[test]
fn flood_of_refused_calls_ends_in_time_and_stops_nobody_else() {
    let mut wall = Wall::new();
    let mut flood = wall.start(&python(FLOOD));
    assert_eq!(flood.word(), FromInit::Running);
    let started = Instant::now();
    let other = wall.bash("echo other");
    assert_eq!(other.ok(), "other");
    match flood.word() {
        FromInit::Ended(ending) => assert_eq!(ending.exit_code, Some(0)),
        word => panic!("{word:?}"),
    }
    // It takes 2 s by itself; the machine may be busy, but a queue that grows would take for ever.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(flood.refusals.len() <= 20, "{:?}", flood.refusals);
    assert_eq!(wall.bash("echo next").ok(), "next");
}

#[test]
fn flooding_call_is_killed_like_any_other() {
    let mut wall = Wall::new();
    let mut flood = wall.start(&python("while True: call(KEYCTL, -1)"));
    assert_eq!(flood.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(300));
    flood.running.kill();
    assert!(wall_support::readable(&flood.output, 10_000), "it still holds the pipe");
    assert_eq!(wall.bash("echo next").ok(), "next");
}

#[test]
fn signals_do_not_disturb_an_answer() {
    let mut wall = Wall::new();
    let ran = wall.run(&python(
        "signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
answers = {call(KEYCTL, -1) for _ in range(3000)}
signal.setitimer(signal.ITIMER_REAL, 0)
print(answers - {4})",
    ));
    // Before Linux 5.19 a signal may interrupt the wait (EINTR); never does the call get through.
    assert_eq!(ran.ok(), "{1}");
}

/// A supervisor that does not read must not stop a call: what finds no room is not told.
#[test]
fn nobody_has_to_listen() {
    let mut wall = Wall::new();
    let started = Instant::now();
    let call = wall.start(&python("print([call(SOCKET, 40, 1, n) for n in range(200)][-1])"));
    assert!(wall_support::readable(&call.output, 10_000), "it waits for a reader");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(call.finish().ok(), "1");
}

#[test]
fn orphans_are_still_reaped_and_counted() {
    let mut wall = Wall::new();
    let ran = wall.bash("for i in $(seq 50); do (setsid true &) ; done; sleep 0.3; ps -e | grep -c defunct; setsid sleep 60 & setsid sleep 60 & exit 3");
    let ending = ran.ending.unwrap();
    assert_eq!((ending.exit_code, ending.left_behind), (Some(3), 2), "{ran:?}");
    assert_eq!(ran.output.trim(), "0", "{ran:?}");
}

/// A container engine may have its own listener above us: then nobody is told, and everything is refused all the same.
#[test]
fn below_another_listener_refusals_are_answered_untold_and_reported_as_degraded() {
    let allow = [seccompiler::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    nix::sys::prctl::set_no_new_privs().unwrap();
    let listener = sys::install_filter_with_listener(&allow).unwrap();
    let mut wall = Wall::new();
    assert_eq!(wall.zygote.obtained().level, Level::Full);
    let find = |wall: &Wall| {
        let protections = &wall.zygote.obtained().protections;
        protections.iter().find(|protection| protection.name == "explanations").unwrap().clone()
    };
    let explanations = find(&wall);
    assert_eq!(explanations.state, ProtectionState::Degraded);
    assert!(explanations.detail.contains("container engine"), "{explanations:?}");
    for attack in all().iter().filter(|attack| attack.protection == "seccomp") {
        let mut job = program(&[]);
        job.argv = attack.argv(&Targets::default());
        let ran = wall.run(&job);
        let answer = attack.came_to(Some(ran.code()));
        assert!(matches!(answer, Some(Answer::Held(_) | Answer::Signalled)), "{}: {answer:?}", attack.id);
        assert_eq!(ran.refusals.len(), 0, "{}", attack.id);
    }
    drop(listener);
}

#[test]
fn explanations_are_active_where_a_refused_call_was_told() {
    for wanted in [Wanted::Strongest, Wanted::WithoutNamespaces, Wanted::Off] {
        let wall = Wall::with(|profile| profile.wanted = wanted);
        let protections = &wall.zygote.obtained().protections;
        let state = protections.iter().find(|one| one.name == "explanations").unwrap().state;
        let expected =
            if wanted == Wanted::Off { ProtectionState::Unavailable } else { ProtectionState::Active };
        assert_eq!(state, expected, "{wanted:?}");
    }
}

/// Init answers the trials of the payload's own verification and must not take the program's first call for one of them.
#[test]
fn first_refused_call_of_a_program_is_told_on_a_busy_machine() {
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || while !stop.load(std::sync::atomic::Ordering::Relaxed) {})
        })
        .collect();
    let attacks = all();
    let keyctl = attacks.iter().find(|attack| attack.id == "keyctl").unwrap();
    let mut job = program(&[]);
    job.argv = keyctl.argv(&Targets::default());
    let untold = [Wanted::Strongest, Wanted::WithoutNamespaces].map(|wanted| {
        let mut wall = Wall::with(|profile| profile.wanted = wanted);
        (0..60).filter(|_| wall.run(&job).refusals.is_empty()).count()
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(untold, [0, 0], "of 60 each");
}

#[test]
fn only_the_low_half_of_a_number_is_told() {
    let mut wall = Wall::new();
    let ran = wall.run(&python("call(SETNS, -1, 0x7000000010000000)"));
    assert_eq!(ran.refusals, [Refusal { rule: "mounts.namespace".into(), arguments: [0, 0x1000_0000, 0] }]);
}
