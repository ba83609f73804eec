//! A person's yes, as it reaches the broker: a call that needs one is put before a person or claims one, an answer
//! arrives, and each is recorded. What a yes is good for is decided in `approvals`.

use std::io::Read;
use std::time::{Instant, SystemTime};

use oxibot_proto::message::{
    ApprovalAnswer, ApprovalOutcome, Approved, Denial, Level, Outcome, PendingApproval, ToMain,
};
use serde::Serialize;

use super::admit::{AskGate, Asked, Refusal};
use super::approvals::{Answered, Answerer, Exact, Question, Unredeemed, Void};
use super::audit::{Sync, capped};
use super::broker::Broker;
use super::link::Rights;
use super::senders::Limited;

/// Bytes of a claimed name in a record.
const MAX_CLAIM: usize = 256;

/// Under which approval a call runs.
pub(crate) struct ApprovedCall {
    pub(crate) id: String,
    pub(crate) rule: String,
}

#[derive(Serialize)]
struct Requested<'a> {
    approval: &'a str,
    tool: &'a str,
    rule: &'a str,
    who: &'a str,
    channel: &'a str,
    session: &'a str,
    workspace: &'a str,
}

#[derive(Serialize)]
struct Told<'a> {
    approval: &'a str,
    tool: &'a str,
    rule: &'a str,
    by: &'a str,
    via: &'a str,
}

#[derive(Serialize)]
struct Misused<'a> {
    approval: &'a str,
    tool: &'a str,
    why: &'a str,
}

#[derive(Serialize)]
struct RateLimited<'a> {
    who: &'a str,
    channel: &'a str,
    limit: &'a str,
    retry_s: u64,
}

impl Broker {
    /// A call that needs a yes: it has one, or a person is to be asked, or it is refused.
    pub(crate) fn ask(
        &mut self,
        link: u64,
        asked: &Asked,
        place: usize,
        gate: AskGate,
        now: Instant,
    ) -> Result<ApprovedCall, Refusal> {
        let AskGate { denial, claimed, arguments, whole } = gate;
        let denied = |denial| Refusal { outcome: Outcome::Denied(denial), approval: None };
        if !self.approvals.possible() {
            let reason =
                format!("{}; it would need a person's yes, and approvals.mode is deny", denial.reason);
            return Err(denied(Denial { reason, ..denial }));
        }
        let workspace =
            self.places.get(place).map(|place| place.workspace.path.to_string_lossy().into_owned());
        let workspace = workspace.unwrap_or_default();
        let exact =
            Exact { tool: &asked.tool, arguments: &arguments, workspace: &workspace, origin: &asked.origin };
        if let Some(id) = claimed {
            return match self.approvals.redeem(&id, link, exact, now) {
                Ok(()) => Ok(ApprovedCall { id, rule: denial.rule }),
                Err(why) => {
                    let refused = unredeemed(why);
                    let misused =
                        Misused { approval: &capped(&id, MAX_CLAIM), tool: &asked.tool, why: &refused.rule };
                    self.note("approval_misused", misused, now);
                    Err(denied(refused))
                }
            };
        }
        let Some(text) = whole else {
            return Err(denied(too_long(&denial)));
        };
        let mut nonce = [0; 16];
        if let Err(error) = (&self.random).read_exact(&mut nonce) {
            let message = format!("cannot make an approval: {error}");
            return Err(Refusal { outcome: Outcome::Internal { message }, approval: None });
        }
        let question = Question { text, rule: denial.rule.clone(), reason: denial.reason.clone() };
        let clock = (now, SystemTime::now());
        let Some(pending) = self.approvals.ask(link, exact, question, nonce, clock) else {
            return Err(denied(too_many(&denial)));
        };
        self.requested(&pending, now);
        let hint = format!("{}; or wait for a person to approve exactly this call", denial.hint);
        let outcome = Outcome::NeedsApproval(Denial { hint, ..denial });
        Err(Refusal { outcome, approval: Some(Box::new(pending)) })
    }

    fn requested(&mut self, pending: &PendingApproval, now: Instant) {
        let (who, channel, session) = (
            capped(&pending.origin.who, MAX_CLAIM),
            capped(&pending.origin.channel, MAX_CLAIM),
            capped(&pending.origin.session, MAX_CLAIM),
        );
        let body = Requested {
            approval: &pending.id,
            tool: &pending.tool,
            rule: &pending.rule,
            who: &who,
            channel: &channel,
            session: &session,
            workspace: &pending.workspace,
        };
        self.note("approval_requested", body, now);
    }

    /// `Approve`.
    pub(crate) fn approve(&mut self, link: u64, answer: &ApprovalAnswer, now: Instant) {
        let Some((answerer, via)) = answerer(link, self.links.get(&link).map(|link| link.rights)) else {
            return;
        };
        let id = capped(&answer.id, MAX_CLAIM);
        let answered = match answerer {
            // Only where there is a wall is the socket out of a tool's reach.
            Answerer::Administrator if self.fixed.wall.level == Level::Off => Err(Void::NoWall),
            Answerer::Administrator | Answerer::Main(_) => {
                self.approvals.answer(&answer.id, answer.yes, answerer, now)
            }
        };
        let outcome = match answered {
            Ok(Answered { link: whose, tool, rule }) => {
                let by = capped(&answer.by, MAX_CLAIM);
                let event = if answer.yes { "approval_granted" } else { "approval_denied" };
                self.note(event, Told { approval: &id, tool: &tool, rule: &rule, by: &by, via }, now);
                let outcome = if answer.yes { ApprovalOutcome::Granted } else { ApprovalOutcome::Refused };
                if whose != link {
                    let told = Approved { id: id.clone(), outcome: outcome.clone() };
                    self.send(whose, &ToMain::Approved(told), now);
                }
                outcome
            }
            Err(void) => {
                self.note("approval_misused", Misused { approval: &id, tool: "", why: void.reason() }, now);
                ApprovalOutcome::Void { reason: void.reason().to_owned() }
            }
        };
        self.send(link, &ToMain::Approved(Approved { id, outcome }), now);
    }

    /// Whether the sender asks for more than is granted. Recorded once, not each time.
    pub(crate) fn limited(&mut self, asked: &Asked, now: Instant) -> Option<Denial> {
        let limited = self.senders.take(&asked.origin, now, SystemTime::now())?;
        let Limited { rule, reason, retry, first } = limited;
        if first {
            let (who, channel) =
                (capped(&asked.origin.who, MAX_CLAIM), capped(&asked.origin.channel, MAX_CLAIM));
            let body = RateLimited { who: &who, channel: &channel, limit: rule, retry_s: retry.as_secs() };
            self.note("rate_limited", body, now);
        }
        let hint = format!("try again in {} s, or ask for less", retry.as_secs().max(1));
        Some(Denial { rule: rule.to_owned(), reason, hint })
    }

    fn note<T: Serialize>(&mut self, event: &str, body: T, now: Instant) {
        if let Err(error) = self.audit.told(event, body, Sync::Now) {
            self.log.line(&error.to_string(), now);
        }
    }
}

/// Who answers on this connection, and how that is recorded. Nobody, where there is no such connection.
fn answerer(link: u64, rights: Option<Rights>) -> Option<(Answerer, &'static str)> {
    match rights? {
        Rights::All => Some((Answerer::Main(link), "main")),
        Rights::Control => Some((Answerer::Administrator, "control socket")),
    }
}

fn unredeemed(why: Unredeemed) -> Denial {
    let (rule, reason) = match why {
        Unredeemed::Unknown => (
            "approval.unknown",
            "there is no such approval: it was used, has expired, was refused or belongs to another conversation",
        ),
        Unredeemed::Unanswered => ("approval.unanswered", "nobody has approved it yet"),
        Unredeemed::Differs => {
            ("approval.differs", "what was approved is another call; the approval is void now")
        }
    };
    let hint = "make the call without it, so that a person is asked again";
    Denial { rule: rule.to_owned(), reason: reason.to_owned(), hint: hint.to_owned() }
}

fn too_long(denial: &Denial) -> Denial {
    Denial {
        rule: "approval.too-long".to_owned(),
        reason: format!(
            "{} (rule {}), and the call is too long to be shown whole",
            denial.reason, denial.rule
        ),
        hint: "write it to a file in pieces, or make a shorter call".to_owned(),
    }
}

fn too_many(denial: &Denial) -> Denial {
    Denial {
        rule: "approval.too-many".to_owned(),
        reason: format!("{} (rule {}), and too many calls wait for an answer", denial.reason, denial.rule),
        hint: "wait until a person has answered".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_an_unknown_connection_is_nobodys() {
        assert!(answerer(7, None).is_none());
        assert!(matches!(answerer(7, Some(Rights::All)), Some((Answerer::Main(7), "main"))));
        assert!(matches!(answerer(7, Some(Rights::Control)), Some((Answerer::Administrator, _))));
    }
}
