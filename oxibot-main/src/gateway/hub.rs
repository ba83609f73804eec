//! One worker a conversation, started when something is there to answer and gone when nothing is.
//!
//! It owns every worker: nothing is detached, and a worker that panics is replaced, because its message is still
//! unanswered. Commands that need no turn are answered at once, also while a turn of their conversation runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, timeout};

use super::command::{self, Said};
use super::intake::Arrived;
use super::office::Office;
use super::worker::{self, Nudge, work};
use crate::channels::Inbound;
use crate::store::StoreError;
use crate::store::post::Received;

/// Nudges that may wait for a worker. Further ones say nothing new.
const NUDGES: usize = 16;
/// How long turns may go on after the gateway was asked to end. The launcher waits 30 s for all of it.
const DRAIN: Duration = Duration::from_secs(20);
/// Before a worker that panicked is replaced. Prevents a message that always breaks it from taking the machine.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// Runs until the gateway ends.
pub(super) async fn run(
    office: Arc<Office>,
    mut arrivals: mpsc::Receiver<Arrived>,
    mut ending: watch::Receiver<bool>,
) {
    let mut hub = Hub { office, workers: JoinSet::new(), at: BTreeMap::new(), names: BTreeMap::new() };
    hub.pick_up().await;
    loop {
        tokio::select! {
            arrived = arrivals.recv() => match arrived {
                Some(arrived) => hub.arrived(arrived.conversation).await,
                None => break,
            },
            Some(joined) = hub.workers.join_next_with_id() => hub.left(joined).await,
            () = told_to_end(&mut ending) => break,
        }
    }
    hub.drain().await;
}

/// Until the gateway ends. A sender that is gone says so as well.
pub(super) async fn told_to_end(ending: &mut watch::Receiver<bool>) {
    drop(ending.wait_for(|ending| *ending).await);
}

struct Hub {
    office: Arc<Office>,
    workers: JoinSet<()>,
    at: BTreeMap<String, mpsc::Sender<Nudge>>,
    names: BTreeMap<Id, String>,
}

impl Hub {
    /// What an earlier process left unanswered.
    async fn pick_up(&mut self) {
        match self.office.store().run(|store| store.unanswered()).await {
            Ok(messages) => {
                let waiting: BTreeSet<String> =
                    messages.into_iter().map(|message| message.conversation).collect();
                if !waiting.is_empty() {
                    tracing::info!(target: "oxibot_agent", conversations = waiting.len(), "going on with what was left");
                }
                for conversation in waiting {
                    self.start(conversation);
                }
            }
            Err(error) => {
                tracing::error!(target: "oxibot_agent", %error, "cannot read what was left unanswered")
            }
        }
    }

    async fn arrived(&mut self, conversation: String) {
        if let Err(error) = self.commands(&conversation).await {
            tracing::warn!(target: "oxibot_agent", conversation = %conversation, %error, "a command waits for its turn");
        }
        match self.at.get(&conversation) {
            // Full: it has been told, and looks for itself.
            Some(worker) => drop(worker.try_send(Nudge::More)),
            None => self.start(conversation),
        }
    }

    /// Answers the commands of a conversation that need no turn.
    async fn commands(&self, conversation: &str) -> Result<(), crate::agent::runner::AgentError> {
        for (message, inbound, said) in self.waiting(conversation).await? {
            let mut stopped = false;
            if said == Said::StopAll && self.office.person(&message.channel, &inbound).admin {
                for worker in self.at.values() {
                    // A worker with that much to read is told by the toolhost, which ends its calls.
                    stopped |= worker.try_send(Nudge::Stop).is_ok();
                }
            }
            if said == Said::Stop
                && let Some(worker) = self.at.get(conversation)
            {
                stopped = timeout(Duration::from_secs(1), worker.send(Nudge::Stop))
                    .await
                    .is_ok_and(|sent| sent.is_ok());
            }
            worker::at_once(&self.office, &message, &inbound, &said, stopped).await?;
        }
        Ok(())
    }

    async fn waiting(&self, conversation: &str) -> Result<Vec<(Received, Inbound, Said)>, StoreError> {
        let mut found = Vec::new();
        let mut last = 0;
        loop {
            let (name, after) = (conversation.to_owned(), last);
            let next = self.office.store().run(move |store| store.next_unanswered(&name, after)).await?;
            let Some(message) = next else { return Ok(found) };
            last = message.id;
            let Ok(inbound) = serde_json::from_str::<Inbound>(&message.body) else { continue };
            let said = command::read(&inbound.text);
            if said.at_once() {
                found.push((message, inbound, said));
            }
        }
    }

    fn start(&mut self, conversation: String) {
        let (nudge, nudges) = mpsc::channel(NUDGES);
        let handle = self.workers.spawn(work(Arc::clone(&self.office), conversation.clone(), nudges));
        self.names.insert(handle.id(), conversation.clone());
        self.at.insert(conversation, nudge);
    }

    /// A worker is done. Something may have come after it looked for the last time.
    async fn left(&mut self, joined: Result<(Id, ()), tokio::task::JoinError>) {
        let (id, panicked) = match joined {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(conversation) = self.names.remove(&id) else { return };
        self.at.remove(&conversation);
        if panicked {
            tracing::error!(target: "oxibot_agent", conversation = %conversation, "a worker panicked and is replaced");
            let (office, name) = (Arc::clone(&self.office), conversation.clone());
            let (nudge, nudges) = mpsc::channel(NUDGES);
            let handle = self.workers.spawn(async move {
                sleep(AFTER_PANIC).await;
                work(office, name, nudges).await;
            });
            self.names.insert(handle.id(), conversation.clone());
            self.at.insert(conversation, nudge);
            return;
        }
        let name = conversation.clone();
        match self.office.store().run(move |store| store.next_unanswered(&name, 0)).await {
            Ok(Some(_)) => self.start(conversation),
            Ok(None) => {}
            // It is found at the next message, or the next start.
            Err(error) => tracing::error!(target: "oxibot_agent", %error, "cannot look for more messages"),
        }
    }

    /// Lets turns end by themselves for a while. What does not is dropped: its message is unanswered, and the journal
    /// tells the next start how far it came.
    async fn drain(mut self) {
        let all = async { while self.workers.join_next().await.is_some() {} };
        if timeout(DRAIN, all).await.is_err() {
            tracing::warn!(target: "oxibot_agent", turns = self.workers.len(), "turns were cut off by the end of the gateway");
        }
        self.workers.shutdown().await;
    }
}
