//! What every worker of the gateway shares: the agent, the store, the channels, the counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use oxibot_proto::message::Origin;
use tokio::sync::{Notify, Semaphore};

use super::consent::{InChat, Person, Questions};
use super::exits::Exits;
use super::figures::Figures;
use super::rooms::{Rooms, TooLong};
use super::supervise::State;
use crate::agent::acting::Acting;
use crate::agent::allowance::Allowance;
use crate::agent::hands::Mind;
use crate::agent::runner::{Agent, Terms};
use crate::broker::Broker;
use crate::channels::admission::{Admission, Identity, admit};
use crate::channels::{Channel, Inbound, Letter, Target, split};
use crate::redaction;
use crate::repl::OpenMind;
use crate::store::Store;
use crate::store::post::NewDelivery;

/// Turns that are held at once. More wait; each conversation has its own place in the line.
pub(super) const TURNS_AT_ONCE: usize = 8;
/// Messages a single answer may be cut into. Prevents one reply from filling a chat.
const MOST_LETTERS: usize = 20;

/// What the gateway talks and thinks with.
pub struct Voice {
    /// The agent, as the command line has it; its hands are replaced for each conversation.
    pub agent: Agent,
    /// Model and budgets.
    pub terms: Terms,
    /// For `/model`.
    pub open_mind: OpenMind,
    /// Asks the toolhost.
    pub broker: Broker,
    /// How much each sender may ask for.
    pub allowance: Allowance,
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// The shared things.
pub(super) struct Office {
    pub(super) voice: Voice,
    pub(super) channels: BTreeMap<&'static str, Post>,
    pub(super) turns: Semaphore,
    pub(super) figures: Figures,
    /// Calls that wait for a yes.
    pub(super) questions: Questions,
    pub(super) exits: Exits,
    house: House,
    /// Models people chose for their conversation, until the next start.
    chosen: Mutex<BTreeMap<String, Choice>>,
}

/// Who runs it, and who shares what.
#[derive(Debug)]
pub(super) struct House {
    pub(super) admins: Admins,
    pub(super) rooms: Rooms,
}

/// Who may do what others may not, by channel. Only an id makes an administrator: a name can be given up.
#[derive(Debug, Default)]
pub(super) struct Admins(BTreeMap<String, (Vec<String>, Identity)>);

impl Admins {
    /// From `channel:id`, for these channels.
    pub(super) fn new(listed: &[String], channels: &BTreeMap<&'static str, Identity>) -> Self {
        let mut all = BTreeMap::new();
        for (channel, identity) in channels {
            let ids = listed.iter().filter_map(|entry| entry.split_once(':'));
            let ids = ids.filter(|(named, _)| named == channel).map(|(_, id)| id.to_owned()).collect();
            all.insert((*channel).to_owned(), (ids, *identity));
        }
        Self(all)
    }

    fn have(&self, channel: &str, sender: &crate::channels::Sender) -> bool {
        self.0.get(channel).is_some_and(|(ids, identity)| admit(ids, sender, *identity) == Admission::ById)
    }
}

/// A model someone chose.
#[derive(Clone)]
struct Choice {
    model: String,
    mind: Arc<dyn Mind>,
}

/// One channel and what is known of it.
pub(super) struct Post {
    pub(super) channel: Arc<dyn Channel>,
    /// Something may be due.
    pub(super) due: Notify,
    state: Mutex<State>,
}

impl Post {
    pub(super) fn new(channel: Arc<dyn Channel>) -> Self {
        Self { channel, due: Notify::new(), state: Mutex::new(State::Connecting) }
    }

    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl Office {
    pub(super) fn new(
        voice: Voice,
        channels: BTreeMap<&'static str, Post>,
        house: House,
        exits: Exits,
    ) -> Self {
        Self {
            voice,
            channels,
            turns: Semaphore::new(TURNS_AT_ONCE),
            figures: Figures::default(),
            questions: Questions::default(),
            exits,
            house,
            chosen: Mutex::new(BTreeMap::new()),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.voice.agent.store
    }

    /// The agent and its terms for one message. The toolhost is told who asks, as the audit log wants it.
    pub(super) fn agent(
        self: &Arc<Self>,
        channel: &str,
        conversation: &str,
        inbound: &Inbound,
    ) -> Result<(Agent, Terms), TooLong> {
        let who = self.person(channel, inbound).who;
        let approver = InChat {
            office: Arc::clone(self),
            channel: channel.to_owned(),
            conversation: conversation.to_owned(),
            who: who.clone(),
            target: inbound.target.clone(),
        };
        let origin = Origin { who, channel: channel.to_owned(), session: conversation.to_owned() };
        let mut agent = self.voice.agent.clone();
        let room = self.house.rooms.of(channel, inbound)?;
        agent.workspace = self.workspace(room.as_deref());
        let acting = Acting::new(self.voice.broker.clone(), origin, room);
        agent.hands = Arc::new(acting.asking(Arc::new(approver)));
        let mut terms = self.voice.terms.clone();
        if let Some(choice) = self.chosen().get(conversation) {
            agent.mind = Arc::clone(&choice.mind);
            terms.model.clone_from(&choice.model);
        }
        Ok((agent, terms))
    }

    /// Absolute path of the workspace a message is worked on in.
    pub(super) fn workspace_of(&self, channel: &str, inbound: &Inbound) -> String {
        self.workspace(self.house.rooms.of(channel, inbound).unwrap_or_default().as_deref())
    }

    fn workspace(&self, room: Option<&str>) -> String {
        room.map_or_else(|| self.voice.agent.workspace.clone(), str::to_owned)
    }

    /// Who wrote a message.
    pub(super) fn person(&self, channel: &str, inbound: &Inbound) -> Person {
        Person {
            who: format!("{channel}:{}", inbound.sender.id),
            name: inbound.sender.name.clone(),
            admin: self.house.admins.have(channel, &inbound.sender),
        }
    }

    /// The model of a conversation.
    pub(super) fn model(&self, conversation: &str) -> String {
        self.chosen()
            .get(conversation)
            .map_or_else(|| self.voice.terms.model.clone(), |choice| choice.model.clone())
    }

    /// Another model for a conversation.
    pub(super) fn choose(&self, conversation: &str, model: &str) -> Result<(), String> {
        let mind = (self.voice.open_mind)(model)?;
        self.chosen().insert(conversation.to_owned(), Choice { model: model.to_owned(), mind });
        Ok(())
    }

    fn chosen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Choice>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer as deliveries: cut to the vendor's size, the first one marked as the reply.
    pub(super) fn letters(
        &self,
        channel: &str,
        conversation: &str,
        message: i64,
        target: &Target,
        text: &str,
    ) -> Vec<NewDelivery> {
        let Some(post) = self.channels.get(channel) else { return Vec::new() };
        // Before it is cut: half a key is not recognised.
        let mut pieces = split::split(&redaction::text(text), post.channel.limit());
        if pieces.len() > MOST_LETTERS {
            let left = pieces.len() - MOST_LETTERS;
            pieces.truncate(MOST_LETTERS);
            pieces.push(format!("[{left} more messages were not sent; ask me to write the rest to a file]"));
        }
        pieces
            .into_iter()
            .enumerate()
            .filter_map(|(index, text)| {
                let names = index == 0 || post.channel.stands_alone();
                let target = Target { reply_to: target.reply_to.clone().filter(|_| names), ..target.clone() };
                let body = serde_json::to_string(&Letter { target, text }).ok()?;
                Some(NewDelivery {
                    key: format!("reply:{message}:{index}"),
                    channel: channel.to_owned(),
                    conversation: conversation.to_owned(),
                    body,
                })
            })
            .collect()
    }

    /// Something was written for a channel.
    pub(super) fn wake(&self, channel: &str) {
        if let Some(post) = self.channels.get(channel) {
            post.due.notify_one();
        }
    }
}
