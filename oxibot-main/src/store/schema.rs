//! The tables, and how an older database becomes a newer one.
//!
//! The version lives in `user_version`. A database newer than this program is refused and not touched; an older one is
//! copied beside itself before the first statement of a migration. It knows nothing of what the rows mean.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;
use super::files;

/// Brings a database from the version before to this one.
pub(super) struct Step {
    /// Version after it.
    pub version: u32,
    /// Statements, run in one transaction.
    pub sql: &'static str,
}

/// All steps, ascending; the last one is the version of this program.
pub(super) const STEPS: &[Step] = &[
    Step { version: 1, sql: VERSION_1 },
    Step { version: 2, sql: POST },
    Step { version: 3, sql: SPENDING },
    Step { version: 4, sql: PLACES },
];

/// Tokens of a day by sender.
const SPENDING: &str = "
CREATE TABLE spending (
    day TEXT NOT NULL,
    sender TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    PRIMARY KEY (day, sender)
) STRICT;
";

/// How far each channel has read what it reads.
const PLACES: &str = "
CREATE TABLE places (
    channel TEXT PRIMARY KEY,
    place TEXT NOT NULL
) STRICT;
";

const VERSION_1: &str = "
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    boundary TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    ended_at INTEGER,
    ended_why TEXT
) STRICT;
-- One conversation goes on under a name; the ended ones keep theirs.
CREATE UNIQUE INDEX session_by_name ON sessions (name) WHERE ended_at IS NULL;

CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX entries_by_session ON entries (session, id);
-- A journal that can be rewritten proves nothing after a crash.
CREATE TRIGGER entries_are_append_only BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TABLE usage (
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    -- Millionths of a US dollar as vendors reported them, and in how many requests they did.
    cost_microusd INTEGER NOT NULL,
    priced INTEGER NOT NULL,
    PRIMARY KEY (day, model)
) STRICT;
";

/// The gateway's inbox and outbox.
const POST: &str = "
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    -- The vendor's number of the message: what is delivered twice is kept once.
    key TEXT NOT NULL,
    conversation TEXT NOT NULL,
    body TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    -- Where its turn was begun: whatever turn of the session is younger is the message's own.
    session INTEGER,
    last_turn INTEGER,
    answered_at INTEGER,
    UNIQUE (channel, key)
) STRICT;
CREATE INDEX inbox_unanswered ON inbox (conversation, id) WHERE answered_at IS NULL;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    channel TEXT NOT NULL,
    conversation TEXT NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    -- 1 from the beginning of an attempt to its known end.
    sending INTEGER NOT NULL DEFAULT 0,
    reference TEXT,
    fault TEXT,
    sent_at INTEGER,
    dead_at INTEGER
) STRICT;
CREATE INDEX outbox_waiting ON outbox (channel, conversation, id) WHERE sent_at IS NULL AND dead_at IS NULL;
";

/// Makes or migrates the tables. The caller holds the opening lock, so that no two processes migrate at once.
pub(super) fn prepare(
    connection: &mut Connection,
    file: &Path,
    steps: &[Step],
) -> Result<Option<PathBuf>, StoreError> {
    let ours = steps.last().map_or(0, |step| step.version);
    let found = version(connection)?;
    if found > ours {
        return Err(StoreError::Newer { file: file.to_owned(), found, ours });
    }
    if found == ours {
        return Ok(None);
    }
    let copy = if found > 0 { Some(keep_copy(connection, file, found)?) } else { None };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps.iter().filter(|step| step.version > found) {
        transaction.execute_batch(step.sql)?;
        transaction.pragma_update(None, "user_version", step.version)?;
    }
    transaction.commit()?;
    Ok(copy)
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// `VACUUM INTO` and not a copy of the file: what other processes have in the write-ahead log is in it too.
fn keep_copy(connection: &Connection, file: &Path, version: u32) -> Result<PathBuf, StoreError> {
    for attempt in 0..100u32 {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".v{version}"));
        if attempt > 0 {
            name.push(format!(".{attempt}"));
        }
        name.push(".bak");
        let copy = PathBuf::from(name);
        // SQLite would make the file with the mode of the umask; it accepts one that is there and empty.
        if files::create_private(&copy)? {
            let text = copy.to_string_lossy().into_owned();
            connection.execute("VACUUM INTO ?1", [text])?;
            return Ok(copy);
        }
    }
    Err(StoreError::TooManyCopies { file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[Step] = &[Step { version: 1, sql: VERSION_1 }];
    const NEXT: &[Step] = &[
        Step { version: 1, sql: VERSION_1 },
        Step { version: 2, sql: "ALTER TABLE sessions ADD COLUMN colour TEXT;" },
    ];

    #[test]
    fn older_database_is_migrated_and_a_private_copy_kept() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.db");
        let mut connection = Connection::open(&file).unwrap();
        assert_eq!(prepare(&mut connection, &file, FIRST).unwrap(), None);
        connection
            .execute("INSERT INTO sessions (name, boundary, created_at, used_at) VALUES ('a','b',1,1)", [])
            .unwrap();
        let copy = prepare(&mut connection, &file, NEXT).unwrap().unwrap();
        assert_eq!(version(&connection).unwrap(), 2);
        connection.execute("UPDATE sessions SET colour = 'red'", []).unwrap();
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        let old = Connection::open(&copy).unwrap();
        assert_eq!(version(&old).unwrap(), 1);
        let name: String = old.query_row("SELECT name FROM sessions", [], |row| row.get(0)).unwrap();
        assert_eq!(name, "a");
    }

    #[test]
    fn newer_database_is_refused_naming_both_versions_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.db");
        let mut connection = Connection::open(&file).unwrap();
        prepare(&mut connection, &file, NEXT).unwrap();
        let error = prepare(&mut connection, &file, FIRST).unwrap_err().to_string();
        assert!(error.contains("version 2") && error.contains("version 1"), "{error}");
        assert_eq!(version(&connection).unwrap(), 2);
    }

    #[test]
    fn failing_migration_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.db");
        let mut connection = Connection::open(&file).unwrap();
        prepare(&mut connection, &file, FIRST).unwrap();
        let bad = [Step { version: 2, sql: "CREATE TABLE extra (a); SELECT nonsense FROM nowhere;" }];
        assert!(prepare(&mut connection, &file, &bad).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        assert!(connection.execute("SELECT * FROM extra", []).is_err());
    }
}
