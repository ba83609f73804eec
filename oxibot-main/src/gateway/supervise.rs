//! Keeps a channel receiving: whatever ends it, it begins again, later and later; only a refusal waits for a person.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::intake::{Arrived, Desk, Door, Strangers};
use super::office::Office;
use crate::backoff::{backoff, dice};
use crate::channels::ChannelFault;

/// First wait; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// After so long in order the next fault is a first one again.
const STEADY: Duration = Duration::from_secs(60);
/// A refusal is looked at again after this long: tokens are changed at the vendor's, too.
const REFUSED_WAIT: Duration = Duration::from_secs(600);

/// How a channel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not yet.
    Connecting,
    /// It speaks to its vendor.
    Up,
    /// It lost its vendor and tries again.
    Degraded(String),
    /// The vendor does not accept us.
    Refused(String),
}

impl State {
    /// In words, for `/ready`.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Connecting => "connecting".to_owned(),
            Self::Up => "up".to_owned(),
            Self::Degraded(why) => format!("degraded: {why}"),
            Self::Refused(why) => format!("refused: {why}"),
        }
    }
}

/// Receives for ever.
pub(super) async fn run(office: Arc<Office>, channel: &'static str, door: Door, hub: mpsc::Sender<Arrived>) {
    let Some(post) = office.channels.get(channel) else { return };
    let desk = Desk { channel, door, office: Arc::clone(&office), hub, strangers: Strangers::default() };
    let mut failures = 0_u32;
    loop {
        let begun = Instant::now();
        let fault = post.channel.receive(&desk).await;
        office.figures.restarts.add();
        if begun.elapsed() >= STEADY {
            failures = 0;
        }
        let wait = match fault {
            ChannelFault::Refused(why) => {
                tracing::error!(target: "oxibot_channels", channel, why = %why, "the channel is refused; correct its configuration and start again");
                post.set(State::Refused(why));
                REFUSED_WAIT
            }
            ChannelFault::Lost(why) => {
                let wait = backoff(FIRST_WAIT, LONGEST_WAIT, failures, dice());
                tracing::warn!(target: "oxibot_channels", channel, why = %why, wait_ms = wait.as_millis(), "the channel is lost and comes back");
                post.set(State::Degraded(why));
                wait
            }
        };
        failures = failures.saturating_add(1);
        sleep(wait).await;
    }
}
