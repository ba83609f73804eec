//! Conversations at a scripted prompt: what each command does, and what ends the program.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::agent::allowance::{Allowance, Sender};
use crate::agent::fakes::{FakeHands, FakeMind, Line as Said};
use crate::agent::hands::BoxFuture;
use crate::agent::runner::{Agent, Terms};
use crate::agent::turn::Budget;
use crate::repl::screen::Detail;
use crate::repl::screen::tests::{Page, screen};
use crate::store::{Expiry, Store};

struct Script(VecDeque<Typed>);

impl Script {
    fn of(lines: &[&str]) -> Self {
        let typed = |line: &&str| match *line {
            "^C" => Typed::Interrupted,
            line => Typed::Line(line.to_owned()),
        };
        Self(lines.iter().map(typed).collect())
    }
}

impl Ask for Script {
    fn line<'a>(&'a mut self, _text: &'a str) -> BoxFuture<'a, Typed> {
        Box::pin(std::future::ready(self.0.pop_front().unwrap_or(Typed::End)))
    }
    fn abandon(&mut self) {}
}

struct Stage {
    desk: Desk,
    mind: Arc<FakeMind>,
    out: Page,
    err: Page,
    _dir: tempfile::TempDir,
}

fn stage(lines: impl IntoIterator<Item = Said>) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let mind = Arc::new(FakeMind::new(lines));
    let agent = Agent {
        store: Store::open(&dir.path().join("state")).unwrap(),
        hands: Arc::new(FakeHands::with_files(&[("cat.png", b"\x89PNG\r\n\x1a\n...")])),
        mind: mind.clone(),
        tools: Vec::new(),
        tool_names: BTreeSet::new(),
        workspace: "/w".to_owned(),
        level: "full".to_owned(),
        expiry: Expiry { idle: None, absolute: None },
    };
    let terms = Terms {
        model: "gpt-4o".to_owned(),
        budget: Budget {
            tool_rounds: 5,
            tokens: None,
            wall: Duration::from_secs(60),
            stop_grace: Duration::from_secs(1),
        },
        window: 20_000,
        max_tokens: 1_000,
        temperature: None,
        reasoning_effort: None,
    };
    let (screen, out, err) = screen(true, false, Detail::All);
    let other: Arc<FakeMind> = mind.clone();
    let allowance = Allowance::new(oxibot_proto::settings::Senders::default(), agent.store.clone());
    let desk = Desk {
        agent,
        terms,
        session: "terminal:t".to_owned(),
        open_mind: Box::new(move |model| {
            if model == "nowhere/x" {
                Err("cannot use model nowhere/x".to_owned())
            } else {
                Ok(other.clone())
            }
        }),
        vision: None,
        screen: screen.into(),
        allowance,
        sender: Sender { channel: "terminal".to_owned(), who: "u".to_owned() },
    };
    Stage { desk, mind, out, err, _dir: dir }
}

impl Stage {
    async fn play(&mut self, lines: &[&str]) -> Exit {
        run(&mut self.desk, &mut Script::of(lines)).await.unwrap()
    }

    /// The users' and assistant's words of each request.
    fn asked(&self) -> Vec<String> {
        let asked = self.mind.asked.lock().unwrap();
        asked
            .iter()
            .map(|request| {
                let texts: Vec<_> = request.messages.iter().skip(1).map(|m| m.joined_text()).collect();
                format!("{}: {}", request.model, texts.join(" / "))
            })
            .collect()
    }
}

#[tokio::test]
async fn conversation_goes_on_until_new_begins_another() {
    let mut stage = stage([Said::Say("one"), Said::Say("two"), Said::Say("three")]);
    let exit = stage.play(&["hello", "more", "/new", "fresh", "/exit", "never"]).await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        stage.asked(),
        ["gpt-4o: hello", "gpt-4o: hello / one / more", "gpt-4o: fresh"],
        "the third begins without the past"
    );
    assert_eq!(stage.out.text(), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn interrupt_at_the_prompt_leaves_only_when_said_twice_in_a_row() {
    let mut stage = stage([Said::Say("one")]);
    assert_eq!(stage.play(&["^C", "hello", "^C", "^C", "never"]).await, Exit::Done);
    assert_eq!(stage.asked().len(), 1);
    assert!(stage.err.text().contains("[Ctrl-C again leaves]"));
}

#[tokio::test]
async fn model_can_be_changed_and_one_that_cannot_be_used_is_not() {
    let mut stage = stage([Said::Say("one")]);
    let _ = stage.play(&["/model", "/model nowhere/x", "/model a/b", "hello"]).await;
    assert_eq!(stage.asked(), ["a/b: hello"]);
    assert!(stage.out.text().starts_with("gpt-4o\n"));
    assert!(stage.err.text().contains("cannot use model nowhere/x; still gpt-4o"), "{}", stage.err.text());
}

#[tokio::test]
async fn images_go_with_the_next_message_only_and_blind_models_get_none() {
    let mut stage = stage([Said::Say("a cat"), Said::Say("ok"), Said::Say("I see nothing")]);
    let _ = stage
        .play(&["/image cat.png", "what is it?", "thanks", "/model deepseek-chat", "and ![](cat.png)?"])
        .await;
    let asked = stage.mind.asked.lock().unwrap();
    let images = |index: usize| {
        let parts = asked[index].messages.iter().flat_map(|message| &message.parts);
        parts.filter(|part| matches!(part, Part::Image { .. })).count()
    };
    assert_eq!((images(0), images(1)), (1, 1), "the second request still shows the first message");
    assert_eq!(asked[1].messages.last().unwrap().parts.len(), 1);
    assert!(stage.err.text().contains("deepseek-chat is not known to see images"), "{}", stage.err.text());
}

#[tokio::test]
async fn failed_turn_is_explained_and_retry_asks_again() {
    let fault = crate::agent::hands::MindFault {
        kind: "network".to_owned(),
        message: "cannot reach the provider".to_owned(),
        remedy: "check the network".to_owned(),
        class: crate::agent::hands::FaultClass::TryAgain,
    };
    let mut stage = stage([Said::Fail(fault), Said::Say("now")]);
    let _ = stage.play(&["/retry", "hello", "/retry", "/status", "/usage", "/nonsense", "/help"]).await;
    assert_eq!(stage.asked(), ["gpt-4o: hello", "gpt-4o: hello"]);
    let err = stage.err.text();
    assert!(err.contains("no message to send again"), "{err}");
    assert!(err.contains("oxibot: cannot reach the provider\n  check the network\n"), "{err}");
    assert!(err.contains("there is no command /nonsense"), "{err}");
    let out = stage.out.text();
    assert!(out.contains("now\n") && out.contains("sandbox    full") && out.contains("/retry"), "{out}");
    assert!(out.lines().all(|line| line.len() <= 80), "{out}");
}

#[test]
fn banner_fits_80_columns_and_loses_no_word() {
    let words = format!("oxibot, model {}, sandbox full, session terminal:default. /help", "m/".repeat(30));
    let shown = lines(&words);
    assert!(shown.len() > 1 && shown.iter().all(|line| line.chars().count() <= 80), "{shown:?}");
    assert_eq!(shown.join(" "), words);
    assert_eq!(lines("oxibot, model m."), ["oxibot, model m."]);
}
