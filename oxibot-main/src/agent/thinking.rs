//! A provider as the loop's mind.
//!
//! It says what a provider's error means for a person and for a script, and writes the provider's own name of the model
//! into each request. Retries and fallbacks are the provider's.

use std::time::Duration;

use oxibot_proto::nearest::nearest;

use super::hands::{BoxFuture, FaultClass, Known, Mind, MindFault};
use crate::model::{ModelReply, ModelRequest, StreamEvent};
use crate::provider::{Opened, Provider, ProviderError};

/// How long a list of models is waited for. A person sits before it, and may go on without.
const LISTING: Duration = Duration::from_secs(10);

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

    fn known(&self) -> BoxFuture<'_, Known> {
        Box::pin(async move {
            match tokio::time::timeout(LISTING, self.provider.list_models()).await {
                Ok(Ok(models)) => judge(&self.model, models.iter().map(|model| model.id.as_str())),
                Ok(Err(_)) | Err(_) => Known::Unsaid,
            }
        })
    }
}

/// Looks a model up in its provider's list. A variant (`:free`, `:nitro`) or a tag (`:latest`) need not be listed of
/// its own, and Gemini lists its models below `models/`.
fn judge<'a>(model: &str, listed: impl Iterator<Item = &'a str>) -> Known {
    let listed: Vec<&str> = listed.map(|name| name.strip_prefix("models/").unwrap_or(name)).collect();
    if listed.is_empty() {
        return Known::Unsaid;
    }
    let base = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
    let wanted = model.strip_prefix("models/").unwrap_or(model);
    if listed.iter().any(|name| *name == wanted || base(name) == base(wanted)) {
        return Known::Listed;
    }
    Known::Unlisted(match nearest(wanted, listed) {
        Some(near) => format!("the provider has no model {wanted}; did you mean {near}?"),
        None => format!("the provider has no model {wanted}"),
    })
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
    fn a_model_is_looked_up_as_its_vendor_writes_it() {
        let listed = ["gpt-4o", "llama3.2:latest", "models/gemini-2.5-pro", "anthropic/claude-sonnet-4"];
        for model in ["gpt-4o", "llama3.2", "gemini-2.5-pro", "anthropic/claude-sonnet-4:nitro"] {
            assert_eq!(judge(model, listed.into_iter()), Known::Listed, "{model}");
        }
        let Known::Unlisted(why) = judge("gpt-4p", listed.into_iter()) else { panic!("listed") };
        assert!(why.contains("did you mean gpt-4o?"), "{why}");
        assert!(matches!(judge("nosuch/x", listed.into_iter()), Known::Unlisted(_)));
        assert_eq!(judge("gpt-4o", std::iter::empty()), Known::Unsaid);
    }

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
