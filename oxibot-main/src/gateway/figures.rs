//! Counters for `/metrics`. Numbers only, no names of people or conversations.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) messages: Counter,
    pub(super) strangers: Counter,
    pub(super) turns: Counter,
    pub(super) turns_failed: Counter,
    pub(super) calls: Counter,
    pub(super) calls_refused: Counter,
    pub(super) delivered: Counter,
    pub(super) postponed: Counter,
    pub(super) dead: Counter,
    pub(super) restarts: Counter,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Figures {
    /// Name, help and value of each.
    pub(super) fn all(&self) -> [(&'static str, &'static str, u64); 10] {
        [
            ("oxibot_messages_total", "Messages of admitted people that came in.", self.messages.get()),
            ("oxibot_auth_rejected_total", "Messages of people who are not admitted.", self.strangers.get()),
            ("oxibot_turns_total", "Turns held.", self.turns.get()),
            ("oxibot_turns_failed_total", "Turns whose provider failed.", self.turns_failed.get()),
            ("oxibot_tool_calls_total", "Tool calls that ended.", self.calls.get()),
            (
                "oxibot_tool_calls_refused_total",
                "Tool calls denied or waiting for approval.",
                self.calls_refused.get(),
            ),
            ("oxibot_deliveries_total", "Messages delivered.", self.delivered.get()),
            ("oxibot_deliveries_postponed_total", "Attempts to deliver that failed.", self.postponed.get()),
            ("oxibot_dead_letters_total", "Messages given up.", self.dead.get()),
            ("oxibot_channel_restarts_total", "Times a channel lost its vendor.", self.restarts.get()),
        ]
    }
}
