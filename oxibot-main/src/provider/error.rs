//! Why a model did not answer: a class of its own, so that a vendor's failure never becomes an assistant's message.
//!
//! Each text says what to do. It never contains a key and never more than [`DETAIL_CHARS`] characters of what the
//! vendor sent, with control characters removed: that text is forgeable and is shown on a terminal.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Most characters of a vendor's own words that an error shows: enough for a sentence, too few to flood a terminal.
pub const DETAIL_CHARS: usize = 200;

/// Shortest run of a key's characters that is still masked when a vendor echoes part of it.
const KEY_FRAGMENT: usize = 8;

/// A model did not answer. Everything but `Refused` and `Recording` was caused by the vendor or the network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// 401 or 403.
    #[error(
        "cannot use provider {provider}: the API key was not accepted ({detail}); check providers.{provider}.apiKey or run `oxibot onboard`"
    )]
    Unauthorized {
        /// Provider.
        provider: String,
        /// The vendor's words.
        detail: String,
    },
    /// 429 that outlasted the retries.
    #[error(
        "cannot get an answer from {provider}: too many requests ({detail}){}; wait, or name another model in agents.defaults.fallbackModels",
        wait_hint(.retry_after)
    )]
    RateLimited {
        /// Provider.
        provider: String,
        /// What the vendor asked us to wait.
        retry_after: Option<Duration>,
        /// The vendor's words.
        detail: String,
    },
    /// 5xx, 408, 409 or an `overloaded` event.
    #[error(
        "cannot get an answer from {provider}: the service failed or is overloaded (status {status}: {detail}); try again, or name another model in agents.defaults.fallbackModels"
    )]
    Overloaded {
        /// Provider.
        provider: String,
        /// HTTP status, or the one an event in the stream stands for.
        status: u16,
        /// What the vendor asked us to wait.
        retry_after: Option<Duration>,
        /// The vendor's words.
        detail: String,
    },
    /// The account has no money or quota left: waiting does not help.
    #[error(
        "cannot use provider {provider}: the account has no credit or quota left ({detail}); top it up or choose another provider with --model"
    )]
    QuotaExhausted {
        /// Provider.
        provider: String,
        /// The vendor's words.
        detail: String,
    },
    /// Any other 4xx: repeating the same request cannot help.
    #[error(
        "cannot get an answer from {provider}: the request was refused (status {status}: {detail}); check the model name and agents.defaults"
    )]
    BadRequest {
        /// Provider.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The vendor's words.
        detail: String,
    },
    /// The conversation does not fit the model.
    #[error(
        "cannot send the conversation to {provider}: it is longer than the model allows ({detail}); start a new session or lower agents.defaults.contextWindowTokens"
    )]
    ContextTooLong {
        /// Provider.
        provider: String,
        /// The vendor's words.
        detail: String,
    },
    /// The model, or the path of the API, does not exist.
    #[error(
        "cannot find model {model} at {provider} ({detail}); choose another with --model or `oxibot onboard`, or check providers.{provider}.apiBase"
    )]
    NotFound {
        /// Provider.
        provider: String,
        /// Model asked for.
        model: String,
        /// The vendor's words.
        detail: String,
    },
    /// The answer is not what the wire format says.
    #[error("cannot read the answer of {provider}: {what}; check providers.{provider}.apiBase")]
    Garbage {
        /// Provider.
        provider: String,
        /// What was wrong with it.
        what: String,
    },
    /// A web page instead of an API: a wrong base URL, a login portal or a failing gateway.
    #[error(
        "cannot read the answer of {provider}: a web page (status {status}) instead of an API answer; {}check providers.{provider}.apiBase and any proxy or login page in between",
        if is_passing(*status) { "try again, and if it stays so " } else { "" }
    )]
    HtmlPage {
        /// Provider.
        provider: String,
        /// HTTP status.
        status: u16,
    },
    /// The connection ended in the middle of an answer, more often than we retry.
    #[error("cannot get a whole answer from {provider}: the connection ended in the middle; try again")]
    Truncated {
        /// Provider.
        provider: String,
    },
    /// Nothing came for too long.
    #[error(
        "cannot get an answer from {provider}: {what} took longer than {seconds} s; try again, or choose a faster model with --model"
    )]
    Timeout {
        /// Provider.
        provider: String,
        /// What took too long.
        what: &'static str,
        /// The limit that was reached.
        seconds: u64,
    },
    /// No connection, or it broke before an answer began.
    #[error("cannot reach {provider} at {host}: {cause}; check the network and providers.{provider}.apiBase")]
    Network {
        /// Provider.
        provider: String,
        /// Host and port.
        host: String,
        /// Cause as the system names it.
        cause: String,
    },
    /// An answer beyond one of our bounds: stopped before it fills memory.
    #[error("cannot accept the answer of {provider}: {what} is more than {limit}")]
    TooLarge {
        /// Provider.
        provider: String,
        /// What was too large.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// We refuse to send the request at all: the configuration would put a key in danger.
    #[error("cannot use provider {provider}: {why}")]
    Refused {
        /// Provider.
        provider: String,
        /// Why, and what to do instead.
        why: String,
    },
    /// A recording cannot be written, read or played on.
    #[error("cannot use recording {file}: {why}")]
    Recording {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
}

impl ProviderError {
    /// Whether the same request may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Truncated { .. }
            | Self::Timeout { .. }
            | Self::Network { .. } => true,
            Self::HtmlPage { status, .. } => is_passing(*status),
            Self::Unauthorized { .. }
            | Self::QuotaExhausted { .. }
            | Self::BadRequest { .. }
            | Self::ContextTooLong { .. }
            | Self::NotFound { .. }
            | Self::Garbage { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Recording { .. } => false,
        }
    }

    /// Whether another model may be asked instead. Not when our own request or configuration is at fault: the next
    /// model would hide the mistake.
    #[must_use]
    pub fn allows_fallback(&self) -> bool {
        match self {
            Self::Unauthorized { .. }
            | Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::QuotaExhausted { .. }
            | Self::NotFound { .. }
            | Self::Garbage { .. }
            | Self::HtmlPage { .. }
            | Self::Truncated { .. }
            | Self::Timeout { .. }
            | Self::Network { .. }
            | Self::TooLarge { .. } => true,
            Self::BadRequest { .. }
            | Self::ContextTooLong { .. }
            | Self::Refused { .. }
            | Self::Recording { .. } => false,
        }
    }

    /// What the vendor asked us to wait, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Overloaded { retry_after, .. } => *retry_after,
            Self::Unauthorized { .. }
            | Self::QuotaExhausted { .. }
            | Self::BadRequest { .. }
            | Self::ContextTooLong { .. }
            | Self::NotFound { .. }
            | Self::Garbage { .. }
            | Self::HtmlPage { .. }
            | Self::Truncated { .. }
            | Self::Timeout { .. }
            | Self::Network { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Recording { .. } => None,
        }
    }
}

fn wait_hint(retry_after: &Option<Duration>) -> String {
    retry_after.map(|wait| format!(", asked to wait {} s", wait.as_secs().max(1))).unwrap_or_default()
}

/// What must never be shown: the key, and extra headers long enough to be one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(crate) fn of(key: Option<&str>, header_values: impl Iterator<Item = String>) -> Self {
        let key = key.map(str::to_owned).into_iter();
        // A short header value is a title or a flag; masking it would garble the text for nothing.
        let headers = header_values.filter(|value| value.len() >= 16);
        Self(key.chain(headers).map(SecretString::from).collect())
    }

    /// The vendor's words made safe to show: no control or direction-changing characters, no secret, bounded.
    pub(crate) fn detail(&self, text: &str) -> String {
        // Enough to fill the bound whatever is dropped, so that a body of megabytes costs nothing here.
        let head: String = text
            .chars()
            .take(DETAIL_CHARS * 8)
            .map(|character| if is_unsafe(character) { ' ' } else { character })
            .collect();
        let masked = |word: &str| {
            self.0.iter().fold(word.to_owned(), |word, secret| mask_word(&word, secret.expose_secret()))
        };
        let joined = head.split_whitespace().map(masked).collect::<Vec<_>>().join(" ");
        if joined.is_empty() {
            return "no reason given".to_owned();
        }
        if joined.chars().count() <= DETAIL_CHARS {
            return joined;
        }
        let mut cut: String = joined.chars().take(DETAIL_CHARS.saturating_sub(3)).collect();
        cut.push_str("...");
        cut
    }
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Vendors echo keys whole (`Incorrect API key provided: sk-...`) or with stars in the middle; both are masked.
fn mask_word(word: &str, key: &str) -> String {
    const MASK: &str = "[key]";
    if key.is_empty() {
        return word.to_owned();
    }
    if word.contains(key) {
        return word.replace(key, MASK);
    }
    let key: Vec<char> = key.chars().collect();
    let holds_fragment =
        key.windows(KEY_FRAGMENT).any(|window| word.contains(window.iter().collect::<String>().as_str()));
    let starred = word.contains("**") || word.contains("...");
    let prefix: String = key.iter().take(3).collect();
    if holds_fragment || (starred && word.contains(&prefix)) {
        return MASK.to_owned();
    }
    word.to_owned()
}

/// Whether a gateway's answer of this status passes by itself.
fn is_passing(status: u16) -> bool {
    status >= 500 || status == 429
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(text: &str, key: Option<&str>) -> String {
        Secrets::of(key, std::iter::empty()).detail(text)
    }

    #[test]
    fn detail_of_a_huge_body_is_bounded_and_on_one_line() {
        let text = "a\u{1b}[31m red\r\n ".repeat(100_000);
        let shown = detail(&text, None);
        assert!(shown.chars().count() <= DETAIL_CHARS);
        assert!(!shown.contains(['\u{1b}', '\n', '\r']));
    }

    #[test]
    fn detail_never_shows_the_key_whole_in_part_or_starred() {
        let key = "sk-proj-abcdefghijklmnop1234";
        for body in [
            "Incorrect API key provided: sk-proj-abcdefghijklmnop1234.",
            "Incorrect API key provided: sk-pr***********1234. Find yours",
            "bad key \"abcdefghijkl\"",
            "token=sk-proj-abcdefghijklmnop1234&x",
        ] {
            let shown = detail(body, Some(key));
            assert!(!shown.contains("abcdefgh") && !shown.contains("1234"), "{shown}");
            assert!(shown.contains("[key]"), "{shown}");
        }
    }

    #[test]
    fn detail_of_nothing_says_so() {
        assert_eq!(detail(" \n ", None), "no reason given");
    }

    #[test]
    fn detail_cuts_between_characters() {
        assert!(detail(&"\u{e9}".repeat(5000), None).ends_with("..."));
    }
}
