//! The gateway's post: what came in and is not answered yet, what goes out and is not delivered yet.
//!
//! A message is here before its vendor is told that it arrived, and a reply is here in the same transaction that calls
//! its message answered. A crash between any two statements therefore loses nothing. It knows no channel: bodies are
//! JSON of whoever writes them.

use rusqlite::{OptionalExtension, Row, params};

use super::{Database, StoreError};

/// Attempts after which a delivery is given up, unless its fault says so earlier. With the courier's backoff that is
/// about a day.
pub const MAX_ATTEMPTS: u32 = 40;

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Number, ascending in the order of arrival.
    pub id: i64,
    /// Channel by name.
    pub channel: String,
    /// Conversation, for example `telegram:42`.
    pub conversation: String,
    /// The message as JSON.
    pub body: String,
    /// Where its turn was begun, if it was.
    pub begun: Option<Begun>,
    /// When it came, in milliseconds since 1970.
    pub received_at: i64,
}

/// The moment before a turn: whatever turn of `session` is younger belongs to the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The session.
    pub session: i64,
    /// Its last turn before.
    pub last_turn: i64,
}

/// A delivery to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Number, ascending in the order it was written.
    pub id: i64,
    /// Channel by name.
    pub channel: String,
    /// Conversation: deliveries of one are made in order.
    pub conversation: String,
    /// Key that a vendor can recognise a repetition by, where it can.
    pub key: String,
    /// What to send, as JSON.
    pub body: String,
    /// Attempts so far.
    pub attempts: u32,
    /// An attempt was begun and its end never seen: it may have arrived.
    pub uncertain: bool,
    /// When it was written, in milliseconds since 1970.
    pub created_at: i64,
}

/// A delivery to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// Its key; one that is there already is not written again.
    pub key: String,
    /// Channel by name.
    pub channel: String,
    /// Conversation.
    pub conversation: String,
    /// What to send, as JSON.
    pub body: String,
}

/// How many of what wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Messages without an answer.
    pub inbound: u64,
    /// Deliveries not made yet.
    pub outbound: u64,
    /// Deliveries given up.
    pub dead: u64,
}

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was to go, for example `telegram:42`.
    pub conversation: String,
    /// What the vendor said. Untrusted.
    pub fault: String,
    /// When it was given up, in milliseconds since 1970.
    pub at: i64,
}

impl Database {
    /// Keeps a message. `false` when it was kept before: vendors deliver again what they think was lost.
    pub fn receive(
        &mut self,
        channel: &str,
        key: &str,
        conversation: &str,
        body: &str,
        now: i64,
    ) -> Result<bool, StoreError> {
        let transaction = self.write()?;
        let rows = transaction.execute(
            "INSERT INTO inbox (channel, key, conversation, body, received_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (channel, key) DO NOTHING",
            params![channel, key, conversation, body, now],
        )?;
        transaction.commit()?;
        Ok(rows > 0)
    }

    /// Messages without an answer, in the order they came.
    pub fn unanswered(&self) -> Result<Vec<Received>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, channel, conversation, body, session, last_turn, received_at FROM inbox
             WHERE answered_at IS NULL ORDER BY id",
        )?;
        let rows = statement.query_map([], received_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The next message of a conversation without an answer.
    pub fn next_unanswered(&self, conversation: &str, after: i64) -> Result<Option<Received>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, channel, conversation, body, session, last_turn, received_at FROM inbox
             WHERE answered_at IS NULL AND conversation = ?1 AND id > ?2 ORDER BY id LIMIT 1",
        )?;
        Ok(statement.query_row(params![conversation, after], received_of).optional()?)
    }

    /// Notes where a message's turn begins, before it does. Answers what was noted first, if that happened earlier.
    pub fn begin_answer(&mut self, message: i64, session: i64) -> Result<Begun, StoreError> {
        let transaction = self.write()?;
        let last_turn: i64 = transaction.query_row(
            "SELECT COALESCE(MAX(turn), 0) FROM entries WHERE session = ?1",
            [session],
            |row| row.get(0),
        )?;
        transaction.execute(
            "UPDATE inbox SET session = ?2, last_turn = ?3 WHERE id = ?1",
            params![message, session, last_turn],
        )?;
        transaction.commit()?;
        Ok(Begun { session, last_turn })
    }

    /// Calls messages answered and writes what is to be delivered for it, all or nothing.
    pub fn answer(
        &mut self,
        messages: &[i64],
        deliveries: &[NewDelivery],
        now: i64,
    ) -> Result<(), StoreError> {
        let transaction = self.write()?;
        for delivery in deliveries {
            transaction
                .prepare_cached(
                    "INSERT INTO outbox (key, channel, conversation, body, created_at, next_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?5) ON CONFLICT (key) DO NOTHING",
                )?
                .execute(params![
                    delivery.key,
                    delivery.channel,
                    delivery.conversation,
                    delivery.body,
                    now
                ])?;
        }
        for message in messages {
            transaction
                .prepare_cached("UPDATE inbox SET answered_at = ?2 WHERE id = ?1 AND answered_at IS NULL")?
                .execute(params![message, now])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The first delivery of each conversation of a channel that is due, oldest first. What waits for its turn behind
    /// another of its conversation is not among them.
    pub fn due(&self, channel: &str, now: i64, most: u32) -> Result<Vec<Outgoing>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, channel, conversation, key, body, attempts, sending, created_at FROM outbox AS o
             WHERE channel = ?1 AND sent_at IS NULL AND dead_at IS NULL AND next_at <= ?2
             AND id = (SELECT MIN(id) FROM outbox WHERE channel = ?1 AND conversation = o.conversation
                       AND sent_at IS NULL AND dead_at IS NULL)
             ORDER BY id LIMIT ?3",
        )?;
        let rows = statement.query_map(params![channel, now, most], outgoing_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// When the next delivery of a channel is due, if one waits.
    pub fn next_due(&self, channel: &str) -> Result<Option<i64>, StoreError> {
        Ok(self.connection.query_row(
            "SELECT MIN(next_at) FROM outbox AS o WHERE channel = ?1 AND sent_at IS NULL AND dead_at IS NULL
             AND id = (SELECT MIN(id) FROM outbox WHERE channel = ?1 AND conversation = o.conversation
                       AND sent_at IS NULL AND dead_at IS NULL)",
            [channel],
            |row| row.get(0),
        )?)
    }

    /// Notes that an attempt begins. Its end is [`Database::delivered`], [`Database::postpone`] or
    /// [`Database::give_up`]; a crash in between leaves it uncertain.
    pub fn attempt(&mut self, delivery: i64) -> Result<(), StoreError> {
        self.change("UPDATE outbox SET attempts = attempts + 1, sending = 1 WHERE id = ?1", params![delivery])
    }

    /// A delivery was made; `reference` is the vendor's name for it.
    pub fn delivered(&mut self, delivery: i64, reference: &str, now: i64) -> Result<(), StoreError> {
        self.change(
            "UPDATE outbox SET sent_at = ?2, sending = 0, reference = ?3, fault = NULL WHERE id = ?1",
            params![delivery, now, reference],
        )
    }

    /// A delivery failed and is tried again at `next`.
    pub fn postpone(&mut self, delivery: i64, fault: &str, next: i64) -> Result<(), StoreError> {
        self.change(
            "UPDATE outbox SET next_at = ?2, sending = 0, fault = ?3 WHERE id = ?1",
            params![delivery, next, fault],
        )
    }

    /// A delivery is given up: it stays as a dead letter.
    pub fn give_up(&mut self, delivery: i64, fault: &str, now: i64) -> Result<(), StoreError> {
        self.change(
            "UPDATE outbox SET dead_at = ?2, sending = 0, fault = ?3 WHERE id = ?1",
            params![delivery, now, fault],
        )
    }

    /// How many of what wait.
    pub fn waiting(&self) -> Result<Waiting, StoreError> {
        let count = |sql: &str| -> Result<u64, StoreError> {
            let number: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
            Ok(u64::try_from(number).unwrap_or(0))
        };
        Ok(Waiting {
            inbound: count("SELECT COUNT(*) FROM inbox WHERE answered_at IS NULL")?,
            outbound: count("SELECT COUNT(*) FROM outbox WHERE sent_at IS NULL AND dead_at IS NULL")?,
            dead: count("SELECT COUNT(*) FROM outbox WHERE dead_at IS NOT NULL")?,
        })
    }

    /// How far a channel had read, in its own words.
    pub fn place(&self, channel: &str) -> Result<Option<String>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT place FROM places WHERE channel = ?1")?;
        Ok(statement.query_row([channel], |row| row.get(0)).optional()?)
    }

    /// Keeps how far a channel has read. What it read must have been kept before.
    pub fn keep_place(&mut self, channel: &str, place: &str) -> Result<(), StoreError> {
        self.change(
            "INSERT INTO places (channel, place) VALUES (?1, ?2)
             ON CONFLICT (channel) DO UPDATE SET place = excluded.place",
            params![channel, place],
        )
    }

    /// The newest deliveries that were given up.
    pub fn dead(&self, most: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT conversation, COALESCE(fault, ''), dead_at FROM outbox WHERE dead_at IS NOT NULL
             ORDER BY dead_at DESC, id DESC LIMIT ?1",
        )?;
        let rows = statement.query_map([most], |row| {
            Ok(DeadLetter { conversation: row.get(0)?, fault: row.get(1)?, at: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets what was answered and delivered before `before`: it is only kept to recognise repetitions.
    pub fn forget_post(&mut self, before: i64) -> Result<(), StoreError> {
        let transaction = self.write()?;
        transaction.execute("DELETE FROM inbox WHERE answered_at < ?1", [before])?;
        transaction.execute("DELETE FROM outbox WHERE sent_at < ?1", [before])?;
        transaction.commit()?;
        Ok(())
    }

    fn change(&mut self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), StoreError> {
        let transaction = self.write()?;
        transaction.prepare_cached(sql)?.execute(values)?;
        transaction.commit()?;
        Ok(())
    }
}

fn received_of(row: &Row<'_>) -> rusqlite::Result<Received> {
    let session: Option<i64> = row.get(4)?;
    let last_turn: Option<i64> = row.get(5)?;
    Ok(Received {
        id: row.get(0)?,
        channel: row.get(1)?,
        conversation: row.get(2)?,
        body: row.get(3)?,
        begun: session.zip(last_turn).map(|(session, last_turn)| Begun { session, last_turn }),
        received_at: row.get(6)?,
    })
}

fn outgoing_of(row: &Row<'_>) -> rusqlite::Result<Outgoing> {
    let sending: i64 = row.get(6)?;
    Ok(Outgoing {
        id: row.get(0)?,
        channel: row.get(1)?,
        conversation: row.get(2)?,
        key: row.get(3)?,
        body: row.get(4)?,
        attempts: row.get(5)?,
        uncertain: sending != 0,
        created_at: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Expiry;

    const NEVER: Expiry = Expiry { idle: None, absolute: None };

    fn database() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("state")).unwrap();
        (directory, database)
    }

    fn delivery(key: &str, conversation: &str) -> NewDelivery {
        NewDelivery {
            key: key.into(),
            channel: "telegram".into(),
            conversation: conversation.into(),
            body: "{}".into(),
        }
    }

    #[test]
    fn message_delivered_twice_by_the_vendor_is_kept_once() {
        let (_directory, mut database) = database();
        assert!(database.receive("telegram", "7", "telegram:1", "{}", 1).unwrap());
        assert!(!database.receive("telegram", "7", "telegram:1", "{}", 2).unwrap());
        // Another channel numbers for itself.
        assert!(database.receive("slack", "7", "slack:1", "{}", 3).unwrap());
        assert_eq!(database.unanswered().unwrap().len(), 2);
    }

    #[test]
    fn answered_message_is_not_unanswered_and_still_recognised() {
        let (_directory, mut database) = database();
        database.receive("telegram", "7", "telegram:1", "{}", 1).unwrap();
        let message = database.unanswered().unwrap().remove(0);
        database.answer(&[message.id], &[delivery("reply:1:0", "telegram:1")], 2).unwrap();
        assert_eq!(database.unanswered().unwrap(), []);
        assert!(!database.receive("telegram", "7", "telegram:1", "{}", 3).unwrap());
        assert_eq!(database.waiting().unwrap(), Waiting { inbound: 0, outbound: 1, dead: 0 });
    }

    #[test]
    fn answer_given_twice_is_delivered_once() {
        let (_directory, mut database) = database();
        for _ in 0..2 {
            database.answer(&[], &[delivery("reply:1:0", "c")], 2).unwrap();
        }
        assert_eq!(database.due("telegram", 9, 10).unwrap().len(), 1);
    }

    #[test]
    fn deliveries_of_a_conversation_wait_for_each_other_and_not_for_others() {
        let (_directory, mut database) = database();
        let all = [delivery("1", "a"), delivery("2", "a"), delivery("3", "b")];
        database.answer(&[], &all, 1).unwrap();
        let keys = |database: &Database, now| -> Vec<String> {
            database.due("telegram", now, 10).unwrap().into_iter().map(|delivery| delivery.key).collect()
        };
        assert_eq!(keys(&database, 1), ["1", "3"]);
        let first = database.due("telegram", 1, 1).unwrap().remove(0);
        database.attempt(first.id).unwrap();
        database.postpone(first.id, "429", 100).unwrap();
        assert_eq!(keys(&database, 50), ["3"], "the second of a must not overtake the first");
        assert_eq!(database.next_due("telegram").unwrap(), Some(1));
        assert_eq!(keys(&database, 100), ["1", "3"]);
        database.delivered(first.id, "m1", 101).unwrap();
        assert_eq!(keys(&database, 101), ["2", "3"]);
    }

    #[test]
    fn attempt_whose_end_was_not_seen_is_uncertain() {
        let (_directory, mut database) = database();
        database.answer(&[], &[delivery("1", "a")], 1).unwrap();
        let first = database.due("telegram", 1, 1).unwrap().remove(0);
        assert!(!first.uncertain);
        database.attempt(first.id).unwrap();
        let again = database.due("telegram", 1, 1).unwrap().remove(0);
        assert!(again.uncertain && again.attempts == 1);
        database.postpone(first.id, "refused", 1).unwrap();
        assert!(!database.due("telegram", 1, 1).unwrap().remove(0).uncertain);
    }

    #[test]
    fn dead_letter_frees_its_conversation_and_is_counted() {
        let (_directory, mut database) = database();
        database.answer(&[], &[delivery("1", "a"), delivery("2", "a")], 1).unwrap();
        let first = database.due("telegram", 1, 1).unwrap().remove(0);
        database.give_up(first.id, "chat not found", 2).unwrap();
        assert_eq!(database.due("telegram", 2, 1).unwrap().remove(0).key, "2");
        assert_eq!(database.waiting().unwrap().dead, 1);
        let dead = database.dead(9).unwrap();
        let letter = DeadLetter { conversation: "a".into(), fault: "chat not found".into(), at: 2 };
        assert_eq!(dead, [letter]);
    }

    #[test]
    fn beginning_is_noted_with_the_last_turn_before_it() {
        let (_directory, mut database) = database();
        database.receive("telegram", "7", "telegram:1", "{}", 1).unwrap();
        let session = database.open_session("telegram:1", "b", NEVER, 1).unwrap();
        let message = database.unanswered().unwrap().remove(0);
        assert_eq!(message.begun, None);
        let begun = database.begin_answer(message.id, session.id).unwrap();
        assert_eq!(begun, Begun { session: session.id, last_turn: 0 });
        assert_eq!(database.unanswered().unwrap().remove(0).begun, Some(begun));
        assert_eq!(database.next_unanswered("telegram:1", message.id).unwrap(), None);
    }
}
