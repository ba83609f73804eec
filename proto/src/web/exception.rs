//! `web.allowPrivate`: addresses that are not public and may be reached all the same, by CIDR and port.
//!
//! Written by the operator in the configuration, never by a model: no message and no tool argument makes one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{in_block_v4, in_block_v6};

/// One entry: `10.1.0.0/16:443`, `127.0.0.1:8080`, `[fd00::/8]:443`; without a port, every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    base: IpAddr,
    prefix: u32,
    port: Option<u16>,
}

impl Exception {
    /// Reads an entry.
    ///
    /// # Errors
    /// What is wrong with it, for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (block, port) = split_port(text).ok_or_else(|| format!("`{text}` has no usable port"))?;
        let (address, prefix) = match block.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (block, None),
        };
        let base: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
        let most = if base.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let prefix = match prefix {
            None => most,
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("`/{digits}` is no prefix length from 0 to {most}"))?,
            Some(other) => return Err(format!("`/{other}` is no prefix length from 0 to {most}")),
        };
        let exception = Self { base, prefix, port };
        // A slip here would open more than was meant: of the two readings of `10.1.2.3/8` neither is guessed.
        match exception.first() {
            first if first == base => Ok(exception),
            first => Err(format!(
                "`{address}/{prefix}` is not the start of a block; write `{first}/{prefix}` or `{address}`"
            )),
        }
    }

    /// The lowest address of the block.
    fn first(&self) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shl(Ipv4Addr::BITS.saturating_sub(self.prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(base.to_bits() & mask).into()
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shl(Ipv6Addr::BITS.saturating_sub(self.prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(base.to_bits() & mask).into()
            }
        }
    }

    fn covers(&self, address: IpAddr, port: u16) -> bool {
        let inside = match (address, self.base) {
            (IpAddr::V4(address), IpAddr::V4(base)) => in_block_v4(address, base, self.prefix),
            (IpAddr::V6(address), IpAddr::V6(base)) => in_block_v6(address, base, self.prefix),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
        inside && self.port.is_none_or(|only| only == port)
    }
}

/// Block and port of an entry. IPv6 with a port stands in brackets, as in a URL.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (block, port) = if let Some(rest) = text.strip_prefix('[') {
        let (block, rest) = rest.split_once(']')?;
        if rest.is_empty() { (block, None) } else { (block, Some(rest.strip_prefix(':')?)) }
    } else if text.bytes().filter(|byte| *byte == b':').count() > 1 {
        (text, None)
    } else {
        text.split_once(':').map_or((text, None), |(block, port)| (block, Some(port)))
    };
    let Some(port) = port else { return Some((block, None)) };
    let digits = !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    let number = port.parse().ok().filter(|number| digits && *number > 0)?;
    Some((block, Some(number)))
}

/// All entries. Empty: nothing but public addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exceptions(Vec<Exception>);

impl Exceptions {
    /// Nothing is excepted.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads all entries of a list.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be read.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        entries.iter().map(|entry| Exception::parse(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an entry names this address and port.
    #[must_use]
    pub fn cover(&self, address: IpAddr, port: u16) -> bool {
        self.0.iter().any(|exception| exception.covers(address, port))
    }

    /// Length of the shortest prefix that names this address and port.
    pub(super) fn widest(&self, address: IpAddr, port: u16) -> Option<u32> {
        self.0.iter().filter(|exception| exception.covers(address, port)).map(|found| found.prefix).min()
    }

    /// Whether an entry names this port at all: only then is a name that means something private looked up.
    #[must_use]
    pub fn any_for_port(&self, port: u16) -> bool {
        self.0.iter().any(|exception| exception.port.is_none_or(|only| only == port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(entry: &str, address: &str, port: u16) -> bool {
        Exceptions::parse(&[entry]).unwrap().cover(address.parse().unwrap(), port)
    }

    #[test]
    fn entry_covers_its_block_and_its_port_only() {
        assert!(covers("10.1.0.0/16:443", "10.1.255.255", 443));
        assert!(!covers("10.1.0.0/16:443", "10.1.255.255", 80));
        assert!(!covers("10.1.0.0/16:443", "10.2.0.0", 443));
        assert!(covers("127.0.0.1:8080", "127.0.0.1", 8080));
        assert!(!covers("127.0.0.1:8080", "127.0.0.2", 8080));
        assert!(covers("127.0.0.0/8", "127.9.9.9", 1));
        assert!(covers("[fd00::/8]:443", "fd12::1", 443));
        assert!(!covers("[fd00::/8]:443", "fd12::1", 444));
        assert!(covers("fd00::/8", "fdff::1", 9));
        assert!(covers("[::1]:80", "::1", 80));
        assert!(covers("0.0.0.0/0", "10.0.0.1", 80));
        assert!(!covers("0.0.0.0/0", "::1", 80), "the families are apart");
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_cause() {
        for text in [
            "",
            "localhost",
            "localhost:80",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8:0",
            "10.0.0.0/8:65536",
            "10.0.0.0/8:",
            "10.0.0.0/8:+80",
            "10.0.0/8",
            "[::1",
            "[::1]80",
            "::1/129",
            "10.0.0.0/8:80:80",
            "10.0.0.5/8",
            "0.0.0.1/0",
            "[fd00::1/8]:443",
        ] {
            assert!(Exception::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_listed_port_lets_private_names_be_looked_up() {
        let exceptions = Exceptions::parse(&["10.0.0.0/8:443"]).unwrap();
        assert!(exceptions.any_for_port(443) && !exceptions.any_for_port(80));
        assert!(!Exceptions::none().any_for_port(443));
        assert!(Exceptions::parse(&["10.0.0.0/8"]).unwrap().any_for_port(1));
    }
}
