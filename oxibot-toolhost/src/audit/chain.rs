//! One chain of records: each line carries a code over itself and the code before it, under a key that is replaced after
//! every line.
//!
//! The key of line n+1 is a hash of the key of line n, and the old one is overwritten. Whoever takes over the supervisor
//! finds a key that can continue the log and none that could have written what is already there (forward security;
//! Schneier and Kelsey, "Secure Audit Logs to Support Computer Forensics", 1999). The first key of a chain is derived
//! from `audit/key` and the chain's name. What is authenticated are the bytes of the line, so there is one way to write
//! a record: header, fields in the order of their types, no spaces, the code last. Pure: no file, no clock.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SCHEMA;
use super::key::AuditKey;

/// What the first key of a chain is for.
const PURPOSE: &str = "oxibot audit 1";
/// Separates the hash that makes the next key from every other hash.
const NEXT: &[u8] = b"oxibot audit next key\0";
/// Bytes of a code.
pub(crate) const CODE: usize = 32;
/// What stands between a record and its code.
const BEFORE_CODE: &[u8] = b",\"mac\":\"";
const AFTER_CODE: &[u8] = b"\"}";

/// Authentication code of a record.
pub(crate) type Code = [u8; CODE];

/// Where a chain stands: everything that is needed to write or to check its next line.
pub(crate) struct Chain {
    name: String,
    key: [u8; CODE],
    last: Code,
    next: u64,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Chain")
            .field("name", &self.name)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// What every record begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// [`SCHEMA`].
    pub(crate) v: u32,
    /// Name of the chain: start and process id of its supervisor.
    pub(crate) chain: String,
    /// Position, from 0.
    pub(crate) seq: u64,
    /// UTC.
    pub(crate) time: String,
    /// What happened.
    pub(crate) event: String,
}

#[derive(Serialize)]
struct Record<'a, T> {
    #[serde(flatten)]
    header: &'a Header,
    #[serde(flatten)]
    body: T,
}

/// A line is not the one that was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// No code at its end, so no record of ours.
    #[error("it is no record: it does not end in an authentication code")]
    NoCode,
    /// It was changed, or a line before it was removed, added or moved.
    #[error(
        "its authentication code is wrong: it, or the record before it, was changed, removed, added or moved"
    )]
    Code,
    /// Authentic, and written by a newer program.
    #[error("it has schema version {0}, and this program knows {SCHEMA}: use the program that wrote it")]
    Newer(u32),
    /// Authentic and not what its place says. A fault of ours.
    #[error("it is authentic and does not fit its place")]
    Misplaced,
}

impl Chain {
    /// The chain of this name, before its first record.
    pub(crate) fn begin(master: &AuditKey, name: &str) -> Self {
        let mut code = master.code(PURPOSE);
        code.update(name.as_bytes());
        Self { name: name.to_owned(), key: code.finalize().into_bytes().into(), last: [0; CODE], next: 0 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Position of the next record: how many there are.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Code of the last record.
    pub(crate) fn head(&self) -> &Code {
        &self.last
    }

    /// Writes the next record as a line and moves on: from now on only this line can stand there.
    pub(crate) fn seal<T: Serialize>(
        &mut self,
        time: String,
        event: &str,
        body: T,
    ) -> Result<Vec<u8>, String> {
        let event = event.to_owned();
        let header = Header { v: SCHEMA, chain: self.name.clone(), seq: self.next, time, event };
        let mut line =
            serde_json::to_vec(&Record { header: &header, body }).map_err(|error| error.to_string())?;
        // The closing brace comes after the code.
        line.pop();
        let code = self.code(&line);
        self.advance(code);
        line.extend_from_slice(BEFORE_CODE);
        line.extend_from_slice(to_hex(&code).as_bytes());
        line.extend_from_slice(AFTER_CODE);
        line.push(b'\n');
        Ok(line)
    }

    /// Checks a line, without its line feed, and moves on. What it says counts only if this says so.
    pub(crate) fn check(&mut self, line: &[u8]) -> Result<Header, Bad> {
        let (body, claimed) = split(line).ok_or(Bad::NoCode)?;
        let mut code = self.begin_code();
        code.update(body);
        code.clone().verify_slice(&claimed).map_err(|_wrong| Bad::Code)?;
        let header: Header = serde_json::from_slice(line).map_err(|_odd| Bad::Misplaced)?;
        if header.v > SCHEMA {
            return Err(Bad::Newer(header.v));
        }
        if header.seq != self.next || header.chain != self.name {
            return Err(Bad::Misplaced);
        }
        self.advance(claimed);
        Ok(header)
    }

    fn begin_code(&self) -> Hmac<Sha256> {
        // A key shorter than a block counts as filled up with zeros (RFC 2104): like this nothing can fail.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(self.key) {
            *to = from;
        }
        let mut code = <Hmac<Sha256> as Mac>::new((&block).into());
        code.update(&self.last);
        code
    }

    fn code(&self, body: &[u8]) -> Code {
        let mut code = self.begin_code();
        code.update(body);
        code.finalize().into_bytes().into()
    }

    fn advance(&mut self, code: Code) {
        // In place: the old key is gone.
        self.key = Sha256::new().chain_update(NEXT).chain_update(self.key).finalize().into();
        self.last = code;
        self.next += 1;
    }
}

/// What a line claims to be its code, and the bytes before it.
pub(crate) fn split(line: &[u8]) -> Option<(&[u8], Code)> {
    let rest = line.strip_suffix(AFTER_CODE)?;
    let (rest, hex) = rest.split_at_checked(rest.len().checked_sub(CODE * 2)?)?;
    let body = rest.strip_suffix(BEFORE_CODE)?;
    Some((body, from_hex(std::str::from_utf8(hex).ok()?)?.try_into().ok()?))
}

/// Lower-case hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Bytes of hexadecimal text.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        Chain::begin(&AuditKey::of([7; 32]), "x")
    }

    fn lines(count: u64) -> Vec<Vec<u8>> {
        let mut chain = chain();
        (0..count)
            .map(|number| {
                let body = serde_json::json!({ "number": number, "text": "é\n\"" });
                let mut line = chain.seal("2026-11-30T16:00:00.000Z".into(), "test", body).unwrap();
                assert_eq!(line.pop(), Some(b'\n'));
                line
            })
            .collect()
    }

    fn first_bad(lines: &[Vec<u8>]) -> Option<usize> {
        let mut chain = chain();
        lines.iter().position(|line| chain.check(line).is_err())
    }

    #[test]
    fn record_has_one_shape() {
        let line = String::from_utf8(lines(1).remove(0)).unwrap();
        let (body, code) = line.rsplit_once(",\"mac\":\"").unwrap();
        assert_eq!(
            body,
            r#"{"v":1,"chain":"x","seq":0,"time":"2026-11-30T16:00:00.000Z","event":"test","number":0,"text":"é\n\"""#
        );
        assert_eq!(code.len(), 66);
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }

    #[test]
    fn every_change_of_a_byte_is_found_at_its_record() {
        let good = lines(3);
        assert_eq!(first_bad(&good), None, "the control");
        let length = good[1].len();
        for at in 0..length {
            let mut bad = good.clone();
            bad[1][at] ^= 1;
            assert_eq!(first_bad(&bad), Some(1), "byte {at}");
        }
    }

    #[test]
    fn records_removed_swapped_repeated_or_of_another_chain_are_found() {
        let good = lines(4);
        let without = [&good[..1], &good[2..]].concat();
        assert_eq!(first_bad(&without), Some(1));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(first_bad(&swapped), Some(1));
        let repeated = [&good[..2], &good[1..]].concat();
        assert_eq!(first_bad(&repeated), Some(2));
        let mut other = Chain::begin(&AuditKey::of([7; 32]), "y");
        assert_eq!(other.check(&good[0]), Err(Bad::Code));
        let mut other = Chain::begin(&AuditKey::of([8; 32]), "x");
        assert_eq!(other.check(&good[0]), Err(Bad::Code));
    }

    #[test]
    fn key_of_now_cannot_write_what_came_before() {
        let mut later = chain();
        let first = later.seal(String::new(), "a", serde_json::json!({})).unwrap();
        later.seal(String::new(), "b", serde_json::json!({})).unwrap();
        // Everything a supervisor holds after two records, turned back to the beginning.
        let mut thief = Chain { name: "x".into(), key: later.key, last: [0; CODE], next: 0 };
        let forged = thief.seal(String::new(), "a", serde_json::json!({})).unwrap();
        assert_ne!(forged, first);
        let mut line = forged.clone();
        line.pop();
        assert_eq!(chain().check(&line), Err(Bad::Code));
    }

    #[test]
    fn newer_schema_is_named() {
        let mut chain = chain();
        let body = br#"{"v":2,"chain":"x","seq":0,"time":"","event":"e""#;
        let code = to_hex(&chain.code(body));
        let line = [body, BEFORE_CODE, code.as_bytes(), AFTER_CODE].concat();
        assert_eq!(chain.check(&line), Err(Bad::Newer(2)));
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(from_hex(&to_hex(&[0, 1, 0xfe, 0xff])), Some(vec![0, 1, 0xfe, 0xff]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
        assert_eq!(from_hex("é"), None);
    }
}
