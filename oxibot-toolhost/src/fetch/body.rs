//! The body of an answer: read piece by piece, unpacked with a cap on what comes out, never more in memory than is kept.

use std::io::{self, Write};

use flate2::write::{GzDecoder, ZlibDecoder};

/// Most bytes of a body that are kept, unpacked. What a model can read on is far less.
pub(crate) const MAX_BODY: usize = 2 * 1024 * 1024;
/// Most bytes taken from the wire. A packed body that is longer than all that may come out of it is only there to cost time.
pub(crate) const MAX_WIRE: usize = 4 * 1024 * 1024;

/// The body cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the answer is packed as `{0}`, which was not asked for")]
    Encoding(String),
    #[error("the packed answer is broken")]
    Broken,
}

/// Whether more of a body is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    Wanted,
    /// The cap is reached: the rest is not read.
    Full,
}

/// A body while it arrives.
pub(crate) struct Body {
    unpacking: Unpacking,
    wire: usize,
    full: bool,
}

enum Unpacking {
    Plain(Capped),
    Gzip(GzDecoder<Capped>),
    Deflate(ZlibDecoder<Capped>),
}

impl Body {
    /// A body packed as `Content-Encoding` says.
    pub(crate) fn new(encoding: &str) -> Result<Self, BodyError> {
        // A list of several is nesting, which nobody needs.
        let unpacking = match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Unpacking::Plain(Capped::default()),
            "gzip" | "x-gzip" => Unpacking::Gzip(GzDecoder::new(Capped::default())),
            "deflate" => Unpacking::Deflate(ZlibDecoder::new(Capped::default())),
            other => {
                return Err(BodyError::Encoding(
                    other.chars().filter(char::is_ascii_graphic).take(40).collect(),
                ));
            }
        };
        Ok(Self { unpacking, wire: 0, full: false })
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<More, BodyError> {
        self.wire += piece.len();
        let written = match &mut self.unpacking {
            Unpacking::Plain(plain) => plain.write_all(piece),
            Unpacking::Gzip(packed) => packed.write_all(piece),
            Unpacking::Deflate(packed) => packed.write_all(piece),
        };
        let full = match &self.unpacking {
            Unpacking::Plain(plain) => plain.full,
            Unpacking::Gzip(packed) => packed.get_ref().full,
            Unpacking::Deflate(packed) => packed.get_ref().full,
        };
        match written {
            _ if full || self.wire >= MAX_WIRE => {
                self.full = true;
                Ok(More::Full)
            }
            Ok(()) => Ok(More::Wanted),
            // What follows the end of a packed body is nothing to us.
            Err(error) if error.kind() == io::ErrorKind::WriteZero => Ok(More::Full),
            Err(_) => Err(BodyError::Broken),
        }
    }

    /// What was kept, and whether something was left out.
    pub(crate) fn finish(self) -> Result<(Vec<u8>, bool), BodyError> {
        let full = self.full;
        // A packed body that ends early shows what it had.
        let capped = match self.unpacking {
            Unpacking::Plain(plain) => plain,
            Unpacking::Gzip(mut packed) => {
                let _ = packed.try_finish();
                std::mem::take(packed.get_mut())
            }
            Unpacking::Deflate(mut packed) => {
                let _ = packed.try_finish();
                std::mem::take(packed.get_mut())
            }
        };
        if capped.bytes.is_empty() && self.wire > 0 && !full {
            return Err(BodyError::Broken);
        }
        Ok((capped.bytes, full))
    }
}

/// Takes bytes up to the cap and refuses the rest.
#[derive(Default)]
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = MAX_BODY.saturating_sub(self.bytes.len());
        if room == 0 && !buffer.is_empty() {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = buffer.get(..room).unwrap_or(buffer);
        self.bytes.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn take(encoding: &str, bytes: &[u8]) -> Result<(Vec<u8>, bool), BodyError> {
        let mut body = Body::new(encoding)?;
        for piece in bytes.chunks(1000) {
            if body.push(piece)? == More::Full {
                break;
            }
        }
        body.finish()
    }

    #[test]
    fn bodies_are_unpacked() {
        let text = b"hello hello hello".repeat(500);
        assert_eq!(take("", &text), Ok((text.clone(), false)));
        assert_eq!(take("GZIP", &gzip(&text)), Ok((text.clone(), false)));
        let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(&text).unwrap();
        assert_eq!(take("deflate", &packer.finish().unwrap()), Ok((text, false)));
    }

    #[test]
    fn a_bomb_costs_the_cap_and_no_more() {
        let bomb = gzip(&vec![0; 100 << 20]);
        assert!(bomb.len() < 200_000);
        let (bytes, cut) = take("gzip", &bomb).unwrap();
        assert!(cut && bytes.len() == MAX_BODY && bytes.capacity() <= 2 * MAX_BODY);
        let (bytes, cut) = take("", &vec![1; 3 << 20]).unwrap();
        assert!(cut && bytes.len() == MAX_BODY);
    }

    #[test]
    fn what_is_broken_or_nested_is_refused() {
        assert_eq!(take("gzip", b"no gzip at all"), Err(BodyError::Broken));
        for encoding in ["br", "zstd", "gzip, gzip", "gzip,br"] {
            assert!(matches!(take(encoding, b"x"), Err(BodyError::Encoding(_))), "{encoding}");
        }
        let whole = gzip(&b"0123456789".repeat(10_000));
        assert!(take("gzip", &whole[..whole.len() - 20]).is_ok(), "an early end shows what there is");
        let trailed = [gzip(b"text"), b"garbage".to_vec()].concat();
        assert_eq!(take("gzip", &trailed).unwrap().0, b"text");
    }
}
