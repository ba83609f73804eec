//! Every attack on the wall, one after the other: the one thing asked on a connection of its own, synchronously.
//!
//! What comes is what the toolhost's own table and the kernel's errno say; nothing in it was printed by a confined
//! program. It is bounded all the same.

use std::time::Duration;

use oxibot_proto::message::{Attacked, ToMain, ToToolhost};

use super::BrokerError;
use super::greeting::Greeted;
use super::plain::{Plain, unasked};

/// Longest wait for one attack: longer than the toolhost waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most attacks taken. Prevents a broken toolhost from filling our memory.
const MOST: usize = 4096;

/// A series of attacks under way. Dropping it ends the toolhost.
#[derive(Debug)]
pub struct Attacks {
    connection: Plain,
    taken: usize,
    over: bool,
}

impl Attacks {
    /// Asks for all of them. Blocks until that is written.
    ///
    /// # Errors
    /// When the toolhost is gone.
    pub fn begin(greeted: Greeted) -> Result<Self, BrokerError> {
        let mut connection = Plain::over(greeted, PATIENCE)?;
        connection.send(&ToToolhost::Attack)?;
        Ok(Self { connection, taken: 0, over: false })
    }

    /// What came of the next one; `None` when there are no more. Blocks, at most a minute.
    ///
    /// # Errors
    /// When the toolhost refuses, goes away, is silent for too long or breaks the protocol.
    pub fn following(&mut self) -> Result<Option<Attacked>, BrokerError> {
        if self.over {
            return Ok(None);
        }
        match self.connection.receive("the attacks")? {
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
            | ToMain::Approvals(_)) => Err(unasked(&other)),
        }
    }
}
