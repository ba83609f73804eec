//! Where a request ends: its bytes are passed on up to there and not one further.
//!
//! What follows would be read by the server as another request, which nobody judged. So the length is found as strictly
//! as can be, and what two readers could understand in two ways is refused: extensions and trailers of chunks too, which
//! hardly anybody sends. No I/O.

use super::request::Malformed;

/// Most digits of a chunk's size. More would be no chunk but an overflow.
const MAX_DIGITS: u8 = 15;

/// What is still to come of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
}

/// Where in a chunked body one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the size line, after so many digits.
    Size { size: u64, digits: u8 },
    /// Behind its CR.
    SizeLf(u64),
    /// In the data.
    Data(u64),
    /// Behind the data.
    DataCr,
    /// Behind the CR behind the data.
    DataLf,
    /// Behind the last size line.
    EndCr,
    /// Behind its CR.
    EndLf,
    /// Behind everything.
    Over,
}

impl Chunk {
    /// Before the first size line.
    pub(super) const START: Self = Self::Size { size: 0, digits: 0 };

    fn next(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Self::Size { size: size.saturating_mul(16).saturating_add(digit), digits: digits + 1 }
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeLf(size),
            (Self::SizeLf(0), b'\n') => Self::EndCr,
            (Self::SizeLf(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::EndCr, b'\r') => Self::EndLf,
            (Self::EndLf, b'\n') => Self::Over,
            (
                Self::Size { .. }
                | Self::SizeLf(_)
                | Self::Data(_)
                | Self::DataCr
                | Self::DataLf
                | Self::EndCr
                | Self::EndLf
                | Self::Over,
                _,
            ) => return Err(Malformed),
        })
    }
}

impl Body {
    /// Whether nothing more belongs to the request.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Over))
    }

    /// How many of these bytes belong to the request.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..)
            && let Some(first) = rest.first()
            && !self.is_over()
        {
            let left = match self {
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => left,
                Self::Chunked(chunk) => {
                    *chunk = chunk.next(*first)?;
                    taken += 1;
                    continue;
                }
            };
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
            *left -= count as u64;
            taken += count;
            if *self == Self::Chunked(Chunk::Data(0)) {
                *self = Self::Chunked(Chunk::DataCr);
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunked() -> Body {
        Body::Chunked(Chunk::START)
    }

    #[test]
    fn what_follows_a_body_does_not_belong_to_it() {
        let second = b"GET / HTTP/1.1\r\nHost: other\r\n\r\n";
        for (mut body, own) in [
            (Body::Length(0), &b""[..]),
            (Body::Length(5), b"hello"),
            (chunked(), b"0\r\n\r\n"),
            (chunked(), b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n"),
        ] {
            let all = [own, second].concat();
            assert_eq!(body.take(&all), Ok(own.len()), "{body:?}");
            assert!(body.is_over());
            assert_eq!(body.take(second), Ok(0));
        }
    }

    #[test]
    fn what_could_be_understood_in_two_ways_is_malformed() {
        for text in [
            "5;a=b\r\nhello\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "-1\r\n",
            "\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhelloGET / HTTP/1.1\r\n",
            "0\r\nTrailer: x\r\n\r\n",
            "ffffffffffffffff\r\n",
        ] {
            assert_eq!(chunked().take(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_understood_as_the_whole(bytes in "[0-9a-f\r\n;xG]{0,60}", cut in 0usize..60) {
            let bytes = bytes.as_bytes();
            let mut whole = chunked();
            let at_once = whole.take(bytes);
            let mut pieces = chunked();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let one_by_one = pieces.take(first).and_then(|taken| {
                if taken < first.len() { Ok(taken) } else { pieces.take(second).map(|more| taken + more) }
            });
            prop_assert_eq!(at_once, one_by_one);
        }
    }
}
