//! SOCKS5 (RFC 1928) as far as it names hosts: no authentication, CONNECT, and a name instead of an address.
//!
//! Addresses are refused as names are that are none: who resolves a name itself has been told by somebody where it leads.
//! BIND and UDP are not there. No I/O.

use super::request::{Asked, Language, NoName, Read, target};

/// No authentication is asked for.
const WELCOME: &[u8] = &[5, 0];

/// What an answer to a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    NotAllowed = 2,
    Unreachable = 4,
    CommandUnknown = 7,
}

/// The answer to a request. The address it names is nobody's: there is nothing a program could do with it.
pub(super) fn reply(reply: Reply) -> Vec<u8> {
    vec![5, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The answer to SOCKS4: rejected.
pub(super) fn reply_4() -> Vec<u8> {
    vec![0, 91, 0, 0, 0, 0, 0, 0]
}

/// The first message: version, count, methods.
pub(super) fn greeting(bytes: &[u8]) -> Read {
    let Some(count) = bytes.get(1).copied().map(usize::from) else { return Read::More };
    match bytes.get(2..2 + count) {
        None => Read::More,
        Some(methods) if methods.contains(&0) => Read::Say { used: 2 + count, answer: WELCOME },
        Some(_) => Read::Bad(Language::Socks5),
    }
}

/// The second: version, command, nothing, kind of address, address, port.
pub(super) fn request(bytes: &[u8]) -> Read {
    let Some(head) = bytes.first_chunk::<5>() else { return Read::More };
    let [version, command, reserved, kind, first] = *head;
    if (version, command, reserved) != (5, 1, 0) {
        return Read::Bad(Language::Socks5);
    }
    let (start, length) = match kind {
        1 => (4, 4),
        3 => (5, usize::from(first)),
        4 => (4, 16),
        _ => return Read::Bad(Language::Socks5),
    };
    let end = start + length;
    let (Some(host), Some([high, low])) = (bytes.get(start..end), bytes.get(end..end + 2)) else {
        return Read::More;
    };
    let port = u16::from_be_bytes([*high, *low]);
    if port == 0 {
        return Read::Bad(Language::Socks5);
    }
    let asked = match (kind, <[u8; 4]>::try_from(host), <[u8; 16]>::try_from(host)) {
        (1, Ok(address), _) => Err(NoName { shown: std::net::Ipv4Addr::from(address).to_string(), port }),
        (4, _, Ok(address)) => Err(NoName { shown: std::net::Ipv6Addr::from(address).to_string(), port }),
        _ => target(host, port),
    };
    let asked = asked.map_or_else(Asked::NoName, Asked::Tunnel);
    Read::Whole { used: end + 2, language: Language::Socks5, asked }
}

#[cfg(test)]
mod tests {
    use super::super::request::Target;
    use super::*;

    #[test]
    fn greeting_wants_a_client_that_needs_no_password() {
        assert_eq!(greeting(&[5, 2, 2]), Read::More);
        assert_eq!(greeting(&[5, 2, 2, 0, 9]), Read::Say { used: 4, answer: WELCOME });
        assert_eq!(greeting(&[5, 1, 2]), Read::Bad(Language::Socks5));
        assert_eq!(greeting(&[5, 0]), Read::Bad(Language::Socks5));
    }

    fn named(host: &[u8], port: u16) -> Vec<u8> {
        [&[5, 1, 0, 3, u8::try_from(host.len()).unwrap()], host, &port.to_be_bytes()].concat()
    }

    #[test]
    fn a_name_is_a_target_and_an_address_is_none() {
        let bytes = named(b"a.org", 443);
        for cut in 0..bytes.len() {
            assert_eq!(request(&bytes[..cut]), Read::More, "{cut}");
        }
        let asked = Asked::Tunnel(Target { host: "a.org".parse().unwrap(), port: 443 });
        assert_eq!(request(&bytes), Read::Whole { used: bytes.len(), language: Language::Socks5, asked });
        let v4 = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &80u16.to_be_bytes()].concat();
        let v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1], &80u16.to_be_bytes()].concat();
        for (bytes, shown) in [(v4, "127.0.0.1"), (v6, "::1")] {
            let asked = Asked::NoName(NoName { shown: shown.into(), port: 80 });
            assert_eq!(request(&bytes), Read::Whole { used: bytes.len(), language: Language::Socks5, asked });
        }
        for name in [&b"127.0.0.1"[..], b"0x7f.1", b"a.org\0.evil.net", b"a.org.", b"", b"\xff"] {
            let read = request(&named(name, 80));
            assert!(matches!(read, Read::Whole { asked: Asked::NoName(_), .. }), "{name:?}");
        }
    }

    #[test]
    fn bind_udp_and_other_versions_are_refused() {
        for bytes in [[5, 2, 0, 3, 1], [5, 3, 0, 3, 1], [4, 1, 0, 3, 1], [5, 1, 1, 3, 1], [5, 1, 0, 2, 1]] {
            assert_eq!(request(&bytes), Read::Bad(Language::Socks5), "{bytes:?}");
        }
        assert_eq!(request(&named(b"a.org", 0)), Read::Bad(Language::Socks5));
    }
}
