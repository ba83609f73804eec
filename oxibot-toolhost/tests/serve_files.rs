//! File tools, transfers and `sandbox run` through the real supervisor and files worker.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Host, Start, assert_completed, lawless as host, origin, text};
use oxibot_proto::message::{
    CHUNK_WINDOW, CallNumber, FileChunk, GetRequest, Outcome, PutRequest, RunRequest, StdinChunk, Stream,
    ToMain, ToToolhost,
};
use serde_json::json;

#[test]
fn file_tools_work_end_to_end() {
    let mut host = host();
    assert_completed(&host.call("write_file", &json!({"path": "a/b.txt", "content": "one\ntwo\n"})));
    assert_eq!(std::fs::read_to_string(host.work().join("a/b.txt")).unwrap(), "one\ntwo\n");
    let edit = json!({"path": "a/b.txt", "old_text": "two", "new_text": "three"});
    assert_completed(&host.call("edit_file", &edit));
    assert!(text(&host.call("read_file", &json!({"path": "a/b.txt"}))).contains("three"));
    assert!(text(&host.call("list_dir", &json!({"path": "."}))).contains("a"));
    assert!(text(&host.call("grep", &json!({"pattern": "thr.e"}))).contains("b.txt"));
    assert!(text(&host.call("find_files", &json!({"pattern": "*.txt"}))).contains("b.txt"));
    assert!(text(&host.bash("cat a/b.txt")).contains("three"));
}

#[test]
fn paths_that_leave_are_denied_and_missing_files_failed() {
    let mut host = host();
    std::os::unix::fs::symlink("/etc", host.work().join("link")).unwrap();
    for path in ["../../etc/passwd", "link/passwd", "/etc/passwd"] {
        let result = host.call("read_file", &json!({"path": path}));
        assert!(matches!(result.outcome, Outcome::Denied(_)), "{path}: {:?}", result.outcome);
    }
    let result = host.call("read_file", &json!({"path": "none"}));
    assert!(matches!(result.outcome, Outcome::Failed { .. }), "{:?}", result.outcome);
}

#[test]
fn files_worker_that_is_killed_fails_its_request_and_is_replaced() {
    let mut host = host();
    assert_completed(&host.call("write_file", &json!({"path": "a", "content": "x"})));
    for pid in files_workers(host.child.id()) {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    }
    // The one call that meets the corpse may fail; it must not hang, and the next one works.
    let _ = host.call("read_file", &json!({"path": "a"}));
    assert_completed(&host.call("read_file", &json!({"path": "a"})));
}

fn files_workers(supervisor: u32) -> Vec<u32> {
    let below = |parent: u32| -> Vec<u32> {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                let fields: Vec<String> = stat.rsplit_once(") ")?.1.split(' ').map(String::from).collect();
                (fields[1] == parent.to_string())
                    .then(|| entry.file_name().to_string_lossy().parse().unwrap())
            })
            .collect()
    };
    let mut all = vec![supervisor];
    let mut index = 0;
    while let Some(parent) = all.get(index).copied() {
        index += 1;
        all.extend(below(parent));
    }
    all.retain(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == b"files")
    });
    all
}

fn put(host: &mut Host, path: &str, data: &[u8]) -> oxibot_proto::message::TransferEnd {
    let call = host.number();
    let size = data.len() as u64;
    host.send(&ToToolhost::Put(PutRequest { call, workspace: None, path: path.into(), size }));
    let mut chunks = data.chunks(100_000).enumerate();
    let mut unanswered = 0;
    loop {
        while unanswered < CHUNK_WINDOW
            && let Some((index, chunk)) = chunks.next()
        {
            let offset = index as u64 * 100_000;
            host.send(&ToToolhost::PutChunk(FileChunk { call, offset, data: chunk.to_vec() }));
            unanswered += 1;
        }
        match host.next() {
            ToMain::PutProgress(number) => {
                assert_eq!(number, call);
                unanswered -= 1;
            }
            ToMain::TransferEnd(end) => return end,
            other => panic!("{other:?}"),
        }
    }
}

fn get(host: &mut Host, path: &str, max_size: u64) -> (Vec<u8>, oxibot_proto::message::TransferEnd) {
    let call = host.number();
    host.send(&ToToolhost::Get(GetRequest { call, workspace: None, path: path.into(), max_size }));
    let mut data = Vec::new();
    loop {
        match host.next() {
            ToMain::GetChunk(chunk) => {
                assert_eq!(chunk.offset, data.len() as u64);
                data.extend(chunk.data);
                host.send(&ToToolhost::Taken(call));
            }
            ToMain::TransferEnd(end) => return (data, end),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn files_cross_in_both_directions() {
    let mut host = host();
    let data: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let end = put(&mut host, "in/big", &data);
    assert_eq!((end.outcome, end.size), (Outcome::Completed, data.len() as u64));
    let (back, end) = get(&mut host, "in/big", u64::MAX);
    assert_eq!((end.outcome, back.len()), (Outcome::Completed, data.len()));
    assert!(back == data);
    assert_eq!(put(&mut host, "empty", b"").outcome, Outcome::Completed);
    assert_eq!(get(&mut host, "empty", 10).1.outcome, Outcome::Completed);
}

#[test]
fn transfers_that_leave_are_too_large_or_missing_end_with_a_reason() {
    let mut host = host();
    std::fs::write(host.work().join("ten"), "0123456789").unwrap();
    assert!(matches!(get(&mut host, "ten", 9).1.outcome, Outcome::Failed { .. }));
    assert!(matches!(get(&mut host, "none", 9).1.outcome, Outcome::Failed { .. }));
    assert!(matches!(get(&mut host, "/etc/passwd", 9_999).1.outcome, Outcome::Denied(_)));
    assert!(matches!(put(&mut host, "../out", b"x").outcome, Outcome::Denied(_)));
    let call = host.number();
    host.send(&ToToolhost::Put(PutRequest { call, workspace: None, path: "x".into(), size: 26 << 20 }));
    assert!(matches!(host.next(), ToMain::TransferEnd(end) if matches!(end.outcome, Outcome::Failed { .. })));
}

struct Ran {
    out: Vec<u8>,
    err: Vec<u8>,
    result: oxibot_proto::message::CallResult,
    stdin_taken: usize,
}

fn start_run(host: &mut Host, argv: &[&str], timeout_ms: Option<u64>) -> CallNumber {
    let call = host.number();
    let argv = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
    host.send(&ToToolhost::Run(RunRequest { call, argv, workspace: None, timeout_ms, origin: origin() }));
    call
}

fn collect(host: &mut Host, call: CallNumber) -> Ran {
    let (mut out, mut err, mut stdin_taken) = (Vec::new(), Vec::new(), 0);
    loop {
        match host.next() {
            ToMain::Output(chunk) => {
                match chunk.stream {
                    Stream::Stdout => out.extend(chunk.data),
                    Stream::Stderr => err.extend(chunk.data),
                }
                host.send(&ToToolhost::Taken(call));
            }
            ToMain::StdinTaken(_) => stdin_taken += 1,
            ToMain::Started(_) | ToMain::Progress(_) => {}
            ToMain::CallResult(result) => return Ran { out, err, result: *result, stdin_taken },
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn run_keeps_streams_apart_and_passes_input() {
    let mut host = host();
    let call = start_run(&mut host, &["sh", "-c", "cat; echo err >&2; exit 9"], None);
    host.send(&ToToolhost::Stdin(StdinChunk { call, data: b"in\xff\0put".to_vec() }));
    host.send(&ToToolhost::Stdin(StdinChunk { call, data: Vec::new() }));
    let ran = collect(&mut host, call);
    assert_eq!((ran.out.as_slice(), ran.err.as_slice()), (&b"in\xff\0put"[..], &b"err\n"[..]));
    assert_eq!((ran.result.exit_code, ran.result.outcome), (Some(9), Outcome::Completed));
    assert_eq!(ran.stdin_taken, 2);
}

#[test]
fn input_that_crosses_the_result_is_not_answered() {
    let mut host = host();
    let call = start_run(&mut host, &["true"], None);
    assert_eq!(collect(&mut host, call).result.exit_code, Some(0));
    host.send(&ToToolhost::Stdin(StdinChunk { call, data: b"late".to_vec() }));
    host.send(&ToToolhost::Status);
    assert!(matches!(host.next(), ToMain::Status(_)), "main takes an answer after the result for a fault");
}

#[test]
fn run_loses_no_byte_of_a_large_output() {
    let mut host = host();
    let call = start_run(&mut host, &["head", "-c", "20000000", "/dev/zero"], None);
    let ran = collect(&mut host, call);
    assert_eq!((ran.out.len(), ran.result.output.total_bytes), (20_000_000, 20_000_000));
}

#[test]
fn run_whose_output_is_not_taken_waits_and_is_bounded() {
    let mut host = host();
    let call = start_run(&mut host, &["head", "-c", "20000000", "/dev/zero"], Some(1500));
    let mut chunks = 0;
    loop {
        match host.next() {
            ToMain::Output(_) => chunks += 1,
            ToMain::Started(_) | ToMain::Progress(_) => {}
            ToMain::CallResult(result) => {
                assert_eq!((result.call, result.outcome), (call, Outcome::TimedOut));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(chunks, CHUNK_WINDOW);
}

#[test]
fn run_of_a_missing_program_is_failed() {
    let mut host = host();
    for argv in [&["/no/such/program"][..], &["no-such-program"], &[""], &[]] {
        let call = start_run(&mut host, argv, None);
        let ran = collect(&mut host, call);
        assert!(matches!(ran.result.outcome, Outcome::Failed { .. }), "{argv:?} {:?}", ran.result.outcome);
    }
    let long = "x".repeat(131_072);
    let call = start_run(&mut host, &["echo", &long], None);
    assert!(matches!(collect(&mut host, call).result.outcome, Outcome::Failed { .. }));
}

#[test]
fn deadline_of_a_run_holds_although_nobody_closes_its_input() {
    let mut host = host();
    let start = Instant::now();
    let call = start_run(&mut host, &["cat"], Some(500));
    assert_eq!(collect(&mut host, call).result.outcome, Outcome::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn dangerous_git_keys_are_put_back_and_reported() {
    let mut host = host();
    assert_completed(&host.bash("git init -q . && git config user.name me"));
    let result = host.bash("git config core.hooksPath /tmp/x; git config user.email a@b");
    assert_completed(&result);
    assert!(!result.notes.is_empty(), "{result:?}");
    let config = std::fs::read_to_string(host.work().join(".git/config")).unwrap();
    assert!(!config.contains("hooksPath") && config.contains("a@b"), "{config}");
}

#[test]
fn runs_are_guarded_as_calls_are() {
    let mut host = host();
    assert_completed(&host.bash("git init -q ."));
    let script =
        "git config core.fsmonitor evil; git config user.email a@b; echo ../evil > .git/commondir; echo done";
    let call = start_run(&mut host, &["sh", "-c", script], None);
    let ran = collect(&mut host, call);
    assert_completed(&ran.result);
    assert_eq!(ran.out, b"done\n");
    let notes = &ran.result.notes;
    assert!(notes.iter().any(|note| note.contains("put back core.fsmonitor")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("removed .git/commondir")), "{notes:?}");
    let config = std::fs::read_to_string(host.work().join(".git/config")).unwrap();
    assert!(!config.contains("fsmonitor") && config.contains("a@b"), "{config}");
    assert!(!host.work().join(".git/commondir").exists());
}

#[test]
fn worktrees_and_submodules_made_by_calls_go_on_working() {
    let mut host = host();
    let result = host.bash(
        "set -e; git init -q lib; cd lib; git config user.name me; git config user.email a@b
         git commit -q --allow-empty -m lib; cd ..; git init -q .; git config user.name me
         git config user.email a@b; git commit -q --allow-empty -m one",
    );
    assert_completed(&result);
    let result = host.bash(
        "set -e; git worktree add -q wt; git -c protocol.file.allow=always submodule --quiet add ./lib sub 2>&1",
    );
    assert_completed(&result);
    assert_eq!(
        result.notes,
        ["created_executable_config: core.worktree in .git/modules/sub/config"],
        "{result:?}"
    );
    let result =
        host.bash("git -C wt log --format=%s && git -C sub log --format=%s && git submodule status -q");
    assert_completed(&result);
    assert!(result.notes.is_empty() && text(&result).starts_with("one\nlib\n"), "{result:?}");
    let result = host.bash("git -C sub config core.fsmonitor evil; git worktree remove wt");
    assert_eq!(
        result.notes,
        ["put back core.fsmonitor in .git/modules/sub/config: git would run it on the host"]
    );
}

#[test]
fn files_tools_work_at_the_lower_levels() {
    for arguments in [&["--without-namespaces"][..], &["--no-sandbox", "--no-sandbox"]] {
        let start = arguments.iter().fold(Start::plain(), |start, argument| start.with(argument));
        let (mut host, _) = start.greeted();
        assert_completed(&host.call("write_file", &json!({"path": "a", "content": "x"})));
        assert_eq!(text(&host.bash("cat a")), "x");
    }
}

#[test]
fn repositories_below_the_top_are_guarded_and_git_works_in_them() {
    let mut host = host();
    let made = host.bash(
        "set -e; exec 2>&1
         git init -q lib; cd lib; git commit -q --allow-empty -m one; cd ..
         git init -q app; cd app; git -c protocol.file.allow=always submodule --quiet add ../lib lib
         git commit -qm two; git worktree add -q ../tree; cd ../tree; git log --format=%s; git -C ../app/lib log --format=%s",
    );
    assert_completed(&made);
    assert_eq!(text(&made).lines().filter(|line| *line == "two" || *line == "one").count(), 2, "{made:?}");
    for file in
        ["app/.git/hooks/pre-commit", "app/.git/modules/lib/hooks/post-checkout", "lib/.git/hooks/pre-push"]
    {
        let path = host.work().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
    }
    let attacked = host.bash(
        "for at in app/.git app/.git/modules/lib lib/.git; do
             git config -f $at/config core.fsmonitor evil; git config -f $at/config user.name me
             for hook in pre-commit post-checkout pre-push; do echo evil > $at/hooks/$hook; chmod +x $at/hooks/$hook; done
         done",
    );
    assert_completed(&attacked);
    let text = attacked.notes.join("\n");
    for line in [
        "put back core.fsmonitor in app/.git/config",
        "put back core.fsmonitor in app/.git/modules/lib/config",
        "put back app/.git/hooks/pre-commit",
        "removed lib/.git/hooks/pre-commit",
        "put back app/.git/modules/lib/hooks/post-checkout",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let found = std::process::Command::new("grep").args(["-rl", "evil"]).arg(host.work()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "nothing of it is left");
    assert_completed(&host.bash("git -C app config user.name && git -C app status && rm -rf app lib tree"));
}

#[test]
fn git_keys_are_put_back_when_main_goes_away_in_the_middle_of_a_call() {
    let mut host = host();
    let script = "git init -q . && touch .git/hooks/mine && echo ready";
    assert_completed(&host.bash(script));
    host.start("bash", &json!({"command": "git config core.fsmonitor evil; touch done; sleep 60"}));
    let until = Instant::now() + Duration::from_secs(20);
    while !host.work().join("done").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(20));
    }
    let config = host.work().join(".git/config");
    assert!(std::fs::read_to_string(&config).unwrap().contains("evil"), "the control");
    host.hang_up();
    assert!(!std::fs::read_to_string(&config).unwrap().contains("evil"));
}
