//! One request to one judged target: resolve, judge every address, connect to one of exactly those.
//!
//! A client is made for each: no connection is ever used for a second target, and the only resolver it has knows the
//! addresses that were judged. What a name server says a moment later cannot matter.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use oxibot_proto::message::Denial;
use oxibot_proto::web::{Exceptions, Target, TargetHost};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response};

use crate::resolve::Resolver;

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Headers of an answer; hyper limits their bytes to some 400 KiB.
const MAX_HEADERS: usize = 100;
/// Who asks. Robots are not followed, because a person asked for this one page; but one can see who it was.
const USER_AGENT: &str =
    concat!("OxiBot/", env!("CARGO_PKG_VERSION"), " (+https://github.com/oxibot/oxibot)");

/// Why nothing came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The guard refuses.
    Denied(Denial),
    /// DNS, TLS, transport.
    Failed(String),
}

impl From<Denial> for Trouble {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// Resolves a target and judges all of it.
pub(crate) async fn addresses(
    target: &Target,
    resolver: &Resolver,
    exceptions: &Exceptions,
) -> Result<Vec<SocketAddr>, Trouble> {
    let addresses: Vec<IpAddr> = match target.host() {
        TargetHost::Address(address) => vec![*address],
        TargetHost::Name(name) => resolver
            .resolve(name)
            .await
            .map_err(|error| Trouble::Failed(format!("cannot look up {}: {error}", name.as_str())))?,
    };
    // A localhost that is excepted has two addresses of which one is: it stands for the machine, not for a server.
    let localhost = matches!(target.host(), TargetHost::Name(name) if name.is_localhost());
    let addresses: Vec<IpAddr> = if localhost {
        let covered: Vec<IpAddr> =
            addresses.iter().copied().filter(|at| exceptions.cover(*at, target.port())).collect();
        if covered.is_empty() { addresses } else { covered }
    } else {
        addresses
    };
    target.judge_answers(&addresses, exceptions)?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, target.port())).collect())
}

/// Sends a GET to one of the addresses and returns once the head of the answer is there.
pub(crate) async fn send(
    url: &reqwest::Url,
    addresses: Vec<SocketAddr>,
    tls: &Arc<rustls::ClientConfig>,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Response, Trouble> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(name, value.clone());
    }
    let client = Client::builder()
        .tls_backend_preconfigured(rustls::ClientConfig::clone(tls))
        .dns_resolver(Arc::new(Pinned(addresses)))
        // Proxies of the environment would choose the address instead of us.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .http1_max_headers(MAX_HEADERS)
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT)
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| Trouble::Failed(format!("cannot prepare the request: {}", causes(&error))))?;
    let host = url.host_str().unwrap_or_default();
    client
        .get(url.clone())
        .headers(all)
        .send()
        .await
        .map_err(|error| Trouble::Failed(format!("cannot get an answer of {host}: {}", causes(&error))))
}

/// Knows the judged addresses, whatever it is asked.
struct Pinned(Vec<SocketAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _name: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// The innermost causes of an error, which say what happened; the outer ones repeat the URL.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it takes too long".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    crate::page::line(&innermost.to_string(), 300)
}
