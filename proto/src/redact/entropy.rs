//! Whether a value looks drawn at random, as keys are, or written by a person, as everything else is.

use super::class::Class;
use super::rule::distinct;

/// Shortest value that counts as random.
const SHORTEST: usize = 12;
/// Shortest that does without digits all over it.
const SHORTEST_PLAIN: usize = 16;
/// Consonants in a row that no word has.
const UNSPEAKABLE: usize = 6;
/// Shortest password that counts by its variety alone.
const SHORTEST_PASSWORD: usize = 8;

/// How sure the name is that its value is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// `api_key`, `token`, `secret` and so on.
    Key,
    /// `password` and so on, which people make up.
    Password,
}

/// Whether the value of such a name is a secret.
pub(super) fn is_secret(value: &[u8], name: Name) -> bool {
    let Some(first) = value.first() else { return false };
    // Variables, templates, paths.
    if matches!(first, b'$' | b'%' | b'*' | b'/' | b'@' | b'&' | b'~' | b'.' | b'-' | b'|')
        || value.windows(2).any(|pair| pair == b"://" || pair == b"::" || pair == b"**")
        || value.windows(3).any(|three| three == b"...")
    {
        return false;
    }
    is_uuid(value) || is_random(value) || (name == Name::Password && is_varied(value))
}

/// Three kinds of characters, as rules for passwords ask for.
fn is_varied(value: &[u8]) -> bool {
    let has = |kind: fn(&u8) -> bool| value.iter().any(kind);
    let symbol = |byte: &u8| b"!@#$%^&*+?~".contains(byte);
    value.len() >= SHORTEST_PASSWORD
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && has(symbol)
        && distinct(value) >= 6
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && distinct(value) >= 8
        && value.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether characters follow each other without a pattern.
pub(super) fn is_random(value: &[u8]) -> bool {
    if value.len() < SHORTEST {
        return false;
    }
    let core = core(value);
    let length = core.len();
    if length < 12 || distinct(&core) < 8 {
        return false;
    }
    let digits = core.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = length - digits;
    if core.iter().all(u8::is_ascii_hexdigit) {
        return length >= SHORTEST_PLAIN && digits >= 2 && letters >= 2;
    }
    let kind = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let pairs = || core.iter().zip(core.iter().skip(1));
    let changes = pairs().filter(|(one, next)| kind(one) != kind(next)).count();
    let islands = pairs().filter(|(one, next)| !one.is_ascii_digit() && next.is_ascii_digit()).count()
        + usize::from(core.first().is_some_and(u8::is_ascii_digit));
    if digits == 0 {
        let upper = core.iter().filter(|byte| byte.is_ascii_uppercase()).count();
        return length >= 20 && upper >= 4 && letters - upper >= 4 && changes * 100 >= length * 42;
    }
    if length < SHORTEST_PLAIN {
        return islands >= 3;
    }
    islands >= 3
        || unspeakable(&core)
        || (islands >= 2 && changes * 10 >= length * 2)
        || changes * 10 >= length * 3
}

/// Whether so many consonants follow each other that no word is in it.
fn unspeakable(core: &[u8]) -> bool {
    let vowel = |byte: &u8| b"aeiouyAEIOUY".contains(byte) || byte.is_ascii_digit();
    core.split(vowel).any(|run| run.len() >= UNSPEAKABLE)
}

/// The part that counts: the whole value without its separators if they are few, else its longest word.
fn core(value: &[u8]) -> Vec<u8> {
    let separators = value.iter().filter(|byte| !byte.is_ascii_alphanumeric() && **byte != b'=').count();
    let base64 = value.iter().all(|byte| Class::BASE64.has(*byte)) && value.len() >= 32;
    if separators * 8 <= value.len() || (base64 && separators * 5 <= value.len()) {
        return value.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    }
    value
        .split(|byte| !byte.is_ascii_alphanumeric())
        .max_by_key(|word| word.len())
        .unwrap_or_default()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_and_words_are_not() {
        for random in [
            "4f2b9c01d7e83a65bf10ce92a7d4583e",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY",
            "q8Zt3Lm0Xv7Rk2Bw9Yc5",
            "r2l9kx0qzm4v7w1t8b3n5c6d",
            "xKqPzWbYtRvLsNdFhGjC",
        ] {
            assert!(is_random(random.as_bytes()), "{random}");
        }
        for word in [
            "process.env.API_KEY_V2",
            "getUserAccessTokenFromHeader",
            "my-service-account-token-2024-prod",
            "your_api_key_here_1234",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "1234567890123456",
            "config/settings/production.yaml",
            "System.Environment",
        ] {
            assert!(!is_random(word.as_bytes()), "{word}");
        }
    }
}
