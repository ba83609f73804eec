//! Every attack on the wall, one after the other: the one thing asked on a connection of its own, synchronously.
//!
//! What comes is what the toolhost's own table and the kernel's errno say; nothing in it was printed by a confined
//! program. It is bounded all the same.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{Attacked, ToMain, ToToolhost};
use oxibot_proto::state::Stage;

use super::BrokerError;
use super::greeting::Greeted;

/// Longest wait for one attack: longer than the toolhost waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most attacks taken. Prevents a broken toolhost from filling our memory.
const MOST: usize = 4096;
/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// A series of attacks under way. Dropping it ends the toolhost.
#[derive(Debug)]
pub struct Attacks {
    stream: UnixStream,
    decoder: Decoder<ToMain>,
    taken: usize,
    over: bool,
}

impl Attacks {
    /// Asks for all of them. Blocks until that is written.
    ///
    /// # Errors
    /// When the toolhost is gone.
    pub fn begin(greeted: Greeted) -> Result<Self, BrokerError> {
        let Greeted { mut stream, decoder, hello: _ } = greeted;
        stream.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        stream.write_all(&codec::frame(&ToToolhost::Attack)?).map_err(gone)?;
        Ok(Self { stream, decoder, taken: 0, over: false })
    }

    /// What came of the next one; `None` when there are no more. Blocks, at most a minute.
    ///
    /// # Errors
    /// When the toolhost refuses, goes away, is silent for too long or breaks the protocol.
    pub fn following(&mut self) -> Result<Option<Attacked>, BrokerError> {
        if self.over {
            return Ok(None);
        }
        let message = self.receive()?;
        message.check(Stage::Open).map_err(|illegal| broke(&illegal))?;
        match message {
            ToMain::Attacked(attacked) if self.taken < MOST => {
                self.taken = self.taken.saturating_add(1);
                Ok(Some(*attacked))
            }
            ToMain::AttackDone(done) => {
                self.over = true;
                match done.refused {
                    Some(why) => Err(BrokerError::Gone(crate::render::neutral::line(&why, 200))),
                    None => Ok(None),
                }
            }
            ToMain::Bye(reason) => Err(BrokerError::Bye(reason)),
            other @ (ToMain::Attacked(_)
            | ToMain::Hello(_)
            | ToMain::Tools(_)
            | ToMain::Started(_)
            | ToMain::Progress(_)
            | ToMain::Output(_)
            | ToMain::StdinTaken(_)
            | ToMain::CallResult(_)
            | ToMain::Judgement(_)
            | ToMain::PutProgress(_)
            | ToMain::GetChunk(_)
            | ToMain::TransferEnd(_)
            | ToMain::Status(_)
            | ToMain::Stopped(_)
            | ToMain::Approved(_)
            | ToMain::Approvals(_)) => Err(broke(&format!("it sent {} unasked", other.name()))),
        }
    }

    fn receive(&mut self) -> Result<ToMain, BrokerError> {
        let mut piece = vec![0_u8; PIECE];
        loop {
            if let Some(message) = self.decoder.next_message().map_err(|error| broke(&error))? {
                return Ok(message);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(BrokerError::Gone("it ended during the attacks".into())),
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
