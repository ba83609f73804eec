//! Seen from outside: `/health` (alive), `/ready` (able to work, with reasons), `/metrics` (Prometheus text).
//!
//! The socket is opened before main confines itself, because afterwards it may listen nowhere. Nothing here names a
//! person or a conversation, and nothing can be changed through it.

use std::io;
use std::net::{TcpListener, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use oxibot_proto::message::Level;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::office::Office;
use super::supervise::State;
use crate::store::post::Waiting;

/// How long the toolhost may take to say how it is.
const ASKING: Duration = Duration::from_secs(3);

/// A socket that listens already.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub fn bind(host: &str, port: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in (host, port).to_socket_addrs()? {
            match TcpListener::bind(address) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    return Ok(Self(listener));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

struct Seen {
    office: Arc<Office>,
    since: Instant,
}

/// Answers for ever.
pub(super) async fn run(office: Arc<Office>, listener: Listener) {
    let listener = match tokio::net::TcpListener::from_std(listener.0) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(target: "oxibot_main", %error, "cannot serve the health port");
            return;
        }
    };
    let seen = Arc::new(Seen { office, since: Instant::now() });
    let router = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(seen);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(target: "oxibot_main", %error, "the health port is served no more");
    }
}

async fn ready(Shared(seen): Shared<Arc<Seen>>) -> Response {
    let office = &seen.office;
    let mut reasons: Vec<String> = Vec::new();
    let mut channels = Map::new();
    for (name, post) in &office.channels {
        let state = post.state();
        match &state {
            State::Up => {}
            State::Connecting | State::Degraded(_) | State::Refused(_) => {
                reasons.push(format!("{name}: {}", state.words()));
            }
        }
        channels.insert((*name).to_owned(), Value::String(state.words()));
    }
    let toolhost = timeout(ASKING, office.voice.broker.status()).await;
    let alive = matches!(toolhost, Ok(Ok(_)));
    if !alive {
        reasons.push("toolhost: it does not answer".to_owned());
    }
    let hello = office.voice.broker.hello();
    let level = hello.wall.level;
    if level == Level::Off {
        reasons.push("sandbox: off".to_owned());
    }
    let waiting = office.store().run(|store| store.waiting()).await;
    if let Err(error) = &waiting {
        reasons.push(format!("database: {error}"));
    }
    let waiting = waiting.unwrap_or_default();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "channels": channels,
        "toolhost": alive,
        "level": level.name(),
        "waiting": {"inbound": waiting.inbound, "outbound": waiting.outbound, "dead": waiting.dead},
    });
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics(Shared(seen): Shared<Arc<Seen>>) -> Response {
    let office = &seen.office;
    let Waiting { inbound, outbound, dead } =
        office.store().run(|store| store.waiting()).await.unwrap_or_default();
    let mut text = String::new();
    for (name, help, value) in office.figures.all() {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n"));
    }
    for (name, help, value) in [
        ("oxibot_inbox_waiting", "Messages without an answer.", inbound),
        ("oxibot_outbox_waiting", "Deliveries not made yet.", outbound),
        ("oxibot_dead_letters", "Deliveries given up and kept.", dead),
        ("oxibot_uptime_seconds", "Seconds since the start.", seen.since.elapsed().as_secs()),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    text.push_str(
        "# HELP oxibot_channel_up Whether a channel speaks to its vendor.\n# TYPE oxibot_channel_up gauge\n",
    );
    for (name, post) in &office.channels {
        let up = u8::from(post.state() == State::Up);
        text.push_str(&format!("oxibot_channel_up{{channel=\"{name}\"}} {up}\n"));
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
