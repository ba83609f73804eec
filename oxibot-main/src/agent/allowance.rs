//! How much one sender may ask of the model: messages a minute, tokens a day. Tool calls are the toolhost's to count.
//!
//! A bucket of messages for each sender fills with time and is kept in memory; tokens of the day are kept in the store
//! and survive a restart. Who is refused is told once and then not again until they are within their limits: an answer
//! to each message would be the flood. The person at the terminal is a sender only if the configuration says so.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use oxibot_proto::settings::Senders;

use super::prompt::date_of;
use crate::model::TokenUsage;
use crate::store::{Store, StoreError};

/// Senders remembered at once; whoever may write at all is few.
const MOST_SENDERS: usize = 4096;
/// One message in a bucket that gets `messages_per_minute` every millisecond.
const MESSAGE: u64 = 60_000;
const DAY: i64 = 86_400_000;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sender {
    /// For example `telegram`.
    pub channel: String,
    /// As the channel names them.
    pub who: String,
}

impl Sender {
    fn key(&self) -> String {
        format!("{}:{}", self.channel, self.who)
    }
}

/// Whether a message is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// It is.
    Granted,
    /// It is not, until so long from now.
    Limited {
        /// Which limit, by its key.
        limit: &'static str,
        /// When it is worth another try.
        retry: Duration,
        /// What to say to the sender; nothing when it was said already.
        reply: Option<String>,
    },
}

#[derive(Debug)]
struct Bucket {
    left: u64,
    filled: Instant,
    told: bool,
}

/// Every sender's account.
#[derive(Debug)]
pub struct Allowance {
    settings: Senders,
    store: Store,
    buckets: Mutex<HashMap<Sender, Bucket>>,
}

impl Allowance {
    /// As the configuration grants it.
    #[must_use]
    pub fn new(settings: Senders, store: Store) -> Self {
        Self { settings, store, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one message from the sender's account. `millis` is the time since 1970.
    ///
    /// # Errors
    /// When the store cannot be read: then nobody knows, and nothing is granted.
    pub async fn message(&self, sender: &Sender, now: Instant, millis: i64) -> Result<Admission, StoreError> {
        if self.unlimited(sender) {
            return Ok(Admission::Granted);
        }
        let budget = self.settings.tokens_per_day;
        if budget > 0 {
            let (key, day) = (sender.key(), date_of(millis));
            let spent = self.store.run(move |database| database.spent(&day, &key)).await?;
            if spent >= budget {
                let left = DAY - millis.rem_euclid(DAY);
                let retry = Duration::from_millis(u64::try_from(left).unwrap_or(0));
                let why = format!("your {budget} tokens of today are used up");
                return Ok(self.refuse(sender, now, "limits.senders.tokensPerDay", retry, &why));
            }
        }
        let per_minute = u64::from(self.settings.messages_per_minute);
        if per_minute == 0 {
            return Ok(Admission::Granted);
        }
        let retry = {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let bucket = self.bucket(&mut buckets, sender, now);
            if bucket.left >= MESSAGE {
                bucket.left -= MESSAGE;
                bucket.told = false;
                return Ok(Admission::Granted);
            }
            Duration::from_millis((MESSAGE - bucket.left).div_ceil(per_minute))
        };
        let why = format!("I take {per_minute} messages a minute");
        Ok(self.refuse(sender, now, "limits.senders.messagesPerMinute", retry, &why))
    }

    /// Notes what a turn used.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn spent(&self, sender: &Sender, usage: TokenUsage, millis: i64) -> Result<(), StoreError> {
        let tokens = usage.input.saturating_add(usage.output);
        if self.unlimited(sender) || self.settings.tokens_per_day == 0 || tokens == 0 {
            return Ok(());
        }
        let (key, day) = (sender.key(), date_of(millis));
        self.store.run(move |database| database.spend(&day, &key, tokens)).await
    }

    fn unlimited(&self, sender: &Sender) -> bool {
        sender.channel == "terminal" && !self.settings.terminal
    }

    fn bucket<'a>(
        &self,
        buckets: &'a mut HashMap<Sender, Bucket>,
        sender: &Sender,
        now: Instant,
    ) -> &'a mut Bucket {
        let full = u64::from(self.settings.message_burst).saturating_mul(MESSAGE);
        let per_minute = u64::from(self.settings.messages_per_minute);
        if buckets.len() >= MOST_SENDERS && !buckets.contains_key(sender) {
            buckets.clear();
        }
        let bucket = buckets.entry(sender.clone()).or_insert(Bucket { left: full, filled: now, told: false });
        let since = now.saturating_duration_since(bucket.filled).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        bucket.filled = now;
        bucket.left = bucket.left.saturating_add(since.saturating_mul(per_minute)).min(full);
        bucket
    }

    fn refuse(
        &self,
        sender: &Sender,
        now: Instant,
        limit: &'static str,
        retry: Duration,
        why: &str,
    ) -> Admission {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !std::mem::replace(&mut self.bucket(&mut buckets, sender, now).told, true);
        if first {
            tracing::warn!(channel = %sender.channel, limit, retry_s = retry.as_secs(), "rate_limited");
        }
        let reply = first.then(|| format!("{why}; try again in {}", in_words(retry)));
        Admission::Limited { limit, retry, reply }
    }
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0..=90 => format!("{} seconds", time.as_secs().max(1)),
        seconds @ 91..=5400 => format!("{} minutes", seconds.div_ceil(60)),
        seconds => format!("{} hours", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(who: &str, channel: &str) -> Sender {
        Sender { channel: channel.into(), who: who.into() }
    }

    fn allowance(settings: Senders) -> (Allowance, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(&state.path().join("state")).unwrap();
        (Allowance::new(settings, store), state)
    }

    fn used(tokens: u64) -> TokenUsage {
        TokenUsage { input: tokens, ..TokenUsage::default() }
    }

    #[tokio::test]
    async fn messages_beyond_the_burst_wait_and_are_told_so_once() {
        let (allowance, _state) =
            allowance(Senders { messages_per_minute: 60, message_burst: 2, ..Senders::default() });
        let (ada, now) = (sender("ada", "telegram"), Instant::now());
        for _ in 0..2 {
            assert_eq!(allowance.message(&ada, now, 0).await.unwrap(), Admission::Granted);
        }
        let mut replies = Vec::new();
        for _ in 0..3 {
            match allowance.message(&ada, now, 0).await.unwrap() {
                Admission::Limited { limit, reply, retry } => {
                    assert_eq!((limit, retry.as_secs()), ("limits.senders.messagesPerMinute", 1));
                    replies.push(reply);
                }
                Admission::Granted => panic!("beyond the burst"),
            }
        }
        assert_eq!(replies[0].as_deref(), Some("I take 60 messages a minute; try again in 1 seconds"));
        assert_eq!(replies[1..], [None, None], "not each time");
        let bob = sender("bob", "telegram");
        assert_eq!(allowance.message(&bob, now, 0).await.unwrap(), Admission::Granted);
        let later = now + Duration::from_secs(1);
        assert_eq!(allowance.message(&ada, later, 0).await.unwrap(), Admission::Granted);
        let Admission::Limited { reply, .. } = allowance.message(&ada, later, 0).await.unwrap() else {
            panic!("one only");
        };
        assert!(reply.is_some(), "within its limits in between: told again");
    }

    #[tokio::test]
    async fn tokens_of_the_day_survive_a_restart_and_end_at_midnight() {
        let settings = Senders { tokens_per_day: 100, messages_per_minute: 0, ..Senders::default() };
        let (before, state) = allowance(settings);
        let (ada, now) = (sender("ada", "telegram"), Instant::now());
        before.spent(&ada, used(99), 0).await.unwrap();
        assert_eq!(
            before.message(&ada, now, 0).await.unwrap(),
            Admission::Granted,
            "the last one may go over"
        );
        before.spent(&ada, used(5), 0).await.unwrap();
        drop(before);
        let after = Allowance::new(settings, Store::open(&state.path().join("state")).unwrap());
        let Admission::Limited { limit, retry, .. } =
            after.message(&ada, now, DAY - 7_200_000).await.unwrap()
        else {
            panic!("used up");
        };
        assert_eq!((limit, retry), ("limits.senders.tokensPerDay", Duration::from_secs(7200)));
        assert_eq!(after.message(&sender("bob", "telegram"), now, 0).await.unwrap(), Admission::Granted);
        assert_eq!(after.message(&ada, now, DAY).await.unwrap(), Admission::Granted, "another day");
    }

    #[tokio::test]
    async fn person_at_the_terminal_is_limited_only_if_configured() {
        let settings = Senders { messages_per_minute: 1, message_burst: 1, ..Senders::default() };
        let person = sender("ada", "terminal");
        let (free, _state) = allowance(settings);
        for _ in 0..9 {
            assert_eq!(free.message(&person, Instant::now(), 0).await.unwrap(), Admission::Granted);
        }
        let (bound, _state) = allowance(Senders { terminal: true, ..settings });
        let now = Instant::now();
        assert_eq!(bound.message(&person, now, 0).await.unwrap(), Admission::Granted);
        assert!(matches!(bound.message(&person, now, 0).await.unwrap(), Admission::Limited { .. }));
    }
}
