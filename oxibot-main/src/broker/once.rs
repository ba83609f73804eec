//! Calls asked for one after the other, synchronously: what `doctor` makes before this process is confined.
//!
//! What comes back is searched for one known text and never shown; everything else is as for any call.

use std::time::Duration;

use oxibot_proto::message::{CallNumber, CallRequest, CallResult, Origin, ToMain, ToToolhost};

use super::BrokerError;
use super::greeting::Greeted;
use super::plain::{Plain, unasked};

/// Longest silence of the toolhost: longer than any of these calls may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long one call may run, in milliseconds.
const TIMEOUT_MS: u64 = 45_000;

/// A connection for calls one after the other. Dropping it ends the toolhost.
#[derive(Debug)]
pub struct Calls {
    connection: Plain,
    made: u64,
}

impl Calls {
    /// Takes a connection over.
    ///
    /// # Errors
    /// When its socket is gone.
    pub fn over(greeted: Greeted) -> Result<Self, BrokerError> {
        Ok(Self { connection: Plain::over(greeted, PATIENCE)?, made: 0 })
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
        self.connection.send(&ToToolhost::Call(request))?;
        loop {
            match self.connection.receive("a call")? {
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
                | ToMain::Stopped(_)) => return Err(unasked(&other)),
            }
        }
    }
}
