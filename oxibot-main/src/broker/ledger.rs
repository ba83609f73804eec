//! What main waits for on one connection, and whether what arrives was asked for. No I/O: messages in, answers to
//! whoever waits out.
//!
//! Each message must answer something: a result for a call that was not made, output beyond the window or an answer
//! nobody asked for is a [`Violation`], and the connection is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use oxibot_proto::message::{
    Approved, CHUNK_WINDOW, CallNumber, CallResult, FileChunk, Judgement, MAX_APPROVALS, MAX_CHUNK, Outcome,
    Output, Stopped, ToMain, ToolSpec, ToolhostHello, ToolhostStatus, TransferEnd,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::redaction;

use super::BrokerError;
use super::call::{CallEvent, Pending, RESERVED};

/// The peer broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it sent {message} {what}")]
pub(super) struct Violation {
    message: &'static str,
    what: &'static str,
}

/// What a judgement comes back as.
pub(super) type Judged = Result<Judgement, Box<CallResult>>;
/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, BrokerError>>;

/// A call or run that waits for its result.
#[derive(Debug)]
struct CallEntry {
    tool: String,
    run: bool,
    call_id: String,
    started: bool,
    untaken: usize,
    abandoned: bool,
    pending: Pending,
}

/// What is waited for under one number.
#[derive(Debug)]
enum Entry {
    Call(CallEntry),
    Judge(Answer<Judged>),
    Get { chunks: mpsc::Sender<FileChunk>, end: oneshot::Sender<TransferEnd>, untaken: usize },
    Put { credit: Arc<Semaphore>, end: oneshot::Sender<TransferEnd> },
}

/// Everything that is waited for.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<CallNumber, Entry>,
    tools: VecDeque<Answer<Vec<ToolSpec>>>,
    statuses: VecDeque<Answer<ToolhostStatus>>,
    stops: VecDeque<Answer<Stopped>>,
    /// Who waits for what a person said, by the id of the approval.
    approvals: HashMap<String, Vec<Answer<Approved>>>,
    /// What was said before anybody waited for it, or when nobody did any more; the oldest first.
    said: VecDeque<Approved>,
}

/// Answers remembered until somebody waits for them. More cannot be pending, so an older one is one that nobody wants.
const MOST_SAID: usize = MAX_APPROVALS;

impl Ledger {
    pub(super) fn call(&mut self, number: CallNumber, tool: String, run: bool, pending: Pending) {
        let entry = CallEntry {
            tool,
            run,
            call_id: String::new(),
            started: false,
            untaken: 0,
            abandoned: false,
            pending,
        };
        self.entries.insert(number, Entry::Call(entry));
    }

    pub(super) fn judge(&mut self, number: CallNumber, answer: Answer<Judged>) {
        self.entries.insert(number, Entry::Judge(answer));
    }

    pub(super) fn get(
        &mut self,
        number: CallNumber,
        chunks: mpsc::Sender<FileChunk>,
        end: oneshot::Sender<TransferEnd>,
    ) {
        self.entries.insert(number, Entry::Get { chunks, end, untaken: 0 });
    }

    pub(super) fn put(
        &mut self,
        number: CallNumber,
        credit: Arc<Semaphore>,
        end: oneshot::Sender<TransferEnd>,
    ) {
        self.entries.insert(number, Entry::Put { credit, end });
    }

    pub(super) fn tools(&mut self, answer: Answer<Vec<ToolSpec>>) {
        self.tools.push_back(answer);
    }

    pub(super) fn status(&mut self, answer: Answer<ToolhostStatus>) {
        self.statuses.push_back(answer);
    }

    pub(super) fn stop(&mut self, answer: Answer<Stopped>) {
        self.stops.push_back(answer);
    }

    pub(super) fn approval(&mut self, id: String, answer: Answer<Approved>) {
        // Turns that were stopped and waits that were over leave these behind.
        self.approvals.retain(|_, waiting| waiting.iter().any(|answer| !answer.is_closed()));
        let said = self.said.iter().position(|said| said.id == id).and_then(|at| self.said.remove(at));
        match said {
            Some(said) => drop(answer.send(Ok(said))),
            None => self.approvals.entry(id).or_default().push(answer),
        }
    }

    fn approved(&mut self, approved: Approved) {
        if let Some(waiting) = self.approvals.remove(&approved.id) {
            for answer in waiting {
                // Nobody waits any more: nothing is lost by not telling.
                drop(answer.send(Ok(approved.clone())));
            }
            return;
        }
        if self.said.len() >= MOST_SAID {
            self.said.pop_front();
        }
        self.said.push_back(approved);
    }

    /// One chunk was taken. `false` when there is nothing to tell the toolhost any more.
    pub(super) fn taken(&mut self, number: CallNumber) -> bool {
        match self.entries.get_mut(&number) {
            Some(Entry::Call(CallEntry { untaken, .. }) | Entry::Get { untaken, .. }) if *untaken > 0 => {
                *untaken = untaken.saturating_sub(1);
                true
            }
            Some(Entry::Call(_) | Entry::Get { .. } | Entry::Judge(_) | Entry::Put { .. }) | None => false,
        }
    }

    /// Whether something with this number is still waited for.
    pub(super) fn knows(&self, number: CallNumber) -> bool {
        self.entries.contains_key(&number)
    }

    /// Calls and transfers whose caller went away since the last look: to be cancelled.
    pub(super) fn newly_abandoned(&mut self) -> Vec<CallNumber> {
        let mut abandoned = Vec::new();
        for (number, entry) in &mut self.entries {
            match entry {
                Entry::Call(call) => {
                    if !call.abandoned && call.pending.events.is_closed() {
                        call.abandoned = true;
                        abandoned.push(*number);
                    }
                }
                Entry::Get { end, .. } | Entry::Put { end, .. } => {
                    if end.is_closed() {
                        abandoned.push(*number);
                    }
                }
                Entry::Judge(_) => {}
            }
        }
        abandoned
    }

    /// Takes a message of the toolhost. Hello and bye are not for the ledger.
    ///
    /// # Errors
    /// [`Violation`] when it answers nothing that was asked.
    pub(super) fn accept(&mut self, mut message: ToMain) -> Result<(), Violation> {
        // The one place where what tools said comes in.
        match &mut message {
            ToMain::CallResult(result) => redaction::result(result),
            ToMain::TransferEnd(end) => redaction::outcome(&mut end.outcome),
            ToMain::Judgement(judgement) => {
                for command in &mut judgement.commands {
                    *command = redaction::text(command).into_owned();
                }
            }
            // What a person is to say yes to is shown as it is: a call that differs from its text would be another one.
            ToMain::Approvals(_)
            | ToMain::Approved(_)
            | ToMain::Hello(_)
            | ToMain::Tools(_)
            | ToMain::Status(_)
            | ToMain::Stopped(_)
            | ToMain::Started(_)
            | ToMain::Progress(_)
            | ToMain::Output(_)
            | ToMain::StdinTaken(_)
            | ToMain::PutProgress(_)
            | ToMain::GetChunk(_)
            | ToMain::Attacked(_)
            | ToMain::AttackDone(_)
            | ToMain::Bye(_) => {}
        }
        let name = message.name();
        let wrong = |what| Err(Violation { message: name, what });
        match message {
            ToMain::Tools(tools) => answer(self.tools.pop_front(), tools, name),
            ToMain::Status(status) => answer(self.statuses.pop_front(), status, name),
            ToMain::Stopped(stopped) => answer(self.stops.pop_front(), stopped, name),
            ToMain::Started(started) => {
                let Some(call) = self.running(started.call) else { return wrong("for no call of ours") };
                if call.started {
                    return wrong("twice for one call");
                }
                call.started = true;
                call.call_id.clone_from(&started.call_id);
                deliver(call, CallEvent::Started(started), name)
            }
            ToMain::Progress(progress) => {
                let Some(call) = self.running(progress.call) else { return wrong("for no call of ours") };
                if call.pending.events.capacity() > RESERVED {
                    deliver(call, CallEvent::Progress(progress), name)
                } else {
                    Ok(())
                }
            }
            ToMain::Output(chunk) => {
                if chunk.data.len() > MAX_CHUNK {
                    return wrong("with a chunk above the limit");
                }
                let Some(call) = self.running(chunk.call) else { return wrong("for no call of ours") };
                if !call.run {
                    return wrong("for a call, which has none");
                }
                if call.untaken >= CHUNK_WINDOW {
                    return wrong("beyond the window");
                }
                call.untaken = call.untaken.saturating_add(1);
                deliver(call, CallEvent::Output(chunk), name)
            }
            ToMain::StdinTaken(number) => {
                let Some(call) = self.running(number) else { return wrong("for no call of ours") };
                if !call.run || call.pending.input.available_permits() >= CHUNK_WINDOW {
                    return wrong("for input that was not sent");
                }
                call.pending.input.add_permits(1);
                Ok(())
            }
            ToMain::CallResult(result) => match self.entries.remove(&result.call) {
                Some(Entry::Call(call)) => {
                    call.pending.input.close();
                    deliver(&call, CallEvent::Result(result), name)
                }
                // Unknown tool or bad arguments: there is nothing to judge.
                Some(Entry::Judge(answer)) => {
                    // Nobody waits any more: nothing is lost by not telling.
                    drop(answer.send(Ok(Err(result))));
                    Ok(())
                }
                Some(Entry::Get { .. } | Entry::Put { .. }) => wrong("for a transfer"),
                None => wrong("for no call of ours"),
            },
            ToMain::Judgement(judgement) => match self.entries.remove(&judgement.call) {
                Some(Entry::Judge(answer)) => {
                    drop(answer.send(Ok(Ok(judgement))));
                    Ok(())
                }
                Some(Entry::Call(_) | Entry::Get { .. } | Entry::Put { .. }) | None => {
                    wrong("for nothing that was to be judged")
                }
            },
            ToMain::PutProgress(number) => match self.entries.get_mut(&number) {
                Some(Entry::Put { credit, .. }) if credit.available_permits() < CHUNK_WINDOW => {
                    credit.add_permits(1);
                    Ok(())
                }
                Some(Entry::Put { .. } | Entry::Call(_) | Entry::Judge(_) | Entry::Get { .. }) | None => {
                    wrong("for chunks that were not sent")
                }
            },
            ToMain::GetChunk(chunk) => {
                if chunk.data.len() > MAX_CHUNK {
                    return wrong("with a chunk above the limit");
                }
                match self.entries.get_mut(&chunk.call) {
                    Some(Entry::Get { chunks, untaken, .. }) if *untaken < CHUNK_WINDOW => {
                        *untaken = untaken.saturating_add(1);
                        match chunks.try_send(chunk) {
                            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
                            Err(TrySendError::Full(_)) => wrong("beyond the window"),
                        }
                    }
                    Some(Entry::Get { .. }) => wrong("beyond the window"),
                    Some(Entry::Put { .. } | Entry::Call(_) | Entry::Judge(_)) | None => {
                        wrong("for no transfer of ours")
                    }
                }
            }
            ToMain::TransferEnd(ended) => match self.entries.remove(&ended.call) {
                Some(Entry::Get { end, .. }) => {
                    drop(end.send(ended));
                    Ok(())
                }
                Some(Entry::Put { credit, end }) => {
                    drop(end.send(ended));
                    credit.close();
                    Ok(())
                }
                Some(Entry::Call(_) | Entry::Judge(_)) | None => wrong("for no transfer of ours"),
            },
            // Asked for by `doctor --attack` and `approvals` alone, which have connections of their own.
            ToMain::Attacked(_) | ToMain::AttackDone(_) | ToMain::Approvals(_) => wrong("unasked"),
            ToMain::Approved(approved) => {
                self.approved(approved);
                Ok(())
            }
            ToMain::Hello(_) | ToMain::Bye(_) => wrong("out of turn"),
        }
    }

    /// The connection is over: every call gets an internal result, everything else an error.
    pub(super) fn fail_all(&mut self, why: &BrokerError, hello: &ToolhostHello) {
        for (number, entry) in self.entries.drain() {
            match entry {
                Entry::Call(call) => {
                    call.pending.input.close();
                    let result = lost(number, &call.call_id, &call.tool, why, hello);
                    // Either there is room, which is reserved, or nobody waits.
                    drop(call.pending.events.try_send(CallEvent::Result(Box::new(result))));
                }
                Entry::Judge(answer) => drop(answer.send(Err(why.clone()))),
                // Their channels close with them, and the other end asks why.
                Entry::Get { .. } => {}
                Entry::Put { credit, .. } => credit.close(),
            }
        }
        for answer in self.approvals.drain().flat_map(|(_, waiting)| waiting) {
            drop(answer.send(Err(why.clone())));
        }
        for answer in self.tools.drain(..) {
            drop(answer.send(Err(why.clone())));
        }
        for answer in self.statuses.drain(..) {
            drop(answer.send(Err(why.clone())));
        }
        for answer in self.stops.drain(..) {
            drop(answer.send(Err(why.clone())));
        }
    }

    fn running(&mut self, number: CallNumber) -> Option<&mut CallEntry> {
        match self.entries.get_mut(&number) {
            Some(Entry::Call(call)) => Some(call),
            Some(Entry::Judge(_) | Entry::Get { .. } | Entry::Put { .. }) | None => None,
        }
    }
}

/// The result of a call whose answer will never come.
pub(super) fn lost(
    call: CallNumber,
    call_id: &str,
    tool: &str,
    why: &BrokerError,
    hello: &ToolhostHello,
) -> CallResult {
    CallResult {
        call,
        call_id: call_id.to_owned(),
        tool: tool.to_owned(),
        outcome: Outcome::Internal { message: format!("{why}; whether the call took effect is not known") },
        exit_code: None,
        signal: None,
        output: Output { head: Vec::new(), tail: Vec::new(), total_bytes: 0, passed_bytes: 0, file: None },
        violations: Vec::new(),
        notes: Vec::new(),
        level: hello.wall.level,
        proven: hello.wall.proven,
        duration_ms: 0,
        usage: None,
        view: None,
        approval: None,
    }
}

fn answer<T>(waiting: Option<Answer<T>>, value: T, name: &'static str) -> Result<(), Violation> {
    match waiting {
        Some(waiting) => {
            // Nobody waits any more: nothing is lost by not telling.
            drop(waiting.send(Ok(value)));
            Ok(())
        }
        None => Err(Violation { message: name, what: "unasked" }),
    }
}

fn deliver(call: &CallEntry, event: CallEvent, name: &'static str) -> Result<(), Violation> {
    match call.pending.events.try_send(event) {
        Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        Err(TrySendError::Full(_)) => {
            Err(Violation { message: name, what: "more often than there is room for" })
        }
    }
}
