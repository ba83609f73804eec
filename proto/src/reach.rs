//! Which hosts a call may reach: names, patterns of names, and the setting that lists them.
//!
//! Compared label by label from the right, never as ends of strings: `evilexample.org` is not below `example.org`. A
//! name here is ASCII and absolute without its dot; whatever else leads somewhere (addresses in any spelling, names
//! with control characters or a dot at the end) is no name. Nothing is resolved here.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name, in bytes (RFC 1035, section 3.1, as text without the last dot).
pub const MAX_NAME: usize = 253;
/// Longest label, in bytes.
const MAX_LABEL: usize = 63;
/// Most patterns of a list. Each new connection is compared with all of them.
pub const MAX_PATTERNS: usize = 256;
/// Ports of a pattern that names none: the web's.
pub const WEB_PORTS: [u16; 2] = [80, 443];

/// Why something is no name of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Longer than the name system knows.
    #[error("it is longer than {MAX_NAME} bytes")]
    Long,
    /// `example.org.`: the same host to a resolver and another one to a comparison.
    #[error("it ends with a dot")]
    TrailingDot,
    /// Control characters, brackets, user names and what is not ASCII.
    #[error(
        "it holds something else than letters, digits, `-`, `_` and dots; write an international name as `xn--...`"
    )]
    Character,
    /// An empty or long label, or one that begins or ends with `-`.
    #[error("one of its labels is empty, too long, or begins or ends with `-`")]
    Label,
    /// An address in decimal, octal, hexadecimal, short or whole.
    #[error("it is an address; only names can be listed")]
    Address,
    /// The machine itself.
    #[error("it means the machine itself")]
    Local,
}

/// The name of a host, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name as text, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the right: `org`, `example`.
    fn labels_from_the_right(&self) -> impl Iterator<Item = &str> {
        self.0.rsplit('.')
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        if text.is_empty() {
            return Err(NameFault::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(NameFault::Long);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            return Err(NameFault::Character);
        }
        if text.ends_with('.') {
            return Err(NameFault::TrailingDot);
        }
        let good = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        if !text.split('.').all(good) {
            return Err(NameFault::Label);
        }
        let name = text.to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        if is_number(last) {
            return Err(NameFault::Address);
        }
        if last == "localhost" {
            return Err(NameFault::Local);
        }
        Ok(Self(name))
    }
}

/// What the last part of an IPv4 address may look like: resolvers take `1`, `0x7f000001`, `017` and `127.1` for addresses
/// (WHATWG URL, "ends in a number"). No top-level domain looks so.
fn is_number(label: &str) -> bool {
    let hexadecimal =
        label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why something is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// The part before the port is no name.
    #[error(transparent)]
    Name(#[from] NameFault),
    /// The part behind the colon is no port.
    #[error("what stands behind `:` is no port from 1 to 65535")]
    Port,
    /// `*` or `*.org`.
    #[error("`*.` needs at least two labels behind it, as in `*.example.org`")]
    Wide,
    /// `a*.example.org`, `www.*.org`.
    #[error("`*` can only stand for whole labels at the beginning, as in `*.example.org`")]
    Star,
}

/// `example.org`, `example.org:8443` or `*.example.org`: one name or everything below it, one port or the web's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    name: HostName,
    /// One or more labels stand before `name`; otherwise none does.
    below: bool,
    /// `None`: the web's.
    port: Option<u16>,
}

/// How a pattern, or a list of them, stands to a host and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Another host.
    No,
    /// This host, another port.
    OtherPort,
    /// This host and port.
    Yes,
}

impl HostPattern {
    /// Whether it allows this host and port.
    #[must_use]
    pub fn covers(&self, name: &HostName, port: u16) -> Cover {
        let mut theirs = name.labels_from_the_right();
        let same = self.name.labels_from_the_right().all(|label| theirs.next() == Some(label));
        if !same || theirs.next().is_some() != self.below {
            return Cover::No;
        }
        if self.ports().contains(&port) { Cover::Yes } else { Cover::OtherPort }
    }

    /// The ports it allows.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        self.port.as_ref().map_or(&WEB_PORTS, std::slice::from_ref)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*." } else { "" };
        write!(f, "{star}{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for HostPattern {
    type Err = PatternFault;

    fn from_str(text: &str) -> Result<Self, PatternFault> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port).ok_or(PatternFault::Port)?)),
            None => (text, None),
        };
        let (name, below) = match host.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None if host == "*" => return Err(PatternFault::Wide),
            None => (host, false),
        };
        if name.contains('*') {
            return Err(PatternFault::Star);
        }
        let name = HostName::from_str(name)?;
        if below && !name.as_str().contains('.') {
            return Err(PatternFault::Wide);
        }
        Ok(Self { name, below, port })
    }
}

/// A port in decimal, as strict as can be: no sign, no leading zero, not 0.
#[must_use]
pub fn parse_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

/// How a list stands to a host and port: the best of its patterns.
#[must_use]
pub fn cover(patterns: &[HostPattern], name: &HostName, port: u16) -> Cover {
    patterns.iter().map(|pattern| pattern.covers(name, port)).max().unwrap_or(Cover::No)
}

/// Setting `tools.bash.network`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// `"none"`, or an empty list: a call has its own loopback and nothing else.
    #[default]
    None,
    /// The hosts its proxy lets through.
    Hosts(Vec<HostPattern>),
}

impl Network {
    /// The list, empty for none.
    #[must_use]
    pub fn hosts(&self) -> &[HostPattern] {
        match self {
            Self::None => &[],
            Self::Hosts(hosts) => hosts,
        }
    }

    /// Whether a call has a proxy.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.hosts().is_empty()
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Hosts(hosts) => serializer.collect_seq(hosts.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Network;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none` or a list of hosts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Network, E> {
                if text == "none" {
                    Ok(Network::None)
                } else {
                    Err(E::custom("it must be `none` or a list of hosts"))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Network, A::Error> {
                let mut hosts = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    if hosts.len() >= MAX_PATTERNS {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_PATTERNS} hosts are listed"
                        )));
                    }
                    let pattern = HostPattern::from_str(&text).map_err(|fault| {
                        A::Error::custom(format_args!("`{}` is no host: {fault}", text.escape_debug()))
                    })?;
                    hosts.push(pattern);
                }
                Ok(if hosts.is_empty() { Network::None } else { Network::Hosts(hosts) })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Network {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "string", "enum": ["none"] },
                { "type": "array", "items": { "type": "string" }, "maxItems": MAX_PATTERNS }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    fn name(text: &str) -> HostName {
        text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn names_are_compared_label_by_label_from_the_right() {
        let cases = [
            ("example.org", "example.org", Cover::Yes),
            ("example.org", "EXAMPLE.Org", Cover::Yes),
            ("example.org", "evilexample.org", Cover::No),
            ("example.org", "a.example.org", Cover::No),
            ("example.org", "example.org.evil.net", Cover::No),
            ("example.org", "org", Cover::No),
            ("*.example.org", "a.example.org", Cover::Yes),
            ("*.example.org", "a.b.example.org", Cover::Yes),
            ("*.example.org", "example.org", Cover::No),
            ("*.example.org", "aexample.org", Cover::No),
            ("*.example.org", "a.example.org.evil.net", Cover::No),
            ("mirror", "mirror", Cover::Yes),
            ("mirror", "mirror.example.org", Cover::No),
        ];
        for (listed, asked, expected) in cases {
            assert_eq!(pattern(listed).covers(&name(asked), 443), expected, "{listed} {asked}");
        }
    }

    #[test]
    fn a_pattern_without_a_port_means_the_webs() {
        for (listed, port, expected) in [
            ("example.org", 80, Cover::Yes),
            ("example.org", 443, Cover::Yes),
            ("example.org", 22, Cover::OtherPort),
            ("example.org", 8443, Cover::OtherPort),
            ("example.org:22", 22, Cover::Yes),
            ("example.org:22", 443, Cover::OtherPort),
        ] {
            assert_eq!(pattern(listed).covers(&name("example.org"), port), expected, "{listed} {port}");
        }
        let list = [pattern("example.org:22"), pattern("example.org")];
        assert_eq!(cover(&list, &name("example.org"), 443), Cover::Yes, "the best of the list counts");
        assert_eq!(cover(&list, &name("example.net"), 443), Cover::No);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.org", "a.".repeat(130));
        let label = format!("{}.org", "a".repeat(64));
        let cases = [
            ("", NameFault::Empty),
            (long.as_str(), NameFault::Long),
            (label.as_str(), NameFault::Label),
            ("example.org.", NameFault::TrailingDot),
            (".example.org", NameFault::Label),
            ("example..org", NameFault::Label),
            ("-a.example.org", NameFault::Label),
            ("a-.example.org", NameFault::Label),
            ("exam\0ple.org", NameFault::Character),
            ("example.org\r\nx", NameFault::Character),
            ("user@example.org", NameFault::Character),
            ("example.org:80", NameFault::Character),
            ("example.org/x", NameFault::Character),
            ("example.org\\x", NameFault::Character),
            ("example%2eorg", NameFault::Character),
            ("exämple.org", NameFault::Character),
            ("example。org", NameFault::Character),
            ("[::1]", NameFault::Character),
            ("::ffff:127.0.0.1", NameFault::Character),
            ("127.0.0.1", NameFault::Address),
            ("127.1", NameFault::Address),
            ("2130706433", NameFault::Address),
            ("0x7f000001", NameFault::Address),
            ("0x7f.1", NameFault::Address),
            ("0x", NameFault::Address),
            ("017700000001", NameFault::Address),
            ("1.2.3.0X4", NameFault::Address),
            ("example.1", NameFault::Address),
            ("localhost", NameFault::Local),
            ("a.LocalHost", NameFault::Local),
        ];
        for (text, fault) in cases {
            assert_eq!(HostName::from_str(text), Err(fault), "{text:?}");
        }
        for fine in
            ["a", "xn--exmple-cua.org", "under_score.example.org", "1.example.org", "3com.com", "a.0xyz"]
        {
            assert_eq!(name(fine).as_str(), fine);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, fault) in [
            ("*", PatternFault::Wide),
            ("*.org", PatternFault::Wide),
            ("a*.example.org", PatternFault::Star),
            ("www.*.org", PatternFault::Star),
            ("*.*.example.org", PatternFault::Star),
            ("example.org:", PatternFault::Port),
            ("example.org:0", PatternFault::Port),
            ("example.org:080", PatternFault::Port),
            ("example.org:+80", PatternFault::Port),
            ("example.org:65536", PatternFault::Port),
            ("example.org:*", PatternFault::Port),
            ("::1", PatternFault::Port),
            ("10.0.0.1", PatternFault::Name(NameFault::Address)),
            ("https://example.org", PatternFault::Port),
            ("*.127.0.0.1", PatternFault::Name(NameFault::Address)),
        ] {
            assert_eq!(HostPattern::from_str(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn setting_is_a_word_or_a_list() {
        let read = |text: &str| serde_json::from_str::<Network>(text);
        assert_eq!(read(r#""none""#).unwrap(), Network::None);
        assert_eq!(read("[]").unwrap(), Network::None);
        let hosts = read(r#"["*.Example.org", "b.org:8443"]"#).unwrap();
        assert_eq!(serde_json::to_string(&hosts).unwrap(), r#"["*.example.org","b.org:8443"]"#);
        assert!(hosts.is_on() && !Network::None.is_on());
        for wrong in
            [r#""all""#, r#""example.org""#, r#"["*"]"#, r#"["1.2.3.4"]"#, "true", "{}", "[1]", "null"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let error = read(r#"["ok.org", "x.org."]"#).unwrap_err().to_string();
        assert!(error.contains("`x.org.` is no host: it ends with a dot"), "{error}");
        let many = serde_json::to_string(&vec!["a.org"; MAX_PATTERNS + 1]).unwrap();
        assert!(read(&many).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_covered_by_a_pattern_it_does_not_end_with(text in ".{0,40}", prefix in "[a-z.]{0,8}") {
            let listed = pattern("*.example.org");
            for candidate in [text.clone(), format!("{prefix}{text}.example.org"), format!("{prefix}example.org{text}")] {
                if let Ok(name) = HostName::from_str(&candidate)
                    && listed.covers(&name, 443) == Cover::Yes
                {
                    prop_assert!(candidate.to_ascii_lowercase().ends_with(".example.org"), "{candidate}");
                    prop_assert!(candidate.bytes().all(|b| b.is_ascii_graphic()));
                }
            }
        }

        #[test]
        fn no_address_is_a_name(a in any::<std::net::Ipv4Addr>(), b in any::<std::net::Ipv6Addr>()) {
            let number = u32::from(a);
            for text in [a.to_string(), b.to_string(), format!("[{b}]"), number.to_string(), format!("0x{number:x}"), format!("0{number:o}")] {
                prop_assert!(HostName::from_str(&text).is_err(), "{text}");
            }
        }
    }
}
