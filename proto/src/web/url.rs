//! URLs: one text, parsed once by the WHATWG parser (feature `url`), becomes a [`Target`] or a refusal.
//!
//! What is judged is what the parser made of the text, never the text itself: decimal, octal and hexadecimal addresses,
//! percent-encoded and full-width hosts have one form then. Only what the parser would silently drop or repair (control
//! characters, backslashes) is refused from the text, because another reader of it would not.

use std::net::IpAddr;

use url::{Host, Url};

use super::{Exceptions, HostName, MAX_URL, denial, judge_address, judge_name};
use crate::message::Denial;

const HINT: &str = "give a whole address such as https://example.com/page";

/// Where a request goes, judged as far as that can be without asking a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: TargetHost,
    port: u16,
}

/// The host of a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// An address, judged.
    Address(IpAddr),
    /// A name. What it resolves to is still to be judged, with [`Target::judge_answers`].
    Name(HostName),
}

impl Target {
    /// The URL in the parser's form, without a fragment.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Host as judged.
    #[must_use]
    pub fn host(&self) -> &TargetHost {
        &self.host
    }

    /// Port, the scheme's own unless another is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Judges what the name resolved to: every address has to pass, or none is used. A name that means something private
    /// passes only with addresses that the configuration excepts.
    ///
    /// # Errors
    /// The refusal of the first address that does not pass.
    pub fn judge_answers(&self, answers: &[IpAddr], exceptions: &Exceptions) -> Result<(), Denial> {
        let private = match &self.host {
            TargetHost::Name(name) => name.is_private().then_some(name),
            TargetHost::Address(_) => None,
        };
        for address in answers {
            if let Err(refused) = judge_address(*address, self.port, exceptions) {
                let host = self.url.host_str().unwrap_or_default();
                return Err(Denial { reason: format!("{host} resolves to {}", refused.reason), ..refused });
            }
            if let Some(name) = private.filter(|_| !exceptions.cover(*address, self.port)) {
                // The same refusal as without exceptions for this port.
                judge_name(name.as_str(), false)?;
            }
        }
        Ok(())
    }
}

/// Judges a URL a model wrote or a server redirected to.
///
/// # Errors
/// `web.url.*` for its form, `web.address.*` when its host is an address that is not public.
pub fn judge_url(text: &str, exceptions: &Exceptions) -> Result<Target, Denial> {
    judge_form(text)?;
    let url = Url::parse(text)
        .map_err(|error| denial("web.url.invalid", format!("the URL cannot be read: {error}"), HINT))?;
    judge_parsed(url, exceptions)
}

/// Judges what a server redirected to, relative to where it was.
///
/// # Errors
/// As [`judge_url`].
pub fn judge_redirect(from: &Target, location: &str, exceptions: &Exceptions) -> Result<Target, Denial> {
    judge_form(location)?;
    let url = from
        .url
        .join(location)
        .map_err(|error| denial("web.url.invalid", format!("the redirect cannot be read: {error}"), HINT))?;
    judge_parsed(url, exceptions)
}

/// What the parser would drop or repair, and the length.
fn judge_form(text: &str) -> Result<(), Denial> {
    if text.len() > MAX_URL {
        let reason = format!("the URL has {} bytes, the limit is {MAX_URL}", text.len());
        return Err(denial("web.url.length", reason, "use a shorter URL"));
    }
    if let Some(character) = text.chars().find(|character| character.is_control()) {
        let reason = format!("the URL holds the control character {}", character.escape_unicode());
        return Err(denial("web.url.control", reason, "remove it; inside a URL write it percent-encoded"));
    }
    let before_query = text.split(['?', '#']).next().unwrap_or_default();
    if before_query.contains('\\') {
        return Err(denial("web.url.backslash", "the URL holds a backslash".into(), "write / instead of it"));
    }
    // `http://@host` and `http://:@host` name nobody, so the parser keeps nothing to see.
    let authority = before_query.split_once("//").map_or("", |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(user_information());
    }
    Ok(())
}

fn user_information() -> Denial {
    denial(
        "web.url.userinfo",
        "the URL holds a user name or password before the host".into(),
        "leave out everything up to and including the @",
    )
}

fn judge_parsed(mut url: Url, exceptions: &Exceptions) -> Result<Target, Denial> {
    if !matches!(url.scheme(), "http" | "https") {
        // A scheme may be as long as the URL, and a redirect's is a server's word.
        let scheme: String = url.scheme().chars().take(20).collect();
        let reason = format!("the scheme `{scheme}` is not http or https");
        return Err(denial("web.url.scheme", reason, HINT));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(user_information());
    }
    if url.as_str().len() > MAX_URL {
        return Err(denial("web.url.length", "the URL is too long once encoded".into(), "use a shorter URL"));
    }
    url.set_fragment(None);
    let no_host = || denial("web.url.host", "the URL has no host".into(), HINT);
    let port = url.port_or_known_default().ok_or_else(no_host)?;
    let host = match url.host().ok_or_else(no_host)? {
        Host::Ipv4(address) => TargetHost::Address(address.into()),
        Host::Ipv6(address) => TargetHost::Address(address.into()),
        Host::Domain(name) => TargetHost::Name(judge_name(name, exceptions.any_for_port(port))?),
    };
    if let TargetHost::Address(address) = host {
        judge_address(address, port, exceptions)?;
    }
    // The final dot names the same server; certificates and virtual hosts do not have it.
    if let TargetHost::Name(name) = &host
        && url.host_str() != Some(name.as_str())
    {
        url.set_host(Some(name.as_str()))
            .map_err(|error| denial("web.url.host", format!("the host cannot be used: {error}"), HINT))?;
    }
    Ok(Target { url, host, port })
}
