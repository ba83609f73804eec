//! DNS messages (RFC 1035): a question becomes bytes, hostile bytes become addresses. No I/O.
//!
//! Written here because the system's resolver opens files and loads libraries at its first question, which a confined
//! process cannot, and because a recursive server's answer to one A or AAAA question is all that is needed: no search
//! domains, no zones, no DNSSEC, no cache.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    const fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The addresses, none if the name has none of this kind.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// Too long for a packet: ask again by TCP.
    Truncated,
    /// The server cannot or will not say, with its code.
    Refused(u8),
}

/// Not an answer to this question: forged, broken, or late. Wait for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an answer to the question")]
pub(crate) struct Stray;

const INTERNET: u16 = 1;
const CNAME: u16 = 5;
const HEADER: usize = 12;
/// Most records looked at, aliases followed, and addresses kept. A name needs a handful; the rest is there to cost time.
const MAX_RECORDS: u16 = 256;
const MAX_ALIASES: usize = 16;
const MAX_ADDRESSES: usize = 32;
/// Longest name in bytes on the wire, and most jumps to an earlier place within one.
const MAX_NAME: usize = 255;
const MAX_JUMPS: usize = 32;

/// The question as a packet. `None`: the name does not fit one.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(HEADER + name.len() + 6);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if name.len() > MAX_NAME - 2 {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        packet.push(length);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.number().to_be_bytes());
    packet.extend(INTERNET.to_be_bytes());
    Some(packet)
}

/// Reads a packet as the answer to a question.
pub(crate) fn answer(packet: &[u8], id: u16, name: &str, kind: Kind) -> Result<Answer, Stray> {
    let mut reader = Reader { packet, at: 0 };
    let (answered, flags) = (reader.number()?, reader.number()?);
    let (questions, answers) = (reader.number()?, reader.number()?);
    reader.at = HEADER;
    // A response to a standard query, with the question in it.
    if answered != id || flags & 0xf800 != 0x8000 || questions != 1 {
        return Err(Stray);
    }
    let asked = reader.name()?;
    if !asked.eq_ignore_ascii_case(name) || reader.number()? != kind.number() || reader.number()? != INTERNET
    {
        return Err(Stray);
    }
    if flags & 0x0200 != 0 {
        return Ok(Answer::Truncated);
    }
    match (flags & 0x000f) as u8 {
        0 => {}
        3 => return Ok(Answer::NoSuchName),
        code => return Ok(Answer::Refused(code)),
    }
    let records = reader.records(answers.min(MAX_RECORDS))?;
    Ok(Answer::Addresses(follow(&records, asked, kind)))
}

/// Addresses at the end of the chain of aliases that begins at the name. What belongs to other names is not asked for.
fn follow(records: &[Record], name: String, kind: Kind) -> Vec<IpAddr> {
    let mut owner = name;
    for _ in 0..MAX_ALIASES {
        let own = || records.iter().filter(|record| record.owner.eq_ignore_ascii_case(&owner));
        let addresses: Vec<IpAddr> = own()
            .filter_map(|record| match (&record.data, kind) {
                (Data::Address(address @ IpAddr::V4(_)), Kind::A) => Some(*address),
                (Data::Address(address @ IpAddr::V6(_)), Kind::Aaaa) => Some(*address),
                (Data::Address(_) | Data::Alias(_), _) => None,
            })
            .take(MAX_ADDRESSES)
            .collect();
        if !addresses.is_empty() {
            return addresses;
        }
        let next = own().find_map(|record| match &record.data {
            Data::Alias(name) => Some(name.clone()),
            Data::Address(_) => None,
        });
        match next {
            Some(next) => owner = next,
            None => return Vec::new(),
        }
    }
    Vec::new()
}

struct Record {
    owner: String,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Stray> {
        let byte = self.packet.get(self.at).copied().ok_or(Stray)?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u16, Stray> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A name, jumps followed. Only jumps to an earlier place are taken, so that there is an end.
    fn name(&mut self) -> Result<String, Stray> {
        let mut name = String::new();
        let (mut back, mut jumps) = (None, 0);
        loop {
            let start = self.at;
            let length = self.byte()?;
            match length >> 6 {
                0 if length == 0 => break,
                0 => {
                    let label = self.packet.get(self.at..self.at + usize::from(length)).ok_or(Stray)?;
                    self.at += usize::from(length);
                    if !name.is_empty() {
                        name.push('.');
                    }
                    // A dot or anything odd inside a label makes it another name than any we ask for.
                    name.extend(label.iter().map(|byte| match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte),
                        _ => '\u{fffd}',
                    }));
                    if name.len() > MAX_NAME * 3 {
                        return Err(Stray);
                    }
                }
                3 => {
                    let low = self.byte()?;
                    let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                    jumps += 1;
                    if target >= start || jumps > MAX_JUMPS {
                        return Err(Stray);
                    }
                    back.get_or_insert(self.at);
                    self.at = target;
                }
                _ => return Err(Stray),
            }
        }
        if let Some(back) = back {
            self.at = back;
        }
        Ok(name)
    }

    fn records(&mut self, count: u16) -> Result<Vec<Record>, Stray> {
        let mut records = Vec::new();
        for _ in 0..count {
            let owner = self.name()?;
            let (kind, class) = (self.number()?, self.number()?);
            let _time_to_live = (self.number()?, self.number()?);
            let length = usize::from(self.number()?);
            let start = self.at;
            let data = self.packet.get(start..start + length).ok_or(Stray)?;
            let data = match kind {
                1 => <[u8; 4]>::try_from(data).ok().map(|raw| Data::Address(Ipv4Addr::from(raw).into())),
                28 => <[u8; 16]>::try_from(data).ok().map(|raw| Data::Address(Ipv6Addr::from(raw).into())),
                CNAME => Some(Data::Alias(self.name()?)),
                _ => None,
            };
            self.at = start + length;
            if let Some(data) = data.filter(|_| class == INTERNET) {
                records.push(Record { owner, data });
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;

    /// An answer to `name`: records as (owner, type, data), owners and aliases written out in full.
    fn packet(name: &str, kind: Kind, flags: u16, records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut packet = question(ID, name, kind).unwrap();
        packet[2..4].copy_from_slice(&flags.to_be_bytes());
        packet[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (owner, kind, data) in records {
            packet.extend(wire(owner));
            packet.extend(kind.to_be_bytes());
            packet.extend([0, 1, 0, 0, 0, 60]);
            packet.extend((data.len() as u16).to_be_bytes());
            packet.extend(data);
        }
        packet
    }

    fn wire(name: &str) -> Vec<u8> {
        question(0, name, Kind::A).map(|packet| packet[HEADER..packet.len() - 4].to_vec()).unwrap()
    }

    fn read(packet: &[u8]) -> Result<Answer, Stray> {
        answer(packet, ID, "www.example.com", Kind::A)
    }

    #[test]
    fn addresses_are_found_through_aliases_and_only_those_that_belong_to_the_name() {
        let records = [
            ("other.example.com", 1, vec![10, 0, 0, 1]),
            ("www.example.com", CNAME, wire("cdn.example.net")),
            ("CDN.example.net", 1, vec![93, 184, 216, 34]),
            ("cdn.example.net", 1, vec![93, 184, 216, 35]),
            ("cdn.example.net", 28, vec![0; 16]),
        ];
        let packet = packet("www.example.com", Kind::A, 0x8180, &records);
        let expected = ["93.184.216.34", "93.184.216.35"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(read(&packet), Ok(Answer::Addresses(expected)));
    }

    #[test]
    fn compressed_names_are_followed() {
        let mut packet = packet("www.example.com", Kind::A, 0x8180, &[]);
        packet[7] = 1;
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
        assert_eq!(read(&packet), Ok(Answer::Addresses(vec!["1.2.3.4".parse().unwrap()])));
    }

    #[test]
    fn loops_end() {
        let records =
            [("www.example.com", CNAME, wire("a.example")), ("a.example", CNAME, wire("www.example.com"))];
        assert_eq!(
            read(&packet("www.example.com", Kind::A, 0x8180, &records)),
            Ok(Answer::Addresses(Vec::new()))
        );
        let mut packet = packet("www.example.com", Kind::A, 0x8180, &[]);
        packet[7] = 1;
        let here = packet.len() as u8;
        packet.extend([0xc0, here, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
        assert_eq!(read(&packet), Err(Stray), "a name that points to itself");
    }

    #[test]
    fn strays_are_told_from_answers() {
        let good = packet("www.example.com", Kind::A, 0x8180, &[]);
        assert_eq!(read(&good), Ok(Answer::Addresses(Vec::new())));
        assert_eq!(answer(&good, ID + 1, "www.example.com", Kind::A), Err(Stray));
        assert_eq!(answer(&good, ID, "www.example.org", Kind::A), Err(Stray));
        assert_eq!(answer(&good, ID, "www.example.com", Kind::Aaaa), Err(Stray));
        assert_eq!(read(&question(ID, "www.example.com", Kind::A).unwrap()), Err(Stray), "a question");
        for cut in 0..good.len() {
            assert_eq!(read(&good[..cut]), Err(Stray), "{cut}");
        }
        assert_eq!(read(&packet("www.example.com", Kind::A, 0x8183, &[])), Ok(Answer::NoSuchName));
        assert_eq!(read(&packet("www.example.com", Kind::A, 0x8182, &[])), Ok(Answer::Refused(2)));
        assert_eq!(read(&packet("www.example.com", Kind::A, 0x8380, &[])), Ok(Answer::Truncated));
    }

    #[test]
    fn names_that_do_not_fit_have_no_question() {
        assert!(question(1, &"a".repeat(64), Kind::A).is_none());
        assert!(question(1, "a..b", Kind::A).is_none());
        assert!(question(1, &"abc.".repeat(64), Kind::A).is_none());
    }

    proptest! {
        #[test]
        fn any_packet_gives_an_answer_or_a_stray(mut bytes in prop::collection::vec(any::<u8>(), 0..200), tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let mut packet = packet("www.example.com", Kind::A, 0x8180, &[]);
            packet[6..8].copy_from_slice(&[1, 0]);
            packet.append(&mut bytes);
            packet.extend(tail);
            if let Ok(Answer::Addresses(addresses)) = read(&packet) {
                prop_assert!(addresses.len() <= MAX_ADDRESSES);
            }
        }
    }
}
