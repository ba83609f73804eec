//! Calls through the real supervisor, zygote and wall: results, deadlines, output, growth.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod common;

use std::time::{Duration, Instant};

use common::{Start, assert_completed, host, processes_with, text};
use oxibot_proto::message::{Level, Outcome, StopScope, ToMain, ToToolhost};
use serde_json::json;

#[test]
fn echo_is_completed_with_its_output() {
    let mut host = host();
    let result = host.bash("echo hello; echo oops >&2; echo there");
    assert_completed(&result);
    assert_eq!(text(&result), "hello\noops\nthere\n");
    assert_eq!((result.exit_code, result.signal), (Some(0), None));
    assert_eq!(result.output.total_bytes, 17);
    assert_eq!(result.tool, "bash");
    assert!(result.usage.is_some());
    assert!(host.finish().success());
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let mut host = host();
    assert_eq!(host.bash("exit 3").exit_code, Some(3));
    let killed = host.bash("kill -SEGV $$");
    assert_eq!(killed.outcome, Outcome::Killed { limit: None });
    assert_eq!((killed.exit_code, killed.signal), (None, Some(11)));
    assert_eq!(host.bash("exit 137").exit_code, Some(137));
}

#[test]
fn environment_and_directory_are_the_documented_ones() {
    let mut host = host();
    let work = host.work().canonicalize().unwrap();
    let result =
        host.bash("pwd; env -0 | tr '\\0' '\\n' | cut -d= -f1 | sort | tr '\\n' ' '; tty; cat; umask");
    let out = text(&result);
    assert!(out.starts_with(work.to_str().unwrap()), "{out}");
    // PWD, OLDPWD, SHLVL and _ are bash's own.
    for name in
        ["GIT_AUTHOR_NAME", "HOME", "LANG", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER", "XDG_CACHE_HOME"]
    {
        assert!(out.contains(name), "{name}: {out}");
    }
    assert!(!out.contains("OXIBOT"), "{out}");
    assert!(out.contains("not a tty"), "{out}");
}

#[test]
fn cwd_below_the_workspace_is_used_and_outside_is_denied() {
    let mut host = host();
    std::fs::create_dir(host.work().join("sub")).unwrap();
    let inside = host.call("bash", &json!({"command": "pwd", "cwd": "sub"}));
    assert!(text(&inside).trim_end().ends_with("work/sub"), "{inside:?}");
    let outside = host.call("bash", &json!({"command": "pwd", "cwd": "../.."}));
    assert!(matches!(outside.outcome, Outcome::Denied(_)), "{outside:?}");
}

#[test]
fn reopened_standard_error_works() {
    let result = host().bash("echo one > /dev/stderr; echo two > /dev/stdout");
    assert_eq!(text(&result), "one\ntwo\n");
}

#[test]
fn deadline_ends_children_that_left_the_session() {
    let mut host = host();
    let marker = "sleep 7331.25";
    let start = Instant::now();
    let result = host.call(
        "bash",
        &json!({"command": format!("setsid {marker} & (setsid {marker} &) ; {marker}"), "timeout_s": 1}),
    );
    let took = start.elapsed();
    assert_eq!(result.outcome, Outcome::TimedOut, "{result:?}");
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_millis(1700), "{took:?}");
    assert_eq!(processes_with(marker), 0);
}

#[test]
fn background_children_do_not_delay_the_reply() {
    let mut host = host();
    let marker = "sleep 7332.25";
    let start = Instant::now();
    let result = host.bash(&format!("{marker} & setsid {marker} & echo done"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_completed(&result);
    assert_eq!(text(&result), "done\n");
    assert!(result.notes.iter().any(|note| note.contains("background process")), "{:?}", result.notes);
    assert_eq!(processes_with(marker), 0);
}

#[test]
fn request_shortens_the_deadline() {
    let mut host = host();
    let mut request = host.request("bash", &json!({"command": "sleep 20", "timeout_s": 20}));
    request.timeout_ms = Some(300);
    host.send(&ToToolhost::Call(request));
    assert_eq!(host.result().outcome, Outcome::TimedOut);
}

#[test]
fn cancelled_call_ends_at_once() {
    let mut host = host();
    let start = Instant::now();
    let number = host.start("bash", &json!({"command": "sleep 30"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    host.send(&ToToolhost::Cancel(number));
    assert_eq!(host.result().outcome, Outcome::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_completed(&host.bash("true"));
}

#[test]
fn output_beyond_the_cut_is_kept_in_a_file() {
    let mut host = host();
    let result = host.bash("seq 1 100000");
    assert_completed(&result);
    assert_eq!(result.output.total_bytes, 588_895);
    assert!(result.output.head.starts_with(b"1\n2\n") && result.output.tail.ends_with(b"100000\n"));
    let file = result.output.file.unwrap();
    let kept = std::fs::read_to_string(host.work().join(&file)).unwrap();
    assert_eq!(kept.len(), 588_895, "{file}");
    assert!(kept.ends_with("99999\n100000\n"));
}

#[test]
fn flood_costs_no_memory_and_is_cut_at_the_deadline() {
    let mut host = host();
    assert_completed(&host.bash("true"));
    let before = resident_kb(host.child.id());
    let result = host.call("bash", &json!({"command": "yes 0123456789abcdef", "timeout_s": 3}));
    assert_eq!(result.outcome, Outcome::TimedOut);
    assert!(result.output.total_bytes > 50_000_000, "{}", result.output.total_bytes);
    assert!(result.output.head.len() + result.output.tail.len() <= 16 * 1024);
    let grown = resident_kb(host.child.id()).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
}

#[test]
fn two_gigabytes_cost_no_memory_and_arrive_counted() {
    let mut host = host();
    assert_completed(&host.bash("true"));
    let before = resident_kb(host.child.id());
    let result = host.call("bash", &json!({"command": "head -c 2147483648 /dev/zero", "timeout_s": 60}));
    assert_completed(&result);
    assert_eq!(result.output.total_bytes, 2 << 30);
    let grown = resident_kb(host.child.id()).saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
    let file = host.work().join(result.output.file.unwrap());
    assert_eq!(file.metadata().unwrap().len(), 16 << 20);
}

fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_calls_at_once_all_get_their_own_answer() {
    let mut host = host();
    let mut expected = std::collections::BTreeMap::new();
    for index in 0..64 {
        let number = host.start("bash", &json!({"command": format!("sleep 0.1; echo call-{index}")}));
        expected.insert(number, format!("call-{index}\n"));
    }
    while !expected.is_empty() {
        let result = host.result();
        assert_completed(&result);
        assert_eq!(Some(text(&result)), expected.remove(&result.call));
    }
}

#[test]
fn many_calls_in_a_row_leave_nothing_behind() {
    let mut host = host();
    for _ in 0..5 {
        assert_completed(&host.bash("true"));
    }
    std::thread::sleep(Duration::from_millis(200));
    let before = footprint(host.child.id());
    for index in 0..200 {
        let result = host.bash(&format!("echo {index}"));
        assert_eq!(text(&result), format!("{index}\n"));
    }
    std::thread::sleep(Duration::from_millis(200));
    let after = footprint(host.child.id());
    assert_eq!(before, after, "(descriptors, descendants, zombies)");
}

/// Descriptors of the supervisor, and processes and zombies below it.
fn footprint(pid: u32) -> (usize, usize, usize) {
    // An ordinary user may not look into a process that made itself undumpable; as root the count must be there.
    let descriptors = match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(entries) => entries.count(),
        Err(error) => {
            assert!(!nix::unistd::geteuid().is_root(), "{error}");
            0
        }
    };
    let mut below = vec![pid];
    let mut zombies = 0;
    let mut index = 0;
    while let Some(parent) = below.get(index).copied() {
        index += 1;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let fields: Vec<&str> = rest.split(' ').collect();
            if fields[1] == parent.to_string() {
                zombies += usize::from(fields[0] == "Z");
                below.push(entry.file_name().to_string_lossy().parse().unwrap());
            }
        }
    }
    (descriptors, below.len(), zombies)
}

#[test]
fn supervisor_takes_its_calls_along() {
    let mut host = host();
    let marker = "sleep 7333.25";
    host.start("bash", &json!({"command": format!("setsid {marker} & {marker}")}));
    let start = Instant::now();
    while processes_with(marker) == 0 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.finish().success());
    let start = Instant::now();
    while processes_with(marker) > 0 {
        assert!(start.elapsed() < Duration::from_secs(2), "left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn emergency_stop_ends_and_refuses_until_it_is_cleared() {
    let mut host = host();
    host.start("bash", &json!({"command": "sleep 30"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    host.send(&ToToolhost::Stop(StopScope::All));
    let mut stopped = None;
    let mut result = None;
    while stopped.is_none() || result.is_none() {
        match host.next() {
            ToMain::Stopped(answer) => stopped = Some(answer),
            ToMain::CallResult(answer) => result = Some(answer),
            ToMain::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stopped.map(|s| (s.ended, s.refusing)), Some((1, true)));
    assert_eq!(result.unwrap().outcome, Outcome::Cancelled);
    assert!(host.home().join("run/stop").exists());
    match host.bash("true").outcome {
        Outcome::Denied(denial) => assert_eq!(denial.rule, "stop.active"),
        other => panic!("{other:?}"),
    }
    host.send(&ToToolhost::Stop(StopScope::Clear));
    assert!(matches!(host.next(), ToMain::Stopped(answer) if !answer.refusing));
    assert_completed(&host.bash("true"));
    std::fs::write(host.home().join("run/stop"), "").unwrap();
    assert!(matches!(host.bash("true").outcome, Outcome::Denied(_)), "a file made by another process counts");
}

#[test]
fn unlisted_workspace_is_denied() {
    let mut host = host();
    let mut request = host.request("bash", &json!({"command": "true"}));
    request.workspace = Some("/etc".into());
    host.send(&ToToolhost::Call(request));
    match host.result().outcome {
        Outcome::Denied(denial) => assert_eq!(denial.rule, "workspace.unlisted"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_tools_and_bad_arguments_are_failed() {
    let mut host = host();
    for (tool, arguments) in [
        ("teleport", json!({})),
        ("bash", json!({})),
        ("bash", json!({"command": 7})),
        ("bash", json!({"command": "x".repeat(200_000)})),
        ("bash", json!({"command": "a\u{0}b"})),
        ("bash", json!([])),
    ] {
        let result = host.call(tool, &arguments);
        assert!(matches!(result.outcome, Outcome::Failed { .. }), "{tool} {:?}", result.outcome);
    }
    assert_completed(&host.bash("true"));
}

#[test]
fn catastrophic_command_is_denied_and_judged_alike() {
    let mut host = host();
    let result = host.bash("rm -rf /");
    assert!(matches!(&result.outcome, Outcome::Denied(denial) if denial.rule == "files.remove-root"));
    let request = host.request("bash", &json!({"command": "echo a; rm -rf /"}));
    host.send(&ToToolhost::Judge(request));
    match host.next() {
        ToMain::Judgement(judgement) => {
            assert_eq!(judgement.verdict, oxibot_proto::message::Verdict::Block);
            assert_eq!(judgement.commands, ["echo a", "rm -rf /"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_are_recorded_without_output() {
    let mut host = host();
    host.bash("echo secret-$((6*7))");
    host.bash("rm -rf /");
    let audit = host.audit();
    let events: Vec<&str> = audit.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let calls = ["tool_call: bash", "tool_result", "tool_call: bash", "tool_result"];
    assert_eq!(events, [&["open", "self_attack", "start"][..], &calls].concat());
    assert_eq!(audit[3]["detail"], "echo secret-$((6*7))");
    assert_eq!(audit[4]["outcome"], "completed");
    assert_eq!(audit[5]["rule"], "files.remove-root");
    assert!(audit.iter().all(|line| !line.to_string().contains("secret-42")));
}

#[test]
fn status_names_what_runs() {
    let mut host = host();
    host.start("bash", &json!({"command": "sleep 30"}));
    assert!(matches!(host.next(), ToMain::Started(_)));
    host.send(&ToToolhost::Status);
    loop {
        match host.next() {
            ToMain::Status(status) => {
                assert_eq!(status.running.len(), 1);
                assert_eq!((status.running[0].tool.as_str(), status.zygotes), ("bash", 1));
                break;
            }
            ToMain::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn level_below_the_required_one_refuses_to_start_and_says_what_to_do() {
    let (status, said) =
        Start::config(r#"{"sandbox":{"require":"full"}}"#).with("--without-namespaces").refused();
    assert_eq!(status.code(), Some(78), "{said}");
    for part in ["sandbox.require", "missing:", "to get it:", "to accept less:"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn wrong_configuration_refuses_to_start_with_its_position() {
    let (status, said) = Start::config("{\n\"limits\": {\"tmpMB\": 1}}").refused();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("line 2 column") && said.contains("did you mean `tmpMb`?"), "{said}");
}

#[test]
fn without_a_sandbox_the_rest_still_works() {
    let (mut host, hello) = Start::plain().with("--no-sandbox").with("--no-sandbox").greeted();
    assert_eq!(hello.wall.level, Level::Off);
    let marker = "sleep 7334.25";
    let result =
        host.call("bash", &json!({"command": format!("setsid {marker} & sleep 20"), "timeout_s": 1}));
    assert_eq!((result.outcome, result.level), (Outcome::TimedOut, Level::Off));
    assert_eq!(processes_with(marker), 0);
}

#[test]
fn without_namespaces_calls_end_whole_too() {
    let (mut host, hello) = Start::plain().with("--without-namespaces").greeted();
    assert!(hello.wall.level < Level::Full);
    let marker = "sleep 7335.25";
    let result = host.bash(&format!("setsid {marker} & echo $TMPDIR; sleep 0.2"));
    assert_completed(&result);
    assert_eq!(processes_with(marker), 0);
}

/// Tries to reach a Unix socket below the workspace in the ways its kind has.
fn reach(name: &str) -> String {
    format!(
        "python3 -c \"
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_UNIX, kind)
    try: s.connect('{name}'); print('REACHED')
    except OSError as error: print(error.strerror)\""
    )
}

#[test]
fn sockets_that_the_host_makes_between_calls_are_covered_in_the_next() {
    let mut host = host();
    assert!(text(&host.bash("echo first")).contains("first"), "the search of this call finds nothing");
    std::fs::create_dir_all(host.work().join("deep/er")).unwrap();
    // Bound under another name than it has later.
    let one = std::os::unix::net::UnixListener::bind(host.work().join("before")).unwrap();
    std::fs::rename(host.work().join("before"), host.work().join("deep/er/after")).unwrap();
    let two = std::os::unix::net::UnixDatagram::bind(host.work().join("two")).unwrap();
    for _ in 0..3 {
        for name in ["deep/er/after", "two"] {
            let result = host.bash(&reach(name));
            assert!(!text(&result).contains("REACHED") && text(&result).contains("refused"), "{result:?}");
        }
    }
    drop((one, two));
    assert_completed(&host.bash("rm -r deep two && ls"));
}

#[test]
fn socket_of_a_call_is_not_reached_from_one_that_starts_later() {
    let mut host = host();
    let server = "python3 -c \"
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind('own'); s.listen(); open('up', 'w'); time.sleep(20)\"";
    let first = host.start("bash", &json!({"command": server}));
    let until = Instant::now() + Duration::from_secs(20);
    while !host.work().join("up").exists() {
        assert!(Instant::now() < until, "no server");
        std::thread::sleep(Duration::from_millis(20));
    }
    let result = host.bash(&reach("own"));
    assert!(!text(&result).contains("REACHED") && text(&result).contains("refused"), "{result:?}");
    host.send(&ToToolhost::Cancel(first));
}

#[test]
fn home_inside_the_workspace_is_covered_also_when_it_is_new() {
    for home in ["work/.oxibot", "work/deep/er/home"] {
        let (mut host, hello) = Start { home, ..Start::plain() }.greeted();
        assert_eq!(hello.wall.level, Level::Full);
        let path = host.directory.path().join(home);
        assert!(path.join("audit").exists() && path.join("run").exists(), "the control: it is there");
        let result =
            host.bash("find . | grep -e audit -e run; echo looked; mv deep other && echo moved; true");
        assert_completed(&result);
        assert!(text(&result).starts_with("looked\n") && !text(&result).contains("moved"), "{result:?}");
    }
}

#[test]
fn what_is_ours_is_covered_in_every_granted_path() {
    // The workspace of this test lies below the granted directory, and the home beside it.
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().canonicalize().unwrap();
    std::fs::write(path.join("seen"), "seen\n").unwrap();
    for key in ["read", "write"] {
        let mut start = Start::config(&format!(r#"{{"sandbox": {{"{key}": ["{}"]}}}}"#, path.display()));
        start.within = Some(path.clone());
        let (mut host, _) = start.greeted();
        let home = host.home().canonicalize().unwrap();
        assert!(home.join("audit").exists() && home.starts_with(&path), "the control: it is there");
        let result = host.bash(&format!(
            "cat {p}/seen; find {p} | grep -e audit -e config.json -e run; touch mine && echo made; ls -A {h} 2>/dev/null; touch {h}/x 2>/dev/null && echo TOUCHED",
            p = path.display(),
            h = home.display()
        ));
        assert_eq!(text(&result), "seen\nmade\n", "{key}: {result:?}");
        assert!(host.work().join("mine").exists());
    }
    for ours in ["home", "home/audit"] {
        let mut start = Start::plain();
        start.within = Some(path.clone());
        start.grant = Some(ours);
        let (status, said) = start.refused();
        assert!(!status.success() && said.contains("sandbox.read"), "{said}");
    }
}
