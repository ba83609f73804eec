//! Every attack is held at level `full`, and at level `kernel` outside its named gaps, as root and as a user, and every
//! one gets through at level `off` as root: an attack that cannot succeed anywhere proves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]

mod wall_support;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;
use oxibot_toolhost::wall::attack::{Answer, Around, Targets, Verdict, all, argv_of_many, find, fixed};
use oxibot_toolhost::wire::{Job, Profile, Sockets, Wanted};
use wall_support::{Wall, again_as_a_user, root, without_namespaces};

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

/// A home with everything in it that attacks are aimed at.
struct Home {
    directory: tempfile::TempDir,
    _socket: UnixListener,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        for name in ["audit", "run", "state"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        for name in ["config.json", "audit/log", "audit/key", "state/file"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        let socket = directory.path().join(format!("run/{}.sock", std::process::id()));
        Self { _socket: UnixListener::bind(socket).unwrap(), directory }
    }

    fn targets(&self) -> Targets {
        let path = |name: &str| self.directory.path().join(name);
        let (config, log) = (path("config.json"), path("audit/log"));
        // What targets have to know of the profile: how much its /tmp holds.
        let profile = wall_support::profile(&path("workspace"));
        let around = Around {
            home: Some(self.directory.path()),
            config: Some(&config),
            log: Some(&log),
            profiles: &[&profile],
        };
        let targets = Targets::prepare(around);
        assert_eq!(targets.missing(), [], "every target can be reached without a wall");
        targets
    }
}

/// Tries every attack in a call of its own, with real targets on the host.
fn every_attack(wanted: Wanted) -> BTreeMap<&'static str, (i32, Option<Answer>)> {
    every_attack_on(|profile| profile.wanted = wanted, wanted)
}

/// As [`every_attack`], on another profile.
fn every_attack_on(
    change: impl FnOnce(&mut Profile),
    wanted: Wanted,
) -> BTreeMap<&'static str, (i32, Option<Answer>)> {
    let home = Home::new();
    let targets = home.targets();
    let mut wall = Wall::with(change);
    let obtained = wall.zygote.obtained();
    let level = obtained.level;
    let expected = match wanted {
        Wanted::Strongest => Level::Full,
        Wanted::WithoutNamespaces => without_namespaces(obtained),
        Wanted::Off => Level::Off,
    };
    assert_eq!(level, expected, "{obtained:?}");
    let mut results = BTreeMap::new();
    for attack in all() {
        assert!(targets.serve(attack.needs()), "{} has what it needs", attack.id);
        // Without a wall limits stay, so there the small ones are exceeded under the ordinary ones.
        let limits = match level {
            Level::Off => Limits::default(),
            Level::Full | Level::Kernel | Level::Reduced => attack.limits(Limits::default()),
        };
        let job = Job {
            argv: attack.argv(&targets),
            environment: vec![],
            directory: vec![],
            limits,
            umask: 0o022,
            sockets: Sockets::search(),
        };
        // Shown when the test fails: an attack may also end what runs it.
        println!("{}", attack.id);
        let ran = wall.run(&job);
        let ending = ran.ending.unwrap_or_else(|| panic!("{}: {ran:?}", attack.id));
        let status = ending.exit_code.unwrap_or(-ending.signal.unwrap_or(999));
        results.insert(attack.id, (status, attack.came_to(ending.exit_code)));
    }
    let left: Vec<_> = std::fs::read_dir(wall.workspace.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "attacks leave something in the workspace: {left:?}");
    results
}

#[test]
fn every_attack_is_held_at_level_full() {
    for (id, (status, answer)) in every_attack(Wanted::Strongest) {
        assert!(matches!(answer, Some(Answer::Held(_) | Answer::Signalled)), "{id}: {status} {answer:?}");
    }
}

#[test]
fn every_attack_is_held_at_level_full_where_calls_have_a_proxy() {
    for (id, (status, answer)) in every_attack_on(|profile| profile.proxy = true, Wanted::Strongest) {
        assert!(matches!(answer, Some(Answer::Held(_) | Answer::Signalled)), "{id}: {status} {answer:?}");
    }
}

#[test]
fn every_attack_outside_the_named_gaps_is_held_at_level_kernel() {
    let results = every_attack(Wanted::WithoutNamespaces);
    let wall = Wall::with(|profile| profile.wanted = Wanted::WithoutNamespaces);
    let (level, abi) = (wall.zygote.obtained().level, wall.zygote.obtained().landlock_abi);
    let mut through = Vec::new();
    for (id, (status, answer)) in results {
        match answer {
            Some(Answer::Held(_) | Answer::Signalled) => {}
            Some(Answer::Broken) if find(id).unwrap().gap(level, abi).is_some() => through.push(id),
            Some(Answer::Broken | Answer::Skipped) | None => panic!("{id}: {status} {answer:?}"),
        }
    }
    // The other way round: what is named as a gap is one, else the name is a lie.
    if root() {
        for id in ["chmod-outside", "chown-outside", "touch-outside", "mark-outside", "stat-outside"] {
            assert!(through.contains(&id), "{id} is named as a gap and held: {through:?}");
        }
    }
}

#[test]
fn control_every_attack_gets_through_without_a_wall() {
    if !root() {
        // Much is refused to an ordinary user anyway; root is the one without any other wall.
        return;
    }
    // What this machine refuses even to root, for reasons of its own.
    let refused_here =
        |id: &str| find(id).unwrap().fixed_path().is_some_and(|path| std::fs::File::open(path).is_err());
    let mut cannot = vec![
        // Not in most kernels.
        "entry-x32",
        // Nothing is inherited even without a wall, and the nursery gives up new privileges for all below it.
        "inherit-descriptors",
        "gain-by-exec",
        // A machine without a route by IPv6.
        "connect-outside-ipv6",
    ];
    if !caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE).unwrap() {
        // Limits stay without a wall, and whoever may raise them is not here.
        cannot.extend(["raise-limits", "dump-core"]);
    }
    let held: Vec<_> = every_attack(Wanted::Off)
        .into_iter()
        .filter(|(id, (_, answer))| {
            *answer != Some(Answer::Broken) && !cannot.contains(id) && !refused_here(id)
        })
        .collect();
    assert!(held.is_empty(), "{held:?}");
}

#[test]
fn the_battery_of_a_start_runs_in_one_process_and_says_which_got_through() {
    let home = Home::new();
    let targets = home.targets();
    for (wanted, level) in [
        (Wanted::Strongest, Level::Full),
        (Wanted::WithoutNamespaces, Level::Kernel),
        (Wanted::Off, Level::Off),
    ] {
        let mut wall = Wall::with(|profile| profile.wanted = wanted);
        let job = Job {
            argv: argv_of_many(&fixed(), &targets),
            environment: vec![],
            directory: vec![],
            limits: Limits::default(),
            umask: 0o022,
            sockets: Sockets::search(),
        };
        let verdict = Verdict::from_status(wall.run(&job).code());
        match level {
            Level::Off if root() => assert_eq!(verdict, Some(Verdict::Broken(0)), "{level:?}"),
            Level::Off => assert!(matches!(verdict, Some(Verdict::Broken(_))), "{level:?}"),
            Level::Full | Level::Kernel | Level::Reduced => {
                assert_eq!(verdict, Some(Verdict::Held), "{level:?}")
            }
        }
        let left: Vec<_> = std::fs::read_dir(wall.workspace.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "the battery leaves something in the workspace: {left:?}");
    }
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
