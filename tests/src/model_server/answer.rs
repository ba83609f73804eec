//! Answers of the script, good ones and bad ones, in the form of the request they answer.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Wire, http};

/// One tool call of a reply.
#[derive(Debug, Clone)]
pub struct Call {
    /// Id; must be unique within a conversation.
    pub id: String,
    /// Tool.
    pub name: String,
    /// Arguments as text, well-formed or not.
    pub arguments: String,
}

/// A reply of the model.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Reasoning, signed with `sig` where the form has signatures.
    pub reasoning: String,
    /// Text.
    pub text: String,
    /// Tool calls.
    pub calls: Vec<Call>,
    /// Ended by the limit of tokens.
    pub cut_by_length: bool,
}

/// What a request is answered with.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A proper stream.
    Reply(Reply),
    /// An error (or a redirect) in the vendor's form.
    Error {
        /// Status.
        status: u16,
        /// Message.
        message: String,
        /// More headers, such as `retry-after`.
        headers: Vec<(String, String)>,
    },
    /// Status and JSON as given, for lists of models and peculiar bodies.
    Json(u16, Value),
    /// A web page.
    Html(u16),
    /// An event stream of these data lines, then a proper end.
    Events(Vec<String>),
    /// The first events of a reply, then the connection is cut (`clean` false) or the body ended properly.
    Half {
        /// The reply.
        reply: Reply,
        /// Whether the body ends properly.
        clean: bool,
    },
    /// Closes without a byte.
    Nothing,
    /// Never answers.
    Hang,
    /// The head and the first events of a reply, and then never anything more.
    Stall(Reply),
    /// A reply in pieces of one byte, with this pause between two of them.
    Drip(Reply, Duration),
    /// One line of so many bytes that does not end.
    HugeLine(usize),
    /// These bytes instead of HTTP.
    Raw(Vec<u8>),
    /// Another answer, later.
    After(Duration, Box<Self>),
}

impl Answer {
    /// A reply of text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Reply(Reply { text: text.to_owned(), ..Reply::default() })
    }

    /// A reply of tool calls, each `(id, name, arguments)`.
    #[must_use]
    pub fn calls(calls: &[(&str, &str, &str)]) -> Self {
        let calls = calls
            .iter()
            .map(|(id, name, arguments)| Call {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                arguments: (*arguments).to_owned(),
            })
            .collect();
        Self::Reply(Reply { calls, ..Reply::default() })
    }

    /// An error in the vendor's form.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        Self::Error { status, message: message.to_owned(), headers: Vec::new() }
    }

    /// An error that asks to wait.
    #[must_use]
    pub fn retry_after(status: u16, wait: &str) -> Self {
        let headers = vec![("retry-after".to_owned(), wait.to_owned())];
        Self::Error { status, message: "slow down".to_owned(), headers }
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self::After(wait, Box::new(self))
    }

    pub(super) async fn send(self, stream: &mut TcpStream, wire: Wire) -> io::Result<()> {
        match self {
            Self::After(wait, answer) => {
                tokio::time::sleep(wait).await;
                Box::pin(answer.send(stream, wire)).await
            }
            Self::Reply(reply) => {
                http::begin_stream(stream).await?;
                for event in events(&reply, wire) {
                    http::chunk(stream, event.as_bytes()).await?;
                }
                http::end_stream(stream).await
            }
            Self::Error { status, message, headers } => {
                let body = error_body(wire, status, &message).to_string();
                http::write_whole(stream, status, "application/json", &headers, body.as_bytes()).await
            }
            Self::Json(status, body) => {
                http::write_whole(stream, status, "application/json", &[], body.to_string().as_bytes()).await
            }
            Self::Html(status) => {
                let page = b"<!DOCTYPE html><html><body><h1>Sign in to continue</h1></body></html>";
                http::write_whole(stream, status, "text/html; charset=utf-8", &[], page).await
            }
            Self::Events(lines) => {
                http::begin_stream(stream).await?;
                for line in lines {
                    http::chunk(stream, format!("data: {line}\n\n").as_bytes()).await?;
                }
                http::end_stream(stream).await
            }
            Self::Half { reply, clean } => {
                first_half(stream, &reply, wire).await?;
                if clean { http::end_stream(stream).await } else { Ok(()) }
            }
            Self::Nothing => Ok(()),
            Self::Hang => std::future::pending().await,
            Self::Stall(reply) => {
                first_half(stream, &reply, wire).await?;
                std::future::pending().await
            }
            Self::Drip(reply, pause) => {
                http::begin_stream(stream).await?;
                for byte in events(&reply, wire).concat().into_bytes() {
                    http::chunk(stream, &[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(pause).await;
                }
                http::end_stream(stream).await
            }
            Self::HugeLine(bytes) => {
                http::begin_stream(stream).await?;
                http::chunk(stream, b"data: ").await?;
                let block = vec![b'x'; 64 * 1024];
                for _ in 0..bytes / block.len() {
                    http::chunk(stream, &block).await?;
                }
                http::end_stream(stream).await
            }
            Self::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            }
        }
    }
}

async fn first_half(stream: &mut TcpStream, reply: &Reply, wire: Wire) -> io::Result<()> {
    http::begin_stream(stream).await?;
    let events = events(reply, wire);
    for event in &events[..events.len() / 2] {
        http::chunk(stream, event.as_bytes()).await?;
    }
    stream.flush().await
}

/// An error in the form of the vendor.
fn error_body(wire: Wire, status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    match wire {
        Wire::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"})
        }
        Wire::OpenAi | Wire::Models | Wire::Unknown => {
            json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
        }
    }
}

fn events(reply: &Reply, wire: Wire) -> Vec<String> {
    match wire {
        Wire::Anthropic => anthropic_events(reply),
        Wire::OpenAi | Wire::Models | Wire::Unknown => openai_events(reply),
    }
}

/// Text in two pieces, so that there is something to put together.
fn halves(text: &str) -> Vec<&str> {
    let middle = (text.len() / 2..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (head, tail) = text.split_at(middle);
    [head, tail].into_iter().filter(|piece| !piece.is_empty()).collect()
}

fn openai_events(reply: &Reply) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
        format!("data: {chunk}\n\n")
    };
    let mut events =
        vec![": keep-alive\n\n".to_owned(), chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    for piece in halves(&reply.reasoning) {
        events.push(chunk(json!({"reasoning_content": piece}), Value::Null));
    }
    for piece in halves(&reply.text) {
        events.push(chunk(json!({"content": piece}), Value::Null));
    }
    for (index, call) in reply.calls.iter().enumerate() {
        let begin = json!({"tool_calls": [{"index": index, "id": call.id, "type": "function",
            "function": {"name": call.name, "arguments": ""}}]});
        events.push(chunk(begin, Value::Null));
        for piece in halves(&call.arguments) {
            let more = json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
            events.push(chunk(more, Value::Null));
        }
    }
    let finish = match reply {
        Reply { cut_by_length: true, .. } => "length",
        Reply { calls, .. } if calls.is_empty() => "stop",
        Reply { .. } => "tool_calls",
    };
    events.push(chunk(json!({}), json!(finish)));
    let usage = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 40}}});
    events.push(format!("data: {usage}\n\n"));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn anthropic_events(reply: &Reply) -> Vec<String> {
    let event =
        |body: Value| format!("event: {}\ndata: {body}\n\n", body["type"].as_str().unwrap_or_default());
    let mut events = vec![
        event(
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "content": [], "model": "scripted", "stop_reason": null, "usage": {"input_tokens": 60,
            "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0, "output_tokens": 1}}}),
        ),
        event(json!({"type": "ping"})),
    ];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(event(json!({"type": "content_block_start", "index": index, "content_block": start})));
        for delta in deltas {
            events.push(event(json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event(json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !reply.reasoning.is_empty() {
        let mut deltas: Vec<Value> = halves(&reply.reasoning)
            .into_iter()
            .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
            .collect();
        deltas.push(json!({"type": "signature_delta", "signature": "sig"}));
        block(json!({"type": "thinking", "thinking": "", "signature": ""}), deltas);
    }
    if !reply.text.is_empty() {
        let deltas =
            halves(&reply.text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece}));
        block(json!({"type": "text", "text": ""}), deltas.collect());
    }
    for call in &reply.calls {
        let deltas = halves(&call.arguments)
            .into_iter()
            .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}));
        block(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), deltas.collect());
    }
    let stop = match reply {
        Reply { cut_by_length: true, .. } => "max_tokens",
        Reply { calls, .. } if calls.is_empty() => "end_turn",
        Reply { .. } => "tool_use",
    };
    events
        .push(event(json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
        "usage": {"output_tokens": 20}})));
    events.push(event(json!({"type": "message_stop"})));
    events
}
