//! Framing: a `u32` big-endian length, then one bincode message.
//!
//! This is the only file that knows bincode, so that the encoding can be replaced in a day. It does no I/O: callers
//! push the bytes they received and take messages out. A length above [`MAX_FRAME`] is refused from the header alone,
//! decoding runs under a byte budget (without one a 12-byte frame makes bincode ask for terabytes and abort), and
//! bytes left over inside a frame are an error.

use std::marker::PhantomData;

use bincode::{Decode, Encode, config};

/// Largest frame body in bytes. Prevents a peer from making us buffer what it merely announces.
pub const MAX_FRAME: usize = 1 << 20;

/// Memory one decoded message may claim, in bytes. bincode charges every integer at its full width and every element
/// at its size in memory, so an honest frame can claim several times its encoded length; a hostile one is held to this.
pub const DECODE_BUDGET: usize = 4 * MAX_FRAME;

/// Bytes of the length header.
pub const HEADER: usize = 4;

/// Once this much of the buffer has been consumed it is moved down, so that a long-lived decoder stays small.
const COMPACT_AT: usize = 64 * 1024;

fn configuration() -> config::Configuration<config::LittleEndian, config::Varint, config::Limit<DECODE_BUDGET>>
{
    config::standard().with_limit::<DECODE_BUDGET>()
}

/// A message was not sent because it does not fit the wire.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The encoded body would exceed [`MAX_FRAME`].
    #[error("cannot send message: {size} bytes exceed the frame limit of {MAX_FRAME}")]
    TooLarge {
        /// Size of the encoded body in bytes.
        size: usize,
    },
    /// bincode refused the value.
    #[error("cannot encode message: {0}")]
    Encoding(String),
}

/// The peer sent something that is not a message. The connection must be closed: framing cannot be found again.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The header announced more than [`MAX_FRAME`] bytes. Nothing was allocated for it.
    #[error("cannot accept frame: {claimed} bytes announced, limit is {MAX_FRAME}")]
    Oversized {
        /// What the header claimed.
        claimed: usize,
    },
    /// The body is not a message of this protocol, or asks for more memory than a frame can hold.
    #[error("cannot decode frame: {0}")]
    Malformed(String),
    /// A message was decoded and bytes were left.
    #[error("cannot accept frame: {left} bytes after the message")]
    Trailing {
        /// How many bytes followed the message.
        left: usize,
    },
}

/// Appends one framed message to `out`.
///
/// # Errors
/// [`EncodeError::TooLarge`] when the body exceeds [`MAX_FRAME`]; `out` is then unchanged.
pub fn encode<M: Encode>(message: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let body = bincode::encode_to_vec(message, config::standard())
        .map_err(|error| EncodeError::Encoding(error.to_string()))?;
    let header = match u32::try_from(body.len()) {
        Ok(length) if body.len() <= MAX_FRAME => length.to_be_bytes(),
        Ok(_) | Err(_) => return Err(EncodeError::TooLarge { size: body.len() }),
    };
    out.extend_from_slice(&header);
    out.extend_from_slice(&body);
    Ok(())
}

/// One framed message as a fresh buffer.
///
/// # Errors
/// As [`encode`].
pub fn frame<M: Encode>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode(message, &mut out)?;
    Ok(out)
}

/// Decodes one frame body that is already complete.
///
/// # Errors
/// [`DecodeError::Malformed`] and [`DecodeError::Trailing`] as documented there.
pub fn decode_body<M: Decode<()>>(body: &[u8]) -> Result<M, DecodeError> {
    if body.len() > MAX_FRAME {
        return Err(DecodeError::Oversized { claimed: body.len() });
    }
    let (message, used) = bincode::decode_from_slice(body, configuration())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match body.len().checked_sub(used) {
        Some(0) => Ok(message),
        Some(left) => Err(DecodeError::Trailing { left }),
        None => Err(DecodeError::Malformed("decoder read past the frame".into())),
    }
}

/// Turns a byte stream into messages. Holds at most the bytes it was given and has not yet decoded.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    start: usize,
    failed: Option<DecodeError>,
    message: PhantomData<fn() -> M>,
}

impl<M: Decode<()>> Decoder<M> {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: Vec::new(), start: 0, failed: None, message: PhantomData }
    }

    /// Adds bytes as they arrived, in any split. After an error they are discarded.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes received and not yet returned as messages.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// The next message, `None` when more bytes are needed.
    ///
    /// # Errors
    /// Any [`DecodeError`]; it is final, and every later call returns it again.
    pub fn next_message(&mut self) -> Result<Option<M>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.take_one().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.start = 0;
        })
    }

    fn take_one(&mut self) -> Result<Option<M>, DecodeError> {
        let unread = self.buffer.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = unread.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let claimed = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if claimed > MAX_FRAME {
            return Err(DecodeError::Oversized { claimed });
        }
        let Some(body) = rest.get(..claimed) else {
            return Ok(None);
        };
        let message = decode_body(body)?;
        self.start = self.start.saturating_add(HEADER).saturating_add(claimed);
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > COMPACT_AT {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        Ok(Some(message))
    }
}

impl<M: Decode<()>> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversized_header_is_refused_before_its_body_arrives() {
        let mut decoder = Decoder::<String>::new();
        decoder.push(&(u32::try_from(MAX_FRAME).unwrap() + 1).to_be_bytes());
        assert_eq!(decoder.next_message(), Err(DecodeError::Oversized { claimed: MAX_FRAME + 1 }));
        decoder.push(&[0; 1024]);
        assert_eq!(decoder.pending(), 0, "a failed decoder keeps nothing");
        assert!(decoder.next_message().is_err(), "the error is final");
    }

    #[test]
    fn length_claimed_inside_a_body_allocates_nothing() {
        // A 12-byte frame whose string claims 2^44 bytes: without the limit bincode asks the allocator for them.
        let mut body = vec![253];
        body.extend_from_slice(&(1_u64 << 44).to_le_bytes());
        let mut wire = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        wire.extend_from_slice(&body);
        let mut decoder = Decoder::<String>::new();
        decoder.push(&wire);
        assert!(matches!(decoder.next_message(), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut wire = frame(&7_u32).unwrap();
        wire.push(0);
        wire[3] += 1;
        let mut decoder = Decoder::<u32>::new();
        decoder.push(&wire);
        assert_eq!(decoder.next_message(), Err(DecodeError::Trailing { left: 1 }));
    }

    #[test]
    fn message_larger_than_a_frame_is_not_sent() {
        let mut out = vec![1];
        assert!(matches!(encode(&vec![0_u8; MAX_FRAME + 1], &mut out), Err(EncodeError::TooLarge { .. })));
        assert_eq!(out, [1], "nothing was appended");
    }

    #[test]
    fn largest_frame_passes() {
        let message = vec![7_u8; MAX_FRAME - 5];
        let mut decoder = Decoder::<Vec<u8>>::new();
        decoder.push(&frame(&message).unwrap());
        assert!(decoder.next_message() == Ok(Some(message)));
    }

    #[test]
    fn decoder_stays_small_over_many_messages() {
        let mut decoder = Decoder::<Vec<u8>>::new();
        let wire = frame(&vec![1_u8; 1000]).unwrap();
        for _ in 0..10_000 {
            decoder.push(&wire);
            assert!(decoder.next_message().unwrap().is_some());
        }
        assert!(decoder.buffer.capacity() < 4 * COMPACT_AT);
    }
}
