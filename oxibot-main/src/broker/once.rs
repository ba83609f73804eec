//! Calls asked for one after the other, synchronously: what `doctor` makes before this process is confined.
//!
//! What comes back is searched for one known text and never shown; everything else is as for any call.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{CallNumber, CallRequest, CallResult, Origin, ToMain, ToToolhost};
use oxibot_proto::state::Stage;

use super::BrokerError;
use super::greeting::Greeted;

/// Longest silence of the toolhost: longer than any of these calls may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long one call may run, in milliseconds.
const TIMEOUT_MS: u64 = 45_000;
/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// A connection for calls one after the other. Dropping it ends the toolhost.
#[derive(Debug)]
pub struct Calls {
    stream: UnixStream,
    decoder: Decoder<ToMain>,
    made: u64,
}

impl Calls {
    /// Takes a connection over.
    ///
    /// # Errors
    /// When its socket is gone.
    pub fn over(greeted: Greeted) -> Result<Self, BrokerError> {
        let Greeted { stream, decoder, hello: _ } = greeted;
        stream.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        Ok(Self { stream, decoder, made: 0 })
    }

    /// Makes one call and waits for its end. Blocks.
    ///
    /// # Errors
    /// When the toolhost goes away, is silent for too long or breaks the protocol.
    pub fn call(&mut self, tool: &str, arguments: &serde_json::Value) -> Result<CallResult, BrokerError> {
        self.made = self.made.saturating_add(1);
        let number = CallNumber(self.made);
        let origin = Origin { who: "doctor".into(), channel: "terminal".into(), session: "decoys".into() };
        let request = CallRequest {
            call: number,
            tool: tool.to_owned(),
            arguments: arguments.to_string(),
            workspace: None,
            timeout_ms: Some(TIMEOUT_MS),
            origin,
            approval: None,
        };
        self.stream.write_all(&codec::frame(&ToToolhost::Call(request))?).map_err(gone)?;
        loop {
            let message = self.receive()?;
            message.check(Stage::Open).map_err(|illegal| broke(&illegal))?;
            match message {
                ToMain::CallResult(result) if result.call == number => return Ok(*result),
                ToMain::Started(_) | ToMain::Progress(_) => {}
                ToMain::Bye(reason) => return Err(BrokerError::Bye(reason)),
                other @ (ToMain::CallResult(_)
                | ToMain::Attacked(_)
                | ToMain::AttackDone(_)
                | ToMain::Hello(_)
                | ToMain::Tools(_)
                | ToMain::Output(_)
                | ToMain::StdinTaken(_)
                | ToMain::Judgement(_)
                | ToMain::PutProgress(_)
                | ToMain::GetChunk(_)
                | ToMain::TransferEnd(_)
                | ToMain::Status(_)
                | ToMain::Approved(_)
                | ToMain::Approvals(_)
                | ToMain::Stopped(_)) => return Err(broke(&format!("it sent {} unasked", other.name()))),
            }
        }
    }

    fn receive(&mut self) -> Result<ToMain, BrokerError> {
        let mut piece = vec![0_u8; PIECE];
        loop {
            if let Some(message) = self.decoder.next_message().map_err(|error| broke(&error))? {
                return Ok(message);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(BrokerError::Gone("it ended during a call".into())),
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
