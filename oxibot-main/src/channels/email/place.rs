//! How far a mailbox was read. Pure.
//!
//! The server numbers messages upwards (UID) within an era of the mailbox (UIDVALIDITY). Within an era everything above
//! the last number is new, whoever has read it meanwhile. A first start takes only what is unread, a new era takes what
//! is recent: the inbox recognises what it had before. Both look back less far than the inbox remembers, so that nothing
//! is answered twice.

use serde::{Deserialize, Serialize};

/// How far back a first start and a new era look, in days. Less than the 14 days the inbox remembers answered messages,
/// by a day for each side's time zone.
pub(super) const LOOK_BACK_DAYS: i64 = 12;

/// How far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// UIDVALIDITY.
    pub(super) era: u32,
    /// Last UID that was dealt with.
    pub(super) last: u32,
    /// What was there before we came, as long as it is being read.
    #[serde(default)]
    pub(super) before: Option<Before>,
}

/// Messages that were in the mailbox when its era began for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    /// The last of them.
    pub(super) upto: u32,
    /// Only those that nobody has read.
    pub(super) unread: bool,
}

impl Place {
    /// Where to begin, by what was kept and what the server says.
    pub(super) fn entering(kept: Option<Self>, era: u32, next: u32) -> Self {
        let anew =
            |unread| Self { era, last: 0, before: Some(Before { upto: next.saturating_sub(1), unread }) };
        match kept {
            // Numbers that went back without a new era: a mailbox put back from a copy by a careless server.
            Some(kept) if kept.era == era && next > kept.last => kept,
            Some(_) => anew(false),
            None => anew(true),
        }
        .settled()
    }

    /// What to search for. `today` is in seconds since 1970.
    pub(super) fn query(&self, today: i64) -> String {
        let from = self.last.saturating_add(1);
        match &self.before {
            None => format!("UID {from}:*"),
            Some(before) => {
                let unread = if before.unread { "UNSEEN " } else { "" };
                let since = date(today.saturating_sub(LOOK_BACK_DAYS * 86_400));
                format!("{unread}SINCE {since} UID {from}:{}", before.upto)
            }
        }
    }

    /// Those of a search's numbers that are ours to read, ascending: `n:*` names the last message even where it is older.
    pub(super) fn new_of(&self, found: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let most = self.before.map_or(u32::MAX, |before| before.upto);
        let mut new: Vec<u32> = found.into_iter().filter(|uid| *uid > self.last && *uid <= most).collect();
        new.sort_unstable();
        new.dedup();
        new
    }

    /// After a message was dealt with.
    pub(super) fn after(self, uid: u32) -> Self {
        Self { last: self.last.max(uid), ..self }.settled()
    }

    /// After all that a search found was dealt with.
    pub(super) fn all_read(self) -> Self {
        match self.before {
            Some(before) => Self { last: self.last.max(before.upto), before: None, ..self },
            None => self,
        }
    }

    fn settled(self) -> Self {
        match self.before {
            Some(before) if self.last >= before.upto => self.all_read(),
            Some(_) | None => self,
        }
    }
}

/// As IMAP writes a day: `5-Nov-2026`.
fn date(seconds: i64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let day = mail_parser::DateTime::from_timestamp(seconds);
    let month = MONTHS.get(usize::from(day.month).saturating_sub(1)).copied().unwrap_or("Jan");
    format!("{}-{month}-{}", day.day, day.year)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: i64 = 1_796_000_000; // 2026-11-30

    #[test]
    fn first_start_takes_what_is_unread_and_recent() {
        let place = Place::entering(None, 7, 101);
        assert_eq!(place.query(TODAY), "UNSEEN SINCE 18-Nov-2026 UID 1:100");
        let place = place.after(40);
        assert_eq!(place.query(TODAY), "UNSEEN SINCE 18-Nov-2026 UID 41:100", "also when it was cut off");
        assert_eq!(place.all_read().query(TODAY), "UID 101:*");
    }

    #[test]
    fn new_era_takes_what_is_recent_whoever_has_read_it() {
        let kept = Place { era: 7, last: 900, before: None };
        let place = Place::entering(Some(kept), 8, 11);
        assert_eq!(place.query(TODAY), "SINCE 18-Nov-2026 UID 1:10");
        assert_eq!(place.after(10), Place { era: 8, last: 10, before: None });
    }

    #[test]
    fn same_era_goes_on_where_it_was() {
        let kept = Place { era: 7, last: 9, before: None };
        assert_eq!(Place::entering(Some(kept), 7, 20), kept);
        assert_eq!(Place::entering(Some(kept), 7, 10), kept, "nothing new");
        assert!(Place::entering(Some(kept), 7, 9).before.is_some(), "numbers went back");
    }

    #[test]
    fn empty_mailbox_has_nothing_before() {
        assert_eq!(Place::entering(None, 7, 1), Place { era: 7, last: 0, before: None });
    }

    #[test]
    fn star_that_names_an_old_message_is_not_new() {
        let place = Place { era: 7, last: 9, before: None };
        assert_eq!(place.new_of([9]), Vec::<u32>::new());
        assert_eq!(place.new_of([12, 10, 11, 9, 12]), [10, 11, 12]);
    }

    #[test]
    fn what_came_meanwhile_waits_until_what_was_before_is_read() {
        let place = Place::entering(None, 7, 5);
        assert_eq!(place.new_of([3, 5]), [3]);
        let text = serde_json::to_string(&place).unwrap();
        assert_eq!(serde_json::from_str::<Place>(&text).unwrap(), place);
    }
}
