//! Level `full`: what a call sees, may write, is limited to and leaves behind. Each test runs as root and as a user.
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

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use oxibot_proto::message::Level;
use oxibot_toolhost::wire::FromInit;
use wall_support::{Wall, again_as_a_user, job, program, readable, root};

fn full(wall: &Wall) {
    assert_eq!(wall.zygote.obtained().level, Level::Full, "{:?}", wall.zygote.obtained());
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    again_as_a_user();
}

#[test]
fn payload_runs_at_level_full_and_its_files_are_the_owners() {
    let mut wall = Wall::new();
    full(&wall);
    let ran = wall.bash("echo hello; pwd; touch made; cat /proc/self/uid_map");
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(lines[0], "hello");
    assert_eq!(lines[1], wall.workspace.path().to_str().unwrap());
    assert_ne!(lines[2].split_whitespace().nth(1), Some("0"), "never the kernel's root: {ran:?}");
    let made = fs::metadata(wall.workspace.path().join("made")).unwrap();
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(made.mode() & 0o777, 0o644);
}

#[test]
fn view_holds_the_system_and_nothing_of_the_host() {
    let mut wall = Wall::new();
    let sibling = wall.workspace.path().parent().unwrap().join("oxibot-sibling");
    let _ = fs::write(&sibling, "secret");
    let ran = wall.bash(&format!(
        "ls /usr/bin >/dev/null && cat /etc/passwd >/dev/null && echo system
         on_the_way() {{ case $PWD/ in $1/*) true;; *) false;; esac; }}
         for path in /home /root /var /sys /boot /srv /mnt /media /etc/shadow /etc/ssh {} /proc/1; do
             [ -e \"$path\" ] && ! on_the_way \"$path\" && echo \"visible: $path\"
         done
         ls /run; ls -A /tmp | while read -r name; do on_the_way \"/tmp/$name\" || echo \"visible: $name\"; done
         # Of the directories on the way there is nothing but the way.
         way=$PWD; while way=${{way%/*}}; [ -n \"$way\" ]; do
             ls -A \"$way\" | while read -r name; do on_the_way \"$way/$name\" || echo \"visible: $way/$name\"; done
         done; true",
        sibling.display()
    ));
    let _ = fs::remove_file(&sibling);
    assert_eq!(ran.ok(), "system", "{ran:?}");
}

#[test]
fn system_is_read_only_and_tmp_is_private_to_a_call() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "echo 1 > /tmp/mine && cat /tmp/mine
         for path in /usr/x /etc/x /x /dev/x /run/x /proc/sys/kernel/hostname; do
             echo y 2>/dev/null > $path && echo \"wrote $path\"
         done; true",
    );
    assert_eq!(ran.output.lines().filter(|line| line.contains("wrote")).count(), 0, "{ran:?}");
    assert!(ran.output.starts_with("1\n"), "{ran:?}");
    assert_ne!(wall.bash("cat /tmp/mine").code(), 0);
}

#[test]
fn workspace_below_var_is_at_its_real_path_without_siblings() {
    let mut wall = Wall::below(Path::new("/var/tmp"), |_| {});
    full(&wall);
    let ran = wall.bash("pwd; ls -A /var /var/tmp | sort");
    let name = wall.workspace.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(ran.ok().starts_with(wall.workspace.path().to_str().unwrap()));
    let listed: Vec<&str> = ran.output.lines().skip(1).filter(|line| !line.is_empty()).collect();
    assert_eq!(listed, [name.as_str(), "/var/tmp:", "/var:", "tmp"], "{ran:?}");
}

#[test]
fn covered_directory_inside_the_workspace_is_empty_and_immovable() {
    let workspace = tempfile::tempdir().unwrap();
    let state = workspace.path().join("a/state");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("secret"), "secret").unwrap();
    let covered = state.canonicalize().unwrap().to_str().unwrap().into();
    let mut wall = Wall::at(workspace, |profile| profile.covered = vec![covered]);
    full(&wall);
    let ran = wall.bash("ls -A a/state; touch a/state/x 2>/dev/null && echo wrote; mv a b 2>/dev/null && echo moved; touch a/y && echo control");
    assert_eq!(ran.ok(), "control", "{ran:?}");
    assert!(state.join("secret").exists());
}

#[test]
fn workspace_inside_a_covered_directory_shows_only_itself() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.json"), "secret").unwrap();
    let workspace = tempfile::tempdir_in(home.path()).unwrap();
    let covered: Vec<u8> = home.path().canonicalize().unwrap().to_str().unwrap().into();
    for restrict in [true, false] {
        let inner = tempfile::tempdir_in(workspace.path()).unwrap();
        let mut wall = Wall::at(inner, |profile| {
            profile.covered = vec![covered.clone()];
            profile.restrict_to_workspace = restrict;
        });
        full(&wall);
        let ran = wall.bash(&format!("touch made && cat {}/config.json", home.path().display()));
        assert_ne!(ran.code(), 0, "{restrict}: {ran:?}");
        assert!(!ran.output.contains("secret"));
        assert!(wall.workspace.path().join("made").exists(), "{restrict}: {ran:?}");
    }
}

#[test]
fn guarded_names_are_read_only_and_cannot_be_moved_away() {
    let workspace = tempfile::tempdir().unwrap();
    fs::create_dir_all(workspace.path().join(".git/hooks")).unwrap();
    fs::write(workspace.path().join(".git/config"), "").unwrap();
    fs::write(workspace.path().join(".mcp.json"), "{}").unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    full(&wall);
    let ran = wall.bash(
        "exec 2>/dev/null
         echo x > .git/hooks/pre-commit && echo hook
         echo x > .mcp.json && echo mcp
         rm -f .mcp.json && echo removed
         mv .git moved && echo moved
         mv .git/hooks moved && echo moved
         rm -rf .git/hooks && echo removed
         echo '[user]' >> .git/config && echo config
         mkdir .vscode && echo absent is not guarded
         true",
    );
    assert_eq!(ran.ok(), "config\nabsent is not guarded", "{ran:?}");
}

#[test]
fn a_repository_without_hooks_cannot_be_moved_away_and_git_works_in_it() {
    let workspace = tempfile::tempdir().unwrap();
    fs::create_dir(workspace.path().join(".git")).unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    full(&wall);
    let ran = wall.bash(
        "mv .git moved 2>/dev/null && echo moved
         rmdir .git 2>/dev/null && echo removed
         set -e
         git init -q . && git config user.name me && git config user.email a@b
         git remote add origin https://example.invalid/x
         echo x > x && git add x && git commit -qm one && git branch other && git checkout -q other
         git gc -q && git log --format=%s && git config user.name",
    );
    assert_eq!(ran.ok(), "one\nme", "{ran:?}");
    let ran = wall
        .bash("mv .git moved 2>/dev/null && echo moved; git commit -q --amend -m two && git log --format=%s");
    assert_eq!(ran.ok(), "two", "{ran:?}");
}

#[test]
fn a_file_that_names_the_repository_is_read_only() {
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join(".git"), "gitdir: repo\n").unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    full(&wall);
    let ran = wall.bash(
        "exec 2>/dev/null
         echo gitdir: evil > .git && echo wrote
         mv .git moved && echo moved
         rm -f .git && echo removed
         ln -sfn evil .git && echo linked
         cat .git",
    );
    assert_eq!(ran.ok(), "gitdir: repo", "{ran:?}");
}

#[test]
fn more_paths_are_readable_and_writable_as_configured() {
    let read = tempfile::tempdir().unwrap();
    let write = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(read.path().join("file"), "content").unwrap();
    let bytes = |path: &Path| path.canonicalize().unwrap().to_str().unwrap().as_bytes().to_vec();
    let mut wall = Wall::with(|profile| {
        profile.read = vec![bytes(read.path())];
        profile.write = vec![bytes(write.path())];
    });
    full(&wall);
    let ran = wall.bash(&format!(
        "cat {r}/file; touch {r}/x 2>/dev/null && echo wrote; touch {w}/made && echo made",
        r = read.path().display(),
        w = write.path().display()
    ));
    assert_eq!(ran.ok(), "contentmade", "{ran:?}");
    let made = fs::metadata(write.path().join("made")).unwrap();
    assert_eq!(made.uid(), nix::unistd::geteuid().as_raw());
}

/// Landlock before ABI 3 has no rule for it: what cannot be written must not be emptied either.
#[test]
fn files_that_cannot_be_written_cannot_be_emptied() {
    let read = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let workspace = tempfile::tempdir().unwrap();
    let files =
        [read.path().join("file"), outside.path().join("file"), workspace.path().join(".git/hooks/pre-push")];
    fs::create_dir_all(workspace.path().join(".git/hooks")).unwrap();
    for file in &files {
        fs::write(file, "content").unwrap();
    }
    let owner = fs::metadata(workspace.path()).unwrap().uid();
    for readable in [read.path(), outside.path()] {
        std::os::unix::fs::chown(readable, Some(owner), None).unwrap();
    }
    let canonical = read.path().canonicalize().unwrap().to_str().unwrap().as_bytes().to_vec();
    let mut wall = Wall::at(workspace, |profile| profile.read = vec![canonical]);
    full(&wall);
    let names: Vec<String> = files.iter().map(|file| format!("{:?}", file.to_str().unwrap())).collect();
    let ran = wall.bash(&format!(
        "python3 - <<'END'
import os
for path in ({}, 'own'):
    open('own', 'w').write('x')
    for name, call in (('truncate', lambda: os.truncate(path, 0)), ('open', lambda: os.open(path, os.O_TRUNC)),
                       ('neither', lambda: os.open(path, os.O_TRUNC | 3)), ('create', lambda: open(path, 'w'))):
        try: call(); print(name, path)
        except OSError: pass
END",
        names.join(", ")
    ));
    assert_eq!(ran.ok(), "truncate own\nopen own\nneither own\ncreate own", "control: {ran:?}");
    for file in &files {
        assert_eq!(fs::read_to_string(file).unwrap(), "content", "{}", file.display());
    }
}

#[test]
fn missing_configured_path_is_an_error_and_not_an_invisible_gap() {
    let workspace = tempfile::tempdir().unwrap();
    let mut profile = wall_support::profile(&workspace.path().canonicalize().unwrap());
    profile.read = vec![b"/nonexistent/path".to_vec()];
    let mut nursery = oxibot_toolhost::wall::Nursery::start_with(&wall_support::binary()).unwrap();
    let fault = nursery.zygote(&profile).unwrap_err();
    assert!(fault.to_string().contains("/nonexistent/path"), "{fault}");
}

#[test]
fn unrestricted_shows_the_file_system_read_only_and_keeps_live_directories_private() {
    let secret = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(secret.path().join("file"), "visible").unwrap();
    let ours = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(ours.path().join("key"), "secret").unwrap();
    let covered = ours.path().to_str().unwrap().into();
    let mut wall = Wall::with(|profile| {
        profile.restrict_to_workspace = false;
        profile.covered = vec![covered];
    });
    full(&wall);
    let ran = wall.bash(&format!(
        "cat {r}/file; touch {r}/x 2>/dev/null && echo wrote; cat {o}/key 2>/dev/null; ls -A /run /sys; cat /etc/shadow 2>/dev/null; touch ok /tmp/ok && echo made",
        r = secret.path().display(),
        o = ours.path().display(),
    ));
    assert_eq!(ran.ok().replace('\n', " "), "visible/run:  /sys: made", "{ran:?}");
}

#[test]
fn directory_of_a_job_is_opened_beneath_the_workspace() {
    let workspace = tempfile::tempdir().unwrap();
    fs::create_dir(workspace.path().join("sub")).unwrap();
    symlink("/usr", workspace.path().join("out")).unwrap();
    symlink("sub", workspace.path().join("in")).unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    let mut at = |directory: &str| {
        let mut job = job("pwd -P");
        job.directory = directory.into();
        wall.run(&job)
    };
    assert!(at("sub").ok().ends_with("/sub"));
    assert!(at("in").ok().ends_with("/sub"));
    assert!(at("sub/../sub").ok().ends_with("/sub"));
    for outside in ["..", "/usr", "out", "out/bin", "sub/../../..", "/proc/self/root"] {
        match at(outside).first {
            FromInit::BadDirectory(denial) => assert_eq!(denial.rule, "path.outside"),
            other => panic!("{outside}: {other:?}"),
        }
    }
    match at("absent").first {
        FromInit::NotStarted { exec: true, fault } => {
            assert!(fault.to_string().contains("absent"), "{fault}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_program_is_told_apart_from_a_broken_wall() {
    let mut wall = Wall::new();
    for (argv, cause) in [("no-such-program", "ENOENT"), ("/etc/passwd", "EACCES")] {
        match wall.run(&program(&[argv])).first {
            FromInit::NotStarted { exec: true, fault } => assert!(fault.cause.contains(cause), "{fault}"),
            other => panic!("{argv}: {other:?}"),
        }
    }
}

#[test]
fn job_with_a_large_argument_passes() {
    let mut wall = Wall::new();
    let long = "x".repeat(100 * 1024);
    let ran = wall.run(&program(&["/bin/bash", "-c", "echo ${#1}", "bash", &long]));
    assert_eq!(ran.ok(), "102400");
}

#[test]
fn payload_holds_three_descriptors_and_the_given_environment() {
    let mut wall = Wall::new();
    let ran = wall.run(&program(&["/bin/ls", "/proc/self/fd"]));
    assert_eq!(ran.ok().lines().collect::<Vec<_>>(), ["0", "1", "2", "3"], "3 is ls's own");
    let mut environment: Vec<String> =
        wall.run(&program(&["/usr/bin/env"])).ok().lines().map(str::to_owned).collect();
    environment.sort();
    let mut given: Vec<String> =
        job("").environment.into_iter().map(|pair| String::from_utf8(pair).unwrap()).collect();
    given.sort();
    assert_eq!(environment, given);
}

#[test]
fn limits_hold() {
    let mut wall = Wall::new();
    let counted = wall_support::counted(&wall.zygote);
    let mut limited = |command: &str, change: fn(&mut oxibot_proto::settings::Limits)| {
        let mut job = job(command);
        change(&mut job.limits);
        wall.run(&job)
    };
    let files = limited("ulimit -n; exec 50</dev/null", |limits| limits.open_files = 20);
    assert!(files.output.starts_with("20\n") && files.code() != 0, "{files:?}");
    let size = limited("dd if=/dev/zero of=big bs=1M count=3 2>&1; stat -c %s big", |limits| {
        limits.file_size_mb = 1
    });
    assert!(size.output.contains("1048576"), "{size:?}");
    let cpu = limited("while :; do :; done", |limits| limits.cpu_seconds = 1);
    assert_eq!(cpu.ending.unwrap().signal, Some(24), "SIGXCPU: {cpu:?}");
    let bomb = limited(
        "for i in $(seq 100); do sleep 5 & done 2>/dev/null; jobs -p | wc -l; kill -9 -- -1 2>/dev/null",
        |limits| limits.processes = 20,
    );
    assert!(bomb.output.trim().parse::<u32>().unwrap_or(0) <= 20, "{bomb:?}");
    let memory = limited("python3 -c 'bytearray(600 << 20)'", |limits| limits.memory_mb = 512);
    if counted.0 {
        assert_eq!(memory.ending.unwrap().signal, Some(9), "{memory:?}");
    } else {
        assert!(memory.output.contains("MemoryError"), "{memory:?}");
    }
    let tmp = limited("dd if=/dev/zero of=/tmp/big bs=1M count=64 2>&1", |_| {});
    assert!(tmp.output.contains("No space left"), "{tmp:?}");
}

#[test]
fn what_a_call_leaves_behind_is_counted_and_ended() {
    let mut wall = Wall::new();
    let started = Instant::now();
    let ran = wall.bash("sleep 300 & setsid sleep 300 & (setsid sleep 300 &) ; sleep 0.2; echo done");
    assert_eq!(ran.ok(), "done");
    assert_eq!(ran.ending.unwrap().left_behind, 3, "{ran:?}");
    assert!(started.elapsed() < Duration::from_secs(60), "nothing waited for the sleepers");
}

#[test]
fn killed_call_ends_with_all_its_descendants() {
    let mut wall = Wall::new();
    let mut call = wall.start(&job("trap '' TERM INT HUP; setsid sleep 300 & sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    call.running.kill();
    assert!(readable(call.running.pidfd(), 10_000));
    // The pipe ends only when its last holder is gone.
    assert!(readable(&call.output, 10_000), "a descendant still holds the pipe");
}

#[test]
fn usage_counts_the_payload_and_its_children() {
    let mut wall = Wall::new();
    let ran = wall.bash("python3 -c 'x = bytearray(100 << 20); sum(range(3000000))'");
    let usage = ran.ending.unwrap().usage;
    assert!(usage.max_rss_kb > 100 * 1024 && usage.cpu_ms > 10, "{usage:?}");
}

#[test]
fn end_of_the_supervisor_ends_everything() {
    let mut wall = Wall::new();
    let mut call = wall.start(&job("echo started; setsid sleep 300 & sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    let zygote = wall.zygote.pidfd().try_clone_to_owned().unwrap();
    drop(wall.nursery);
    drop(wall.zygote);
    assert!(readable(&zygote, 10_000), "the zygote lives on");
    assert!(readable(call.running.pidfd(), 10_000), "the call lives on");
}

#[test]
fn workspace_of_another_user_runs_as_that_user() {
    if !root() {
        return;
    }
    let workspace = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(workspace.path(), Some(1234), Some(1235)).unwrap();
    let mut wall = Wall::at(workspace, |_| {});
    full(&wall);
    let ran = wall.bash("id -u; id -g; id -G; touch made; cat /proc/self/uid_map");
    let lines: Vec<&str> = ran.ok().lines().collect();
    assert_eq!(lines[..3], ["1234", "1235", "1235"], "{ran:?}");
    assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["1234", "1234", "1"]);
    let made = fs::metadata(wall.workspace.path().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1234, 1235));
}

#[test]
fn calls_share_nothing_but_the_workspace() {
    let mut wall = Wall::new();
    let look = "for kind in pid mnt net ipc user uts cgroup; do readlink /proc/self/ns/$kind; done";
    // Both at once: the kernel gives a namespace's number away again once it is gone.
    let running = wall.start(&job(&format!("{look}; while [ ! -e seen ]; do sleep 0.05; done")));
    let second = wall.bash(look);
    fs::write(wall.workspace.path().join("seen"), "").unwrap();
    let first = running.finish();
    let pairs = first.ok().lines().zip(second.ok().lines());
    let same: Vec<_> =
        pairs.filter(|(one, other)| one == other).map(|(one, _)| one.split(':').next().unwrap()).collect();
    assert_eq!(same, ["user", "uts", "cgroup"], "made once a zygote");
    for kind in ["pid", "mnt", "net", "ipc", "user", "uts", "cgroup"] {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(!first.output.contains(host.to_str().unwrap()), "{kind} is the host's");
    }
}

#[test]
fn programs_people_use_work_inside() {
    let mut wall = Wall::new();
    for command in [
        "nproc && free -m && ps aux | grep -q bash",
        "python3 -c 'import multiprocessing as m; assert m.Pool(2).map(abs, [-1]) == [1]'",
        "git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m x && git log",
        "python3 -c \"import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())\"",
        "echo 'int main(){return 0;}' > a.c && gcc a.c -o a && ./a",
        "mkfifo p && (echo x > p & cat p) && mktemp && exec 3<<<here && cat <&3",
        "date && whoami && getent passwd root",
    ] {
        let ran = wall.bash(command);
        assert_eq!(ran.code(), 0, "{command}: {ran:?}");
    }
}

#[test]
fn files_worker_serves_inside_the_view() {
    use oxibot_proto::codec::{Decoder, frame};
    use oxibot_toolhost::wall::ZygoteEvent;
    use oxibot_toolhost::wire::{FilesAnswer, FilesRequest, FilesResult, FilesWork, ToZygote, Wanted};
    use std::io::{Read, Write};
    for wanted in [Wanted::Strongest, Wanted::WithoutNamespaces, Wanted::Off] {
        let mut wall = Wall::with(|profile| profile.wanted = wanted);
        wall.zygote.ask(ToZygote::MakeFiles).unwrap();
        let ZygoteEvent::Files(worker) = wall.event() else { panic!("no files worker") };
        let mut socket = std::os::unix::net::UnixStream::from(worker.socket);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut ask = |number, work| {
            socket.write_all(&frame(&FilesRequest { number, work }).unwrap()).unwrap();
            let mut decoder = Decoder::<FilesAnswer>::new();
            loop {
                if let Some(answer) = decoder.next_message().unwrap() {
                    return answer.result;
                }
                let mut buffer = [0; 4096];
                let count = socket.read(&mut buffer).unwrap();
                assert!(count > 0, "the worker ended at {wanted:?}");
                decoder.push(&buffer[..count]);
            }
        };
        let wrote = ask(1, FilesWork::Write { path: "a/b.txt".into(), content: "hi\n".into() });
        assert!(matches!(wrote, FilesResult::Text { .. } | FilesResult::Done), "{wrote:?}");
        let outside =
            ask(2, FilesWork::Read { path: "/etc/passwd".into(), offset: 1, limit: None, numbers: false });
        assert!(matches!(outside, FilesResult::Denied(_)), "{outside:?}");
        let made = fs::metadata(wall.workspace.path().join("a/b.txt")).unwrap();
        assert_eq!(made.uid(), nix::unistd::geteuid().as_raw(), "{wanted:?}");
        drop(socket);
        assert!(readable(&worker.pidfd, 10_000), "it ends with its socket");
    }
}

/// Everything a call takes from the machine is given back. Memory and descriptors are read from the kernel, after a
/// first round that fills what is kept on purpose.
#[test]
fn a_thousand_calls_leave_nothing_behind() {
    let calls = if root() { 1_000 } else { 200 };
    let mut wall = Wall::new();
    let pid = pid_of(&wall);
    let round = |wall: &mut Wall, count| {
        for _ in 0..count {
            let ran = wall.run(&program(&["/bin/true"]));
            assert_eq!(ran.code(), 0, "{ran:?}");
        }
        // Namespaces are torn down a little after their last process.
        std::thread::sleep(Duration::from_millis(500));
        (resident_kb(pid), descriptors(pid))
    };
    let before = round(&mut wall, 100);
    let started = Instant::now();
    let after = round(&mut wall, calls);
    eprintln!("{calls} calls in {:?}; zygote {before:?} -> {after:?}", started.elapsed());
    assert_eq!(before.1, after.1, "descriptors of the zygote");
    assert!(after.0 <= before.0 + 512, "memory of the zygote grew from {} to {} KiB", before.0, after.0);
    assert!(after.0 < 16 * 1024, "a zygote is small: {} KiB", after.0);
}

fn pid_of(wall: &Wall) -> u32 {
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", wall.zygote.pidfd().as_raw_fd())).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap();
    line.trim().parse().unwrap()
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `None` for an ordinary user: the zygote is not dumpable, so its descriptors are root's to see.
fn descriptors(pid: u32) -> Option<usize> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count)
}

/// The supervisor of root keeps nothing but CAP_KILL; calls run as another user of the kernel.
#[test]
fn supervisor_with_only_cap_kill_can_still_end_a_call() {
    let mut wall = Wall::new();
    let mut call = wall.start(&job("sleep 300"));
    assert_eq!(call.word(), FromInit::Running);
    if root() {
        // Capabilities belong to this thread alone.
        let kill = caps::CapsHashSet::from_iter([caps::Capability::CAP_KILL]);
        caps::set(None, caps::CapSet::Effective, &kill).unwrap();
        caps::set(None, caps::CapSet::Permitted, &kill).unwrap();
    }
    call.running.kill();
    assert!(readable(call.running.pidfd(), 10_000));
}

#[test]
fn host_has_a_neutral_name_that_can_be_looked_up() {
    let mut wall = Wall::new();
    let ran = wall.bash(
        "uname -n; hostname; cat /proc/sys/kernel/domainname; cat /etc/hostname 2>/dev/null
         python3 -c 'import socket; print(socket.gethostbyname(socket.gethostname()))'
         hostname other 2>/dev/null && echo renamed; true",
    );
    let lines: Vec<&str> = ran.ok().lines().filter(|line| *line != "(none)" && !line.is_empty()).collect();
    assert_eq!(lines, ["localhost", "localhost", "127.0.0.1"], "{ran:?}");
    let ours = nix::unistd::gethostname().unwrap();
    assert_ne!(ours.to_str().unwrap(), "localhost", "the host keeps its own");
}

#[test]
fn file_mode_creation_mask_is_the_jobs() {
    let mut wall = Wall::new();
    let mut masked = job("umask; touch made; stat -c %a made; rm made");
    assert_eq!(wall.run(&masked).ok(), "0022\n644");
    masked.umask = 0o007;
    assert_eq!(wall.run(&masked).ok(), "0007\n660");
}

/// The signals of init's own PID namespace do not reach it, and nothing a call does to it changes what init does.
#[test]
fn init_of_a_call_takes_no_harm_from_it() {
    let mut wall = Wall::new();
    let ran = wall.run(&program(&[
        "/usr/bin/python3",
        "-c",
        r#"
import ctypes, os, resource, signal, errno
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, act):
    try:
        act(); print("did", name)
    except OSError as error:
        print("refused", name, errno.errorcode[error.errno])
    except Exception as error:
        print("refused", name, type(error).__name__)
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV):
    tried("signal", lambda: os.kill(1, number))
tried("priority", lambda: os.setpriority(os.PRIO_PROCESS, 1, 19))
tried("affinity", lambda: os.sched_setaffinity(1, {0}))
tried("scheduler", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
tried("files", lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0)))
tried("cpu", lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)))
tried("data", lambda: resource.prlimit(1, resource.RLIMIT_DATA, (0, 0)))
for name in ("mem", "oom_score_adj", "comm", "timerslack_ns", "clear_refs", "coredump_filter", "attr/current", "loginuid"):
    tried("write " + name, lambda: open("/proc/1/" + name, "r+b").write(b"0"))
for name in ("mem", "environ", "maps", "auxv", "fd", "root", "cwd", "exe", "syscall", "stack", "ns/net"):
    tried("look at " + name, lambda: (os.listdir if name in ("fd", "root", "cwd") else os.readlink if "ns/" in name or name == "exe" else lambda p: open(p, "rb").read())("/proc/1/" + name))
tried("trace", lambda: libc.ptrace(16, 1, 0, 0) == 0 or (_ for _ in ()).throw(OSError(ctypes.get_errno(), "")))
"#,
    ]));
    assert_eq!(ran.code(), 0, "{ran:?}");
    for line in ran.ok().lines() {
        // A signal to init of one's own namespace is swallowed by the kernel; that it is sent is no harm.
        assert!(line.starts_with("refused") || line == "did signal", "{line}: {}", ran.output);
    }
    assert!(ran.ending.is_some(), "init lives and reports");
}

#[test]
fn directory_that_cannot_be_covered_because_it_is_absent_is_an_error() {
    let workspace = tempfile::tempdir().unwrap();
    let mut profile = wall_support::profile(&workspace.path().canonicalize().unwrap());
    profile.covered = vec![[profile.workspace.as_slice(), b"/state"].concat()];
    let mut nursery = oxibot_toolhost::wall::Nursery::start_with(&wall_support::binary()).unwrap();
    let fault = nursery.zygote(&profile).unwrap_err();
    assert!(fault.to_string().contains("/state"), "{fault}");
    fs::create_dir(workspace.path().join("state")).unwrap();
    assert!(nursery.zygote(&profile).is_ok());
}

#[test]
fn covers_and_grants_hide_and_show_each_other_outermost_first() {
    let outer = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let top = outer.path().canonicalize().unwrap();
    let bytes = |name: &str| -> Vec<u8> { top.join(name).to_str().unwrap().into() };
    for name in ["home/desk/.state", "home/skills", "home/audit", "beside"] {
        fs::create_dir_all(top.join(name)).unwrap();
        fs::write(top.join(name).join("file"), name).unwrap();
    }
    for restrict in [true, false] {
        for write in [true, false] {
            let inner = tempfile::tempdir().unwrap();
            let mut wall = Wall::at(inner, |profile| {
                profile.workspace = bytes("home/desk");
                profile.restrict_to_workspace = restrict;
                profile.covered = vec![bytes("home/desk/.state"), bytes("home")];
                let around = vec![bytes("")];
                (profile.read, profile.write) = if write { (vec![], around) } else { (around, vec![]) };
                profile.read.push(bytes("home/skills"));
            });
            full(&wall);
            let ran = wall.bash(&format!(
                "cd {}; find . -type f | sort | tr '\\n' ' '; touch home/x home/skills/x home/desk/.state/x 2>/dev/null; touch home/desk/made",
                top.display()
            ));
            assert_eq!(ran.ok(), "./beside/file ./home/skills/file", "{restrict} {write}: {ran:?}");
            assert!(fs::remove_file(top.join("home/desk/made")).is_ok());
        }
    }
}
