//! Carries out what a turn wants: journals, asks, runs tools, and feeds the outcomes back.
//!
//! One task, nothing detached: dropping the future of [`Agent::turn`] abandons the request and the running calls, and
//! the journal tells the next turn what became of them. It holds the conversation's lock while a turn runs, so that two
//! processes never answer in one conversation at once. Deadlines of calls are the toolhost's, not its.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::asking::{AskFault, Asked, Asking};
use super::hands::{BoxFuture, CallEnding, CallProgress, Hands, Mind};
use super::history::{self, Past};
use super::prompt::{self, Surroundings};
use super::transcript::Transcript;
use super::turn::{Budget, CallKey, Effect, Event, Finished, Setting, Show, Turn};
use super::untrusted::Boundary;
use crate::model::{Message, OfferedTool, ToolCall};
use crate::store::{Entry, Expiry, Session, Store, StoreError, StoredEntry};

/// Calls of one turn that run at once; the rest of a reply's calls wait. Half of what the toolhost grants a workspace.
const CALLS_AT_ONCE: usize = 8;

/// Who watches a turn: a terminal, a channel, a test. Called from the turn's task; must not block for long.
pub trait Audience: Send + Sync {
    /// Text of the reply, as it streams in. Untrusted: it is the model's.
    fn text(&self, delta: &str);
    /// What streamed so far is void, the request is repeated.
    fn restarted(&self);
    /// A reply is whole.
    fn reply_ended(&self);
    /// A step of the turn.
    fn show(&self, show: &Show);
    /// A call is alive.
    fn progress(&self, key: CallKey, tool: &str, progress: CallProgress);
}

/// What reaches a running turn from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Stop. A second one does not wait for the calls.
    Cancel,
    /// Another message.
    Message(Message),
}

/// What a turn is held under.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Model as named to the person and in the journal.
    pub model: String,
    /// Budget of the turn.
    pub budget: Budget,
    /// Tokens of the model's window.
    pub window: u64,
    /// Tokens of a reply.
    pub max_tokens: u32,
    /// Sampling temperature.
    pub temperature: Option<f32>,
    /// Effort of models that reason.
    pub reasoning_effort: Option<String>,
}

/// Why a turn could not be held. Everything a model or provider does is in [`Finished`] instead.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The journal cannot be kept, so nothing may happen.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel gave no random numbers.
    #[error("cannot begin a conversation: {0}")]
    Random(std::io::Error),
}

/// The agent: what it thinks with, what it acts with, where it remembers.
#[derive(Clone)]
pub struct Agent {
    /// Conversations.
    pub store: Store,
    /// Runs tools.
    pub hands: Arc<dyn Hands>,
    /// Thinks.
    pub mind: Arc<dyn Mind>,
    /// Tools on offer.
    pub tools: Vec<OfferedTool>,
    /// Names and aliases a call may have.
    pub tool_names: BTreeSet<String>,
    /// Absolute path of the workspace.
    pub workspace: String,
    /// Level of the wall by name.
    pub level: String,
    /// When conversations end.
    pub expiry: Expiry,
}

impl Agent {
    /// The conversation that goes on under `name`, or a new one.
    pub async fn session(&self, name: &str) -> Result<Session, AgentError> {
        let boundary = Boundary::random().map_err(AgentError::Random)?;
        let (name, expiry, now) = (name.to_owned(), self.expiry, now_millis());
        Ok(self.store.run(move |d| d.open_session(&name, boundary.as_str(), expiry, now)).await?)
    }

    /// The last message of a conversation, for another try.
    ///
    /// A turn in which no tool ran is taken back, so that the message does not stand there twice. One in which a tool
    /// ran stays: what was done must not be forgotten.
    pub async fn retry(&self, session: &Session) -> Result<Option<Message>, AgentError> {
        let id = session.id;
        let _lock = self.lock(session).await?;
        let entries = self.store.run(move |d| d.entries(id)).await?;
        let last = entries.iter().rev().find_map(|stored| {
            if let Entry::TurnStarted { message, .. } = &stored.entry {
                Some((stored.turn, message.clone()))
            } else {
                None
            }
        });
        let Some((turn, message)) = last else { return Ok(None) };
        let ran =
            |stored: &StoredEntry| stored.turn == turn && matches!(stored.entry, Entry::CallBegun { .. });
        if !entries.iter().any(ran) {
            let back = [Entry::TakenBack { turn }];
            self.store.run(move |d| d.append(id, turn, &back, now_millis())).await?;
        }
        Ok(Some(message))
    }

    /// Holds one turn, from a message to its end.
    ///
    /// Errors: the conversation is busy elsewhere, or the journal cannot be written.
    pub async fn turn(
        &self,
        session: &Session,
        terms: &Terms,
        message: Message,
        audience: &dyn Audience,
        inbox: &mut mpsc::Receiver<Input>,
    ) -> Result<Finished, AgentError> {
        let _lock = self.lock(session).await?;
        let boundary = Boundary::stored(&session.boundary);
        let entries = self.recovered(session, audience).await?;
        let past = history::read(&entries);
        let (files, remarks) = prompt::read_files(self.hands.as_ref()).await;
        for remark in remarks {
            audience.show(&Show::Note(remark));
        }
        let around = Surroundings {
            date: prompt::date_of(now_millis()),
            workspace: self.workspace.clone(),
            level: self.level.clone(),
            session: session.name.clone(),
            tools: !self.tools.is_empty(),
        };
        let setting = Setting {
            budget: terms.budget,
            tools: self.tool_names.clone(),
            known_ids: history::call_ids(&past),
            boundary: boundary.clone(),
            model: terms.model.clone(),
        };
        let (stop, _) = watch::channel(false);
        Running {
            agent: self,
            session,
            terms,
            audience,
            system: prompt::compose(&around, &boundary, &files),
            boundary,
            scale: history::scale(&entries),
            past: Some(past),
            number: None,
            unwritten: Vec::new(),
            request: None,
            calls: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            stop,
        }
        .drive(Turn::new(setting), message, inbox)
        .await
    }

    async fn lock(&self, session: &Session) -> Result<crate::store::Lock, StoreError> {
        let session = session.clone();
        self.store.run(move |d| d.lock(&session)).await
    }

    /// The journal, after closing turns whose process died. The lock is held: none of them is running.
    async fn recovered(
        &self,
        session: &Session,
        audience: &dyn Audience,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let id = session.id;
        let entries = self.store.run(move |d| d.entries(id)).await?;
        let mut closed = false;
        for (turn, transcript) in history::transcripts(&entries) {
            let recovery = transcript.recover();
            if recovery.is_empty() {
                continue;
            }
            closed = true;
            audience.show(&Show::Note(interrupted(&transcript)));
            self.store.run(move |d| d.append(id, turn, &recovery, now_millis())).await?;
        }
        if closed { self.store.run(move |d| d.entries(id)).await } else { Ok(entries) }
    }
}

fn interrupted(transcript: &Transcript) -> String {
    let calls = transcript.unknown();
    if calls.is_empty() {
        return "the last turn was cut off before it was answered; use /retry to ask again".to_owned();
    }
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    format!(
        "the last turn was cut off while these calls ran: {}. Their outcome is unknown; they were not run again",
        names.join(", ")
    )
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A turn at work.
struct Running<'a> {
    agent: &'a Agent,
    session: &'a Session,
    terms: &'a Terms,
    audience: &'a dyn Audience,
    system: String,
    boundary: Boundary,
    scale: u64,
    /// With the request while one runs.
    past: Option<Past>,
    number: Option<i64>,
    unwritten: Vec<Entry>,
    request: Option<BoxFuture<'a, Asked>>,
    calls: FuturesUnordered<BoxFuture<'a, (CallKey, CallEnding)>>,
    waiting: VecDeque<(CallKey, ToolCall)>,
    stop: watch::Sender<bool>,
}

impl<'a> Running<'a> {
    async fn drive(
        mut self,
        mut turn: Turn,
        message: Message,
        inbox: &mut mpsc::Receiver<Input>,
    ) -> Result<Finished, AgentError> {
        let begun = Instant::now();
        let mut listening = true;
        let mut event = Event::Start(message);
        loop {
            let effects = turn.handle(event, begun.elapsed());
            if let Some(finished) = self.carry_out(effects).await? {
                return Ok(finished);
            }
            let deadline = begun + turn.deadline().unwrap_or(Duration::ZERO);
            let request = self.request.as_mut();
            let asked = async {
                if let Some(request) = request { request.await } else { std::future::pending().await }
            };
            // Each branch is cancel-safe: the futures live in `self`, channels lose nothing.
            event = tokio::select! {
                (past, result) = asked => {
                    self.request = None;
                    self.past = Some(past);
                    match result {
                        Ok((reply, estimate)) => {
                            self.audience.reply_ended();
                            Event::ModelReplied(reply, estimate)
                        }
                        Err(AskFault::Mind(fault)) => Event::ModelFailed(fault),
                        Err(AskFault::Store(error)) => return Err(error.into()),
                    }
                }
                Some((key, ending)) = self.calls.next() => {
                    self.start_waiting();
                    Event::ToolFinished(key, ending)
                }
                input = inbox.recv(), if listening => match input {
                    Some(Input::Cancel) => Event::Cancel,
                    Some(Input::Message(message)) => Event::Message(message),
                    None => {
                        listening = false;
                        Event::Tick
                    }
                },
                () = sleep_until(deadline) => Event::Tick,
            };
        }
    }

    /// In order: what was to be journalled is on disk before anything that follows it happens.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<Option<Finished>, AgentError> {
        let mut finished = None;
        for effect in effects {
            match effect {
                Effect::Persist(entry) => self.unwritten.push(entry),
                Effect::Show(show) => self.audience.show(&show),
                Effect::AskModel(messages) => {
                    self.write().await?;
                    self.request = Some(self.ask(messages));
                }
                Effect::AbandonModel => self.request = None,
                Effect::RunTool(key, call) => {
                    self.write().await?;
                    self.waiting.push_back((key, call));
                }
                Effect::CancelTools => {
                    self.stop.send_replace(true);
                }
                Effect::Finish(end) => finished = Some(end),
            }
        }
        self.write().await?;
        self.start_waiting();
        Ok(finished)
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.unwritten);
        let session = self.session.id;
        let number = match self.number {
            Some(number) => number,
            None => {
                let first = entries.remove(0);
                let number =
                    self.agent.store.run(move |d| d.begin_turn(session, &first, now_millis())).await?;
                self.number = Some(number);
                number
            }
        };
        self.agent.store.run(move |d| d.append(session, number, &entries, now_millis())).await
    }

    fn start_waiting(&mut self) {
        let stopped = *self.stop.borrow();
        while self.calls.len() < CALLS_AT_ONCE
            && let Some((key, call)) = self.waiting.pop_front()
        {
            if stopped {
                self.calls.push(Box::pin(std::future::ready((key, never_started()))));
                continue;
            }
            let (hands, audience, stop) = (&self.agent.hands, self.audience, self.stop.subscribe());
            self.calls.push(Box::pin(async move {
                let report = |progress| audience.progress(key, &call.name, progress);
                let ending = hands.call(&call, &report, stop).await;
                (key, ending)
            }));
        }
    }

    /// Asks the model, after summarising what no longer fits.
    fn ask(&mut self, current: Vec<Message>) -> BoxFuture<'a, Asked> {
        let asking = Asking {
            agent: self.agent,
            terms: self.terms,
            audience: self.audience,
            session: self.session.id,
            number: self.number.unwrap_or(0),
            system: self.system.clone(),
            boundary: self.boundary.clone(),
            scale: self.scale,
        };
        let mut past = self.past.take().unwrap_or_default();
        Box::pin(async move {
            let result = asking.ask(&mut past, &current).await;
            (past, result)
        })
    }
}

fn never_started() -> CallEnding {
    CallEnding {
        outcome: "cancelled".to_owned(),
        summary: "cancelled before it was started".to_owned(),
        output: String::new(),
        wall: String::new(),
        call_id: None,
        exit_code: None,
        duration: Duration::ZERO,
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
