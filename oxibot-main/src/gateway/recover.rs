//! What became of a message whose turn an earlier process began. Pure: journal entries in, a fate out.
//!
//! The turn is the first of its session that is younger than the note made before it began. A turn that ended has its
//! reply in the journal. One that was cut off is held again only if no call of it began: what a tool did must not be
//! done twice, and must not be hidden either.

use crate::agent::transcript::Transcript;
use crate::model::Part;
use crate::store::post::Begun;
use crate::store::{Ending, Entry, StoredEntry};

/// What to do with the message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// Nothing of its turn is in the journal: hold it.
    NotBegun,
    /// It was cut off before any call began: take it back and hold it.
    Again {
        /// The turn.
        turn: i64,
        /// Entries that close it.
        closing: Vec<Entry>,
    },
    /// It was cut off after these tools were called: say so.
    CutOff {
        /// The turn.
        turn: i64,
        /// Entries that close it.
        closing: Vec<Entry>,
        /// Names of the tools.
        tools: Vec<String>,
        /// Messages that came while it ran and belong to it.
        folded: usize,
    },
    /// It ended and its answer was not written to the outbox.
    Ended {
        /// How.
        ending: Ending,
        /// The last words of the model.
        reply: String,
        /// Messages that came while it ran and belong to it.
        folded: usize,
    },
}

/// Reads the fate of a message.
pub(super) fn fate(entries: &[StoredEntry], begun: Begun) -> Fate {
    let turn = entries.iter().map(|stored| stored.turn).filter(|turn| *turn > begun.last_turn).min();
    let Some(turn) = turn else { return Fate::NotBegun };
    let own: Vec<&Entry> =
        entries.iter().filter(|stored| stored.turn == turn).map(|stored| &stored.entry).collect();
    if own.iter().any(|entry| matches!(entry, Entry::TakenBack { .. })) {
        return Fate::NotBegun;
    }
    let mut transcript = Transcript::default();
    for entry in &own {
        transcript.apply(entry);
    }
    let folded = own.iter().filter(|entry| matches!(entry, Entry::MessageArrived { .. })).count();
    let tools: Vec<String> = own
        .iter()
        .filter_map(
            |entry| if let Entry::CallBegun { call } = entry { Some(call.name.clone()) } else { None },
        )
        .collect();
    match transcript.ending() {
        // The runner closes what a crash left with this ending, too.
        None | Some(Ending::Interrupted) => {
            let closing = transcript.recover();
            if tools.is_empty() {
                Fate::Again { turn, closing }
            } else {
                Fate::CutOff { turn, closing, tools, folded }
            }
        }
        Some(ending) => Fate::Ended { ending, reply: last_words(&own), folded },
    }
}

/// The answers of a turn: each reply that called nothing, as the turn itself would have put them together. Without one,
/// the last words there are.
fn last_words(entries: &[&Entry]) -> String {
    let replies = entries.iter().filter_map(|entry| {
        let Entry::Replied { parts, .. } = entry else { return None };
        let calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
        let text: String = parts
            .iter()
            .filter_map(|part| if let Part::Text { text } = part { Some(text.as_str()) } else { None })
            .collect();
        (!text.trim().is_empty()).then_some((calls, text))
    });
    let replies: Vec<(bool, String)> = replies.collect();
    let answers: Vec<&str> =
        replies.iter().filter(|(calls, _)| !calls).map(|(_, text)| text.as_str()).collect();
    if answers.is_empty() {
        return replies.into_iter().next_back().map(|(_, text)| text).unwrap_or_default();
    }
    answers.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Message, Role, StopReason, TokenUsage, ToolCall};

    const BEGUN: Begun = Begun { session: 1, last_turn: 4 };

    fn stored(turn: i64, entry: Entry) -> StoredEntry {
        StoredEntry { id: 0, turn, at: 0, entry }
    }

    fn started() -> Entry {
        Entry::TurnStarted { message: Message::text(Role::User, "hi"), model: "m".into() }
    }

    fn replied(parts: Vec<Part>, stop: StopReason) -> Entry {
        Entry::Replied { model: "m".into(), parts, stop, usage: TokenUsage::default(), estimate: 0 }
    }

    fn call() -> ToolCall {
        ToolCall { id: "c".into(), name: "bash".into(), arguments: "{}".into() }
    }

    #[test]
    fn older_turns_are_not_ours() {
        let entries = [stored(4, started()), stored(4, Entry::TurnEnded { ending: Ending::Answered })];
        assert_eq!(fate(&entries, BEGUN), Fate::NotBegun);
        assert_eq!(fate(&[], BEGUN), Fate::NotBegun);
    }

    #[test]
    fn turn_cut_off_without_a_call_is_held_again() {
        let entries = [stored(5, started()), stored(5, Entry::Asked { round: 1 })];
        let Fate::Again { turn: 5, closing } = fate(&entries, BEGUN) else { panic!("not again") };
        assert_eq!(closing, [Entry::TurnEnded { ending: Ending::Interrupted }]);
    }

    #[test]
    fn turn_taken_back_before_the_crash_was_never_begun() {
        let entries = [stored(5, started()), stored(5, Entry::TakenBack { turn: 5 })];
        assert_eq!(fate(&entries, BEGUN), Fate::NotBegun);
    }

    #[test]
    fn turn_cut_off_after_a_call_is_told_with_its_tools() {
        let entries = [
            stored(5, started()),
            stored(5, replied(vec![Part::ToolCall(call())], StopReason::ToolUse)),
            stored(5, Entry::CallBegun { call: call() }),
            stored(5, Entry::MessageArrived { message: Message::text(Role::User, "more") }),
        ];
        let Fate::CutOff { tools, folded, closing, .. } = fate(&entries, BEGUN) else {
            panic!("not cut off")
        };
        assert_eq!((tools, folded), (vec!["bash".to_owned()], 1));
        assert!(closing.iter().any(|entry| matches!(entry, Entry::CallEnded { .. })));
    }

    #[test]
    fn turn_that_ended_has_its_reply_in_the_journal() {
        let entries = [
            stored(5, started()),
            stored(5, replied(vec![Part::Text { text: "yes".into() }], StopReason::EndTurn)),
            stored(5, Entry::TurnEnded { ending: Ending::Answered }),
            stored(6, started()),
        ];
        assert_eq!(
            fate(&entries, BEGUN),
            Fate::Ended { ending: Ending::Answered, reply: "yes".into(), folded: 0 }
        );
    }
}
