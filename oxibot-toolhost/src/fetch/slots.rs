//! How many requests go on at once: to one host, for one conversation, in all. Who waits for a host holds nothing that
//! others need, so servers that answer slowly hold up those who ask them and nobody else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests to one host, as browsers have.
const MAX_OF_A_HOST: usize = 6;
/// Requests of one conversation: less than there are in all.
const MAX_OF_A_CONVERSATION: usize = 16;
/// Requests in all. Each may hold a body.
const MAX_AT_ONCE: usize = 32;

/// The slots.
pub(crate) struct Slots {
    hosts: Each,
    conversations: Each,
    all: Arc<Semaphore>,
}

/// One of them, until it is dropped.
pub(crate) struct Slot {
    _host: OwnedSemaphorePermit,
    _conversation: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            hosts: Each::new(MAX_OF_A_HOST),
            conversations: Each::new(MAX_OF_A_CONVERSATION),
            all: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        }
    }

    /// Waits for a slot. `None` when they are closed, which they never are.
    pub(crate) async fn acquire(&self, host: &str, conversation: &str) -> Option<Slot> {
        Some(Slot {
            _host: self.hosts.of(host).acquire_owned().await.ok()?,
            _conversation: self.conversations.of(conversation).acquire_owned().await.ok()?,
            _all: self.all.clone().acquire_owned().await.ok()?,
        })
    }
}

/// A limit for each name, kept while somebody has or awaits a part of it.
struct Each {
    most: usize,
    known: RefCell<HashMap<String, Weak<Semaphore>>>,
}

impl Each {
    fn new(most: usize) -> Self {
        Self { most, known: RefCell::default() }
    }

    fn of(&self, name: &str) -> Arc<Semaphore> {
        let mut known = self.known.borrow_mut();
        known.retain(|_, limit| limit.strong_count() > 0);
        if let Some(limit) = known.get(name).and_then(Weak::upgrade) {
            return limit;
        }
        let limit = Arc::new(Semaphore::new(self.most));
        known.insert(name.to_owned(), Arc::downgrade(&limit));
        limit
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now(slots: &Slots, host: &str, conversation: &str) -> Option<Slot> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(slots.acquire(host, conversation)).poll(&mut context) {
            Poll::Ready(slot) => slot,
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_host_and_a_conversation_have_their_share_and_leave_the_rest() {
        let slots = Slots::new();
        let mut held: Vec<Slot> = (0..64).filter_map(|_| now(&slots, "slow", "one")).collect();
        assert_eq!(held.len(), MAX_OF_A_HOST);
        held.extend((0..64).filter_map(|number| now(&slots, &format!("slow{number}"), "one")));
        assert_eq!(held.len(), MAX_OF_A_CONVERSATION);
        held.extend((0..64).filter_map(|number| now(&slots, &format!("other{number}"), "two")));
        assert_eq!(held.len(), MAX_AT_ONCE);
        assert!(now(&slots, "third", "three").is_none());
        held.pop();
        assert!(now(&slots, "third", "three").is_some());
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let slots = Slots::new();
        for number in 0..1000 {
            assert!(now(&slots, &number.to_string(), &number.to_string()).is_some());
        }
        assert!(slots.hosts.known.borrow().len() <= 1 && slots.conversations.known.borrow().len() <= 1);
    }
}
