//! Values that are secret by the name they are given to: `api_key = "..."`, `--token ...`, `Authorization: Bearer ...`.
//!
//! Only the value goes, and only if it looks drawn at random: source code, documents and forms are full of such names.

use super::LOOK;
use super::class::Class;
use super::entropy::{self, Name};
use super::hay::{Hay, Hit, Match, Peek, Run, Then};

/// Longest name looked at.
const LONGEST_NAME: usize = 64;
/// Longest name from the word on that is recognised.
const LONGEST_REST: usize = 32;
/// Most blanks between name and value.
const BLANKS: usize = 40;

/// Where a name may be recognised. A name that holds none of them is never looked at.
pub(super) const WORDS: &[&str] = &[
    "key",
    "token",
    "secret",
    "passw",
    "passphrase",
    "pwd",
    "auth",
    "credential",
    "bearer",
    "_pass",
    "_pat",
];

/// Names end so when their value is a secret.
const ENDINGS: &[&str] = &[
    "apikey",
    "apitoken",
    "apisecret",
    "secretkey",
    "secretaccesskey",
    "accesskey",
    "accesstoken",
    "authkey",
    "clientkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "sessionkey",
    "accountkey",
    "sharedaccesskey",
    "subscriptionkey",
    "functionskey",
    "functionkey",
    "hostkey",
    "adminkey",
    "deploykey",
    "integrationkey",
    "projectkey",
    "securitykey",
    "servicekey",
    "serverkey",
    "licensekey",
    "applicationkey",
    "appkey",
    "writekey",
    "personalkey",
    "storagekey",
    "secret",
    "token",
    "credential",
    "credentials",
    "auth",
    "authorization",
    "bearer",
    "pat",
];

/// The same for what people make up.
const PASSWORDS: &[&str] = &["password", "passwd", "passphrase", "pwd", "pass", "passwort"];

/// Names that hold one of these are public or hold no secret.
const HARMLESS: &[&str] = &[
    "public",
    "publishable",
    "next",
    "page",
    "paging",
    "continuation",
    "csrf",
    "xsrf",
    "cursor",
    "cancel",
    "resume",
    "authenticity",
    "sshhostkey",
    "websocket",
    "idempotency",
    "sizelimit",
    "keyword",
];

/// Services whose plain `..._key` is a secret.
const SERVICES: &[&str] = &[
    "adafruit",
    "algolia",
    "amplitude",
    "anthropic",
    "aws",
    "azure",
    "bitbucket",
    "bittrex",
    "brave",
    "cloudflare",
    "cohere",
    "coinbase",
    "confluent",
    "contentful",
    "datadog",
    "deepgram",
    "deepseek",
    "dropbox",
    "dd",
    "elastic",
    "etsy",
    "fastly",
    "finnhub",
    "flickr",
    "freshbooks",
    "gemini",
    "gitlab",
    "github",
    "google",
    "groq",
    "heroku",
    "hubspot",
    "intercom",
    "kraken",
    "kucoin",
    "launchdarkly",
    "linear",
    "linkedin",
    "looker",
    "mailchimp",
    "mailgun",
    "mapbox",
    "mistral",
    "mixpanel",
    "newrelic",
    "nytimes",
    "okta",
    "openai",
    "openrouter",
    "opsgenie",
    "pagerduty",
    "perplexity",
    "pinecone",
    "plaid",
    "postmark",
    "rapidapi",
    "replicate",
    "rollbar",
    "segment",
    "sendbird",
    "sendgrid",
    "sentry",
    "snyk",
    "sonar",
    "square",
    "stripe",
    "sumologic",
    "supabase",
    "telegram",
    "together",
    "travis",
    "trello",
    "twilio",
    "twitch",
    "twitter",
    "typeform",
    "voyage",
    "weather",
    "yandex",
    "zendesk",
    "zoho",
];

/// What may stand between an authorization header's name and its value.
const SCHEMES: &[&str] =
    &["bearer", "basic", "token", "apikey", "api-key", "bot", "ssws", "key", "negotiate", "splunk"];

/// Whether a secret is given to the name around `at`.
pub(super) fn find(hay: Hay<'_>, at: usize, floor: usize, rule: usize) -> Match {
    let end = match hay.run(at, Class::NAME, LONGEST_REST) {
        Run::Unknown => return Match::Wait,
        Run::Longer => return Match::No,
        Run::Ended(length) => at + length,
    };
    let start = at - hay.run_before(at, floor, Class::NAME, LONGEST_NAME);
    let mut reader = Reader { hay, at: end, basic: false, prose: false };
    match reader.value(hay.slice(start, end)) {
        Ok(()) => {}
        Err(Stop::No) => return Match::No,
        Err(Stop::Wait) => return Match::Wait,
    }
    let Some(mut name) = kind(hay.slice(start, end)) else { return Match::No };
    if reader.prose {
        name = Name::Key;
    }
    let from = reader.at;
    let length = match hay.run(from, Class::VALUE, LOOK) {
        Run::Unknown => return Match::Wait,
        Run::Ended(length) => length,
        Run::Longer => LOOK,
    };
    let whole = hay.slice(from, from + length);
    // In a query the next parameter follows.
    let value = whole.split(|byte| *byte == b'&').next().unwrap_or_default();
    let then = if value.len() == LOOK { Then::Drop(Class::VALUE) } else { Then::Search };
    if reader.basic && is_basic(value) || entropy::is_secret(value, name) {
        return Match::Found(Hit { from, to: from + value.len(), rule, then });
    }
    Match::No
}

/// What kind of secret a name names.
fn kind(written: &[u8]) -> Option<Name> {
    let mut name: Vec<u8> =
        written.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    while name.last().is_some_and(u8::is_ascii_digit) {
        name.pop();
    }
    let name = name.as_slice();
    let holds = |word: &&str| name.windows(word.len()).any(|window| window == word.as_bytes());
    if HARMLESS.iter().any(holds) {
        return None;
    }
    let ends = |word: &&str| name.ends_with(word.as_bytes());
    // `bypass` and `compat` are words of their own: these two count only where a separator sets them apart.
    let apart = |word: &str| {
        name == word.as_bytes()
            || written.len().checked_sub(word.len() + 1).is_some_and(|at| {
                written.get(at).is_some_and(|byte| matches!(byte, b'_' | b'-' | b'.'))
                    && written.get(at + 1..).is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
            })
    };
    if PASSWORDS.iter().any(|word| ends(word) && (*word != "pass" || apart(word))) {
        return Some(Name::Password);
    }
    if ENDINGS.iter().any(|word| ends(word) && (*word != "pat" || apart(word))) {
        return Some(Name::Key);
    }
    (name.ends_with(b"key") && SERVICES.iter().any(|service| name.starts_with(service.as_bytes())))
        .then_some(Name::Key)
}

/// `user:password` in base64.
fn is_basic(value: &[u8]) -> bool {
    super::encode::base64_decoded(value).is_some_and(|text| text.len() >= 3 && text.contains(&b':'))
}

enum Stop {
    No,
    Wait,
}

/// Reads from a name to the value given to it.
struct Reader<'a> {
    hay: Hay<'a>,
    at: usize,
    basic: bool,
    /// Only a blank stands between name and value, as in prose.
    prose: bool,
}

impl Reader<'_> {
    fn value(&mut self, name: &[u8]) -> Result<(), Stop> {
        let option = name.starts_with(b"-");
        // `password ...` as in `.netrc`: there nothing stands between them.
        let scheme =
            [&b"bearer"[..], b"password", b"passwd"].iter().any(|word| name.eq_ignore_ascii_case(word));
        self.quote()?;
        while self.take(|byte| matches!(byte, b']' | b')'))? {}
        let blank = self.blanks(false)?;
        if !self.operator()? {
            if (option || scheme) && blank {
                // The value is the next word.
                self.prose = !option;
            } else {
                self.pair()?;
            }
        }
        self.blanks(false)?;
        self.quote()?;
        if self.scheme()? {
            self.quote()?;
        }
        Ok(())
    }

    /// `=`, `:`, `:=`, `=>`, `==`, `>`.
    fn operator(&mut self) -> Result<bool, Stop> {
        let mut found = false;
        for _ in 0..3 {
            if !self.take(|byte| matches!(byte, b'=' | b':' | b'>'))? {
                break;
            }
            found = true;
        }
        Ok(found)
    }

    /// `"name": "API_KEY", "value": "..."`, as manifests write it; also over two lines.
    fn pair(&mut self) -> Result<(), Stop> {
        self.take(|byte| byte == b',')?;
        self.blanks(true)?;
        self.quote()?;
        if !self.word("value")? {
            return Err(Stop::No);
        }
        self.quote()?;
        self.blanks(false)?;
        if self.operator()? { Ok(()) } else { Err(Stop::No) }
    }

    /// `Bearer ` and the like.
    fn scheme(&mut self) -> Result<bool, Stop> {
        for scheme in SCHEMES {
            let before = self.at;
            if self.word(scheme)? && self.blanks(false)? {
                self.basic = *scheme == "basic";
                return Ok(true);
            }
            self.at = before;
        }
        Ok(false)
    }

    fn word(&mut self, word: &str) -> Result<bool, Stop> {
        let before = self.at;
        for wanted in word.bytes() {
            if !self.take(|byte| byte.eq_ignore_ascii_case(&wanted))? {
                self.at = before;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A quotation mark, plain or with backslashes before it, up to three; also the letter of a string before it.
    fn quote(&mut self) -> Result<(), Stop> {
        let before = self.at;
        self.take(|byte| matches!(byte, b'b' | b'r' | b'f' | b'u'))?;
        let prefixed = self.at;
        for _ in 0..8 {
            if !self.take(|byte| matches!(byte, b'"' | b'\'' | b'`' | b'\\'))? {
                break;
            }
        }
        if self.at == prefixed {
            self.at = before;
        }
        Ok(())
    }

    fn blanks(&mut self, lines: bool) -> Result<bool, Stop> {
        let mut found = false;
        for _ in 0..BLANKS {
            if !self
                .take(|byte| matches!(byte, b' ' | b'\t') || lines && matches!(byte, b'\n' | b'\r' | b'-'))?
            {
                return Ok(found);
            }
            found = true;
        }
        Err(Stop::No)
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> Result<bool, Stop> {
        match self.hay.at(self.at) {
            Peek::Byte(byte) if wanted(byte) => {
                self.at += 1;
                Ok(true)
            }
            Peek::Byte(_) | Peek::End => Ok(false),
            Peek::Unknown => Err(Stop::Wait),
        }
    }
}
