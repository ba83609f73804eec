//! Conversations and usage, kept in SQLite in the state directory.
//!
//! [`Database`] is the blocking truth; [`Store`] is its face for async code: one thread owns the connection, takes
//! closures over a bounded channel and is joined when the store is dropped. A future that is dropped after its closure
//! was queued changes nothing about the write: it happens, in order. The store does not know what a turn is.

pub mod database;
pub mod entry;
mod files;
pub mod post;
mod schema;
mod spending;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

pub use database::{Database, Expiry, Session, UsageRow};
pub use entry::{Ending, Entry, StoredEntry};
pub use files::{Lock, lock_gateway};

/// Requests that may wait for the store's thread; more make the askers wait.
const QUEUE: usize = 64;

type Job = Box<dyn FnOnce(&mut Database) + Send>;

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory could not be used.
    #[error("cannot {verb} {}: {cause}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// The database is damaged, or something else is in its place.
    #[error("cannot use {}: it is damaged ({cause})", file.display())]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What SQLite said.
        cause: String,
    },
    /// Something other than a plain file is where the database should be.
    #[error("cannot open {}: it is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others can read it.
    #[error(
        "cannot use {}: its mode {mode:o} lets others read conversations; run: chmod {wanted} {}",
        path.display(), path.display()
    )]
    Public {
        /// The path.
        path: PathBuf,
        /// Mode found.
        mode: u32,
        /// Mode wanted, octal.
        wanted: &'static str,
    },
    /// Written by a newer program.
    #[error(
        "cannot open {}: its schema is version {found}, this program knows up to version {ours}; use the newer oxibot",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest this program knows.
        ours: u32,
    },
    /// Copies of earlier migrations pile up.
    #[error("cannot copy {} before migrating it: 100 copies exist; remove some *.bak", file.display())]
    TooManyCopies {
        /// The database.
        file: PathBuf,
    },
    /// Another process is opening or migrating for too long.
    #[error("cannot open the conversations: another process holds {}", file.display())]
    OpeningBusy {
        /// The lock file.
        file: PathBuf,
    },
    /// A turn of this conversation is running.
    #[error(
        "cannot continue session {name}: another oxibot is at work in it; try again, or use -s with another name"
    )]
    Busy {
        /// The session.
        name: String,
    },
    /// Another gateway answers for this home.
    #[error("cannot start: another gateway (process {pid}) answers for {}", home.display())]
    SecondGateway {
        /// Its process id.
        pid: String,
        /// The state directory.
        home: PathBuf,
    },
    /// No such conversation.
    #[error("cannot find session {what}: see `oxibot sessions list`")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// Not a name a session can have.
    #[error("cannot use this session name: it must have 1 to {limit} bytes and no control characters")]
    BadName {
        /// The limit.
        limit: usize,
    },
    /// An entry cannot be read.
    #[error("cannot read journal entry {entry}: {cause}")]
    Corrupt {
        /// Its number.
        entry: i64,
        /// Why.
        cause: serde_json::Error,
    },
    /// An entry cannot be written.
    #[error("cannot encode a journal entry: {0}")]
    Encode(serde_json::Error),
    /// SQLite says no.
    #[error("cannot use the conversation database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The store's thread is gone.
    #[error("cannot reach the conversation store: its thread has ended")]
    Gone,
}

/// The store for async code. Cheap to clone; the last clone joins the thread.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl StoreError {
    /// What SQLite says is broken about the database itself, found at opening or later; none for every other error.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let Self::Sqlite(cause) = self else { return None };
        matches!(cause.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)).then(|| cause.to_string())
    }
}

#[derive(Debug)]
struct Inner {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database of `directory` and starts its thread. Blocks briefly: call it before the runtime is busy.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let mut database = Database::open(directory)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut database);
                }
            })
            .map_err(|cause| StoreError::File {
                verb: "start a thread for",
                path: directory.to_owned(),
                cause,
            })?;
        Ok(Self { inner: Arc::new(Inner { jobs: Some(jobs), thread: Some(thread) }) })
    }

    /// Runs `job` on the store's thread and waits for its result.
    pub async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |database| {
            // Nobody waiting for the answer is no reason not to have done it.
            let _unheard = answer.send(job(database));
        });
        let jobs = self.inner.jobs.as_ref().ok_or(StoreError::Gone)?;
        jobs.send(job).await.map_err(|_| StoreError::Gone)?;
        result.await.map_err(|_| StoreError::Gone)?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the channel ends the thread after what is queued.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}
