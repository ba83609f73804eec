//! Calls that wait for a person's yes, and what that yes is good for: one call, exactly as it was shown. Pure.
//!
//! A grant is a digest over the tool, its canonical arguments, the workspace, who asked in which conversation, the
//! policy's version, a nonce and the time of expiry. It is computed here when the call is first seen and again when a
//! call claims it, and it never leaves this process: what crosses the wire is an id, which is worth nothing by itself.
//! An id is bound to the connection it was given to, answered once, redeemed once. Nothing a model writes is read here
//! but to be compared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use oxibot_proto::message::{Asks, MAX_APPROVALS, Origin, PendingApproval};
use oxibot_proto::settings::ApprovalsMode;

use crate::supervise::recorded::digest_of_parts;

/// How long a call may wait for its yes, and the yes for its call.
pub(crate) const LIFE: Duration = Duration::from_secs(600);

/// What a yes is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exact<'a> {
    /// Canonical name.
    pub(crate) tool: &'a str,
    /// JSON with sorted keys and without spaces.
    pub(crate) arguments: &'a str,
    pub(crate) workspace: &'a str,
    pub(crate) origin: &'a Origin,
}

/// What a person is shown of a call, and why they are asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) rule: String,
    pub(crate) reason: String,
}

#[derive(Debug)]
struct Entry {
    link: u64,
    grant: String,
    nonce: [u8; 16],
    expires: Instant,
    /// Part of the grant.
    expires_at: u64,
    granted: bool,
    shown: PendingApproval,
}

/// Every call that waits.
#[derive(Debug)]
pub(crate) struct Approvals {
    mode: ApprovalsMode,
    /// Of everything that decides about calls.
    policy: String,
    entries: BTreeMap<String, Entry>,
}

/// Why a claimed approval does not count. Each is a denial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unredeemed {
    /// Never given, used already, expired, refused, or of another connection: told alike, so that nobody can try.
    Unknown,
    /// It is given and nobody has answered yet.
    Unanswered,
    /// It was for another call. It is void now.
    Differs,
}

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Void {
    Unknown,
    /// Main may not say yes here.
    NotYours,
    /// Nothing keeps a tool from saying it.
    NoWall,
}

impl Void {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "no call waits under this id: it was answered, has expired, or never was",
            Self::NotYours => {
                "approvals.mode is out-of-band: an administrator answers, with `oxibot approvals`"
            }
            Self::NoWall => "without a sandbox a tool could say it here; answer where the call was asked for",
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// Main, on its own connection.
    Main(u64),
    /// Whoever may use our own socket.
    Administrator,
}

/// What an answer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Whose call it is.
    pub(crate) link: u64,
    pub(crate) tool: String,
    pub(crate) rule: String,
}

impl Approvals {
    pub(crate) fn new(mode: ApprovalsMode, policy: String) -> Self {
        Self { mode, policy, entries: BTreeMap::new() }
    }

    /// Whether anybody can say yes at all.
    pub(crate) fn possible(&self) -> bool {
        self.mode != ApprovalsMode::Deny
    }

    /// Puts a call before whoever may approve it. `None` when too many wait already.
    pub(crate) fn ask(
        &mut self,
        link: u64,
        exact: Exact<'_>,
        question: Question,
        nonce: [u8; 16],
        (now, time): (Instant, SystemTime),
    ) -> Option<PendingApproval> {
        self.expire(now);
        if self.entries.len() >= MAX_APPROVALS {
            return None;
        }
        let id = crate::audit::chain::to_hex(nonce.get(..4).unwrap_or_default());
        if self.entries.contains_key(&id) {
            return None;
        }
        let expires_at = (time + LIFE).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Question { text, rule, reason } = question;
        let shown = PendingApproval {
            id: id.clone(),
            tool: exact.tool.to_owned(),
            text,
            rule,
            reason,
            workspace: exact.workspace.to_owned(),
            origin: exact.origin.clone(),
            expires_ms: millis(LIFE),
            asks: match self.mode {
                ApprovalsMode::Channel => Asks::Main,
                ApprovalsMode::OutOfBand | ApprovalsMode::Deny => Asks::Administrator,
            },
        };
        let grant = grant(exact, &self.policy, &nonce, expires_at);
        let expires = now + LIFE;
        let entry = Entry { link, grant, nonce, expires, expires_at, granted: false, shown: shown.clone() };
        self.entries.insert(id, entry);
        Some(shown)
    }

    /// A person's answer. No takes the call away; yes lets exactly it be made once.
    pub(crate) fn answer(
        &mut self,
        id: &str,
        yes: bool,
        by: Answerer,
        now: Instant,
    ) -> Result<Answered, Void> {
        self.expire(now);
        let entry = self.entries.get_mut(id).filter(|entry| !entry.granted).ok_or(Void::Unknown)?;
        match by {
            Answerer::Main(link) if entry.link != link => return Err(Void::Unknown),
            Answerer::Main(_) if self.mode != ApprovalsMode::Channel => return Err(Void::NotYours),
            Answerer::Main(_) | Answerer::Administrator => {}
        }
        let answered =
            Answered { link: entry.link, tool: entry.shown.tool.clone(), rule: entry.shown.rule.clone() };
        entry.granted = true;
        if !yes {
            self.entries.remove(id);
        }
        Ok(answered)
    }

    /// A call claims an approval. Whatever comes of it, an approval that was granted is gone afterwards.
    pub(crate) fn redeem(
        &mut self,
        id: &str,
        link: u64,
        exact: Exact<'_>,
        now: Instant,
    ) -> Result<(), Unredeemed> {
        self.expire(now);
        let entry = self.entries.get(id).filter(|entry| entry.link == link).ok_or(Unredeemed::Unknown)?;
        if !entry.granted {
            return Err(Unredeemed::Unanswered);
        }
        let same = entry.grant == grant(exact, &self.policy, &entry.nonce, entry.expires_at);
        self.entries.remove(id);
        if same { Ok(()) } else { Err(Unredeemed::Differs) }
    }

    /// What waits for an answer.
    pub(crate) fn pending(&mut self, now: Instant) -> Vec<PendingApproval> {
        self.expire(now);
        let waiting = self.entries.values().filter(|entry| !entry.granted);
        waiting
            .map(|entry| PendingApproval {
                expires_ms: millis(entry.expires.saturating_duration_since(now)),
                ..entry.shown.clone()
            })
            .collect()
    }

    /// A connection is over, and with it all that was asked on it.
    pub(crate) fn forget(&mut self, link: u64) {
        self.entries.retain(|_, entry| entry.link != link);
    }

    fn expire(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.expires);
    }
}

fn grant(exact: Exact<'_>, policy: &str, nonce: &[u8], expires_at: u64) -> String {
    let Exact { tool, arguments, workspace, origin } = exact;
    let Origin { who, channel, session } = origin;
    let texts = [tool, arguments, workspace, who, channel, session, policy].map(str::as_bytes);
    let expiry = expires_at.to_be_bytes();
    let parts: Vec<&[u8]> = texts.into_iter().chain([nonce, &expiry[..]]).collect();
    digest_of_parts(&parts)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Arguments in one spelling: sorted keys, no spaces. What is no JSON object stays as it is and equals only itself.
pub(crate) fn canonical(arguments: &str) -> String {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let map: BTreeMap<String, serde_json::Value> =
                    map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                serde_json::Value::Object(map.into_iter().collect())
            }
            serde_json::Value::Array(items) => {
                serde_json::Value::Array(items.into_iter().map(sorted).collect())
            }
            plain @ (serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_)) => plain,
        }
    }
    serde_json::from_str(arguments).map_or_else(|_| arguments.to_owned(), |value| sorted(value).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENTS: &str = r#"{"command":"git push --force"}"#;

    fn origin(session: &str) -> Origin {
        Origin { who: "ada".into(), channel: "telegram".into(), session: session.into() }
    }

    fn exact<'a>(arguments: &'a str, origin: &'a Origin) -> Exact<'a> {
        Exact { tool: "bash", arguments, workspace: "/w", origin }
    }

    fn question() -> Question {
        Question { text: "t".into(), rule: "git.force-push".into(), reason: "r".into() }
    }

    /// Approvals in a mode with one call of connection 1 waiting, and when that was.
    fn waiting(mode: ApprovalsMode) -> (Approvals, String, Instant) {
        let mut approvals = Approvals::new(mode, "policy".into());
        let now = Instant::now();
        let origin = origin("s");
        let clock = (now, UNIX_EPOCH);
        let shown = approvals.ask(1, exact(ARGUMENTS, &origin), question(), [7; 16], clock).unwrap();
        (approvals, shown.id, now)
    }

    fn granted() -> (Approvals, String, Instant) {
        let (mut approvals, id, now) = waiting(ApprovalsMode::Channel);
        approvals.answer(&id, true, Answerer::Main(1), now).unwrap();
        (approvals, id, now)
    }

    #[test]
    fn yes_is_good_for_exactly_that_call_once() {
        let (mut approvals, id, now) = granted();
        let origin = origin("s");
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin), now), Ok(()));
        assert_eq!(
            approvals.redeem(&id, 1, exact(ARGUMENTS, &origin), now),
            Err(Unredeemed::Unknown),
            "replayed"
        );
    }

    #[test]
    fn anything_else_about_the_call_voids_it() {
        let same = origin("s");
        let other = origin("other");
        let stranger = Origin { who: "eve".into(), ..origin("s") };
        let cases: [(&str, Exact<'_>); 5] = [
            ("argument", exact(r#"{"command":"git push --force evil"}"#, &same)),
            ("session", exact(ARGUMENTS, &other)),
            ("sender", exact(ARGUMENTS, &stranger)),
            ("workspace", Exact { workspace: "/other", ..exact(ARGUMENTS, &same) }),
            ("tool", Exact { tool: "write_file", ..exact(ARGUMENTS, &same) }),
        ];
        for (what, exactly) in cases {
            let (mut approvals, id, now) = granted();
            assert_eq!(approvals.redeem(&id, 1, exactly, now), Err(Unredeemed::Differs), "{what}");
            let again = approvals.redeem(&id, 1, exact(ARGUMENTS, &same), now);
            assert_eq!(again, Err(Unredeemed::Unknown), "{what}: it is void, also for the right call");
        }
    }

    #[test]
    fn another_policy_voids_it() {
        let (mut approvals, id, now) = granted();
        approvals.policy = "changed".into();
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin("s")), now), Err(Unredeemed::Differs));
    }

    #[test]
    fn another_connection_has_no_such_id() {
        let (mut approvals, id, now) = granted();
        let origin = origin("s");
        assert_eq!(approvals.redeem(&id, 2, exact(ARGUMENTS, &origin), now), Err(Unredeemed::Unknown));
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin), now), Ok(()), "the control");
        let (mut approvals, id, now) = waiting(ApprovalsMode::Channel);
        assert_eq!(approvals.answer(&id, true, Answerer::Main(2), now), Err(Void::Unknown));
        approvals.forget(1);
        assert_eq!(approvals.answer(&id, true, Answerer::Main(1), now), Err(Void::Unknown), "it is over");
    }

    #[test]
    fn it_expires_before_and_after_the_yes() {
        let (mut approvals, id, now) = granted();
        let late = now + LIFE;
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin("s")), late), Err(Unredeemed::Unknown));
        let (mut approvals, id, now) = waiting(ApprovalsMode::Channel);
        assert_eq!(approvals.answer(&id, true, Answerer::Main(1), now + LIFE), Err(Void::Unknown));
        let (mut approvals, id, now) = granted();
        let just = now + LIFE - Duration::from_millis(1);
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin("s")), just), Ok(()), "the control");
    }

    #[test]
    fn without_an_answer_or_after_a_no_there_is_nothing_to_redeem() {
        let (mut approvals, id, now) = waiting(ApprovalsMode::Channel);
        let origin = origin("s");
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin), now), Err(Unredeemed::Unanswered));
        approvals.answer(&id, false, Answerer::Main(1), now).unwrap();
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin), now), Err(Unredeemed::Unknown));
        assert_eq!(approvals.answer(&id, true, Answerer::Main(1), now), Err(Void::Unknown), "no stays no");
    }

    #[test]
    fn an_answer_counts_once() {
        let (mut approvals, id, now) = granted();
        assert_eq!(approvals.answer(&id, true, Answerer::Main(1), now), Err(Void::Unknown));
        assert_eq!(approvals.pending(now), [], "what is answered waits no more");
    }

    #[test]
    fn out_of_band_main_cannot_answer_and_an_administrator_can() {
        let (mut approvals, id, now) = waiting(ApprovalsMode::OutOfBand);
        assert_eq!(approvals.answer(&id, true, Answerer::Main(1), now), Err(Void::NotYours));
        assert_eq!(approvals.pending(now).len(), 1);
        assert_eq!(approvals.answer(&id, true, Answerer::Administrator, now).unwrap().link, 1);
        assert_eq!(approvals.redeem(&id, 1, exact(ARGUMENTS, &origin("s")), now), Ok(()));
    }

    #[test]
    fn number_that_waits_is_bounded() {
        let mut approvals = Approvals::new(ApprovalsMode::Channel, "p".into());
        let (now, origin) = (Instant::now(), origin("s"));
        let asked = (0..100_u8)
            .filter(|nonce| {
                let clock = (now, UNIX_EPOCH);
                approvals.ask(1, exact(ARGUMENTS, &origin), question(), [*nonce; 16], clock).is_some()
            })
            .count();
        assert_eq!(asked, MAX_APPROVALS);
    }

    #[test]
    fn spelling_of_the_arguments_does_not_matter_and_their_content_does() {
        assert_eq!(canonical(r#"{ "b": {"d":1,"c":2}, "a": "x" }"#), r#"{"a":"x","b":{"c":2,"d":1}}"#);
        assert_eq!(canonical(r#"{"a":"\u0041"}"#), canonical(r#"{"a":"A"}"#));
        assert_ne!(canonical(r#"{"a":"A "}"#), canonical(r#"{"a":"A"}"#));
        assert_eq!(canonical("not json"), "not json");
    }
}
