//! The head of an HTTP request to a proxy (RFC 9112), as strict as can be, and the head the server gets instead.
//!
//! The host is taken from the target alone: `Host` is written anew from it, so that no header names another server than
//! the one that was judged. What belongs to the connection stays here. One request a connection; where it ends is found
//! here, and what could be understood in two ways is malformed. No I/O.

use std::borrow::Cow;

use super::body::{Body, Chunk};
use super::request::{Asked, Language, MAX_HEAD, Malformed, NoName, Read, Target, authority};

/// Most header lines.
const MAX_LINES: usize = 200;
/// Headers that are between a client and its proxy, or ask for what is not passed on.
const OURS: [&str; 9] = [
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "upgrade",
];
/// Headers that say where a request ends: `Connection` must not take them out.
const FRAMING: [&str; 3] = ["content-length", "transfer-encoding", "host"];

/// Reads a request that is not SOCKS.
pub(super) fn request(bytes: &[u8]) -> Read {
    let language = Language::Http;
    // A method is what every request begins with; TLS and the like are noticed at once.
    if !bytes.first().is_some_and(|byte| is_token(*byte)) {
        return Read::Bad(language);
    }
    let head = bytes.get(..MAX_HEAD.min(bytes.len())).unwrap_or_default();
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= MAX_HEAD { Read::Bad(language) } else { Read::More };
    };
    match bytes.get(..end).ok_or(Malformed).and_then(parse) {
        Ok(asked) => Read::Whole { used: end + 4, language, asked },
        Err(Malformed) => Read::Bad(language),
    }
}

/// `head` is without the empty line and the line end before it.
fn parse(head: &[u8]) -> Result<Asked, Malformed> {
    let mut lines = Vec::new();
    let mut rest = head;
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let line = rest.get(..end.unwrap_or(rest.len())).ok_or(Malformed)?;
        // A line feed alone ends a line for some and not for others.
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) || lines.len() > MAX_LINES {
            return Err(Malformed);
        }
        lines.push(line);
        let Some(end) = end else { break };
        rest = rest.get(end + 2..).ok_or(Malformed)?;
    }
    let (first, headers) = lines.split_first().ok_or(Malformed)?;
    let first = std::str::from_utf8(first).map_err(|_| Malformed)?;
    let mut words = first.split(' ');
    let (Some(method), Some(address), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed);
    };
    let token = !method.is_empty() && method.bytes().all(is_token);
    if !token || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(Malformed);
    }
    let headers = Headers::read(headers)?;
    if method == "CONNECT" {
        return Ok(authority(address, None)?.map_or_else(Asked::NoName, Asked::Tunnel));
    }
    let (target, path) = match absolute(address)? {
        (Ok(target), path) => (target, path),
        (Err(no_name), _) => return Ok(Asked::NoName(no_name)),
    };
    let body = headers.body(version)?;
    let head = headers.rewritten(method, &target, path, version);
    Ok(Asked::Forward { target, head, body })
}

/// `http://authority/path`. Nothing else is passed on: `https` belongs into a tunnel.
fn absolute(address: &str) -> Result<(Result<Target, NoName>, Cow<'_, str>), Malformed> {
    let (scheme, rest) = address.split_once("://").ok_or(Malformed)?;
    let visible = |byte: u8| byte > b' ' && byte != 0x7f;
    if !scheme.eq_ignore_ascii_case("http") || rest.contains('#') || !rest.bytes().all(visible) {
        return Err(Malformed);
    }
    let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end).ok_or(Malformed)?;
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
    Ok((authority(host, Some(80))?, path))
}

/// Characters of methods and header names (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

struct Headers<'a> {
    list: Vec<(String, &'a [u8])>,
}

impl<'a> Headers<'a> {
    fn read(lines: &[&'a [u8]]) -> Result<Self, Malformed> {
        let list = lines.iter().map(|line| Self::line(line)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { list })
    }

    fn line(line: &'a [u8]) -> Result<(String, &'a [u8]), Malformed> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Malformed)?;
        let value = value.get(1..).ok_or(Malformed)?;
        // White space before the colon, or in front of a continued line, is read in two ways.
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Malformed);
        }
        if !value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)) {
            return Err(Malformed);
        }
        let name = std::str::from_utf8(name).map_err(|_| Malformed)?.to_ascii_lowercase();
        Ok((name, value.trim_ascii()))
    }

    fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'a [u8]> + 'b {
        self.list.iter().filter(move |(own, _)| own == name).map(|(_, value)| *value)
    }

    fn body(&self, version: &str) -> Result<Body, Malformed> {
        let lengths: Vec<_> = self.all("content-length").collect();
        let encodings: Vec<_> = self.all("transfer-encoding").collect();
        match (lengths.as_slice(), encodings.as_slice()) {
            ([], []) => Ok(Body::Length(0)),
            ([length], []) => {
                let digits =
                    !length.is_empty() && length.len() <= 18 && length.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(length).map_err(|_| Malformed)?;
                if digits { text.parse().map(Body::Length).map_err(|_| Malformed) } else { Err(Malformed) }
            }
            ([], [encoding]) if encoding.eq_ignore_ascii_case(b"chunked") && version == "HTTP/1.1" => {
                Ok(Body::Chunked(Chunk::START))
            }
            _ => Err(Malformed),
        }
        .and_then(|body| self.named_by_connection().map(|_| body))
    }

    /// Headers that `Connection` says are for this connection only.
    fn named_by_connection(&self) -> Result<Vec<String>, Malformed> {
        let mut named = Vec::new();
        for value in self.all("connection") {
            for word in String::from_utf8_lossy(value).split(',') {
                let word = word.trim().to_ascii_lowercase();
                if FRAMING.contains(&word.as_str()) {
                    return Err(Malformed);
                }
                named.push(word);
            }
        }
        Ok(named)
    }

    fn rewritten(&self, method: &str, target: &Target, path: impl AsRef<str>, version: &str) -> Vec<u8> {
        let named = self.named_by_connection().unwrap_or_default();
        let path = path.as_ref();
        let Target { host, port } = target;
        let port = if *port == 80 { String::new() } else { format!(":{port}") };
        let mut head = format!("{method} {path} {version}\r\nHost: {host}{port}\r\n").into_bytes();
        for (name, value) in &self.list {
            if !OURS.contains(&name.as_str()) && !named.contains(name) {
                head.extend_from_slice(name.as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value);
                head.extend_from_slice(b"\r\n");
            }
        }
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        head
    }
}

/// The answer that opens a tunnel.
pub(super) const TUNNEL: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// An answer of ours with a reason for people.
pub(super) fn answer(status: &str, rule: &str, reason: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         X-OxiBot-Rule: {rule}\r\nConnection: close\r\nProxy-Connection: close\r\n\r\n{reason}\n",
        reason.len() + 1
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Asked> {
        match request(text.as_bytes()) {
            Read::Whole { asked, used, language: Language::Http } => {
                assert!(used <= text.len());
                Some(asked)
            }
            Read::Bad(Language::Http) => None,
            read @ (Read::More | Read::Say { .. } | Read::Whole { .. } | Read::Bad(_)) => {
                panic!("{text:?}: {read:?}")
            }
        }
    }

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.parse().unwrap(), port }
    }

    #[test]
    fn connect_names_host_and_port_in_its_target_and_nowhere_else() {
        let asked = whole("CONNECT a.org:443 HTTP/1.1\r\nHost: evil.org:443\r\nX: y\r\n\r\nrest");
        assert_eq!(asked, Some(Asked::Tunnel(target("a.org", 443))));
        for bad in ["a.org", "a.org:", "https://a.org:443", "a.org:443/", "a.org:443 x", ""] {
            let asked = whole(&format!("CONNECT {bad} HTTP/1.1\r\n\r\n"));
            assert!(matches!(asked, None | Some(Asked::NoName(_))), "{bad}: {asked:?}");
        }
        for address in ["127.0.0.1:80", "[::1]:80", "[::ffff:7f00:1]:80", "2130706433:80", "u:p@a.org:80"] {
            let asked = whole(&format!("CONNECT {address} HTTP/1.1\r\n\r\n"));
            assert!(matches!(asked, Some(Asked::NoName(_))), "{address}: {asked:?}");
        }
    }

    #[test]
    fn host_is_written_from_the_target_and_what_is_ours_stays_here() {
        let asked = whole(
            "GET http://A.org:8080/x?y=1 HTTP/1.1\r\nHost: evil.org\r\nhost: evil.net\r\nAccept: */*\r\n\
             Proxy-Authorization: Basic secret\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n\
             Upgrade: h2c\r\n\r\n",
        );
        let Some(Asked::Forward { target: asked, head, body }) = asked else { panic!("{asked:?}") };
        assert_eq!((asked, body), (target("a.org", 8080), Body::Length(0)));
        let head = String::from_utf8(head).unwrap();
        assert_eq!(
            head,
            "GET /x?y=1 HTTP/1.1\r\nHost: a.org:8080\r\naccept: */*\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn path_begins_with_a_slash() {
        for (address, path) in [("http://a.org", "/"), ("HTTP://a.org/", "/"), ("http://a.org?q", "/?q")] {
            let asked = whole(&format!("GET {address} HTTP/1.0\r\n\r\n"));
            let Some(Asked::Forward { head, .. }) = asked else { panic!("{address}") };
            assert!(
                head.starts_with(format!("GET {path} HTTP/1.0\r\nHost: a.org\r\n").as_bytes()),
                "{address}"
            );
        }
    }

    #[test]
    fn only_whole_http_addresses_are_passed_on() {
        for address in
            ["/", "*", "https://a.org/", "ftp://a.org/", "http:/a.org", "http://a.org/#x", "//a.org/"]
        {
            assert_eq!(whole(&format!("GET {address} HTTP/1.1\r\nHost: a.org\r\n\r\n")), None, "{address}");
        }
        for address in
            ["http://u@a.org/", "http://127.0.0.1/", "http://[::1]/", "http://a.org%00.b/", "http:///x"]
        {
            let asked = whole(&format!("GET {address} HTTP/1.1\r\n\r\n"));
            assert!(matches!(asked, Some(Asked::NoName(_))), "{address}: {asked:?}");
        }
        // A backslash ends the host here as it does for a browser.
        let asked = whole("GET http://evil.org\\@a.org/ HTTP/1.1\r\n\r\n");
        assert!(matches!(asked, Some(Asked::Forward { target: t, .. }) if t == target("evil.org", 80)));
    }

    #[test]
    fn smuggled_requests_are_malformed() {
        let head = "POST http://a.org/ HTTP/1.1\r\n";
        for headers in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 9999999999999999999999\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "Connection: content-length\r\nContent-Length: 3\r\n",
            "Connection: Host\r\n",
            ": x\r\n",
            "no colon\r\n",
            "N\0: x\r\n",
            "X: a\0b\r\n",
        ] {
            assert_eq!(whole(&format!("{head}{headers}\r\n")), None, "{headers:?}");
        }
        for line in [
            "GET  http://a.org/ HTTP/1.1",
            "GET http://a.org/ HTTP/1.1 ",
            "GET http://a.org/ x HTTP/1.1",
            "GET\thttp://a.org/ HTTP/1.1",
            "GET http://a.org/ HTTP/2.0",
            "GET http://a.org/ HTTP/1.1\nHost: x",
            "GET http://a.org/\0 HTTP/1.1",
            "G(T http://a.org/ HTTP/1.1",
        ] {
            assert_eq!(whole(&format!("{line}\r\n\r\n")), None, "{line:?}");
        }
        assert_eq!(whole("POST http://a.org/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
    }

    #[test]
    fn body_is_found() {
        for (headers, expected) in [
            ("", Body::Length(0)),
            ("content-length: 12\r\n", Body::Length(12)),
            ("Transfer-Encoding: Chunked\r\n", Body::Chunked(Chunk::START)),
        ] {
            let asked = whole(&format!("POST http://a.org/ HTTP/1.1\r\n{headers}\r\n"));
            assert!(matches!(asked, Some(Asked::Forward { body, .. }) if body == expected), "{headers}");
        }
    }

    #[test]
    fn endless_heads_are_given_up() {
        assert_eq!(request(&[b'A'; MAX_HEAD - 1]), Read::More);
        assert_eq!(request(&[b'A'; MAX_HEAD]), Read::Bad(Language::Http));
        let many = format!("GET http://a.org/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_LINES + 1));
        assert_eq!(whole(&many), None);
    }
}
