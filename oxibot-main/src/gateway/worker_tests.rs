//! One conversation at work, with a scripted model and a vendor that can be slow. What counts is what is in the outbox.

use oxibot_proto::message::{Outcome, ToMain, ToToolhost, TransferEnd};
use oxibot_proto::settings::Senders;
use tokio::time::timeout;

use super::super::exits::Exits;
use super::super::office::{Admins, House, Voice};
use super::super::rooms::Rooms;
use super::*;
use crate::agent::allowance::Allowance;
use crate::agent::fakes::{FakeHands, FakeMind, Line};
use crate::agent::hands::BoxFuture;
use crate::agent::turn::Budget;
use crate::broker::{Broker, Connection, fake, greet};
use crate::channels::split::{Limit, Unit};
use crate::channels::{Channel, ChannelFault, Intake, Reference, SendFault, Sender as Person};
use crate::store::{Expiry, Store};

const CONVERSATION: &str = "telegram:1";
/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A vendor that may never answer.
#[derive(Default)]
struct Vendor {
    silent: bool,
    seen: Mutex<Vec<String>>,
}

impl Vendor {
    async fn called(&self, what: String) {
        self.seen.lock().unwrap().push(what);
        if self.silent {
            std::future::pending::<()>().await;
        }
    }
}

impl Channel for Vendor {
    fn name(&self) -> &'static str {
        "telegram"
    }

    fn limit(&self) -> Limit {
        Limit { most: 4000, unit: Unit::Utf16 }
    }

    fn receive<'a>(&'a self, _intake: &'a dyn Intake) -> BoxFuture<'a, ChannelFault> {
        Box::pin(std::future::pending())
    }

    fn send<'a>(&'a self, letter: &'a Letter, _key: &'a str) -> BoxFuture<'a, Result<Reference, SendFault>> {
        Box::pin(async {
            self.called(letter.text.clone()).await;
            Ok("1".to_owned())
        })
    }

    fn edit<'a>(&'a self, letter: &'a Letter, _: &'a str) -> BoxFuture<'a, Result<(), SendFault>> {
        Box::pin(async {
            self.called(letter.text.clone()).await;
            Ok(())
        })
    }

    fn typing<'a>(&'a self, _target: &'a Target) -> BoxFuture<'a, ()> {
        Box::pin(self.called("typing".to_owned()))
    }
}

struct Bench {
    office: Arc<Office>,
    mind: Arc<FakeMind>,
    vendor: Arc<Vendor>,
    said: Mutex<u32>,
    _connection: Connection,
    _state: tempfile::TempDir,
}

impl Bench {
    async fn new(
        vendor: Vendor,
        senders: Senders,
        lines: impl IntoIterator<Item = Line> + Send + 'static,
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(&state.path().join("state")).unwrap();
        // A workspace without a file.
        let (stream, _thread) = fake::start(|fake| {
            while let Some(message) = fake.receive() {
                if let ToToolhost::Get(get) = message {
                    let outcome = Outcome::Failed { message: "no such file or directory".to_owned() };
                    fake.send(&ToMain::TransferEnd(TransferEnd { call: get.call, outcome, size: 0 }));
                }
            }
        });
        let greeted = tokio::task::spawn_blocking(move || greet(stream)).await.unwrap().unwrap();
        let (broker, connection) = Broker::start(greeted).unwrap();
        let mind = Arc::new(FakeMind::new(lines));
        let agent = Agent {
            store: store.clone(),
            hands: Arc::new(FakeHands::default()),
            mind: mind.clone(),
            tools: Vec::new(),
            tool_names: BTreeSet::new(),
            workspace: "/w".to_owned(),
            level: "full".to_owned(),
            expiry: Expiry { idle: None, absolute: None },
        };
        let terms = Terms {
            model: "m".to_owned(),
            budget: Budget {
                tool_rounds: 50,
                tokens: None,
                wall: Duration::from_secs(600),
                stop_grace: Duration::from_millis(500),
            },
            window: 200_000,
            max_tokens: 1_000,
            temperature: None,
            reasoning_effort: None,
        };
        let allowance = Allowance::new(senders, store);
        let open_mind = Box::new(|_: &str| Err("no other".to_owned()));
        let voice = Voice { agent, terms, open_mind, broker, allowance };
        let vendor = Arc::new(vendor);
        let post = Post::new(vendor.clone());
        let rooms = Rooms::new(crate::config::WorkspaceScope::Shared, state.path());
        let house = House { admins: Admins::default(), rooms };
        let office = Arc::new(Office::new(voice, [("telegram", post)].into(), house, Exits::default()));
        Self { office, mind, vendor, said: Mutex::new(0), _connection: connection, _state: state }
    }

    /// Somebody writes.
    async fn says(&self, who: &str, text: &str) {
        let number = {
            let mut said = self.said.lock().unwrap();
            *said += 1;
            *said
        };
        let inbound = Inbound {
            key: number.to_string(),
            sender: Person { id: who.to_owned(), handle: None, name: who.to_owned() },
            target: Target { chat: "1".to_owned(), thread: None, reply_to: None },
            direct: true,
            addressed: true,
            text: text.to_owned(),
            left_out: Vec::new(),
        };
        let body = serde_json::to_string(&inbound).unwrap();
        let store = self.office.store();
        store.run(move |d| d.receive("telegram", &inbound.key, CONVERSATION, &body, 1)).await.unwrap();
    }

    /// Works with these nudges waiting; `false` when it does not come to its end.
    async fn works(&self, waiting: &[Nudge]) -> bool {
        let (nudge, nudges) = mpsc::channel(16);
        for each in waiting {
            nudge.try_send(*each).unwrap();
        }
        timeout(PATIENCE, work(Arc::clone(&self.office), CONVERSATION.to_owned(), nudges)).await.is_ok()
    }

    /// Texts in the outbox, in order.
    async fn answers(&self) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let due = self.office.store().run(|d| d.due("telegram", i64::MAX, 1)).await.unwrap();
            let Some(first) = due.into_iter().next() else { return texts };
            texts.push(serde_json::from_str::<Letter>(&first.body).unwrap().text);
            self.office.store().run(move |d| d.delivered(first.id, "1", 1)).await.unwrap();
        }
    }

    /// What the model was asked, each time whole.
    fn asked(&self) -> Vec<String> {
        self.mind.asked.lock().unwrap().iter().map(|request| format!("{:?}", request.messages)).collect()
    }
}

#[tokio::test]
async fn stop_behind_more_messages_than_a_turn_can_wait_for_still_stops_it() {
    // Which of the two comes first is the runtime's choice: more than one try.
    for _ in 0..6 {
        let lines = std::iter::once(Line::Hang).chain((0..60).map(|_| Line::Say("later")));
        let unlimited = Senders { messages_per_minute: 0, ..Senders::default() };
        let bench = Bench::new(Vendor::default(), unlimited, lines.collect::<Vec<_>>()).await;
        for number in 0..=FOLDED + 4 {
            bench.says("ada", &format!("message {number}")).await;
        }
        assert!(bench.works(&[Nudge::More, Nudge::Stop]).await, "the conversation stands still");
        assert_eq!(bench.answers().await.first().map(String::as_str), Some("[stopped]"));
    }
}

#[tokio::test]
async fn vendor_that_does_not_answer_holds_no_turn_up() {
    let vendor = Vendor { silent: true, ..Vendor::default() };
    let bench = Bench::new(vendor, Senders::default(), [Line::Say("yes")]).await;
    bench.says("ada", "well?").await;
    assert!(bench.works(&[]).await, "the turn waits for the vendor");
    assert_eq!(bench.answers().await, ["yes"]);
    assert_eq!(bench.asked().len(), 1);
    assert_eq!(*bench.vendor.seen.lock().unwrap(), ["typing"]);
}

fn tight() -> Senders {
    Senders { messages_per_minute: 1, message_burst: 2, ..Senders::default() }
}

#[tokio::test]
async fn message_folded_into_a_turn_counts_like_any_other() {
    let bench = Bench::new(Vendor::default(), tight(), [Line::Hang]).await;
    for number in 0..5 {
        bench.says("ada", &format!("message {number}")).await;
    }
    assert!(bench.works(&[Nudge::More, Nudge::Stop]).await);
    let answers = bench.answers().await;
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers[0].starts_with("[I take 1 messages a minute; try again in "), "told once: {answers:?}");
    assert_eq!(answers[1], "[stopped]");
    let session = bench.office.voice.agent.session(CONVERSATION).await.unwrap().id;
    let entries = bench.office.store().run(move |d| d.entries(session)).await.unwrap();
    let taken = entries.iter().filter(|stored| matches!(stored.entry, Entry::MessageArrived { .. })).count();
    assert_eq!(taken, 1, "what was left of the allowance and no more: {entries:?}");
    assert_eq!(bench.office.store().run(|d| d.next_unanswered(CONVERSATION, 0)).await.unwrap(), None);
}

#[tokio::test]
async fn message_that_was_not_taken_any_more_is_paid_for_once() {
    // The turn is over before it takes the second message, which then has one of its own.
    let bench = Bench::new(Vendor::default(), tight(), [Line::Say("one"), Line::Say("two")]).await;
    bench.says("ada", "message 1").await;
    bench.says("ada", "message 2").await;
    let message = bench.office.store().run(|d| d.next_unanswered(CONVERSATION, 1)).await.unwrap().unwrap();
    let inbound: Inbound = serde_json::from_str(&message.body).unwrap();
    let paid = Paid::default();
    for _ in 0..4 {
        assert!(admitted(&bench.office, &message, &inbound, &paid).await.unwrap());
    }
    assert!(bench.works(&[]).await);
    assert!(bench.answers().await[1].starts_with("[I take 1 "), "two were paid for: one here, one there");
}

#[tokio::test]
async fn message_of_another_person_has_a_turn_of_its_own_and_is_charged_to_them() {
    let bench =
        Bench::new(Vendor::default(), Senders::default(), [Line::Say("to ada"), Line::Say("to bob")]).await;
    bench.says("ada", "first").await;
    bench.says("bob", "second").await;
    assert!(bench.works(&[Nudge::More]).await);
    assert_eq!(bench.answers().await, ["to ada", "to bob"]);
    assert_eq!(bench.asked().len(), 2);
    assert!(!bench.asked()[0].contains("second"), "{:?}", bench.asked());
}
