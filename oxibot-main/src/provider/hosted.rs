//! A provider reached over HTTP: sends the request, reads the stream, repeats what may be repeated.
//!
//! It follows no redirect (a key would go with it), uses no proxy from the environment, and keeps nothing of the
//! conversation.

use std::collections::BTreeMap;
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::model::{ModelReply, ModelRequest, StreamEvent};

use super::adapt::Adaptation;
use super::anthropic::AnthropicDecoder;
use super::classify::{Asked, content_type, fault, is_html, refusal};
use super::decode::{Decoder, Emit, Flow, MAX_ANSWER, StreamFault, random};
use super::endpoint::{Endpoint, ProviderSettings};
use super::error::{ProviderError, Secrets};
use super::openai::OpenAiDecoder;
use super::presets::{Preset, Wire};
use super::retry::Patience;
use super::sse::{MAX_LINE, SseDecoder};
use super::{anthropic, openai};

/// Most bytes read of an answer that is an error: only its first sentence is shown.
const MAX_REFUSAL: usize = 64 * 1024;

/// How long the numbers after the end of an answer are waited for.
const AFTERMATH: Duration = Duration::from_secs(5);

/// How to connect.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Time limits and retries.
    pub patience: Patience,
    /// A proxy, only if the user configured one; none is taken from the environment.
    pub proxy: Option<String>,
}

/// One provider over HTTP.
#[derive(Debug)]
pub struct Hosted {
    name: String,
    preset: &'static Preset,
    endpoint: Endpoint,
    secrets: Secrets,
    options: ConnectOptions,
    /// Built at first use: a fallback that is never asked costs no certificate store in memory.
    client: OnceLock<Client>,
    learned: Mutex<BTreeMap<String, Adaptation>>,
}

impl Hosted {
    /// Judges the settings; connects to nothing yet.
    pub fn new(settings: &ProviderSettings, options: &ConnectOptions) -> Result<Self, ProviderError> {
        let endpoint = Endpoint::judge(settings)?;
        Ok(Self {
            name: settings.name.clone(),
            preset: settings.preset(),
            secrets: Secrets::of(settings.key(), settings.extra_headers.values().cloned()),
            endpoint,
            options: options.clone(),
            client: OnceLock::new(),
            learned: Mutex::new(BTreeMap::new()),
        })
    }

    /// The configured name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where conversations go, for `status`; it holds no key.
    #[must_use]
    pub fn address(&self) -> String {
        self.endpoint.chat_url().to_string()
    }

    pub(super) fn preset(&self) -> &'static Preset {
        self.preset
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One whole answer. What streams in is handed to `emit`; [`StreamEvent::Restarted`] says to discard it. Nothing
    /// irrevocable happens before this returns, so a broken stream is simply asked for again.
    pub async fn complete(
        &self,
        request: &ModelRequest,
        emit: Emit<'_>,
    ) -> Result<ModelReply, ProviderError> {
        let patience = &self.options.patience;
        let deadline = Instant::now() + patience.total;
        let mut made = 0;
        loop {
            let adaptation = self.adaptation(&request.model);
            let mut streamed = false;
            let mut watched = |event: StreamEvent| {
                streamed = true;
                emit(event);
            };
            let attempt = timeout_at(deadline, self.attempt(request, adaptation, &mut watched));
            let error = match attempt.await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.too_slow("the whole answer", patience.total)),
            };
            // A request that was refused for one of its parameters is another request without it, not a retry.
            let wait = match adaptation.learn(&error) {
                Some(next) => {
                    self.remember(&request.model, next);
                    Duration::ZERO
                }
                None => {
                    made += 1;
                    let left = deadline.saturating_duration_since(Instant::now());
                    let Some(wait) = patience.wait(made, &error, left, random()) else { return Err(error) };
                    wait
                }
            };
            tracing::info!(provider = self.name, made, wait_ms = wait.as_millis(), %error, "asking the provider again");
            if streamed {
                emit(StreamEvent::Restarted);
            }
            sleep(wait).await;
        }
    }

    /// GET of an address of this provider, as JSON.
    pub(super) async fn get(&self, url: Url) -> Result<Value, ProviderError> {
        let whole = async {
            let send = self.client()?.get(url).headers(self.endpoint.headers().clone()).send();
            let mut response = send.await.map_err(|error| self.network(&error))?;
            let body = self.read_bounded(&mut response, MAX_LINE).await?;
            self.judge_status(&response, &body, "")?;
            serde_json::from_slice(&body)
                .map_err(|error| self.garbage(format!("the list of models is no JSON ({error})")))
        };
        let limit = self.options.patience.idle;
        timeout(limit, whole).await.unwrap_or_else(|_| Err(self.too_slow("the list of models", limit)))
    }

    async fn attempt(
        &self,
        request: &ModelRequest,
        adaptation: Adaptation,
        emit: Emit<'_>,
    ) -> Result<ModelReply, ProviderError> {
        let (body, mut decoder) = match self.preset.wire {
            Wire::OpenAi => (
                openai::encode(request, self.preset, &self.name, adaptation),
                Decoder::OpenAi(OpenAiDecoder::new(&self.name)),
            ),
            Wire::Anthropic => (
                anthropic::encode(request, &self.name, adaptation),
                Decoder::Anthropic(AnthropicDecoder::new(&self.name)),
            ),
        };
        let asked = self.asked(&request.model);
        let send = self
            .client()?
            .post(self.endpoint.chat_url())
            .headers(self.endpoint.headers().clone())
            .body(body.to_string())
            .send();
        let idle = self.idle();
        let mut response = timeout(idle, send)
            .await
            .map_err(|_| self.too_slow("the beginning of the answer", idle))?
            .map_err(|error| self.network(&error))?;
        if response.status() != StatusCode::OK {
            let body = self.read_bounded(&mut response, MAX_REFUSAL).await?;
            return Err(refusal(asked, response.status(), response.headers(), &body));
        }
        let kind = content_type(response.headers()).unwrap_or_default();
        if kind.starts_with("application/json") {
            let body = self.read_bounded(&mut response, MAX_LINE).await?;
            let body = serde_json::from_slice(&body)
                .map_err(|error| self.garbage(format!("the answer is no JSON ({error})")))?;
            decoder.whole(body, emit).map_err(|found| fault(asked, found))?;
        } else if is_html(response.headers(), b"") {
            return Err(ProviderError::HtmlPage { provider: self.name.clone(), status: 200 });
        } else {
            self.read_stream(&mut response, &mut decoder, asked, emit).await?;
        }
        decoder.finish().map_err(|found| fault(asked, found))
    }

    async fn read_stream(
        &self,
        response: &mut Response,
        decoder: &mut Decoder,
        asked: Asked<'_>,
        emit: Emit<'_>,
    ) -> Result<(), ProviderError> {
        let mut events = SseDecoder::default();
        let mut flow = Flow::More;
        let (mut received, mut understood) = (0_usize, 0_usize);
        while flow != Flow::Ended {
            let limit = if flow == Flow::Whole { AFTERMATH } else { self.idle() };
            let bytes = match timeout(limit, response.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                // The answer is whole: that the rest is missing changes nothing.
                _ if flow == Flow::Whole => break,
                Ok(Ok(None)) => break,
                Ok(Err(_)) => return Err(ProviderError::Truncated { provider: self.name.clone() }),
                Err(_) => return Err(self.too_slow("the next part of the answer", limit)),
            };
            if received == 0 && is_html(response.headers(), &bytes) {
                return Err(ProviderError::HtmlPage { provider: self.name.clone(), status: 200 });
            }
            received = received.saturating_add(bytes.len());
            if received > MAX_ANSWER {
                return Err(self.too_large("bytes of one answer", MAX_ANSWER));
            }
            let complete = events
                .push(&bytes)
                .map_err(|_| self.too_large("bytes of one line of the answer", MAX_LINE))?;
            for event in complete {
                understood += 1;
                flow = decoder.event(&event, emit).map_err(|found| fault(asked, found))?;
                if flow == Flow::Ended {
                    break;
                }
            }
        }
        // A body that ended properly but held not one event was never a stream.
        if understood == 0 && received > 0 {
            return Err(fault(asked, StreamFault::Garbage("an answer that is no event stream".to_owned())));
        }
        Ok(())
    }

    fn judge_status(&self, response: &Response, body: &[u8], model: &str) -> Result<(), ProviderError> {
        if response.status() != StatusCode::OK || is_html(response.headers(), body) {
            return Err(refusal(self.asked(model), response.status(), response.headers(), body));
        }
        Ok(())
    }

    async fn read_bounded(&self, response: &mut Response, bound: usize) -> Result<Vec<u8>, ProviderError> {
        let mut body = Vec::new();
        loop {
            match timeout(self.idle(), response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    body.extend_from_slice(&bytes);
                    if body.len() > bound {
                        if response.status() == StatusCode::OK {
                            return Err(self.too_large("bytes of one answer", bound));
                        }
                        return Ok(body);
                    }
                }
                Ok(Ok(None)) => return Ok(body),
                // An error's words are worth having even if they stop in the middle.
                Ok(Err(_)) | Err(_) if response.status() != StatusCode::OK => return Ok(body),
                Ok(Err(_)) => return Err(ProviderError::Truncated { provider: self.name.clone() }),
                Err(_) => return Err(self.too_slow("the answer", self.idle())),
            }
        }
    }

    fn client(&self) -> Result<&Client, ProviderError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let built = build_client(&self.endpoint, &self.options).map_err(|why| ProviderError::Refused {
            provider: self.name.clone(),
            why: self.secrets.detail(&why),
        })?;
        Ok(self.client.get_or_init(|| built))
    }

    fn idle(&self) -> Duration {
        let factor = if self.endpoint.is_loopback() { 4 } else { 1 };
        self.options.patience.idle.saturating_mul(factor)
    }

    fn asked<'a>(&'a self, model: &'a str) -> Asked<'a> {
        Asked { provider: &self.name, model, secrets: &self.secrets }
    }

    fn adaptation(&self, model: &str) -> Adaptation {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied().unwrap_or_default()
    }

    fn remember(&self, model: &str, adaptation: Adaptation) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), adaptation);
    }

    fn network(&self, error: &reqwest::Error) -> ProviderError {
        if error.is_timeout() {
            return self.too_slow("the connection", self.options.patience.connect);
        }
        // The innermost cause is the one a person can act on ("connection refused", "no such host").
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let cause = self.secrets.detail(&cause.to_string());
        ProviderError::Network { provider: self.name.clone(), host: self.endpoint.host(), cause }
    }

    pub(super) fn garbage(&self, what: String) -> ProviderError {
        ProviderError::Garbage { provider: self.name.clone(), what }
    }

    fn too_slow(&self, what: &'static str, limit: Duration) -> ProviderError {
        ProviderError::Timeout { provider: self.name.clone(), what, seconds: limit.as_secs().max(1) }
    }

    fn too_large(&self, what: &'static str, limit: usize) -> ProviderError {
        ProviderError::TooLarge { provider: self.name.clone(), what, limit }
    }
}

fn build_client(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Client, String> {
    install_crypto();
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.patience.connect)
        .user_agent(concat!("oxibot/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &options.proxy {
        let proxy =
            reqwest::Proxy::all(proxy).map_err(|error| format!("the proxy cannot be used: {error}"))?;
        builder = builder.proxy(proxy);
    }
    builder = if endpoint.is_https() {
        builder.https_only(true)
    } else {
        // A model server on this machine must work where no certificates are installed.
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("the TLS client cannot be made ({error}: {cause}); are CA certificates installed (package ca-certificates)?")
    })
}

/// rustls wants one crypto provider for the process; ring is the only one in the tree.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only if one is installed already, which serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}
