//! Telegram's messages as ours. Pure.
//!
//! What a person wrote comes first: a caption is text, and what cannot be taken is named, never dropped without a word.

use teloxide_core::types::{
    CallbackQuery, ChatKind, MediaKind, Message, MessageEntityKind, MessageKind, PublicChatKind, UserId,
};

use crate::channels::{Inbound, Sender, Target};

/// Who we are there.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) id: UserId,
    /// User name without `@`.
    pub(super) name: String,
}

/// A message of a person; none for service messages, other bots and posts of a channel.
pub(super) fn message(update: u32, message: &Message, own: &Own) -> Option<Inbound> {
    let from = message.from.as_ref().filter(|from| !from.is_bot)?;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's list: every other kind is a service message"
    )]
    let left_out = match &message.kind {
        MessageKind::Common(common) => attachment(&common.media_kind),
        // What the library cannot read looks like this; the person must hear that it was not read.
        MessageKind::Empty {} => Some("a kind of message I do not know"),
        _ => return None,
    };
    let direct = match &message.chat.kind {
        ChatKind::Private(_) => true,
        ChatKind::Public(public) => match &public.kind {
            PublicChatKind::Group | PublicChatKind::Supergroup(_) => false,
            PublicChatKind::Channel(_) => return None,
        },
    };
    let text = message.text().or_else(|| message.caption()).unwrap_or_default();
    let left_out: Vec<String> = left_out.map(str::to_owned).into_iter().collect();
    if text.trim().is_empty() && left_out.is_empty() {
        return None;
    }
    let thread = message.thread_id.filter(|_| message.is_topic_message);
    Some(Inbound {
        key: update.to_string(),
        sender: Sender { id: from.id.0.to_string(), handle: from.username.clone(), name: from.full_name() },
        target: Target {
            chat: message.chat.id.0.to_string(),
            thread: thread.map(|thread| thread.0.0.to_string()),
            // In a chat of two it is plain what an answer answers.
            reply_to: (!direct).then(|| message.id.0.to_string()),
        },
        direct,
        addressed: direct || addresses(message, own),
        text: without_address(text, own),
        left_out,
    })
}

/// What the button of a yes says, before the id.
pub(super) const APPROVE: &str = "approve";
/// What the button of a no says, before the id.
pub(super) const DENY: &str = "deny";

/// A pressed button as the command it stands for. Buttons are below our own messages, so they are always meant for us.
pub(super) fn pressed(update: u32, query: &CallbackQuery) -> Option<Inbound> {
    let data = query.data.as_deref()?;
    let (command, id) = data.split_once(':')?;
    let id_is_one = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !matches!(command, APPROVE | DENY) || !id_is_one || query.from.is_bot {
        return None;
    }
    let message = query.message.as_ref()?;
    let chat = message.chat();
    let topic = message.regular_message().filter(|message| message.is_topic_message);
    let from = &query.from;
    Some(Inbound {
        key: update.to_string(),
        sender: Sender { id: from.id.0.to_string(), handle: from.username.clone(), name: from.full_name() },
        target: Target {
            chat: chat.id.0.to_string(),
            thread: topic.and_then(|message| message.thread_id).map(|thread| thread.0.0.to_string()),
            reply_to: None,
        },
        direct: matches!(chat.kind, ChatKind::Private(_)),
        addressed: true,
        text: format!("/{command} {id}"),
        left_out: Vec::new(),
    })
}

/// Whether a message in a group is meant for us: it names us, or answers us.
fn addresses(message: &Message, own: &Own) -> bool {
    let answers = message
        .reply_to_message()
        .and_then(|replied| replied.from.as_ref())
        .is_some_and(|author| author.id == own.id);
    if answers {
        return true;
    }
    let entities = message.parse_entities().or_else(|| message.parse_caption_entities()).unwrap_or_default();
    let ours = |text: &str| !own.name.is_empty() && text.eq_ignore_ascii_case(&own.name);
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's list: every other kind is a style")]
    entities.iter().any(|entity| match entity.kind() {
        MessageEntityKind::Mention => ours(entity.text().trim_start_matches('@')),
        MessageEntityKind::BotCommand => entity.text().split_once('@').is_some_and(|(_, name)| ours(name)),
        MessageEntityKind::TextMention { user } => user.id == own.id,
        _ => false,
    })
}

/// The text without the words that only said whom it is for.
fn without_address(text: &str, own: &Own) -> String {
    if own.name.is_empty() {
        return text.trim().to_owned();
    }
    let mention = format!("@{}", own.name);
    let head = text.trim_start();
    if let Some(rest) = head.get(..mention.len()).filter(|start| start.eq_ignore_ascii_case(&mention)) {
        let rest = head.get(rest.len()..).unwrap_or_default();
        if !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return rest.trim_start_matches([',', ':', ' ']).trim().to_owned();
        }
    }
    // `/stop@our_bot` is `/stop`.
    if head.starts_with('/')
        && let Some((command, rest)) = head.split_once('@')
        && !command.contains(char::is_whitespace)
        && let Some(name) = rest.get(..own.name.len())
        && name.eq_ignore_ascii_case(&own.name)
    {
        let rest = rest.get(own.name.len()..).unwrap_or_default();
        if rest.is_empty() || rest.starts_with(char::is_whitespace) {
            return format!("{command}{rest}").trim().to_owned();
        }
    }
    text.trim().to_owned()
}

/// What came with the message and is not taken.
fn attachment(media: &MediaKind) -> Option<&'static str> {
    Some(match media {
        MediaKind::Text(_) | MediaKind::Migration(_) => return None,
        MediaKind::Animation(_) => "animation",
        MediaKind::Audio(_) => "audio",
        MediaKind::Contact(_) => "contact",
        MediaKind::Document(_) => "document",
        MediaKind::PaidMedia(_) => "paid media",
        MediaKind::Game(_) => "game",
        MediaKind::Venue(_) => "venue",
        MediaKind::Location(_) => "location",
        MediaKind::Photo(_) => "photo",
        MediaKind::Poll(_) => "poll",
        MediaKind::Checklist(_) => "checklist",
        MediaKind::Sticker(_) => "sticker",
        MediaKind::Story(_) => "story",
        MediaKind::Video(_) => "video",
        MediaKind::VideoNote(_) => "video note",
        MediaKind::Voice(_) => "voice note",
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn own() -> Own {
        Own { id: UserId(666), name: "Oxi_Bot".into() }
    }

    fn convert(extra: Value) -> Option<Inbound> {
        let mut body = json!({"message_id": 5, "date": 1, "chat": {"id": 42, "type": "private", "first_name": "Al"},
            "from": {"id": 42, "is_bot": false, "first_name": "Al", "last_name": "B", "username": "al"}});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        message(7, &serde_json::from_value(body).unwrap(), &own())
    }

    fn group(extra: Value) -> Option<Inbound> {
        let mut body = json!({"chat": {"id": -100, "type": "supergroup", "title": "g"}});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        convert(body)
    }

    #[test]
    fn direct_message_is_addressed_and_needs_no_reply_mark() {
        let inbound = convert(json!({"text": " hello "})).unwrap();
        assert_eq!((inbound.key.as_str(), inbound.text.as_str()), ("7", "hello"));
        assert_eq!(
            inbound.sender,
            Sender { id: "42".into(), handle: Some("al".into()), name: "Al B".into() }
        );
        assert!(inbound.direct && inbound.addressed && inbound.target.reply_to.is_none());
        assert_eq!(inbound.conversation("telegram"), "telegram:42");
    }

    #[test]
    fn group_message_is_addressed_by_name_by_command_or_by_reply() {
        let plain = group(json!({"text": "hello all"})).unwrap();
        assert!(!plain.addressed && !plain.direct);
        let named = group(json!({"text": "@oxi_bot, hello",
            "entities": [{"type": "mention", "offset": 0, "length": 8}]}))
        .unwrap();
        assert!(named.addressed);
        assert_eq!(named.text, "hello");
        assert_eq!(named.target.reply_to.as_deref(), Some("5"));
        let command = group(json!({"text": "/stop@oxi_bot",
            "entities": [{"type": "bot_command", "offset": 0, "length": 13}]}))
        .unwrap();
        assert!(command.addressed);
        assert_eq!(command.text, "/stop");
        let other = group(json!({"text": "@oxi_bot_two hello",
            "entities": [{"type": "mention", "offset": 0, "length": 12}]}))
        .unwrap();
        assert!(!other.addressed);
        assert_eq!(other.text, "@oxi_bot_two hello");
        let reply =
            group(json!({"text": "yes", "reply_to_message": {"message_id": 4, "date": 1, "text": "q",
            "chat": {"id": -100, "type": "supergroup", "title": "g"},
            "from": {"id": 666, "is_bot": true, "first_name": "Oxi"}}}))
            .unwrap();
        assert!(reply.addressed);
    }

    #[test]
    fn topic_is_a_conversation_of_its_own() {
        let inbound = group(json!({"text": "x", "message_thread_id": 9, "is_topic_message": true})).unwrap();
        assert_eq!(inbound.conversation("telegram"), "telegram:-100:9");
        // A reply chain in a plain group has a thread id too, and is no topic.
        let inbound = group(json!({"text": "x", "message_thread_id": 9})).unwrap();
        assert_eq!(inbound.conversation("telegram"), "telegram:-100");
    }

    #[test]
    fn caption_is_text_and_what_is_not_taken_is_named() {
        let mut video = json!({"file_id": "f", "file_unique_id": "u", "file_size": 1, "width": 1, "height": 1,
            "duration": 1, "mime_type": "video/mp4"});
        let inbound = convert(json!({"caption": "look", "video": video})).unwrap();
        assert_eq!((inbound.text.as_str(), inbound.left_out.as_slice()), ("look", &["video".to_owned()][..]));
        // The library demands a field that Telegram does not always send.
        video.as_object_mut().unwrap().remove("mime_type");
        let inbound = convert(json!({"caption": "look", "video": video})).unwrap();
        assert_eq!(inbound.left_out.len(), 1);
    }

    #[test]
    fn button_is_the_command_it_stands_for_and_nothing_else_is_one() {
        let press = |data: &str| {
            let query = json!({"id": "q", "data": data, "chat_instance": "1",
                "from": {"id": 42, "is_bot": false, "first_name": "Al"},
                "message": {"message_id": 9, "date": 1, "text": "x", "message_thread_id": 7, "is_topic_message": true,
                    "chat": {"id": -100, "type": "supergroup", "title": "g", "is_forum": true}}});
            pressed(8, &serde_json::from_value(query).unwrap())
        };
        let inbound = press("approve:0a1b").unwrap();
        assert_eq!((inbound.key.as_str(), inbound.text.as_str()), ("8", "/approve 0a1b"));
        assert_eq!(inbound.conversation("telegram"), "telegram:-100:7");
        assert!(inbound.addressed && !inbound.direct);
        assert_eq!(press("deny:0a1b").unwrap().text, "/deny 0a1b");
        for other in ["approve", "approve:", "approve:a b", "approve:a\nb", "stop:all", "/new"] {
            assert_eq!(press(other), None, "{other}");
        }
    }

    #[test]
    fn bots_service_messages_and_channels_are_not_people() {
        assert_eq!(convert(json!({"text": "x", "from": {"id": 1, "is_bot": true, "first_name": "b"}})), None);
        assert_eq!(group(json!({"new_chat_title": "t"})), None);
        assert_eq!(convert(json!({"text": "x", "chat": {"id": -1, "type": "channel", "title": "c"}})), None);
        assert_eq!(convert(json!({"text": "  "})), None);
    }
}
