//! The audit log as its reader sees it: what ran is there, damage is found, a killed supervisor leaves a whole log, and
//! a full disk stops the tools and not the record.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use oxibot_proto::message::{Outcome, ToMain};
use oxibot_tests::fixture::{Fixture, describe, skip};
use oxibot_tests::peer::{PATIENCE, Peer};
use serde_json::{Value, json};

fn call(fixture: &Fixture, tool: &str, arguments: &Value) {
    let (_result, status) = fixture.tool(tool, arguments);
    assert!(matches!(status, Some(0 | 3)), "{status:?}");
}

fn audit(fixture: &Fixture, arguments: &[&str]) -> Output {
    fixture.oxibot().arg("audit").args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn chains(home: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(home.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    paths
}

#[track_caller]
fn assert_whole(fixture: &Fixture) -> Value {
    let output = audit(fixture, &["verify", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", describe(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["bad"], Value::Null);
    report
}

#[test]
fn tail_answers_what_ran() {
    let fixture = Fixture::new();
    call(&fixture, "bash", &json!({"command": "echo hi; printf '\\033[31m'"}));
    call(&fixture, "bash", &json!({"command": "rm -rf /"}));
    call(&fixture, "write_file", &json!({"path": "a.txt", "content": "private"}));
    let text = out(&audit(&fixture, &["tail", "--tool", "bash", "--since", "1h"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(
        lines[0].contains("tool_call: bash") && lines[0].ends_with("allow  echo hi; printf '\\033[31m'"),
        "{text}"
    );
    assert!(lines[1].contains("tool_result  bash  completed  exit 0"), "{text}");
    assert!(lines[2].contains("block (files.remove-root)") && lines[2].ends_with("rm -rf /"), "{text}");
    assert!(lines[3].contains("tool_result  bash  denied"), "{text}");
    let text = out(&audit(&fixture, &["tail", "--event", "tool_call"]));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("a.txt  (7 bytes)") && !text.contains("private"), "{text}");
    let text = out(&audit(&fixture, &["tail"]));
    for event in ["open", "self_attack", "start", "stop"] {
        assert!(text.contains(&format!("Z  {event}")), "{event}: {text}");
    }
    let later = audit(&fixture, &["tail", "--since", "2100-01-01"]);
    assert_eq!((out(&later), later.status.code()), (String::new(), Some(0)));
    let odd = audit(&fixture, &["tail", "--since", "soon"]);
    assert_eq!(odd.status.code(), Some(2), "{}", describe(&odd));
}

#[test]
fn tail_follows() {
    let fixture = Fixture::new();
    call(&fixture, "bash", &json!({"command": "echo first"}));
    let mut child = fixture
        .oxibot()
        .args(["audit", "tail", "-f", "--event", "tool_call"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("echo first"));
    call(&fixture, "bash", &json!({"command": "echo second"}));
    assert!(lines.next().unwrap().unwrap().ends_with("echo second"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn export_is_the_log_byte_for_byte() {
    let fixture = Fixture::new();
    call(&fixture, "bash", &json!({"command": "echo \u{202e}é"}));
    call(&fixture, "bash", &json!({"command": "true"}));
    let whole: Vec<u8> =
        chains(&fixture.home()).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(audit(&fixture, &["export"]).stdout, whole);
}

#[test]
fn verify_names_the_first_bad_record() {
    let fixture = Fixture::new();
    call(&fixture, "bash", &json!({"command": "echo hi"}));
    call(&fixture, "bash", &json!({"command": "true"}));
    let report = assert_whole(&fixture);
    assert_eq!(report["chains"], 2);
    let text = out(&audit(&fixture, &["verify"]));
    assert!(text.starts_with("whole: ") && text.contains("cannot find a log written anew"), "{text}");
    let first = chains(&fixture.home()).remove(0);
    let good = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, good.replace("echo hi", "echo ho")).unwrap();
    let output = audit(&fixture, &["verify"]);
    assert_eq!(output.status.code(), Some(1), "{}", describe(&output));
    let name = first.file_name().unwrap().to_str().unwrap();
    assert!(
        out(&output).starts_with(&format!("NOT WHOLE: {name}, record 4 of the file\n")),
        "{}",
        out(&output)
    );
    std::fs::remove_file(&first).unwrap();
    let output = audit(&fixture, &["verify"]);
    assert!(out(&output).contains("it is missing, and the chain"), "{}", out(&output));
    std::fs::write(&first, good).unwrap();
    assert_whole(&fixture);
    // Without the key nothing can be said, and that is a failure.
    std::fs::remove_file(fixture.home().join("audit/key")).unwrap();
    let output = audit(&fixture, &["verify"]);
    assert_eq!((output.status.code(), out(&output)), (Some(1), String::new()), "{}", describe(&output));
}

#[test]
fn heads_of_the_journal_are_compared() {
    let fixture = Fixture::new();
    call(&fixture, "bash", &json!({"command": "echo hi"}));
    let path = chains(&fixture.home()).remove(0);
    let last: Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().last().unwrap()).unwrap();
    let entry = |mac: &str| {
        let seq = last["seq"].to_string();
        json!({"OXIBOT_AUDIT_CHAIN": last["chain"], "OXIBOT_AUDIT_SEQ": seq, "OXIBOT_AUDIT_MAC": mac})
            .to_string()
    };
    let verify = |journal: &str| {
        let mut child = fixture
            .oxibot()
            .args(["audit", "verify", "--anchors", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(journal.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = verify(&entry(last["mac"].as_str().unwrap()));
    assert!(out(&output).contains("1 heads in the journal agree"), "{}", describe(&output));
    let output = verify(&entry(&"00".repeat(32)));
    assert_eq!(output.status.code(), Some(1));
    assert!(out(&output).contains("written anew"), "{}", out(&output));
    assert_eq!(verify("").status.code(), Some(1), "no anchor compares nothing");
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_log() {
    let fixture = Fixture::new();
    for round in 0..10_u32 {
        let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
        // Calls that are refused write two records each and take no time, so that a kill falls between or into them.
        for _ in 0..200 {
            peer.call("bash", &json!({"command": "rm -rf /"}));
        }
        let answered = round * 7;
        for _ in 0..answered {
            assert!(matches!(peer.receive(), Some(ToMain::CallResult(_))));
        }
        peer.child.kill().unwrap();
        peer.child.wait().unwrap();
        let report = assert_whole(&fixture);
        assert_eq!(report["unfinished"].as_array().unwrap().len(), round as usize + 1, "{report}");
    }
    let denied = out(&audit(&fixture, &["tail", "--event", "tool_result", "--since", "1d"])).lines().count();
    assert!(denied >= 7 * 45, "what was answered was recorded before: {denied}");
    // The next one names them all.
    call(&fixture, "bash", &json!({"command": "true"}));
    assert_eq!(assert_whole(&fixture)["chains"], 11);
}

/// A small file system of its own, gone with the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"])
            .arg(&at)
            .status();
        status.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn log_that_was_put_away_is_missed_by_nobody() {
    let fixture = Fixture::new();
    call(&fixture, "list_dir", &json!({"path": "."}));
    let (audit, away) = (fixture.home().join("audit"), fixture.root().join("away"));
    // As the document says: everything but the key.
    std::fs::rename(&audit, &away).unwrap();
    std::fs::create_dir(&audit).unwrap();
    std::fs::set_permissions(&audit, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::rename(away.join("key"), audit.join("key")).unwrap();
    call(&fixture, "list_dir", &json!({"path": "."}));
    assert_whole(&fixture);
    assert_eq!(chains(&fixture.home()).len(), 1);
}

#[test]
fn full_disk_refuses_calls_and_recovers() {
    let fixture = Fixture::new();
    let Some(_small) = Small::mount(fixture.home()) else {
        return skip("full_disk_refuses_calls_and_recovers", "needs root to mount a small file system");
    };
    let (mut peer, _) = Peer::greeted(&fixture.home(), &fixture.workspace(), &[]);
    assert_eq!(peer.bash("echo x >> ran").outcome, Outcome::Completed, "the control");
    let filler = fixture.home().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // The page that is begun takes a few more.
    let begun = Instant::now();
    let mut completed = 1;
    let message = loop {
        assert!(begun.elapsed() < PATIENCE, "calls go on without a record");
        match peer.bash("echo x >> ran").outcome {
            Outcome::Completed => completed += 1,
            Outcome::Internal { message } => break message,
            other => panic!("{other:?}"),
        }
    };
    assert!(message.contains("audit.unwritable") && message.contains("No space left"), "{message}");
    for _ in 0..3 {
        assert!(matches!(peer.bash("echo x >> ran").outcome, Outcome::Internal { .. }));
    }
    let ran = std::fs::read_to_string(fixture.workspace().join("ran")).unwrap().lines().count();
    assert_eq!(ran, completed, "what was refused did not run");
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    assert_eq!(peer.bash("echo x >> ran").outcome, Outcome::Completed, "there is room again");
    drop(peer);
    std::thread::sleep(Duration::from_millis(500));
    assert_whole(&fixture);
}
