//! Keeps the first and the last bytes of what a call prints, secrets taken out, and counts the rest.
//!
//! Pure and of constant size, so that a gigabyte of output costs no more than a line. It does not look at what the
//! bytes mean: cutting at characters and neutralising control sequences is the reader's work.

use std::collections::VecDeque;

use oxibot_proto::message::Output;

/// First bytes kept. With [`TAIL`] it is more than a result shows, so that the cut is main's to place.
pub(crate) const HEAD: usize = 8 * 1024;
/// Last bytes kept.
pub(crate) const TAIL: usize = 8 * 1024;

/// Head, tail and count of a byte stream.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    passed: u64,
}

impl Collector {
    /// Counts bytes as they were printed.
    pub(crate) fn count(&mut self, printed: usize) {
        self.total = self.total.saturating_add(printed as u64);
    }

    /// Takes the next bytes that may be shown, in any split.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.passed = self.passed.saturating_add(bytes.len() as u64);
        let room = HEAD.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.head.extend_from_slice(first);
        if rest.len() >= TAIL {
            self.tail.clear();
            self.tail.extend(rest.get(rest.len() - TAIL..).unwrap_or_default());
        } else {
            let excess = (self.tail.len() + rest.len()).saturating_sub(TAIL);
            self.tail.drain(..excess.min(self.tail.len()));
            self.tail.extend(rest);
        }
    }

    /// All bytes printed so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What goes into the result; `file` names the whole output if it was kept.
    pub(crate) fn output(&self, file: Option<String>) -> Output {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let mut head = self.head.clone();
        let (total_bytes, passed_bytes) = (self.total, self.passed);
        if passed_bytes <= (HEAD + TAIL) as u64 {
            head.extend_from_slice(&tail);
            return Output { head, tail: Vec::new(), total_bytes, passed_bytes, file };
        }
        Output { head, tail, total_bytes, passed_bytes, file }
    }
}

/// A result without output.
pub(crate) fn nothing() -> Output {
    Output { head: Vec::new(), tail: Vec::new(), total_bytes: 0, passed_bytes: 0, file: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_split_gives_the_same_result(
            data in proptest::collection::vec(any::<u8>(), 0..40_000),
            cuts in proptest::collection::vec(0_usize..40_000, 0..20),
        ) {
            let mut whole = Collector::default();
            whole.count(data.len());
            whole.push(&data);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(data.len())).collect();
            cuts.push(0);
            cuts.push(data.len());
            cuts.sort_unstable();
            let mut split = Collector::default();
            for pair in cuts.windows(2) {
                split.count(pair[1] - pair[0]);
                split.push(&data[pair[0]..pair[1]]);
            }
            let output = split.output(None);
            prop_assert_eq!(&output, &whole.output(None));
            prop_assert_eq!(output.total_bytes, data.len() as u64);
            if data.len() <= HEAD + TAIL {
                prop_assert_eq!(&output.head, &data);
                prop_assert!(output.tail.is_empty());
            } else {
                prop_assert_eq!(&output.head[..], &data[..HEAD]);
                prop_assert_eq!(&output.tail[..], &data[data.len() - TAIL..]);
            }
        }
    }

    #[test]
    fn flood_is_counted_and_not_kept() {
        let mut collector = Collector::default();
        let chunk = vec![b'x'; 65_536];
        for _ in 0..32_768 {
            collector.count(chunk.len());
            collector.push(&chunk);
        }
        assert_eq!(collector.total(), 2 << 30);
        assert!(collector.head.capacity() + collector.tail.capacity() <= 4 * (HEAD + TAIL));
    }
}
