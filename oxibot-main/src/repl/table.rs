//! Lists of conversations and of usage, for people and as JSON. Pure; names are neutralised.

use serde::Serialize;

use crate::agent::history;
use crate::agent::prompt::date_of;
use crate::model::{Part, Role};
use crate::render::neutral;
use crate::store::{Session, StoredEntry, UsageRow};

#[derive(Serialize)]
struct SessionJson<'a> {
    id: i64,
    name: &'a str,
    created_at: i64,
    used_at: i64,
    ended_at: Option<i64>,
    ended_why: Option<&'a str>,
    turns: i64,
}

fn session_json(session: &Session) -> SessionJson<'_> {
    SessionJson {
        id: session.id,
        name: &session.name,
        created_at: session.created_at,
        used_at: session.used_at,
        ended_at: session.ended_at,
        ended_why: session.ended_why.as_deref(),
        turns: session.turns,
    }
}

/// `sessions list`.
#[must_use]
pub fn sessions(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "no conversations yet; `oxibot agent` begins one\n".to_owned();
    }
    let mut out = format!("{:>5}  {:<28} {:>5}  {:<16}  state\n", "id", "name", "turns", "last used (UTC)");
    for session in sessions {
        let state = match &session.ended_why {
            None => "open".to_owned(),
            Some(why) => format!("ended ({})", neutral::line(why, 16)),
        };
        out.push_str(&format!(
            "{:>5}  {:<28} {:>5}  {:<16}  {state}\n",
            session.id,
            neutral::line(&session.name, 28),
            session.turns,
            minute_of(session.used_at)
        ));
    }
    out
}

/// `sessions list --json`.
#[must_use]
pub fn sessions_json(sessions: &[Session]) -> String {
    let rows: Vec<_> = sessions.iter().map(session_json).collect();
    lines(&serde_json::json!({ "sessions": rows }))
}

/// `sessions show`: who said what, calls with their outcomes, how turns ended.
#[must_use]
pub fn conversation(session: &Session, entries: &[StoredEntry]) -> String {
    let mut out = format!(
        "{} (id {}), begun {}, last used {} (UTC)\n",
        neutral::line(&session.name, 200),
        session.id,
        minute_of(session.created_at),
        minute_of(session.used_at)
    );
    for (turn, transcript) in history::transcripts(entries) {
        let ending = transcript.ending().map_or("not ended", crate::store::Ending::name);
        out.push_str(&format!("\n--- turn {turn}: {ending}\n"));
        for message in transcript.messages() {
            for part in &message.parts {
                out.push_str(&spoken(message.role, part));
            }
        }
    }
    out
}

fn spoken(role: Role, part: &Part) -> String {
    let who = match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    match part {
        Part::Text { text } => format!("{who}: {}\n", neutral::text(text)),
        Part::Image { media_type, .. } => format!("{who}: [image, {}]\n", neutral::line(media_type, 40)),
        Part::Reasoning(_) => String::new(),
        Part::ToolCall(call) => neutral::line(&format!("  > {}: {}", call.name, call.arguments), 400) + "\n",
        Part::ToolResult(answer) => {
            let first = answer.text.lines().next().unwrap_or_default();
            neutral::line(&format!("  {}: {first}", answer.name), 200) + "\n"
        }
    }
}

/// `sessions show --json`: the journal as it is.
#[must_use]
pub fn conversation_json(session: &Session, entries: &[StoredEntry]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|stored| serde_json::json!({"id": stored.id, "turn": stored.turn, "at": stored.at, "step": stored.entry}))
        .collect();
    lines(&serde_json::json!({ "session": session_json(session), "entries": entries }))
}

/// `usage`.
#[must_use]
pub fn usage(rows: &[UsageRow], days: u32) -> String {
    if rows.is_empty() {
        return format!("no tokens used in the last {days} days\n");
    }
    let mut out = format!(
        "{:<10}  {:<30} {:>5} {:>9} {:>8} {:>9}\n",
        "day (UTC)", "model", "asked", "input", "output", "cost"
    );
    let (mut input, mut output, mut cost, mut asked, mut priced) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for row in rows {
        out.push_str(&format!(
            "{:<10}  {:<30} {:>5} {:>9} {:>8} {:>9}\n",
            row.day,
            neutral::line(&row.model, 30),
            row.requests,
            row.tokens.input,
            row.tokens.output,
            money(row.tokens.cost_microusd)
        ));
        input = input.saturating_add(row.tokens.input);
        output = output.saturating_add(row.tokens.output);
        cost = cost.saturating_add(row.tokens.cost_microusd.unwrap_or(0));
        asked = asked.saturating_add(row.requests);
        priced = priced.saturating_add(row.priced);
    }
    let total = money((priced > 0).then_some(cost));
    out.push_str(&format!("{:<10}  {:<30} {asked:>5} {input:>9} {output:>8} {total:>9}\n", "total", ""));
    if priced < asked {
        out.push_str(&format!(
            "cost is what providers reported: for {priced} of {asked} requests; nothing is estimated\n"
        ));
    }
    out
}

/// `usage --json`.
#[must_use]
pub fn usage_json(rows: &[UsageRow]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "day": row.day, "model": row.model, "requests": row.requests,
                "input": row.tokens.input, "output": row.tokens.output,
                "cache_read": row.tokens.cache_read, "cache_write": row.tokens.cache_write,
                "cost_microusd": row.tokens.cost_microusd, "priced_requests": row.priced,
            })
        })
        .collect();
    lines(&serde_json::json!({ "usage": rows }))
}

fn lines(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

fn money(microusd: Option<u64>) -> String {
    microusd
        .map_or_else(|| "-".to_owned(), |cost| format!("${}.{:04}", cost / 1_000_000, cost % 1_000_000 / 100))
}

/// `YYYY-MM-DD HH:MM`, UTC.
fn minute_of(millis: i64) -> String {
    let minutes = millis.rem_euclid(86_400_000) / 60_000;
    format!("{} {:02}:{:02}", date_of(millis), minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Message, TokenUsage};
    use crate::store::{Ending, Entry};

    fn session() -> Session {
        Session {
            id: 3,
            name: "terminal:a\u{202e}b".to_owned(),
            boundary: "b".to_owned(),
            created_at: 0,
            used_at: 1_700_000_000_000,
            ended_at: None,
            ended_why: None,
            turns: 2,
        }
    }

    #[test]
    fn lists_fit_80_columns_and_are_harmless() {
        let long = Session { name: "x".repeat(200), ended_why: Some("absolute".to_owned()), ..session() };
        let text = sessions(&[session(), long]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(!text.contains('\u{202e}') && text.contains("2023-11-14 22:13"), "{text}");
        let row = |cost| UsageRow {
            day: "2026-11-21".to_owned(),
            model: "openrouter/anthropic/claude-sonnet-4-5-20250929".to_owned(),
            requests: 12,
            tokens: TokenUsage {
                input: 1_234_567,
                output: 45_678,
                cost_microusd: cost,
                ..TokenUsage::default()
            },
            priced: u64::from(cost.is_some()),
        };
        let text = usage(&[row(Some(1_234_567)), row(None)], 7);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("$1.2345") && text.contains("for 1 of 24 requests"), "{text}");
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        for text in [sessions_json(&[session()]), conversation_json(&session(), &[]), usage_json(&[])] {
            assert_eq!(text.lines().count(), 1);
            assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
        }
    }

    #[test]
    fn shown_conversation_is_harmless() {
        let stored = |entry| StoredEntry { id: 1, turn: 1, at: 0, entry };
        let entries = [
            stored(Entry::TurnStarted {
                message: Message::text(Role::User, "red \u{1b}[31m"),
                model: "m".to_owned(),
            }),
            stored(Entry::TurnEnded { ending: Ending::Cancelled }),
        ];
        let text = conversation(&session(), &entries);
        assert!(text.contains("turn 1: cancelled") && !text.contains('\u{1b}'), "{text}");
    }
}
