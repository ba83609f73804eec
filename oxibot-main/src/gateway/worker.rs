//! One conversation at work: its messages in order, each to its answer.
//!
//! It ends when nothing is left to answer; the hub starts another when something comes. A message that cannot be
//! answered because the store or another process is in the way stays where it is and is tried again. What came while a
//! turn ran is folded into it, and belongs to it only as far as the journal says so.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oxibot_proto::message::StopScope;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::command::{self, Said};
use super::consent::Heard;
use super::office::{Office, Post};
use super::recover::{self, Fate};
use super::watcher::Watcher;
use super::words;
use crate::agent::allowance::{Admission, Sender};
use crate::agent::runner::{Agent, AgentError, Input, Terms, now_millis};
use crate::agent::turn::Finished;
use crate::channels::{Inbound, Letter, Target};
use crate::model::{Message, Role, TokenUsage};
use crate::redaction;
use crate::repl::table;
use crate::store::post::{Begun, Received};
use crate::store::{Ending, Entry, Session, StoreError};

/// Before a message whose answer failed for a reason of ours is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a vendor is told that an answer is being written; theirs forget after five seconds.
const TYPING: Duration = Duration::from_secs(4);
/// How often a word about a running call is changed at most.
const EDIT: Duration = Duration::from_secs(5);
/// Messages that may wait to be folded into a turn.
const FOLDED: usize = 32;
/// Days shown by `/usage`.
const USAGE_DAYS: u32 = 7;

/// What a worker is told while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nudge {
    /// Something came.
    More,
    /// End the turn that runs.
    Stop,
}

/// Works until nothing is left to answer.
pub(super) async fn work(office: Arc<Office>, conversation: String, mut nudges: mpsc::Receiver<Nudge>) {
    let paid = Paid::default();
    loop {
        let name = conversation.clone();
        let next = office.store().run(move |store| store.next_unanswered(&name, 0)).await;
        let outcome = match next {
            Ok(None) => return,
            Ok(Some(message)) => one(&office, &conversation, &message, &mut nudges, &paid).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = outcome {
            tracing::warn!(
                target: "oxibot_agent", conversation = %conversation, %error,
                "a message could not be answered and is tried again"
            );
            sleep(AGAIN).await;
        }
    }
}

async fn one(
    office: &Arc<Office>,
    conversation: &str,
    message: &Received,
    nudges: &mut mpsc::Receiver<Nudge>,
    paid: &Paid,
) -> Result<(), AgentError> {
    let Ok(inbound) = serde_json::from_str::<Inbound>(&message.body) else {
        tracing::error!(target: "oxibot_agent", message = message.id, "a kept message cannot be read and is left out");
        return answer(office, message, &[], &Target::nowhere(), "").await;
    };
    let said = command::read(&inbound.text);
    if said.at_once() {
        return at_once(office, message, &inbound, &said, false).await;
    }
    let (agent, terms) = match office.agent(&message.channel, conversation, &inbound) {
        Ok(found) => found,
        Err(error) => return answer(office, message, &[], &inbound.target, &format!("[{error}]")).await,
    };
    match said {
        Said::New => {
            let session = agent.session(conversation).await?;
            agent.store.run(move |store| store.expire(&session, now_millis())).await?;
            answer(office, message, &[], &inbound.target, "[a new conversation]").await
        }
        Said::Model(None) => {
            let text = format!("[model: {}]", office.model(conversation));
            answer(office, message, &[], &inbound.target, &text).await
        }
        Said::Model(Some(model)) => {
            let text = match office.choose(conversation, &model) {
                Ok(()) => format!("[going on with {model}]"),
                Err(why) => format!("[{why}; still {}]", office.model(conversation)),
            };
            answer(office, message, &[], &inbound.target, &text).await
        }
        Said::Retry | Said::Message => {
            let desk = Turn { office, conversation, message, inbound: &inbound, agent, terms, paid };
            desk.hold(said == Said::Retry, nudges).await
        }
        Said::Help
        | Said::Stop
        | Said::StopAll
        | Said::Restart
        | Said::Answer { .. }
        | Said::Status
        | Said::WhoAmI
        | Said::Usage
        | Said::Unknown(_) => Ok(()),
    }
}

/// Answers a command that needs no turn. `stopped`: a turn was told to end.
pub(super) async fn at_once(
    office: &Office,
    message: &Received,
    inbound: &Inbound,
    said: &Said,
    stopped: bool,
) -> Result<(), AgentError> {
    let text = match said {
        Said::Help => command::HELP.to_owned(),
        Said::Stop if stopped => "[stopping]".to_owned(),
        Said::Stop => "[nothing is running]".to_owned(),
        Said::StopAll | Said::Restart if !office.person(&message.channel, inbound).admin => {
            words::ADMINISTRATORS.to_owned()
        }
        Said::StopAll => match office.voice.broker.stop(StopScope::All).await {
            Ok(ended) => words::stopped_all(ended.ended),
            Err(error) => format!("[{error}]"),
        },
        Said::Restart => {
            tracing::warn!(target: "oxibot_main", who = %inbound.sender.id, "asked to start again by an administrator");
            // Kept before it happens: what was asked is answered, and not asked again by the next start.
            answer(office, message, &[], &inbound.target, "[starting again]").await?;
            office.exits.restart();
            return Ok(());
        }
        Said::Answer { yes, id } => {
            let by = office.person(&message.channel, inbound);
            match office.questions.answer(id, *yes, &message.conversation, &by) {
                // What came of it is shown where it was asked.
                Heard::Taken => String::new(),
                Heard::Nothing => words::unheard(id, true),
                Heard::NotYours => words::unheard(id, false),
            }
        }
        Said::Status => status(office, message, inbound),
        Said::WhoAmI => who(&message.channel, inbound),
        Said::Usage => {
            let rows = office.store().run(|store| store.usage(USAGE_DAYS, now_millis())).await?;
            format!("```\n{}```", table::usage(&rows, USAGE_DAYS))
        }
        Said::Unknown(name) => format!(
            "[there is no command /{}; /help lists them. Two slashes begin a message with a slash]",
            crate::render::neutral::line(name, 40)
        ),
        Said::Message | Said::New | Said::Retry | Said::Model(_) => return Ok(()),
    };
    answer(office, message, &[], &inbound.target, &text).await
}

fn status(office: &Office, message: &Received, inbound: &Inbound) -> String {
    let busy = super::office::TURNS_AT_ONCE.saturating_sub(office.turns.available_permits());
    format!(
        "model: {}\nsandbox: {}\nworkspace: {}\nturns running: {busy}",
        office.model(&message.conversation),
        office.voice.agent.level,
        office.workspace_of(&message.channel, inbound)
    )
}

fn who(channel: &str, inbound: &Inbound) -> String {
    let handle = inbound.sender.handle.as_deref().map_or_else(String::new, |handle| format!(" (@{handle})"));
    format!(
        "{channel} id {}{handle}, chat {}",
        crate::render::neutral::line(&inbound.sender.id, 80),
        crate::render::neutral::line(&inbound.target.chat, 80)
    )
}

/// Writes an answer to the outbox and calls its messages answered, in one step.
async fn answer(
    office: &Office,
    message: &Received,
    folded: &[i64],
    target: &Target,
    text: &str,
) -> Result<(), AgentError> {
    let letters = office.letters(&message.channel, &message.conversation, message.id, target, text);
    let mut answered = vec![message.id];
    answered.extend_from_slice(folded);
    office.store().run(move |store| store.answer(&answered, &letters, now_millis())).await?;
    office.wake(&message.channel);
    Ok(())
}

/// Messages that were taken from their sender's allowance and are not answered yet: one that a turn was offered and did
/// not take any more comes again, and is not paid for twice.
type Paid = Mutex<BTreeSet<i64>>;

/// Takes a message from its sender's allowance. One that is beyond it is answered with that, and not admitted.
async fn admitted(
    office: &Office,
    message: &Received,
    inbound: &Inbound,
    paid: &Paid,
) -> Result<bool, AgentError> {
    let seen = || paid.lock().unwrap_or_else(PoisonError::into_inner);
    if seen().contains(&message.id) {
        return Ok(true);
    }
    let allowance = &office.voice.allowance;
    let sender = sender_of(&message.channel, inbound);
    match allowance.message(&sender, std::time::Instant::now(), now_millis()).await? {
        Admission::Granted => {
            seen().insert(message.id);
            Ok(true)
        }
        Admission::Limited { limit, retry, reply } => {
            tracing::warn!(
                target: "oxibot_agent", event = "rate_limited", conversation = %message.conversation, limit,
                retry_s = retry.as_secs(), "rate_limited"
            );
            // Told once; the rest of a flood is taken in silence.
            let words = reply.map_or_else(String::new, |reply| format!("[{reply}]"));
            answer(office, message, &[], &inbound.target, &words).await?;
            Ok(false)
        }
    }
}

fn sender_of(channel: &str, inbound: &Inbound) -> Sender {
    Sender { channel: channel.to_owned(), who: inbound.sender.id.clone() }
}

/// One message and its turn.
struct Turn<'a> {
    office: &'a Office,
    conversation: &'a str,
    message: &'a Received,
    inbound: &'a Inbound,
    agent: Agent,
    terms: Terms,
    paid: &'a Paid,
}

impl Turn<'_> {
    async fn hold(self, retry: bool, nudges: &mut mpsc::Receiver<Nudge>) -> Result<(), AgentError> {
        if let Some(begun) = self.message.begun
            && self.recovered(begun).await?
        {
            return Ok(());
        }
        let text = command::for_the_model(&self.inbound.text);
        if !retry && text.trim().is_empty() {
            let words = words::left_out(&self.inbound.left_out, false);
            return answer(self.office, self.message, &[], &self.inbound.target, &words).await;
        }
        if self.message.begun.is_none()
            && !admitted(self.office, self.message, self.inbound, self.paid).await?
        {
            return Ok(());
        }
        // Held until the turn is over: how many turns run at once is the machine's business, not a conversation's.
        let Ok(_place) = self.office.turns.acquire().await else { return Ok(()) };
        let session = self.agent.session(self.conversation).await?;
        let said = if retry {
            let Some(last) = self.agent.retry(&session).await? else {
                let words = "[there is no message to send again]";
                return answer(self.office, self.message, &[], &self.inbound.target, words).await;
            };
            last
        } else {
            Message::text(Role::User, self.worded(text))
        };
        let (id, number) = (self.message.id, session.id);
        let begun = self.agent.store.run(move |store| store.begin_answer(id, number)).await?;
        self.office.figures.turns.add();
        let watcher = Watcher::new(self.office, self.conversation);
        let finished = self.attended(&session, said, &watcher, nudges).await?;
        self.office
            .voice
            .allowance
            .spent(&sender_of(&self.message.channel, self.inbound), finished.usage, now_millis())
            .await?;
        if finished.ending == Ending::ProviderFailed {
            self.office.figures.turns_failed.add();
        }
        let folded = self.folded(&session, begun).await?;
        let mut text = words::finished(&finished);
        for more in [watcher.refusals(), self.not_taken()] {
            if !more.is_empty() {
                text = format!("{text}\n\n{more}");
            }
        }
        answer(self.office, self.message, &folded, &self.inbound.target, &text).await
    }

    /// In a group the model must know who speaks.
    fn worded(&self, text: &str) -> String {
        if self.inbound.direct {
            return text.to_owned();
        }
        format!("{}: {text}", crate::render::neutral::line(&self.inbound.sender.name, 80))
    }

    fn not_taken(&self) -> String {
        if self.inbound.left_out.is_empty() {
            String::new()
        } else {
            words::left_out(&self.inbound.left_out, true)
        }
    }

    /// Holds the turn, and meanwhile shows that it runs, takes what comes, and stops it when asked.
    ///
    /// Three things beside each other, none within another: what is passed on to the turn waits until the turn takes
    /// it, and a vendor that does not answer keeps nobody but itself.
    async fn attended(
        &self,
        session: &Session,
        said: Message,
        watcher: &Watcher<'_>,
        nudges: &mut mpsc::Receiver<Nudge>,
    ) -> Result<Finished, AgentError> {
        let (inputs, mut inbox) = mpsc::channel(FOLDED);
        let show =
            Display::new(self.office.channels.get(self.message.channel.as_str()), &self.inbound.target);
        tokio::select! {
            finished = self.agent.turn(session, &self.terms, said, watcher, &mut inbox) => finished,
            error = self.listen(&inputs, nudges) => Err(error),
            never = show.keep(|| watcher.running(), || self.office.questions.waits_in(self.conversation)) => match never {},
        }
    }

    /// Passes on what comes, until it cannot. Nudges lost with the future are of no consequence: what they told of is
    /// in the store.
    async fn listen(&self, inputs: &mpsc::Sender<Input>, nudges: &mut mpsc::Receiver<Nudge>) -> AgentError {
        let mut last = self.message.id;
        let mut folding = true;
        loop {
            match nudges.recv().await {
                Some(Nudge::Stop) => {
                    folding = false;
                    // Waits behind messages of the same person until the turn has taken those.
                    drop(inputs.send(Input::Cancel).await);
                }
                Some(Nudge::More) if folding => match self.fold(inputs, last).await {
                    Ok(folded) => (last, folding) = folded,
                    Err(error) => return error,
                },
                Some(Nudge::More) => {}
                // The hub is gone: the gateway ends, and with it this future.
                None => std::future::pending::<()>().await,
            }
        }
    }

    /// Passes on what came since `last`. Stops at the first that is no message: what follows a `/new` is not for this turn.
    async fn fold(&self, inputs: &mpsc::Sender<Input>, mut last: i64) -> Result<(i64, bool), AgentError> {
        loop {
            let (name, after) = (self.conversation.to_owned(), last);
            let next = self.agent.store.run(move |store| store.next_unanswered(&name, after)).await?;
            let Some(next) = next else { return Ok((last, true)) };
            let Ok(inbound) = serde_json::from_str::<Inbound>(&next.body) else { return Ok((last, false)) };
            let said = command::read(&inbound.text);
            if said.at_once() {
                last = next.id;
                continue;
            }
            // Another person's message is not taken in this one's name, nor at this one's cost.
            let theirs = inbound.sender.id == self.inbound.sender.id;
            if said != Said::Message || !theirs || !inbound.left_out.is_empty() {
                return Ok((last, false));
            }
            if !admitted(self.office, &next, &inbound, self.paid).await? {
                last = next.id;
                continue;
            }
            let text = command::for_the_model(&inbound.text).to_owned();
            let message =
                Message::text(Role::User, Turn { inbound: &inbound, ..self.shallow() }.worded(&text));
            if inputs.try_send(Input::Message(message)).is_err() {
                return Ok((last, false));
            }
            last = next.id;
        }
    }

    fn shallow(&self) -> Turn<'_> {
        Turn {
            office: self.office,
            conversation: self.conversation,
            message: self.message,
            inbound: self.inbound,
            agent: self.agent.clone(),
            terms: self.terms.clone(),
            paid: self.paid,
        }
    }

    /// The messages that the turn took while it ran, by the journal: what it did not take has a turn of its own.
    async fn folded(&self, session: &Session, begun: Begun) -> Result<Vec<i64>, StoreError> {
        let id = session.id;
        let entries = self.agent.store.run(move |store| store.entries(id)).await?;
        let taken = entries
            .iter()
            .filter(|stored| {
                stored.turn == begun.last_turn + 1 && matches!(stored.entry, Entry::MessageArrived { .. })
            })
            .count();
        self.next_messages(taken).await
    }

    /// Numbers of the next messages of the conversation that are no commands.
    async fn next_messages(&self, most: usize) -> Result<Vec<i64>, StoreError> {
        let mut found = Vec::new();
        let mut last = self.message.id;
        while found.len() < most {
            let (name, after) = (self.conversation.to_owned(), last);
            let next = self.agent.store.run(move |store| store.next_unanswered(&name, after)).await?;
            let Some(next) = next else { break };
            last = next.id;
            let message = serde_json::from_str::<Inbound>(&next.body)
                .is_ok_and(|inbound| command::read(&inbound.text) == Said::Message);
            if message {
                found.push(next.id);
            }
        }
        Ok(found)
    }

    /// Deals with what an earlier process left of this message. `true` when it is answered with that.
    async fn recovered(&self, begun: Begun) -> Result<bool, AgentError> {
        let id = begun.session;
        let entries = self.agent.store.run(move |store| store.entries(id)).await?;
        match recover::fate(&entries, begun) {
            Fate::NotBegun => Ok(false),
            Fate::Again { turn, mut closing } => {
                closing.push(Entry::TakenBack { turn });
                self.agent.store.run(move |store| store.append(id, turn, &closing, now_millis())).await?;
                Ok(false)
            }
            Fate::CutOff { turn, closing, tools, folded } => {
                self.agent.store.run(move |store| store.append(id, turn, &closing, now_millis())).await?;
                let folded = self.next_messages(folded).await?;
                answer(self.office, self.message, &folded, &self.inbound.target, &words::cut_off(&tools))
                    .await?;
                Ok(true)
            }
            Fate::Ended { ending, reply, folded } => {
                let folded = self.next_messages(folded).await?;
                let finished =
                    Finished { ending, reply, usage: TokenUsage::default(), calls: Vec::new(), fault: None };
                let text = words::finished(&finished);
                answer(self.office, self.message, &folded, &self.inbound.target, &text).await?;
                Ok(true)
            }
        }
    }
}

/// What a chat shows while a turn runs. Nothing of it is durable: it is gone with the process.
struct Display<'a> {
    post: Option<&'a Post>,
    target: &'a Target,
    typed: Option<Instant>,
    edited: Option<Instant>,
    word: Option<(String, String)>,
}

impl<'a> Display<'a> {
    fn new(post: Option<&'a Post>, target: &'a Target) -> Self {
        Self { post, target, typed: None, edited: None, word: None }
    }

    /// Keeps it up to date, as fast as the vendor lets us.
    ///
    /// `running` is what to say of a call; while somebody is `asked` it is not us who is to write.
    async fn keep(mut self, running: impl Fn() -> Option<String>, asked: impl Fn() -> bool) -> Infallible {
        let mut clock = interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            if !asked() {
                self.refresh(running()).await;
            }
        }
    }

    async fn refresh(&mut self, running: Option<String>) {
        let Some(post) = self.post.filter(|post| !post.channel.stands_alone()) else { return };
        let due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
        if due(self.typed, TYPING) {
            self.typed = Some(Instant::now());
            post.channel.typing(self.target).await;
        }
        let Some(text) = running.filter(|_| due(self.edited, EDIT)) else { return };
        let text = redaction::text(&text).into_owned();
        self.edited = Some(Instant::now());
        let letter = Letter { target: Target { reply_to: None, ..self.target.clone() }, text: text.clone() };
        match &self.word {
            Some((reference, before)) if *before != text => {
                if post.channel.edit(&letter, reference).await.is_ok() {
                    self.word = Some((reference.clone(), text));
                }
            }
            Some(_) => {}
            None => {
                if let Ok(reference) = post.channel.send(&letter, "").await {
                    self.word = Some((reference, text));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
