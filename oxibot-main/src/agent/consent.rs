//! Whoever is asked for a yes: a person at a terminal, in a chat, or nobody.

use oxibot_proto::message::PendingApproval;

use super::hands::BoxFuture;

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    /// Yes to exactly this call. Who said it, for the record.
    Yes(String),
    /// No. Who said it.
    No(String),
    /// There is nobody to ask.
    Nobody,
    /// Nobody answered: why, for the model.
    NotAsked(String),
}

/// Asks a person about one call.
pub trait Approver: Send + Sync {
    /// Shows the whole call and waits for the answer. Dropping the future withdraws the question.
    fn ask<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, Consent>;
    /// Says that the answer is an administrator's, elsewhere, and that it is waited for.
    fn waits<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, ()>;
}
