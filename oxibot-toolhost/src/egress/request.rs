//! What a program asks of its proxy, from the first bytes it sends. No I/O: bytes go in, a request or a refusal comes out.
//!
//! One port speaks three languages, told apart by the first byte: HTTP `CONNECT`, HTTP with a whole address (`http://`
//! only), and SOCKS5 with a name. Everything else is refused and said so.

use std::str::FromStr;

use oxibot_proto::reach::{HostName, parse_port};

use super::body::Body;
use super::{http, socks};

/// Most bytes of a request's head. Prevents an endless one from being kept.
pub(super) const MAX_HEAD: usize = 32 * 1024;
/// Most bytes of a host that is told, should it be no name.
const MAX_SHOWN: usize = 253;

/// Bytes that are no request, or could be understood in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// In which language one was asked, and has to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Http,
    Socks5,
    Socks4,
}

/// Where a program wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: HostName,
    pub(super) port: u16,
}

/// What was asked that cannot be given whatever the list says: for what is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoName {
    /// What stood in the place of the name, printable and cut.
    pub(super) shown: String,
    pub(super) port: u16,
}

/// A request that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A tunnel: after the answer every byte is passed on, in both directions.
    Tunnel(Target),
    /// One HTTP request: its head as the server gets it, and what may follow.
    Forward { target: Target, head: Vec<u8>, body: Body },
    /// An address, or something that is no name.
    NoName(NoName),
}

/// How far one got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    /// More bytes are needed.
    More,
    /// An answer is due first, and so many bytes are done with.
    Say { used: usize, answer: &'static [u8] },
    /// All is there; so many bytes are done with.
    Whole { used: usize, language: Language, asked: Asked },
    /// It will never be a request.
    Bad(Language),
}

/// Reads what has come so far. `greeted` says whether SOCKS greetings were exchanged.
pub(super) fn read(bytes: &[u8], greeted: bool) -> Read {
    if greeted {
        return socks::request(bytes);
    }
    match bytes.first() {
        None => Read::More,
        Some(5) => socks::greeting(bytes),
        Some(4) => Read::Bad(Language::Socks4),
        Some(_) => http::request(bytes),
    }
}

/// `host:port` or `host`, where `port` is then the default.
pub(super) fn authority(text: &str, default: Option<u16>) -> Result<Result<Target, NoName>, Malformed> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an address in brackets are not followed by a port alone.
        Some((host, port)) if !port.ends_with(']') => (host, parse_port(port)),
        Some(_) | None => (text, default),
    };
    Ok(target(host.as_bytes(), port.ok_or(Malformed)?))
}

/// A target, or what stood in its place.
pub(super) fn target(host: &[u8], port: u16) -> Result<Target, NoName> {
    let name = std::str::from_utf8(host).ok().and_then(|text| HostName::from_str(text).ok());
    match name {
        Some(host) => Ok(Target { host, port }),
        None => Err(NoName { shown: shown(host), port }),
    }
}

/// Printable ASCII, cut.
fn shown(host: &[u8]) -> String {
    let printable: String = host.iter().take(MAX_SHOWN).map(|byte| byte.escape_ascii().to_string()).collect();
    printable.get(..printable.floor_char_boundary(MAX_SHOWN)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn languages_are_told_apart_by_the_first_byte() {
        assert_eq!(read(b"", false), Read::More);
        assert_eq!(read(b"\x04\x01", false), Read::Bad(Language::Socks4));
        assert_eq!(read(b"\x16\x03\x01", false), Read::Bad(Language::Http), "TLS to the proxy itself");
        assert_eq!(read(b"\x05", false), Read::More);
        assert_eq!(read(b"CONNECT ", false), Read::More);
    }

    #[test]
    fn authority_is_a_name_and_a_port() {
        let host = |text: &str| HostName::from_str(text).unwrap();
        assert_eq!(authority("a.org:443", None), Ok(Ok(Target { host: host("a.org"), port: 443 })));
        assert_eq!(authority("a.org", Some(80)), Ok(Ok(Target { host: host("a.org"), port: 80 })));
        for malformed in ["a.org", "a.org:", "a.org:0", "a.org:99999", "a.org: 80", "a.org:+80"] {
            assert_eq!(authority(malformed, None), Err(Malformed), "{malformed}");
        }
        for no_name in
            ["1.2.3.4:80", "[::1]:80", "u@a.org:80", "a.org.:80", "127.1:80", ":80", "a\u{e9}.org:80"]
        {
            assert!(matches!(authority(no_name, None), Ok(Err(NoName { port: 80, .. }))), "{no_name}");
        }
        assert!(matches!(authority("[::1]", Some(80)), Ok(Err(NoName { port: 80, .. }))));
    }

    #[test]
    fn what_is_shown_is_printable_and_short() {
        let Err(no_name) = target(&[&b"a\0\x1b[31m\xff"[..], &[b'\n'; 4000]].concat(), 1) else {
            panic!("a name?");
        };
        assert!(no_name.shown.starts_with(r"a\x00\x1b[31m\xff\n"), "{}", no_name.shown);
        assert!(no_name.shown.len() <= MAX_SHOWN && no_name.shown.is_ascii());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_read_beyond_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..300), greeted: bool) {
            match read(&bytes, greeted) {
                Read::Say { used, .. } | Read::Whole { used, .. } => prop_assert!(used <= bytes.len()),
                Read::More | Read::Bad(_) => {}
            }
        }
    }
}
