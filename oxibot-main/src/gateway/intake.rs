//! Takes what channels receive: who may talk is asked first, and what they said is kept before anything else happens.
//!
//! A stranger sees nothing at all: no typing, no reply, no reaction. That they came is an event, told at most once a
//! minute for each of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::command;
use super::office::Office;
use super::supervise::State;
use crate::agent::hands::BoxFuture;
use crate::agent::runner::now_millis;
use crate::channels::admission::{Admission, Identity, admit};
use crate::channels::{Inbound, Intake, Sender};
use crate::config::GroupPolicy;
use crate::store::StoreError;

/// How often one stranger is worth a line in the log.
const TOLD: Duration = Duration::from_secs(60);
/// Strangers remembered for that. More forget the oldest.
const REMEMBERED: usize = 1000;

/// Whom a channel listens to.
#[derive(Debug, Clone)]
pub struct Door {
    /// `allowedUsers`.
    pub allowed: Vec<String>,
    /// How its ids are written.
    pub identity: Identity,
    /// When to answer in a group.
    pub group_policy: GroupPolicy,
    /// Groups for `allowlist`.
    pub groups: Vec<String>,
    /// Whether groups are answered at all.
    pub in_groups: bool,
}

/// A message was kept.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) conversation: String,
}

/// The intake of one channel.
pub(super) struct Desk {
    pub(super) channel: &'static str,
    pub(super) door: Door,
    pub(super) office: Arc<Office>,
    pub(super) hub: mpsc::Sender<Arrived>,
    pub(super) strangers: Strangers,
}

impl Intake for Desk {
    fn up(&self) {
        if let Some(post) = self.office.channels.get(self.channel) {
            post.set(State::Up);
        }
    }

    fn admits(&self, sender: &Sender) -> bool {
        admit(&self.door.allowed, sender, self.door.identity).admitted()
    }

    fn reject(&self, sender: &Sender, why: &str) {
        self.office.figures.strangers.add();
        if self.strangers.tell(&sender.id, Instant::now()) {
            tracing::warn!(
                target: "oxibot_channels", event = "auth_rejected", channel = self.channel, sender = %sender.id,
                "auth_rejected: {why}"
            );
        }
    }

    fn place(&self) -> BoxFuture<'_, Result<Option<String>, StoreError>> {
        let channel = self.channel;
        Box::pin(self.office.store().run(move |store| store.place(channel)))
    }

    fn keep_place(&self, place: String) -> BoxFuture<'_, Result<(), StoreError>> {
        let channel = self.channel;
        Box::pin(self.office.store().run(move |store| store.keep_place(channel, &place)))
    }

    fn accept(&self, message: Inbound) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.take(message))
    }
}

impl Desk {
    async fn take(&self, message: Inbound) -> Result<bool, StoreError> {
        let admission = admit(&self.door.allowed, &message.sender, self.door.identity);
        if !admission.admitted() {
            self.office.figures.strangers.add();
            if self.strangers.tell(&message.sender.id, Instant::now()) {
                tracing::warn!(
                    target: "oxibot_channels", event = "auth_rejected", channel = self.channel,
                    sender = %message.sender.id, chat = %message.target.chat,
                    "auth_rejected: not in channels.{}.allowedUsers", self.channel
                );
            }
            return Ok(false);
        }
        if !self.wanted(&message) {
            return Ok(false);
        }
        if admission == Admission::ByHandle && self.strangers.tell(&message.sender.id, Instant::now()) {
            tracing::warn!(
                target: "oxibot_channels", channel = self.channel, sender = %message.sender.id,
                "admitted by a name that its owner can give up; put the id into allowedUsers instead"
            );
        }
        let conversation = message.conversation(self.channel);
        let body = serde_json::to_string(&message).map_err(StoreError::Encode)?;
        let (channel, key, name) = (self.channel, message.key.clone(), conversation.clone());
        let new = self
            .office
            .store()
            .run(move |store| store.receive(channel, &key, &name, &body, now_millis()))
            .await?;
        if new {
            self.office.figures.messages.add();
            tracing::info!(
                target: "oxibot_channels", event = "incoming_message", channel = self.channel,
                sender = %message.sender.id, conversation = %conversation,
                bytes = message.text.len(), command = !matches!(command::read(&message.text), command::Said::Message),
                "incoming_message"
            );
            // The hub may be ending: the message is kept, and found at the next start.
            let _ending = self.hub.send(Arrived { conversation }).await;
        }
        Ok(true)
    }

    /// Whether a message is meant for us, as far as the configuration says.
    fn wanted(&self, message: &Inbound) -> bool {
        if message.direct {
            return true;
        }
        if !self.door.in_groups {
            if message.addressed && self.strangers.tell(&message.target.chat, Instant::now()) {
                tracing::warn!(
                    target: "oxibot_channels", channel = self.channel, chat = %message.target.chat,
                    "not answered: in a group everybody would read what memory/ and USER.md hold; set \
                     agents.workspaceScope to \"sender\" to give groups a workspace of their own, or groups.memory to true"
                );
            }
            return false;
        }
        match self.door.group_policy {
            GroupPolicy::Mention => message.addressed,
            GroupPolicy::Open => true,
            GroupPolicy::Allowlist => self.door.groups.contains(&message.target.chat),
        }
    }
}

/// When each stranger was last told of.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<BTreeMap<String, Instant>>);

impl Strangers {
    /// Whether it is time to tell of them.
    fn tell(&self, id: &str, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, last| now.saturating_duration_since(*last) < TOLD);
        if seen.contains_key(id) {
            return false;
        }
        if seen.len() >= REMEMBERED
            && let Some(oldest) = seen.iter().min_by_key(|(_, last)| **last).map(|(id, _)| id.clone())
        {
            seen.remove(&oldest);
        }
        seen.insert(id.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stranger_is_told_of_once_a_minute_and_a_crowd_costs_bounded_memory() {
        let strangers = Strangers::default();
        let start = Instant::now();
        assert!(strangers.tell("1", start));
        assert!(!strangers.tell("1", start + Duration::from_secs(59)));
        assert!(strangers.tell("1", start + Duration::from_secs(60)));
        for number in 0..3 * REMEMBERED {
            strangers.tell(&number.to_string(), start + Duration::from_secs(61));
        }
        assert_eq!(strangers.0.lock().unwrap().len(), REMEMBERED);
    }
}
