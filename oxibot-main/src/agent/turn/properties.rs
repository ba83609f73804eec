//! The promises of a turn under random events in any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::agent::hands::FaultClass;
use crate::model::{Message, Role};

const ROUNDS: u32 = 4;

fn setting() -> Setting {
    Setting {
        budget: Budget {
            tool_rounds: ROUNDS,
            tokens: Some(500),
            wall: Duration::from_secs(60),
            stop_grace: Duration::from_secs(5),
        },
        tools: BTreeSet::from(["bash".to_owned()]),
        known_ids: BTreeSet::new(),
        boundary: Boundary::stored("b0b0"),
        model: "m".to_owned(),
    }
}

fn any_call() -> impl Strategy<Value = Part> {
    let id = prop_oneof![Just(""), Just("a"), Just("b")];
    let name = prop_oneof![4 => Just("bash"), 1 => Just("nope")];
    let arguments = prop_oneof![4 => Just("{}"), 2 => Just("{\"x\":1}"), 1 => Just("{")];
    (id, name, arguments).prop_map(|(id, name, arguments)| {
        Part::ToolCall(ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() })
    })
}

fn any_part() -> impl Strategy<Value = Part> {
    prop_oneof![
        2 => any_call(),
        1 => prop_oneof![Just(""), Just("text")].prop_map(|text| Part::Text { text: text.to_owned() }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let stop = prop_oneof![
        6 => Just(StopReason::ToolUse),
        2 => Just(StopReason::EndTurn),
        1 => Just(StopReason::Length),
        1 => Just(StopReason::Refusal)
    ];
    let reply =
        (proptest::collection::vec(any_part(), 0..5), stop, 0u64..90).prop_map(|(parts, stop, input)| {
            let usage = TokenUsage { input, output: 0, ..TokenUsage::default() };
            Event::ModelReplied(ModelReply { parts, stop, usage }, 0)
        });
    let outcome =
        prop_oneof![Just("completed"), Just("failed"), Just("cancelled"), Just("internal"), Just("\u{1b}[")];
    let finished = (1u32..8, 0usize..5, outcome).prop_map(|(round, index, outcome)| {
        let ending = CallEnding {
            outcome: outcome.to_owned(),
            summary: String::new(),
            output: "x".to_owned(),
            wall: String::new(),
            call_id: None,
            exit_code: None,
            duration: Duration::ZERO,
        };
        Event::ToolFinished(CallKey { round, index }, ending)
    });
    let fault = MindFault {
        kind: "k".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
        class: FaultClass::Failed,
    };
    prop_oneof![
        8 => reply,
        16 => finished,
        1 => Just(Event::ModelFailed(fault)),
        2 => Just(Event::Message(Message::text(Role::User, "more"))),
        1 => Just(Event::Cancel),
        2 => Just(Event::Tick),
        1 => Just(Event::Start(Message::text(Role::User, "hi"))),
    ]
}

/// Each call of an assistant message is answered in the message right after it, in order, and nothing else is.
pub(crate) fn assert_paired(messages: &[Message]) {
    let mut expected: Vec<String> = Vec::new();
    for message in messages {
        let results: Vec<String> = message
            .parts
            .iter()
            .filter_map(
                |part| if let Part::ToolResult(answer) = part { Some(answer.id.clone()) } else { None },
            )
            .collect();
        assert_eq!(results, expected, "results answer exactly the calls before them");
        expected = calls_of(&message.parts, StopReason::ToolUse).into_iter().map(|call| call.id).collect();
    }
    assert!(expected.is_empty(), "calls without results at the end");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_order_of_events_keeps_the_promises(
        events in proptest::collection::vec((any_event(), 0u64..3), 0..120)
    ) {
        let mut turn = Turn::new(setting());
        let mut now = Duration::ZERO;
        let mut journal: Vec<Entry> = Vec::new();
        let mut ran = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let (mut asks, mut ends) = (0u32, 0u32);
        let all = std::iter::once((Event::Start(Message::text(Role::User, "hi")), 0))
            .chain(events)
            // However the story goes, time ends it: once for the budget, once for the grace.
            .chain([(Event::Tick, 1000), (Event::Tick, 1000)]);
        for (event, seconds) in all {
            now += Duration::from_secs(seconds);
            for effect in turn.handle(event, now) {
                prop_assert_eq!(ends, 0, "nothing follows the end");
                match effect {
                    Effect::Persist(entry) => journal.push(entry),
                    Effect::RunTool(key, call) => {
                        prop_assert!(ran.insert(key), "a key runs once");
                        prop_assert!(ids.insert(call.id.clone()), "an id runs once");
                        let begun = Entry::CallBegun { call };
                        prop_assert!(journal.contains(&begun), "journalled before it runs");
                    }
                    Effect::AskModel(messages) => {
                        asks += 1;
                        assert_paired(&messages);
                    }
                    Effect::Finish(_) => ends += 1,
                    Effect::AbandonModel | Effect::CancelTools | Effect::Show(_) => {}
                }
            }
            // A crash at this very moment: the journal still reads well, and recovery closes it.
            let mut transcript = Transcript::default();
            journal.iter().for_each(|entry| transcript.apply(entry));
            assert_paired(&transcript.messages());
            for entry in transcript.recover() {
                transcript.apply(&entry);
            }
            prop_assert!(transcript.ending().is_some());
            assert_paired(&transcript.messages());
        }
        prop_assert_eq!(ends, 1, "it ends exactly once");
        prop_assert!(asks <= ROUNDS + 2, "{} requests", asks);
        let answered: Vec<_> = journal.iter().filter_map(|entry| {
            if let Entry::CallEnded { answer, .. } = entry { Some(answer.id.clone()) } else { None }
        }).collect();
        prop_assert_eq!(answered.len(), answered.iter().collect::<BTreeSet<_>>().len(), "answered once");
    }
}
