//! `web_get`: from a URL to a page, hop by hop, within one deadline.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use oxibot_proto::message::Denial;
use oxibot_proto::web::{Exceptions, Target, judge_redirect, judge_url};
use tokio::sync::Semaphore;

use crate::body::{Body, MAX_BODY, More};
use crate::cache::{Cache, Page, Validators};
use crate::charset;
use crate::connection::Response;
use crate::convert::Converters;
use crate::hop::{self, Trouble};
use crate::pace::Pace;
use crate::page::{clean, line};
use crate::resolve::Resolver;
use crate::slots::{Slot, Slots};

/// Time for everything from the first question to a name server to the last byte of the body.
const WHOLE: Duration = Duration::from_secs(30);
/// Redirects followed.
const MAX_REDIRECTS: usize = 5;
/// Until when a page is text, from the start: its asker does not wait for longer than 35 s.
const MAX_CONVERTING: Duration = Duration::from_secs(34);
/// Searches at once.
const MAX_SEARCHES: usize = 8;
/// Most bytes of what a server wrote that are shown in a failure.
const MAX_SHOWN: usize = 200;
/// Longest header value that is looked at.
const MAX_VALUE: usize = 8 * 1024;

/// What is needed to get pages.
pub(crate) struct Getter {
    pub(crate) converters: Converters,
    pub(crate) resolver: Resolver,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// Slots of searches, which go to one service of the operator's.
    pub(crate) searches: Semaphore,
    cache: RefCell<Cache>,
    pace: RefCell<Pace>,
    slots: Slots,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    pub(crate) offset: u64,
    pub(crate) conversation: &'a str,
    pub(crate) exceptions: &'a Exceptions,
}

impl Getter {
    pub(crate) fn new(converters: Converters, resolver: Resolver, tls: Arc<rustls::ClientConfig>) -> Self {
        let (cache, pace) = (RefCell::default(), RefCell::default());
        let searches = Semaphore::new(MAX_SEARCHES);
        Self { converters, resolver, tls, searches, cache, pace, slots: Slots::new() }
    }

    /// Gets a page, or the page as it is kept.
    pub(crate) async fn get(&self, wanted: Wanted<'_>) -> Result<Rc<Page>, Trouble> {
        let target = judge_url(wanted.url, wanted.exceptions)?;
        let asked = target.url().to_string();
        let kept = self.cache.borrow().find(wanted.conversation, &asked, Instant::now());
        if let Some((page, true)) = &kept
            && wanted.offset > 0
        {
            return Ok(page.clone());
        }
        let kept = kept.map(|(page, _)| page);
        let started = tokio::time::Instant::now();
        let fetched = self.fetch(target, &wanted, kept.as_deref());
        let got = tokio::time::timeout_at(started + WHOLE, fetched).await;
        let got =
            got.map_err(|_| Trouble::Failed(format!("no whole answer within {} s", WHOLE.as_secs())))??;
        let page = match (got, kept) {
            (Got::Unchanged, Some(page)) => page,
            (Got::Unchanged, None) => {
                return Err(Trouble::Failed("the server says that nothing changed, unasked".to_owned()));
            }
            // The slot is kept until the page is text: what was read is in memory until then.
            (Got::Fetched(fetched, _slot), _) => Rc::new(self.page(*fetched, started + MAX_CONVERTING).await),
        };
        self.cache.borrow_mut().keep(wanted.conversation, &asked, page.clone(), Instant::now());
        Ok(page)
    }

    async fn fetch(&self, first: Target, wanted: &Wanted<'_>, kept: Option<&Page>) -> Result<Got, Trouble> {
        let Wanted { exceptions, conversation, .. } = wanted;
        let mut target = first;
        for hops in 0.. {
            let host = target.url().host_str().unwrap_or_default().to_owned();
            let wait = self.pace.borrow_mut().book(&host, Instant::now());
            tokio::time::sleep(wait).await;
            let addresses = hop::addresses(&target, &self.resolver, exceptions).await?;
            let slot = self.slots.acquire(&host, conversation).await;
            let slot = slot.ok_or_else(|| Trouble::Failed("the worker ends; try again".to_owned()))?;
            // What is kept was found under the first address.
            let headers = headers(kept.filter(|_| hops == 0).map(|page| &page.validators));
            let response = hop::send(target.url(), &addresses, &self.tls, &headers).await?;
            if response.status() == StatusCode::NOT_MODIFIED && hops == 0 && kept.is_some() {
                return Ok(Got::Unchanged);
            }
            let location = redirect(&response);
            let Some(location) = location else {
                return read(target, response).await.map(|fetched| Got::Fetched(Box::new(fetched), slot));
            };
            if hops == MAX_REDIRECTS {
                return Err(Trouble::Failed(format!(
                    "more than {MAX_REDIRECTS} redirects, the last to {}",
                    line(&location, MAX_SHOWN)
                )));
            }
            let next = judge_redirect(&target, &location, exceptions)?;
            if target.is_https() && !next.is_https() {
                return Err(downgrade(&next).into());
            }
            target = next;
        }
        Err(Trouble::Failed("too many redirects".to_owned()))
    }

    /// What is shown of what was fetched. Done by `until`.
    async fn page(&self, fetched: Fetched, until: tokio::time::Instant) -> Page {
        let Fetched { target, status, kind, date, validators, content, mut notes } = fetched;
        let url = target.url();
        let (title, text) = match content {
            Content::Named(what) => (String::new(), what),
            Content::Text { bytes, html } => {
                let (text, cut) = charset::decode(&bytes, &kind, html, MAX_BODY);
                drop(bytes);
                if cut {
                    notes.push(format!("only the first {} KiB of its text are shown", MAX_BODY / 1024));
                }
                if html {
                    let readable = self.converters.convert(text, url, until).await;
                    (readable.title, clean(&readable.text))
                } else {
                    (String::new(), clean(&text))
                }
            }
        };
        if text.trim().is_empty() {
            notes.push("the page has no readable text; it may be made by a script".to_owned());
        }
        Page { url: url.to_string(), status, kind, date, title, text, notes, validators }
    }
}

enum Got {
    Unchanged,
    /// A page, and the slot it was fetched in.
    Fetched(Box<Fetched>, Slot),
}

struct Fetched {
    target: Target,
    status: String,
    kind: String,
    date: String,
    validators: Validators,
    content: Content,
    notes: Vec<String>,
}

enum Content {
    Text {
        bytes: Vec<u8>,
        html: bool,
    },
    /// Something that is no text: what it is.
    Named(String),
}

fn downgrade(next: &Target) -> Denial {
    Denial {
        rule: "web.url.downgrade".to_owned(),
        reason: format!(
            "an https page redirects to {} without encryption",
            next.url().host_str().unwrap_or_default()
        ),
        hint: "ask for that address itself if it is what you want".to_owned(),
    }
}

fn headers(validators: Option<&Validators>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = vec![
        (
            header::ACCEPT,
            HeaderValue::from_static(
                "text/html, application/xhtml+xml, text/*;q=0.9, application/json;q=0.9, */*;q=0.1",
            ),
        ),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
        (header::ACCEPT_LANGUAGE, HeaderValue::from_static("en, *;q=0.5")),
    ];
    if let Some(validators) = validators.filter(|validators| validators.any()) {
        let pairs =
            [(header::IF_NONE_MATCH, &validators.etag), (header::IF_MODIFIED_SINCE, &validators.modified)];
        for (name, value) in pairs {
            if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.push((name, value));
            }
        }
    }
    headers
}

fn value(response: &Response, name: &HeaderName) -> Option<String> {
    let value = response.headers().get(name)?.as_bytes();
    (value.len() <= MAX_VALUE).then(|| String::from_utf8_lossy(value).trim().to_owned())
}

fn redirect(response: &Response) -> Option<String> {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        .then(|| value(response, &header::LOCATION))
        .flatten()
}

/// Reads the body of the last hop, if it is text.
async fn read(target: Target, mut response: Response) -> Result<Fetched, Trouble> {
    let status = response.status();
    let status = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let kind = value(&response, &header::CONTENT_TYPE).unwrap_or_default();
    let modified = value(&response, &header::LAST_MODIFIED);
    let date = modified.clone().or_else(|| value(&response, &header::DATE)).unwrap_or_default();
    let validators = Validators { etag: value(&response, &header::ETAG), modified };
    let encoding = value(&response, &header::CONTENT_ENCODING).unwrap_or_default();
    let length = response.content_length();
    let mut notes = Vec::new();
    let sort = sort(&kind);
    let content = if sort == Sort::Other {
        Content::Named(named(&kind, length))
    } else {
        let failed =
            |error: &dyn std::fmt::Display| Trouble::Failed(format!("cannot read the answer: {error}"));
        let mut body = Body::new(&encoding).map_err(|error| failed(&error))?;
        while let Some(piece) =
            response.chunk().await.map_err(|error| failed(&line(&error.to_string(), MAX_SHOWN)))?
        {
            if body.push(&piece).map_err(|error| failed(&error))? == More::Full {
                break;
            }
        }
        let (bytes, cut) = body.finish().map_err(|error| failed(&error))?;
        if cut {
            notes.push(format!("only the first {} KiB of the answer were read", MAX_BODY / 1024));
        }
        match sort {
            Sort::Html => Content::Text { bytes, html: true },
            Sort::Text => Content::Text { bytes, html: false },
            Sort::Unsaid | Sort::Other if looks_like_text(&bytes) => {
                let html = bytes.trim_ascii_start().first() == Some(&b'<');
                Content::Text { bytes, html }
            }
            Sort::Unsaid | Sort::Other => Content::Named(named("an unnamed type", Some(bytes.len() as u64))),
        }
    };
    Ok(Fetched { target, status, kind, date, validators, content, notes })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Html,
    Text,
    /// The server does not say.
    Unsaid,
    Other,
}

fn sort(kind: &str) -> Sort {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "" => Sort::Unsaid,
        "text/html" | "application/xhtml+xml" => Sort::Html,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/yaml"
        | "application/toml"
        | "application/x-yaml"
        | "application/ecmascript"
        | "application/x-ndjson"
        | "application/sql"
        | "application/x-sh"
        | "image/svg+xml" => Sort::Text,
        other if other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml") => {
            Sort::Text
        }
        _ => Sort::Other,
    }
}

fn named(kind: &str, length: Option<u64>) -> String {
    let kind = line(kind, 100);
    let length = length.map(|length| format!(", {length} bytes")).unwrap_or_default();
    format!("Not text and not shown: {kind}{length}.")
}

fn looks_like_text(bytes: &[u8]) -> bool {
    let start = bytes.get(..4096).unwrap_or(bytes);
    !start.contains(&0)
        && std::str::from_utf8(start).map_or_else(|error| error.valid_up_to() + 4 > start.len(), |_| true)
}

/// TLS with the system's authorities, by the one provider there is.
pub(crate) fn tls_configuration() -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    // Some of a system's certificates may be unusable; without any, every https page says so.
    let (_, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("cannot prepare TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_sorted_into_what_is_read_and_what_is_named() {
        for kind in ["text/html", "TEXT/HTML; charset=x", "application/xhtml+xml"] {
            assert_eq!(sort(kind), Sort::Html, "{kind}");
        }
        for kind in
            ["text/plain", "application/json", "application/ld+json; x=y", "application/atom+xml", "text/css"]
        {
            assert_eq!(sort(kind), Sort::Text, "{kind}");
        }
        for kind in ["application/pdf", "image/png", "application/octet-stream", "video/mp4", "nonsense"] {
            assert_eq!(sort(kind), Sort::Other, "{kind}");
        }
        assert_eq!(sort(" "), Sort::Unsaid);
        assert_eq!(named("application/pdf", Some(7)), "Not text and not shown: application/pdf, 7 bytes.");
    }

    #[test]
    fn unnamed_bytes_are_told_from_text() {
        assert!(looks_like_text("h\u{e4}".as_bytes()) && looks_like_text(b"") && looks_like_text(b"h\xc3"));
        assert!(!looks_like_text(b"a\0b") && !looks_like_text(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9"));
    }
}
