//! The store under several processes, kills and expiry. Children are this test binary itself, told by environment.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::model::{Message, Part, Role, StopReason, TokenUsage};

const NEVER: Expiry = Expiry { idle: None, absolute: None };
const NOON: i64 = 1_700_000_000_000;

fn started(text: &str) -> Entry {
    Entry::TurnStarted { message: Message::text(Role::User, text), model: "m".to_owned() }
}

fn replied(tokens: u64) -> Entry {
    Entry::Replied {
        model: "m".to_owned(),
        parts: vec![Part::Text { text: "hello".to_owned() }],
        stop: StopReason::EndTurn,
        usage: TokenUsage { input: tokens, output: 1, ..TokenUsage::default() },
        estimate: 3,
    }
}

#[test]
fn entries_come_back_as_written_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("state");
    let mut database = Database::open(&home).unwrap();
    let session = database.open_session("terminal:a", "b0", NEVER, NOON).unwrap();
    let turn = database.begin_turn(session.id, &started("hi"), NOON).unwrap();
    database.append(session.id, turn, &[Entry::Asked { round: 1 }, replied(5)], NOON).unwrap();
    drop(database);
    let mut database = Database::open(&home).unwrap();
    let again = database.open_session("terminal:a", "other", NEVER, NOON).unwrap();
    assert_eq!(again.boundary, "b0");
    let entries: Vec<_> =
        database.entries(again.id).unwrap().into_iter().map(|stored| stored.entry).collect();
    assert_eq!(entries, vec![started("hi"), Entry::Asked { round: 1 }, replied(5)]);
    assert_eq!(database.begin_turn(again.id, &started("2"), NOON).unwrap(), 2);
}

#[test]
fn files_are_private_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("state");
    let mut database = Database::open(&home).unwrap();
    database.open_session("a", "b", NEVER, NOON).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    let names: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.len() >= 4, "database, log, index and lock: {names:?}");
    for name in names {
        assert_eq!(mode(&name), 0o600, "{}", name.display());
    }
}

#[test]
fn journal_refuses_to_be_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join("s")).unwrap();
    let session = database.open_session("a", "b", NEVER, NOON).unwrap();
    database.begin_turn(session.id, &started("x"), NOON).unwrap();
    let raw = rusqlite::Connection::open(dir.path().join("s/conversations.db")).unwrap();
    let error = raw.execute("UPDATE entries SET body = '{}'", []).unwrap_err().to_string();
    assert!(error.contains("append-only"), "{error}");
}

#[test]
fn idle_and_absolute_expiry_begin_a_new_conversation_and_keep_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join("s")).unwrap();
    let day = 86_400_000;
    let expiry =
        Expiry { idle: Some(Duration::from_secs(86_400)), absolute: Some(Duration::from_secs(3 * 86_400)) };
    let first = database.open_session("a", "b1", expiry, NOON).unwrap();
    // Used each half day: never idle, at last too old.
    for half in 1..=6 {
        let now = NOON + half * day / 2;
        assert_eq!(database.open_session("a", "b2", expiry, now).unwrap().id, first.id, "{half}");
        database.begin_turn(first.id, &started("x"), now).unwrap();
    }
    let second = database.open_session("a", "b3", expiry, NOON + 3 * day + 1).unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.boundary, "b3");
    let third = database.open_session("a", "b4", expiry, NOON + 4 * day + 2).unwrap();
    assert_ne!(third.id, second.id);
    let why: Vec<_> = database
        .sessions(expiry, NOON + 4 * day + 2)
        .unwrap()
        .into_iter()
        .map(|session| (session.id, session.ended_why))
        .collect();
    assert!(why.contains(&(first.id, Some("absolute".to_owned()))), "{why:?}");
    assert!(why.contains(&(second.id, Some("idle".to_owned()))), "{why:?}");
    assert_eq!(database.entries(first.id).unwrap().len(), 6);
    let removed = database.purge(expiry, NOON + 4 * day + 2).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(database.sessions(expiry, NOON + 4 * day + 2).unwrap().len(), 1, "the open one stays");
}

#[test]
fn delete_removes_the_text_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("s");
    let mut database = Database::open(&home).unwrap();
    let session = database.open_session("a", "b", NEVER, NOON).unwrap();
    database.begin_turn(session.id, &started("XYZZY-SECRET-WORD"), NOON).unwrap();
    database.delete(&session).unwrap();
    assert!(matches!(database.session("a"), Err(StoreError::Unknown { .. })));
    for entry in std::fs::read_dir(&home).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(17).any(|window| window == b"XYZZY-SECRET-WORD"));
    }
}

#[test]
fn running_conversation_is_busy_for_others_and_cannot_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Database::open(&dir.path().join("s")).unwrap();
    let mut two = Database::open(&dir.path().join("s")).unwrap();
    let session = one.open_session("a", "b", NEVER, NOON).unwrap();
    let lock = one.lock(&session).unwrap();
    assert!(matches!(two.lock(&session), Err(StoreError::Busy { .. })));
    assert!(matches!(two.delete(&session), Err(StoreError::Busy { .. })));
    drop(lock);
    two.delete(&session).unwrap();
}

#[test]
fn names_are_bounded_and_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join("s")).unwrap();
    for bad in ["", "a\u{1b}[2J", &"x".repeat(database::MAX_NAME + 1)] {
        assert!(matches!(database.open_session(bad, "b", NEVER, NOON), Err(StoreError::BadName { .. })));
    }
    assert!(database.open_session(&"x".repeat(database::MAX_NAME), "b", NEVER, NOON).is_ok());
}

#[test]
fn usage_is_summed_by_day_and_model_and_bounded_by_days() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join("s")).unwrap();
    let session = database.open_session("a", "b", NEVER, NOON).unwrap();
    let day = 86_400_000;
    for (at, tokens) in [(NOON, 5), (NOON, 6), (NOON - day, 7), (NOON - 9 * day, 8), (NOON, u64::MAX)] {
        database.append(session.id, 1, &[replied(tokens)], at).unwrap();
    }
    let rows = database.usage(2, NOON).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].day.as_str(), rows[0].requests), ("2023-11-14", 3));
    assert_eq!(rows[0].tokens.input, 11 + (1 << 40));
    assert_eq!((rows[1].day.as_str(), rows[1].tokens.input), ("2023-11-13", 7));
}

#[tokio::test]
async fn async_store_runs_in_order_and_joins_its_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s")).unwrap();
    let session = store.run(|d| d.open_session("a", "b", NEVER, NOON)).await.unwrap().id;
    store.run(move |d| d.begin_turn(session, &started("x"), NOON)).await.unwrap();
    {
        // Dropped after it was queued: the write happens all the same.
        let write = store.run(move |d| d.append(session, 1, &[Entry::Asked { round: 1 }], NOON));
        let mut write = Box::pin(write);
        tokio::select! { biased; _ = &mut write => {}, () = std::future::ready(()) => {} }
    }
    let entries = store.run(move |d| d.entries(session)).await.unwrap();
    assert_eq!(entries.len(), 2);
    drop(store);
    assert!(Database::open(&dir.path().join("s")).is_ok());
}

const CHILD: &str = "OXIBOT_TEST_STORE_CHILD";

fn child(home: &Path, role: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::child_process", "--nocapture"])
        .env(CHILD, format!("{role}\n{}", home.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The body of the children of the tests below; nothing of its own when run without their environment.
#[test]
fn child_process() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let (role, home) = orders.split_once('\n').unwrap();
    let mut database = Database::open(Path::new(home)).unwrap();
    let name = if role == "shared" { "shared".to_owned() } else { format!("own-{}", std::process::id()) };
    let session = database.open_session(&name, "b", NEVER, NOON).unwrap();
    for number in 0..20u32 {
        let turn = database.begin_turn(session.id, &started(&number.to_string()), NOON).unwrap();
        database.append(session.id, turn, &[Entry::Asked { round: 1 }, replied(1)], NOON).unwrap();
        if role == "endless" {
            writeln!(std::io::stdout(), "at {number}").unwrap();
        }
    }
    if role == "endless" {
        let _lock = database.lock(&session).unwrap();
        writeln!(std::io::stdout(), "locked").unwrap();
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }
}

#[test]
fn eight_processes_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("s");
    // The directory is absent at first: all eight race to make the database too.
    let children: Vec<_> =
        (0..8).map(|number| child(&home, if number % 2 == 0 { "shared" } else { "own" })).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let mut database = Database::open(&home).unwrap();
    let shared = database.session("shared").unwrap();
    assert_eq!(shared.turns, 80, "each turn has a number of its own");
    assert_eq!(database.entries(shared.id).unwrap().len(), 240);
    assert_eq!(database.sessions(NEVER, NOON).unwrap().len(), 5);
    assert_eq!(database.usage(1, NOON).unwrap()[0].requests, 160);
}

#[test]
fn killed_process_loses_nothing_it_was_told_is_written_and_releases_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("s");
    let mut killed = child(&home, "endless");
    let mut lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("locked")));
    let database = Database::open(&home).unwrap();
    let session = database.session(&format!("own-{}", killed.id())).unwrap();
    assert!(matches!(database.lock(&session), Err(StoreError::Busy { .. })));
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(database.lock(&session).is_ok());
    assert_eq!(database.entries(session.id).unwrap().len(), 60);
    let raw = rusqlite::Connection::open(home.join("conversations.db")).unwrap();
    let verdict: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn damaged_database_is_named_whether_found_at_once_or_later() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("s");
    drop(Database::open(&home).unwrap());
    let file = home.join("conversations.db");
    std::fs::write(&file, "this is no database, and long enough to look like one ".repeat(200)).unwrap();
    let error = Database::open(&home).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { file: named, .. } if *named == file), "{error}");
    assert!(error.to_string().contains("conversations.db"), "{error}");
    std::fs::remove_file(&file).unwrap();
    assert!(Database::open(&home).is_ok(), "moved away, it begins anew");
}
