//! What is never answered: mail of machines, and of a person whose machine took over. Pure.
//!
//! Two programs that answer each other go on until somebody notices. RFC 3834 says how to see them coming; what gives no
//! sign is stopped by how often it writes, counted by when the server took the mail in, so that a backlog is no flood.

use std::collections::{BTreeMap, VecDeque};

/// What the guard looks at.
#[derive(Debug, Default)]
pub(super) struct Signs<'a> {
    /// `Auto-Submitted`.
    pub(super) auto_submitted: Option<&'a str>,
    /// `Precedence`.
    pub(super) precedence: Option<&'a str>,
    /// Any field that mailing lists add.
    pub(super) list: bool,
    /// Any field that only answering machines add.
    pub(super) answering_machine: bool,
    /// `Return-Path`, without its brackets.
    pub(super) return_path: Option<&'a str>,
    /// The main type and subtype, in small letters.
    pub(super) content_type: Option<&'a str>,
    /// The address in `From`.
    pub(super) from: &'a str,
    /// Its own name for itself.
    pub(super) message_id: Option<&'a str>,
}

/// Why a mail is no person's, if it is not. `own` are our own addresses.
pub(super) fn machine(signs: &Signs<'_>, own: &[String]) -> Option<&'static str> {
    let value = |text: &str| text.split([';', '(']).next().unwrap_or_default().trim().to_ascii_lowercase();
    let from = signs.from.to_ascii_lowercase();
    if own.contains(&from) || signs.message_id.is_some_and(|id| id.starts_with(super::compose::OWN_ID)) {
        return Some("it is our own");
    }
    if signs.auto_submitted.is_some_and(|text| value(text) != "no") {
        return Some("Auto-Submitted says that a program sent it");
    }
    if signs
        .precedence
        .is_some_and(|text| ["bulk", "junk", "list", "auto_reply"].contains(&value(text).as_str()))
    {
        return Some("its Precedence is that of mass mail");
    }
    if signs.list {
        return Some("it comes from a mailing list");
    }
    if signs.answering_machine {
        return Some("it comes from an answering machine");
    }
    if signs.return_path.is_some_and(|path| path.trim().is_empty()) {
        return Some("it has no return address, as notices of delivery");
    }
    if signs.content_type == Some("multipart/report") {
        return Some("it is a report of delivery");
    }
    if from.split('@').next() == Some("mailer-daemon") {
        return Some("it comes from a mail server");
    }
    None
}

/// Mails of one sender within [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct Rate(BTreeMap<String, VecDeque<i64>>);

/// Seconds that are counted together.
const WINDOW: i64 = 3600;
/// Senders remembered. More forget the quietest.
const REMEMBERED: usize = 1000;

impl Rate {
    /// Whether one more mail of a sender, taken in by the server at `at` (seconds), is within `most` an hour.
    pub(super) fn admits(&mut self, sender: &str, at: i64, most: usize) -> bool {
        if !self.0.contains_key(sender)
            && self.0.len() >= REMEMBERED
            && let Some(quietest) =
                self.0.iter().min_by_key(|(_, times)| times.back().copied()).map(|(name, _)| name.clone())
        {
            self.0.remove(&quietest);
        }
        let times = self.0.entry(sender.to_owned()).or_default();
        times.retain(|time| at.saturating_sub(*time) < WINDOW);
        if times.len() >= most {
            return false;
        }
        times.push_back(at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person() -> Signs<'static> {
        Signs { return_path: Some("ann@example.org"), from: "ann@example.org", ..Signs::default() }
    }

    #[test]
    fn person_is_answered() {
        let own = vec!["bot@example.org".to_owned()];
        assert_eq!(machine(&person(), &own), None);
        assert_eq!(machine(&Signs { auto_submitted: Some("no"), ..person() }, &own), None);
        assert_eq!(machine(&Signs { precedence: Some("first-class"), ..person() }, &own), None);
        assert_eq!(machine(&Signs { return_path: None, ..person() }, &own), None);
    }

    #[test]
    fn machines_are_not() {
        let own = vec!["bot@example.org".to_owned()];
        for signs in [
            Signs { auto_submitted: Some("auto-replied"), ..person() },
            Signs { auto_submitted: Some("auto-generated; owner-email=\"x\""), ..person() },
            Signs { precedence: Some("Bulk"), ..person() },
            Signs { precedence: Some(" list "), ..person() },
            Signs { list: true, ..person() },
            Signs { answering_machine: true, ..person() },
            Signs { return_path: Some(""), ..person() },
            Signs { content_type: Some("multipart/report"), ..person() },
            Signs { from: "MAILER-DAEMON@example.org", ..person() },
            Signs { from: "Bot@Example.org", ..person() },
            Signs { message_id: Some("oxibot.abc@example.org"), ..person() },
        ] {
            assert!(machine(&signs, &own).is_some(), "{signs:?}");
        }
    }

    #[test]
    fn loop_without_a_sign_ends_and_the_next_hour_is_a_new_one() {
        let mut rate = Rate::default();
        assert!((0..5).all(|second| rate.admits("ann", 1000 + second, 5)));
        assert!(!rate.admits("ann", 1010, 5));
        assert!(rate.admits("bob", 1010, 5), "each for themselves");
        assert!(rate.admits("ann", 1000 + WINDOW, 5));
        for number in 0..3 * REMEMBERED {
            rate.admits(&number.to_string(), 2000, 5);
        }
        assert!(rate.0.len() <= REMEMBERED);
    }
}
