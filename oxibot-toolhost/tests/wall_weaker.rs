//! Levels `kernel`, `reduced` and `off`, and sabotage: with a mechanism taken away the level obtained is lower or there
//! is none; it is never `full`. Each test takes the mechanism away from its own thread only, so they run side by side.
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
use std::fs;
use std::time::Duration;

use oxibot_proto::message::{Level, ProtectionState};
use oxibot_toolhost::wall::{Nursery, ZygoteEvent};
use oxibot_toolhost::wire::{FromInit, Obtained, ToZygote, WallFault, Wanted};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use wall_support::{Wall, again_as_a_user, binary, job, profile, readable, root, without_namespaces};

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

fn kernel() -> Wall {
    Wall::with(|profile| profile.wanted = Wanted::WithoutNamespaces)
}

#[test]
fn kernel_level_confines_without_namespaces() {
    let mut wall = kernel();
    let obtained = wall.zygote.obtained();
    assert_eq!(obtained.level, without_namespaces(obtained), "{obtained:?}");
    let secret = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let ran = wall.bash(&format!(
        "exec 2>/dev/null
         cat {secret}; cat /etc/shadow /root/.profile; echo x > /tmp/escaped; echo x > {secret}; ls / /home
         ls /usr/bin >/dev/null && touch made && echo x > $TMPDIR/y && cat $TMPDIR/y && echo control",
        secret = secret.path().display()
    ));
    assert_eq!(ran.ok(), "x\ncontrol", "{ran:?}");
    assert_eq!(fs::read_to_string(secret.path()).unwrap(), "secret");
    assert!(wall.workspace.path().join("made").exists());
}

#[test]
fn kernel_level_has_no_sockets_and_signals_nobody() {
    let mut wall = kernel();
    let ran = wall.bash(&format!(
        "python3 - <<'END'
import socket, os, signal
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 40):
    try:
        socket.socket(family, socket.SOCK_DGRAM); print('made', family)
    except PermissionError: pass
socket.socketpair()
try:
    os.kill({pid}, 0); print('signalled')
except PermissionError: print('held')
END",
        pid = std::process::id()
    ));
    assert_eq!(ran.ok(), "held", "{ran:?}");
}

#[test]
fn private_directory_of_a_kernel_level_call_is_removed() {
    let mut wall = kernel();
    let ran = wall.bash("echo $TMPDIR; stat -c %a $TMPDIR; touch $TMPDIR/x");
    let mut lines = ran.ok().lines();
    let directory = std::path::PathBuf::from(lines.next().unwrap());
    assert!(directory.starts_with("/tmp") && lines.next() == Some("700"), "{ran:?}");
    for _ in 0..50 {
        if !directory.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{} is still there", directory.display());
}

#[test]
fn killed_kernel_level_call_is_swept() {
    let mut wall = kernel();
    let mut call = wall.start(&job("setsid sleep 300 & (setsid sleep 300 &); sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(300));
    call.running.kill();
    assert!(readable(call.running.pidfd(), 10_000));
    wall.zygote.ask(ToZygote::Sweep).unwrap();
    match wall.event() {
        ZygoteEvent::Swept(count) => assert!(count >= 2, "{count}"),
        other => panic!("{other:?}"),
    }
    assert!(readable(&call.output, 5_000), "a descendant still holds the pipe");
    assert_eq!(wall.bash("echo still serving").ok(), "still serving");
}

#[test]
fn sweep_spares_other_calls() {
    let mut wall = kernel();
    let mut other = wall.start(&job("sleep 1; echo spared"));
    assert_eq!(other.word(), FromInit::Running);
    wall.zygote.ask(ToZygote::Sweep).unwrap();
    assert!(matches!(wall.event(), ZygoteEvent::Swept(_)));
    assert!(matches!(other.word(), FromInit::Ended(ending) if ending.exit_code == Some(0)));
}

#[test]
fn covered_directory_in_the_workspace_is_refused_without_namespaces() {
    let workspace = tempfile::tempdir().unwrap();
    let mut profile = profile(workspace.path());
    profile.wanted = Wanted::WithoutNamespaces;
    profile.covered = vec![workspace.path().join("state").to_str().unwrap().into()];
    let fault = Nursery::start_with(&binary()).unwrap().zygote(&profile).unwrap_err();
    assert!(fault.step.contains("cover"), "{fault}");
}

#[test]
fn unrestricted_is_refused_without_namespaces() {
    let workspace = tempfile::tempdir().unwrap();
    let mut profile = profile(workspace.path());
    profile.wanted = Wanted::WithoutNamespaces;
    profile.restrict_to_workspace = false;
    assert!(Nursery::start_with(&binary()).unwrap().zygote(&profile).is_err());
}

#[test]
fn off_confines_nothing_and_says_so() {
    let mut wall = Wall::with(|profile| profile.wanted = Wanted::Off);
    assert_eq!(wall.zygote.obtained().level, Level::Off);
    assert!(!active(wall.zygote.obtained(), "landlock"));
    assert!(wall.bash("cat /proc/self/status").ok().contains("Seccomp:\t0"));
}

/// Doubles ten times and then stops by itself: what a bomb does, without being one should the wall fail.
const BOUNDED_BOMB: &str = "f() { [ $1 -gt 0 ] && { f $(($1 - 1)) & f $(($1 - 1)) & }; sleep 20; }; f 10";

/// Processes on this machine whose environment names this test's marker.
fn marked(marker: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("environ")).ok())
        .filter(|environ| String::from_utf8_lossy(environ).contains(marker))
        .count()
}

fn marked_bomb(marker: &str) -> oxibot_toolhost::wire::Job {
    let mut job = job(BOUNDED_BOMB);
    job.environment.push(format!("MARKER={marker}").into_bytes());
    job.limits.processes = 5_000;
    job
}

#[test]
fn processes_without_namespaces_are_limited() {
    let many = "import os, time
for made in range(400):
    try:
        if os.fork() == 0: time.sleep(20); os._exit(0)
    except BlockingIOError: print('refused', flush=True); break
time.sleep(1)";
    for wanted in [Wanted::WithoutNamespaces, Wanted::Off] {
        let mut wall = Wall::with(|profile| profile.wanted = wanted);
        let marker = format!("many-{}-{wanted:?}", std::process::id());
        let mut job = wall_support::program(&["/usr/bin/python3", "-c", many]);
        job.environment.push(format!("MARKER={marker}").into_bytes());
        job.limits.processes = 100;
        let ran = wall.run(&job);
        if root() && !wall_support::counted(&wall.zygote).1 {
            // The kernel does not count root's processes without a cgroup: init does, and ends the call.
            assert_eq!(ran.ending.unwrap().signal, Some(9), "{ran:?}");
        } else {
            assert_eq!(ran.ok(), "refused", "{ran:?}");
        }
        assert_eq!(marked(&marker), 0);
        assert_eq!(wall.bash("echo next").ok(), "next");
    }
}

#[test]
fn fork_bomb_without_namespaces_dies_with_its_init() {
    let mut wall = kernel();
    let marker = format!("bomb-kill-{}", std::process::id());
    let mut call = wall.start(&marked_bomb(&marker));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(700));
    let bombs = marked(&marker);
    assert!(bombs > 10, "it did not even start");
    call.running.kill();
    // As the supervisor does: a sweep is for what outlived an init, and before its end it still answers for its call.
    assert!(readable(call.running.pidfd(), 10_000));
    wall.zygote.ask(ToZygote::Sweep).unwrap();
    match wall.event() {
        ZygoteEvent::Swept(count) => assert!(count > 10, "{count} of {bombs}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(marked(&marker), 0);
}

#[test]
fn init_that_is_killed_takes_its_call_with_it_unasked() {
    let mut wall = kernel();
    let mut call = wall.start(&job("setsid sleep 300 & (setsid sleep 300 &); sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(300));
    call.running.kill();
    assert!(readable(&call.output, 30_000), "a descendant still holds the pipe");
}

/// Even without a PID namespace: the zygote is killed in mid-call, and the nursery ends what it left.
#[test]
fn orphans_of_a_killed_zygote_are_ended() {
    let mut wall = kernel();
    let mut call = wall.start(&job("setsid sleep 300 & (setsid sleep 300 &); sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(300));
    wall.zygote.kill();
    assert!(readable(&call.output, 30_000), "a descendant still holds the pipe");
}

#[test]
fn end_of_the_supervisor_ends_kernel_level_calls() {
    let mut wall = kernel();
    let mut call = wall.start(&job("setsid sleep 300 & (setsid sleep 300 &); sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    std::thread::sleep(Duration::from_millis(300));
    let Wall { nursery, zygote, workspace } = wall;
    drop((zygote, nursery, workspace));
    assert!(readable(&call.output, 30_000), "a descendant still holds the pipe");
}

fn active(obtained: &Obtained, name: &str) -> bool {
    obtained.protections.iter().any(|p| p.name == name && p.state == ProtectionState::Active)
}

/// Installs a filter on this thread, under which `calls` answer `errno` (all of them, or where `condition` holds).
fn take_away(calls: &[libc::c_long], condition: Option<SeccompCondition>, errno: i32) {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls
        .iter()
        .map(|call| {
            let rules = condition.iter().map(|one| SeccompRule::new(vec![one.clone()]).unwrap()).collect();
            (*call, rules)
        })
        .collect();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap();
    seccompiler::apply_filter(&filter).unwrap();
}

fn obtain() -> Result<Obtained, WallFault> {
    let workspace = tempfile::tempdir().unwrap();
    let profile = profile(&workspace.path().canonicalize().unwrap());
    Nursery::start_with(&binary())?.zygote(&profile).map(|zygote| zygote.obtained().clone())
}

fn bit(argument: u8, bits: libc::c_int) -> Option<SeccompCondition> {
    let bits = u64::from(bits.cast_unsigned());
    Some(
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), bits).unwrap(),
    )
}

#[test]
fn control_nothing_taken_away_is_full() {
    assert_eq!(obtain().unwrap().level, Level::Full);
}

/// The level without `calls` is `kernel` (`reduced` on an old kernel), names the missing namespaces and why.
fn is_kernel(obtained: Result<Obtained, WallFault>, why: &str) {
    let obtained = obtained.unwrap();
    assert_eq!(obtained.level, without_namespaces(&obtained), "{obtained:?}");
    let missing = obtained.protections.iter().find(|p| p.name == "pid-namespace").unwrap();
    assert_eq!(missing.state, ProtectionState::Unavailable);
    assert!(missing.detail.contains(why), "{}", missing.detail);
    assert!(active(&obtained, "landlock") && active(&obtained, "seccomp"));
}

#[test]
fn user_namespaces_refused_is_kernel() {
    take_away(&[libc::SYS_unshare, libc::SYS_clone], bit(0, libc::CLONE_NEWUSER), libc::EPERM);
    take_away(&[libc::SYS_clone3], None, libc::ENOSYS);
    is_kernel(obtain(), "namespace");
}

#[test]
fn unshare_and_mount_refused_as_by_docker_is_kernel() {
    take_away(
        &[libc::SYS_unshare, libc::SYS_mount, libc::SYS_setns, libc::SYS_pivot_root],
        None,
        libc::EPERM,
    );
    take_away(&[libc::SYS_clone], bit(0, libc::CLONE_NEWUSER), libc::EPERM);
    take_away(&[libc::SYS_clone3], None, libc::ENOSYS);
    is_kernel(obtain(), "namespace");
}

#[test]
fn clone3_not_there_changes_nothing() {
    take_away(&[libc::SYS_clone3], None, libc::ENOSYS);
    assert_eq!(obtain().unwrap().level, Level::Full);
}

#[test]
fn each_other_namespace_refused_is_kernel() {
    for flag in [libc::CLONE_NEWPID, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWIPC] {
        std::thread::spawn(move || {
            take_away(&[libc::SYS_clone], bit(0, flag), libc::EPERM);
            is_kernel(obtain(), "namespace");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn each_mount_call_refused_is_kernel() {
    for call in [
        libc::SYS_mount,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_pivot_root,
        libc::SYS_umount2,
    ] {
        std::thread::spawn(move || {
            take_away(&[call], None, libc::ENOSYS);
            is_kernel(obtain(), "ENOSYS");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn file_system_without_id_mapping_is_kernel_with_the_remedy() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    if !root() {
        // An ordinary user's workspace needs no id map.
        return;
    }
    // A mount namespace of this thread alone; ramfs has no id-mapped mounts.
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).unwrap();
    let workspace = tempfile::tempdir().unwrap();
    mount::<str, _, str, str>(None, workspace.path(), Some("ramfs"), MsFlags::empty(), None).unwrap();
    let zygote = Nursery::start_with(&binary()).unwrap().zygote(&profile(workspace.path())).unwrap();
    is_kernel(Ok(zygote.obtained().clone()), "id-mapped mounts, or run as its owner");
    nix::mount::umount(workspace.path()).unwrap();
}

#[test]
fn no_landlock_is_no_wall() {
    let calls =
        [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    take_away(&calls, None, libc::ENOSYS);
    assert!(obtain().unwrap_err().to_string().contains("Landlock"));
}

#[test]
fn landlock_that_only_pretends_is_no_wall() {
    // Answers success and does nothing: only the canary can tell.
    take_away(&[libc::SYS_landlock_restrict_self], None, 0);
    let fault = obtain().unwrap_err();
    assert!(fault.to_string().contains("canary"), "{fault}");
}

#[test]
fn landlock_rules_that_only_pretend_are_no_wall_or_work() {
    take_away(&[libc::SYS_landlock_add_rule], None, 0);
    assert!(obtain().is_err(), "no program can be executed without rules");
}

#[test]
fn no_seccomp_is_no_wall() {
    take_away(&[libc::SYS_seccomp], None, libc::EINVAL);
    assert!(obtain().unwrap_err().to_string().contains("seccomp"));
}

#[test]
fn seccomp_that_only_pretends_is_no_wall() {
    take_away(&[libc::SYS_seccomp], None, 0);
    let fault = obtain().unwrap_err();
    assert!(fault.to_string().contains("verify"), "{fault}");
}

#[test]
fn capabilities_that_stay_are_no_wall() {
    take_away(&[libc::SYS_capset], None, 0);
    match obtain() {
        Err(fault) => assert!(fault.to_string().contains("capabilities"), "{fault}"),
        // Without namespaces an ordinary user has none to drop.
        Ok(obtained) => {
            assert!(!root() && obtained.level == without_namespaces(&obtained), "{obtained:?}")
        }
    }
}

#[test]
fn missing_openat2_or_close_range_is_no_wall() {
    for call in [libc::SYS_close_range, libc::SYS_prctl] {
        std::thread::spawn(move || {
            take_away(&[call], None, libc::ENOSYS);
            assert!(obtain().is_err());
        })
        .join()
        .unwrap();
    }
}
