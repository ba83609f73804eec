//! Why the wall refused something, in words. Only what the kernel told us: nothing a program printed is looked at here.

use oxibot_proto::message::{Certainty, Violation};

use crate::wire::Refusal;

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    refusals
        .iter()
        .map(|refusal| Violation {
            what: refusal.rule.clone(),
            path: String::new(),
            why: format!("the system call filter refuses it (rule {})", refusal.rule),
            certainty: Certainty::Kernel,
        })
        .collect()
}
