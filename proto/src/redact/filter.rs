//! Finds quickly where something may begin: by the first three bytes, case set aside.
//!
//! A table of 65 536 bits answers for each place of the text; only where it says yes is anything compared. Most text
//! never gets further, so that the cost is that of one pass.

/// Bits of the table.
const BITS: u32 = 16;
/// Bytes looked at.
pub(super) const WIDTH: usize = 3;

/// Which first bytes belong to something, and to what.
#[derive(Clone)]
pub(super) struct Filter {
    table: Box<[u64; 1024]>,
    /// Folded first bytes and what begins so, in order.
    entries: Vec<(u32, u16)>,
    /// Where in `entries` they begin.
    index: Vec<(u32, u32)>,
}

impl Filter {
    pub(super) fn new(mut entries: Vec<(u32, u16)>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        let mut table = Box::new([0_u64; 1024]);
        for (key, _) in &entries {
            let slot = slot(*key);
            if let Some(word) = table.get_mut(slot >> 6) {
                *word |= 1 << (slot & 63);
            }
        }
        let index = index(&entries);
        Self { table, entries, index }
    }

    /// The first place at or after `from` where something may begin, of which all three bytes are there.
    pub(super) fn next(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let rest = bytes.get(from..)?;
        let (first, rest) = rest.split_first_chunk::<2>()?;
        let mut key = fold(first[0]) << 8 | fold(first[1]) << 16;
        for (index, byte) in rest.iter().enumerate() {
            key = key >> 8 | fold(*byte) << 16;
            let slot = slot(key);
            if self.table.get(slot >> 6).is_some_and(|word| word >> (slot & 63) & 1 == 1) {
                return Some(from + index);
            }
        }
        None
    }

    /// What may begin with these bytes.
    pub(super) fn candidates(&self, bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
        let key = bytes.first_chunk::<WIDTH>().map_or(u32::MAX, |first| key(*first));
        let mut place = slot(key) % self.index.len().max(1);
        let start = loop {
            match self.index.get(place) {
                Some((known, start)) if *known == key => break *start as usize,
                Some((EMPTY, _)) | None => break self.entries.len(),
                Some(_) => place = (place + 1) % self.index.len(),
            }
        };
        self.entries
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(move |(known, _)| *known == key)
            .map(|(_, index)| *index)
    }
}

/// No first bytes: they have 24 bits.
const EMPTY: u32 = u32::MAX;

/// An open hash table, never more than half full.
fn index(entries: &[(u32, u16)]) -> Vec<(u32, u32)> {
    let mut index = vec![(EMPTY, 0); (entries.len() * 2).next_power_of_two().max(2)];
    let mut last = EMPTY;
    for (start, (key, _)) in (0..).zip(entries) {
        if *key == last {
            continue;
        }
        last = *key;
        let mut place = slot(*key) % index.len();
        while index.get(place).is_some_and(|(known, _)| *known != EMPTY) {
            place = (place + 1) % index.len();
        }
        if let Some(free) = index.get_mut(place) {
            *free = (*key, start);
        }
    }
    index
}

/// The entry of three first bytes.
pub(super) fn key(first: [u8; WIDTH]) -> u32 {
    fold(first[0]) | fold(first[1]) << 8 | fold(first[2]) << 16
}

fn fold(byte: u8) -> u32 {
    u32::from(byte | 0x20)
}

fn slot(key: u32) -> usize {
    (key.wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize
}
