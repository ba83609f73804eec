//! Where a request goes and whether a key may go with it. Decides; opens nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::error::ProviderError;
use super::presets::{self, KeyNeed, Preset, Wire};

/// Version of Anthropic's API that the messages module speaks.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// What the configuration says about one provider.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Name: a preset's, or one of the user's own for an OpenAI-compatible service.
    pub name: String,
    /// The key; empty is as good as none.
    pub api_key: Option<SecretString>,
    /// Address instead of the preset's. The user's choice: a key goes there.
    pub api_base: Option<String>,
    /// More headers, sent to this provider only.
    pub extra_headers: BTreeMap<String, String>,
}

impl ProviderSettings {
    /// Settings of a provider that needs none, such as ollama on this machine.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), api_key: None, api_base: None, extra_headers: BTreeMap::new() }
    }

    /// The preset it is, or the one for services of the user's own.
    #[must_use]
    pub fn preset(&self) -> &'static Preset {
        presets::preset(&self.name).unwrap_or_else(presets::custom)
    }

    /// The key, unless it is empty.
    pub(crate) fn key(&self) -> Option<&str> {
        self.api_key.as_ref().map(|key| key.expose_secret().trim()).filter(|key| !key.is_empty())
    }

    fn base_override(&self) -> Option<&str> {
        self.api_base.as_deref().map(str::trim).filter(|base| !base.is_empty())
    }

    /// Whether the user set it up: the empty sections of a sample configuration do not count.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.key().is_some() || self.base_override().is_some()
    }
}

/// A provider's judged address and the headers that go there and nowhere else.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    base: Url,
    wire: Wire,
    headers: HeaderMap,
}

impl Endpoint {
    /// Judges the settings.
    pub(crate) fn judge(settings: &ProviderSettings) -> Result<Self, ProviderError> {
        let preset = settings.preset();
        let refused = |why: String| ProviderError::Refused { provider: settings.name.clone(), why };
        let setting = format!("providers.{}", settings.name);
        let text = settings
            .base_override()
            .or(preset.base)
            .ok_or_else(|| refused(format!("it has no address; set {setting}.apiBase")))?;
        let base =
            parse_base(text, preset.wire).map_err(|why| refused(format!("{setting}.apiBase {why}")))?;
        let key = settings.key();
        if key.is_none() && preset.key == KeyNeed::Required && settings.base_override().is_none() {
            return Err(refused(format!("it has no API key; run `oxibot onboard` or set {setting}.apiKey")));
        }
        if let Some(key) = key {
            refuse_foreign_key(settings, preset, key).map_err(refused)?;
        }
        let carries_secret = key.is_some() || !settings.extra_headers.is_empty();
        if base.scheme() == "http" && carries_secret && !is_loopback(&base) {
            return Err(refused(format!(
                "{setting}.apiBase is http:// and the key would cross the network readable by anyone; use https://, or a loopback address"
            )));
        }
        let headers = headers(settings, preset.wire, key).map_err(refused)?;
        Ok(Self { base, wire: preset.wire, headers })
    }

    /// Headers of every request, secrets marked as such.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whether TLS is used.
    pub(crate) fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.base)
    }

    /// Host and port, for error texts.
    pub(crate) fn host(&self) -> String {
        let host = self.base.host_str().unwrap_or("?");
        self.base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Where conversations go.
    pub(crate) fn chat_url(&self) -> Url {
        self.below(match self.wire {
            Wire::OpenAi => "chat/completions",
            Wire::Anthropic => "messages",
        })
    }

    /// Where the list of models is.
    pub(crate) fn models_url(&self) -> Url {
        let mut url = self.below("models");
        if self.wire == Wire::Anthropic {
            url.set_query(Some("limit=1000"));
        }
        url
    }

    /// What OpenRouter says of the key that asks: the list of models it shows to anybody.
    pub(crate) fn key_url(&self) -> Url {
        self.below("key")
    }

    /// Ollama's own list, beside the compatible API: `/api/tags` at the root.
    pub(crate) fn ollama_tags_url(&self) -> Url {
        let mut url = self.base.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{}/api/tags", path.strip_suffix("/v1").unwrap_or(&path)));
        url
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let joined = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&joined);
        url
    }
}

/// Reads a base URL. A bare host means its `/v1`, and the full address of the conversation endpoint is understood,
/// because both are what people paste.
fn parse_base(text: &str, wire: Wire) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("has no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password; put the key in apiKey".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not hold a query or fragment; put the key in apiKey".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let endpoint = match wire {
        Wire::OpenAi => "/chat/completions",
        Wire::Anthropic => "/messages",
    };
    let path = path.strip_suffix(endpoint).unwrap_or(&path);
    let path = match wire {
        Wire::OpenAi if path.is_empty() => "/v1".to_owned(),
        Wire::OpenAi => path.to_owned(),
        Wire::Anthropic if path.ends_with("/v1") => path.to_owned(),
        Wire::Anthropic => format!("{path}/v1"),
    };
    url.set_path(&path);
    Ok(url)
}

/// Loopback by address, or by the one name that RFC 6761 reserves for it.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// A key that visibly is another vendor's is not sent to this one, unless the user named the address himself.
fn refuse_foreign_key(settings: &ProviderSettings, preset: &Preset, key: &str) -> Result<(), String> {
    if settings.base_override().is_some() {
        return Ok(());
    }
    match presets::vendor_of_key(key) {
        Some(owner) if owner.name != preset.name => {
            Err(format!("its key is one of {}'s; move it to providers.{}.apiKey", owner.title, owner.name))
        }
        Some(_) | None => Ok(()),
    }
}

fn headers(settings: &ProviderSettings, wire: Wire, key: Option<&str>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if wire == Wire::Anthropic {
        headers.insert("anthropic-version", HeaderValue::from_static(ANTHROPIC_VERSION));
    }
    if let Some(key) = key {
        let (name, text) = match wire {
            Wire::OpenAi => (AUTHORIZATION, format!("Bearer {key}")),
            Wire::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
        };
        headers.insert(
            name,
            secret_value(&text).ok_or("its key holds characters that no key has; paste it again")?,
        );
    }
    for (name, value) in &settings.extra_headers {
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            format!("providers.{}.extraHeaders: {name:?} is not a header name", settings.name)
        })?;
        // These belong to the transport; a second one of them confuses proxies into reading two requests.
        if ["host", "content-length", "transfer-encoding", "connection", "content-type", "te", "upgrade"]
            .contains(&parsed.as_str())
        {
            return Err(format!("providers.{}.extraHeaders must not set {parsed}", settings.name));
        }
        let value = secret_value(value).ok_or_else(|| {
            format!("providers.{}.extraHeaders.{parsed} holds characters no header may hold", settings.name)
        })?;
        headers.insert(parsed, value);
    }
    Ok(headers)
}

fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = text.is_ascii().then(|| HeaderValue::from_str(text).ok())??;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, key: Option<&str>, base: Option<&str>) -> ProviderSettings {
        ProviderSettings {
            api_key: key.map(|key| SecretString::from(key.to_owned())),
            api_base: base.map(str::to_owned),
            ..ProviderSettings::named(name)
        }
    }

    fn url(name: &str, base: Option<&str>) -> String {
        Endpoint::judge(&settings(name, Some("k"), base)).unwrap().chat_url().to_string()
    }

    fn refusal(settings: &ProviderSettings) -> String {
        Endpoint::judge(settings).unwrap_err().to_string()
    }

    #[test]
    fn base_forms_that_people_paste_mean_the_same() {
        let full = "https://api.anthropic.com/v1/messages";
        for base in
            [None, Some("https://api.anthropic.com/v1/"), Some(full), Some(" https://api.anthropic.com/ ")]
        {
            assert_eq!(url("anthropic", base), full);
        }
        assert_eq!(
            url("anthropic", Some("https://gw.example/anthropic")),
            "https://gw.example/anthropic/v1/messages"
        );
        let local = "http://127.0.0.1:11434/v1/chat/completions";
        for base in [None, Some("http://127.0.0.1:11434"), Some("http://127.0.0.1:11434/v1/"), Some(local)] {
            assert_eq!(url("ollama", base), local);
        }
        assert_eq!(url("zhipu", None), "https://open.bigmodel.cn/api/paas/v4/chat/completions");
        let ollama = Endpoint::judge(&settings("ollama", None, Some("http://[::1]:9/x/v1"))).unwrap();
        assert_eq!(ollama.ollama_tags_url().as_str(), "http://[::1]:9/x/api/tags");
    }

    #[test]
    fn key_over_plain_http_is_refused_except_to_loopback() {
        for base in [
            "http://api.example.com/v1",
            "http://10.0.0.2/v1",
            "http://127.0.0.1.example.com/",
            "http://localhost.example/",
        ] {
            assert!(refusal(&settings("custom", Some("k"), Some(base))).contains("https://"), "{base}");
            assert!(Endpoint::judge(&settings("custom", None, Some(base))).is_ok(), "{base}");
        }
        for base in ["http://127.0.0.1:1/v1", "http://127.9.9.9/v1", "http://localhost/v1", "http://[::1]/v1"]
        {
            assert!(Endpoint::judge(&settings("custom", Some("k"), Some(base))).is_ok(), "{base}");
        }
    }

    #[test]
    fn extra_headers_over_plain_http_count_as_a_secret() {
        let mut with_header = settings("custom", None, Some("http://10.0.0.2/v1"));
        with_header.extra_headers.insert("X-Auth".to_owned(), "s".to_owned());
        assert!(refusal(&with_header).contains("https://"));
    }

    #[test]
    fn key_of_another_vendor_is_refused_before_it_is_sent() {
        let text = refusal(&settings("openai", Some("sk-ant-api03-xyz"), None));
        assert!(text.contains("providers.anthropic.apiKey") && !text.contains("xyz"), "{text}");
        assert!(
            Endpoint::judge(&settings("openai", Some("sk-ant-x"), Some("https://gw.example/v1"))).is_ok()
        );
        assert!(Endpoint::judge(&settings("openai", Some("sk-proj-x"), None)).is_ok());
    }

    #[test]
    fn addresses_that_cannot_be_meant_are_refused() {
        for base in [
            "api.openai.com",
            "ftp://x/",
            "https://user:pw@x/v1",
            "https://x/v1?key=abc",
            "https://x/v1#k",
            "https://",
        ] {
            assert!(
                refusal(&settings("custom", None, Some(base))).contains("providers.custom.apiBase"),
                "{base}"
            );
        }
        assert!(refusal(&settings("custom", Some("k"), None)).contains("set providers.custom.apiBase"));
    }

    #[test]
    fn missing_key_names_the_command_to_run() {
        assert!(refusal(&settings("groq", Some("  "), None)).contains("oxibot onboard"));
    }

    #[test]
    fn keys_and_headers_that_would_split_the_request_are_refused() {
        assert!(refusal(&settings("openai", Some("a\nb"), None)).contains("paste it again"));
        for (name, value) in [("Host", "evil"), ("bad name", "x"), ("X-A", "a\r\nX-B: c")] {
            let mut bad = settings("openai", Some("k"), None);
            bad.extra_headers.insert(name.to_owned(), value.to_owned());
            assert!(refusal(&bad).contains("extraHeaders"), "{name}");
        }
    }

    #[test]
    fn debug_output_holds_no_key() {
        let mut secret = settings("openai", Some("sk-verysecret"), None);
        secret.extra_headers.insert("X-Title".to_owned(), "also-secret".to_owned());
        let shown = format!("{:?}", Endpoint::judge(&secret).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
