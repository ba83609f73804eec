//! Channels: where people write from and are answered.
//!
//! This file is the vocabulary every channel shares with the gateway. `admission` says who may talk, `split` and
//! `markup` make a reply fit a vendor; each vendor has a module of its own. A channel turns a vendor's events into
//! [`Inbound`] and a [`Letter`] into the vendor's calls. It keeps no queue, judges no one and knows no model.

mod address;
pub mod admission;
pub mod email;
pub mod markup;
pub mod split;
pub mod telegram;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::hands::BoxFuture;

/// Who wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The vendor's id: never given to another person.
    pub id: String,
    /// A name people choose themselves and may give up, such as a user name without `@`.
    pub handle: Option<String>,
    /// For people to read. Untrusted.
    pub name: String,
}

/// Where a reply goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The vendor's id of the chat.
    pub chat: String,
    /// Topic or thread in it.
    pub thread: Option<String>,
    /// Message that is answered.
    pub reply_to: Option<String>,
}

impl Target {
    /// No place at all, for what cannot be answered.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { chat: String::new(), thread: None, reply_to: None }
    }
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbound {
    /// The vendor's number of it: the same again when the vendor delivers it again.
    pub key: String,
    /// Who wrote.
    pub sender: Sender,
    /// Where an answer goes.
    pub target: Target,
    /// Between the person and us alone.
    pub direct: bool,
    /// In a group: we are meant.
    pub addressed: bool,
    /// What they said. Untrusted.
    pub text: String,
    /// Kinds of attachments that came with it and are not taken, for example `video`.
    pub left_out: Vec<String>,
}

impl Inbound {
    /// Key of the conversation it belongs to.
    #[must_use]
    pub fn conversation(&self, channel: &str) -> String {
        match &self.target.thread {
            Some(thread) => format!("{channel}:{}:{thread}", self.target.chat),
            None => format!("{channel}:{}", self.target.chat),
        }
    }
}

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Where to.
    pub target: Target,
    /// Markdown, short enough for the vendor.
    pub text: String,
}

/// What a vendor says a message is called.
pub type Reference = String;

/// Why a channel stopped receiving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelFault {
    /// The vendor does not accept us; trying again with the same token is of no use.
    #[error("refused: {0}")]
    Refused(String),
    /// The connection is gone, or the vendor is; it may come back.
    #[error("{0}")]
    Lost(String),
}

/// Why something was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendFault {
    /// It may work later, not before `after` where the vendor says so.
    #[error("{why}")]
    Later {
        /// What the vendor or the network said.
        why: String,
        /// Least time to wait.
        after: Option<Duration>,
    },
    /// It will never work: the chat is gone, or we were shut out of it.
    #[error("{why}")]
    Never {
        /// What the vendor said.
        why: String,
    },
}

/// Takes what comes in.
pub trait Intake: Send + Sync {
    /// The channel speaks to its vendor.
    fn up(&self);
    /// Whether a sender may talk, for a channel that must fetch what they wrote first.
    fn admits(&self, sender: &Sender) -> bool;
    /// Tells that a message was refused because its sender is not proven to be who it names.
    fn reject(&self, sender: &Sender, why: &str);
    /// How far the channel had read when it last said so.
    fn place(&self) -> BoxFuture<'_, Result<Option<String>, crate::store::StoreError>>;
    /// Keeps how far the channel has read.
    fn keep_place(&self, place: String) -> BoxFuture<'_, Result<(), crate::store::StoreError>>;
    /// Takes a message. When it returns without an error the vendor may be told that it arrived. `false`: it is a
    /// stranger's or not for us, and nothing may be shown of our having seen it.
    fn accept(&self, message: Inbound) -> BoxFuture<'_, Result<bool, crate::store::StoreError>>;
}

/// One vendor's connection.
pub trait Channel: Send + Sync {
    /// Its name, as in the configuration.
    fn name(&self) -> &'static str;

    /// Most units of text the vendor takes in one message, and what it counts.
    fn limit(&self) -> split::Limit;

    /// Whether each message stands for itself, as a mail does: nothing is shown while an answer is made, and every piece
    /// of an answer names what it answers.
    fn stands_alone(&self) -> bool {
        false
    }

    /// Receives until it cannot any more. Never returns without a fault; dropping the future stops it.
    fn receive<'a>(&'a self, intake: &'a dyn Intake) -> BoxFuture<'a, ChannelFault>;

    /// Sends one message. `key` is the same when the same message is sent again.
    fn send<'a>(&'a self, letter: &'a Letter, key: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>>;

    /// Asks for a yes or no to the call `id`. The text says how to answer in words, `/approve ID` or `/deny ID`; where a
    /// vendor has buttons, they say the same.
    fn ask<'a>(&'a self, letter: &'a Letter, id: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>> {
        Box::pin(async move { self.send(letter, &format!("ask:{id}")).await })
    }

    /// Replaces the text of a message that was sent.
    fn edit<'a>(&'a self, letter: &'a Letter, reference: &'a str) -> BoxFuture<'a, Result<(), SendFault>>;

    /// Shows for some seconds that an answer is being written. What goes wrong is of no consequence.
    fn typing<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, ()>;
}
