//! What the agent loop needs of the world: something that runs tools and something that thinks.
//!
//! Two narrow traits, so that the loop is tested with fakes and knows neither the socket to the toolhost nor a vendor.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::{ModelReply, ModelRequest, StreamEvent, ToolCall};

/// A future on the heap, as `async fn` in a trait object needs.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a tool call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEnding {
    /// Outcome by the toolhost's name: `completed`, `denied`, `timed_out` and so on; `unknown` when nobody knows.
    pub outcome: String,
    /// What we know of it, in our words, for example exit status and denial. Not untrusted.
    pub summary: String,
    /// What the program printed or the file holds: untrusted.
    pub output: String,
    /// What the wall refused, in our words; a path or an address in it is one word. Shown after the output.
    pub wall: String,
    /// The toolhost's id, if the call got one.
    pub call_id: Option<String>,
    /// Exit status, if there is one.
    pub exit_code: Option<i32>,
    /// From admission to end.
    pub duration: Duration,
}

impl CallEnding {
    /// Whether the tool did what it was asked.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.outcome == "completed"
    }

    /// Whether the model is told that it went wrong: not completed, or a program that says so.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !self.completed() || self.exit_code.is_some_and(|code| code != 0)
    }
}

/// A running call is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallProgress {
    /// Since it began.
    pub elapsed: Duration,
    /// When it will be ended, counted from its beginning.
    pub deadline: Option<Duration>,
    /// Output so far.
    pub output_bytes: u64,
}

/// A file of the workspace could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// There is none.
    #[error("there is no such file")]
    Absent,
    /// It is larger than asked for.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The broker refused or failed.
    #[error("{0}")]
    Refused(String),
}

/// Whatever runs tools: the broker, or a fake.
pub trait Hands: Send + Sync {
    /// Runs one call to its end.
    ///
    /// When `stop` becomes true the call is cancelled and its ending still returned. Dropping the future cancels too.
    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        progress: &'a (dyn Fn(CallProgress) + Send + Sync),
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, CallEnding>;

    /// Fetches a file below the workspace, of at most `limit` bytes.
    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> BoxFuture<'a, Result<Vec<u8>, FetchFault>>;
}

/// Why a model could not be asked. Shown to the person; never part of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MindFault {
    /// Stable name, for example `rate_limited`.
    pub kind: String,
    /// What happened, in one line.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// What the exit status should say.
    pub class: FaultClass,
}

/// What a [`MindFault`] means for a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// It may work later: exit 75.
    TryAgain,
    /// The configuration is wrong: exit 78.
    Configuration,
    /// It took too long: exit 4.
    TimedOut,
    /// The request is longer than the model allows; a shorter one may do. Exit 1.
    TooLong,
    /// Anything else: exit 1.
    Failed,
}

/// Whatever thinks: a provider, or a fake.
pub trait Mind: Send + Sync {
    /// Asks once; text streams into `sink` before the reply is whole. Dropping the future abandons the request.
    fn complete<'a>(
        &'a self,
        request: &'a ModelRequest,
        sink: &'a mut (dyn FnMut(StreamEvent) + Send),
    ) -> BoxFuture<'a, Result<ModelReply, MindFault>>;

    /// Whether there is such a model, as far as can be known before it is asked anything.
    fn known(&self) -> BoxFuture<'_, Known> {
        Box::pin(std::future::ready(Known::Unsaid))
    }
}

/// Whether there is a model of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The provider lists it.
    Listed,
    /// The provider lists others and not this one: why it cannot be used, for the person.
    Unlisted(String),
    /// The provider lists nothing, or does not answer: the first message will tell.
    Unsaid,
}
