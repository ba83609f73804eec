//! Who answers: vendors over HTTP in two wire formats, recordings, and several of them in order.
//!
//! A request goes in, a whole reply or a [`ProviderError`] comes out; an error is never text of the assistant. Reading
//! order: `presets` (what is known by name), `endpoint` (where a key may go), `select` (which provider a model name
//! means), `hosted` (the request itself), `openai` and `anthropic` (the two wires, pure), `retry`, `adapt`, `chain`.
//!
//! Deliberately absent: prices (only what a vendor reports counts), a table of models, proxies from the environment,
//! redirects, and any tool logic: arguments pass through as the model wrote them, malformed or not.

mod adapt;
mod anthropic;
mod chain;
mod classify;
mod decode;
mod endpoint;
mod error;
mod history;
mod hosted;
mod models;
mod openai;
mod presets;
pub mod replay;
mod retry;
mod select;
mod sse;

use std::future::Future;
use std::pin::Pin;

pub use secrecy::SecretString;

use crate::model::{ModelReply, ModelRequest, StreamEvent};

pub use self::chain::{Chain, Link};
pub use self::endpoint::ProviderSettings;
pub(crate) use self::endpoint::is_loopback;
pub use self::error::{DETAIL_CHARS, ProviderError};
pub use self::hosted::{ConnectOptions, Hosted, install_crypto};
pub use self::models::OfferedModel;
pub use self::presets::{EffortField, IdRule, KeyNeed, Preset, ReasoningEcho, Wire, preset, presets};
pub use self::replay::{Recorder, Replay};
pub use self::retry::Patience;
pub use self::select::{SelectError, Selected, select};

use thiserror::Error;

/// Something that answers requests.
#[derive(Debug)]
pub enum Provider {
    /// A vendor, or a server on this machine.
    Hosted(Box<Hosted>),
    /// A recorded conversation.
    Replay(Replay),
    /// Any other, with its replies written to a file.
    Recorder(Box<Recorder>),
    /// A model and its fallbacks.
    Chain(Chain),
}

/// No provider could be made ready for a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The model's name means no provider.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The provider's settings are refused.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// A provider made ready, with the model to ask it for.
#[derive(Debug)]
pub struct Opened {
    /// The provider: with fallbacks, the whole chain.
    pub provider: Provider,
    /// What to write into [`ModelRequest::model`]. A chain replaces it link by link.
    pub model: String,
}

/// Makes the provider of `model` ready, with the models to fall back on. Connects to nothing yet. A fallback that
/// cannot be used is an error at once, not on the day it is needed.
pub fn open(
    model: &str,
    fallback_models: &[String],
    configured: &[ProviderSettings],
    options: &ConnectOptions,
) -> Result<Opened, OpenError> {
    let first = link(model, configured, options)?;
    if fallback_models.is_empty() {
        return Ok(Opened { provider: first.provider, model: first.model });
    }
    let model = first.model.clone();
    let mut links = vec![first];
    for fallback in fallback_models {
        links.push(link(fallback, configured, options)?);
    }
    Ok(Opened { provider: Provider::Chain(Chain::new(links)), model })
}

fn link(model: &str, configured: &[ProviderSettings], options: &ConnectOptions) -> Result<Link, OpenError> {
    let Selected { settings, model } = select(model, configured)?;
    Ok(Link { provider: Provider::hosted(&settings, options)?, model })
}

impl Provider {
    /// A provider over HTTP. Judges the settings; connects to nothing yet.
    pub fn hosted(settings: &ProviderSettings, options: &ConnectOptions) -> Result<Self, ProviderError> {
        Ok(Self::Hosted(Box::new(Hosted::new(settings, options)?)))
    }

    /// The configured name of the provider asked first.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Hosted(hosted) => hosted.name(),
            Self::Replay(_) => "replay",
            Self::Recorder(recorder) => recorder.inner().name(),
            Self::Chain(chain) => chain.first().map_or("none", |link| link.provider.name()),
        }
    }

    /// Asks for one whole reply and hands out what streams in before; after [`StreamEvent::Restarted`] that is void, and
    /// so it is when the outcome is an error. Takes at most [`Patience::total`] for each model; dropping the future
    /// ends the request.
    pub fn complete<'a>(
        &'a self,
        request: &'a ModelRequest,
        emit: &'a mut (dyn FnMut(StreamEvent) + Send),
    ) -> Pin<Box<dyn Future<Output = Result<ModelReply, ProviderError>> + Send + 'a>> {
        match self {
            Self::Hosted(hosted) => Box::pin(hosted.complete(request, emit)),
            Self::Replay(replay) => Box::pin(replay.complete(request, emit)),
            Self::Recorder(recorder) => Box::pin(recorder.complete(request, emit)),
            Self::Chain(chain) => Box::pin(chain.complete(request, emit)),
        }
    }

    /// The models on offer, sorted by name; none for a recording.
    pub fn list_models(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<OfferedModel>, ProviderError>> + Send + '_>> {
        match self {
            Self::Hosted(hosted) => Box::pin(models::list(hosted)),
            Self::Replay(_) => Box::pin(std::future::ready(Ok(Vec::new()))),
            Self::Recorder(recorder) => recorder.inner().list_models(),
            Self::Chain(chain) => match chain.first() {
                Some(link) => link.provider.list_models(),
                None => Box::pin(std::future::ready(Ok(Vec::new()))),
            },
        }
    }
}
