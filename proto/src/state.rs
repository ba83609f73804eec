//! Which message is legal when. Nothing is permitted by default: each pair of state and message is written down.
//!
//! Both ends keep a [`Stage`] for the connection and close it on the first illegal message.

use crate::message::{Approved, CloseReason, PendingApproval, Stopped, ToMain, ToToolhost, ToolhostHello};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Connected; neither hello has been accepted.
    Greeting,
    /// Both hellos were accepted.
    Open,
    /// No new work; running calls end.
    Draining,
    /// Nothing more is legal.
    Closed,
}

/// A message came that is not legal in the connection's stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot accept {message} while the connection is {stage:?}")]
pub struct Illegal {
    /// Name of the message.
    pub message: &'static str,
    /// Stage at the time.
    pub stage: Stage,
}

impl ToToolhost {
    /// Name of the message, for errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::ListTools => "ListTools",
            Self::Call(_) => "Call",
            Self::Judge(_) => "Judge",
            Self::Run(_) => "Run",
            Self::Stdin(_) => "Stdin",
            Self::Cancel(_) => "Cancel",
            Self::Put(_) => "Put",
            Self::PutChunk(_) => "PutChunk",
            Self::Get(_) => "Get",
            Self::Taken(_) => "Taken",
            Self::Status => "Status",
            Self::Stop(_) => "Stop",
            Self::Attack => "Attack",
            Self::Approve(_) => "Approve",
            Self::ListApprovals => "ListApprovals",
        }
    }

    /// Checks that this message may arrive in `stage`.
    ///
    /// # Errors
    /// [`Illegal`] otherwise; the receiver closes the connection.
    pub fn check(&self, stage: Stage) -> Result<(), Illegal> {
        let legal = match (self, stage) {
            (Self::Hello(_), Stage::Greeting) => true,
            (Self::Hello(_), Stage::Open | Stage::Draining | Stage::Closed) => false,
            (
                Self::ListTools
                | Self::Call(_)
                | Self::Judge(_)
                | Self::Run(_)
                | Self::Put(_)
                | Self::Get(_)
                | Self::Attack
                | Self::Approve(_)
                | Self::ListApprovals,
                Stage::Open,
            ) => true,
            (
                Self::ListTools
                | Self::Call(_)
                | Self::Judge(_)
                | Self::Run(_)
                | Self::Put(_)
                | Self::Get(_)
                | Self::Attack
                | Self::Approve(_)
                | Self::ListApprovals,
                Stage::Greeting | Stage::Draining | Stage::Closed,
            ) => false,
            (
                Self::Stdin(_)
                | Self::Cancel(_)
                | Self::PutChunk(_)
                | Self::Taken(_)
                | Self::Status
                | Self::Stop(_),
                Stage::Open | Stage::Draining,
            ) => true,
            (
                Self::Stdin(_)
                | Self::Cancel(_)
                | Self::PutChunk(_)
                | Self::Taken(_)
                | Self::Status
                | Self::Stop(_),
                Stage::Greeting | Stage::Closed,
            ) => false,
        };
        if legal { Ok(()) } else { Err(Illegal { message: self.name(), stage }) }
    }
}

impl ToMain {
    /// The hello; another message comes back. For whoever waits for exactly this one: what else may come, and when, is
    /// for [`ToMain::check`] to say.
    ///
    /// # Errors
    /// The message, when it is another.
    pub fn into_hello(self) -> Result<ToolhostHello, Self> {
        if let Self::Hello(hello) = self { Ok(hello) } else { Err(self) }
    }

    /// Why the connection is closed; another message comes back.
    ///
    /// # Errors
    /// The message, when it is another.
    pub fn into_bye(self) -> Result<CloseReason, Self> {
        if let Self::Bye(reason) = self { Ok(reason) } else { Err(self) }
    }

    /// The answer to a stop; another message comes back.
    ///
    /// # Errors
    /// The message, when it is another.
    pub fn into_stopped(self) -> Result<Stopped, Self> {
        if let Self::Stopped(stopped) = self { Ok(stopped) } else { Err(self) }
    }

    /// What waits for approval; another message comes back.
    ///
    /// # Errors
    /// The message, when it is another.
    pub fn into_approvals(self) -> Result<Vec<PendingApproval>, Self> {
        if let Self::Approvals(pending) = self { Ok(pending) } else { Err(self) }
    }

    /// What became of an answer; another message comes back.
    ///
    /// # Errors
    /// The message, when it is another.
    pub fn into_approved(self) -> Result<Approved, Self> {
        if let Self::Approved(approved) = self { Ok(approved) } else { Err(self) }
    }

    /// Name of the message, for errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Tools(_) => "Tools",
            Self::Started(_) => "Started",
            Self::Progress(_) => "Progress",
            Self::Output(_) => "Output",
            Self::StdinTaken(_) => "StdinTaken",
            Self::CallResult(_) => "CallResult",
            Self::Judgement(_) => "Judgement",
            Self::PutProgress(_) => "PutProgress",
            Self::GetChunk(_) => "GetChunk",
            Self::TransferEnd(_) => "TransferEnd",
            Self::Status(_) => "Status",
            Self::Stopped(_) => "Stopped",
            Self::Bye(_) => "Bye",
            Self::Attacked(_) => "Attacked",
            Self::AttackDone(_) => "AttackDone",
            Self::Approved(_) => "Approved",
            Self::Approvals(_) => "Approvals",
        }
    }

    /// Checks that this message may arrive in `stage`.
    ///
    /// # Errors
    /// [`Illegal`] otherwise; the receiver closes the connection.
    pub fn check(&self, stage: Stage) -> Result<(), Illegal> {
        let legal = match (self, stage) {
            (Self::Hello(_), Stage::Greeting) => true,
            (Self::Hello(_), Stage::Open | Stage::Draining | Stage::Closed) => false,
            (Self::Bye(_), Stage::Greeting | Stage::Open | Stage::Draining) => true,
            (Self::Bye(_), Stage::Closed) => false,
            (
                Self::Tools(_)
                | Self::Started(_)
                | Self::Progress(_)
                | Self::Output(_)
                | Self::StdinTaken(_)
                | Self::CallResult(_)
                | Self::Judgement(_)
                | Self::PutProgress(_)
                | Self::GetChunk(_)
                | Self::TransferEnd(_)
                | Self::Status(_)
                | Self::Stopped(_)
                | Self::Attacked(_)
                | Self::AttackDone(_)
                | Self::Approved(_)
                | Self::Approvals(_),
                Stage::Open | Stage::Draining,
            ) => true,
            (
                Self::Tools(_)
                | Self::Started(_)
                | Self::Progress(_)
                | Self::Output(_)
                | Self::StdinTaken(_)
                | Self::CallResult(_)
                | Self::Judgement(_)
                | Self::PutProgress(_)
                | Self::GetChunk(_)
                | Self::TransferEnd(_)
                | Self::Status(_)
                | Self::Stopped(_)
                | Self::Attacked(_)
                | Self::AttackDone(_)
                | Self::Approved(_)
                | Self::Approvals(_),
                Stage::Greeting | Stage::Closed,
            ) => false,
        };
        if legal { Ok(()) } else { Err(Illegal { message: self.name(), stage }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CallNumber, StopScope};

    #[test]
    fn nothing_but_hello_is_legal_before_hello() {
        for message in [
            ToToolhost::ListTools,
            ToToolhost::Cancel(CallNumber(1)),
            ToToolhost::Status,
            ToToolhost::Stop(StopScope::All),
        ] {
            assert_eq!(
                message.check(Stage::Greeting),
                Err(Illegal { message: message.name(), stage: Stage::Greeting })
            );
        }
    }

    #[test]
    fn new_work_is_illegal_while_draining_and_running_work_is_not() {
        assert!(ToToolhost::ListTools.check(Stage::Draining).is_err());
        assert!(ToToolhost::Attack.check(Stage::Draining).is_err());
        assert!(ToToolhost::ListApprovals.check(Stage::Draining).is_err());
        assert!(ToToolhost::Cancel(CallNumber(1)).check(Stage::Draining).is_ok());
    }

    #[test]
    fn nothing_is_legal_once_closed() {
        assert!(ToToolhost::Status.check(Stage::Closed).is_err());
        assert!(ToMain::Tools(Vec::new()).check(Stage::Closed).is_err());
    }
}
