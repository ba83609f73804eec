//! The conversations and the usage in SQLite: blocking, one connection, no clock of its own.
//!
//! Every change is one immediate transaction, so that several processes on one home wait for each other and never see
//! half a step. Callers give the time, which keeps expiry testable. It does not judge what an entry means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::files::{self, Lock};
use super::schema;
use super::{Entry, StoreError, StoredEntry};
use crate::model::TokenUsage;

/// How long a write waits for another process. Longer than any transaction of ours can take.
const BUSY: Duration = Duration::from_secs(10);
/// Longest name of a session in bytes: it is printed, and recorded in the audit log with each call.
pub const MAX_NAME: usize = 200;

/// An open database.
#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
    lock_file: PathBuf,
}

/// When a conversation stops being continued. `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// After so long without a message.
    pub idle: Option<Duration>,
    /// So long after it began.
    pub absolute: Option<Duration>,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Number, never reused.
    pub id: i64,
    /// Name it is continued by.
    pub name: String,
    /// Random text that delimits untrusted data in this conversation.
    pub boundary: String,
    /// When it began, in milliseconds since 1970.
    pub created_at: i64,
    /// When it was last used.
    pub used_at: i64,
    /// When it ended, if it did.
    pub ended_at: Option<i64>,
    /// `idle`, `absolute` or `asked`.
    pub ended_why: Option<String>,
    /// Turns begun.
    pub turns: i64,
}

/// What one model used in one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// Model.
    pub model: String,
    /// Requests answered.
    pub requests: u64,
    /// Tokens, and the cost as far as vendors reported it.
    pub tokens: TokenUsage,
    /// Requests whose cost was reported.
    pub priced: u64,
}

/// Damage is named with the file it is in, because only a person can decide what becomes of that.
fn named(error: StoreError, file: &Path) -> StoreError {
    match error.damage() {
        Some(cause) => StoreError::Damaged { file: file.to_owned(), cause },
        None => error,
    }
}

impl Database {
    /// Opens or makes `conversations.db` in `directory`, which is made 0700 if absent.
    ///
    /// Blocks, at most as long as another process takes to migrate.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        files::private_directory(directory)?;
        let file = directory.join("conversations.db");
        Self::open_file(&file).map_err(|error| named(error, &file))
    }

    fn open_file(file: &Path) -> Result<Self, StoreError> {
        let lock_file = files::lock_path(file);
        let _opening = files::lock_opening(&lock_file)?;
        // Made by us and not by SQLite, whose mode is the umask's; its -wal and -shm take the mode of this file.
        files::private_file(file)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        // FULL: an entry is on disk before what it announces happens, also when the power fails.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;
             PRAGMA cache_size = -512;",
        )?;
        if let Some(copy) = schema::prepare(&mut connection, file, schema::STEPS)? {
            tracing::info!(copy = %copy.display(), "conversations migrated, the old version is kept");
        }
        Ok(Self { connection, lock_file })
    }

    /// Takes the conversation for one turn. `Busy` when another process, or another turn of this one, has it.
    pub fn lock(&self, session: &Session) -> Result<Lock, StoreError> {
        files::try_lock(&self.lock_file, session.id)?
            .ok_or_else(|| StoreError::Busy { name: session.name.clone() })
    }

    /// The conversation that goes on under `name`; a new one when there is none or it has expired.
    ///
    /// `boundary` becomes the boundary of a new one.
    pub fn open_session(
        &mut self,
        name: &str,
        boundary: &str,
        expiry: Expiry,
        now: i64,
    ) -> Result<Session, StoreError> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(StoreError::BadName { limit: MAX_NAME });
        }
        let transaction = self.write()?;
        end_expired(&transaction, expiry, now)?;
        let found = by_name(&transaction, name)?;
        let session = if let Some(session) = found {
            session
        } else {
            transaction.execute(
                "INSERT INTO sessions (name, boundary, created_at, used_at) VALUES (?1, ?2, ?3, ?3)",
                params![name, boundary, now],
            )?;
            by_name(&transaction, name)?.ok_or(StoreError::Unknown { what: name.to_owned() })?
        };
        transaction.commit()?;
        Ok(session)
    }

    /// Begins a turn: its number.
    pub fn begin_turn(&mut self, session: i64, first: &Entry, now: i64) -> Result<i64, StoreError> {
        let transaction = self.write()?;
        let turn: i64 = transaction.query_row(
            "SELECT COALESCE(MAX(turn), 0) + 1 FROM entries WHERE session = ?1",
            [session],
            |row| row.get(0),
        )?;
        insert(&transaction, session, turn, first, now)?;
        touch(&transaction, session, now)?;
        transaction.commit()?;
        Ok(turn)
    }

    /// Appends steps of a turn, and counts what the replies among them used, all or nothing.
    pub fn append(&mut self, session: i64, turn: i64, entries: &[Entry], now: i64) -> Result<(), StoreError> {
        let transaction = self.write()?;
        for entry in entries {
            insert(&transaction, session, turn, entry, now)?;
            if let Some((model, usage)) = spent(entry) {
                count(&transaction, model, usage, now)?;
            }
        }
        touch(&transaction, session, now)?;
        transaction.commit()?;
        Ok(())
    }

    /// All entries of a conversation, in the order written.
    pub fn entries(&self, session: i64) -> Result<Vec<StoredEntry>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, turn, at, body FROM entries WHERE session = ?1 ORDER BY id")?;
        let mut rows = statement.query([session])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let body: String = row.get(3)?;
            let entry =
                serde_json::from_str(&body).map_err(|cause| StoreError::Corrupt { entry: id, cause })?;
            entries.push(StoredEntry { id, turn: row.get(1)?, at: row.get(2)?, entry });
        }
        Ok(entries)
    }

    /// All conversations, the last used first.
    pub fn sessions(&mut self, expiry: Expiry, now: i64) -> Result<Vec<Session>, StoreError> {
        let transaction = self.write()?;
        end_expired(&transaction, expiry, now)?;
        transaction.commit()?;
        let mut statement =
            self.connection.prepare_cached(&format!("{SESSION} ORDER BY used_at DESC, id DESC"))?;
        let rows = statement.query_map([], session_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A conversation by number, or by the name it goes on under.
    pub fn session(&self, which: &str) -> Result<Session, StoreError> {
        if let Some(found) = by_name(&self.connection, which)? {
            return Ok(found);
        }
        if let Ok(id) = which.parse::<i64>() {
            let found = self
                .connection
                .query_row(&format!("{SESSION} WHERE id = ?1"), [id], session_of)
                .optional()?;
            if let Some(session) = found {
                return Ok(session);
            }
        }
        Err(StoreError::Unknown { what: which.to_owned() })
    }

    /// Ends a conversation: the next message under its name begins a new one. The text is kept.
    pub fn expire(&mut self, session: &Session, now: i64) -> Result<(), StoreError> {
        let transaction = self.write()?;
        transaction.execute(
            "UPDATE sessions SET ended_at = ?2, ended_why = 'asked' WHERE id = ?1 AND ended_at IS NULL",
            params![session.id, now],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Removes a conversation and overwrites its text. `Busy` while a turn of it runs.
    pub fn delete(&mut self, session: &Session) -> Result<(), StoreError> {
        let _lock = self.lock(session)?;
        let transaction = self.write()?;
        transaction.execute("DELETE FROM sessions WHERE id = ?1", [session.id])?;
        transaction.commit()?;
        // What was deleted would otherwise stay readable in the write-ahead log.
        let _busy: i64 =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(())
    }

    /// Removes the conversations whose time is over, and says which. Those a person ended are kept.
    pub fn purge(&mut self, expiry: Expiry, now: i64) -> Result<Vec<Session>, StoreError> {
        let over = self.sessions(expiry, now)?.into_iter().filter(|session| {
            session.ended_why.as_deref().is_some_and(|why| why == "idle" || why == "absolute")
        });
        let mut removed = Vec::new();
        for session in over {
            match self.delete(&session) {
                Ok(()) => removed.push(session),
                // A turn that began before the time was over; the next purge finds it.
                Err(StoreError::Busy { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Usage of the last `days` days, today included, newest first.
    pub fn usage(&self, days: u32, now: i64) -> Result<Vec<UsageRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT day, model, requests, input, output, cache_read, cache_write, cost_microusd, priced FROM usage
             WHERE day > date(?1 / 1000, 'unixepoch', ?2) ORDER BY day DESC, model",
        )?;
        let rows = statement.query_map(params![now, format!("-{days} days")], |row| {
            let priced = unsigned(row, 8)?;
            let cost = unsigned(row, 7)?;
            Ok(UsageRow {
                day: row.get(0)?,
                model: row.get(1)?,
                requests: unsigned(row, 2)?,
                tokens: TokenUsage {
                    input: unsigned(row, 3)?,
                    output: unsigned(row, 4)?,
                    cache_read: unsigned(row, 5)?,
                    cache_write: unsigned(row, 6)?,
                    cost_microusd: (priced > 0).then_some(cost),
                },
                priced,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn write(&mut self) -> Result<Transaction<'_>, StoreError> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

const SESSION: &str = "SELECT id, name, boundary, created_at, used_at, ended_at, ended_why,
    (SELECT COUNT(DISTINCT turn) FROM entries WHERE session = sessions.id) FROM sessions";

fn session_of(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get(0)?,
        name: row.get(1)?,
        boundary: row.get(2)?,
        created_at: row.get(3)?,
        used_at: row.get(4)?,
        ended_at: row.get(5)?,
        ended_why: row.get(6)?,
        turns: row.get(7)?,
    })
}

fn by_name(connection: &Connection, name: &str) -> Result<Option<Session>, StoreError> {
    let sql = format!("{SESSION} WHERE name = ?1 AND ended_at IS NULL");
    Ok(connection.query_row(&sql, [name], session_of).optional()?)
}

fn end_expired(transaction: &Transaction<'_>, expiry: Expiry, now: i64) -> Result<(), StoreError> {
    for (limit, column, why) in
        [(expiry.idle, "used_at", "idle"), (expiry.absolute, "created_at", "absolute")]
    {
        let Some(limit) = limit else { continue };
        let oldest = now.saturating_sub(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        transaction.execute(
            &format!(
                "UPDATE sessions SET ended_at = ?1, ended_why = ?2 WHERE ended_at IS NULL AND {column} < ?3"
            ),
            params![now, why, oldest],
        )?;
    }
    Ok(())
}

fn insert(
    transaction: &Transaction<'_>,
    session: i64,
    turn: i64,
    entry: &Entry,
    now: i64,
) -> Result<(), StoreError> {
    let body = serde_json::to_string(entry).map_err(StoreError::Encode)?;
    transaction
        .prepare_cached("INSERT INTO entries (session, turn, at, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![session, turn, now, body])?;
    Ok(())
}

fn touch(transaction: &Transaction<'_>, session: i64, now: i64) -> Result<(), StoreError> {
    transaction
        .prepare_cached("UPDATE sessions SET used_at = MAX(used_at, ?2) WHERE id = ?1")?
        .execute(params![session, now])?;
    Ok(())
}

fn spent(entry: &Entry) -> Option<(&str, TokenUsage)> {
    match entry {
        Entry::Replied { model, usage, .. } | Entry::Summarised { model, usage, .. } => Some((model, *usage)),
        Entry::TurnStarted { .. }
        | Entry::Asked { .. }
        | Entry::CallBegun { .. }
        | Entry::CallEnded { .. }
        | Entry::MessageArrived { .. }
        | Entry::Noted { .. }
        | Entry::TurnEnded { .. }
        | Entry::TakenBack { .. } => None,
    }
}

fn count(transaction: &Transaction<'_>, model: &str, usage: TokenUsage, now: i64) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT INTO usage VALUES (date(?1 / 1000, 'unixepoch'), ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (day, model) DO UPDATE SET requests = requests + 1, input = input + excluded.input,
             output = output + excluded.output, cache_read = cache_read + excluded.cache_read,
             cache_write = cache_write + excluded.cache_write,
             cost_microusd = cost_microusd + excluded.cost_microusd, priced = priced + excluded.priced",
        )?
        .execute(params![
            now,
            model,
            signed(usage.input),
            signed(usage.output),
            signed(usage.cache_read),
            signed(usage.cache_write),
            signed(usage.cost_microusd.unwrap_or(0)),
            i64::from(usage.cost_microusd.is_some())
        ])?;
    Ok(())
}

/// A provider may claim any number: one that would overflow a sum over a lifetime is cut, not trusted.
fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX).min(1 << 40)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}
