//! Why the wall refused something, in words. Only what the kernel told us: nothing a program printed is looked at here.

use oxibot_proto::message::{Certainty, Violation};

use crate::wall::explain_rule;
use crate::wire::Refusal;

/// System calls the filter refused.
pub(crate) fn refusals(refusals: &[Refusal]) -> Vec<Violation> {
    refusals
        .iter()
        .map(|refusal| {
            let rule = &refusal.rule;
            let (what, why) = match explain_rule(rule) {
                Some(text) => (
                    text.what.to_owned(),
                    format!("{} (system call rule {rule}); instead: {}", text.why, text.instead),
                ),
                None => (rule.clone(), format!("the system call filter refuses it (rule {rule})")),
            };
            Violation { what, path: String::new(), why, certainty: Certainty::Kernel }
        })
        .collect()
}
