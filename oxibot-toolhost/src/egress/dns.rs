//! Questions to a name server and what its answers say (RFC 1035, with EDNS0 of RFC 6891 for longer ones).
//!
//! Of our own, because the C library's resolver opens files and sockets at any time and waits. Answers come from whoever
//! runs the server of a name: every length is checked, every pointer leads backwards, every loop is bounded. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use oxibot_proto::reach::HostName;

/// Longest answer taken, in bytes. As announced in the question: it passes every network in one piece.
pub(super) const MAX_ANSWER: usize = 1232;
/// Most records looked at.
const MAX_RECORDS: usize = 64;
/// Most addresses taken.
const MAX_ADDRESSES: usize = 16;
/// Most aliases followed.
const MAX_ALIASES: usize = 16;
/// Most pointers followed in one name.
const MAX_POINTERS: usize = 16;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses; none if the name has none of this kind.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// The server could not or would not say.
    Failed,
}

/// The question for the addresses of a name.
pub(super) fn question(id: u16, name: &HostName, kind: Kind) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.as_str().len() + 32);
    bytes.extend(id.to_be_bytes());
    // Recursion desired; one question, one additional record.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.as_str().split('.') {
        // A label has at most 63 bytes, as its type says.
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    // OPT: the root, type 41, how long an answer may be, no flags, no data.
    bytes.extend([0, 0, 41]);
    bytes.extend(u16::try_from(MAX_ANSWER).unwrap_or(512).to_be_bytes());
    bytes.extend([0; 6]);
    bytes
}

/// Reads an answer. `None` when it is none to this question: somebody else's, or nobody's.
pub(super) fn answer(bytes: &[u8], id: u16, name: &HostName, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.number()? != id {
        return None;
    }
    let flags = reader.number()?;
    let (questions, records) = (reader.number()?, reader.number()?);
    reader.number()?;
    reader.number()?;
    let is_answer = flags & 0x8000 != 0 && flags & 0x7800 == 0;
    if !is_answer || questions != 1 {
        return None;
    }
    let asked = reader.name()?;
    if asked != name.as_str() || reader.number()? != kind.number() || reader.number()? != CLASS_IN {
        return None;
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Answer::NoSuchName),
        _ => return Some(Answer::Failed),
    }
    let truncated = flags & 0x0200 != 0;
    let mut aliases = Vec::new();
    let mut found = Vec::new();
    for _ in 0..usize::from(records).min(MAX_RECORDS) {
        let Some(record) = reader.record(kind) else {
            // What was whole before it may be used; a record cut off is what truncation looks like.
            if truncated {
                break;
            }
            return Some(Answer::Failed);
        };
        match record {
            Record::Address(owner, address) => found.push((owner, address)),
            Record::Alias(owner, target) => aliases.push((owner, target)),
            Record::Other => {}
        }
    }
    let mut owner = asked;
    for _ in 0..MAX_ALIASES {
        match aliases.iter().find(|(from, _)| *from == owner) {
            Some((_, to)) => owner.clone_from(to),
            None => break,
        }
    }
    let addresses: Vec<IpAddr> = found
        .into_iter()
        .filter(|(of, _)| *of == owner)
        .map(|(_, address)| address)
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() && truncated { Some(Answer::Failed) } else { Some(Answer::Addresses(addresses)) }
}

enum Record {
    Address(String, IpAddr),
    Alias(String, String),
    Other,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name in lower case with dots between its labels. Labels that hold something else than a name of ours may are
    /// kept as they are: they equal none.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut behind = None;
        let mut pointers = 0;
        loop {
            let length = usize::from(*self.bytes.get(at)?);
            match length {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(at + 1..at + 1 + length)?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    if name.len() + length > 255 {
                        return None;
                    }
                    // A dot inside a label must not look like one between labels.
                    if label.iter().any(|byte| *byte == b'.' || !byte.is_ascii()) {
                        return None;
                    }
                    name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                    at += 1 + length;
                }
                192.. => {
                    let low = usize::from(*self.bytes.get(at + 1)?);
                    let to = (length & 0x3f) << 8 | low;
                    behind.get_or_insert(at + 2);
                    pointers += 1;
                    // Backwards only, so that it ends.
                    if to >= at || pointers > MAX_POINTERS {
                        return None;
                    }
                    at = to;
                }
                _ => return None,
            }
        }
        self.at = behind.unwrap_or(at + 1);
        Some(name)
    }

    fn record(&mut self, kind: Kind) -> Option<Record> {
        let owner = self.name()?;
        let (number, class) = (self.number()?, self.number()?);
        self.take(4)?;
        let length = usize::from(self.number()?);
        let start = self.at;
        let data = self.take(length)?;
        if class != CLASS_IN {
            return Some(Record::Other);
        }
        if number == TYPE_CNAME {
            // Its name may point to what stands before it.
            let mut inside = Reader { bytes: self.bytes, at: start };
            let target = inside.name()?;
            return (inside.at == self.at).then_some(Record::Alias(owner, target));
        }
        if number != kind.number() {
            return Some(Record::Other);
        }
        let address = match kind {
            Kind::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
            Kind::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
        };
        Some(Record::Address(owner, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    /// An answer with records given as (owner, type, data).
    fn built(id: u16, asked: &str, kind: Kind, flags: u16, records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = question(id, &name(asked), kind);
        bytes.truncate(bytes.len() - 11);
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        bytes[10..12].copy_from_slice(&[0, 0]);
        for (owner, number, data) in records {
            bytes.extend(wire(owner));
            bytes.extend(number.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    fn wire(name: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.as_bytes());
        }
        bytes.push(0);
        bytes
    }

    const OK: u16 = 0x8180;

    #[test]
    fn addresses_of_the_name_are_taken_and_no_others() {
        let records = [
            ("A.org", 1, vec![1, 2, 3, 4]),
            ("evil.org", 1, vec![10, 0, 0, 1]),
            ("a.org", 16, b"\x04text".to_vec()),
            ("a.org", 1, vec![5, 6, 7, 8]),
        ];
        let bytes = built(7, "a.org", Kind::V4, OK, &records);
        let expected = Answer::Addresses(vec![[1, 2, 3, 4].into(), [5, 6, 7, 8].into()]);
        assert_eq!(answer(&bytes, 7, &name("a.org"), Kind::V4), Some(expected));
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_loops_end() {
        let records =
            [("c.org", 1, vec![9, 9, 9, 9]), ("b.org", 5, wire("c.org")), ("a.org", 5, wire("b.org"))];
        let bytes = built(7, "a.org", Kind::V4, OK, &records);
        let expected = Answer::Addresses(vec![[9, 9, 9, 9].into()]);
        assert_eq!(answer(&bytes, 7, &name("a.org"), Kind::V4), Some(expected));
        let circle = [("a.org", 5, wire("b.org")), ("b.org", 5, wire("a.org"))];
        let bytes = built(7, "a.org", Kind::V4, OK, &circle);
        assert_eq!(answer(&bytes, 7, &name("a.org"), Kind::V4), Some(Answer::Addresses(vec![])));
    }

    #[test]
    fn answers_to_other_questions_are_none() {
        let good = built(7, "a.org", Kind::V4, OK, &[("a.org", 1, vec![1, 2, 3, 4])]);
        assert_eq!(answer(&good, 8, &name("a.org"), Kind::V4), None);
        assert_eq!(answer(&good, 7, &name("b.org"), Kind::V4), None);
        assert_eq!(answer(&good, 7, &name("a.org"), Kind::V6), None);
        let echoed = built(7, "a.org", Kind::V4, 0x0100, &[]);
        assert_eq!(answer(&echoed, 7, &name("a.org"), Kind::V4), None, "a question is no answer");
    }

    #[test]
    fn what_a_server_says_otherwise_is_told_apart() {
        for (flags, expected) in [
            (0x8183, Answer::NoSuchName),
            (0x8182, Answer::Failed),
            (0x8185, Answer::Failed),
            (OK, Answer::Addresses(vec![])),
            (OK | 0x0200, Answer::Failed),
        ] {
            let bytes = built(7, "a.org", Kind::V6, flags, &[]);
            assert_eq!(answer(&bytes, 7, &name("a.org"), Kind::V6), Some(expected), "{flags:x}");
        }
        let mut cut =
            built(7, "a.org", Kind::V4, OK | 0x0200, &[0, 1].map(|_| ("a.org", 1, vec![1, 2, 3, 4])));
        cut.truncate(cut.len() - 3);
        let expected = Answer::Addresses(vec![[1, 2, 3, 4].into()]);
        assert_eq!(answer(&cut, 7, &name("a.org"), Kind::V4), Some(expected));
    }

    #[test]
    fn pointers_lead_backwards_and_wrong_lengths_fail() {
        let mut bytes = built(7, "a.org", Kind::V4, OK, &[]);
        bytes[7] = 1;
        let behind = u8::try_from(bytes.len()).unwrap();
        let mut looped = bytes.clone();
        looped.extend([192, behind, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(answer(&looped, 7, &name("a.org"), Kind::V4), Some(Answer::Failed));
        let mut compressed = bytes.clone();
        compressed.extend([192, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        let expected = Answer::Addresses(vec![[1, 2, 3, 4].into()]);
        assert_eq!(answer(&compressed, 7, &name("a.org"), Kind::V4), Some(expected));
        let mut short = bytes;
        short.extend([192, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(answer(&short, 7, &name("a.org"), Kind::V4), Some(Answer::Failed));
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(mut tail in proptest::collection::vec(any::<u8>(), 0..200), count in 0u16..9) {
            let mut bytes = built(7, "a.org", Kind::V4, OK, &[]);
            bytes[6..8].copy_from_slice(&count.to_be_bytes());
            bytes.append(&mut tail);
            let _ = answer(&bytes, 7, &name("a.org"), Kind::V4);
            let _ = answer(&bytes[..bytes.len() / 2], 7, &name("a.org"), Kind::V4);
        }
    }
}
