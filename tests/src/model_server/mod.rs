//! A scripted model server on loopback that speaks both wire formats strictly.
//!
//! It stands in for a vendor's cloud, the one peer that cannot run here. A request that a vendor would refuse is
//! answered 400 in the vendor's form and is remembered as a problem; a good one gets the next answer of the script.
//! HTTP is written by hand and not with a library, because half the answers are ones that a library would refuse to
//! send: half a stream, no answer, bytes that are no HTTP.
//!
//! It never reads a configuration and has no model in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a fake that cannot go on fails its test by panicking"
)]

mod answer;
mod anthropic;
mod http;
mod openai;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use self::answer::{Answer, Call, Reply};

/// Which form a request had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI-compatible chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// A list of models.
    Models,
    /// Neither.
    Unknown,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body; null if it is no JSON.
    pub body: Value,
    /// Which form it had.
    pub wire: Wire,
    /// Why a vendor would have refused it.
    pub problem: Option<String>,
}

impl Request {
    /// The last thing a person said in it.
    #[must_use]
    pub fn last_said(&self) -> String {
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        let last =
            messages.iter().rev().find(|message| message["role"] == "user").cloned().unwrap_or_default();
        match &last["content"] {
            Value::String(text) => text.clone(),
            parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// What the server insists on.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The key that must come; none means that none may come.
    pub key: Option<String>,
    /// Fields of the body that this vendor knows beyond the reference.
    pub body_fields: Vec<String>,
    /// Fields of an assistant message or a tool call that this vendor knows beyond the reference.
    pub message_fields: Vec<String>,
    /// Names of models; any name if empty.
    pub models: Vec<String>,
}

impl Rules {
    /// The reference, with this key.
    #[must_use]
    pub fn with_key(key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            body_fields: Vec::new(),
            message_fields: Vec::new(),
            models: Vec::new(),
        }
    }

    /// The reference, without a key.
    #[must_use]
    pub fn without_key() -> Self {
        Self { key: None, ..Self::with_key("") }
    }
}

/// Makes an answer up from a request.
type MadeUp = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

struct Shared {
    rules: Rules,
    script: Mutex<VecDeque<Answer>>,
    /// For requests beyond the script.
    made_up: Option<MadeUp>,
    requests: Mutex<Vec<Request>>,
}

/// A running server; it ends when this is dropped.
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for ModelServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ModelServer {
    /// Starts a server that answers every good request with what `made_up` says.
    #[must_use]
    pub fn answering(rules: Rules, made_up: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::begin(rules, Vec::new(), Some(Box::new(made_up)))
    }

    /// Starts on a free port with its own thread and runtime; works with and without a runtime around it. The answers
    /// are given in order; a request beyond the last is answered 400 and is a problem.
    #[must_use]
    pub fn start(rules: Rules, script: Vec<Answer>) -> Self {
        Self::begin(rules, script, None)
    }

    fn begin(rules: Rules, script: Vec<Answer>, made_up: Option<MadeUp>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind on loopback");
        listener.set_nonblocking(true).expect("non-blocking listener");
        let address = listener.local_addr().expect("address of the listener");
        let shared = Arc::new(Shared {
            rules,
            script: Mutex::new(script.into()),
            made_up,
            requests: Mutex::new(Vec::new()),
        });
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("listener");
                tokio::select! {
                    () = serve(listener, served) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime ends the connections that hang on purpose.
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`, without a path.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What to configure as `apiBase` for the OpenAI-compatible form.
    #[must_use]
    pub fn openai_base(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Adds an answer to the end of the script.
    pub fn push(&self, answer: Answer) {
        self.shared.script.lock().unwrap().push_back(answer);
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Requests that a vendor would have refused, each with its reason.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.requests().into_iter().filter_map(|request| request.problem).collect()
    }

    /// How many answers of the script were not asked for.
    #[must_use]
    pub fn left(&self) -> usize {
        self.shared.script.lock().unwrap().len()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut stream = stream;
            // The peer may go away at any moment: that is part of what is tested.
            let _ = connection(&mut stream, &shared).await;
        });
    }
}

async fn connection(stream: &mut tokio::net::TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some(mut request) = http::read_request(stream).await? else { return Ok(()) };
    let path = request.path.split('?').next().unwrap_or_default().to_owned();
    request.wire = match (request.method.as_str(), path.as_str()) {
        ("POST", path) if path.ends_with("/chat/completions") => Wire::OpenAi,
        ("POST", path) if path.ends_with("/v1/messages") => Wire::Anthropic,
        ("GET", path) if ["/models", "/api/tags", "/key"].iter().any(|end| path.ends_with(end)) => {
            Wire::Models
        }
        _ => Wire::Unknown,
    };
    let (wire, refusal) = (request.wire, judge(&request, &shared.rules));
    let answer = match refusal {
        Some((status, problem)) => {
            request.problem = Some(problem.clone());
            Answer::error(status, &problem)
        }
        None => {
            let next = shared.script.lock().unwrap().pop_front();
            next.or_else(|| shared.made_up.as_ref().map(|make| make(&request))).unwrap_or_else(|| {
                let problem = "the script has no further answer";
                request.problem = Some(problem.to_owned());
                Answer::error(400, problem)
            })
        }
    };
    shared.requests.lock().unwrap().push(request);
    answer.send(stream, wire).await
}

/// The status and the reason with which a vendor would refuse the request.
fn judge(request: &Request, rules: &Rules) -> Option<(u16, String)> {
    let checked = match request.wire {
        Wire::OpenAi => check_openai_key(request, rules)
            .or_else(|| check_json(request))
            .or_else(|| openai::check(&request.body, rules).err().map(|problem| (400, problem))),
        Wire::Anthropic => check_anthropic_key(request, rules)
            .or_else(|| check_json(request))
            .or_else(|| anthropic::check(&request.body, rules).err().map(|problem| (400, problem))),
        Wire::Models => None,
        Wire::Unknown => Some((404, format!("no such path: {} {}", request.method, request.path))),
    };
    checked.or_else(|| {
        let asked = request.body.get("model").and_then(Value::as_str).unwrap_or_default();
        let unknown = request.wire != Wire::Models
            && !rules.models.is_empty()
            && !rules.models.iter().any(|model| model == asked);
        unknown.then(|| (404, format!("the model {asked:?} does not exist")))
    })
}

fn check_json(request: &Request) -> Option<(u16, String)> {
    let kind = request.headers.get("content-type").map(String::as_str);
    if kind != Some("application/json") {
        return Some((415, format!("content-type is {kind:?}")));
    }
    request.body.is_null().then(|| (400, "the body is no JSON".to_owned()))
}

fn check_openai_key(request: &Request, rules: &Rules) -> Option<(u16, String)> {
    if request.headers.contains_key("x-api-key") {
        return Some((400, "x-api-key belongs to another vendor".to_owned()));
    }
    let expected = rules.key.as_ref().map(|key| format!("Bearer {key}"));
    let came = request.headers.get("authorization");
    (came != expected.as_ref()).then(|| (401, "Incorrect API key provided".to_owned()))
}

fn check_anthropic_key(request: &Request, rules: &Rules) -> Option<(u16, String)> {
    if request.headers.contains_key("authorization") {
        return Some((400, "authorization belongs to another vendor".to_owned()));
    }
    if request.headers.get("anthropic-version").map(String::as_str) != Some("2023-06-01") {
        return Some((400, "anthropic-version: header is required".to_owned()));
    }
    (request.headers.get("x-api-key") != rules.key.as_ref()).then(|| (401, "invalid x-api-key".to_owned()))
}

/// Fields of an object that are not among those known.
fn unknown_field(object: &serde_json::Map<String, Value>, known: &[&str], more: &[String]) -> Option<String> {
    object.keys().find(|key| !known.contains(&key.as_str()) && !more.contains(key)).cloned()
}

/// A tool's name as both vendors define it.
fn is_tool_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
