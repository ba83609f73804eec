//! Hands that are watched: every call passes through unchanged, its ending is kept for the verdicts and shown.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::attempts::Finished;
use super::screen::Screen;
use crate::agent::hands::{BoxFuture, CallEnding, CallProgress, FetchFault, Hands};
use crate::model::ToolCall;

/// Wraps the real hands.
pub(super) struct Watched {
    inner: Arc<dyn Hands>,
    screen: Arc<Screen>,
    finished: Mutex<Vec<Finished>>,
}

impl Watched {
    pub(super) fn new(inner: Arc<dyn Hands>, screen: Arc<Screen>) -> Self {
        Self { inner, screen, finished: Mutex::new(Vec::new()) }
    }

    /// All calls that ended.
    pub(super) fn finished(&self) -> Vec<Finished> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Hands for Watched {
    fn call<'a>(
        &'a self,
        call: &'a ToolCall,
        progress: &'a (dyn Fn(CallProgress) + Send + Sync),
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, CallEnding> {
        Box::pin(async move {
            let ending = self.inner.call(call, progress, stop).await;
            self.screen.call(call, &ending);
            self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(Finished {
                id: call.id.clone(),
                outcome: ending.outcome.clone(),
                summary: ending.summary.clone(),
                output: ending.output.clone(),
                duration_ms: u64::try_from(ending.duration.as_millis()).unwrap_or(u64::MAX),
            });
            ending
        })
    }

    fn fetch<'a>(&'a self, path: &'a str, limit: u64) -> BoxFuture<'a, Result<Vec<u8>, FetchFault>> {
        self.inner.fetch(path, limit)
    }
}
