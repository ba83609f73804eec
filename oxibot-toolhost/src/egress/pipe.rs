//! One direction of a connection: what was read on one side and not yet written to the other.

use std::io::{ErrorKind, Read, Write};

/// The connection is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: Vec<u8>,
    written: usize,
    /// Nothing more is read.
    ended: bool,
    /// The end was passed on.
    closed: bool,
    /// Something was on its way here once.
    used: bool,
}

impl Pipe {
    /// With bytes that are on their way already.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Whether it should be read for. Only when it is empty, so that it never holds more than one read.
    pub(super) fn wants(&self) -> bool {
        !self.ended && self.bytes.is_empty()
    }

    /// Whether something is to be written.
    pub(super) fn holds(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether its end has come and was passed on.
    pub(super) fn is_over(&self) -> bool {
        self.closed
    }

    /// Whether its end has come and is to be passed on now.
    pub(super) fn is_ending(&self) -> bool {
        self.ended && self.bytes.is_empty() && !self.closed
    }

    pub(super) fn closed(&mut self) {
        self.closed = true;
    }

    /// Whether nothing was ever on its way here.
    pub(super) fn is_unused(&self) -> bool {
        !self.used
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.used |= !bytes.is_empty();
        self.bytes.extend_from_slice(bytes);
    }

    /// Reads once into `scratch`. `None` when there is nothing now; an end is noted.
    pub(super) fn read<'a>(
        &mut self,
        mut from: impl Read,
        scratch: &'a mut [u8],
    ) -> Result<Option<&'a [u8]>, Broken> {
        match from.read(scratch) {
            Ok(0) => {
                self.ended = true;
                Ok(None)
            }
            Ok(count) => Ok(scratch.get(..count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(_) => Err(Broken),
        }
    }

    /// Writes what the other side takes.
    pub(super) fn write(&mut self, mut to: impl Write) -> Result<(), Broken> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match to.write(rest) {
                Ok(0) => return Err(Broken),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Broken),
            }
        }
        // Given back: most connections are silent most of the time.
        self.bytes = Vec::new();
        self.written = 0;
        Ok(())
    }
}
