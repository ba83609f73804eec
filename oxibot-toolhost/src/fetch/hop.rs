//! One request to one judged target: resolve, judge every address, connect to one of exactly those.
//!
//! A connection is made for each and used for nothing else. What a name server says a moment later cannot matter, and
//! proxies of the environment, which would choose the address instead of us, are not looked at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::header::{self, HeaderName, HeaderValue};
use oxibot_proto::message::Denial;
use oxibot_proto::web::{Exceptions, Target, TargetHost};
use url::Url;

use crate::connection::{self, Response};
use crate::page::line;
use crate::resolve::Resolver;

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
    url: &Url,
    addresses: &[SocketAddr],
    tls: &Arc<rustls::ClientConfig>,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Response, Trouble> {
    let agent = (header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let all = headers.iter().cloned().chain([agent]).collect();
    connection::get(url, addresses, tls, all).await.map_err(|error| {
        let host = url.host_str().unwrap_or_default();
        Trouble::Failed(format!("cannot get an answer of {host}: {}", line(&error.to_string(), 300)))
    })
}
