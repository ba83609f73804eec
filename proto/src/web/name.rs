//! Host names, judged before anybody looks them up: on whole labels, never on the end of a text.
//!
//! A name is no boundary, the addresses behind it are; but some names never mean anything public, and to ask a
//! resolver for them tells the local network what is asked.

use super::denial;
use crate::message::Denial;

/// Longest name and label, in bytes (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

const HINT: &str = "use the full public name of the server";

/// Last labels of names that are never public, with what says so.
const PRIVATE_ENDS: [(&[&str], &str); 9] = [
    (&["localhost"], "always this machine (RFC 6761)"),
    (&["local"], "the local link (RFC 6762)"),
    (&["internal"], "private use (ICANN, 2024)"),
    (&["home", "arpa"], "home networks (RFC 8375)"),
    (&["localdomain"], "this machine, by custom"),
    (&["lan"], "local networks, by custom"),
    (&["intranet"], "local networks, by custom (RFC 6762, appendix G)"),
    (&["corp"], "local networks, by custom (RFC 6762, appendix G)"),
    (&["onion"], "not to be looked up (RFC 7686)"),
];

/// A well-formed name in lower case, without the final dot. Only [`judge_name`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName {
    name: String,
    private: bool,
}

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// It never means anything public: every address behind it has to be excepted by the configuration.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// It is `localhost` or below it: loopback without asking anybody (RFC 6761).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.name.rsplit('.').next() == Some("localhost")
    }
}

/// Judges a name: letters of a host name, labels of 1 to 63 bytes, at least two of them, and none that means something
/// private. `private_too` lets those through, marked, because the configuration excepts some address for the port.
///
/// Takes ASCII: international names are converted by whoever parsed the URL. One final dot is accepted.
///
/// # Errors
/// `web.url.host` for what is no name, `web.url.private-name` for a name that means something private.
pub fn judge_name(text: &str, private_too: bool) -> Result<HostName, Denial> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let malformed = |why: &str| {
        let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
        denial("web.url.host", format!("`{shown}` is not a host name: {why}"), HINT)
    };
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(malformed("it must have 1 to 253 characters"));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(malformed("a part between dots must have 1 to 63 characters"));
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(malformed("it may hold letters, digits, `-`, `_` and dots"));
        }
    }
    // What ends in a number is an IPv4 address to some parser or other, and a name to none.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal =
        last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("it ends in a number"));
    }
    let meaning = private_meaning(&name);
    match meaning {
        Some(meaning) if !private_too => {
            Err(denial("web.url.private-name", format!("`{name}` is not a public name: {meaning}"), HINT))
        }
        meaning => Ok(HostName { private: meaning.is_some(), name }),
    }
}

fn private_meaning(name: &str) -> Option<&'static str> {
    let ends_with = |end: &[&str]| {
        let mut labels = name.rsplit('.');
        end.iter().rev().all(|label| labels.next() == Some(label))
    };
    PRIVATE_ENDS
        .iter()
        .find(|(end, _)| ends_with(end))
        .map(|(_, meaning)| *meaning)
        .or_else(|| (!name.contains('.')).then_some("a single label means something in local networks only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Option<String> {
        judge_name(name, false).err().map(|denial| denial.rule)
    }

    #[test]
    fn public_names_pass_in_lower_case_without_the_final_dot() {
        for (name, judged) in [
            ("example.com", "example.com"),
            ("Example.COM.", "example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("notlocalhost.com", "notlocalhost.com"),
            ("localhost.example.com", "localhost.example.com"),
            ("mylocal.org", "mylocal.org"),
            ("a.1a", "a.1a"),
        ] {
            assert_eq!(judge_name(name, false).unwrap().as_str(), judged);
        }
    }

    #[test]
    fn private_names_are_refused_on_whole_labels() {
        for name in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "a.b.localhost",
            "printer.local",
            "local",
            "metadata.google.internal",
            "x.internal",
            "router.home.arpa",
            "router",
            "metadata",
            "nas.lan",
            "wiki.corp",
            "x.onion",
            "localhost.localdomain",
        ] {
            assert_eq!(rule(name).as_deref(), Some("web.url.private-name"), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("{}.com", "a".repeat(64));
        let longest = format!("{}com", "abcdefg.".repeat(32));
        for name in [
            "",
            ".",
            "..",
            "a..b",
            ".a.b",
            "a.b..",
            "a b.com",
            "a\0.com",
            "a\n.com",
            "a/b.com",
            "a@b.com",
            "a:80",
            "é.com",
            "[::1]",
            "127.0.0.1",
            "0x7f.1",
            "a.0x",
            "1.2.3.4.5",
            "a.1",
            "2130706433",
            &long,
            &longest,
        ] {
            assert_eq!(rule(name).as_deref(), Some("web.url.host"), "{name:?}");
        }
    }

    #[test]
    fn private_names_that_may_be_excepted_stay_marked() {
        let name = judge_name("wiki.internal", true).unwrap();
        assert!(name.is_private() && !name.is_localhost());
        assert!(judge_name("a.localhost", true).unwrap().is_localhost());
        assert!(!judge_name("example.com", true).unwrap().is_private());
    }
}
