//! A provider as the loop's mind.
//!
//! It says what a provider's error means for a person and for a script, and writes the provider's own name of the model
//! into each request. Retries and fallbacks are the provider's.

use super::hands::{BoxFuture, FaultClass, Mind, MindFault};
use crate::model::{ModelReply, ModelRequest, StreamEvent};
use crate::provider::{Opened, Provider, ProviderError};

/// A provider and the name its model has there.
#[derive(Debug)]
pub struct Thinking {
    provider: Provider,
    model: String,
}

impl Thinking {
    /// From a provider made ready.
    #[must_use]
    pub fn new(opened: Opened) -> Self {
        Self { provider: opened.provider, model: opened.model }
    }
}

impl Mind for Thinking {
    fn complete<'a>(
        &'a self,
        request: &'a ModelRequest,
        sink: &'a mut (dyn FnMut(StreamEvent) + Send),
    ) -> BoxFuture<'a, Result<ModelReply, MindFault>> {
        Box::pin(async move {
            let request = ModelRequest { model: self.model.clone(), ..request.clone() };
            self.provider.complete(&request, sink).await.map_err(|error| fault_of(&error))
        })
    }
}

/// What an error of a provider means.
#[must_use]
pub fn fault_of(error: &ProviderError) -> MindFault {
    let (kind, class) = match error {
        ProviderError::Unauthorized { .. } => ("unauthorized", FaultClass::Configuration),
        ProviderError::RateLimited { .. } => ("rate_limited", FaultClass::TryAgain),
        ProviderError::Overloaded { .. } => ("overloaded", FaultClass::TryAgain),
        ProviderError::QuotaExhausted { .. } => ("quota_exhausted", FaultClass::Failed),
        ProviderError::BadRequest { .. } => ("bad_request", FaultClass::Failed),
        ProviderError::ContextTooLong { .. } => ("context_too_long", FaultClass::TooLong),
        ProviderError::NotFound { .. } => ("not_found", FaultClass::Configuration),
        ProviderError::Garbage { .. } => ("garbage", FaultClass::Failed),
        // A gateway's own page for 502 and the like: whoever is behind it comes back.
        ProviderError::HtmlPage { .. } if error.is_transient() => ("html_page", FaultClass::TryAgain),
        ProviderError::HtmlPage { .. } => ("html_page", FaultClass::Failed),
        ProviderError::Truncated { .. } => ("truncated", FaultClass::TryAgain),
        ProviderError::Timeout { .. } => ("timeout", FaultClass::TimedOut),
        ProviderError::Network { .. } => ("network", FaultClass::TryAgain),
        ProviderError::TooLarge { .. } => ("too_large", FaultClass::Failed),
        ProviderError::Refused { .. } => ("refused", FaultClass::Configuration),
        ProviderError::Recording { .. } => ("recording", FaultClass::Failed),
    };
    let text = error.to_string();
    // The provider's texts end with what to do, after the last semicolon.
    let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
    MindFault { kind: kind.to_owned(), message: message.to_owned(), remedy: remedy.to_owned(), class }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_page_is_transient_and_a_login_page_is_not() {
        let class = |status| fault_of(&ProviderError::HtmlPage { provider: "p".to_owned(), status });
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(class(status).class, FaultClass::TryAgain, "{status}");
            assert!(class(status).remedy.starts_with("try again"), "{:?}", class(status));
        }
        for status in [200, 302, 403, 404] {
            assert_eq!(class(status).class, FaultClass::Failed, "{status}");
        }
    }

    #[test]
    fn errors_keep_their_remedy_apart() {
        let fault = fault_of(&ProviderError::Unauthorized {
            provider: "openai".to_owned(),
            detail: "no; really".to_owned(),
        });
        assert_eq!(fault.class, FaultClass::Configuration);
        assert!(fault.message.ends_with("(no; really)"), "{fault:?}");
        assert!(fault.remedy.starts_with("check providers.openai.apiKey"), "{fault:?}");
    }
}
