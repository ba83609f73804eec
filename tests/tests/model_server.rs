//! The scripted model server itself: it must refuse what a vendor refuses, or the tests that pass against it say
//! nothing. Each broken request stands beside the good one it was made from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a panic is how a test fails, in its helper functions too"
)]

use std::io::{Read, Write};
use std::net::TcpStream;

use oxibot_tests::model_server::{Answer, ModelServer, Rules};
use serde_json::{Value, json};

const KEY: &str = "k1";

/// Sends a request by hand; gives status and answer.
fn post(server: &ModelServer, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.host()).unwrap();
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

fn openai_body() -> Value {
    json!({"model": "m", "stream": true, "max_tokens": 5,
        "tools": [{"type": "function", "function": {"name": "bash", "description": "d", "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": null, "tool_calls":
                [{"id": "a", "type": "function", "function": {"name": "bash", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "r"}]})
}

fn anthropic_body() -> Value {
    json!({"model": "m", "stream": true, "max_tokens": 5, "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "bash", "description": "d", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "bash", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "r"}]}]})
}

const OPENAI_HEADERS: &str = "content-type: application/json\r\nauthorization: Bearer k1\r\n";
const ANTHROPIC_HEADERS: &str =
    "content-type: application/json\r\nx-api-key: k1\r\nanthropic-version: 2023-06-01\r\n";

#[test]
fn good_requests_get_the_script_in_order_and_then_a_problem() {
    let server = ModelServer::start(Rules::with_key(KEY), vec![Answer::text("one"), Answer::text("two")]);
    let (status, answer) = post(&server, "/v1/chat/completions", OPENAI_HEADERS, &openai_body().to_string());
    assert!(status == 200 && answer.contains("\"ne\"") && answer.contains("[DONE]"), "{answer}");
    let (status, answer) = post(&server, "/v1/messages", ANTHROPIC_HEADERS, &anthropic_body().to_string());
    assert!(status == 200 && answer.contains("event: message_stop"), "{answer}");
    assert_eq!((server.problems(), server.left()), (vec![], 0));
    assert_eq!(post(&server, "/v1/messages", ANTHROPIC_HEADERS, &anthropic_body().to_string()).0, 400);
    assert_eq!(server.problems(), ["the script has no further answer"]);
}

#[rustfmt::skip]
#[test]
fn broken_bodies_are_refused_in_the_form_of_the_vendor() {
    let server = ModelServer::start(Rules::with_key(KEY), vec![]);
    for (pointer, value, reason) in [
        ("/model", Value::Null, "model"),
        ("/max_tokens", json!(0), "max_tokens"),
        ("/max_completion_tokens", json!(5), "max_tokens"),
        ("/surprise", json!(1), "surprise"),
        ("/temperature", json!(3), "temperature"),
        ("/tools/0/function/parameters", json!({}), "Invalid schema"),
        ("/tools/0/function/name", json!("a b"), "function"),
        ("/messages/0/role", json!("developer"), "role"),
        ("/messages/1/content", json!(""), "content"),
        ("/messages/1/role", json!("system"), "must be the first"),
        ("/messages/2/content", json!(""), "content"),
        ("/messages/2/tool_calls/0/id", json!("b"), "preceding"),
        ("/messages/2/tool_calls/0/function/arguments", json!("{"), "bad tool call"),
        ("/messages/3/tool_call_id", json!("z"), "preceding"),
        ("/messages/3", json!({"role": "user", "content": "x"}), "must be followed"),
        ("/messages/3/name", json!("bash"), "unknown field"),
    ] {
        refused(&server, "/v1/chat/completions", OPENAI_HEADERS, openai_body(), (pointer, value, reason));
    }
    for (pointer, value, reason) in [
        ("/max_tokens", Value::Null, "max_tokens"),
        ("/surprise", json!(1), "surprise"),
        ("/temperature", json!(1.5), "temperature"),
        ("/thinking", json!({"type": "enabled", "budget_tokens": 5}), "budget_tokens"),
        ("/system", json!([{"type": "text", "text": " "}]), "non-whitespace"),
        ("/tools/0/input_schema", json!({}), "input_schema"),
        ("/messages/0/role", json!("assistant"), "alternate"),
        ("/messages/1/role", json!("user"), "alternate"),
        ("/messages/0/content", json!([]), "non-empty"),
        ("/messages/1/content/0/id", json!("a.b"), "tool_use id"),
        ("/messages/1/content/0/input", json!("{}"), "tool_use"),
        ("/messages/1/content/0", json!({"type": "thinking", "thinking": "x", "signature": ""}), "signature"),
        ("/messages/2/content/0/tool_use_id", json!("z"), "tool_use_id"),
        ("/messages/2/content/0", json!({"type": "text", "text": "x"}), "without `tool_result`"),
    ] {
        refused(&server, "/v1/messages", ANTHROPIC_HEADERS, anthropic_body(), (pointer, value, reason));
    }
}

fn refused(server: &ModelServer, path: &str, headers: &str, good: Value, change: (&str, Value, &str)) {
    let (pointer, value, reason) = change;
    let mut body = good;
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap();
    match parent.as_object_mut() {
        Some(object) => drop(object.insert(last.to_owned(), value)),
        None => parent[last.parse::<usize>().unwrap()] = value,
    }
    let (status, answer) = post(server, path, headers, &body.to_string());
    let problem = server.problems().pop().unwrap();
    assert_eq!(status, 400, "{pointer}");
    assert!(problem.contains(reason), "{pointer}: {problem}");
    assert!(answer.contains("invalid_request_error"), "{answer}");
    assert_eq!(answer.contains("\"type\":\"error\""), path.ends_with("messages"), "{answer}");
}

#[test]
fn wrong_headers_paths_and_bodies_are_refused() {
    let server = ModelServer::start(Rules::with_key(KEY), vec![]);
    let (openai, anthropic) = (openai_body().to_string(), anthropic_body().to_string());
    let json = "content-type: application/json\r\n";
    for (path, headers, body, status) in [
        ("/v1/chat/completions", json.to_owned(), openai.as_str(), 401),
        ("/v1/chat/completions", format!("{json}authorization: Bearer k2\r\n"), &openai, 401),
        ("/v1/chat/completions", format!("{OPENAI_HEADERS}x-api-key: k1\r\n"), &openai, 400),
        ("/v1/chat/completions", "authorization: Bearer k1\r\n".to_owned(), &openai, 415),
        ("/v1/chat/completions", OPENAI_HEADERS.to_owned(), "{", 400),
        ("/v1/completions", OPENAI_HEADERS.to_owned(), &openai, 404),
        ("/v1/messages", format!("{json}x-api-key: k1\r\n"), &anthropic, 400),
        ("/v1/messages", format!("{ANTHROPIC_HEADERS}authorization: Bearer k1\r\n"), &anthropic, 400),
        ("/v1/messages", ANTHROPIC_HEADERS.replace("k1", "k2"), &anthropic, 401),
    ] {
        assert_eq!(post(&server, path, &headers, body).0, status, "{path} {headers}");
    }
    assert_eq!(server.problems().len(), 9);
}
