//! Whole conversations with a scripted model and scripted tools, against a real store.

use std::sync::Mutex;

use super::*;
use crate::agent::fakes::{Act, FakeHands, FakeMind, Line};
use crate::agent::hands::{FaultClass, MindFault};
use crate::agent::turn::assert_paired;
use crate::model::{ModelRequest, Part, Role};
use crate::store::Ending;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

impl Audience for Heard {
    fn text(&self, delta: &str) {
        self.add(format!("text {delta}"));
    }
    fn restarted(&self) {
        self.add("restarted".to_owned());
    }
    fn reply_ended(&self) {
        self.add("reply ended".to_owned());
    }
    fn show(&self, show: &Show) {
        self.add(match show {
            Show::ToolBegun { name, arguments } => format!("begun {name} {arguments}"),
            Show::ToolEnded { name, outcome, summary } => format!("ended {name} {outcome}: {summary}"),
            Show::Note(text) => format!("note {text}"),
        });
    }
    fn progress(&self, key: CallKey, tool: &str, progress: CallProgress) {
        self.add(format!("progress {}.{} {tool} {:?}", key.round, key.index, progress.elapsed));
    }
}

struct Bench {
    agent: Agent,
    mind: Arc<FakeMind>,
    hands: Arc<FakeHands>,
    heard: Heard,
    inbox: mpsc::Receiver<Input>,
    send: mpsc::Sender<Input>,
    dir: tempfile::TempDir,
}

fn terms() -> Terms {
    Terms {
        model: "m".to_owned(),
        budget: Budget {
            tool_rounds: 5,
            tokens: None,
            wall: Duration::from_secs(600),
            stop_grace: Duration::from_millis(500),
        },
        window: 20_000,
        max_tokens: 1_000,
        temperature: None,
        reasoning_effort: None,
    }
}

impl Bench {
    fn new(hands: FakeHands, lines: impl IntoIterator<Item = Line>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let mind = Arc::new(FakeMind::new(lines));
        let hands = Arc::new(hands);
        let tool = OfferedTool {
            name: "bash".to_owned(),
            description: "runs".to_owned(),
            parameters: serde_json::json!({"type": "object"}),
        };
        let agent = Agent {
            store,
            hands: hands.clone(),
            mind: mind.clone(),
            tools: vec![tool],
            tool_names: BTreeSet::from(["bash".to_owned(), "exec".to_owned()]),
            workspace: "/w".to_owned(),
            level: "full".to_owned(),
            expiry: Expiry { idle: None, absolute: None },
        };
        let (send, inbox) = mpsc::channel(8);
        Self { agent, mind, hands, heard: Heard::default(), inbox, send, dir }
    }

    async fn say(&mut self, text: &str) -> Finished {
        let session = self.agent.session("terminal:t").await.unwrap();
        let message = Message::text(Role::User, text);
        self.agent.turn(&session, &terms(), message, &self.heard, &mut self.inbox).await.unwrap()
    }

    async fn journal(&self) -> Vec<Entry> {
        let session = self.agent.session("terminal:t").await.unwrap().id;
        let entries = self.agent.store.run(move |d| d.entries(session)).await.unwrap();
        entries.into_iter().map(|stored| stored.entry).collect()
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.0.lock().unwrap())
    }

    fn last_request(&self) -> ModelRequest {
        self.mind.asked.lock().unwrap().last().unwrap().clone()
    }
}

/// What the model was sent, one line a part, the boundary replaced.
fn transcript(request: &ModelRequest, boundary: &str) -> String {
    let mut out = String::new();
    for message in request.messages.iter().skip(1) {
        for part in &message.parts {
            let line = match part {
                Part::Text { text } => format!("{:?}: {text}", message.role),
                Part::Image { media_type, .. } => format!("{:?}: image {media_type}", message.role),
                Part::Reasoning(_) => "reasoning".to_owned(),
                Part::ToolCall(call) => format!("call {} {} {}", call.id, call.name, call.arguments),
                Part::ToolResult(answer) => {
                    format!("result {} error={} {}", answer.id, answer.is_error, answer.text)
                }
            };
            out.push_str(&line.replace(boundary, "MARK"));
            out.push('\n');
        }
    }
    out
}

/// Waits for a state, however slow the machine is.
async fn until(reached: impl Fn() -> bool) {
    while !reached() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn golden_transcript_of_a_conversation() {
    let hands = FakeHands::with_files(&[("AGENTS.md", b"Be brief.")]);
    let mut bench = Bench::new(
        hands,
        [
            Line::Call(&[("bash", "{\"command\":\"ls\"}"), ("nope", "{}"), ("bash", "{\"command\":")]),
            Line::Say("Two files."),
            Line::Call(&[("exec", "{\"command\":\"wc\"}")]),
            Line::Say("Done."),
        ],
    );
    let first = bench.say("what is here?").await;
    assert_eq!((first.ending, first.reply.as_str()), (Ending::Answered, "Two files."));
    assert_eq!(first.usage.input, 200);
    let outcomes: Vec<_> = first.calls.iter().map(|call| call.outcome.as_str()).collect();
    assert_eq!(outcomes, ["completed", "not_run", "not_run"]);
    bench.say("count them").await;
    let session = bench.agent.session("terminal:t").await.unwrap();
    let request = bench.last_request();
    assert_eq!(
        transcript(&request, &session.boundary),
        "\
User: what is here?
call v0 bash {\"command\":\"ls\"}
call v1 nope {}
call v2 bash {\"command\":
result v0 error=false outcome: completed
<<<tool output MARK
{\"command\":\"ls\"}
MARK end of tool output>>>
result v1 error=true not run: there is no tool of that name; there are: bash, exec
result v2 error=true not run: the arguments are not valid JSON (EOF while parsing a value at line 1 column 11); send one JSON object
Assistant: Two files.
User: count them
call call_1_0_0 exec {\"command\":\"wc\"}
result call_1_0_0 error=false outcome: completed
<<<tool output MARK
{\"command\":\"wc\"}
MARK end of tool output>>>
"
    );
    let system = request.messages[0].joined_text();
    assert!(system.contains("Be brief.") && system.contains(&session.boundary), "{system}");
    assert_eq!(
        bench.heard()[..6],
        [
            "reply ended",
            "ended nope not_run: there is no tool of that name; there are: bash, exec",
            "ended bash not_run: the arguments are not valid JSON (EOF while parsing a value at line 1 column 11); send one JSON object",
            "begun bash {\"command\":\"ls\"}",
            "progress 1.0 bash 2s",
            "ended bash completed: outcome: completed",
        ]
    );
}

#[tokio::test]
async fn provider_error_is_shown_and_never_kept_and_retry_does_not_repeat_the_message() {
    let fault = MindFault {
        kind: "overloaded".to_owned(),
        message: "529 SECRET-BODY".to_owned(),
        remedy: "try again".to_owned(),
        class: FaultClass::TryAgain,
    };
    let mut bench = Bench::new(FakeHands::default(), [Line::Fail(fault.clone()), Line::Say("hello")]);
    let finished = bench.say("hi").await;
    assert_eq!((finished.ending, finished.fault), (Ending::ProviderFailed, Some(fault)));
    let stored = serde_json::to_string(&bench.journal().await).unwrap();
    assert!(!stored.contains("SECRET-BODY") && !stored.contains("overloaded"));

    let session = bench.agent.session("terminal:t").await.unwrap();
    let message = bench.agent.retry(&session).await.unwrap().unwrap();
    assert_eq!(message.joined_text(), "hi");
    bench.say("hi").await;
    assert_eq!(transcript(&bench.last_request(), "-"), "User: hi\n");
}

#[tokio::test]
async fn killed_turn_is_unknown_to_model_and_person_and_the_call_never_runs_again() {
    let hands = FakeHands::default().act("{\"command\":\"pay\"}", Act::Deaf);
    let mut bench = Bench::new(
        hands,
        [Line::Call(&[("bash", "{\"command\":\"pay\"}")]), Line::Say("I cannot tell whether it was paid.")],
    );
    let hands = bench.hands.clone();
    {
        // The process dies while the call runs: the turn's future is dropped where it stands.
        let turn = bench.say("pay the bill");
        tokio::pin!(turn);
        let ran = || hands.ran.lock().unwrap().len() == 1;
        tokio::select! { _ = &mut turn => panic!("it hangs"), () = until(ran) => {} }
    }
    assert_eq!(bench.hands.ran.lock().unwrap().len(), 1);
    let home = bench.dir.path().join("state");
    bench.agent.store = Store::open(&home).unwrap();
    bench.heard();
    bench.say("was it paid?").await;
    assert_eq!(bench.hands.ran.lock().unwrap().len(), 1, "not run again");
    let request = bench.last_request();
    let text = transcript(&request, "-");
    assert!(text.contains("result v0 error=true unknown outcome"), "{text}");
    assert!(text.contains("OxiBot was ended here"), "{text}");
    assert_paired(&request.messages);
    assert!(bench.heard()[0].contains("Their outcome is unknown; they were not run again"));
    bench.say_nothing_new_about_the_past().await;
}

impl Bench {
    /// Recovery is told once, not with every turn.
    async fn say_nothing_new_about_the_past(&mut self) {
        let ends = |entries: &[Entry]| {
            entries.iter().filter(|e| matches!(e, Entry::TurnEnded { ending: Ending::Interrupted })).count()
        };
        assert_eq!(ends(&self.journal().await), 1);
    }
}

#[tokio::test]
async fn cancel_ends_a_hanging_request_and_a_hanging_call() {
    let hands = FakeHands::default().act("{\"a\":1}", Act::Hang).act("{\"a\":2}", Act::Deaf);
    let mut bench = Bench::new(
        hands,
        [
            Line::Hang,
            Line::Call(&[("bash", "{\"a\":1}")]),
            Line::Call(&[("bash", "{\"a\":2}")]),
            Line::Say("ok"),
        ],
    );
    let mut outcomes = Vec::new();
    for round in 0..3 {
        let (send, mind, hands) = (bench.send.clone(), bench.mind.clone(), bench.hands.clone());
        let cancel = async move {
            until(|| mind.asked.lock().unwrap().len() > round && hands.ran.lock().unwrap().len() >= round)
                .await;
            send.send(Input::Cancel).await.unwrap();
        };
        let (finished, ()) = tokio::join!(bench.say("go"), cancel);
        assert_eq!(finished.ending, Ending::Cancelled);
        outcomes.extend(finished.calls.into_iter().map(|call| call.outcome));
    }
    assert_eq!(outcomes, ["cancelled", "unknown"]);
    assert_eq!(bench.say("and now?").await.ending, Ending::Answered);
    assert_paired(&bench.last_request().messages);
}

#[tokio::test]
async fn many_calls_of_one_reply_run_a_few_at_once_and_all_are_answered() {
    const MANY: &[(&str, &str)] = &[("bash", "{}"); 40];
    let mut bench = Bench::new(FakeHands::default(), [Line::Call(MANY), Line::Say("ok")]);
    let finished = bench.say("go").await;
    assert_eq!(finished.calls.iter().filter(|call| call.outcome == "completed").count(), 40);
    assert_eq!(bench.hands.ran.lock().unwrap().len(), 40);
}

#[tokio::test]
async fn second_turn_in_a_running_conversation_is_busy() {
    let mut bench = Bench::new(FakeHands::default(), [Line::Hang]);
    let other = bench.agent.clone();
    let session = other.session("terminal:t").await.unwrap();
    let send = bench.send.clone();
    let mind = bench.mind.clone();
    let second = async move {
        until(|| mind.asked.lock().unwrap().len() == 1).await;
        let (_send, mut inbox) = mpsc::channel(1);
        let message = Message::text(Role::User, "me too");
        let result = other.turn(&session, &terms(), message, &Heard::default(), &mut inbox).await;
        assert!(matches!(result, Err(AgentError::Store(StoreError::Busy { .. }))));
        send.send(Input::Cancel).await.unwrap();
    };
    tokio::join!(bench.say("first"), second);
}

#[tokio::test]
async fn long_conversation_is_summarised_and_the_original_kept() {
    const LONG: &str = "{\"command\":\"LONG\"}";
    let mut lines: Vec<Line> =
        (0..12).flat_map(|_| [Line::Call(&[("bash", LONG)]), Line::Say("fine")]).collect();
    // The fake counts few tokens, so estimates are halved: the eleventh turn is the first that does not fit.
    lines.insert(20, Line::Say("SUMMARY OF OLD TURNS"));
    let mut bench = Bench::new(FakeHands::default(), lines);
    let question = "q".repeat(6_000);
    let mut terms = terms();
    terms.window = 9_300;
    let session = bench.agent.session("terminal:t").await.unwrap();
    for _ in 0..12 {
        let message = Message::text(Role::User, question.clone());
        let finished =
            bench.agent.turn(&session, &terms, message, &bench.heard, &mut bench.inbox).await.unwrap();
        assert_eq!(finished.ending, Ending::Answered);
    }
    let journal = bench.journal().await;
    let starts = journal.iter().filter(|entry| matches!(entry, Entry::TurnStarted { .. })).count();
    assert_eq!(starts, 12, "the originals stay");
    let summaries: Vec<_> =
        journal.iter().filter(|entry| matches!(entry, Entry::Summarised { .. })).collect();
    assert_eq!(summaries.len(), 1, "{:?}", bench.heard());
    let request = bench.last_request();
    let text = transcript(&request, &session.boundary);
    assert!(text.contains("<<<summary MARK\n"), "{text}");
    assert_paired(&request.messages);
    assert!(history::estimate(&request.messages) < 2 * 9_300);
}

#[tokio::test]
async fn failed_summary_leaves_old_turns_out_and_the_turn_goes_on() {
    let fault = MindFault {
        kind: "k".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
        class: FaultClass::Failed,
    };
    let mut bench = Bench::new(
        FakeHands::default(),
        [Line::Say("1"), Line::Say("2"), Line::Say("3"), Line::Fail(fault), Line::Say("4")],
    );
    let mut terms = terms();
    terms.window = 3_300;
    let session = bench.agent.session("terminal:t").await.unwrap();
    for _ in 0..4 {
        let message = Message::text(Role::User, "q".repeat(5_000));
        bench.agent.turn(&session, &terms, message, &bench.heard, &mut bench.inbox).await.unwrap();
    }
    assert!(bench.heard().iter().any(|line| line.contains("are left out of this request")));
}

#[tokio::test]
async fn request_that_is_too_long_for_the_model_is_made_shorter() {
    let fault = MindFault {
        kind: "context_too_long".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
        class: FaultClass::TooLong,
    };
    let mut bench = Bench::new(
        FakeHands::default(),
        [
            Line::Say("1"),
            Line::Say("2"),
            Line::Say("3"),
            Line::Fail(fault),
            Line::Say("SUMMARY"),
            Line::Say("4"),
        ],
    );
    let mut terms = terms();
    // The configured window is larger than the model's: only the provider's error tells.
    terms.window = 5_000;
    let session = bench.agent.session("terminal:t").await.unwrap();
    let mut endings = Vec::new();
    for _ in 0..4 {
        let message = Message::text(Role::User, "q".repeat(5_000));
        let finished =
            bench.agent.turn(&session, &terms, message, &bench.heard, &mut bench.inbox).await.unwrap();
        endings.push((finished.ending, finished.reply));
    }
    assert_eq!(endings[3], (Ending::Answered, "4".to_owned()));
    assert!(transcript(&bench.last_request(), "-").contains("SUMMARY"));
}
