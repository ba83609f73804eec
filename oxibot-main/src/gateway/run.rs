//! All parts of the gateway, started together and ended in order: channels first, then turns, then what waits to be sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::exits::Exits;
use super::health::{self, Listener};
use super::intake::Door;
use super::office::{Admins, House, Office, Post, Voice};
use super::rooms::Rooms;
use super::{courier, hub, supervise};
use crate::agent::runner::now_millis;
use crate::channels::Channel;
use crate::exit::Exit;

/// Messages that may wait for the hub; a channel that has more waits with its vendor.
const ARRIVALS: usize = 64;
/// How long letters may still be delivered once no turn runs any more.
const LAST_POST: Duration = Duration::from_secs(5);
/// How long answered messages are kept, to recognise them when a vendor delivers them again. Telegram keeps updates a day.
const KEPT_DAYS: i64 = 14;
/// Before a part that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// A channel and whom it listens to.
pub struct Setup {
    /// The channel.
    pub channel: Arc<dyn Channel>,
    /// Whom it listens to.
    pub door: Door,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("channel", &self.channel.name()).field("door", &self.door).finish()
    }
}

/// Runs until `exits` says so, then drains. `admins` are administrators as `channel:id`, `rooms` who shares a workspace.
pub async fn run(
    voice: Voice,
    setups: Vec<Setup>,
    (admins, rooms): (&[String], Rooms),
    listener: Option<Listener>,
    exits: &Exits,
) -> Exit {
    let doors: BTreeMap<&'static str, Door> =
        setups.iter().map(|setup| (setup.channel.name(), setup.door.clone())).collect();
    let posts = setups.into_iter().map(|setup| (setup.channel.name(), Post::new(setup.channel))).collect();
    let identities = doors.iter().map(|(channel, door)| (*channel, door.identity)).collect();
    let house = House { admins: Admins::new(admins, &identities), rooms };
    let office = Arc::new(Office::new(voice, posts, house, exits.clone()));
    let (hub, arrivals) = mpsc::channel(ARRIVALS);
    let mut receiving = JoinSet::new();
    for (channel, door) in &doors {
        receiving.spawn(again(channel, {
            let (office, door, hub) = (Arc::clone(&office), door.clone(), hub.clone());
            move |channel| supervise::run(Arc::clone(&office), channel, door.clone(), hub.clone())
        }));
    }
    drop(hub);
    let mut sending = JoinSet::new();
    for channel in doors.keys() {
        sending.spawn(again(channel, {
            let office = Arc::clone(&office);
            move |channel| courier::run(Arc::clone(&office), channel)
        }));
    }
    sending.spawn(forget(Arc::clone(&office)));
    if let Some(listener) = listener {
        sending.spawn(health::run(Arc::clone(&office), listener));
    }
    let mut hub = tokio::spawn(hub::run(Arc::clone(&office), arrivals, exits.told()));
    let mut ended = exits.told();
    let early = tokio::select! {
        joined = &mut hub => Some(joined.is_ok()),
        () = hub::told_to_end(&mut ended) => None,
    };
    receiving.shutdown().await;
    let orderly = match early {
        Some(orderly) => orderly && *ended.borrow(),
        None => hub.await.is_ok(),
    };
    drop(timeout(LAST_POST, emptied(&office)).await);
    sending.shutdown().await;
    match (orderly, exits.restarts()) {
        (true, true) => Exit::TryAgain,
        (true, false) => Exit::Done,
        (false, _) => Exit::Internal,
    }
}

/// A part that goes on for ever, and again after a panic: a fault in one channel must not end another.
async fn again<F, R>(channel: &'static str, start: F)
where
    F: Fn(&'static str) -> R + Send,
    R: Future<Output = ()> + Send + 'static,
{
    loop {
        let mut part = JoinSet::new();
        part.spawn(start(channel));
        if let Some(Err(error)) = part.join_next().await
            && error.is_panic()
        {
            tracing::error!(target: "oxibot_channels", channel, "a part of the channel panicked and is started again");
        }
        sleep(AFTER_PANIC).await;
    }
}

/// Until nothing waits that could be sent now.
async fn emptied(office: &Office) {
    loop {
        let mut waits = false;
        for channel in office.channels.keys().copied() {
            let due = office.store().run(move |store| store.due(channel, now_millis(), 1)).await;
            waits |= due.is_ok_and(|due| !due.is_empty());
        }
        if !waits {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Once an hour, what is only kept to recognise repetitions is forgotten.
async fn forget(office: Arc<Office>) {
    let mut hour = interval(Duration::from_secs(3600));
    loop {
        hour.tick().await;
        let before = now_millis().saturating_sub(KEPT_DAYS * 86_400_000);
        if let Err(error) = office.store().run(move |store| store.forget_post(before)).await {
            tracing::warn!(target: "oxibot_main", %error, "cannot forget answered messages");
        }
    }
}
