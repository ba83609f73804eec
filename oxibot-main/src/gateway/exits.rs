//! How a gateway comes to its end: asked to, or to be started again with what the configuration says then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The one switch all parts look at. Clones share it.
#[derive(Debug, Clone)]
pub struct Exits {
    ending: watch::Sender<bool>,
    again: Arc<AtomicBool>,
}

impl Default for Exits {
    fn default() -> Self {
        Self { ending: watch::Sender::new(false), again: Arc::default() }
    }
}

impl Exits {
    /// Ends it: it stops receiving, drains and is gone.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Ends it, to be started again.
    pub fn restart(&self) {
        self.again.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Whether it is to be started again.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }

    /// Becomes true when it is to end.
    pub(super) fn told(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }
}
