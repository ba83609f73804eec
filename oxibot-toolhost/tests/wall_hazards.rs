//! Small doors at level `full`, one test each: what of `/proc`, `/dev`, `/tmp` and the system could be read, changed or
//! filled. Each test runs as root and as a user.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a panic is how a test fails"
)]

mod wall_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use oxibot_proto::message::Level;
use oxibot_toolhost::wire::FromInit;
use wall_support::{Wall, again_as_a_user, job, program};

fn python(wall: &mut Wall, script: &str) -> wall_support::Ran {
    assert_eq!(wall.zygote.obtained().level, Level::Full);
    wall.run(&program(&["/usr/bin/python3", "-c", script]))
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

#[test]
fn nothing_of_proc_is_writable() {
    let mut wall = Wall::new();
    let ran = python(
        &mut wall,
        r#"
import os
tried = 0
for top, directories, files in os.walk("/proc"):
    directories[:] = [d for d in directories if top != "/proc" or not d.isdigit() or d == str(os.getpid())]
    if "/task" in top or "/fd" in top or "/map_files" in top: continue
    for name in files:
        path = os.path.join(top, name)
        tried += 1
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK))
                print("opened", path)
            except OSError: pass
for path in ("/proc/sys/kernel/ns_last_pid", "/proc/self/oom_score_adj", "/proc/self/mem", "/proc/sysrq-trigger"):
    for act in (lambda: os.chmod(path, 0o777), lambda: os.truncate(path, 0), lambda: os.utime(path)):
        try: act(); print("changed", path)
        except OSError: pass
print("tried", tried > 300)"#,
    );
    // Covered by the null device, which anybody may write to.
    let rest: Vec<&str> = ran
        .ok()
        .lines()
        .filter(|line| !line.ends_with("/proc/keys") && !line.ends_with("/proc/key-users"))
        .collect();
    assert_eq!(rest, ["tried True"], "{ran:?}");
}

#[test]
fn what_of_proc_belongs_to_the_kernel_is_not_readable() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "for name in kcore kmsg timer_list sysrq-trigger kpagecount kpageflags slabinfo vmallocinfo pagetypeinfo \
                     sys/vm/drop_caches sys/kernel/cad_pid 1/environ 1/maps 1/fd; do
             head -c 1 /proc/$name >/dev/null 2>&1 && echo \"read $name\"
         done
         cat /proc/keys /proc/key-users
         grep -v '^0000000000000000 ' /proc/kallsyms | head -1
         grep -v '00000000-00000000' /proc/iomem | head -1
         ls /proc | grep '^[0-9]' | grep -c '^1$'
         dmesg 2>/dev/null | head -1; cat /proc/net/tcp /proc/net/unix | grep -v -e local_address -e RefCount; true",
    );
    assert_eq!(ran.ok(), "0", "{ran:?}");
}

#[test]
fn devices_are_five_and_cannot_be_more() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "ls -A /dev | tr '\\n' ' '; echo
         for at in . /tmp /dev/shm /dev; do
             mknod $at/n c 1 3 2>/dev/null && echo made; mknod $at/b b 254 0 2>/dev/null && echo made
         done
         cat /dev/tty; cat /dev/ptmx; true",
    );
    let lines: Vec<&str> = ran.output.lines().filter(|line| !line.contains("No such")).collect();
    assert_eq!(lines, ["fd full null random shm stderr stdin stdout urandom zero "], "{ran:?}");
}

#[test]
fn private_directories_are_bounded_in_bytes_and_files() {
    let mut wall = Wall::with(|profile| profile.tmp_mb = 8);
    let script = r#"
import os
def fill(at):
    n = 0
    try:
        while n < 100000:
            open(f"{at}/{n}", "w").close(); n += 1
    except OSError as error: print(at, "files", error.strerror)
    for i in range(n): os.unlink(f"{at}/{i}")
    try:
        with open(f"{at}/big", "wb") as big:
            while True: big.write(b"x" * 1048576)
    except OSError as error: print(at, "bytes", error.strerror)
    os.unlink(f"{at}/big")
for at in ("/tmp", "/dev/shm"): fill(at)
for at in ("/", "/run", "/dev", "/usr", "/etc", "/proc", "/var", "/home"):
    try: open(at + "/x", "w"); print("wrote", at)
    except OSError: pass
"#;
    let full = "No space left on device";
    let expected = ["/tmp files ", "/tmp bytes ", "/dev/shm files ", "/dev/shm bytes "]
        .map(|part| part.to_owned() + full);
    assert_eq!(python(&mut wall, script).ok().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn nothing_of_the_system_changes_its_mode_owner_times_or_names() {
    let readable = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = readable.path().canonicalize().unwrap();
    fs::write(path.join("file"), "content").unwrap();
    let before = fs::metadata(path.join("file")).unwrap();
    let mut wall = Wall::with(|profile| profile.read = vec![path.to_str().unwrap().into()]);
    let script = format!(
        r#"
import os
r = "{}"
acts = {{
  "chmod": lambda p: os.chmod(p, 0o777), "chown": lambda p: os.chown(p, os.getuid(), os.getgid()),
  "utime": lambda p: os.utime(p, (0, 0)), "xattr": lambda p: os.setxattr(p, "user.x", b"1"),
  "truncate": lambda p: os.truncate(p, 0), "unlink": os.unlink, "rename": lambda p: os.rename(p, p + "2"),
  "link here": lambda p: os.link(p, "linked"), "link in tmp": lambda p: os.link(p, "/tmp/linked"),
  "move here": lambda p: os.rename(p, "moved"), "link beside": lambda p: os.link(p, p + "3"),
  "symlink": lambda p: os.symlink("x", p + "4"), "mkdir": lambda p: os.mkdir(p + "5"), "mkfifo": lambda p: os.mkfifo(p + "6"),
}}
for path in (r + "/file", "/usr/bin/env", "/etc/passwd"):
    for name, act in acts.items():
        try: act(path); print("did", name, path)
        except OSError: pass
open("control", "w").close()
for name in ("chmod", "chown", "utime"): acts[name]("control")
print("control")"#,
        path.display()
    );
    assert_eq!(python(&mut wall, &script).ok(), "control");
    let after = fs::metadata(path.join("file")).unwrap();
    assert_eq!(
        (
            before.mode(),
            before.uid(),
            before.mtime(),
            before.ctime(),
            after.nlink(),
            fs::read_dir(&path).unwrap().count()
        ),
        (after.mode(), after.uid(), after.mtime(), after.ctime(), 1, 1)
    );
}

#[test]
fn programs_with_rights_of_their_own_have_none() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "grep -h -e NoNewPrivs -e CapEff -e CapBnd /proc/self/status | tr -d '\\t' | tr '\\n' ' '
         cp /usr/bin/id . && chmod 4755 id 2>/dev/null && echo set-user-id
         install -m 2755 /usr/bin/id id2 2>/dev/null && echo set-group-id
         [ -x /usr/bin/su ] && su -c id 2>/dev/null; true",
    );
    assert_eq!(ran.ok(), "CapEff:0000000000000000 CapBnd:0000000000000000 NoNewPrivs:1", "{ran:?}");
}

#[test]
fn no_core_is_left_and_no_helper_is_started_for_one() {
    let mut wall = Wall::new();
    let ran = wall
        .bash("ulimit -Sc; ulimit -Hc; bash -c 'kill -SEGV $$'; python3 -c 'import os; os.abort()'; ls -A");
    assert!(ran.output.lines().all(|line| !line.starts_with("core")), "{ran:?}");
    assert_eq!(fs::read_dir(wall.workspace.path()).unwrap().count(), 0, "{ran:?}");
}

#[test]
fn nothing_runs_in_real_time_or_before_others() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "ulimit -r; ulimit -e; chrt -f 1 true 2>/dev/null && echo fifo; nice -n -5 true 2>&1; nice -n 5 nice",
    );
    assert!(
        ran.ok().starts_with("0\n0\n") && ran.output.ends_with("5\n") && !ran.output.contains("fifo"),
        "{ran:?}"
    );
    assert!(ran.output.contains("Permission denied"), "{ran:?}");
}

#[test]
fn links_and_names_that_leave_lead_nowhere() {
    let workspace = tempfile::tempdir().unwrap();
    let secret = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(secret.path().join("secret"), "secret").unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o755)).unwrap();
    symlink(secret.path(), workspace.path().join("out")).unwrap();
    symlink("/proc/1/root", workspace.path().join("root")).unwrap();
    symlink("/proc/self/root", workspace.path().join("own")).unwrap();
    symlink("/proc/self/fd/0/..", workspace.path().join("fd")).unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    let path = secret.path().display();
    let ran = wall.bash(&format!(
        "exec 2>/dev/null
         cat out/secret root{path}/secret own{path}/secret fd/secret ../../../../../..{path}/secret /proc/self/cwd/../..{path}/secret
         cd ..; cd ..; cat .{path}/secret; cat /../{path}/secret
         for n in $(seq 0 40); do cat /proc/self/fd/$n{path}/secret; done; echo done"
    ));
    assert_eq!(ran.ok(), "done", "{ran:?}");
}

/// Whoever moves the workspace while calls run, or puts a link in its place, changes nothing for the calls: they have the
/// directory, not its name.
#[test]
fn workspace_replaced_by_a_link_is_the_directory_it_was() {
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(other.path().join("secret"), "secret").unwrap();
    let workspace = tempfile::tempdir_in(top.path()).unwrap();
    let path = workspace.path().canonicalize().unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    let mut running = wall.start(&job("while [ ! -e go ]; do sleep 0.05; done; ls; echo x > after"));
    assert_eq!(running.word(), FromInit::Running);
    let moved = top.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    symlink(other.path(), &path).unwrap();
    fs::write(moved.join("go"), "").unwrap();
    let ran = wall.bash("ls; cat secret; echo y > second");
    assert!(!ran.output.lines().any(|line| line == "secret") && ran.output.contains("go\n"), "{ran:?}");
    match running.word() {
        FromInit::Ended(ending) => assert_eq!(ending.exit_code, Some(0)),
        other => panic!("{other:?}"),
    }
    assert!(moved.join("after").exists() && moved.join("second").exists());
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    fs::remove_file(&path).unwrap();
    fs::rename(&moved, &path).unwrap();
}

#[test]
fn mounts_of_the_host_made_later_do_not_appear() {
    if !wall_support::root() {
        return;
    }
    let workspace = tempfile::tempdir().unwrap();
    let path = workspace.path().canonicalize().unwrap();
    fs::create_dir(path.join("at")).unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    assert_eq!(wall.bash("ls at").ok(), "");
    let mounted =
        std::process::Command::new("mount").args(["--bind", "/etc"]).arg(path.join("at")).status().unwrap();
    let ran = wall.bash("ls at");
    let _ = std::process::Command::new("umount").arg(path.join("at")).status();
    assert!(mounted.success());
    assert_eq!(ran.ok(), "", "the view was made before");
}

#[test]
fn nothing_of_ours_is_left_in_the_workspace_or_on_the_host() {
    let before = mounts();
    let workspace = tempfile::tempdir().unwrap();
    fs::create_dir_all(workspace.path().join(".git/hooks")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(workspace.path().join("s")).unwrap();
    let path = workspace.path().to_owned();
    {
        let mut wall = Wall::at(workspace, |_| {});
        assert_eq!(wall.bash("true").code(), 0);
        let mut call = wall.start(&job("sleep 100"));
        assert_eq!(call.word(), FromInit::Running);
        call.running.kill();
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".git", "s"]);
    }
    drop(listener);
    assert_eq!(mounts(), before);
    assert!(!Path::new("/dev/shm/.oxibot-cover").exists());
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}
