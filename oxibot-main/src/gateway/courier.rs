//! Delivers what waits for one channel: conversations beside each other, the letters of one in order.
//!
//! An attempt is noted before it is made. What fails for now is tried again, later and later and never in step with
//! others; what a vendor refuses for good is a dead letter, which `/ready` and the log show.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::office::{Office, Post};
use super::words;
use crate::agent::runner::now_millis;
use crate::backoff::{SIDES, backoff, dice};
use crate::channels::{Letter, SendFault};
use crate::redaction;
use crate::store::post::{MAX_ATTEMPTS, Outgoing};
use crate::store::{Store, StoreError};

/// Deliveries of one channel at once.
const AT_ONCE: u32 = 8;
/// First wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// An answer that is later than this says so.
const LATE: i64 = 300_000;
/// When the store cannot be asked.
const STORE_TROUBLE: Duration = Duration::from_secs(5);

/// Delivers for ever. Dropping the future between an attempt and its note leaves the letter uncertain, not lost.
pub(super) async fn run(office: Arc<Office>, channel: &'static str) {
    let Some(post) = office.channels.get(channel) else { return };
    loop {
        if let Err(error) = round(&office, post, channel).await {
            tracing::error!(target: "oxibot_channels", channel, %error, "cannot use the outbox");
            sleep(STORE_TROUBLE).await;
        }
    }
}

/// Delivers what is due, then waits until something else is.
async fn round(office: &Office, post: &Post, channel: &'static str) -> Result<(), StoreError> {
    let store = office.store();
    let due = store.run(move |store| store.due(channel, now_millis(), AT_ONCE)).await?;
    if due.is_empty() {
        let next = store.run(move |store| store.next_due(channel)).await?;
        let wait =
            next.map(|at| Duration::from_millis(u64::try_from(at.saturating_sub(now_millis())).unwrap_or(0)));
        tokio::select! {
            () = post.due.notified() => {}
            () = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
        return Ok(());
    }
    let mut deliveries: FuturesUnordered<_> =
        due.iter().map(|outgoing| deliver(office, store, post, channel, outgoing)).collect();
    while let Some(delivered) = deliveries.next().await {
        delivered?;
    }
    Ok(())
}

async fn deliver(
    office: &Office,
    store: &Store,
    post: &Post,
    channel: &'static str,
    outgoing: &Outgoing,
) -> Result<(), StoreError> {
    let id = outgoing.id;
    let Ok(mut letter) = serde_json::from_str::<Letter>(&outgoing.body) else {
        return store.run(move |store| store.give_up(id, "it cannot be read", now_millis())).await;
    };
    if outgoing.uncertain {
        tracing::warn!(target: "oxibot_channels", channel, letter = id, "sent again: whether it arrived was not seen");
    }
    let age = now_millis().saturating_sub(outgoing.created_at);
    if outgoing.attempts > 0 && age > LATE && outgoing.key.ends_with(":0") {
        let minutes = u64::try_from(age / 60_000).unwrap_or(0);
        letter.text = format!("{}\n\n{}", words::late(minutes), letter.text);
    }
    // It lost its secrets when it was cut into letters; what was learnt since, and what an older version kept, goes here.
    letter.text = redaction::text(&letter.text).into_owned();
    store.run(move |store| store.attempt(id)).await?;
    let sent = post.channel.send(&letter, &outgoing.key).await;
    let now = now_millis();
    match sent {
        Ok(reference) => {
            office.figures.delivered.add();
            store.run(move |store| store.delivered(id, &reference, now)).await
        }
        Err(SendFault::Later { why, after }) if outgoing.attempts < MAX_ATTEMPTS => {
            office.figures.postponed.add();
            let wait = wait(outgoing.attempts, after, dice());
            tracing::warn!(
                target: "oxibot_channels", channel, letter = id, attempt = outgoing.attempts + 1,
                wait_ms = wait.as_millis(), why = %why, "a letter could not be delivered yet"
            );
            let next = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
            store.run(move |store| store.postpone(id, &why, next)).await
        }
        Err(SendFault::Later { why, .. } | SendFault::Never { why }) => {
            office.figures.dead.add();
            tracing::error!(target: "oxibot_channels", channel, letter = id, why = %why, "a letter is given up");
            store.run(move |store| store.give_up(id, &why, now)).await
        }
    }
}

/// Until the next attempt; never earlier than the vendor asks.
fn wait(attempts: u32, after: Option<Duration>, dice: u64) -> Duration {
    let spread = backoff(FIRST_WAIT, LONGEST_WAIT, attempts, dice);
    // A little later than asked, and not all at once.
    after.map_or(spread, |asked| spread.max(asked.saturating_add(Duration::from_millis(dice % SIDES / 4))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_the_vendor_asks_for_is_never_cut() {
        for dice in [0, 500, 1023] {
            assert!(wait(0, Some(Duration::from_secs(60)), dice) >= Duration::from_secs(60));
            assert!(wait(MAX_ATTEMPTS, None, dice) <= LONGEST_WAIT);
        }
    }
}
