//! `web_search`: one question to the configured service. The key goes to its configured address and nowhere else.
//!
//! The address is the operator's own, so the guard does not judge it (a SearXNG may well be on this machine), and no
//! redirect of it is followed.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use oxibot_proto::message::MAX_OUTPUT;
use oxibot_proto::settings::SearchProvider;
use oxibot_proto::web::{HostName, SearchService, judge_name};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use url::Url;

use crate::body::{Body, More};
use crate::connection::Response;
use crate::get::Getter;
use crate::hop::{self, Trouble};
use crate::markdown::{collapse, convert};
use crate::page::{LABEL, line, start};

/// Where Brave's API is.
const BRAVE: &str = "https://api.search.brave.com/res/v1/web/search";
/// Time for the whole question.
const WHOLE: Duration = Duration::from_secs(15);
/// Most results of one search that are shown, and most that are kept of an answer: the others are passed over.
const MAX_RESULTS: u32 = 10;
const MAX_KEPT: usize = 20;
/// Most bytes of a title or description that are looked at.
const MAX_FIELD: usize = 4096;

/// Asks and gives the results as text.
pub(crate) async fn search(
    getter: &Getter,
    service: Option<&SearchService>,
    query: &str,
    count: Option<u32>,
) -> Result<String, Trouble> {
    let Some(service) = service else { return Err(no_key()) };
    let count = count.unwrap_or(service.max_results).clamp(1, MAX_RESULTS);
    let answered = tokio::time::timeout(WHOLE, async {
        // Each may hold an answer.
        let slot = getter.searches.acquire().await;
        (slot, ask(getter, service, query, count).await)
    })
    .await;
    let (_slot, body) = answered.map_err(|_| failed(format!("no answer within {} s", WHOLE.as_secs())))?;
    let body = body?;
    let found = results(service.provider, &body)
        .map_err(|_| failed("its answer is not JSON of a search; check tools.web.search.baseUrl"))?;
    Ok(show(&found, query, count))
}

fn failed(what: impl fmt::Display) -> Trouble {
    Trouble::Failed(format!("the search service: {what}"))
}

fn no_key() -> Trouble {
    Trouble::Failed(
        "web_search has no key: set tools.web.search.apiKey (or OXIBOT_TOOLS__WEB__SEARCH__API_KEY_FILE) to a key of the \
         Brave Search API, or tools.web.search.provider to searxng with a baseUrl of your own"
            .to_owned(),
    )
}

async fn ask(getter: &Getter, service: &SearchService, query: &str, count: u32) -> Result<Vec<u8>, Trouble> {
    let (url, headers) = question(service, query, count)?;
    let addresses = addresses(getter, &url).await?;
    let response = hop::send(&url, &addresses, &getter.tls, &headers).await?;
    judge_status(service.provider, &response)?;
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    let encoding = encoding.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    read(response, &encoding).await
}

async fn read(mut response: Response, encoding: &str) -> Result<Vec<u8>, Trouble> {
    let mut body = Body::new(encoding).map_err(failed)?;
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if body.push(&piece).map_err(failed)? == More::Full {
            return Err(failed("its answer is too long"));
        }
    }
    body.finish().map(|(bytes, _)| bytes).map_err(failed)
}

type Question = (Url, Vec<(HeaderName, HeaderValue)>);

fn question(service: &SearchService, query: &str, count: u32) -> Result<Question, Trouble> {
    let default = match service.provider {
        SearchProvider::Brave => Some(BRAVE),
        SearchProvider::Searxng => None,
    };
    let base = service.base_url.as_deref().or(default).ok_or_else(|| {
        failed("provider searxng needs tools.web.search.baseUrl, the address of your SearXNG")
    })?;
    let mut url = Url::parse(base).map_err(|error| failed(format!("tools.web.search.baseUrl: {error}")))?;
    let path = url.path().trim_end_matches('/').to_owned();
    let mut headers = vec![
        (header::ACCEPT, HeaderValue::from_static("application/json")),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ];
    match service.provider {
        SearchProvider::Brave => {
            let key = service.key.as_deref().filter(|key| !key.is_empty()).ok_or_else(no_key)?;
            let mut key =
                HeaderValue::from_str(key).map_err(|_| failed("the key holds characters no key has"))?;
            key.set_sensitive(true);
            headers.push((HeaderName::from_static("x-subscription-token"), key));
            // A whole address is taken as it is; one without a path is that of a server.
            match path.as_str() {
                "" => url.set_path("/res/v1/web/search"),
                "/res/v1" => url.set_path("/res/v1/web/search"),
                _ => {}
            }
            url.query_pairs_mut().append_pair("q", query).append_pair("count", &count.to_string());
        }
        SearchProvider::Searxng => {
            if !path.ends_with("/search") {
                url.set_path(&format!("{path}/search"));
            }
            url.query_pairs_mut().append_pair("q", query).append_pair("format", "json");
        }
    }
    Ok((url, headers))
}

async fn addresses(getter: &Getter, url: &Url) -> Result<Vec<SocketAddr>, Trouble> {
    let port = url.port_or_known_default().unwrap_or(443);
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let addresses: Vec<IpAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => {
            let name: HostName = judge_name(host, true).map_err(|denial| failed(denial.reason))?;
            let resolved = getter.resolver.resolve(&name).await;
            resolved.map_err(|error| failed(format!("cannot look up {host}: {error}")))?
        }
    };
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

fn judge_status(provider: SearchProvider, response: &Response) -> Result<(), Trouble> {
    let status = response.status();
    let wait = ["retry-after", "x-ratelimit-reset"].iter().find_map(|name| {
        let value = response.headers().get(*name)?.to_str().ok()?;
        // Brave names one for the second and one for the month.
        let seconds: u64 = value.split(',').next()?.trim().parse().ok()?;
        Some(format!("; try again in {seconds} s"))
    });
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED => Err(failed(format!(
            "its quota is used up (status {}){}",
            status.as_u16(),
            wait.unwrap_or_default()
        ))),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY => {
            let what = match provider {
                SearchProvider::Brave => "it refuses the key or the question; check tools.web.search.apiKey",
                SearchProvider::Searxng => {
                    "it refuses; JSON must be among search.formats of its settings.yml"
                }
            };
            Err(failed(format!("{what} (status {})", status.as_u16())))
        }
        status if status.is_server_error() => {
            Err(failed(format!("it is out of order (status {}); try again later", status.as_u16())))
        }
        status if status.is_redirection() => Err(failed(format!(
            "it redirects (status {}), which is not followed; check tools.web.search.baseUrl",
            status.as_u16()
        ))),
        status => {
            Err(failed(format!("it answers with status {}; check tools.web.search.baseUrl", status.as_u16())))
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    title: String,
    url: String,
    text: String,
}

/// What is read of an answer. Nothing else of it is kept, however much there is: an array of numbers costs 20 times its
/// length as a tree.
#[derive(Deserialize)]
struct BraveAnswer {
    web: Option<Results>,
}

#[derive(Deserialize)]
struct Results {
    results: Option<FirstResults>,
}

#[derive(Default)]
struct FirstResults(Vec<RawResult>);

#[derive(Deserialize)]
struct RawResult {
    url: Option<String>,
    title: Option<String>,
    #[serde(alias = "content")]
    description: Option<String>,
}

impl<'de> Deserialize<'de> for FirstResults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;

        impl<'de> Visitor<'de> for Kept {
            type Value = FirstResults;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of results")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<FirstResults, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < MAX_KEPT {
                    match all.next_element::<RawResult>()? {
                        Some(result) if result.url.is_some() => kept.push(result),
                        Some(_) => {}
                        None => return Ok(FirstResults(kept)),
                    }
                }
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstResults(kept))
            }
        }

        deserializer.deserialize_seq(Kept)
    }
}

fn results(provider: SearchProvider, body: &[u8]) -> Result<Vec<Found>, serde_json::Error> {
    let results = match provider {
        SearchProvider::Brave => serde_json::from_slice::<BraveAnswer>(body)?.web,
        SearchProvider::Searxng => Some(serde_json::from_slice::<Results>(body)?),
    };
    // Titles and descriptions come with <strong> and entities.
    let field = |raw: Option<String>| {
        let raw = raw.unwrap_or_default();
        line(&collapse(&convert(start(&raw, MAX_FIELD), None).text), 400)
    };
    let kept = results.and_then(|results| results.results).unwrap_or_default().0;
    let found = kept.into_iter().map(|RawResult { url, title, description }| Found {
        title: field(title),
        url: line(&url.unwrap_or_default(), 1024),
        text: field(description),
    });
    Ok(found.filter(|found| !found.url.is_empty()).collect())
}

fn show(found: &[Found], query: &str, count: u32) -> String {
    let mut shown = format!("{LABEL}\nsearch: {}\n", line(query, 300));
    if found.is_empty() {
        shown.push_str("\nNo results found.\n");
    }
    for (number, Found { title, url, text }) in (1..=count).zip(found) {
        let one = format!(
            "\n{number}. {title}\n   {url}\n{}",
            if text.is_empty() { String::new() } else { format!("   {text}\n") }
        );
        if shown.len() + one.len() > MAX_OUTPUT {
            break;
        }
        let _ = shown.write_str(&one);
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(provider: SearchProvider, base_url: Option<&str>, key: Option<&str>) -> SearchService {
        SearchService {
            provider,
            base_url: base_url.map(String::from),
            key: key.map(String::from),
            max_results: 5,
        }
    }

    #[test]
    fn brave_is_asked_with_the_key_in_a_header_and_nowhere_else() {
        let (url, headers) =
            question(&service(SearchProvider::Brave, None, Some("secret")), "a b&c", 3).unwrap();
        assert_eq!(url.as_str(), "https://api.search.brave.com/res/v1/web/search?q=a+b%26c&count=3");
        let (_, key) = headers.iter().find(|(name, _)| name == "x-subscription-token").unwrap();
        assert!(key == "secret" && key.is_sensitive() && !format!("{headers:?}").contains("secret"));
        for (base, asked) in [
            ("http://127.0.0.1:9", "http://127.0.0.1:9/res/v1/web/search"),
            ("http://127.0.0.1:9/res/v1/", "http://127.0.0.1:9/res/v1/web/search"),
            ("http://127.0.0.1:9/my/search", "http://127.0.0.1:9/my/search"),
        ] {
            let (url, _) = question(&service(SearchProvider::Brave, Some(base), Some("k")), "q", 1).unwrap();
            assert_eq!(url.as_str(), format!("{asked}?q=q&count=1"));
        }
        let Err(Trouble::Failed(text)) = question(&service(SearchProvider::Brave, None, None), "q", 1) else {
            panic!()
        };
        assert!(text.contains("tools.web.search.apiKey"));
    }

    #[test]
    fn searxng_needs_an_address_and_never_gets_a_key() {
        let own = service(SearchProvider::Searxng, Some("http://localhost:8888"), Some("secret"));
        let (url, headers) = question(&own, "q", 3).unwrap();
        assert_eq!(url.as_str(), "http://localhost:8888/search?q=q&format=json");
        assert!(headers.iter().all(|(name, _)| name != "x-subscription-token"));
        assert!(question(&service(SearchProvider::Searxng, None, None), "q", 1).is_err());
    }

    #[test]
    fn results_are_listed_without_markup_and_bounded() {
        let answer = json!({"web":{"results":[
            {"title":"A <strong>b</strong> &amp; c","url":"https://example.com/","description":"x\ny\u{202e}"},
            {"title":"no address"},
            {"title":"second","url":"https://example.org/"}]}});
        let found = results(SearchProvider::Brave, answer.to_string().as_bytes()).unwrap();
        let shown = show(&found, "q\nforged", 10);
        assert!(
            shown.contains("search: q forged\n\n1. A b & c\n   https://example.com/\n   x y\n\n2. second\n"),
            "{shown}"
        );
        let many = vec![Found { title: "t".repeat(400), url: "u".repeat(1000), text: "x".repeat(400) }; 20];
        assert!(show(&many, "q", 20).len() <= MAX_OUTPUT);
        assert!(show(&[], "q", 5).contains("No results found."));
        assert_eq!(show(&found, "q", 1).matches("https://").count(), 1);
    }

    #[test]
    fn only_the_first_results_of_an_answer_are_kept() {
        let one =
            json!({"url": "https://example.com/", "title": null, "content": "c", "more": [1, {"x": [2]}]});
        let own = json!({"query": "q", "results": vec![one; 1000], "infoboxes": [[0]]});
        let found = results(SearchProvider::Searxng, own.to_string().as_bytes()).unwrap();
        assert_eq!(found.len(), MAX_KEPT);
        assert_eq!((found[19].title.as_str(), found[19].text.as_str()), ("", "c"));
        for none in ["{}", r#"{"web":null}"#, r#"{"web":{"results":[]}}"#] {
            assert_eq!(results(SearchProvider::Brave, none.as_bytes()).unwrap(), [], "{none}");
        }
        for wrong in ["<html>", "[]", r#"{"web":{"results":[7]}}"#, r#"{"web":{"results":[]}"#] {
            assert!(results(SearchProvider::Brave, wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
