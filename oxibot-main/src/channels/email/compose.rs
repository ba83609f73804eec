//! A reply as a mail. Pure.
//!
//! It goes to the address that was admitted and to nobody else: `Reply-To` and `Cc` of a mail are its sender's wish, not
//! ours. Its `Message-ID` follows from the outbox's key, so that a mail sent twice is one mail for whoever stores it.
//! `Auto-Submitted` tells other programs not to answer.

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use serde::{Deserialize, Serialize};

use super::message::{Head, digest};
use crate::channels::{Letter, markup};

/// How each of our identifiers begins.
pub(super) const OWN_ID: &str = "oxibot.";
/// Length of a thread's name.
const THREAD: usize = 16;

/// What a reply needs to know of the mail it answers; it travels as [`crate::channels::Target::reply_to`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    /// Its identifier.
    pub(super) id: Option<String>,
    /// What it referred to.
    pub(super) references: Vec<String>,
    /// Its subject.
    pub(super) subject: String,
}

impl Answered {
    pub(super) fn of(head: &Head) -> Self {
        Self { id: head.id.clone(), references: head.references.clone(), subject: head.subject.clone() }
    }
}

/// Makes the mail. The error says what is wrong with the address.
pub(super) fn compose(from: &Mailbox, letter: &Letter, key: &str, prefix: &str) -> Result<Message, String> {
    let target = &letter.target;
    let answered: Answered =
        target.reply_to.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let to = target.chat.parse().map_err(|_| "its address is none".to_owned())?;
    let id = identifier(from, letter, key, &answered);
    let mut builder = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to))
        .subject(subject(&answered.subject, prefix))
        .message_id(Some(format!("<{id}>")));
    if let Some(parent) = &answered.id {
        let mut references: Vec<String> = answered.references.iter().map(|id| format!("<{id}>")).collect();
        references.push(format!("<{parent}>"));
        builder = builder.in_reply_to(format!("<{parent}>")).references(references.join(" "));
    }
    for (name, value) in [("Auto-Submitted", "auto-replied"), ("X-Auto-Response-Suppress", "All")] {
        builder =
            builder.raw_header(HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned()));
    }
    let parts = MultiPart::alternative()
        .singlepart(SinglePart::builder().header(ContentType::TEXT_PLAIN).body(markup::plain(&letter.text)))
        .singlepart(SinglePart::builder().header(ContentType::TEXT_HTML).body(markup::page(&letter.text)));
    builder.multipart(parts).map_err(|error| format!("cannot be written: {error}"))
}

/// `oxibot.THREAD.DIGEST@domain`: the same when the same letter is sent again, and another for every other.
fn identifier(from: &Mailbox, letter: &Letter, key: &str, answered: &Answered) -> String {
    let thread = letter.target.thread.clone().unwrap_or_else(|| digest(&[&letter.target.chat], THREAD));
    let parent = answered.id.as_deref().unwrap_or_default();
    let rest = digest(&[key, &letter.target.chat, parent, &thread], 32);
    format!("{OWN_ID}{thread}.{rest}@{}", from.email.domain())
}

/// The thread in one of our identifiers, for mail programs that name only what they answer.
pub(super) fn thread_of(id: &str) -> Option<&str> {
    let (thread, _) = id.strip_prefix(OWN_ID)?.split_once('.')?;
    (thread.len() == THREAD && thread.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(thread)
}

/// The subject with its mark, once.
fn subject(of: &str, prefix: &str) -> String {
    let of = of.trim();
    let mark = prefix.trim();
    let marked = |mark: &str| {
        !mark.is_empty() && of.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark))
    };
    if of.is_empty() {
        format!("{prefix}(no subject)")
    } else if marked(mark) || marked("Re:") {
        of.to_owned()
    } else {
        format!("{prefix}{of}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::Target;

    fn letter(subject: &str, text: &str) -> Letter {
        let answered = Answered {
            id: Some("c@x".into()),
            references: vec!["a@x".into(), "b@x".into()],
            subject: subject.into(),
        };
        Letter {
            target: Target {
                chat: "ann@example.org".into(),
                thread: Some("0123456789abcdef".into()),
                reply_to: Some(serde_json::to_string(&answered).unwrap()),
            },
            text: text.into(),
        }
    }

    fn written(letter: &Letter, key: &str) -> String {
        let from = "Bot <bot@example.net>".parse().unwrap();
        String::from_utf8(compose(&from, letter, key, "Re: ").unwrap().formatted()).unwrap()
    }

    #[test]
    fn reply_stands_in_its_thread_and_says_that_it_is_automatic() {
        let text = written(&letter("hello", "**yes**"), "reply:1:0");
        for line in [
            "From: Bot <bot@example.net>",
            "To: ann@example.org",
            "Subject: Re: hello",
            "In-Reply-To: <c@x>",
            "References: <a@x> <b@x> <c@x>",
            "Auto-Submitted: auto-replied",
            "X-Auto-Response-Suppress: All",
        ] {
            assert!(text.contains(&format!("{line}\r\n")), "{line}: {text}");
        }
        assert!(text.contains("text/plain") && text.contains("<strong>yes</strong>"), "{text}");
    }

    #[test]
    fn identifier_follows_from_the_letter_and_names_its_thread() {
        let id = |text: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix("Message-ID: <"))
                .unwrap()
                .trim_end_matches('>')
                .to_owned()
        };
        let one = id(&written(&letter("s", "text"), "reply:1:0"));
        assert_eq!(one, id(&written(&letter("s", "text"), "reply:1:0")));
        assert_ne!(one, id(&written(&letter("s", "text"), "reply:1:1")));
        assert_eq!(thread_of(&one), Some("0123456789abcdef"));
        assert_eq!(thread_of("oxibot.short.abc@x"), None);
    }

    #[test]
    fn subject_is_marked_once() {
        for (of, said) in
            [("a", "Re: a"), ("Re: a", "Re: a"), ("RE: a", "RE: a"), ("", "Re: (no subject)"), ("é", "Re: é")]
        {
            assert_eq!(subject(of, "Re: "), said);
        }
        assert_eq!(subject("AW: a", "AW: "), "AW: a");
        assert_eq!(subject("a", ""), "a");
    }

    #[test]
    fn nothing_a_sender_wrote_becomes_a_field() {
        let text = written(&letter("a\r\nBcc: eve@evil.com", "x"), "k");
        let head = text.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{head}");
    }
}
