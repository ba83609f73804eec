//! The window under pressure: what is shortened, what is summarised, what must stay together.

use proptest::prelude::*;

use super::*;
use crate::agent::turn::assert_paired;
use crate::model::{StopReason, TokenUsage, ToolAnswer, ToolCall};
use crate::store::Ending;

fn turn(number: i64, calls: usize, size: usize) -> PastTurn {
    let mut messages = vec![Message::text(Role::User, format!("question {number}"))];
    if calls > 0 {
        let id = |index: usize| format!("c{number}-{index}");
        let parts = (0..calls)
            .map(|index| {
                Part::ToolCall(ToolCall {
                    id: id(index),
                    name: "bash".to_owned(),
                    arguments: "{}".to_owned(),
                })
            })
            .collect();
        messages.push(Message { role: Role::Assistant, parts });
        let parts = (0..calls)
            .map(|index| {
                let text = "x".repeat(size);
                Part::ToolResult(ToolAnswer { id: id(index), name: "bash".to_owned(), text, is_error: false })
            })
            .collect();
        messages.push(Message { role: Role::Tool, parts });
    }
    messages.push(Message::text(Role::Assistant, format!("answer {number}")));
    PastTurn { turn: number, messages }
}

fn window(boundary: &Boundary, room: u64) -> Window<'_> {
    Window { system: "be good", tools: 0, room, scale: 100, boundary }
}

fn current() -> Vec<Message> {
    vec![Message::text(Role::User, "now")]
}

#[test]
fn what_fits_is_sent_unchanged() {
    let boundary = Boundary::stored("b0");
    let past = Past { summary: None, turns: vec![turn(1, 1, 5_000), turn(2, 0, 0)] };
    let window = window(&boundary, 10_000);
    assert_eq!(window.compaction(&past, &current()), None);
    let assembled = window.assemble(&past, &current());
    assert_eq!(assembled.left_out, 0);
    assert_eq!(assembled.messages.len(), 1 + 4 + 2 + 1);
    assert!(assembled.messages[3].parts.iter().any(|part| part_tokens(part) > 1_200));
}

#[test]
fn tool_results_are_shortened_before_anything_else() {
    let boundary = Boundary::stored("b0");
    let past = Past { summary: None, turns: (1..=5).map(|number| turn(number, 1, 8_000)).collect() };
    let window = window(&boundary, 3_000);
    assert_eq!(window.compaction(&past, &current()), None, "shortened results fit");
    let assembled = window.assemble(&past, &current());
    assert_eq!(assembled.left_out, 0);
    assert!(assembled.estimate <= 3_000);
}

#[test]
fn oldest_turns_are_summarised_and_the_last_two_kept() {
    let boundary = Boundary::stored("b0");
    let mut turns: Vec<PastTurn> = (1..=10).map(|number| turn(number, 0, 0)).collect();
    for turn in &mut turns {
        turn.messages[0] = Message::text(Role::User, "y".repeat(400));
    }
    let past = Past { summary: None, turns };
    let window = window(&boundary, 700);
    let through = window.compaction(&past, &current()).unwrap();
    assert!((4..=8).contains(&through), "{through}");
    let tight = Window { room: 50, ..window };
    assert_eq!(tight.compaction(&past, &current()), Some(8));
    let two = Past { summary: None, turns: past.turns[8..].to_vec() };
    assert_eq!(tight.compaction(&two, &current()), None, "nothing left to summarise");
}

#[test]
fn summary_stands_for_the_turns_it_covers_and_taken_back_turns_are_gone() {
    let stored = |id, turn, entry| StoredEntry { id, turn, at: 0, entry };
    let start =
        |text: &str| Entry::TurnStarted { message: Message::text(Role::User, text), model: "m".into() };
    let end = || Entry::TurnEnded { ending: Ending::Answered };
    let usage = TokenUsage::default();
    let entries = [
        stored(1, 1, start("one")),
        stored(2, 1, end()),
        stored(3, 2, start("two")),
        stored(4, 2, end()),
        stored(5, 3, start("three")),
        stored(6, 3, Entry::Summarised { through: 1, text: "of one".into(), model: "m".into(), usage }),
        stored(7, 3, end()),
        stored(8, 4, Entry::TakenBack { turn: 3 }),
        stored(9, 4, start("four")),
    ];
    let past = read(&entries);
    assert_eq!(past.summary.as_deref(), Some("of one"));
    assert_eq!(past.turns.iter().map(|turn| turn.turn).collect::<Vec<_>>(), [2, 4]);
    let boundary = Boundary::stored("b0");
    let assembled = window(&boundary, 1_000).assemble(&past, &current());
    let text = assembled.messages[1].joined_text();
    assert!(text.contains("<<<summary b0\nof one\nb0 end of summary>>>"), "{text}");
    assert_eq!(assembled.messages.len(), 2, "users' messages in a row become one");
}

#[test]
fn estimate_learns_from_the_provider_within_reason() {
    let replied = |input, estimate| StoredEntry {
        id: 1,
        turn: 1,
        at: 0,
        entry: Entry::Replied {
            model: "m".to_owned(),
            parts: vec![],
            stop: StopReason::EndTurn,
            usage: TokenUsage { input, ..TokenUsage::default() },
            estimate,
        },
    };
    assert_eq!(scale(&[]), 100);
    assert_eq!(scale(&[replied(150, 100)]), 150);
    assert_eq!(scale(&[replied(150, 100), replied(80, 100)]), 80);
    assert_eq!(scale(&[replied(u64::MAX, 1)]), 300);
    assert_eq!(scale(&[replied(1, 1_000)]), 50);
    assert_eq!(scale(&[replied(0, 1_000)]), 100);
}

#[test]
fn images_of_older_turns_become_words() {
    let boundary = Boundary::stored("b0");
    let image = || Part::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
    let mut turns: Vec<PastTurn> = (1..=4).map(|number| turn(number, 0, 0)).collect();
    for turn in &mut turns {
        turn.messages[0].parts.push(image());
    }
    let assembled = window(&boundary, 100_000).assemble(&Past { summary: None, turns }, &current());
    let images = assembled
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter(|part| matches!(part, Part::Image { .. }))
        .count();
    assert_eq!(images, TURNS_WITH_IMAGES);
}

#[test]
fn text_to_summarise_is_bounded() {
    let boundary = Boundary::stored("b0");
    let past = Past { summary: Some("older".into()), turns: (1..=50).map(|n| turn(n, 3, 9_000)).collect() };
    let text = window(&boundary, 1_000).to_summarise(&past, 40);
    assert!(text.len() <= 3_100 && text.starts_with("Summary of what came before:\nolder"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_call_is_ever_separated_from_its_result(
        shapes in proptest::collection::vec((0usize..4, 0usize..6_000), 0..12),
        room in 10u64..4_000,
        summary in proptest::bool::ANY,
    ) {
        let boundary = Boundary::stored("b0");
        let mut past = Past {
            summary: summary.then(|| "before".to_owned()),
            turns: shapes.iter().zip(1..).map(|((calls, size), number)| turn(number, *calls, *size)).collect(),
        };
        let window = window(&boundary, room);
        assert_paired(&window.assemble(&past, &current()).messages);
        if let Some(through) = window.compaction(&past, &current()) {
            past.turns.retain(|turn| turn.turn > through);
            prop_assert!(!past.turns.is_empty());
            let assembled = window.assemble(&past, &current());
            assert_paired(&assembled.messages);
            for pair in assembled.messages.windows(2) {
                prop_assert!(pair[0].role != pair[1].role || pair[0].role == Role::Tool, "roles alternate");
            }
        }
    }
}
