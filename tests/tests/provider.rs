//! The providers of `oxibot-main` against the scripted strict server: one wire fixture a preset, whole conversations,
//! and every way in which a vendor fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a panic is how a test fails, in its helper functions too"
)]

use std::time::{Duration, Instant};

use oxibot_main::model::{
    Message, ModelReply, ModelRequest, OfferedTool, Part, Reasoning, Role, StopReason, StreamEvent,
    ToolAnswer, ToolCall,
};
use oxibot_main::provider::{
    Chain, ConnectOptions, Hosted, Link, Patience, Provider, ProviderError, ProviderSettings, SecretString,
    open, presets,
};
use oxibot_tests::model_server::{Answer, Call, ModelServer, Reply, Rules};
use serde_json::json;

const KEY: &str = "sk-test-0123456789abcdef";

fn options() -> ConnectOptions {
    let patience = Patience {
        connect: Duration::from_secs(5),
        // Four times that on loopback.
        idle: Duration::from_millis(200),
        total: Duration::from_secs(30),
        attempts: 3,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(500),
    };
    ConnectOptions { patience, proxy: None }
}

fn settings(name: &str, base: &str) -> ProviderSettings {
    ProviderSettings {
        api_key: Some(SecretString::from(KEY)),
        api_base: Some(base.to_owned()),
        ..ProviderSettings::named(name)
    }
}

fn provider(name: &str, base: &str) -> Provider {
    Provider::hosted(&settings(name, base), &options()).unwrap()
}

fn request() -> ModelRequest {
    ModelRequest {
        model: "model-1".to_owned(),
        messages: vec![Message::text(Role::System, "be brief"), Message::text(Role::User, "list the files")],
        tools: vec![OfferedTool {
            name: "list_dir".to_owned(),
            description: "lists a directory".to_owned(),
            parameters: json!({"type": "object", "properties": {"path": {"type": "string"}}}),
        }],
        max_tokens: 1000,
        temperature: Some(0.1),
        reasoning_effort: None,
    }
}

async fn ask(
    provider: &Provider,
    request: &ModelRequest,
) -> (Result<ModelReply, ProviderError>, Vec<StreamEvent>) {
    let mut events = Vec::new();
    let outcome = provider.complete(request, &mut |event| events.push(event)).await;
    (outcome, events)
}

/// The outcome of one request against one script, with what streamed and the number of requests that came.
async fn against(script: Vec<Answer>) -> (Result<ModelReply, ProviderError>, Vec<StreamEvent>, usize) {
    let server = ModelServer::start(Rules::with_key(KEY), script);
    let (outcome, events) = ask(&provider("custom", &server.openai_base()), &request()).await;
    assert_eq!(server.problems(), [""; 0]);
    (outcome, events, server.requests().len())
}

fn calls(reply: &ModelReply) -> Vec<ToolCall> {
    let call = |part: &Part| match part {
        Part::ToolCall(call) => Some(call.clone()),
        Part::Text { .. } | Part::Image { .. } | Part::Reasoning(_) | Part::ToolResult(_) => None,
    };
    reply.parts.iter().filter_map(call).collect()
}

fn text(reply: &ModelReply) -> String {
    Message { role: Role::Assistant, parts: reply.parts.clone() }.joined_text()
}

fn streamed_text(events: &[StreamEvent]) -> String {
    let piece = |event: &StreamEvent| match event {
        StreamEvent::Text(text) => Some(text.clone()),
        StreamEvent::Reasoning(_) | StreamEvent::ToolCall { .. } | StreamEvent::Restarted => None,
    };
    events.iter().filter_map(piece).collect()
}

fn long_reply() -> Reply {
    Reply { text: "a text of some length".to_owned(), ..Reply::default() }
}

/// What each preset's requests look like: its own address, and the fields it knows beyond the reference.
#[rustfmt::skip]
const FIXTURES: [(&str, &str, &[&str], &[&str]); 17] = [
    ("openrouter", "https://openrouter.ai/api/v1/chat/completions", &["usage"], &["reasoning_details"]),
    ("openai", "https://api.openai.com/v1/chat/completions", &[], &[]),
    ("anthropic", "https://api.anthropic.com/v1/messages", &[], &[]),
    ("deepseek", "https://api.deepseek.com/v1/chat/completions", &[], &["reasoning_content"]),
    ("groq", "https://api.groq.com/openai/v1/chat/completions", &[], &[]),
    ("gemini", "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions", &[], &["extra_content"]),
    ("mistral", "https://api.mistral.ai/v1/chat/completions", &[], &[]),
    ("xai", "https://api.x.ai/v1/chat/completions", &[], &[]),
    ("zhipu", "https://open.bigmodel.cn/api/paas/v4/chat/completions", &[], &["reasoning_content"]),
    ("dashscope", "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions", &[], &[]),
    ("moonshot", "https://api.moonshot.ai/v1/chat/completions", &[], &["reasoning_content"]),
    ("minimax", "https://api.minimax.io/v1/chat/completions", &["reasoning_split"], &["reasoning_details"]),
    ("aihubmix", "https://aihubmix.com/v1/chat/completions", &[], &[]),
    ("ollama", "http://127.0.0.1:11434/v1/chat/completions", &[], &["reasoning"]),
    ("vllm", "http://127.0.0.1:8000/v1/chat/completions", &[], &[]),
    ("llamacpp", "http://127.0.0.1:8080/v1/chat/completions", &[], &["reasoning_content"]),
    ("lmstudio", "http://127.0.0.1:1234/v1/chat/completions", &[], &[]),
];

#[test]
fn every_preset_has_a_fixture() {
    let mut names: Vec<&str> = FIXTURES.iter().map(|fixture| fixture.0).collect();
    // `custom` has no address of its own; the tests below use it throughout.
    names.push("custom");
    assert_eq!(names, presets().iter().map(|preset| preset.name).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_preset_speaks_its_wire_to_its_own_host() {
    for (name, address, body_fields, message_fields) in FIXTURES {
        let keyed = ProviderSettings { api_base: None, ..settings(name, "") };
        assert_eq!(Hosted::new(&keyed, &options()).unwrap().address(), address, "{name}");

        let mut rules = Rules::with_key(KEY);
        rules.body_fields = body_fields.iter().map(|field| (*field).to_owned()).collect();
        rules.message_fields = message_fields.iter().map(|field| (*field).to_owned()).collect();
        let call = |id: &str, arguments: &str| Call {
            id: id.to_owned(),
            name: "list_dir".to_owned(),
            arguments: arguments.to_owned(),
        };
        let first = Reply {
            reasoning: "which directory?".to_owned(),
            text: "I look.".to_owned(),
            calls: vec![call("call_00000001", "{\"path\":\"src\"}"), call("call_00000002", "{\"path\": ")],
            cut_by_length: false,
        };
        let refusal = Answer::error(401, &format!("bad key {KEY}"));
        let server =
            ModelServer::start(rules, vec![Answer::Reply(first), Answer::text("Two files."), refusal]);
        // The preset's own path, on the test's host.
        let path = address.splitn(4, '/').nth(3).unwrap();
        let provider = provider(name, &format!("{}/{path}", server.url()));

        let mut request = request();
        let (outcome, events) = ask(&provider, &request).await;
        let reply = outcome.unwrap_or_else(|error| panic!("{name}: {error}; {:?}", server.problems()));
        assert_eq!(text(&reply), "I look.", "{name}");
        assert_eq!(reply.stop, StopReason::ToolUse, "{name}");
        assert_eq!((reply.usage.input, reply.usage.output, reply.usage.cache_read), (100, 20, 40), "{name}");
        let made = calls(&reply);
        let arguments: Vec<_> = made.iter().map(|call| call.arguments.as_str()).collect();
        assert_eq!(arguments, ["{\"path\":\"src\"}", "{\"path\": "], "{name}");
        let announced = StreamEvent::ToolCall { name: "list_dir".to_owned() };
        assert_eq!(events.iter().filter(|event| **event == announced).count(), 2, "{name}");
        assert_eq!(streamed_text(&events), "I look.", "{name}");

        request.messages.push(Message { role: Role::Assistant, parts: reply.parts });
        let answers = made.into_iter().map(|call| {
            Part::ToolResult(ToolAnswer {
                id: call.id,
                name: call.name,
                text: "a b".to_owned(),
                is_error: false,
            })
        });
        request.messages.push(Message { role: Role::Tool, parts: answers.collect() });
        let (outcome, _) = ask(&provider, &request).await;
        let reply = outcome.unwrap_or_else(|error| panic!("{name}: {error}; {:?}", server.problems()));
        assert_eq!(text(&reply), "Two files.", "{name}");

        let error = ask(&provider, &request).await.0.unwrap_err();
        assert!(matches!(error, ProviderError::Unauthorized { .. }), "{name}: {error}");
        assert!(error.to_string().contains("bad key [key]") && !error.to_string().contains(KEY), "{error}");

        assert_eq!(server.problems(), [""; 0], "{name}");
        for seen in server.requests() {
            assert_eq!((seen.method.as_str(), seen.path), ("POST", format!("/{path}")), "{name}");
            assert_eq!(seen.headers["host"], server.host(), "{name}");
            assert_eq!(seen.headers["content-type"], "application/json");
            assert!(seen.headers["user-agent"].starts_with("oxibot/"));
            let (header, other, value) = match name {
                "anthropic" => ("x-api-key", "authorization", KEY.to_owned()),
                _ => ("authorization", "x-api-key", format!("Bearer {KEY}")),
            };
            assert_eq!(seen.headers[header], value, "{name}");
            assert!(!seen.headers.contains_key(other), "{name}");
            assert_eq!(seen.body["model"], "model-1");
        }
    }
}

#[tokio::test]
async fn local_server_gets_no_key_at_all() {
    let server = ModelServer::start(Rules::without_key(), vec![Answer::text("hi")]);
    let settings = ProviderSettings { api_key: None, ..settings("vllm", &server.url()) };
    let provider = Provider::hosted(&settings, &options()).unwrap();
    assert!(ask(&provider, &request()).await.0.is_ok(), "{:?}", server.problems());
    assert!(!server.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn thinking_goes_back_signed_and_images_reach_both_wires() {
    for (name, signs) in [("anthropic", true), ("openai", false)] {
        let thoughtful = Reply { reasoning: "hmm".to_owned(), ..long_reply() };
        let script = vec![Answer::Reply(thoughtful), Answer::Reply(long_reply())];
        let server = ModelServer::start(Rules::with_key(KEY), script);
        let provider = provider(name, &server.openai_base());
        let mut request = request();
        request.model = "claude-sonnet-4-5".to_owned();
        request.reasoning_effort = Some("low".to_owned());
        let image = Part::Image { media_type: "image/png".to_owned(), data: "iVBORw0KGgo=".to_owned() };
        request.messages.push(Message { role: Role::User, parts: vec![image] });
        let (outcome, _) = ask(&provider, &request).await;
        let reply = outcome.unwrap_or_else(|error| panic!("{name}: {error} {:?}", server.problems()));
        let is_thought =
            |part: &Part| matches!(part, Part::Reasoning(Reasoning { text, .. }) if text == "hmm");
        assert!(reply.parts.iter().any(is_thought), "{name}");
        request.messages.push(Message { role: Role::Assistant, parts: reply.parts });
        request.messages.push(Message::text(Role::User, "and?"));
        assert!(ask(&provider, &request).await.0.is_ok(), "{name}: {:?}", server.problems());
        let second = server.requests()[1].body.to_string();
        assert_eq!(second.contains("\"signature\":\"sig\""), signs, "{name}");
        assert!(second.contains("iVBORw0KGgo="), "{name}");
    }
}

#[tokio::test]
async fn transient_failures_are_retried_and_the_answer_is_whole() {
    for (failure, restarted) in [
        (Answer::error(500, "boom"), false),
        (Answer::error(529, "overloaded"), false),
        (Answer::error(408, "timeout"), false),
        (Answer::error(409, "conflict"), false),
        (Answer::retry_after(429, "0.05"), false),
        (Answer::retry_after(503, "Sun, 06 Nov 1994 08:49:37 GMT"), false),
        (Answer::Html(502), false),
        (Answer::Nothing, false),
        (Answer::Hang, false),
        (Answer::Half { reply: long_reply(), clean: false }, true),
        (Answer::Half { reply: long_reply(), clean: true }, true),
        (Answer::Stall(long_reply()), true),
        (Answer::Events(vec![json!({"error": {"code": 502, "message": "upstream"}}).to_string()]), false),
    ] {
        let shown = format!("{failure:?}");
        let (outcome, events, requests) = against(vec![failure, Answer::Reply(long_reply())]).await;
        assert_eq!(text(&outcome.unwrap_or_else(|error| panic!("{shown}: {error}"))), long_reply().text);
        assert_eq!(requests, 2, "{shown}");
        assert_eq!(events.contains(&StreamEvent::Restarted), restarted, "{shown}");
        let after = events.rsplit(|event| *event == StreamEvent::Restarted).next().unwrap();
        assert_eq!(streamed_text(after), long_reply().text, "{shown}");
    }
}

#[tokio::test]
async fn retries_end_and_the_error_says_what_to_do() {
    let (outcome, _, requests) = against(vec![Answer::error(500, "boom"); 9]).await;
    assert_eq!(requests, 3);
    let error = outcome.unwrap_err();
    assert!(matches!(error, ProviderError::Overloaded { status: 500, .. }), "{error}");
    assert!(error.to_string().contains("fallbackModels"), "{error}");

    let (outcome, _, requests) = against(vec![Answer::Nothing; 9]).await;
    assert_eq!(requests, 3);
    assert!(matches!(outcome, Err(ProviderError::Network { .. })), "{outcome:?}");

    let (outcome, _, _) = against(vec![Answer::Half { reply: long_reply(), clean: false }; 9]).await;
    assert!(matches!(outcome, Err(ProviderError::Truncated { .. })), "{outcome:?}");

    let (outcome, _, _) = against(vec![Answer::Hang; 9]).await;
    assert!(matches!(outcome, Err(ProviderError::Timeout { .. })), "{outcome:?}");
}

#[tokio::test]
async fn failures_that_repeat_themselves_are_asked_once() {
    type Expected = fn(&ProviderError) -> bool;
    let cases: [(Answer, Expected); 10] = [
        (Answer::error(400, "bad"), |error| matches!(error, ProviderError::BadRequest { .. })),
        (Answer::error(401, "bad key"), |error| matches!(error, ProviderError::Unauthorized { .. })),
        (Answer::error(402, "pay"), |error| matches!(error, ProviderError::QuotaExhausted { .. })),
        (Answer::error(404, "no model"), |error| matches!(error, ProviderError::NotFound { .. })),
        (Answer::error(413, "long"), |error| matches!(error, ProviderError::ContextTooLong { .. })),
        (Answer::Html(200), |error| matches!(error, ProviderError::HtmlPage { status: 200, .. })),
        (Answer::Html(404), |error| matches!(error, ProviderError::HtmlPage { status: 404, .. })),
        (Answer::Json(200, json!({"hello": "world"})), |error| {
            matches!(error, ProviderError::Garbage { .. })
        }),
        (Answer::Events(vec!["{not json".to_owned()]), |error| {
            matches!(error, ProviderError::Garbage { .. })
        }),
        (Answer::HugeLine(9 * 1024 * 1024), |error| matches!(error, ProviderError::TooLarge { .. })),
    ];
    for (answer, expected) in cases {
        let shown = format!("{answer:?}");
        let (outcome, _, requests) = against(vec![answer, Answer::text("never")]).await;
        let error = outcome.expect_err(&shown);
        assert!(expected(&error), "{shown}: {error}");
        assert_eq!(requests, 1, "{shown}");
        assert!(error.to_string().len() < 600, "{error}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_http_or_no_stream_are_one_clear_error() {
    let (outcome, _, _) = against(vec![Answer::Raw(b"220 smtp.example ESMTP\r\n".to_vec()); 3]).await;
    assert!(matches!(outcome, Err(ProviderError::Network { .. })), "{outcome:?}");
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".as_slice();
    let (outcome, _, _) = against(vec![Answer::Raw([head, b"\x00\xff\xfe nonsense"].concat()); 3]).await;
    assert!(matches!(outcome, Err(ProviderError::Garbage { .. })), "{outcome:?}");
}

#[tokio::test]
async fn wait_longer_than_our_patience_is_not_waited_for() {
    let begun = Instant::now();
    let (outcome, _, requests) = against(vec![Answer::retry_after(429, "3600"), Answer::text("never")]).await;
    let error = outcome.unwrap_err();
    assert_eq!(requests, 1);
    assert!(error.to_string().contains("asked to wait 3600 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn slow_drip_is_read_but_not_beyond_the_deadline() {
    let (outcome, _, _) = against(vec![Answer::Drip(long_reply(), Duration::ZERO)]).await;
    assert_eq!(text(&outcome.unwrap()), long_reply().text);

    let script = vec![Answer::Drip(long_reply(), Duration::from_millis(20)); 9];
    let server = ModelServer::start(Rules::with_key(KEY), script);
    let mut short = options();
    short.patience.total = Duration::from_millis(1500);
    let provider = Provider::hosted(&settings("custom", &server.openai_base()), &short).unwrap();
    let error = ask(&provider, &request()).await.0.unwrap_err();
    assert!(matches!(error, ProviderError::Timeout { what: "the whole answer", .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn redirect_is_not_followed_and_the_key_goes_nowhere_else() {
    let elsewhere = ModelServer::start(Rules::with_key(KEY), vec![Answer::text("stolen"); 5]);
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/chat/completions", elsewhere.openai_base());
        let headers = vec![("location".to_owned(), target)];
        let (outcome, _, _) =
            against(vec![Answer::Error { status, message: "moved".to_owned(), headers }]).await;
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains("redirect"), "{error}");
    }
    assert_eq!(elsewhere.requests().len(), 0);
    // The control: the place it was sent to does answer who asks it.
    assert!(ask(&provider("custom", &elsewhere.openai_base()), &request()).await.0.is_ok());
}

fn chain(first: &ModelServer, second: &ModelServer) -> Provider {
    Provider::Chain(Chain::new(vec![
        Link { provider: provider("custom", &first.openai_base()), model: "one".to_owned() },
        Link { provider: provider("anthropic", &second.url()), model: "two".to_owned() },
    ]))
}

#[tokio::test]
async fn fallback_answers_when_the_first_model_cannot() {
    let half = Answer::Half { reply: long_reply(), clean: false };
    let first = ModelServer::start(Rules::with_key(KEY), vec![half.clone(), half.clone(), half]);
    let second = ModelServer::start(Rules::with_key(KEY), vec![Answer::text("from the second")]);
    let (outcome, events) = ask(&chain(&first, &second), &request()).await;
    assert_eq!(text(&outcome.unwrap()), "from the second");
    let after = events.rsplit(|event| *event == StreamEvent::Restarted).next().unwrap();
    assert_eq!(streamed_text(after), "from the second");
    assert_eq!(first.requests()[0].body["model"], "one");
    assert_eq!(second.requests()[0].body["model"], "two");
    assert_eq!([first.problems(), second.problems()].concat(), [""; 0]);
}

#[tokio::test]
async fn fallback_does_not_hide_our_own_mistakes_and_the_first_error_is_shown() {
    let bad = ModelServer::start(Rules::with_key(KEY), vec![Answer::error(400, "tools.0 is bad")]);
    let never = ModelServer::start(Rules::with_key(KEY), vec![]);
    let (outcome, _) = ask(&chain(&bad, &never), &request()).await;
    assert!(outcome.unwrap_err().to_string().contains("tools.0 is bad"));
    assert_eq!(never.requests().len(), 0);

    let poor = ModelServer::start(Rules::with_key(KEY), vec![Answer::error(402, "no money")]);
    let down = ModelServer::start(Rules::with_key(KEY), vec![Answer::error(500, "down"); 3]);
    let (outcome, _) = ask(&chain(&poor, &down), &request()).await;
    assert!(matches!(outcome, Err(ProviderError::QuotaExhausted { .. })));
    assert_eq!(down.requests().len(), 3);
}

#[tokio::test]
async fn refused_parameter_is_left_out_and_remembered() {
    let script = vec![
        Answer::error(400, "Unsupported parameter: use 'max_completion_tokens' instead."),
        Answer::error(400, "Unsupported value: 'temperature' does not support 0.1 with this model."),
        Answer::text("one"),
        Answer::text("two"),
        Answer::text("three"),
    ];
    let server = ModelServer::start(Rules::with_key(KEY), script);
    let provider = provider("custom", &server.openai_base());
    assert!(ask(&provider, &request()).await.0.is_ok());
    assert!(ask(&provider, &request()).await.0.is_ok());
    // What one model refuses, another is asked for.
    let other = ModelRequest { model: "model-2".to_owned(), ..request() };
    assert!(ask(&provider, &other).await.0.is_ok());
    let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 5);
    for learned in &bodies[2..4] {
        assert!(
            learned["max_completion_tokens"] == 1000 && learned.get("temperature").is_none(),
            "{learned}"
        );
    }
    for fresh in [&bodies[0], &bodies[4]] {
        assert!(fresh["max_tokens"] == 1000 && fresh["temperature"] == 0.1, "{fresh}");
    }
}

#[tokio::test]
async fn interrupted_history_is_still_accepted() {
    for name in ["anthropic", "openai", "mistral"] {
        let server = ModelServer::start(Rules::with_key(KEY), vec![Answer::text("fine")]);
        let mut request = request();
        let call = ToolCall {
            id: "functions.bash:0".to_owned(),
            name: "bash".to_owned(),
            arguments: "{".to_owned(),
        };
        request.messages.push(Message { role: Role::Assistant, parts: vec![Part::ToolCall(call)] });
        request.messages.push(Message::text(Role::User, "what happened?"));
        let (outcome, _) = ask(&provider(name, &server.openai_base()), &request).await;
        assert!(outcome.is_ok(), "{name}: {:?}", server.problems());
    }
}

#[tokio::test]
async fn models_are_listed_from_each_kind_of_server() {
    let openai = json!({"object": "list", "data": [{"id": "b"}, {"id": "a", "context_length": 1000}]});
    let ollama = json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b"}]});
    let anthropic = json!({"data": [{"id": "claude-x", "display_name": "Claude X", "type": "model"}]});
    for (name, answer, path, expected) in [
        ("openai", openai, "/v1/models", vec!["a", "b"]),
        ("ollama", ollama, "/api/tags", vec!["qwen3:8b"]),
        ("anthropic", anthropic, "/v1/models?limit=1000", vec!["claude-x"]),
    ] {
        let server = ModelServer::start(Rules::with_key(KEY), vec![Answer::Json(200, answer)]);
        let models = provider(name, &server.url()).list_models().await.unwrap();
        assert_eq!(models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), expected);
        let requests = server.requests();
        assert_eq!(requests[0].path, path);
        let header = if name == "anthropic" { "x-api-key" } else { "authorization" };
        assert!(requests[0].headers[header].ends_with(KEY));
    }
    // OpenRouter shows its list to anybody: the key is asked for by itself, first.
    let script =
        vec![Answer::Json(200, json!({"data": {"label": "k"}})), Answer::Json(200, json!({"data": []}))];
    let server = ModelServer::start(Rules::with_key(KEY), script);
    provider("openrouter", &server.openai_base()).list_models().await.unwrap();
    let paths: Vec<String> = server.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/v1/key", "/v1/models"]);
    let server =
        ModelServer::start(Rules::with_key(KEY), vec![Answer::error(401, "No auth credentials found")]);
    assert!(provider("openrouter", &server.openai_base()).list_models().await.is_err());
    for bad in [
        Answer::error(401, "no"),
        Answer::Html(200),
        Answer::Json(200, json!({})),
        Answer::Nothing,
        Answer::Hang,
    ] {
        let server = ModelServer::start(Rules::with_key(KEY), vec![bad]);
        assert!(provider("openai", &server.openai_base()).list_models().await.is_err());
    }
}

#[tokio::test]
async fn nobody_listening_is_one_clear_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}/v1");
    let shown = ask(&provider("ollama", &base), &request()).await.0.unwrap_err().to_string();
    assert!(shown.contains(&format!("127.0.0.1:{port}")) && shown.contains("refused"), "{shown}");
}

#[tokio::test]
async fn https_to_a_server_without_tls_is_one_clear_error_and_shows_it_no_key() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        hello.truncate(length);
        hello
    });
    let mut once = options();
    once.patience.attempts = 1;
    let provider =
        Provider::hosted(&settings("openai", &format!("https://127.0.0.1:{port}/v1")), &once).unwrap();
    let error = ask(&provider, &request()).await.0.unwrap_err();
    assert!(matches!(error, ProviderError::Network { .. }), "{error}");
    let hello = peer.join().unwrap();
    assert_eq!(hello[0], 22, "a TLS handshake record");
    assert!(!String::from_utf8_lossy(&hello).contains("sk-test"));
}

#[tokio::test]
async fn proxy_is_used_when_configured() {
    let proxy = ModelServer::start(Rules::without_key(), vec![Answer::text("through the proxy")]);
    let settings = ProviderSettings { api_key: None, ..settings("custom", "http://model.invalid/v1") };
    let proxied = ConnectOptions { proxy: Some(proxy.url()), ..options() };
    let provider = Provider::hosted(&settings, &proxied).unwrap();
    assert!(ask(&provider, &request()).await.0.is_ok(), "{:?}", proxy.problems());
    assert_eq!(proxy.requests()[0].path, "http://model.invalid/v1/chat/completions");
}

#[test]
fn proxy_from_the_environment_is_not_used() {
    // The variables must be there before the process starts, so a test of this file is run again under them.
    let nowhere = "http://127.0.0.1:9";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local_server_gets_no_key_at_all"])
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, nowhere)))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
}

#[test]
fn model_names_open_providers_or_say_what_to_run() {
    let configured = [settings("openrouter", "http://127.0.0.1:9/v1")];
    let opened = open("anthropic/claude-x", &["ollama/qwen3".to_owned()], &configured, &options()).unwrap();
    assert_eq!((opened.provider.name(), opened.model.as_str()), ("openrouter", "anthropic/claude-x"));
    let error = open("anthropic/claude-x", &[], &[], &options()).unwrap_err().to_string();
    assert!(error.contains("oxibot onboard"), "{error}");
}
