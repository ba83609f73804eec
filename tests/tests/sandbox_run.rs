//! `oxibot sandbox run`: streams unchanged and separate, exit codes as documented, the wall and nothing else.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oxibot_tests::fixture::{Fixture, describe};

#[test]
fn exit_code_of_the_command_is_ours() {
    let fixture = Fixture::new();
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let output = fixture.sandboxed(&["bash", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}: {}", describe(&output));
        assert!(output.stdout.is_empty(), "prints nothing of its own");
    }
}

#[test]
fn command_that_does_not_exist_is_125_with_a_reason() {
    let fixture = Fixture::new();
    let output = fixture.sandboxed(&["no-such-command-here"]);
    assert_eq!(output.status.code(), Some(125), "{}", describe(&output));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no-such-command-here"),
        "{}",
        describe(&output)
    );
}

#[test]
fn deadline_is_124() {
    let fixture = Fixture::new();
    let output = fixture
        .oxibot()
        .args(["sandbox", "run", "--timeout", "1", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "sleep", "96.51"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(124), "{}", describe(&output));
    assert!(oxibot_tests::processes::anywhere("sleep 96.51").is_empty());
}

/// The deadline is that of the reply, not of the moment when somebody reads.
#[test]
fn deadline_holds_although_nobody_reads() {
    for script in ["exec yes", "exec yes >&2", "yes & exec yes >&2"] {
        let fixture = Fixture::new();
        let mut child = fixture
            .oxibot()
            .args(["sandbox", "run", "--timeout", "1", "--workspace"])
            .arg(fixture.workspace())
            .args(["--", "bash", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(40);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() >= until => {
                    child.kill().unwrap();
                    panic!("{script}: it waits for its reader");
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        assert_eq!(status.code(), Some(124), "{script}");
    }
}

/// A reader who is slower than the deadline gets everything of a program that ended by itself.
#[test]
fn slow_reader_gets_all_of_a_program_that_ended() {
    let fixture = Fixture::new();
    let mut child = fixture
        .oxibot()
        .args(["sandbox", "run", "--timeout", "3", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "seq", "20000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(7));
    let mut read = String::new();
    child.stdout.take().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read.lines().count(), 20_000);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `trap '' CHLD` in a shell, `nohup`-like wrappers and some service managers leave that behind.
#[test]
fn parent_that_ignores_its_ended_children_is_no_hindrance() {
    let fixture = Fixture::new();
    let inner = fixture.oxibot();
    let output = Command::new("bash")
        .env_clear()
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .args(["-c", "trap '' CHLD PIPE USR1; \"$@\"", "bash"])
        .arg(inner.get_program())
        .args(["sandbox", "run", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "bash", "-c", "(exit 4); echo $?; trap -p"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"4\n", "{}", describe(&output));
    assert!(output.stderr.is_empty(), "{}", describe(&output));
}

#[test]
fn streams_are_separate_and_unchanged() {
    let fixture = Fixture::new();
    let output = fixture.sandboxed(&["bash", "-c", r"printf 'a\xff\x00\033[31m'; printf err >&2"]);
    assert_eq!(output.stdout, b"a\xff\x00\x1b[31m", "{}", describe(&output));
    assert_eq!(output.stderr, b"err");
}

#[test]
fn input_passes_through_however_large() {
    let fixture = Fixture::new();
    let mut child = fixture
        .oxibot()
        .args(["sandbox", "run", "--workspace"])
        .arg(fixture.workspace())
        .args(["--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..64 {
            stdin.write_all(&[b'x'; 512 * 1024]).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    // sha256 of 32 MiB of "x".
    let expected = {
        let plain = std::process::Command::new("bash")
            .args(["-c", "head -c 33554432 /dev/zero | tr '\\0' x | sha256sum"])
            .output()
            .unwrap();
        plain.stdout
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&expected));
}

#[test]
fn output_passes_through_however_large() {
    let fixture = Fixture::new();
    let output = fixture.sandboxed(&["head", "-c", "50000000", "/dev/zero"]);
    assert_eq!(output.stdout.len(), 50_000_000, "{:?}", output.status);
}

#[test]
fn no_shell_filter_and_no_cut_apply() {
    let fixture = Fixture::new();
    let output = fixture.sandboxed(&["bash", "-c", "echo 'rm -rf /'; seq 1 50000 | tail -1"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rm -rf /\n50000\n");
}

#[test]
fn longest_argument_the_kernel_takes_works_and_one_more_is_refused_clearly() {
    let fixture = Fixture::new();
    let output = fixture.sandboxed(&["bash", "-c", "echo ${#1}", "x", &"a".repeat(131_000)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "131000\n", "{}", describe(&output));
    // 131,072 bytes cannot even be passed to us by the kernel; through the tool it is a failed call.
    let (result, status) = fixture
        .tool("bash", &serde_json::json!({"command": format!("/bin/echo {} | wc -c", "a".repeat(90_000))}));
    assert_eq!((result["output"].as_str(), status), (Some("90001\n"), Some(0)), "{result}");
}

#[test]
fn workspace_that_cannot_be_fenced_is_refused() {
    let fixture = Fixture::new();
    for workspace in ["/", "/root", "/etc", "/usr/lib"] {
        let output = fixture
            .oxibot()
            .args(["sandbox", "run", "--workspace", workspace, "--", "true"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125), "{workspace}: {}", describe(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(workspace), "{}", describe(&output));
    }
    let output = fixture
        .oxibot()
        .args(["sandbox", "run", "--", "ls", "-a", "home"])
        .current_dir(fixture.root())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "it holds the OxiBot home: {}", describe(&output));
}

#[test]
fn two_calls_see_the_same_files_and_nothing_else_of_each_other() {
    let fixture = Fixture::new();
    let first =
        fixture.sandboxed(&["bash", "-c", "echo shared > file; echo private > /tmp/file; cat /tmp/file"]);
    assert_eq!(String::from_utf8_lossy(&first.stdout), "private\n");
    let second = fixture.sandboxed(&["bash", "-c", "cat file; cat /tmp/file"]);
    assert!(String::from_utf8_lossy(&second.stdout).starts_with("shared\n"), "{}", describe(&second));
    assert!(!String::from_utf8_lossy(&second.stdout).contains("private"), "{}", describe(&second));
}
