//! What a log looks like, what a full disk does to it, and that nothing is lost that could be kept.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

fn origin() -> Origin {
    Origin { who: "w".repeat(1000), channel: "terminal".into(), session: "s".into() }
}

fn open(home: &Path, name: &str) -> Audit {
    Audit::open(home, name, &Settings::default()).unwrap()
}

fn about(text: &str) -> About {
    About { text: text.to_owned(), size: None }
}

fn file(home: &Path) -> PathBuf {
    home.join("audit/x.jsonl")
}

fn records(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every line of these files, in order, checked as one chain.
fn check(home: &Path, name: &str, parts: &[&str]) -> Vec<String> {
    let mut chain = Chain::begin(&AuditKey::existing(home).unwrap(), name);
    let mut events = Vec::new();
    for part in parts {
        for line in std::fs::read_to_string(home.join("audit").join(part)).unwrap().lines() {
            events.push(chain.check(line.as_bytes()).unwrap().event);
        }
    }
    events
}

#[test]
fn records_are_chained_json_lines_in_a_private_file() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    audit.start(Level::Full, Some(Proven::Start), &[]).unwrap();
    let subject = audit.subject("id", "bash", &origin(), "/w", &about(&"é".repeat(4000)));
    audit.call(&subject, "allow", None, None, Level::Full).unwrap();
    audit.stop().unwrap();
    assert_eq!(file(home.path()).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let lines = records(&file(home.path()));
    assert_eq!(lines[2]["event"], "tool_call: bash");
    assert_eq!(lines[2]["detail"].as_str().unwrap().len(), 4096);
    assert_eq!(lines[2]["who"].as_str().unwrap().len(), 256);
    assert_eq!(check(home.path(), "x", &["x.jsonl"]), ["open", "start", "tool_call: bash", "stop"]);
}

#[test]
fn record_of_a_call_has_one_shape() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    let origin = Origin { who: "ada".into(), channel: "terminal".into(), session: "main".into() };
    let subject =
        audit.subject("c-1", "write_file", &origin, "/w", &About { text: "a.txt".into(), size: Some(3) });
    audit.call(&subject, "allow", None, None, Level::Full).unwrap();
    let end = End {
        outcome: "completed",
        rule: None,
        exit_code: None,
        signal: None,
        level: Level::Full,
        duration: Duration::from_millis(5),
        output_bytes: 10,
        usage: None,
    };
    audit.result(&subject, end).unwrap();
    let mut lines = records(&file(home.path()));
    for line in &mut lines {
        for key in ["time", "mac"] {
            line.as_object_mut().unwrap().remove(key).unwrap();
        }
    }
    assert_eq!(
        lines[1..],
        [
            serde_json::json!({
                "v": 1, "chain": "x", "seq": 1, "event": "tool_call: write_file", "call_id": "c-1",
                "tool": "write_file", "who": "ada", "channel": "terminal", "session": "main", "workspace": "/w",
                "detail": "a.txt", "size": 3, "verdict": "allow", "rule": null, "level": "full",
            }),
            serde_json::json!({
                "v": 1, "chain": "x", "seq": 2, "event": "tool_result", "call_id": "c-1", "tool": "write_file",
                "outcome": "completed", "rule": null, "exit_code": null, "signal": null, "level": "full",
                "duration_ms": 5, "output_bytes": 10, "usage": null,
            }),
        ]
    );
}

#[test]
fn by_setting_only_the_digest_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let settings = Settings { detail: AuditDetail::Digest, ..Settings::default() };
    let mut audit = Audit::open(home.path(), "x", &settings).unwrap();
    let subject = audit.subject("id", "bash", &origin(), "/w", &about("echo private"));
    audit.call(&subject, "allow", None, None, Level::Full).unwrap();
    let text = std::fs::read_to_string(file(home.path())).unwrap();
    assert!(!text.contains("private"), "{text}");
    let digest = &records(&file(home.path()))[1]["detail_sha256"];
    assert_eq!(digest, &serde_json::json!(to_hex(&Sha256::digest(b"echo private"))));
}

#[test]
fn a_key_in_a_command_is_not_recorded() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    audit.redact_with(&Redactor::load().unwrap());
    let key = concat!("ghp_", "16C7e42F292c6912E7710c838347Ae178B4a");
    let subject = audit.subject(
        "id",
        "bash",
        &origin(),
        "/w",
        &about(&format!("curl -H 'Authorization: token {key}' x")),
    );
    audit.call(&subject, "allow", None, None, Level::Full).unwrap();
    let record = &records(&file(home.path()))[1];
    assert_eq!(record["detail"], "curl -H 'Authorization: token [redacted: github-token]' x");
}

#[test]
fn first_record_names_where_earlier_chains_ended() {
    let home = tempfile::tempdir().unwrap();
    open(home.path(), "a").stop().unwrap();
    drop(open(home.path(), "b"));
    let heads = records(&home.path().join("audit/b.jsonl"))[0]["heads"].clone();
    assert_eq!((&heads[0]["chain"], &heads[0]["seq"]), (&serde_json::json!("a"), &serde_json::json!(1)));
    assert_eq!(heads[0]["mac"], records(&home.path().join("audit/a.jsonl"))[1]["mac"]);
}

#[test]
fn chain_goes_on_in_a_new_file() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    audit.log.as_mut().unwrap().rotate_at = 400;
    for _ in 0..4 {
        audit.event("test").unwrap();
    }
    let parts = ["x.jsonl", "rotated/x.2.jsonl"];
    let events = check(home.path(), "x", &parts);
    assert_eq!(events, ["open", "test", "test", "rotate", "test", "test"]);
    let mode = home.path().join("audit/rotated/x.2.jsonl").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn chain_stays_in_its_file_when_there_can_be_no_new_one() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    audit.log.as_mut().unwrap().rotate_at = 400;
    std::fs::write(home.path().join("audit/rotated/x.2.jsonl"), "planted").unwrap();
    for _ in 0..4 {
        audit.event("test").unwrap();
    }
    assert_eq!(check(home.path(), "x", &["x.jsonl"]), ["open", "test", "test", "test", "test"]);
}

#[test]
fn full_disk_refuses_keeps_what_it_can_and_catches_up() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    let real = audit.log.as_ref().unwrap().file.try_clone().unwrap();
    audit.log.as_mut().unwrap().file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let subject = audit.subject("id", "bash", &origin(), "/w", &about("true"));
    assert!(audit.call(&subject, "allow", None, None, Level::Full).is_err(), "a call is refused");
    assert!(audit.event("noticed").is_err());
    assert!(audit.call(&subject, "allow", None, None, Level::Full).is_err(), "and stays refused");
    audit.log.as_mut().unwrap().file = real;
    audit.event("after").unwrap();
    let events = check(home.path(), "x", &["x.jsonl"]);
    assert_eq!(events, ["open", "tool_call: bash", "noticed", "tool_call: bash", "after"]);
}

#[test]
fn what_finds_no_room_is_counted_and_memory_is_bounded() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    let real = audit.log.as_ref().unwrap().file.try_clone().unwrap();
    audit.log.as_mut().unwrap().file = OpenOptions::new().append(true).open("/dev/full").unwrap();
    for _ in 0..5000 {
        assert!(audit.event("refused").is_err());
        assert!(audit.log.as_ref().unwrap().waiting.len() < MAX_WAITING + 1024);
    }
    let lost = audit.log.as_ref().unwrap().lost;
    assert!(lost > 0);
    audit.log.as_mut().unwrap().file = real;
    audit.event("after").unwrap();
    let lines = records(&file(home.path()));
    let gap = &lines[lines.len() - 2];
    assert_eq!((&gap["event"], &gap["lost"]), (&serde_json::json!("gap"), &serde_json::json!(lost)));
    assert_eq!(lines.len() as u64 + lost, 5000 + 3, "open, after and the gap itself");
    check(home.path(), "x", &["x.jsonl"]);
}

#[test]
fn line_written_in_part_is_finished_first() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    let log = audit.log.as_mut().unwrap();
    let line = log.chain.seal("t".into(), "cut", serde_json::json!({})).unwrap();
    let (written, rest) = line.split_at(20);
    log.file.write_all(written).unwrap();
    log.waiting = rest.to_vec();
    audit.event("after").unwrap();
    assert_eq!(check(home.path(), "x", &["x.jsonl"]), ["open", "cut", "after"]);
}

#[test]
fn sync_is_due_a_second_after_what_was_not_synced() {
    let home = tempfile::tempdir().unwrap();
    let mut audit = open(home.path(), "x");
    audit.log.as_mut().unwrap().journal = None;
    let due = audit.due().unwrap();
    assert!(due <= Instant::now() + SYNC);
    audit.tick(due).unwrap();
    assert_eq!(audit.due(), None, "nothing is left to sync");
    audit.event("stop").unwrap();
    assert_eq!(audit.due(), None, "synced at once");
}

#[test]
fn head_goes_to_the_journal_when_it_moved() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("journal");
    let journald = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    journald.set_nonblocking(true).unwrap();
    let mut audit = open(home.path(), "x");
    audit.log.as_mut().unwrap().journal = Journal::at(&socket).ok();
    let received = || {
        let mut buffer = [0; 4096];
        journald.recv(&mut buffer).ok().map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    audit.start(Level::Full, None, &[]).unwrap();
    assert!(received().unwrap().contains("OXIBOT_AUDIT_SEQ=1\n"), "at the start");
    let later = Instant::now() + ANCHOR + SYNC;
    audit.tick(later).unwrap();
    assert_eq!(received(), None, "it did not move");
    audit.event("x").unwrap();
    audit.tick(later).unwrap();
    assert!(received().unwrap().contains("OXIBOT_AUDIT_SEQ=2\n"));
    audit.stop().unwrap();
    let last = received().unwrap();
    let mac = records(&file(home.path())).pop().unwrap()["mac"].as_str().unwrap().to_owned();
    assert!(last.contains(&format!("OXIBOT_AUDIT_MAC={mac}\n")), "{last}");
}
