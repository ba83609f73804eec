//! The one task that owns the socket: writes what is ordered, reads what comes, hands it to the ledger.

use std::io;
use std::sync::{Arc, OnceLock};

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{
    ApprovalAnswer, Approved, CallNumber, CallRequest, CallResult, FileChunk, GetRequest, PutRequest,
    StopScope, Stopped, ToMain, ToToolhost, ToolSpec, ToolhostHello, ToolhostStatus, TransferEnd,
};
use oxibot_proto::state::Stage;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::BrokerError;
use super::call::Pending;
use super::greeting::Greeted;
use super::ledger::{Answer, Judged, Ledger, lost};

/// Orders waiting for the task. A caller beyond that waits.
const ORDERS: usize = 64;
/// Bytes waiting to be written above which no more orders are taken: two of the largest frames.
const HIGH_WATER: usize = 2 * codec::MAX_FRAME;
/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// What the task is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    Begin(ToToolhost, Pending),
    Judge(CallRequest, Answer<Judged>),
    Get(GetRequest, mpsc::Sender<FileChunk>, oneshot::Sender<TransferEnd>),
    Put(PutRequest, Arc<Semaphore>, oneshot::Sender<TransferEnd>),
    Tools(Answer<Vec<ToolSpec>>),
    Status(Answer<ToolhostStatus>),
    Stop(StopScope, Answer<Stopped>),
    Approve(ApprovalAnswer, Answer<Approved>),
    AwaitApproval(String, Answer<Approved>),
    Taken(CallNumber),
    Send(ToToolhost),
}

/// How to reach the task.
#[derive(Debug, Clone)]
pub(super) struct Link {
    orders: mpsc::Sender<Order>,
    abandoned: Arc<Notify>,
    ended: Arc<OnceLock<BrokerError>>,
    pub(super) hello: Arc<ToolhostHello>,
}

impl Link {
    pub(super) async fn order(&self, order: Order) -> Result<(), BrokerError> {
        self.orders.send(order).await.map_err(|_| self.why())
    }

    /// A place in the queue: waiting for it loses nothing when cancelled.
    pub(super) async fn place(&self) -> Result<mpsc::Permit<'_, Order>, BrokerError> {
        self.orders.reserve().await.map_err(|_| self.why())
    }

    /// Why the connection is over.
    pub(super) fn why(&self) -> BrokerError {
        self.ended.get().cloned().unwrap_or_else(|| BrokerError::Gone("the connection was closed".into()))
    }

    /// A result for a call that can have no other.
    pub(super) fn lost(&self, call: CallNumber, call_id: &str, tool: &str) -> CallResult {
        lost(call, call_id, tool, &self.why(), &self.hello)
    }

    /// A caller went away: its calls are found by their closed channels. Never blocks, so it may be used in `Drop`.
    pub(super) fn look_for_abandoned(&self) {
        self.abandoned.notify_one();
    }
}

/// Owns the task. Dropping it ends the task and so the connection.
#[derive(Debug)]
pub struct Connection {
    task: JoinHandle<()>,
    close: Arc<Notify>,
    ended: Arc<OnceLock<BrokerError>>,
}

impl Connection {
    /// Closes the connection and waits until the task is gone. The toolhost ends what still runs for us.
    pub async fn close(mut self) {
        self.close.notify_one();
        // The task neither panics nor is aborted before this point; if it were, it would be gone as well.
        drop((&mut self.task).await);
    }

    /// Waits until the connection is over, and says why. Cancel-safe.
    pub async fn ended(&mut self) -> BrokerError {
        if !self.task.is_finished() {
            drop((&mut self.task).await);
        }
        self.ended.get().cloned().unwrap_or_else(|| BrokerError::Gone("the connection was closed".into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts the task on a greeted connection.
pub(super) fn open(greeted: Greeted) -> Result<(Link, Connection), BrokerError> {
    let gone = |error: io::Error| BrokerError::Gone(error.to_string());
    let Greeted { stream, decoder, hello } = greeted;
    stream.set_nonblocking(true).map_err(gone)?;
    let stream = UnixStream::from_std(stream).map_err(gone)?;
    let (orders, ordered) = mpsc::channel(ORDERS);
    let link = Link {
        orders,
        abandoned: Arc::new(Notify::new()),
        ended: Arc::new(OnceLock::new()),
        hello: Arc::new(hello),
    };
    let close = Arc::new(Notify::new());
    let task = Task {
        stream,
        decoder,
        out: Vec::new(),
        written: 0,
        orders: ordered,
        abandoned: Arc::clone(&link.abandoned),
        close: Arc::clone(&close),
        // Set after `drop` of the ledger's senders would be too late: see `run`.
        ended: Arc::clone(&link.ended),
        hello: Arc::clone(&link.hello),
        ledger: Ledger::default(),
        stage: Stage::Open,
    };
    let ended = Arc::clone(&link.ended);
    Ok((link, Connection { task: tokio::spawn(task.run()), close, ended }))
}

struct Task {
    stream: UnixStream,
    decoder: Decoder<ToMain>,
    out: Vec<u8>,
    written: usize,
    orders: mpsc::Receiver<Order>,
    abandoned: Arc<Notify>,
    close: Arc<Notify>,
    ended: Arc<OnceLock<BrokerError>>,
    hello: Arc<ToolhostHello>,
    ledger: Ledger,
    stage: Stage,
}

impl Task {
    async fn run(mut self) {
        let why = self.serve().await;
        // First the reason, then the answers: whoever is woken by a closed channel finds the reason there.
        let _already_set = self.ended.set(why.clone());
        self.stage = Stage::Closed;
        self.ledger.fail_all(&why, &self.hello);
        // Orders that were on their way are answered by their channels closing, except calls, which get a result.
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            let _gone = self.carry_out(order);
        }
        self.ledger.fail_all(&why, &self.hello);
    }

    /// Every branch is cancel-safe: `recv`, `ready` and `notified` lose nothing when another branch wins.
    async fn serve(&mut self) -> BrokerError {
        // The hello may have come with more behind it.
        if let Err(why) = self.take_messages() {
            return why;
        }
        loop {
            let unwritten = self.out.len().saturating_sub(self.written);
            let interest =
                if unwritten > 0 { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            tokio::select! {
                ready = self.stream.ready(interest) => {
                    let step = ready.map_err(gone).and_then(|ready| {
                        if ready.is_writable() {
                            self.write_some()?;
                        }
                        if ready.is_readable() || ready.is_read_closed() {
                            self.read_some()?;
                        }
                        Ok(())
                    });
                    if let Err(why) = step {
                        return why;
                    }
                }
                order = self.orders.recv(), if unwritten < HIGH_WATER => {
                    let Some(order) = order else {
                        return BrokerError::Gone("the connection was closed".into());
                    };
                    if let Err(why) = self.carry_out(order).and_then(|()| self.write_some()) {
                        return why;
                    }
                }
                () = self.abandoned.notified() => {
                    for number in self.ledger.newly_abandoned() {
                        if let Err(why) = self.send(&ToToolhost::Cancel(number)) {
                            return why;
                        }
                    }
                    if let Err(why) = self.write_some() {
                        return why;
                    }
                }
                () = self.close.notified() => {
                    return BrokerError::Gone("the connection was closed".into());
                }
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Result<(), BrokerError> {
        match order {
            // The caller is gone already, and with it anyone who could cancel: it must not begin.
            Order::Begin(_, pending) if pending.events.is_closed() => Ok(()),
            Order::Get(_, _, end) | Order::Put(_, _, end) if end.is_closed() => Ok(()),
            Order::Begin(message, pending) => {
                let (number, tool, run) = match &message {
                    ToToolhost::Call(request) => (request.call, request.tool.clone(), false),
                    ToToolhost::Run(request) => (request.call, "run".to_owned(), true),
                    ToToolhost::Hello(_)
                    | ToToolhost::ListTools
                    | ToToolhost::Judge(_)
                    | ToToolhost::Stdin(_)
                    | ToToolhost::Cancel(_)
                    | ToToolhost::Put(_)
                    | ToToolhost::PutChunk(_)
                    | ToToolhost::Get(_)
                    | ToToolhost::Taken(_)
                    | ToToolhost::Status
                    | ToToolhost::Stop(_)
                    | ToToolhost::Attack
                    | ToToolhost::Approve(_)
                    | ToToolhost::ListApprovals => return Ok(()),
                };
                self.ledger.call(number, tool, run, pending);
                self.refusable(number, &message)
            }
            Order::Judge(request, answer) => {
                let number = request.call;
                self.ledger.judge(number, answer);
                self.refusable(number, &ToToolhost::Judge(request))
            }
            Order::Get(request, chunks, end) => {
                self.ledger.get(request.call, chunks, end);
                self.send(&ToToolhost::Get(request))
            }
            Order::Put(request, credit, end) => {
                self.ledger.put(request.call, credit, end);
                self.send(&ToToolhost::Put(request))
            }
            Order::Tools(answer) => {
                self.ledger.tools(answer);
                self.send(&ToToolhost::ListTools)
            }
            Order::Status(answer) => {
                self.ledger.status(answer);
                self.send(&ToToolhost::Status)
            }
            Order::Stop(scope, answer) => {
                self.ledger.stop(answer);
                self.send(&ToToolhost::Stop(scope))
            }
            Order::Approve(said, answer) => {
                self.ledger.approval(said.id.clone(), answer);
                self.send(&ToToolhost::Approve(said))
            }
            Order::AwaitApproval(id, answer) => {
                self.ledger.approval(id, answer);
                Ok(())
            }
            Order::Taken(number) => {
                if self.ledger.taken(number) {
                    self.send(&ToToolhost::Taken(number))
                } else {
                    Ok(())
                }
            }
            // What is over needs neither input nor cancelling, and the toolhost knows its number no more.
            Order::Send(
                message @ (ToToolhost::Stdin(_) | ToToolhost::Cancel(_) | ToToolhost::PutChunk(_)),
            ) => {
                let known = match &message {
                    ToToolhost::Stdin(chunk) => self.ledger.knows(chunk.call),
                    ToToolhost::Cancel(number) => self.ledger.knows(*number),
                    ToToolhost::PutChunk(chunk) => self.ledger.knows(chunk.call),
                    ToToolhost::Hello(_)
                    | ToToolhost::ListTools
                    | ToToolhost::Call(_)
                    | ToToolhost::Judge(_)
                    | ToToolhost::Run(_)
                    | ToToolhost::Put(_)
                    | ToToolhost::Get(_)
                    | ToToolhost::Taken(_)
                    | ToToolhost::Status
                    | ToToolhost::Stop(_)
                    | ToToolhost::Attack
                    | ToToolhost::Approve(_)
                    | ToToolhost::ListApprovals => false,
                };
                if known { self.send(&message) } else { Ok(()) }
            }
            Order::Send(message) => self.send(&message),
        }
    }

    /// Sends a request that may turn out too large for a frame: that is its caller's fault, not the connection's.
    fn refusable(&mut self, number: CallNumber, message: &ToToolhost) -> Result<(), BrokerError> {
        match self.send(message) {
            Err(error @ BrokerError::TooLarge(_)) => {
                let mut result = lost(number, "", "", &error, &self.hello);
                result.outcome =
                    oxibot_proto::message::Outcome::Failed { message: format!("{error}; send less") };
                // The entry was made a moment ago, so this cannot be a violation.
                let _never = self.ledger.accept(ToMain::CallResult(Box::new(result)));
                Ok(())
            }
            other => other,
        }
    }

    fn send(&mut self, message: &ToToolhost) -> Result<(), BrokerError> {
        if message.check(self.stage).is_err() {
            return Err(BrokerError::Gone("the connection takes no more work".into()));
        }
        Ok(codec::encode(message, &mut self.out)?)
    }

    fn write_some(&mut self) -> Result<(), BrokerError> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.try_write(rest) {
                Ok(wrote) => self.written = self.written.saturating_add(wrote),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // What it sent before it went away is still to be read, and says more than a broken pipe.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(gone(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn read_some(&mut self) -> Result<(), BrokerError> {
        let mut piece = vec![0_u8; PIECE];
        match self.stream.try_read(&mut piece) {
            Ok(0) => Err(BrokerError::Gone("it ended".into())),
            Ok(read) => {
                self.decoder.push(piece.get(..read).unwrap_or_default());
                self.take_messages()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(gone(error)),
        }
    }

    fn take_messages(&mut self) -> Result<(), BrokerError> {
        loop {
            let message = match self.decoder.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => return Err(broke(&error)),
            };
            message.check(self.stage).map_err(|illegal| broke(&illegal))?;
            match message.into_bye() {
                Ok(reason) => return Err(BrokerError::Bye(reason)),
                Err(message) => self.ledger.accept(message).map_err(|violation| broke(&violation))?,
            }
        }
    }
}

fn gone(error: io::Error) -> BrokerError {
    BrokerError::Gone(error.to_string())
}

fn broke(error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Gone(format!("it broke the protocol: {error}"))
}
