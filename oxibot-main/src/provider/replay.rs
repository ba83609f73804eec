//! Recorded conversations: written beside a real provider, played back without one.
//!
//! A recording is a text file with one JSON object a line, one line a reply, in the order in which replies were
//! asked for. Empty lines and lines that begin with `#` are comments. An object has:
//!
//! * `reply` (required): a [`ModelReply`]: `{"parts": [...], "stop": "tool_use", "usage": {...}}`;
//! * `expect_tools` (optional): names of tools that must be on offer in the request;
//! * `expect_last` (optional): text that must occur in the last message of the request;
//! * `pause_ms` (optional): time before the reply, so that a demonstration can be followed; at most 10 000.
//!
//! The tool calls of a recording are run for real: only the model is played. What the tools answered is not recorded.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use crate::model::{Message, ModelReply, ModelRequest, Part, StreamEvent};

use super::Provider;
use super::decode::Emit;
use super::error::ProviderError;

/// Largest recording that is read: it is held in memory.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// Longest pause a recording may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Characters that stream at once when a recording is played.
const PIECE: usize = 24;

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The reply.
    pub reply: ModelReply,
    /// Tools that must be on offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect_tools: Vec<String>,
    /// Text that must occur in the last message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_last: Option<String>,
    /// Pause before the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
}

/// Plays a recording.
#[derive(Debug)]
pub struct Replay {
    file: String,
    records: Vec<Record>,
    next: Mutex<usize>,
}

impl Replay {
    /// Reads a recording.
    pub fn open(path: &Path) -> Result<Self, ProviderError> {
        let name = path.display().to_string();
        let unusable = |why: String| ProviderError::Recording { file: name.clone(), why };
        let file = File::open(path).map_err(|error| unusable(error.to_string()))?;
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| unusable(error.to_string()))?;
        if text.len() as u64 > MAX_FILE {
            return Err(unusable(format!("it is larger than {MAX_FILE} bytes")));
        }
        Self::parse(&name, &text)
    }

    /// Reads a recording that is at hand as text; `name` is for errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProviderError> {
        let mut records = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let record = serde_json::from_str(line).map_err(|error| ProviderError::Recording {
                file: name.to_owned(),
                why: format!("line {}: {error}", number + 1),
            })?;
            records.push(record);
        }
        Ok(Self { file: name.to_owned(), records, next: Mutex::new(0) })
    }

    /// How many replies are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.records.len().saturating_sub(*self.next.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn complete(
        &self,
        request: &ModelRequest,
        emit: Emit<'_>,
    ) -> Result<ModelReply, ProviderError> {
        let (number, record) = self.take_next()?;
        if let Some(why) = unmet(record, request) {
            return Err(self.unusable(format!("reply {number}: {why}")));
        }
        if let Some(pause) = record.pause_ms {
            tokio::time::sleep(Duration::from_millis(pause).min(MAX_PAUSE)).await;
        }
        for part in &record.reply.parts {
            match part {
                Part::Text { text } => pieces(text, |piece| emit(StreamEvent::Text(piece))),
                Part::Reasoning(reasoning) => {
                    pieces(&reasoning.text, |piece| emit(StreamEvent::Reasoning(piece)))
                }
                Part::ToolCall(call) => emit(StreamEvent::ToolCall { name: call.name.clone() }),
                Part::Image { .. } | Part::ToolResult(_) => {}
            }
        }
        Ok(record.reply.clone())
    }

    fn take_next(&self) -> Result<(usize, &Record), ProviderError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.records.get(*next).ok_or_else(|| {
            self.unusable(format!("it has {} replies and one more was asked for", self.records.len()))
        })?;
        *next += 1;
        Ok((*next, record))
    }

    fn unusable(&self, why: String) -> ProviderError {
        ProviderError::Recording { file: self.file.clone(), why }
    }
}

fn unmet(record: &Record, request: &ModelRequest) -> Option<String> {
    let missing = |name: &&String| !request.tools.iter().any(|tool| tool.name == **name);
    if let Some(name) = record.expect_tools.iter().find(missing) {
        return Some(format!("tool {name} is not on offer"));
    }
    let expected = record.expect_last.as_ref()?;
    let last = request.messages.last().map(whole_text).unwrap_or_default();
    (!last.contains(expected)).then(|| format!("the last message does not hold {expected:?}"))
}

fn whole_text(message: &Message) -> String {
    message
        .parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => text.as_str(),
            Part::ToolResult(answer) => answer.text.as_str(),
            Part::Image { .. } | Part::Reasoning(_) | Part::ToolCall(_) => "",
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn pieces(text: &str, mut give: impl FnMut(String)) {
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        give(characters.by_ref().take(PIECE).collect());
    }
}

/// Records what a provider replies.
#[derive(Debug)]
pub struct Recorder {
    inner: Provider,
    path: PathBuf,
    file: Mutex<File>,
}

impl Recorder {
    /// Opens the file for appending: created 0600, because a conversation is private; one that others may read is
    /// refused, as is a symbolic link.
    pub fn new(inner: Provider, path: &Path) -> Result<Self, ProviderError> {
        let unusable = |why: String| ProviderError::Recording { file: path.display().to_string(), why };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits())
            .open(path)
            .map_err(|error| unusable(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| unusable(error.to_string()))?;
        if !metadata.is_file() {
            return Err(unusable("it is not a regular file".to_owned()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(unusable(format!("others may read it; run `chmod 600 {}`", path.display())));
        }
        Ok(Self { inner, path: path.to_owned(), file: Mutex::new(file) })
    }

    pub(super) fn inner(&self) -> &Provider {
        &self.inner
    }

    pub(super) async fn complete(
        &self,
        request: &ModelRequest,
        emit: Emit<'_>,
    ) -> Result<ModelReply, ProviderError> {
        let reply = self.inner.complete(request, emit).await?;
        let record =
            Record { reply: reply.clone(), expect_tools: Vec::new(), expect_last: None, pause_ms: None };
        let unusable = |why: String| ProviderError::Recording { file: self.path.display().to_string(), why };
        let mut line = serde_json::to_vec(&record).map_err(|error| unusable(error.to_string()))?;
        line.push(b'\n');
        // One write a line, so that a crash leaves whole lines.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|error| unusable(error.to_string()))?;
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{OfferedTool, Role, StopReason, TokenUsage, ToolCall};

    fn request(text: &str) -> ModelRequest {
        ModelRequest {
            model: "m".to_owned(),
            messages: vec![Message::text(Role::User, text)],
            tools: vec![OfferedTool {
                name: "bash".to_owned(),
                description: String::new(),
                parameters: json!({}),
            }],
            max_tokens: 1,
            temperature: None,
            reasoning_effort: None,
        }
    }

    fn reply(text: &str) -> ModelReply {
        ModelReply {
            parts: vec![
                Part::Text { text: text.to_owned() },
                Part::ToolCall(ToolCall {
                    id: "a".to_owned(),
                    name: "bash".to_owned(),
                    arguments: "{ broken".to_owned(),
                }),
            ],
            stop: StopReason::ToolUse,
            usage: TokenUsage::default(),
        }
    }

    fn line(record: serde_json::Value) -> String {
        format!("# comment\n\n{record}\n")
    }

    async fn play(provider: &Provider, text: &str) -> (Result<ModelReply, ProviderError>, Vec<StreamEvent>) {
        let mut events = Vec::new();
        let outcome = provider.complete(&request(text), &mut |event| events.push(event)).await;
        (outcome, events)
    }

    #[tokio::test]
    async fn what_was_recorded_is_played_with_the_same_replies() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("talk.jsonl");
        let text = "h\u{e9}llo ".repeat(20);
        let source = line(json!({"reply": reply(&text)})) + &line(json!({"reply": reply("two")}));
        let original = Provider::Replay(Replay::parse("source", &source).unwrap());
        let recorder = Provider::Recorder(Box::new(Recorder::new(original, &path).unwrap()));
        for expected in [reply(&text), reply("two")] {
            assert_eq!(play(&recorder, "x").await.0, Ok(expected));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let replay = Provider::Replay(Replay::open(&path).unwrap());
        let (outcome, events) = play(&replay, "x").await;
        assert_eq!(outcome, Ok(reply(&text)));
        let streamed: String = events
            .iter()
            .filter_map(|event| match event {
                StreamEvent::Text(text) => Some(text.as_str()),
                StreamEvent::Reasoning(_) | StreamEvent::ToolCall { .. } | StreamEvent::Restarted => None,
            })
            .collect();
        assert_eq!(streamed, text);
        assert_eq!(events.last(), Some(&StreamEvent::ToolCall { name: "bash".to_owned() }));
        assert!(events.len() > 3);
    }

    #[tokio::test]
    async fn request_beyond_the_end_is_an_error_that_counts() {
        let replay = Provider::Replay(Replay::parse("talk", &line(json!({"reply": reply("x")}))).unwrap());
        assert!(play(&replay, "x").await.0.is_ok());
        let error = play(&replay, "x").await.0.unwrap_err().to_string();
        assert!(error.contains("talk") && error.contains("has 1 replies"), "{error}");
    }

    #[tokio::test]
    async fn expectations_that_are_not_met_are_errors() {
        let record = json!({"reply": reply("x"), "expect_last": "weather", "expect_tools": ["bash"]});
        let replay = || Provider::Replay(Replay::parse("talk", &line(record.clone())).unwrap());
        assert!(play(&replay(), "the weather?").await.0.is_ok());
        assert!(play(&replay(), "the time?").await.0.unwrap_err().to_string().contains("weather"));
        let other = json!({"reply": reply("x"), "expect_tools": ["web_get"]});
        let replay = Provider::Replay(Replay::parse("talk", &line(other)).unwrap());
        assert!(play(&replay, "x").await.0.unwrap_err().to_string().contains("web_get is not on offer"));
    }

    #[test]
    fn broken_recording_names_the_line() {
        for broken in
            ["{}", "nonsense", "{\"reply\":{\"parts\":[],\"stop\":\"end_turn\",\"usage\":{}},\"x\":1}"]
        {
            let error = Replay::parse("talk", &format!("# one\n{broken}\n")).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
        let error = Replay::open(Path::new("/nonexistent/talk")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/talk"), "{error}");
    }

    #[test]
    fn recording_that_others_may_read_or_that_is_a_link_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("open.jsonl");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let inner = || Provider::Replay(Replay::parse("empty", "").unwrap());
        let error = Recorder::new(inner(), &path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        let link = directory.path().join("link.jsonl");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Recorder::new(inner(), &link).is_err());
    }
}
