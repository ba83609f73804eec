//! Main's side of the wire to the toolhost.
//!
//! [`Broker`] is a cheap handle for any number of tasks; one [`Connection`] task owns the socket, reads and writes it,
//! and is joined by whoever made it. A peer that breaks the protocol, or goes away, loses the connection: every call
//! that waits then gets an `internal` result, and none hangs. Nothing here decides what a tool may do, and nothing is
//! ever repeated: a call whose answer was lost stays lost.

mod attacks;
mod call;
mod connection;
#[cfg(test)]
pub(crate) mod fake;
mod greeting;
mod ledger;
mod once;
mod plain;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use oxibot_proto::codec::EncodeError;
use oxibot_proto::message::{
    ApprovalAnswer, ApprovalOutcome, CallNumber, CallRequest, CloseReason, Judgement, MAX_ARGUMENTS, Origin,
    RunRequest, StopScope, Stopped, ToToolhost, ToolSpec, ToolhostHello, ToolhostStatus,
};
use tokio::sync::oneshot;

pub use attacks::Attacks;
pub use call::{CallEvent, PendingCall, RunInput};
pub use connection::Connection;
pub use greeting::{Greeted, greet, greet_within};
pub use once::Calls;

use call::Pending;
use connection::{Link, Order};

/// Why something could not be asked of the toolhost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The connection is closed. Caused by the toolhost's end, or by its breaking the protocol.
    #[error("cannot reach the toolhost: {0}")]
    Gone(String),
    /// The toolhost closed the connection and said why.
    #[error("cannot go on with the toolhost: {}", bye(.0))]
    Bye(CloseReason),
    /// No hello came, or not in time.
    #[error("cannot greet the toolhost: {0}")]
    Greeting(String),
    /// The other side speaks another version of the wire.
    #[error("cannot talk to the toolhost: it speaks version {theirs} of the wire, this program {ours}")]
    Version {
        /// Ours.
        ours: u32,
        /// Theirs.
        theirs: u32,
    },
    /// What was to be sent does not fit the wire. Caused by the caller, or by the model it speaks for.
    #[error("cannot send to the toolhost: {0}")]
    TooLarge(String),
    /// A file transfer was refused or failed.
    #[error("cannot transfer {path}: {cause}")]
    Transfer {
        /// Path below the workspace.
        path: String,
        /// What the toolhost said.
        cause: String,
    },
}

impl From<EncodeError> for BrokerError {
    fn from(error: EncodeError) -> Self {
        Self::TooLarge(error.to_string())
    }
}

/// What goes with a call besides the tool and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOptions {
    /// Absolute path of an admitted workspace; the toolhost's default when absent.
    pub workspace: Option<String>,
    /// Shorter deadline than the configured one, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Who asks.
    pub origin: Origin,
    /// Id of an approval of exactly this call.
    pub approval: Option<String>,
}

impl CallOptions {
    /// The default workspace and deadline, nothing approved.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        Self { workspace: None, timeout_ms: None, origin, approval: None }
    }
}

/// A handle on the toolhost. Cloning it is cheap; all clones share one connection.
#[derive(Debug, Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: RwLock<Link>,
    next: AtomicU64,
}

impl Broker {
    /// Starts the task that owns the socket. Must be called inside a tokio runtime; the [`Connection`] must be kept and
    /// in the end closed, else the task ends with it.
    ///
    /// # Errors
    /// [`BrokerError::Gone`] when the socket cannot be registered with the runtime.
    pub fn start(greeted: Greeted) -> Result<(Self, Connection), BrokerError> {
        let (link, connection) = connection::open(greeted)?;
        let shared = Shared { link: RwLock::new(link), next: AtomicU64::new(1) };
        Ok((Self { shared: Arc::new(shared) }, connection))
    }

    /// Goes on with another toolhost, after the launcher started one. Calls of the old connection are answered there.
    ///
    /// # Errors
    /// As [`Broker::start`]; the old connection then stays in place.
    pub fn replace(&self, greeted: Greeted) -> Result<Connection, BrokerError> {
        let (link, connection) = connection::open(greeted)?;
        *self.shared.link.write().unwrap_or_else(PoisonError::into_inner) = link;
        Ok(connection)
    }

    /// What the toolhost said of itself: the wall, the workspaces.
    #[must_use]
    pub fn hello(&self) -> Arc<ToolhostHello> {
        self.link().hello
    }

    /// The tools on offer.
    ///
    /// # Errors
    /// [`BrokerError`] when the connection is, or becomes, closed.
    pub async fn tools(&self) -> Result<Vec<ToolSpec>, BrokerError> {
        self.ask(Order::Tools).await
    }

    /// What goes on in the toolhost.
    ///
    /// # Errors
    /// As [`Broker::tools`].
    pub async fn status(&self) -> Result<ToolhostStatus, BrokerError> {
        self.ask(Order::Status).await
    }

    /// Ends running calls, as `scope` says.
    ///
    /// # Errors
    /// As [`Broker::tools`].
    pub async fn stop(&self, scope: StopScope) -> Result<Stopped, BrokerError> {
        self.ask(|answer| Order::Stop(scope, answer)).await
    }

    /// Passes on what a person said to a call that needs approval. Granted, the same call may be made once with the id.
    ///
    /// # Errors
    /// As [`Broker::tools`].
    pub async fn approve(&self, id: &str, yes: bool, by: &str) -> Result<ApprovalOutcome, BrokerError> {
        let said = ApprovalAnswer { id: id.to_owned(), yes, by: by.to_owned() };
        Ok(self.ask(|answer| Order::Approve(said, answer)).await?.outcome)
    }

    /// Waits until somebody else answers: an administrator, at the toolhost's own socket. Cancel-safe.
    ///
    /// # Errors
    /// As [`Broker::tools`].
    pub async fn approval(&self, id: &str) -> Result<ApprovalOutcome, BrokerError> {
        Ok(self.ask(|answer| Order::AwaitApproval(id.to_owned(), answer)).await?.outcome)
    }

    /// Asks for a tool call. It is judged by the toolhost; what comes of it are the events of the [`PendingCall`].
    /// Dropping that cancels the call.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`] when the arguments exceed [`MAX_ARGUMENTS`], else as [`Broker::tools`].
    pub async fn start_call(
        &self,
        tool: &str,
        arguments: &str,
        options: CallOptions,
    ) -> Result<PendingCall, BrokerError> {
        let request = self.request(tool, arguments, options)?;
        self.begin(request.call, ToToolhost::Call(request)).await
    }

    /// Asks what the policy says of a call and runs nothing. A call that cannot be judged (unknown tool, bad arguments)
    /// comes back as a result in the error position.
    ///
    /// # Errors
    /// As [`Broker::start_call`].
    pub async fn judge(
        &self,
        tool: &str,
        arguments: &str,
        options: CallOptions,
    ) -> Result<Result<Judgement, Box<oxibot_proto::message::CallResult>>, BrokerError> {
        let request = self.request(tool, arguments, options)?;
        let (answer, judged) = oneshot::channel();
        let link = self.link();
        link.order(Order::Judge(request, answer)).await?;
        judged.await.map_err(|_| link.why())?
    }

    /// Runs a program behind the wall, its streams unchanged.
    ///
    /// # Errors
    /// As [`Broker::start_call`].
    pub async fn run(
        &self,
        argv: Vec<Vec<u8>>,
        options: CallOptions,
    ) -> Result<(PendingCall, RunInput), BrokerError> {
        let call = self.number();
        let CallOptions { workspace, timeout_ms, origin, approval: _ } = options;
        let request = ToToolhost::Run(RunRequest { call, argv, workspace, timeout_ms, origin });
        let pending = self.begin(call, request).await?;
        let input = pending.input();
        Ok((pending, input))
    }

    /// Cancels a call. Its result comes all the same, with outcome cancelled unless it ended before.
    ///
    /// # Errors
    /// As [`Broker::tools`].
    pub async fn cancel(&self, call: CallNumber) -> Result<(), BrokerError> {
        self.link().order(Order::Send(ToToolhost::Cancel(call))).await
    }

    fn request(&self, tool: &str, arguments: &str, options: CallOptions) -> Result<CallRequest, BrokerError> {
        if arguments.len() > MAX_ARGUMENTS {
            return Err(BrokerError::TooLarge(format!(
                "{} bytes of arguments exceed the limit of {MAX_ARGUMENTS}",
                arguments.len()
            )));
        }
        let CallOptions { workspace, timeout_ms, origin, approval } = options;
        Ok(CallRequest {
            call: self.number(),
            tool: tool.to_owned(),
            arguments: arguments.to_owned(),
            workspace,
            timeout_ms,
            origin,
            approval,
        })
    }

    async fn begin(&self, call: CallNumber, message: ToToolhost) -> Result<PendingCall, BrokerError> {
        let link = self.link();
        let (pending, handle) = Pending::new(call, link.clone());
        link.order(Order::Begin(message, pending)).await?;
        Ok(handle)
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, BrokerError>>) -> Order,
    ) -> Result<T, BrokerError> {
        let (answer, answered) = oneshot::channel();
        let link = self.link();
        link.order(order(answer)).await?;
        answered.await.map_err(|_| link.why())?
    }

    fn number(&self) -> CallNumber {
        CallNumber(self.shared.next.fetch_add(1, Ordering::Relaxed))
    }

    fn link(&self) -> Link {
        self.shared.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn bye(reason: &CloseReason) -> String {
    match reason {
        CloseReason::VersionMismatch { ours } => format!("it speaks version {ours} of the wire"),
        CloseReason::Malformed { detail } => {
            format!("it could not read what was sent ({})", crate::render::neutral::line(detail, 200))
        }
        CloseReason::Illegal { message } => {
            format!("it refused the message {}", crate::render::neutral::line(message, 64))
        }
        CloseReason::Overload => "too much work was queued".into(),
        CloseReason::ShuttingDown => "it is shutting down".into(),
        CloseReason::CannotStart { reason, configuration: _ } => crate::render::neutral::text(reason),
    }
}
