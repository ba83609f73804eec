//! Several models in order: the next is asked when one cannot answer.

use crate::model::{ModelReply, ModelRequest, StreamEvent};

use super::Provider;
use super::decode::Emit;
use super::error::ProviderError;

/// One provider with the model to ask it for.
#[derive(Debug)]
pub struct Link {
    /// Provider.
    pub provider: Provider,
    /// The model's name there.
    pub model: String,
}

/// The first model and its fallbacks.
#[derive(Debug)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// The models in the order to ask them.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        Self { links }
    }

    /// Provider and model asked first.
    pub(super) fn first(&self) -> Option<&Link> {
        self.links.first()
    }

    /// Asks one after the other. If all fail, the error is that of the first: it is the model the user chose.
    pub(super) async fn complete(
        &self,
        request: &ModelRequest,
        emit: Emit<'_>,
    ) -> Result<ModelReply, ProviderError> {
        let mut first_error = None;
        for link in &self.links {
            let request = ModelRequest { model: link.model.clone(), ..request.clone() };
            let mut streamed = false;
            let outcome = {
                let mut watched = |event: StreamEvent| {
                    streamed = event != StreamEvent::Restarted;
                    emit(event);
                };
                link.provider.complete(&request, &mut watched).await
            };
            let error = match outcome {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let goes_on = error.allows_fallback();
            tracing::warn!(provider = link.provider.name(), model = link.model, %error, "model did not answer");
            let error = first_error.get_or_insert(error);
            if !goes_on {
                return Err(error.clone());
            }
            if streamed {
                emit(StreamEvent::Restarted);
            }
        }
        Err(first_error.unwrap_or_else(|| ProviderError::Refused {
            provider: "none".to_owned(),
            why: "no model is set; run `oxibot onboard`".to_owned(),
        }))
    }
}
