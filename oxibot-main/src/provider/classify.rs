//! Which error a vendor's answer means. Pure.
//!
//! Statuses alone do not tell: an empty account is 400 at one vendor, 402 or 429 at others, and a context that is too
//! long is 400 everywhere but says so in different words.

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::decode::StreamFault;
use super::error::{ProviderError, Secrets};
use super::retry::parse_retry_after;

/// Whose answer it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) secrets: &'a Secrets,
}

/// The error an answer with a status other than 200 means.
pub(crate) fn refusal(
    asked: Asked<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> ProviderError {
    let provider = asked.provider.to_owned();
    let status = status.as_u16();
    if is_html(headers, body) {
        return ProviderError::HtmlPage { provider, status };
    }
    if (300..400).contains(&status) {
        let why = format!(
            "it answered with a redirect (status {status}), which is never followed because a key would go with it; set providers.{provider}.apiBase to the final address"
        );
        return ProviderError::Refused { provider, why };
    }
    let (words, kind) = match serde_json::from_slice::<Value>(body) {
        Ok(json) => (message_of(&json), kind_of(&json)),
        Err(_) => (String::from_utf8_lossy(body).into_owned(), String::new()),
    };
    judge(asked, status, &words, &kind, retry_after(headers))
}

/// The error a fault inside a stream means.
pub(crate) fn fault(asked: Asked<'_>, fault: StreamFault) -> ProviderError {
    let provider = asked.provider.to_owned();
    match fault {
        StreamFault::Garbage(what) => ProviderError::Garbage { provider, what: asked.secrets.detail(&what) },
        StreamFault::TooLarge { what, limit } => ProviderError::TooLarge { provider, what, limit },
        StreamFault::Truncated => ProviderError::Truncated { provider },
        StreamFault::Vendor { status, body } => {
            judge(asked, status, &message_of(&body), &kind_of(&body), None)
        }
    }
}

fn judge(
    asked: Asked<'_>,
    status: u16,
    words: &str,
    kind: &str,
    retry_after: Option<Duration>,
) -> ProviderError {
    let provider = asked.provider.to_owned();
    let detail = asked.secrets.detail(words);
    let lower = words.to_ascii_lowercase();
    let says = |marks: &[&str]| marks.iter().any(|mark| lower.contains(mark));
    let is_kind = |kinds: &[&str]| kinds.contains(&kind);
    match status {
        402 => ProviderError::QuotaExhausted { provider, detail },
        400 | 403 | 429
            if is_kind(&["insufficient_quota", "billing_error", "exceeded_current_quota_error"])
                || says(&["credit balance is too low", "insufficient balance", "insufficient credits"]) =>
        {
            ProviderError::QuotaExhausted { provider, detail }
        }
        429 => ProviderError::RateLimited { provider, retry_after, detail },
        401 | 403 => ProviderError::Unauthorized { provider, detail },
        400 if says(&["api key not valid", "incorrect api key", "invalid api key", "api_key_invalid"]) => {
            ProviderError::Unauthorized { provider, detail }
        }
        413 => ProviderError::ContextTooLong { provider, detail },
        400 | 422
            if is_kind(&["context_length_exceeded", "exceed_context_size_error"])
                || says(&[
                    "context length",
                    "context_length",
                    "context window",
                    "context size",
                    "prompt is too long",
                    "input is too long",
                    "too many tokens",
                    "input token count",
                    "maximum prompt length",
                ]) =>
        {
            ProviderError::ContextTooLong { provider, detail }
        }
        404 => ProviderError::NotFound { provider, model: asked.model.to_owned(), detail },
        400 | 422
            if is_kind(&["model_not_found", "invalid_model"])
                || says(&[
                    "not a valid model",
                    "model not exist",
                    "model does not exist",
                    "unknown model",
                ]) =>
        {
            ProviderError::NotFound { provider, model: asked.model.to_owned(), detail }
        }
        408 | 409 | 500.. => ProviderError::Overloaded { provider, status, retry_after, detail },
        _ => ProviderError::BadRequest { provider, status, detail },
    }
}

/// Whether it is a web page and not an API's answer.
pub(crate) fn is_html(headers: &HeaderMap, body: &[u8]) -> bool {
    let by_type = content_type(headers).is_some_and(|kind| kind.starts_with("text/html"));
    let head: Vec<u8> = body.trim_ascii_start().iter().take(9).map(u8::to_ascii_lowercase).collect();
    by_type || head.starts_with(b"<!doctype") || head.starts_with(b"<html")
}

/// The type of the content, in lower case.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(CONTENT_TYPE)?.to_str().ok()?.trim().to_ascii_lowercase())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    // OpenAI and others: the same in milliseconds, more exact.
    let millis =
        headers.get("retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    if let Some(millis) = millis {
        return Some(Duration::from_millis(millis));
    }
    parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemTime::now())
}

/// The vendor's words, wherever it puts them.
fn message_of(body: &Value) -> String {
    // Gemini wraps the object into a list.
    let body = body.get(0).unwrap_or(body);
    // OpenRouter's own message is "Provider returned error"; the cause is below.
    let raw = body.pointer("/error/metadata/raw");
    let candidates = [
        body.pointer("/error/message"),
        body.get("error").filter(|error| error.is_string()),
        body.get("message"),
        body.get("detail"),
        body.get("msg"),
    ];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let message = candidates.into_iter().flatten().find(|value| !value.is_null()).map(text);
    match (message, raw.and_then(Value::as_str)) {
        (Some(message), Some(raw)) => format!("{message}: {raw}"),
        (Some(message), None) => message,
        (None, _) => body.to_string(),
    }
}

/// The vendor's name for the kind of error, if it has one.
fn kind_of(body: &Value) -> String {
    let body = body.get(0).unwrap_or(body);
    let candidates =
        [body.pointer("/error/code"), body.pointer("/error/type"), body.get("code"), body.get("type")];
    candidates.into_iter().flatten().find_map(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(status: u16, body: &Value) -> ProviderError {
        let secrets = Secrets::of(Some("sk-secret-key-0001"), std::iter::empty());
        let asked = Asked { provider: "p", model: "m", secrets: &secrets };
        refusal(asked, StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.to_string().as_bytes())
    }

    fn name(error: &ProviderError) -> String {
        format!("{error:?}").split([' ', '{']).next().unwrap().to_owned()
    }

    #[test]
    fn refusals_of_the_vendors_are_told_apart() {
        for (status, body, expected) in [
            (401, json!({"error": {"message": "No auth credentials found", "code": 401}}), "Unauthorized"),
            (
                400,
                json!([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]),
                "Unauthorized",
            ),
            (
                400,
                json!({"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API"}}),
                "QuotaExhausted",
            ),
            (
                429,
                json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}}),
                "QuotaExhausted",
            ),
            (402, json!({"error": {"message": "Insufficient Balance"}}), "QuotaExhausted"),
            (
                429,
                json!([{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}]),
                "RateLimited",
            ),
            (
                400,
                json!({"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}}),
                "ContextTooLong",
            ),
            (
                400,
                json!({"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
                "ContextTooLong",
            ),
            (
                400,
                json!({"error": {"code": 400, "message": "request (9000 tokens) exceeds the available context size", "type": "exceed_context_size_error"}}),
                "ContextTooLong",
            ),
            (413, json!({"error": {"type": "request_too_large", "message": "too large"}}), "ContextTooLong"),
            (404, json!({"error": "model 'x' not found"}), "NotFound"),
            (400, json!({"error": {"message": "x/y is not a valid model ID", "code": 400}}), "NotFound"),
            (400, json!({"error": {"message": "Model Not Exist"}}), "NotFound"),
            (400, json!({"error": {"message": "tools.0: bad"}}), "BadRequest"),
            (
                422,
                json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden"}]}}),
                "BadRequest",
            ),
            (500, json!({}), "Overloaded"),
            (
                529,
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                "Overloaded",
            ),
            (409, json!({}), "Overloaded"),
            (302, json!({}), "Refused"),
        ] {
            let error = error(status, &body);
            assert_eq!(name(&error), expected, "{status} {body} -> {error}");
        }
    }

    #[test]
    fn words_of_the_vendor_reach_the_user_without_the_key() {
        let shown =
            error(401, &json!({"error": {"message": "Incorrect API key provided: sk-secret-key-0001"}}))
                .to_string();
        assert!(
            shown.contains("Incorrect API key provided: [key]") && shown.contains("oxibot onboard"),
            "{shown}"
        );
        let shown = error(
            400,
            &json!({"error": {"message": "Provider returned error", "metadata": {"raw": "tool x is bad"}}}),
        );
        assert!(shown.to_string().contains("tool x is bad"), "{shown}");
    }

    #[test]
    fn web_page_is_named_and_not_quoted() {
        let secrets = Secrets::default();
        let asked = Asked { provider: "p", model: "m", secrets: &secrets };
        let body = b"\n <!DOCTYPE html><html><body>502 Bad Gateway</body></html>";
        let error = refusal(asked, StatusCode::BAD_GATEWAY, &HeaderMap::new(), body);
        assert_eq!(error, ProviderError::HtmlPage { provider: "p".to_owned(), status: 502 });
        assert!(error.is_transient() && !error.to_string().contains("Gateway<"));
    }

    #[test]
    fn retry_after_is_read_in_both_units() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert("retry-after-ms", "1500".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_millis(1500)));
    }
}
