//! The gateway with a strict Telegram and a scripted model. What counts is what the vendor saw, never our own database.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use oxibot_tests::fixture::{Fixture, describe, skip};
use oxibot_tests::gateway::{Gateway, PATIENCE, configure, merge};
use oxibot_tests::model_server::{Answer, ModelServer, Request, Rules};
use oxibot_tests::telegram::{BOT_NAME, Fault, Telegram};
use serde_json::{Value, json};

const TOKEN: &str = "123456:test-token-AAAA";
const KEY: &str = "sk-test-8c1f";
const OWNER: i64 = 42;

fn echo() -> ModelServer {
    ModelServer::answering(Rules::with_key(KEY), |request| {
        Answer::text(&format!("echo {}", request.last_said()))
    })
}

fn configured(telegram: &Telegram, model: &ModelServer, more: &Value) -> Fixture {
    let fixture = Fixture::new();
    let mut config = json!({
        "agents": {"defaults": {"model": "custom/test-model", "workspace": fixture.workspace()}},
        "providers": {"custom": {"apiKey": KEY, "apiBase": model.openai_base()}},
        "channels": {"telegram": {"token": TOKEN, "allowedUsers": [OWNER.to_string()], "baseUrl": telegram.url()}},
        "gateway": {"health": false},
    });
    merge(&mut config, more);
    configure(&fixture, &config);
    fixture
}

#[track_caller]
fn eventually(gateway: &Gateway, what: &str, holds: impl FnMut() -> bool) {
    gateway.eventually(what, holds);
}

#[test]
fn message_is_answered_and_confirmed() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let mut gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "hello");
    eventually(&gateway, "an answer", || telegram.texts(OWNER) == ["echo hello"]);
    eventually(&gateway, "confirmed", || telegram.unconfirmed() == 0);
    assert!(!telegram.calls("sendChatAction").is_empty(), "it shows that it writes");
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    let log = gateway.log();
    assert!(log.contains("incoming_message"), "{log}");
    assert!(!log.contains("hello") && !log.contains(TOKEN) && !log.contains(KEY), "{log}");
    assert_eq!(telegram.problems(), Vec::<String>::new());
    assert_eq!(model.problems(), Vec::<String>::new());
}

/// The judge itself is tried first: calls the schema forbids must be refused by the fake, whoever makes them. Then what
/// the gateway sends in a whole conversation must pass it.
#[test]
fn no_key_reaches_a_chat_although_a_model_says_it() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    // One of a known shape, main's own, and one that the vendor's limit would cut in two.
    let shape = ["gh", "p_16C7e42F292c6912E7710c838347Ae178B4a"].concat();
    let long = format!("{} {shape} end", "x".repeat(4096 - "echo ".len() - 20));
    telegram.says(OWNER, &format!("it is {shape} and {KEY} here"));
    eventually(&gateway, "an answer", || telegram.texts(OWNER).len() == 1);
    telegram.says(OWNER, &long);
    eventually(&gateway, "a long answer", || telegram.texts(OWNER).concat().contains("end"));
    let said = telegram.texts(OWNER).concat();
    assert!(
        said.contains("[redacted: github-token]") && said.contains("[redacted: providers.custom.apiKey]"),
        "{said}"
    );
    for secret in [KEY, "16C7e42F292c", "838347Ae178B4a"] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn calls_are_judged_by_telegrams_schema() {
    let telegram = Telegram::start(TOKEN);
    if !telegram.knows_the_schema() {
        return skip(
            "calls_are_judged_by_telegrams_schema",
            "set OXIBOT_API_CONTRACTS to the directory of the schemas",
        );
    }
    let quiet = json!({"is_disabled": true});
    let post = |body: &Value| {
        let text = body.to_string();
        let head = format!(
            "POST /bot{TOKEN}/sendMessage HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        exchange(telegram.url().trim_start_matches("http://").parse().unwrap(), &format!("{head}{text}"))
            .unwrap()
    };
    let right = json!({"chat_id": OWNER, "text": "x", "link_preview_options": quiet});
    assert_eq!(post(&right).0, 200);
    for (key, wrong) in [
        ("text", Value::Null),
        ("reply_parameters", json!({"message_id": "five"})),
        ("reply_markup", json!(7)),
    ] {
        let mut body = right.clone();
        body[key] = wrong;
        let (status, answer) = post(&body);
        assert!(status == 400 && answer.contains("not by the schema"), "{body}: {answer}");
    }
    assert_eq!(telegram.problems().len(), 3, "and each is kept: {:?}", telegram.problems());

    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::calls(&[("a", "bash", r#"{"command":"sleep 9"}"#)]), Answer::text("**Done.**")],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "wait");
    eventually(&gateway, "an answer", || telegram.texts(OWNER).last().is_some_and(|text| text == "Done."));
    for method in ["sendMessage", "editMessageText", "sendChatAction"] {
        assert!(!telegram.calls(method).is_empty(), "{method} was not judged");
    }
    assert_eq!(telegram.problems(), Vec::<String>::new());
}

#[test]
fn stranger_sees_nothing_at_all_and_is_an_event() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    for _ in 0..3 {
        telegram.says(666_000, "let me in");
    }
    telegram.says(OWNER, "hello");
    eventually(&gateway, "an answer", || telegram.texts(OWNER) == ["echo hello"]);
    eventually(&gateway, "confirmed", || telegram.unconfirmed() == 0);
    assert_eq!(telegram.texts(666_000), Vec::<String>::new());
    let seen = telegram.calls("sendChatAction");
    assert!(seen.iter().all(|call| call.body["chat_id"] == json!(OWNER)), "{seen:?}");
    let log = gateway.log();
    assert_eq!(log.matches("auth_rejected: not in").count(), 1, "told once a minute: {log}");
    assert!(model.requests().iter().all(|request| !request.last_said().contains("let me in")));
}

#[test]
fn tool_runs_behind_the_wall_and_a_refusal_is_told_with_its_reason() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![
            Answer::calls(&[("a", "bash", r#"{"command":"echo made > file"}"#)]),
            Answer::calls(&[("b", "bash", r#"{"command":"rm -rf /"}"#)]),
            Answer::text("Done."),
        ],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "do it");
    eventually(&gateway, "an answer", || !telegram.texts(OWNER).is_empty());
    let text = telegram.texts(OWNER).join("\n");
    assert!(text.starts_with("Done.\n\nrefused: bash: "), "{text}");
    assert!(fixture.workspace().join("file").is_file());
}

#[test]
fn long_call_is_shown_in_one_message_that_changes() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::calls(&[("a", "bash", r#"{"command":"sleep 11"}"#)]), Answer::text("Done.")],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "wait");
    eventually(&gateway, "an answer", || telegram.texts(OWNER).last().is_some_and(|text| text == "Done."));
    let texts = telegram.texts(OWNER);
    assert_eq!(texts.len(), 2, "one word about it, then the answer: {texts:?}");
    assert!(texts[0].starts_with("running bash: ") && texts[0].contains("of at most 60 s"), "{texts:?}");
    assert!(!telegram.calls("editMessageText").is_empty());
}

#[test]
fn stop_ends_the_turn_and_what_it_runs() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::calls(&[("a", "bash", r#"{"command":"echo begun > begun; sleep 300"}"#)])],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "go");
    eventually(&gateway, "it runs", || fixture.workspace().join("begun").is_file());
    telegram.says(OWNER, "/stop");
    eventually(&gateway, "both answers", || {
        let texts = telegram.texts(OWNER);
        texts.contains(&"[stopping]".to_owned()) && texts.contains(&"[stopped]".to_owned())
    });
    telegram.says(OWNER, "/whoami");
    eventually(&gateway, "who", || telegram.texts(OWNER).last().unwrap().contains("telegram id 42"));
}

/// Runs what a message says after `run:`, and then says what came of it.
fn obeying() -> ModelServer {
    ModelServer::answering(Rules::with_key(KEY), |request| {
        let messages = request.body["messages"].as_array().cloned().unwrap_or_default();
        if messages.last().is_some_and(|message| message["role"] == "tool") {
            return Answer::text(&format!("came: {}", last_answer(request)));
        }
        let said = request.last_said();
        match said.split_once("run: ") {
            Some((_, command)) => Answer::calls(&[("a", "bash", &json!({"command": command}).to_string())]),
            None => Answer::text("heard"),
        }
    })
}

/// Two users of one bot and a group: each has files, notes and history of their own.
#[test]
fn people_see_neither_each_others_files_nor_history_nor_memory_and_a_group_sees_nobodys() {
    let (telegram, model) = (Telegram::start(TOKEN), obeying());
    let fixture =
        configured(&telegram, &model, &json!({"channels": {"telegram": {"allowedUsers": ["42", "43"]}}}));
    let mut gateway = Gateway::start(&fixture, &[]);
    let answers = |chat: i64, count: usize| {
        let said = || -> Vec<String> {
            telegram.texts(chat).into_iter().filter(|text| !text.starts_with("running ")).collect()
        };
        eventually(&gateway, "an answer", || said().len() == count);
        said().pop().unwrap()
    };
    let keep = |who: &str| {
        format!(
            "said-by-{who} run: mkdir -p memory; echo file-of-{who} > note; echo about-{who} > USER.md; \
             echo remembered-of-{who} > memory/MEMORY.md"
        )
    };
    telegram.says(OWNER, &keep("ada"));
    answers(OWNER, 1);
    telegram.says(43, &keep("bob"));
    answers(43, 1);
    let look = "run: cat note USER.md memory/*; ls -a ..; cat ../*/note; find / -xdev -maxdepth 8 -name note -exec cat {} +";
    telegram.says(OWNER, look);
    let seen = answers(OWNER, 2);
    for own in ["file-of-ada", "about-ada", "remembered-of-ada"] {
        assert!(seen.contains(own), "{own}: {seen}");
    }
    telegram.says(43, look);
    assert!(answers(43, 2).contains("file-of-bob"));
    let mention = json!({"entities": [{"type": "mention", "offset": 0, "length": BOT_NAME.len() + 1}]});
    telegram.says_in_group(OWNER, -100, &format!("@{BOT_NAME} in-the-group {look}"), mention);
    answers(-100, 1);
    telegram.says(OWNER, "/status");
    assert!(answers(OWNER, 3).contains("people/telegram-42\n"), "{:?}", telegram.texts(OWNER));
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());

    // What the model was ever shown in each conversation: prompt, history, results.
    let shown = |conversation: &str| -> String {
        let mark = format!("Conversation: {conversation}. ");
        let all: Vec<String> = model.requests().iter().map(|request| request.body.to_string()).collect();
        let own: Vec<String> = all.into_iter().filter(|text| text.contains(&mark)).collect();
        assert!(!own.is_empty(), "no request of {conversation}");
        own.join("\n")
    };
    let (ada, bob, group) = (shown("telegram:42"), shown("telegram:43"), shown("telegram:-100"));
    for kind in ["said-by", "file-of", "about", "remembered-of"] {
        let of = |who: &str| format!("{kind}-{who}");
        assert!(ada.contains(&of("ada")) && bob.contains(&of("bob")), "{kind}");
        assert!(!ada.contains(&of("bob")), "{kind} of bob before ada");
        assert!(!bob.contains(&of("ada")), "{kind} of ada before bob");
        assert!(!group.contains(&of("ada")) && !group.contains(&of("bob")), "{kind} before the group");
    }
    assert!(ada.contains("## USER.md") && ada.contains("## memory/MEMORY.md"), "her own are in her prompt");
    let people = fixture.home().join("people");
    for name in ["telegram-42", "telegram-43", "telegram-chat-_2d100"] {
        let mode = std::fs::metadata(people.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    assert_eq!(std::fs::read_dir(people).unwrap().count(), 3);
    assert_eq!(std::fs::read_dir(fixture.workspace()).unwrap().count(), 0, "nobody used the shared one");
}

/// A model that wants to push by force, and then says so.
fn pushing() -> ModelServer {
    ModelServer::start(
        Rules::with_key(KEY),
        vec![
            Answer::calls(&[("a", "bash", r#"{"command":"touch mark; git push --force"}"#)]),
            Answer::text("Done."),
        ],
    )
}

/// The id of the call that waits for a yes in a chat.
fn asked(telegram: &Telegram, chat: i64) -> Option<String> {
    let text = telegram.texts(chat).into_iter().find(|text| text.contains("/approve "))?;
    Some(text.split("/approve ").nth(1)?.split(' ').next()?.to_owned())
}

#[test]
fn call_is_shown_whole_in_the_chat_and_a_button_lets_it_run_once() {
    let (telegram, model) = (Telegram::start(TOKEN), pushing());
    let fixture = configured(&telegram, &model, &json!({}));
    let mut gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "push it");
    eventually(&gateway, "asked", || asked(&telegram, OWNER).is_some());
    let id = asked(&telegram, OWNER).unwrap();
    assert!(!fixture.workspace().join("mark").exists(), "it waits");
    telegram.presses(OWNER, OWNER, "Approve once");
    eventually(&gateway, "an answer", || telegram.texts(OWNER).last().is_some_and(|text| text == "Done."));
    assert!(fixture.workspace().join("mark").exists(), "{}", gateway.log());
    // The message has no buttons any more; whoever still sees them presses to no effect.
    telegram.says(OWNER, &format!("/approve {id}"));
    eventually(&gateway, "told", || telegram.texts(OWNER).len() == 3);
    let seen = telegram
        .transcript(OWNER)
        .replace(&id, "ID")
        .replace(&fixture.workspace().display().to_string(), "WORKSPACE");
    assert_eq!(
        seen,
        "\
bot: bash needs a yes: it rewrites or deletes what others may have fetched (rule git.force-push)
in WORKSPACE
  | in .:
  | touch mark; git push --force

Run exactly this, once? Answer within 10 minutes: /approve ID or /deny ID
[Approve once]
[Deny]
bot changes it: bash needs a yes: it rewrites or deletes what others may have fetched (rule git.force-push)
in WORKSPACE
  | in .:
  | touch mark; git push --force

[approved by Person42, for this once]
bot: Done.
bot: [nothing waits for a yes under ID: it was answered, or its time is over]"
    );
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    assert_eq!(telegram.unanswered_buttons(), 0);
    assert_eq!(telegram.problems(), Vec::<String>::new());
    let audit = fixture.oxibot().args(["audit", "export"]).output().unwrap();
    let audit = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(audit.contains("telegram:42"), "who said it is on record: {audit}");
}

#[test]
fn no_in_words_is_a_refusal_with_its_reason() {
    let (telegram, model) = (Telegram::start(TOKEN), pushing());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "push it");
    eventually(&gateway, "asked", || asked(&telegram, OWNER).is_some());
    telegram.says(OWNER, &format!("/deny {}", asked(&telegram, OWNER).unwrap()));
    eventually(&gateway, "an answer", || {
        telegram.texts(OWNER).last().is_some_and(|text| text.starts_with("Done.\n\nrefused: bash: "))
    });
    assert!(!fixture.workspace().join("mark").exists());
    assert!(telegram.transcript(OWNER).contains("[denied by Person42]"), "{}", telegram.transcript(OWNER));
    let told = last_answer(&model.requests()[1]);
    assert!(told.contains("denied, a person was asked and said no"), "{told}");
}

/// What the model is told of its last call.
fn last_answer(request: &Request) -> String {
    let messages = request.body["messages"].as_array().cloned().unwrap_or_default();
    messages.iter().rev().find(|message| message["role"] == "tool").unwrap()["content"].to_string()
}

#[test]
fn in_a_group_only_who_asked_or_an_administrator_may_say_yes() {
    let (telegram, model) = (Telegram::start(TOKEN), pushing());
    let more = json!({
        "channels": {"telegram": {"allowedUsers": ["42", "43", "44"]}},
        "agents": {"workspaceScope": "shared"},
        "groups": {"memory": true},
        "gateway": {"admins": ["telegram:44"]},
    });
    let fixture = configured(&telegram, &model, &more);
    let gateway = Gateway::start(&fixture, &[]);
    let mention = json!({"entities": [{"type": "mention", "offset": 0, "length": BOT_NAME.len() + 1}]});
    telegram.says_in_group(OWNER, -100, &format!("@{BOT_NAME} push it"), mention);
    eventually(&gateway, "asked", || asked(&telegram, -100).is_some());
    let id = asked(&telegram, -100).unwrap();
    // A stranger, who sees nothing of it; another user, by button and from elsewhere.
    telegram.presses(666_000, -100, "Approve once");
    telegram.presses(43, -100, "Approve once");
    telegram.says(43, &format!("/approve {id}"));
    eventually(&gateway, "both told", || {
        [-100, 43].into_iter().all(|chat| {
            telegram.texts(chat).last().is_some_and(|text| text.contains("is not yours to answer"))
        })
    });
    assert!(!fixture.workspace().join("mark").exists());
    assert_eq!(telegram.unanswered_buttons(), 1, "the stranger's");
    telegram.says(44, &format!("/approve {id}"));
    eventually(&gateway, "an answer", || telegram.texts(-100).last().is_some_and(|text| text == "Done."));
    assert!(fixture.workspace().join("mark").exists());
    assert_eq!(telegram.texts(44), Vec::<String>::new(), "what came of it is shown where it was asked");
}

#[test]
fn question_ends_with_its_turn() {
    let (telegram, model) = (Telegram::start(TOKEN), pushing());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "push it");
    eventually(&gateway, "asked", || asked(&telegram, OWNER).is_some());
    telegram.says(OWNER, "/stop");
    eventually(&gateway, "stopped", || {
        telegram.texts(OWNER).iter().any(|text| text.starts_with("[stopped]"))
    });
    telegram.presses(OWNER, OWNER, "Approve once");
    eventually(&gateway, "told", || {
        telegram.texts(OWNER).last().is_some_and(|text| text.contains("nothing waits for a yes"))
    });
    assert!(!fixture.workspace().join("mark").exists());
}

#[test]
fn what_concerns_everybody_is_for_administrators() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::answering(Rules::with_key(KEY), |request| {
        let said = request.last_said();
        if said.contains("go on") {
            Answer::calls(&[("a", "bash", r#"{"command":"echo begun > begun; sleep 300"}"#)])
        } else {
            Answer::text(&format!("echo {said}"))
        }
    });
    let more = json!({
        "channels": {"telegram": {"allowedUsers": ["42", "43"]}},
        "agents": {"workspaceScope": "shared"},
        "gateway": {"admins": ["telegram:43"]},
    });
    let fixture = configured(&telegram, &model, &more);
    let mut gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "go on");
    eventually(&gateway, "it runs", || fixture.workspace().join("begun").is_file());
    for command in ["/stop all", "/restart"] {
        let before = telegram.texts(OWNER).len();
        telegram.says(OWNER, command);
        eventually(&gateway, "refused", || telegram.texts(OWNER).len() > before);
        let said = telegram.texts(OWNER).pop().unwrap();
        assert!(said.contains("only an administrator"), "{command}: {said}");
    }
    telegram.says(43, "/restart");
    eventually(&gateway, "started again", || {
        telegram.texts(43) == ["[starting again]"]
            && telegram.texts(OWNER).iter().any(|text| text.contains("may have taken effect: bash"))
    });
    assert!(gateway.is_running(), "the launcher stays: {}", gateway.log());
    telegram.says(43, "hello");
    eventually(&gateway, "it answers again", || {
        telegram.texts(43).last().is_some_and(|text| text == "echo hello")
    });
    std::fs::remove_file(fixture.workspace().join("begun")).unwrap();
    telegram.says(OWNER, "go on");
    eventually(&gateway, "it runs again", || fixture.workspace().join("begun").is_file());
    telegram.says(43, "/stop all");
    eventually(&gateway, "all stopped", || {
        telegram.texts(43).last().is_some_and(|text| text.contains("everything is stopped: "))
            && telegram.texts(OWNER).last().is_some_and(|text| text.contains("[stopped]"))
    });
    assert!(fixture.home().join("run/stop").exists(), "the toolhost takes no more calls");
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
}

#[test]
fn slow_conversation_delays_nobody_else() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::answering(Rules::with_key(KEY), |request| {
        let said = request.last_said();
        if said.contains("slow") {
            Answer::text("late").after(Duration::from_secs(20))
        } else {
            Answer::text(&format!("echo {said}"))
        }
    });
    let more = json!({"channels": {"telegram": {"allowedUsers": ["42", "43"]}}, "agents": {"workspaceScope": "shared"}});
    let fixture = configured(&telegram, &model, &more);
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "slow one");
    telegram.says(43, "quick");
    eventually(&gateway, "the quick one", || telegram.texts(43) == ["echo quick"]);
    assert_eq!(telegram.texts(OWNER), Vec::<String>::new(), "the slow one is not answered yet");
}

#[test]
fn message_during_a_turn_is_folded_into_it() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::text("first").after(Duration::from_secs(3)), Answer::text("both")],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "one");
    eventually(&gateway, "asked", || !model.requests().is_empty());
    telegram.says(OWNER, "and two");
    eventually(&gateway, "an answer", || !telegram.texts(OWNER).is_empty());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(telegram.texts(OWNER), ["first\n\nboth"], "{}", gateway.log());
    assert_eq!(model.left(), 0);
}

#[test]
fn markup_telegram_refuses_is_sent_plain_and_once() {
    let telegram = Telegram::start(TOKEN);
    let model = echo();
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.fail("sendMessage", Fault::Refused(400, "Bad Request: can't parse entities: no".into()));
    telegram.says(OWNER, "**b**");
    eventually(&gateway, "an answer", || !telegram.texts(OWNER).is_empty());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(telegram.texts(OWNER), ["echo **b**"]);
}

#[test]
fn wait_and_failures_of_the_vendor_are_waited_out_in_order() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.fail("sendMessage", Fault::Wait(1));
    telegram.fail("sendMessage", Fault::Refused(502, "Bad Gateway".into()));
    telegram.fail("getUpdates", Fault::Refused(500, "Internal Server Error".into()));
    for number in 0..4 {
        telegram.says(OWNER, &format!("/unknown{number}"));
    }
    eventually(&gateway, "all", || telegram.texts(OWNER).len() == 4);
    let texts = telegram.texts(OWNER);
    for (number, text) in texts.iter().enumerate() {
        assert!(text.contains(&format!("/unknown{number}")), "in order: {texts:?}");
    }
}

#[test]
fn group_is_answered_when_meant_and_only_where_memory_may_be_shared() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let meant = |text: &str| {
        telegram.says_in_group(
            OWNER,
            -100,
            &format!("@{BOT_NAME} {text}"),
            json!({"entities":
            [{"type": "mention", "offset": 0, "length": BOT_NAME.len() + 1}]}),
        );
    };
    let fixture = configured(&telegram, &model, &json!({}));
    let mut gateway = Gateway::start(&fixture, &[]);
    meant("hello");
    telegram.says(OWNER, "alone");
    eventually(&gateway, "alone", || telegram.texts(OWNER) == ["echo alone"]);
    assert_eq!(telegram.texts(-100), Vec::<String>::new());
    assert!(gateway.log().contains("groups.memory"), "{}", gateway.log());
    gateway.kill();
    let fixture = configured(&telegram, &model, &json!({"groups": {"memory": true}}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says_in_group(OWNER, -100, "not for the bot", json!({}));
    meant("hello");
    eventually(&gateway, "the group", || telegram.texts(-100) == ["echo Person42: hello"]);
    let sent = telegram.calls("sendMessage");
    let reply = sent.iter().find(|call| call.body["chat_id"] == json!(-100)).unwrap();
    assert!(reply.body["reply_parameters"]["message_id"].is_number(), "it replies to the message: {reply:?}");
}

#[test]
fn bad_token_is_refused_and_said() {
    let (telegram, model) = (Telegram::start("another:token"), echo());
    let port = free_port();
    let fixture = configured(&telegram, &model, &json!({"gateway": {"health": true, "port": port}}));
    let gateway = Gateway::start(&fixture, &[]);
    eventually(&gateway, "ready says why", || {
        get(port, "/ready").is_some_and(|(status, body)| status == 503 && body.contains("refused: bad token"))
    });
    assert_eq!(get(port, "/health").unwrap().0, 200);
}

#[test]
fn health_readiness_and_figures_are_seen_from_outside() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let port = free_port();
    let fixture = configured(&telegram, &model, &json!({"gateway": {"health": true, "port": port}}));
    let gateway = Gateway::start(&fixture, &[]);
    eventually(&gateway, "ready", || get(port, "/ready").is_some_and(|(status, _)| status == 200));
    let ready: Value = serde_json::from_str(&get(port, "/ready").unwrap().1).unwrap();
    assert_eq!((&ready["ready"], &ready["channels"]["telegram"]), (&json!(true), &json!("up")), "{ready}");
    telegram.says(OWNER, "hello");
    eventually(&gateway, "an answer", || !telegram.texts(OWNER).is_empty());
    eventually(&gateway, "counted", || {
        let text = get(port, "/metrics").unwrap().1;
        text.contains("oxibot_messages_total 1") && text.contains("oxibot_deliveries_total 1")
    });
    let text = get(port, "/metrics").unwrap().1;
    assert!(!text.contains("42"), "nobody is named: {text}");
}

#[test]
fn second_gateway_of_a_home_is_told_to_try_again() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "hello");
    eventually(&gateway, "an answer", || !telegram.texts(OWNER).is_empty());
    let second = fixture.oxibot().arg("gateway").output().unwrap();
    assert_eq!(second.status.code(), Some(75), "{}", describe(&second));
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("another gateway (process "),
        "{}",
        describe(&second)
    );
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    for (more, words) in [
        (json!({"channels": {"telegram": {"enabled": false}}}), "no channel is configured"),
        (json!({"channels": {"telegram": {"baseUrl": "http://telegram.example"}}}), "readable by anyone"),
    ] {
        let fixture = configured(&telegram, &model, &more);
        let output = fixture.oxibot().arg("gateway").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{more}: {}", describe(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{more}: {}", describe(&output));
    }
}

#[test]
fn turn_cut_off_while_a_tool_ran_is_told_and_not_run_again() {
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::start(
        Rules::with_key(KEY),
        vec![Answer::calls(&[("a", "bash", r#"{"command":"echo once >> runs; sleep 300"}"#)])],
    );
    let fixture = configured(&telegram, &model, &json!({}));
    let mut gateway = Gateway::start(&fixture, &[]);
    telegram.says(OWNER, "go");
    eventually(&gateway, "it runs", || fixture.workspace().join("runs").is_file());
    gateway.kill();
    let gateway = Gateway::start(&fixture, &[]);
    eventually(&gateway, "told", || !telegram.texts(OWNER).is_empty());
    let texts = telegram.texts(OWNER);
    assert!(texts.len() == 1 && texts[0].contains("may have taken effect: bash"), "{texts:?}");
    assert_eq!(std::fs::read_to_string(fixture.workspace().join("runs")).unwrap(), "once\n");
    assert_eq!(model.requests().len(), 1, "the model is not asked again unasked");
}

#[test]
fn answer_that_was_lost_on_the_way_is_sent_again_at_most_once() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.fail("sendMessage", Fault::AnswerLost);
    telegram.says(OWNER, "hello");
    eventually(&gateway, "sent again", || telegram.texts(OWNER).len() == 2);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(telegram.texts(OWNER), ["echo hello", "echo hello"]);
}

#[test]
fn letter_that_is_given_up_is_shown_by_status() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let gateway = Gateway::start(&fixture, &[]);
    telegram.fail("sendMessage", Fault::Refused(403, "Forbidden: bot was blocked by the user".into()));
    telegram.says(OWNER, "hello");
    eventually(&gateway, "given up", || gateway.log().contains("a letter is given up"));
    let output = fixture.oxibot().arg("status").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("0 messages without an answer, 0 deliveries waiting, 1 given up"), "{said}");
    assert!(said.contains("telegram:42: ") && said.to_lowercase().contains("blocked"), "{said}");
    let output = fixture.oxibot().args(["status", "--json"]).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["post"]["dead"], &said["post"]["dead_letters"][0]["conversation"]),
        (&json!(1), &json!("telegram:42"))
    );
}

#[test]
fn hang_up_reads_the_configuration_again_or_says_why_not() {
    let (telegram, model) = (Telegram::start(TOKEN), echo());
    let fixture = configured(&telegram, &model, &json!({}));
    let mut gateway = Gateway::start(&fixture, &[]);
    telegram.says(43, "not yet");
    telegram.says(OWNER, "hello");
    eventually(&gateway, "an answer", || telegram.texts(OWNER) == ["echo hello"]);
    let path = fixture.home().join("config.json");
    let good = std::fs::read_to_string(&path).unwrap();
    let hang_up = |gateway: &Gateway| {
        let pid = nix::unistd::Pid::from_raw(gateway.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    for (wrong, words) in [
        (good.replace("allowedUsers", "alowedUsers"), "alowedUsers"),
        (good.replace(r#""token""#, r#""enabled":false,"token""#), "no channel is configured"),
    ] {
        std::fs::write(&path, wrong).unwrap();
        hang_up(&gateway);
        eventually(&gateway, "says why not", || gateway.log().contains(words));
    }
    telegram.says(OWNER, "still there?");
    eventually(&gateway, "goes on", || telegram.texts(OWNER).len() == 2);
    std::fs::write(&path, good.replace(r#"["42"]"#, r#"["42","43"]"#)).unwrap();
    hang_up(&gateway);
    eventually(&gateway, "read again", || gateway.log().contains("the configuration is read again"));
    telegram.says(43, "now");
    eventually(&gateway, "admitted now", || telegram.texts(43) == ["echo now"]);
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
}

/// Power cuts at random moments: each message is answered, and at most one answer is repeated for each cut, because
/// Telegram has no key by which it would know a repetition.
#[test]
fn no_message_is_lost_and_none_answered_twice_by_kills_at_random_moments() {
    const MESSAGES: i64 = 60;
    let telegram = Telegram::start(TOKEN);
    let model = ModelServer::answering(Rules::with_key(KEY), |request| {
        Answer::text(&format!("echo {}", request.last_said())).after(Duration::from_millis(40))
    });
    let people: Vec<i64> = (OWNER..OWNER + 6).collect();
    let allowed: Vec<String> = people.iter().map(i64::to_string).collect();
    let more =
        json!({"channels": {"telegram": {"allowedUsers": allowed}}, "agents": {"workspaceScope": "shared"}});
    let fixture = configured(&telegram, &model, &more);
    let (mut kills, mut repeated) = (0, 0);
    let mut seed = 0x2545_f491_u32;
    let mut gateway = Gateway::start(&fixture, &[]);
    for number in 0..MESSAGES {
        let person = people[usize::try_from(number).unwrap() % people.len()];
        telegram.says(person, &format!("message number {number}."));
        if number % 6 == 5 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_millis(u64::from(seed >> 20) % 900));
            gateway.kill();
            kills += 1;
            gateway = Gateway::start(&fixture, &[]);
        }
    }
    let said = || people.iter().flat_map(|person| telegram.texts(*person)).collect::<Vec<_>>().join("\n");
    // Messages that came while a turn ran are answered together: the echo has them all.
    let unanswered = || -> Vec<i64> {
        let said = said();
        (0..MESSAGES).filter(|number| !said.contains(&format!("message number {number}."))).collect()
    };
    let begun = Instant::now();
    while !unanswered().is_empty() {
        assert!(
            begun.elapsed() < PATIENCE,
            "never answered: {:?}\n{}\n{}",
            unanswered(),
            said(),
            gateway.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    eventually(&gateway, "everything is confirmed", || telegram.unconfirmed() == 0);
    let quiet = || {
        let before = telegram.calls("sendMessage").len();
        std::thread::sleep(Duration::from_secs(2));
        before == telegram.calls("sendMessage").len()
    };
    eventually(&gateway, "it comes to rest", quiet);
    for person in &people {
        let mut told: Vec<String> = telegram
            .texts(*person)
            .iter()
            .flat_map(|text| {
                text.lines().map(|line| line.trim_start_matches("echo ").to_owned()).collect::<Vec<_>>()
            })
            .filter(|line| line.starts_with("message number"))
            .collect();
        let all = told.len();
        told.sort();
        told.dedup();
        repeated += usize::from(all > told.len());
    }
    assert!(repeated <= kills, "{repeated} repetitions for {kills} kills:\n{}", said());
    assert_eq!(telegram.problems(), Vec::<String>::new());
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status and body of a plain request.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(([127, 0, 0, 1], port).into(), &request)
}

fn exchange(address: std::net::SocketAddr, request: &str) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}
