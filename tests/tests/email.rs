//! The email channel against a real Dovecot and a real Postfix. What counts is what lies in the mailboxes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oxibot_tests::fixture::{Fixture, describe, skip};
use oxibot_tests::gateway::{Gateway, PATIENCE, configure, free_port, get, merge};
use oxibot_tests::mail::{AUTHSERV, BOT, Letter, MailHost, PASSWORD, missing};
use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use serde_json::{Value, json};

const KEY: &str = "sk-test-8c1f";
const ANN: &str = "ann@example.org";
const EVE: &str = "eve@evil.example";

fn echo() -> ModelServer {
    ModelServer::answering(Rules::with_key(KEY), |request| {
        Answer::text(&format!("echo {}", request.last_said()))
    })
}

fn configured(host: &MailHost, model: &ModelServer, more: &Value) -> Fixture {
    let fixture = Fixture::new();
    let ports = host.ports();
    let mut config = json!({
        "agents": {"defaults": {"model": "custom/test-model", "workspace": fixture.workspace()}},
        "providers": {"custom": {"apiKey": KEY, "apiBase": model.openai_base()}},
        "channels": {"email": {
            "consentGranted": true,
            "imapHost": "localhost", "imapPort": ports.imaps, "imapUsername": BOT, "imapPassword": PASSWORD,
            "smtpHost": "localhost", "smtpPort": ports.submission, "smtpUsername": BOT, "smtpPassword": PASSWORD,
            "fromAddress": format!("Bot <{BOT}>"), "authservId": AUTHSERV, "pollIntervalSeconds": 5,
            "allowedUsers": [ANN],
        }},
        "gateway": {"health": false},
    });
    merge(&mut config, more);
    configure(&fixture, &config);
    fixture
}

fn email(more: &Value) -> Value {
    json!({"channels": {"email": more}})
}

fn start(fixture: &Fixture, host: &MailHost) -> Gateway {
    Gateway::start(fixture, &[("SSL_CERT_FILE", &host.authority().to_string_lossy())])
}

fn mail(from: &str, id: &str, subject: &str, text: &str) -> String {
    format!(
        "From: {from}\nTo: {BOT}\nSubject: {subject}\nMessage-ID: <{id}>\nDate: Mon, 30 Nov 2026 10:00:00 \
         +0000\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"
    )
}

fn replies(host: &MailHost, to: &str) -> Vec<Letter> {
    host.mails(to).into_iter().filter(|letter| letter.field("from").contains(BOT)).collect()
}

fn says(letter: &Letter, words: &str) -> bool {
    letter.text.contains(words)
}

/// The test cannot run here, and said so.
fn lacking(test: &str) -> bool {
    missing().is_some_and(|reason| {
        skip(test, &reason);
        true
    })
}

#[test]
fn mail_is_answered_in_its_thread() {
    if lacking("mail_is_answered_in_its_thread") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture = configured(&host, &model, &json!({}));
    let mut gateway = start(&fixture, &host);
    host.from_outside(ANN, &mail(&format!("Ann <{ANN}>"), "first@example.org", "a question", "how much?"));
    gateway.eventually("an answer", || replies(&host, ANN).len() == 1);
    let reply = replies(&host, ANN).remove(0);
    assert_eq!(reply.field("subject"), "Re: a question");
    assert_eq!(reply.field("in-reply-to"), "<first@example.org>");
    assert_eq!(reply.field("references"), "<first@example.org>");
    assert_eq!(reply.field("auto-submitted"), "auto-replied");
    assert_eq!(reply.field("from"), format!("Bot <{BOT}>"));
    assert!(says(&reply, "echo Subject: a question") && says(&reply, "how much?"), "{}", reply.text);
    assert!(says(&reply, "text/html"), "{}", reply.text);
    gateway.eventually("marked as read", || host.mails(BOT).iter().all(|letter| letter.seen));
    // A program that names only what it answers, and quotes all of it.
    let id = reply.field("message-id").to_owned();
    let second = format!(
        "In-Reply-To: {id}\n{}",
        mail(
            ANN,
            "second@example.org",
            "Re: a question",
            "and now?\n\nOn Monday, Bot <bot@example.net> wrote:\n> echo\n> how much?"
        )
    );
    host.from_outside(ANN, &second);
    gateway.eventually("a second answer", || replies(&host, ANN).len() == 2);
    let requests = model.requests();
    let last = requests.last().unwrap();
    assert_eq!(last.last_said(), "and now?", "the quotation is left out");
    assert!(last.body["messages"].to_string().contains("how much?"), "it is the same conversation");
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.log());
    let log = gateway.log();
    assert!(log.contains("incoming_message"), "{log}");
    assert!(!log.contains("how much") && !log.contains(PASSWORD), "{log}");
    assert_eq!(model.problems(), Vec::<String>::new());
}

#[test]
fn claimed_sender_without_proof_is_nobody() {
    if lacking("claimed_sender_without_proof_is_nobody") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture = configured(&host, &model, &json!({}));
    let gateway = start(&fixture, &host);
    // Each claims to be Ann. The server knows that it came from Eve, and writes so above what she forged.
    let forged = format!("Authentication-Results: {AUTHSERV}; dmarc=pass header.from=example.org\n");
    host.from_outside(EVE, &format!("{forged}{}", mail(ANN, "spoof1@x", "spoof", "spoofed one")));
    host.from_outside(EVE, &mail(&format!("{EVE}, {ANN}"), "spoof2@x", "spoof", "spoofed two"));
    host.from_outside(EVE, &format!("From: {ANN}\n{}", mail(EVE, "spoof3@x", "spoof", "spoofed three")));
    host.from_outside(EVE, &mail(&format!("\"{ANN}\" <{EVE}>"), "spoof4@x", "spoof", "spoofed four"));
    host.put(ANN, &mail(ANN, "spoof5@x", "spoof", "spoofed without any result"));
    // And one is.
    host.from_outside(ANN, &mail(ANN, "true@x", "true", "it is me"));
    gateway.eventually("an answer", || replies(&host, ANN).iter().any(|letter| says(letter, "it is me")));
    assert_eq!(replies(&host, ANN).len(), 1);
    assert_eq!(replies(&host, EVE).len(), 0);
    assert!(model.requests().iter().all(|request| !request.body.to_string().contains("spoofed")));
    let seen: Vec<bool> = host.mails(BOT).iter().map(|letter| letter.seen).collect();
    assert_eq!(seen.iter().filter(|seen| **seen).count(), 1, "what is not for us is not touched: {seen:?}");
    let log = gateway.log();
    assert!(log.contains("auth_rejected: neither SPF, DKIM nor DMARC passed"), "{log}");
    assert!(log.contains("auth_rejected: not in channels.email.allowedUsers"), "{log}");
}

#[test]
fn who_does_not_ask_for_proof_believes_what_is_claimed() {
    if lacking("who_does_not_ask_for_proof_believes_what_is_claimed") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture =
        configured(&host, &model, &email(&json!({"requireAuthentication": false, "authservId": ""})));
    let gateway = start(&fixture, &host);
    host.from_outside(EVE, &mail(ANN, "spoof@x", "spoof", "believed"));
    gateway.eventually("an answer", || replies(&host, ANN).iter().any(|letter| says(letter, "believed")));
    assert!(gateway.log().contains("requireAuthentication is false"), "{}", gateway.log());
}

#[test]
fn machines_and_floods_are_not_answered() {
    if lacking("machines_and_floods_are_not_answered") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture = configured(&host, &model, &email(&json!({"maxMailsPerHour": 3, "allowedUsers": ["*"]})));
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(fixture.home().join("config.json")).unwrap()).unwrap();
    config["agents"]["workspaceScope"] = json!("shared");
    configure(&fixture, &config);
    let gateway = start(&fixture, &host);
    for (number, field) in
        ["Auto-Submitted: auto-replied", "Precedence: bulk", "List-Id: <l.example.org>", "X-Autoreply: yes"]
            .iter()
            .enumerate()
    {
        host.from_outside(
            ANN,
            &format!("{field}\n{}", mail(ANN, &format!("auto{number}@x"), "auto", "from a machine")),
        );
    }
    host.from_outside("", &mail(ANN, "bounce@x", "undelivered", "from a machine"));
    host.from_outside(BOT, &mail(BOT, "own@x", "loop", "from a machine"));
    for number in 0..5 {
        host.from_outside(ANN, &mail(ANN, &format!("flood{number}@x"), "flood", &format!("flood {number}.")));
    }
    host.from_outside("bob@example.org", &mail("bob@example.org", "bob@x", "hi", "another person"));
    gateway.eventually("the other is answered", || replies(&host, "bob@example.org").len() == 1);
    gateway.eventually("three of the flood", || replies(&host, ANN).len() == 3);
    assert!(model.requests().iter().all(|request| !request.last_said().contains("from a machine")));
    let log = gateway.log();
    assert!(log.contains("rate_limited"), "{log}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(replies(&host, ANN).len(), 3, "the rest is left alone");
}

#[test]
fn polling_restart_and_new_numbers_lose_nothing_and_repeat_nothing() {
    if lacking("polling_restart_and_new_numbers_lose_nothing_and_repeat_nothing") {
        return;
    }
    let (mut host, model) = (MailHost::start(false), echo());
    let port = free_port();
    let fixture = configured(&host, &model, &json!({"gateway": {"health": true, "port": port}}));
    let gateway = start(&fixture, &host);
    host.from_outside(ANN, &mail(ANN, "one@x", "one", "message one."));
    gateway.eventually("found by polling", || replies(&host, ANN).len() == 1);
    host.stop_imap();
    gateway.eventually("it is degraded", || {
        get(port, "/ready").is_some_and(|(status, body)| status == 503 && body.contains("email: degraded"))
    });
    host.renumber(BOT);
    host.start_imap();
    host.from_outside(ANN, &mail(ANN, "two@x", "two", "message two."));
    gateway.within(Duration::from_secs(120), "answered after the restart", || replies(&host, ANN).len() >= 2);
    gateway.eventually("up again", || get(port, "/ready").is_some_and(|(status, _)| status == 200));
    assert!(gateway.log().contains("the mailbox has new numbers"), "{}", gateway.log());
    std::thread::sleep(Duration::from_secs(8));
    let answered: Vec<String> =
        replies(&host, ANN).iter().map(|letter| letter.field("in-reply-to").to_owned()).collect();
    assert_eq!(answered, ["<one@x>", "<two@x>"], "{}", gateway.log());
}

#[test]
fn connection_that_is_dead_without_a_word_is_noticed() {
    if lacking("connection_that_is_dead_without_a_word_is_noticed") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture = configured(&host, &model, &json!({}));
    let gateway = start(&fixture, &host);
    host.from_outside(ANN, &mail(ANN, "one@x", "one", "message one."));
    gateway.eventually("an answer", || replies(&host, ANN).len() == 1);
    let served = host.imap_processes();
    assert!(!served.is_empty(), "{}", host.log());
    for pid in &served {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    }
    host.from_outside(ANN, &mail(ANN, "two@x", "two", "message two."));
    gateway.within(Duration::from_secs(240), "answered over a new connection", || {
        replies(&host, ANN).len() == 2
    });
    assert!(gateway.log().contains("the IMAP server does not answer"), "{}", gateway.log());
}

#[test]
fn wrong_password_is_a_refusal_and_a_foreign_certificate_no_connection() {
    if lacking("wrong_password_is_a_refusal_and_a_foreign_certificate_no_connection") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let port = free_port();
    let health = json!({"gateway": {"health": true, "port": port}});
    let mut more = email(&json!({"imapPassword": "wrong"}));
    merge(&mut more, &health);
    let fixture = configured(&host, &model, &more);
    let ready =
        |words: &str| get(port, "/ready").is_some_and(|(status, body)| status == 503 && body.contains(words));
    let mut gateway = start(&fixture, &host);
    gateway.eventually("it is refused", || ready("refused: bad password"));
    gateway.kill();
    let fixture = configured(&host, &model, &health);
    let gateway = Gateway::start(&fixture, &[]);
    gateway.eventually("no connection", || ready("email: degraded: no TLS with localhost"));
    assert!(
        !host.log().contains("Login: user=<bot@example.net>"),
        "the password was not sent: {}",
        host.log()
    );
}

#[test]
fn reply_waits_for_a_server_that_is_down_and_leaves_by_tls_as_well() {
    if lacking("reply_waits_for_a_server_that_is_down_and_leaves_by_tls_as_well") {
        return;
    }
    let (mut host, model) = (MailHost::start(true), echo());
    let ports = host.ports();
    let fixture = configured(
        &host,
        &model,
        &email(&json!({"smtpUseSsl": true, "smtpPort": ports.submissions, "markSeen": false})),
    );
    let results = format!("Authentication-Results: {AUTHSERV}; dkim=pass header.d=example.org\n");
    host.stop_smtp();
    let gateway = start(&fixture, &host);
    host.put(ANN, &format!("{results}{}", mail(ANN, "one@x", "one", "message one.")));
    gateway.eventually("it was tried", || gateway.log().contains("could not be delivered yet"));
    host.start_smtp();
    gateway.within(Duration::from_secs(120), "delivered", || replies(&host, ANN).len() == 1);
    assert!(host.mails(BOT).iter().all(|letter| !letter.seen), "markSeen is false");
}

#[test]
fn what_cannot_be_used_is_said_before_anything_starts() {
    if lacking("what_cannot_be_used_is_said_before_anything_starts") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    for (more, words) in [
        (json!({"imapHost": "mail.example.org", "imapUseSsl": false}), "channels.email.imapUseSsl"),
        (json!({"smtpHost": "mail.example.org", "smtpUseTls": false}), "channels.email.smtpUseTls"),
        (json!({"authservId": ""}), "allowedUsers without authservId"),
        (json!({"consentGranted": false}), "allowedUsers without consentGranted"),
        (json!({"fromAddress": "nobody"}), "channels.email.fromAddress"),
        (json!({"enabled": false}), "no channel is configured"),
    ] {
        let fixture = configured(&host, &model, &email(&more));
        let output = fixture.oxibot().arg("gateway").output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{more}: {}", describe(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{more}: {}", describe(&output));
    }
}

#[test]
fn settings_of_replies_and_length_are_obeyed() {
    if lacking("settings_of_replies_and_length_are_obeyed") {
        return;
    }
    let (host, model) = (MailHost::start(true), echo());
    let fixture = configured(&host, &model, &email(&json!({"subjectPrefix": "AW: ", "maxBodyChars": 20})));
    let mut gateway = start(&fixture, &host);
    host.from_outside(ANN, &mail(ANN, "long@x", "long", "01234567890123456789ABCDEF"));
    gateway.eventually("an answer", || replies(&host, ANN).len() == 1);
    let reply = replies(&host, ANN).remove(0);
    assert_eq!(reply.field("subject"), "AW: long");
    assert!(says(&reply, "456789\n[the mail is longer") && !says(&reply, "ABC"), "{}", reply.text);
    gateway.kill();
    let fixture = configured(&host, &model, &email(&json!({"autoReplyEnabled": false})));
    let gateway = start(&fixture, &host);
    host.from_outside(ANN, &mail(ANN, "silent@x", "silent", "work in silence"));
    gateway.eventually("it worked", || gateway.log().contains("autoReplyEnabled is false"));
    assert!(model.requests().iter().any(|request| request.last_said().contains("work in silence")));
    assert_eq!(replies(&host, ANN).len(), 1, "nothing went out");
}

/// Power cuts at random moments. Each mail is answered, and a reply that was handed in twice is the same mail by its name.
#[test]
fn no_mail_is_lost_and_none_answered_twice_by_kills_at_random_moments() {
    if lacking("no_mail_is_lost_and_none_answered_twice_by_kills_at_random_moments") {
        return;
    }
    const MAILS: usize = 60;
    let people: Vec<String> = (0..4).map(|number| format!("person{number}@example.org")).collect();
    let host = MailHost::start(true);
    let model = ModelServer::answering(Rules::with_key(KEY), |request| {
        Answer::text(&format!("echo {}", request.last_said())).after(Duration::from_millis(40))
    });
    let mut more = email(&json!({"allowedUsers": people, "maxMailsPerHour": 1000}));
    merge(
        &mut more,
        &json!({"agents": {"workspaceScope": "shared"}, "limits": {"senders": {"messagesPerMinute": 1000, "messageBurst": 1000}}}),
    );
    let fixture = configured(&host, &model, &more);
    let mut gateway = start(&fixture, &host);
    let (mut kills, mut seed) = (0, 0x2545_f491_u32);
    for number in 0..MAILS {
        let person = &people[number % people.len()];
        host.from_outside(
            person,
            &mail(person, &format!("m{number}@x"), "work", &format!("message number {number}.")),
        );
        if number % 4 == 3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_millis(u64::from(seed >> 20) % 1500));
            gateway.kill();
            kills += 1;
            gateway = start(&fixture, &host);
        }
    }
    let all = || people.iter().flat_map(|person| replies(&host, person)).collect::<Vec<_>>();
    let answered =
        || all().iter().map(|letter| letter.field("in-reply-to").to_owned()).collect::<BTreeSet<_>>();
    gateway.within(Duration::from_secs(240), "all are answered", || answered().len() == MAILS);
    let mut before = 0;
    gateway.within(PATIENCE, "it comes to rest", || {
        std::thread::sleep(Duration::from_secs(3));
        std::mem::replace(&mut before, all().len()) == all().len()
    });
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for letter in all() {
        let name = letter.field("message-id").to_owned();
        names.entry(letter.field("in-reply-to").to_owned()).or_default().insert(name);
    }
    let doubled: Vec<_> = names.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert_eq!(doubled, Vec::<(&String, &BTreeSet<String>)>::new(), "two different answers to one mail");
    let repeated = all().len() - MAILS;
    assert!(repeated <= kills, "{repeated} repetitions for {kills} kills");
    for (number, person) in (0..MAILS).map(|number| (number, &people[number % people.len()])) {
        let words = format!("message number {number}.");
        assert!(replies(&host, person).iter().any(|letter| says(letter, &words)), "{words}");
    }
    gateway.eventually("all are marked as read", || host.mails(BOT).iter().all(|letter| letter.seen));
}
