//! A connection asked and answered synchronously, one thing after the other: for what is done before main is confined
//! and has a runtime.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{ToMain, ToToolhost};
use oxibot_proto::state::Stage;

use super::BrokerError;
use super::greeting::Greeted;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// A greeted connection. Dropping it ends the toolhost.
#[derive(Debug)]
pub(super) struct Plain {
    stream: UnixStream,
    decoder: Decoder<ToMain>,
}

impl Plain {
    /// Takes a connection over. A toolhost that says nothing for longer than `patience` is an error.
    pub(super) fn over(greeted: Greeted, patience: Duration) -> Result<Self, BrokerError> {
        let Greeted { stream, decoder, hello: _ } = greeted;
        stream.set_read_timeout(Some(patience)).map_err(gone)?;
        Ok(Self { stream, decoder })
    }

    /// Asks. Blocks until it is written.
    pub(super) fn send(&mut self, message: &ToToolhost) -> Result<(), BrokerError> {
        self.stream.write_all(&codec::frame(message)?).map_err(gone)
    }

    /// The next message, legal at this point. `during` is what goes on, for the error when the toolhost ends.
    pub(super) fn receive(&mut self, during: &str) -> Result<ToMain, BrokerError> {
        let mut piece = vec![0_u8; PIECE];
        loop {
            if let Some(message) = self.decoder.next_message().map_err(|error| broke(&error))? {
                message.check(Stage::Open).map_err(|illegal| broke(&illegal))?;
                return Ok(message);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(BrokerError::Gone(format!("it ended during {during}"))),
                Ok(read) => self.decoder.push(piece.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(gone(error)),
            }
        }
    }
}

fn gone(error: io::Error) -> BrokerError {
    BrokerError::Gone(error.to_string())
}

fn broke(error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Gone(format!("it broke the protocol: {error}"))
}

/// A message that answers nothing that was asked.
pub(super) fn unasked(message: &ToMain) -> BrokerError {
    broke(&format!("it sent {} unasked", message.name()))
}
