//! A Bot API on loopback, as strict as Telegram's.
//!
//! It stands in for a vendor's cloud, the one peer that cannot run here. Updates stay until they are confirmed by an
//! offset; a second poller ends the first with 409; text is counted after its entities were parsed; markup Telegram does
//! not know is refused. Every call is kept, so that tests assert on what the vendor saw. Calls are judged by the vendor's
//! published schema where that is to be had.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a fake that cannot go on fails its test by panicking"
)]

mod markup;
mod method;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode};
use axum::routing::any;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

/// The bot's id.
pub const BOT: i64 = 666;
/// The bot's user name.
pub const BOT_NAME: &str = "oxi_bot";

/// A call that was accepted.
#[derive(Debug, Clone)]
pub struct Call {
    /// Method as documented, for example `sendMessage`.
    pub method: String,
    /// Its arguments.
    pub body: Value,
    /// Text after its entities were parsed, where there is one.
    pub text: String,
}

/// Something that goes wrong with the next call of a method.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Refused with this status and description, nothing was done.
    Refused(u16, String),
    /// 429 with `retry_after`, nothing was done.
    Wait(u32),
    /// It was done, and the answer is lost on the way.
    AnswerLost,
}

#[derive(Default)]
struct Book {
    updates: VecDeque<Value>,
    next_update: u32,
    next_message: i64,
    polls: u64,
    calls: Vec<Call>,
    problems: Vec<String>,
    faults: Vec<(String, Fault)>,
    /// Pressed buttons that were not answered.
    pressed: BTreeSet<String>,
}

struct Shared {
    token: String,
    book: Mutex<Book>,
    news: Notify,
    schema: Option<method::Schema>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

/// A running fake; it ends when this is dropped.
pub struct Telegram {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Telegram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telegram").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Telegram {
    /// Starts on a free port, for a bot with this token.
    #[must_use]
    pub fn start(token: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind on loopback");
        listener.set_nonblocking(true).expect("non-blocking listener");
        let address = listener.local_addr().expect("address of the listener");
        let shared = Arc::new(Shared {
            token: token.to_owned(),
            book: Mutex::new(Book { next_update: 1000, next_message: 1, ..Book::default() }),
            news: Notify::new(),
            schema: method::Schema::published(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
                let router = Router::new().route("/{bot}/{method}", any(answer)).with_state(served);
                tokio::select! {
                    _ = axum::serve(listener, router).into_future() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// What to configure as `baseUrl`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether calls are judged by the vendor's schema.
    #[must_use]
    pub fn knows_the_schema(&self) -> bool {
        self.shared.schema.is_some()
    }

    /// A person writes to the bot alone.
    pub fn says(&self, person: i64, text: &str) {
        let chat = json!({"id": person, "type": "private", "first_name": "P"});
        self.message(person, &chat, json!({"text": text}));
    }

    /// A person writes in a group. `more` are further fields of the message.
    pub fn says_in_group(&self, person: i64, group: i64, text: &str, more: Value) {
        let chat = json!({"id": group, "type": "supergroup", "title": "a group"});
        let mut body = json!({"text": text});
        merge(&mut body, more);
        self.message(person, &chat, body);
    }

    /// A message with these fields.
    pub fn message(&self, person: i64, chat: &Value, body: Value) {
        let mut book = self.shared.book();
        let (update, message) = (book.next_update, book.next_message);
        book.next_update += 1;
        book.next_message += 1;
        let mut whole = json!({"message_id": message, "date": 1_700_000_000, "chat": chat,
            "from": {"id": person, "is_bot": false, "first_name": format!("Person{person}")}});
        merge(&mut whole, body);
        book.updates.push_back(json!({"update_id": update, "message": whole}));
        drop(book);
        self.shared.news.notify_waiters();
    }

    /// A person presses a button of a message of the bot, by what is written on it.
    pub fn presses(&self, person: i64, chat: i64, button: &str) {
        let mut book = self.shared.book();
        let (message, data) = book
            .calls
            .iter()
            .rev()
            .filter(|call| method::chat_of(&call.body) == Some(chat))
            .find_map(|call| Some((call.body["_id"].clone(), method::button(&call.body, button)?)))
            .expect("there is such a button");
        let update = book.next_update;
        book.next_update += 1;
        let id = format!("query{update}");
        book.pressed.insert(id.clone());
        let kind = if chat < 0 { "supergroup" } else { "private" };
        book.updates.push_back(json!({"update_id": update, "callback_query": {"id": id, "data": data,
            "chat_instance": "1", "from": {"id": person, "is_bot": false, "first_name": format!("Person{person}")},
            "message": {"message_id": message, "date": 1_700_000_000, "text": "x",
                "from": {"id": BOT, "is_bot": true, "first_name": "Oxi", "username": BOT_NAME},
                "chat": {"id": chat, "type": kind, "first_name": "P", "title": "a group"}}}}));
        drop(book);
        self.shared.news.notify_waiters();
    }

    /// Everything a chat saw of the bot, in order: texts, buttons, changes.
    #[must_use]
    pub fn transcript(&self, chat: i64) -> String {
        let book = self.shared.book();
        let seen = book.calls.iter().filter(|call| method::chat_of(&call.body) == Some(chat));
        let mut lines = Vec::new();
        for call in seen {
            match call.method.as_str() {
                "sendMessage" => lines.push(format!("bot: {}", call.text)),
                "editMessageText" => lines.push(format!("bot changes it: {}", call.text)),
                _ => continue,
            }
            lines.extend(method::buttons(&call.body).into_iter().map(|(text, _)| format!("[{text}]")));
        }
        lines.join("\n")
    }

    /// Buttons that were pressed and never answered: they keep showing that they wait.
    #[must_use]
    pub fn unanswered_buttons(&self) -> usize {
        self.shared.book().pressed.len()
    }

    /// Lets something go wrong with the next call of a method.
    pub fn fail(&self, method: &str, fault: Fault) {
        self.shared.book().faults.push((method.to_lowercase(), fault));
    }

    /// Calls that were accepted, of one method.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.shared.book().calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    /// Texts that were sent to a chat, in order.
    #[must_use]
    pub fn texts(&self, chat: i64) -> Vec<String> {
        let sent = self.calls("sendMessage");
        sent.into_iter()
            .filter(|call| method::chat_of(&call.body) == Some(chat))
            .map(|call| call.text)
            .collect()
    }

    /// Updates that were not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.shared.book().updates.len()
    }

    /// Calls that Telegram would have refused, each with its reason, but for those of [`Fault`].
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.shared.book().problems.clone()
    }
}

impl Drop for Telegram {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().cloned().unwrap_or_default() {
        into[key] = value;
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Path((bot, name)): Path<(String, String)>,
    body: Bytes,
) -> Response<Body> {
    let Some(token) = bot.strip_prefix("bot") else { return refused(404, "Not Found", None) };
    if token != shared.token {
        return refused(401, "Unauthorized", None);
    }
    let name = name.to_lowercase();
    let body: Value = if body.is_empty() {
        json!({})
    } else {
        match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(_) => return refused(400, "Bad Request: can't parse request JSON", None),
        }
    };
    let fault = {
        let mut book = shared.book();
        let at = book.faults.iter().position(|(method, _)| *method == name);
        at.map(|at| book.faults.remove(at).1)
    };
    match fault {
        Some(Fault::Refused(status, description)) => return refused(status, &description, None),
        Some(Fault::Wait(seconds)) => {
            return refused(429, &format!("Too Many Requests: retry after {seconds}"), Some(seconds));
        }
        Some(Fault::AnswerLost) => {
            let _unheard = carry_out(&shared, &name, &body).await;
            // The head arrives and the body breaks off.
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost"))]);
            return Response::new(Body::from_stream(broken));
        }
        None => {}
    }
    match carry_out(&shared, &name, &body).await {
        Ok(result) => reply(200, &json!({"ok": true, "result": result})),
        Err((status, description)) => {
            if status != 409 {
                shared.book().problems.push(format!("{name}: {status} {description}: {body}"));
            }
            refused(status, &description, None)
        }
    }
}

async fn carry_out(shared: &Shared, name: &str, body: &Value) -> Result<Value, (u16, String)> {
    if name == "getupdates" {
        return get_updates(shared, body).await;
    }
    method::carry_out(shared, name, body)
}

/// Long polling: an offset confirms what is older, a second poller ends the first.
async fn get_updates(shared: &Shared, body: &Value) -> Result<Value, (u16, String)> {
    let timeout = Duration::from_secs(body["timeout"].as_u64().unwrap_or(0).min(50));
    let limit = usize::try_from(body["limit"].as_u64().unwrap_or(100)).unwrap_or(100);
    let mine = {
        let mut book = shared.book();
        if let Some(offset) = body["offset"].as_u64() {
            book.updates.retain(|update| update["update_id"].as_u64().unwrap() >= offset);
        }
        book.polls += 1;
        book.polls
    };
    shared.news.notify_waiters();
    let end = tokio::time::Instant::now() + timeout;
    loop {
        let news = shared.news.notified();
        {
            let book = shared.book();
            if book.polls != mine {
                let text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance \
                            is running";
                return Err((409, text.to_owned()));
            }
            if !book.updates.is_empty() {
                return Ok(book.updates.iter().take(limit).cloned().collect());
            }
        }
        if tokio::time::timeout_at(end, news).await.is_err() {
            return Ok(json!([]));
        }
    }
}

fn refused(status: u16, description: &str, retry_after: Option<u32>) -> Response<Body> {
    let mut body = json!({"ok": false, "error_code": status, "description": description});
    if let Some(seconds) = retry_after {
        body["parameters"] = json!({"retry_after": seconds});
    }
    reply(status, &body)
}

fn reply(status: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}
