//! The signals a command understands. Listening begins before a call does, so that none is missed.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and the polite requests to end: for commands that cancel their call.
pub(super) struct Interrupts {
    interrupt: Signal,
    endings: Endings,
}

impl Interrupts {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, endings: Endings::listen()? })
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.endings.next() => {}
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end.
    End,
    /// The terminal is gone; where there was none, to read the configuration again.
    HangUp,
}

/// The polite requests to end: for conversations, where Ctrl-C means something else.
pub(super) struct Endings {
    terminate: Signal,
    hang_up: Signal,
}

impl Endings {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, hang_up: signal(SignalKind::hangup())? })
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::HangUp,
        }
    }
}
