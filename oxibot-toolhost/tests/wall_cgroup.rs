//! A cgroup for each call: what is counted, what happens at a limit, and that nothing of it is left.
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

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oxibot_proto::message::ProtectionState;
use oxibot_toolhost::wall::ZygoteEvent;
use oxibot_toolhost::wire::{FromInit, ToZygote, Wanted};
use wall_support::{Ran, Wall, counted, job, program, readable};

/// MiB a call may use in these tests: enough for bash and python, nothing to a machine.
const SMALL: u32 = 64;

/// Says so where the machine gives no cgroups; for root a failure where everything is required.
fn has(wall: &Wall, test: &str, wanted: &str) -> bool {
    let (memory, processes) = counted(&wall.zygote);
    let has = if wanted == "memory" { memory } else { processes };
    if !has {
        let line = format!("SKIPPED {test}: no {wanted} cgroup is to be had here");
        // An ordinary user has none unless one was delegated, and is bounded by process limits.
        let required = std::env::var_os("OXIBOT_TESTS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!(required && wall_support::root()), "{line}");
        eprintln!("{line}");
    }
    has
}

fn each_wall(test: &str, wanted: &str, mut check: impl FnMut(&mut Wall)) {
    for kind in [Wanted::Strongest, Wanted::WithoutNamespaces, Wanted::Off] {
        let mut wall = Wall::with(|profile| {
            profile.wanted = kind;
            profile.limits.memory_mb = SMALL;
            profile.limits.processes = 40;
        });
        if has(&wall, test, wanted) {
            check(&mut wall);
            assert_eq!(wall.bash("echo next").ok(), "next", "{kind:?}");
        }
    }
}

fn python(wall: &mut Wall, text: &str) -> Ran {
    let mut job = program(&["/usr/bin/python3", "-c", text]);
    job.limits.memory_mb = SMALL;
    job.limits.processes = 40;
    wall.run(&job)
}

/// Directories of ours in every hierarchy, with the number of processes in each. Only of the run that `wall` is.
fn cgroups(keeper: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = next.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                if path.to_str().unwrap().contains(&format!("-{keeper}-")) {
                    found.push(path.clone());
                }
                next.push(path);
            }
        }
    }
    found
}

fn keeper() -> u32 {
    // The one child of this test that is named so: each test is a process of its own.
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains("(oxibot-keeper)")
                && stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1) == Some(&own.to_string())
        })
        .unwrap()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + wall_support::PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn memory_beyond_the_limit_ends_the_call_and_is_counted() {
    each_wall("memory_beyond_the_limit_ends_the_call_and_is_counted", "memory", |wall| {
        // The control: less than the limit.
        let fits = python(wall, "x = bytearray(20 << 20); print(len(x))");
        assert_eq!(fits.ok(), (20 << 20).to_string());
        assert_eq!(fits.ending.unwrap().limits.out_of_memory, 0);
        let ran = python(wall, "x = bytearray(200 << 20); print('survived')");
        let ending = ran.ending.unwrap();
        assert_eq!((ending.signal, ending.limits.out_of_memory), (Some(9), 1), "{ran:?}");
        assert!(!ran.output.contains("survived"));
    });
}

#[test]
fn memory_is_counted_for_all_processes_of_a_call_together() {
    each_wall("memory_is_counted_for_all_processes_of_a_call_together", "memory", |wall| {
        // Ten with 20 MiB each, none of which would be too much alone.
        let ran = python(
            wall,
            "import os, time
for n in range(10):
    if os.fork() == 0:
        x = bytearray(20 << 20); time.sleep(1); os._exit(0)
ends = [os.wait()[1] for n in range(10)]
print(sum(end == 9 for end in ends) > 0)",
        );
        assert_eq!(ran.ok(), "True", "the payload itself was the smallest");
        assert!(ran.ending.unwrap().limits.out_of_memory > 0, "{ran:?}");
    });
}

#[test]
fn what_a_call_writes_to_tmp_is_its_memory() {
    let mut wall = Wall::with(|profile| profile.tmp_mb = 512);
    if !has(&wall, "what_a_call_writes_to_tmp_is_its_memory", "memory") {
        return;
    }
    let mut job =
        job("head -c 20M /dev/zero > /tmp/fits; echo $?; head -c 300M /dev/zero > /tmp/big; echo $?");
    job.limits.memory_mb = SMALL;
    let ran = wall.run(&job);
    let ending = ran.ending.unwrap();
    assert!(ran.output.starts_with("0\n") && !ran.output.ends_with("0\n0\n"), "{ran:?}");
    assert!(ending.limits.out_of_memory > 0, "{ran:?}");
    assert_eq!(wall.bash("ls /tmp").ok(), "", "what it held is free again");
}

#[test]
fn forks_beyond_the_limit_are_refused_and_counted_although_the_call_completes() {
    each_wall("forks_beyond_the_limit_are_refused_and_counted", "pids", |wall| {
        let ran = python(
            wall,
            "import os, time, threading
made = 0
try:
    for n in range(100):
        if os.fork() == 0:
            time.sleep(20); os._exit(0)
        made += 1
except BlockingIOError:
    print('refused after', made)
try:
    threading.Thread(target=time.sleep, args=(1,)).start()
except RuntimeError:
    print('threads too')",
        );
        assert_eq!(ran.ok(), "refused after 39\nthreads too", "{ran:?}");
        let ending = ran.ending.unwrap();
        assert!(ending.limits.processes >= 2, "{ran:?}");
        assert_eq!(ending.left_behind, 39);
        // The limit is one call's, not all calls' together.
        let ran = python(wall, "import os\nif os.fork() == 0: os._exit(0)\nos.wait(); print('fresh')");
        assert_eq!((ran.ok(), ran.ending.unwrap().limits.processes), ("fresh", 0));
    });
}

#[test]
fn two_calls_at_once_have_a_limit_each() {
    each_wall("two_calls_at_once_have_a_limit_each", "pids", |wall| {
        let many = "for n in $(seq 30); do sleep 3 & done; wait; echo all";
        let (mut one, mut other) = (job(many), job(many));
        one.limits.processes = 40;
        other.limits.processes = 40;
        let (one, other) = (wall.start(&one), wall.start(&other));
        let (one, other) = (one.finish(), other.finish());
        assert_eq!((one.ok(), other.ok()), ("all", "all"));
    });
}

/// V8, Go, the JVM and address sanitisers reserve far more than they use.
#[test]
fn address_space_is_not_memory() {
    each_wall("address_space_is_not_memory", "memory", |wall| {
        let ran =
            python(wall, "import mmap; m = mmap.mmap(-1, 32 << 30, flags=0x22, prot=0); print('reserved')");
        assert_eq!(ran.ok(), "reserved", "{ran:?}");
        let node = Path::new("/usr/bin/node");
        if node.exists() {
            let mut job = program(&[
                "/usr/bin/node",
                "-e",
                "console.log(new WebAssembly.Memory({initial: 1}) && 'wasm')",
            ]);
            job.limits.memory_mb = 256;
            assert!(wall.run(&job).ok().contains("wasm"));
        }
    });
}

#[test]
fn init_outlives_the_memory_of_its_call_to_tell_of_it() {
    let mut wall = Wall::with(|profile| profile.limits.memory_mb = SMALL);
    if !has(&wall, "init_outlives_the_memory_of_its_call_to_tell_of_it", "memory") {
        return;
    }
    assert_eq!(wall.bash("cat /proc/self/oom_score_adj").ok(), "800", "the call goes first");
    // Each of these is small; what fills the memory is nobody's.
    for n in 0..10 {
        let ran = wall
            .bash("(head -c 100M /dev/zero > /dev/shm/x); head -c 100M /dev/zero > /tmp/x; sleep 0; sleep 0");
        assert!(matches!(ran.first, FromInit::Running) && ran.ending.is_some(), "call {n}: {ran:?}");
        assert!(ran.ending.unwrap().limits.out_of_memory > 0, "call {n}: {ran:?}");
    }
}

#[test]
fn cgroup_of_a_call_is_removed_after_it_and_the_zygotes_with_the_zygote() {
    for kind in [Wanted::Strongest, Wanted::WithoutNamespaces] {
        let mut wall = Wall::with(|profile| profile.wanted = kind);
        if !has(&wall, "cgroup_of_a_call_is_removed_after_it_and_the_zygotes_with_the_zygote", "pids") {
            return;
        }
        let keeper = keeper();
        let calls =
            || cgroups(keeper).into_iter().filter(|path| path.to_str().unwrap().contains("/call-")).count();
        eventually("the probe's cgroup is gone", || calls() == 0);
        let zygotes = cgroups(keeper).len();
        assert!(zygotes >= 1, "{:?}", cgroups(keeper));
        let call = wall.start(&job("sleep 0.5; sleep 300 & setsid sleep 300 &"));
        assert!(calls() >= 1, "{:?}", cgroups(keeper));
        call.finish();
        eventually("the call's cgroup is gone", || calls() == 0);
        assert_eq!(cgroups(keeper).len(), zygotes);
        // With a call in it, by SIGKILL.
        let mut call = wall.start(&job("setsid sleep 300 & sleep 300"));
        assert_eq!(call.word(), FromInit::Running);
        wall.zygote.kill();
        eventually("everything of a killed zygote is gone", || cgroups(keeper).is_empty());
        assert!(readable(&call.output, 10_000));
    }
}

#[test]
fn sweep_by_cgroup_finds_what_left_its_family() {
    let mut wall = Wall::with(|profile| profile.wanted = Wanted::WithoutNamespaces);
    if !has(&wall, "sweep_by_cgroup_finds_what_left_its_family", "pids") {
        return;
    }
    let mut call = wall.start(&job("for n in 1 2 3 4 5; do (setsid sleep 300 &) ; done; sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(500));
    call.running.kill();
    assert!(readable(call.running.pidfd(), 10_000));
    wall.zygote.ask(ToZygote::Sweep).unwrap();
    match wall.event() {
        ZygoteEvent::Swept(count) => assert!(count >= 5, "{count}"),
        other => panic!("{other:?}"),
    }
    assert!(readable(&call.output, 5_000), "a descendant still holds the pipe");
}

/// Directories below our own cgroups and in `/tmp`, as a run that died without a trace of a process would leave them.
fn plant(name: &str) -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let places = ["memory", "pids"].map(|controller| {
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
        Some(
            Path::new("/sys/fs/cgroup")
                .join(controller)
                .join(line.splitn(3, ':').nth(2)?.trim_start_matches('/')),
        )
    });
    let mut planted = Vec::new();
    for place in places.into_iter().flatten().chain([PathBuf::from("/tmp")]) {
        let directory = place.join(name);
        if std::fs::create_dir_all(directory.join("call-1")).is_ok() {
            planted.push(directory);
        }
    }
    planted
}

#[test]
fn start_removes_what_the_dead_left_and_nothing_else() {
    let namespace = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/pid").unwrap());
    // No process has an id above the kernel's limit of 2^22; a start time of 1 is no living process's.
    let dead = [
        format!("oxibot-{namespace}-5000001-77-1"),
        format!("oxibot-{namespace}-{}-1-1", std::process::id()),
    ];
    let others = ["oxibot-17-5000001-77-1".to_owned(), format!("oxibot-{namespace}-elsewhere")];
    let stale: Vec<PathBuf> = dead.iter().flat_map(|name| plant(name)).collect();
    let kept: Vec<PathBuf> = others.iter().flat_map(|name| plant(name)).collect();
    assert!(!stale.is_empty() && !kept.is_empty());
    // Somebody a killed run left in its cgroup.
    let mut orphan = std::process::Command::new("/bin/sleep").arg("300").spawn().unwrap();
    let inhabited = stale.iter().find(|path| path.join("cgroup.procs").exists());
    if let Some(cgroup) = inhabited {
        std::fs::write(cgroup.join("call-1/cgroup.procs"), orphan.id().to_string()).unwrap();
    }
    let wall = Wall::new();
    let left: Vec<&PathBuf> = stale.iter().filter(|path| path.exists()).collect();
    if inhabited.is_some() {
        // Its cgroup is in use until a moment after its end: that one may wait for another start.
        orphan.wait().unwrap();
        assert!(left.iter().all(|path| Some(*path) == inhabited), "{left:?}");
        drop(wall);
        drop(Wall::new());
    }
    let _ = orphan.kill();
    let _ = orphan.wait();
    let left: Vec<&PathBuf> = stale.iter().filter(|path| path.exists()).collect();
    let all_kept = kept.iter().all(|path| path.exists());
    for path in &kept {
        for part in [path.join("call-1"), path.clone()] {
            std::fs::remove_dir(part).unwrap();
        }
    }
    assert!(left.is_empty(), "{left:?}");
    assert!(all_kept, "what is not certainly ours and dead is left alone");
}

#[test]
fn what_is_missing_is_said() {
    let wall = Wall::new();
    let found = wall.zygote.obtained().protections.iter().find(|one| one.name == "cgroup").unwrap().clone();
    let (memory, processes) = counted(&wall.zygote);
    match found.state {
        ProtectionState::Active => assert!(memory && processes, "{found:?}"),
        ProtectionState::Degraded => assert!(found.detail.contains("; no "), "{found:?}"),
        ProtectionState::Unavailable => {
            assert!(found.detail.contains("each process") && found.detail.contains("cgroup:"), "{found:?}");
        }
    }
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    wall_support::again_as_a_user();
}
