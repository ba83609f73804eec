//! One call as its caller sees it: events until the result, cancelled when dropped.

use std::sync::Arc;
use std::time::Duration;

use oxibot_proto::message::{
    CHUNK_WINDOW, CallNumber, CallResult, MAX_CHUNK, Outcome, OutputChunk, Progress, Started, StdinChunk,
    ToToolhost,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::render::neutral;

use super::BrokerError;
use super::connection::{Link, Order};

/// Events kept for a caller that does not look. Room for the window of chunks, the start and the result; progress is
/// dropped before it takes that room.
pub(super) const EVENTS: usize = 16;
/// Free places below which progress is dropped.
pub(super) const RESERVED: usize = CHUNK_WINDOW + 4;

/// How long past its deadline a call is waited for. The toolhost answers at the deadline, or reports a process stuck in
/// the kernel five seconds later; one that says nothing was stopped or hangs, and must not hang us.
const SILENCE: Duration = Duration::from_secs(15);

/// What happens to a call, in this order: started, then progress and output in any mixture, then the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent {
    /// It was admitted and runs.
    Started(Started),
    /// It is alive.
    Progress(Progress),
    /// Bytes of a run.
    Output(OutputChunk),
    /// It ended. Nothing follows.
    Result(Box<CallResult>),
}

/// The connection's half of a call.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) events: mpsc::Sender<CallEvent>,
    pub(super) input: Arc<Semaphore>,
}

impl Pending {
    /// Both halves of a call.
    pub(super) fn new(number: CallNumber, link: Link) -> (Self, PendingCall) {
        let (events, received) = mpsc::channel(EVENTS);
        let input = Arc::new(Semaphore::new(CHUNK_WINDOW));
        let handle = PendingCall {
            number,
            events: received,
            link: link.clone(),
            untaken: 0,
            over: false,
            input: Arc::clone(&input),
            until: None,
            deadline: None,
        };
        (Self { events, input }, handle)
    }
}

/// A call that was asked for. Dropping it before its result cancels it.
#[derive(Debug)]
pub struct PendingCall {
    /// Number of the call on its connection, for [`super::Broker::cancel`].
    pub number: CallNumber,
    events: mpsc::Receiver<CallEvent>,
    link: Link,
    untaken: usize,
    over: bool,
    input: Arc<Semaphore>,
    /// When the toolhost is given up. Known once the call has started.
    until: Option<Instant>,
    /// When the call is over at the latest. Known as the above.
    deadline: Option<Instant>,
}

impl PendingCall {
    /// The next event. When the connection is lost the result has outcome internal; after the result the same is
    /// returned again and again. Cancel-safe: an event is returned or kept. Asking for the next event tells the
    /// toolhost that the last output was taken, so a caller that writes slowly slows the program down.
    pub async fn next(&mut self) -> CallEvent {
        while self.untaken > 0 {
            // A closed connection is reported by the events themselves.
            let Ok(place) = self.link.place().await else { break };
            place.send(Order::Taken(self.number));
            self.untaken = self.untaken.saturating_sub(1);
        }
        let received = match self.until {
            None => Some(self.events.recv().await),
            Some(until) => timeout_at(until, self.events.recv()).await.ok(),
        };
        let event = match received {
            Some(Some(event)) => event,
            Some(None) => {
                self.over = true;
                return CallEvent::Result(Box::new(self.link.lost(self.number, "", "")));
            }
            None => {
                self.over = true;
                let mut lost = self.link.lost(self.number, "", "");
                lost.outcome = Outcome::Internal {
                    message:
                        "the toolhost does not answer; the call may still run, look before you repeat it"
                            .to_owned(),
                };
                return CallEvent::Result(Box::new(lost));
            }
        };
        match &event {
            CallEvent::Output(_) => self.untaken = self.untaken.saturating_add(1),
            CallEvent::Result(result) => {
                self.over = true;
                // Ids, sizes and outcomes; the tool's name is a model's word and may be anything.
                tracing::info!(
                    call_id = %neutral::line(&result.call_id, 80),
                    tool = %neutral::line(&result.tool, 40),
                    outcome = result.outcome.name(),
                    exit_code = ?result.exit_code,
                    duration_ms = result.duration_ms,
                    output_bytes = result.output.total_bytes,
                    "the call ended"
                );
            }
            CallEvent::Started(started) => {
                tracing::info!(
                    call_id = %neutral::line(&started.call_id, 80),
                    deadline_ms = started.deadline_ms,
                    "the call started"
                );
                let patience = Duration::from_millis(started.deadline_ms).saturating_add(SILENCE);
                self.until = Instant::now().checked_add(patience);
                self.deadline = Instant::now().checked_add(Duration::from_millis(started.deadline_ms));
            }
            CallEvent::Progress(_) => {}
        }
        event
    }

    /// When the call is over at the latest, once it has started: from then on taking output costs no memory, for a program
    /// that was ended prints nothing more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The result, whatever comes before it.
    pub async fn result(mut self) -> Box<CallResult> {
        loop {
            match self.next().await {
                CallEvent::Result(result) => return result,
                CallEvent::Started(_) | CallEvent::Progress(_) | CallEvent::Output(_) => {}
            }
        }
    }

    pub(super) fn input(&self) -> RunInput {
        RunInput { number: self.number, link: self.link.clone(), window: Arc::clone(&self.input) }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.over {
            self.events.close();
            self.link.look_for_abandoned();
        }
    }
}

/// Standard input of a run.
#[derive(Debug)]
pub struct RunInput {
    number: CallNumber,
    link: Link,
    window: Arc<Semaphore>,
}

impl RunInput {
    /// Passes bytes on, waiting while the program does not take them.
    ///
    /// # Errors
    /// [`BrokerError::Gone`] when the connection is closed. Not when the program ended: its input is then thrown away.
    pub async fn write(&self, data: &[u8]) -> Result<(), BrokerError> {
        for piece in data.chunks(MAX_CHUNK) {
            self.send(piece.to_vec()).await?;
        }
        Ok(())
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// As [`RunInput::write`].
    pub async fn end(self) -> Result<(), BrokerError> {
        self.send(Vec::new()).await
    }

    async fn send(&self, data: Vec<u8>) -> Result<(), BrokerError> {
        // Closed when the call ended: the toolhost knows the number no more.
        let Ok(permit) = self.window.acquire().await else { return Ok(()) };
        permit.forget();
        self.link.order(Order::Send(ToToolhost::Stdin(StdinChunk { call: self.number, data }))).await
    }
}
