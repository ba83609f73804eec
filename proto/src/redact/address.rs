//! Passwords in addresses: `scheme://user:password@host`.

use super::class::Class;
use super::entropy;
use super::hay::{Hay, Hit, Match, Peek, Run, Then};

/// Where an address is recognised.
pub(super) const ANCHOR: &str = "://";
/// Longest user name or password.
const LONGEST: usize = 512;

/// What documents and examples write for a password.
const PLACEHOLDERS: &[&str] = &[
    "password",
    "passwd",
    "pass",
    "secret",
    "changeme",
    "user",
    "username",
    "postgres",
    "root",
    "admin",
    "test",
    "guest",
    "x-oauth-basic",
    "token",
    "example",
    "mysecretpassword",
    "pw",
    "pwd",
    "dev",
    "local",
    "foo",
    "bar",
];

/// Whether the address at `at` (its `://`) carries a password, or a key as its user.
pub(super) fn find(hay: Hay<'_>, at: usize, floor: usize, rule: usize) -> Match {
    if hay.run_before(at, floor, Class::NAME.with(Class::single(b"+")), 32) == 0 {
        return Match::No;
    }
    let user = at + ANCHOR.len();
    let (user_end, next) = match part(hay, user) {
        Ok(part) => part,
        Err(stop) => return stop,
    };
    let found = |from: usize, to: usize| Match::Found(Hit { from, to, rule, then: Then::Search });
    match next {
        Some(b'@') if entropy::is_random(hay.slice(user, user_end)) => found(user, user_end),
        Some(b':') => {
            let password = user_end + 1;
            let (end, next) = match part(hay, password) {
                Ok(part) => part,
                Err(stop) => return stop,
            };
            let value = hay.slice(password, end);
            let given = next == Some(b'@') && !value.is_empty();
            if given && !is_placeholder(value, hay.slice(user, user_end)) {
                return found(password, end);
            }
            if given && entropy::is_random(hay.slice(user, user_end)) {
                return found(user, user_end);
            }
            Match::No
        }
        Some(_) | None => Match::No,
    }
}

/// The end of a part and the byte after it.
fn part(hay: Hay<'_>, from: usize) -> Result<(usize, Option<u8>), Match> {
    match hay.run(from, Class::USERINFO, LONGEST) {
        Run::Unknown => Err(Match::Wait),
        Run::Longer => Err(Match::No),
        Run::Ended(length) => match hay.at(from + length) {
            Peek::Byte(byte) => Ok((from + length, Some(byte))),
            Peek::End => Ok((from + length, None)),
            Peek::Unknown => Err(Match::Wait),
        },
    }
}

fn is_placeholder(value: &[u8], user: &[u8]) -> bool {
    value == user
        || matches!(value.first(), Some(b'$' | b'%' | b'*'))
        || super::rule::distinct(value) < 3
        || PLACEHOLDERS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}
