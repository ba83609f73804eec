//! Scripts of events against the state machine; each names the behaviour it holds.

use super::*;
use crate::agent::hands::FaultClass;
use crate::model::{Message, Role};

fn setting() -> Setting {
    Setting {
        budget: Budget {
            tool_rounds: 3,
            tokens: Some(1000),
            wall: Duration::from_secs(100),
            stop_grace: Duration::from_secs(5),
        },
        tools: ["bash", "read_file"].into_iter().map(str::to_owned).collect(),
        known_ids: BTreeSet::new(),
        boundary: Boundary::stored("b0b0"),
        model: "m".to_owned(),
    }
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn usage(input: u64) -> TokenUsage {
    TokenUsage { input, output: 0, ..TokenUsage::default() }
}

fn says(text: &str, stop: StopReason) -> Event {
    let parts = vec![Part::Text { text: text.to_owned() }];
    Event::ModelReplied(ModelReply { parts, stop, usage: usage(10) }, 0)
}

fn wants_at(calls: &[(&str, &str, &str)], stop: StopReason, tokens: u64) -> Event {
    let parts = calls
        .iter()
        .map(|(id, name, arguments)| {
            Part::ToolCall(ToolCall {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                arguments: (*arguments).to_owned(),
            })
        })
        .collect();
    Event::ModelReplied(ModelReply { parts, stop, usage: usage(tokens) }, 0)
}

fn wants(calls: &[(&str, &str, &str)]) -> Event {
    wants_at(calls, StopReason::ToolUse, 10)
}

fn ended(round: u32, index: usize, outcome: &str) -> Event {
    Event::ToolFinished(
        CallKey { round, index },
        CallEnding {
            outcome: outcome.to_owned(),
            summary: format!("outcome: {outcome}"),
            output: "data".to_owned(),
            wall: String::new(),
            call_id: None,
            exit_code: None,
            duration: Duration::ZERO,
        },
    )
}

/// Feeds the events at second 0 and gives one line an effect of the last.
fn last(turn: &mut Turn, events: Vec<Event>) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        lines = turn.handle(event, Duration::ZERO).iter().map(line).collect();
    }
    lines
}

fn line(effect: &Effect) -> String {
    match effect {
        Effect::Persist(entry) => match entry {
            Entry::CallBegun { call } => format!("journal begun {}", call.id),
            Entry::CallEnded { answer, outcome } => format!("journal ended {} {outcome}", answer.id),
            Entry::TurnEnded { ending } => format!("journal end {}", ending.name()),
            Entry::TurnStarted { .. } => "journal start".to_owned(),
            Entry::Asked { round } => format!("journal asked {round}"),
            Entry::Replied { .. } => "journal replied".to_owned(),
            Entry::MessageArrived { .. } => "journal message".to_owned(),
            Entry::Noted { .. } => "journal note".to_owned(),
            Entry::Summarised { .. } | Entry::TakenBack { .. } => "journal ?".to_owned(),
        },
        Effect::AskModel(messages) => format!("ask with {}", messages.len()),
        Effect::AbandonModel => "abandon".to_owned(),
        Effect::RunTool(key, call) => format!("run {}.{} {}", key.round, key.index, call.id),
        Effect::CancelTools => "cancel tools".to_owned(),
        Effect::Show(Show::ToolBegun { name, .. }) => format!("show begun {name}"),
        Effect::Show(Show::ToolEnded { outcome, .. }) => format!("show ended {outcome}"),
        Effect::Show(Show::Note(_)) => "show note".to_owned(),
        Effect::Finish(finished) => format!("finish {} {:?}", finished.ending.name(), finished.reply),
    }
}

fn begun() -> Turn {
    let mut turn = Turn::new(setting());
    let lines = last(&mut turn, vec![Event::Start(user("hi"))]);
    assert_eq!(lines, ["journal start", "journal asked 1", "ask with 1"]);
    turn
}

#[test]
fn plain_answer_ends_the_turn() {
    let lines = last(&mut begun(), vec![says("hello", StopReason::EndTurn)]);
    assert_eq!(lines, ["journal replied", "journal end answered", "finish answered \"hello\""]);
}

#[test]
fn calls_are_journalled_before_any_of_them_runs_and_asked_on_when_all_answered() {
    let mut turn = begun();
    let lines = last(&mut turn, vec![wants(&[("a", "bash", "{}"), ("b", "read_file", "{}")])]);
    let expected = [
        "journal replied",
        "journal begun a",
        "journal begun b",
        "show begun bash",
        "run 1.0 a",
        "show begun read_file",
        "run 1.1 b",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        last(&mut turn, vec![ended(1, 1, "completed")]),
        ["show ended completed", "journal ended b completed"]
    );
    let lines = last(&mut turn, vec![ended(1, 0, "denied")]);
    assert_eq!(lines, ["show ended denied", "journal ended a denied", "journal asked 2", "ask with 3"]);
}

#[test]
fn second_ending_of_the_same_call_changes_nothing() {
    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}"), ("b", "bash", "{}")]), ended(1, 0, "completed")]);
    assert!(last(&mut turn, vec![ended(1, 0, "completed")]).is_empty());
    assert!(last(&mut turn, vec![ended(7, 3, "completed")]).is_empty());
}

#[test]
fn malformed_or_unknown_calls_are_answered_and_not_run() {
    for (name, arguments) in
        [("bash", "{\"command\": \"ls"), ("bash", "[1]"), ("bash", "\"x\""), ("sudo", "{}"), ("", "{}")]
    {
        let lines = last(&mut begun(), vec![wants(&[("a", name, arguments)])]);
        let expected = [
            "journal replied",
            "show ended not_run",
            "journal ended a not_run",
            "journal asked 2",
            "ask with 3",
        ];
        assert_eq!(lines, expected, "{name} {arguments}");
    }
    let long = format!("{{\"command\": \"{}\"}}", "x".repeat(oxibot_proto::message::MAX_ARGUMENTS));
    assert!(
        last(&mut begun(), vec![wants(&[("a", "bash", &long)])]).contains(&"show ended not_run".to_owned())
    );
    assert!(last(&mut begun(), vec![wants(&[("a", "bash", " ")])]).contains(&"run 1.0 a".to_owned()));
}

#[test]
fn missing_and_repeated_ids_become_unique() {
    let mut turn = Turn::new(Setting { known_ids: BTreeSet::from(["old".to_owned()]), ..setting() });
    last(&mut turn, vec![Event::Start(user("x"))]);
    let lines = last(
        &mut turn,
        vec![wants(&[("", "bash", "{}"), ("old", "bash", "{}"), ("a", "bash", "{}"), ("a", "bash", "{}")])],
    );
    let mut begun: Vec<_> = lines.iter().filter(|line| line.starts_with("journal begun")).collect();
    assert_eq!(begun.len(), 4);
    begun.dedup();
    assert_eq!(begun.len(), 4);
    assert!(!lines.contains(&"journal begun old".to_owned()));
}

#[test]
fn empty_reply_is_asked_again_once() {
    let mut turn = begun();
    let lines = last(&mut turn, vec![says("", StopReason::EndTurn)]);
    assert_eq!(lines, ["journal replied", "journal note", "journal asked 2", "ask with 2"]);
    let lines = last(&mut turn, vec![says(" \n", StopReason::EndTurn)]);
    assert_eq!(lines, ["journal replied", "journal end empty", "finish empty \"\""]);
}

#[test]
fn length_stop_keeps_the_text_and_does_not_run_the_last_call() {
    let lines = last(&mut begun(), vec![says("half", StopReason::Length)]);
    assert!(lines.contains(&"finish cut_short \"half\"".to_owned()));
    let calls = [("a", "bash", "{}"), ("b", "bash", "{}")];
    let lines = last(&mut begun(), vec![wants_at(&calls, StopReason::Length, 1)]);
    assert!(lines.contains(&"run 1.0 a".to_owned()) && lines.contains(&"journal ended b not_run".to_owned()));
}

#[test]
fn refusal_ends_the_turn_and_runs_nothing() {
    let lines = last(&mut begun(), vec![wants_at(&[("a", "bash", "{}")], StopReason::Refusal, 1)]);
    assert_eq!(lines, ["journal replied", "journal end refused", "finish refused \"\""]);
}

#[test]
fn provider_error_ends_the_turn_and_enters_no_message() {
    let fault = MindFault {
        kind: "rate_limited".to_owned(),
        message: "429 SECRET-BODY".to_owned(),
        remedy: "wait".to_owned(),
        class: FaultClass::TryAgain,
    };
    let mut turn = begun();
    let effects = turn.handle(Event::ModelFailed(fault.clone()), Duration::ZERO);
    for effect in &effects {
        if let Effect::Persist(entry) = effect {
            assert!(!serde_json::to_string(entry).unwrap().contains("SECRET-BODY"));
        }
    }
    let Some(Effect::Finish(finished)) = effects.last() else { panic!("{effects:?}") };
    assert_eq!((finished.ending, finished.fault.clone()), (Ending::ProviderFailed, Some(fault)));
    assert_eq!(turn.transcript.messages().iter().filter(|m| m.role == Role::Assistant).count(), 0);
}

#[test]
fn rounds_are_bounded_and_the_model_has_the_last_word() {
    let mut turn = begun();
    for round in 1..=3 {
        last(&mut turn, vec![wants(&[("", "bash", "{}")]), ended(round, 0, "completed")]);
    }
    let lines = last(&mut turn, vec![wants(&[("z", "bash", "{}")])]);
    let expected = [
        "journal replied",
        "show ended not_run",
        "journal ended z not_run",
        "journal note",
        "journal asked 5",
        "ask with 10",
    ];
    assert_eq!(lines, expected);
    let lines = last(&mut turn, vec![wants(&[("y", "bash", "{}")])]);
    assert!(lines.contains(&"finish iterations \"\"".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("run")));
}

#[test]
fn tokens_are_bounded_and_an_answer_is_never_thrown_away() {
    let lines = last(&mut begun(), vec![wants_at(&[("a", "bash", "{}")], StopReason::ToolUse, 1000)]);
    assert!(lines.contains(&"finish tokens \"\"".to_owned()) && !lines.iter().any(|l| l.starts_with("run")));
    let parts = vec![Part::Text { text: "costly".to_owned() }];
    let reply = ModelReply { parts, stop: StopReason::EndTurn, usage: usage(5000) };
    let lines = last(&mut begun(), vec![Event::ModelReplied(reply, 0)]);
    assert!(lines.contains(&"finish answered \"costly\"".to_owned()));
}

#[test]
fn time_is_bounded_while_asking_and_while_calling() {
    let at = Duration::from_secs;
    let mut turn = begun();
    assert_eq!(turn.deadline(), Some(at(100)));
    let lines: Vec<_> = turn.handle(Event::Tick, at(100)).iter().map(line).collect();
    assert_eq!(lines, ["abandon", "journal end time", "finish time \"\""]);

    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}")])]);
    assert!(turn.handle(Event::Tick, at(99)).is_empty());
    assert_eq!(turn.handle(Event::Tick, at(100)).iter().map(line).collect::<Vec<_>>(), ["cancel tools"]);
    assert_eq!(turn.deadline(), Some(at(105)));
    let lines: Vec<_> = turn.handle(Event::Tick, at(105)).iter().map(line).collect();
    let expected = ["show ended unknown", "journal ended a unknown", "journal end time", "finish time \"\""];
    assert_eq!(lines, expected);
    assert!(turn.handle(ended(1, 0, "completed"), at(106)).is_empty());
}

#[test]
fn cancel_waits_for_the_calls_and_a_second_cancel_does_not() {
    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}")])]);
    assert_eq!(last(&mut turn, vec![Event::Cancel]), ["cancel tools"]);
    let lines = last(&mut turn, vec![ended(1, 0, "cancelled")]);
    assert!(lines.contains(&"finish cancelled \"\"".to_owned()));

    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}")]), Event::Cancel]);
    let lines = last(&mut turn, vec![Event::Cancel]);
    assert!(lines.contains(&"journal ended a unknown".to_owned()) && lines.len() == 4, "{lines:?}");
    let lines = last(&mut begun(), vec![Event::Cancel]);
    assert_eq!(lines, ["abandon", "journal end cancelled", "finish cancelled \"\""]);
}

#[test]
fn same_failing_call_is_stopped_and_a_deaf_model_too() {
    let mut turn = Turn::new(Setting { budget: Budget { tool_rounds: 50, ..setting().budget }, ..setting() });
    last(&mut turn, vec![Event::Start(user("x"))]);
    for round in 1..=checks::SAME_FAILURES {
        // Spacing and order of keys make no other call of it.
        let arguments = if round == 1 { "{\"a\":1,\"b\":2}" } else { "{ \"b\": 2, \"a\": 1 }" };
        last(&mut turn, vec![wants(&[("", "bash", arguments)]), ended(round, 0, "failed")]);
    }
    let again = || wants(&[("", "bash", "{\"a\":1,\"b\":2}")]);
    let lines = last(&mut turn, vec![again()]);
    assert!(lines.contains(&"show ended not_run".to_owned()) && lines.contains(&"ask with 9".to_owned()));
    last(&mut turn, vec![again()]);
    let lines = last(&mut turn, vec![again()]);
    assert!(lines.contains(&"finish stuck \"\"".to_owned()), "{lines:?}");
}

#[test]
fn message_during_a_turn_is_seen_with_the_next_request() {
    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}")]), Event::Message(user("and also"))]);
    let lines = last(&mut turn, vec![ended(1, 0, "completed")]);
    assert!(lines.contains(&"ask with 4".to_owned()), "{lines:?}");

    let mut turn = begun();
    last(&mut turn, vec![Event::Message(user("wait"))]);
    let lines = last(&mut turn, vec![says("hello", StopReason::EndTurn)]);
    assert_eq!(lines, ["journal replied", "journal asked 2", "ask with 3"]);
    assert_eq!(turn.transcript.messages()[2], user("wait"));
}

#[test]
fn output_is_handed_on_delimited() {
    let mut turn = begun();
    last(&mut turn, vec![wants(&[("a", "bash", "{}")]), ended(1, 0, "completed")]);
    let messages = turn.transcript.messages();
    let Part::ToolResult(answer) = &messages[2].parts[0] else { panic!("{messages:?}") };
    assert_eq!(answer.text, "outcome: completed\n<<<tool output b0b0\ndata\nb0b0 end of tool output>>>");
    assert!(!answer.is_error);
}
