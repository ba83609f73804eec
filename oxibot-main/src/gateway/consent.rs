//! A person's yes in a chat: the whole call is shown in the conversation it came from, and an answer counts once.
//!
//! Only who began the turn may answer, there; or an administrator, anywhere. What the answer is good for is the
//! toolhost's to say: it binds it to exactly this call. A question dies with its turn, its time and its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oxibot_proto::message::PendingApproval;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::office::Office;
use super::words;
use crate::agent::consent::{Approver, Consent};
use crate::agent::hands::BoxFuture;
use crate::backoff::{backoff, dice};
use crate::channels::split::{Limit, split};
use crate::channels::{Letter, Reference, SendFault, Target};
use crate::redaction;
use crate::repl::consent::{described, waiting};

/// Messages a call may be shown in. A longer one nobody would read before saying yes.
const MOST_PIECES: usize = 8;
/// Room in the last message for the question, and later for what came of it.
const ROOM: usize = 300;
/// Tries to show a question, seconds apart.
const TRIES: u32 = 6;
/// Longest that a remark may take which nobody waits for.
const REMARK: Duration = Duration::from_secs(20);

/// Who asked, or answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    /// For example `telegram:42`.
    pub(super) who: String,
    /// As they call themselves. Untrusted.
    pub(super) name: String,
    /// May answer for others.
    pub(super) admin: bool,
}

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    yes: bool,
    by: Person,
}

#[derive(Debug)]
struct Open {
    conversation: String,
    who: String,
    answer: oneshot::Sender<Said>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Heard {
    /// It counts.
    Taken,
    /// Nothing waits under that id: it was answered, or its turn or its time is over.
    Nothing,
    /// It is not theirs to say.
    NotYours,
}

/// Calls that wait for a yes in a chat, by the toolhost's id.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<BTreeMap<String, Open>>);

impl Questions {
    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A question is put; it is withdrawn when the [`Put`] is dropped.
    fn put(&self, id: &str, conversation: &str, who: &str) -> (Put<'_>, oneshot::Receiver<Said>) {
        let (answer, answered) = oneshot::channel();
        let open = Open { conversation: conversation.to_owned(), who: who.to_owned(), answer };
        self.open().insert(id.to_owned(), open);
        (Put { questions: self, id: id.to_owned() }, answered)
    }

    /// Somebody answers in a conversation.
    pub(super) fn answer(&self, id: &str, yes: bool, conversation: &str, by: &Person) -> Heard {
        let mut all = self.open();
        let Some(open) = all.get(id) else { return Heard::Nothing };
        if !by.admin && (open.conversation != conversation || open.who != by.who) {
            return Heard::NotYours;
        }
        match all.remove(id).map(|open| open.answer.send(Said { yes, by: by.clone() })) {
            Some(Ok(())) => Heard::Taken,
            Some(Err(_)) | None => Heard::Nothing,
        }
    }

    /// Whether one waits in a conversation.
    pub(super) fn waits_in(&self, conversation: &str) -> bool {
        self.open().values().any(|open| open.conversation == conversation)
    }
}

struct Put<'a> {
    questions: &'a Questions,
    id: String,
}

impl Drop for Put<'_> {
    fn drop(&mut self) {
        self.questions.open().remove(&self.id);
    }
}

/// Asks in one conversation.
pub(super) struct InChat {
    pub(super) office: Arc<Office>,
    pub(super) channel: String,
    pub(super) conversation: String,
    /// Who began the turn.
    pub(super) who: String,
    pub(super) target: Target,
}

impl InChat {
    async fn ask(&self, pending: &PendingApproval) -> Consent {
        let (_put, answered) = self.office.questions.put(&pending.id, &self.conversation, &self.who);
        let asked = async {
            let shown = self.put(pending).await?;
            let said = answered.await.map_err(|_| "the question was withdrawn".to_owned())?;
            Ok((shown, said))
        };
        let late = || Err("nobody answered in time".to_owned());
        let limit = Duration::from_millis(pending.expires_ms);
        match timeout(limit, asked).await.unwrap_or_else(|_| late()) {
            Ok((shown, Said { yes, by })) => {
                tracing::info!(
                    target: "oxibot_agent", event = "approval_answered", id = %pending.id, yes,
                    conversation = %self.conversation, "approval_answered"
                );
                self.close(shown, &words::answered(yes, &by.name)).await;
                if yes { Consent::Yes(by.who) } else { Consent::No(by.who) }
            }
            Err(why) => Consent::NotAsked(why),
        }
    }

    /// Shows the whole call. The last message has the question; it and its name are given back.
    async fn put(&self, pending: &PendingApproval) -> Result<(Letter, Reference), String> {
        let Some(post) = self.office.channels.get(self.channel.as_str()) else {
            return Err("there is nobody to ask".to_owned());
        };
        tracing::info!(
            target: "oxibot_agent", event = "approval_requested", id = %pending.id, tool = %pending.tool,
            rule = %pending.rule, conversation = %self.conversation, "approval_requested"
        );
        let Limit { most, unit } = post.channel.limit();
        let text = format!("```\n{}```", described(pending));
        let mut pieces = split(&redaction::text(&text), Limit { most: most.saturating_sub(ROOM), unit });
        if pieces.len() > MOST_PIECES {
            return Err("the call is too long to be shown here, so nobody was asked".to_owned());
        }
        let last = pieces.pop().unwrap_or_default();
        for (index, text) in pieces.into_iter().enumerate() {
            let letter = Letter { target: self.target.clone(), text };
            let key = format!("ask:{}:{index}", pending.id);
            insist(|| post.channel.send(&letter, &key)).await?;
        }
        let question = words::question(&pending.id, pending.expires_ms);
        let letter = Letter { target: self.target.clone(), text: format!("{last}\n{question}") };
        let reference = insist(|| post.channel.ask(&letter, &pending.id)).await?;
        Ok((Letter { text: last, ..letter }, reference))
    }

    /// Puts what came of it in the place of the question. Where a vendor cannot change messages, the turn goes on
    /// without a word.
    async fn close(&self, (letter, reference): (Letter, Reference), verdict: &str) {
        let Some(post) = self.office.channels.get(self.channel.as_str()) else { return };
        let letter = Letter { text: format!("{}\n{verdict}", letter.text), ..letter };
        if !matches!(timeout(REMARK, post.channel.edit(&letter, &reference)).await, Ok(Ok(()))) {
            tracing::debug!(target: "oxibot_channels", channel = %self.channel, "a question was not closed");
        }
    }

    /// Says that an administrator is waited for.
    async fn refer(&self, pending: &PendingApproval) {
        let Some(post) = self.office.channels.get(self.channel.as_str()) else { return };
        let text = format!("```\n{}\n```", waiting(pending));
        for (index, text) in
            split(&redaction::text(&text), post.channel.limit()).into_iter().take(MOST_PIECES).enumerate()
        {
            let letter = Letter { target: self.target.clone(), text };
            let key = format!("wait:{}:{index}", pending.id);
            if !matches!(timeout(REMARK, post.channel.send(&letter, &key)).await, Ok(Ok(_))) {
                return;
            }
        }
    }
}

impl Approver for InChat {
    fn ask<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, Consent> {
        Box::pin(self.ask(pending))
    }

    fn waits<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, ()> {
        Box::pin(self.refer(pending))
    }
}

/// Tries until it is sent, for about a minute.
async fn insist<'a>(
    send: impl Fn() -> BoxFuture<'a, Result<Reference, SendFault>>,
) -> Result<Reference, String> {
    let mut tries = 0;
    loop {
        match send().await {
            Ok(reference) => return Ok(reference),
            Err(SendFault::Later { after, .. }) if tries < TRIES => {
                let wait = backoff(Duration::from_secs(1), Duration::from_secs(30), tries, dice());
                tries += 1;
                sleep(wait.max(after.unwrap_or_default())).await;
            }
            Err(fault) => return Err(format!("nobody could be asked: {fault}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(who: &str, admin: bool) -> Person {
        Person { who: who.to_owned(), name: who.to_owned(), admin }
    }

    #[test]
    fn only_who_asked_answers_and_only_there_and_once() {
        let questions = Questions::default();
        let (_put, mut answered) = questions.put("ab", "telegram:-100", "telegram:42");
        let (asker, other) = (person("telegram:42", false), person("telegram:43", false));
        assert_eq!(questions.answer("ab", true, "telegram:-100", &other), Heard::NotYours);
        assert_eq!(questions.answer("ab", true, "telegram:42", &asker), Heard::NotYours, "elsewhere");
        assert_eq!(questions.answer("ac", true, "telegram:-100", &asker), Heard::Nothing);
        assert!(answered.try_recv().is_err());
        assert!(questions.waits_in("telegram:-100"));
        assert_eq!(questions.answer("ab", false, "telegram:-100", &asker), Heard::Taken);
        assert_eq!(questions.answer("ab", true, "telegram:-100", &asker), Heard::Nothing, "a second time");
        assert_eq!(answered.try_recv(), Ok(Said { yes: false, by: asker }));
    }

    #[test]
    fn administrator_answers_for_others_from_anywhere() {
        let questions = Questions::default();
        let (_put, _answered) = questions.put("ab", "telegram:-100", "telegram:42");
        assert_eq!(questions.answer("ab", true, "slack:7", &person("slack:7", true)), Heard::Taken);
    }

    #[test]
    fn question_is_gone_with_its_turn() {
        let questions = Questions::default();
        let (put, _answered) = questions.put("ab", "c", "w");
        drop(put);
        assert_eq!(questions.answer("ab", true, "c", &person("w", false)), Heard::Nothing);
        assert!(!questions.waits_in("c"));
    }
}
