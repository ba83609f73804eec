//! One connection to one of the judged addresses, and one HTTP/1.1 exchange over it.
//!
//! hyper reads on for as long as there is something to read, and takes any number of informational answers (1xx) before
//! the one that counts. So the socket hands over so much in one turn, then others get theirs, and so much in all.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use crate::body::MAX_WIRE;

/// Time to connect, TLS included, for all addresses together.
const CONNECT: Duration = Duration::from_secs(10);
/// Header fields of an answer, and bytes of its head: what hyper keeps of it at most.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
/// Most bytes from the wire before the head is there: certificates, informational answers, the head.
const BEFORE_HEAD: usize = 512 * 1024;
/// Most bytes from the wire after it. Chunks of one byte come with five of their own.
const AFTER_HEAD: usize = MAX_WIRE * 4;
/// Bytes read in one turn.
const TURN: usize = 64 * 1024;

/// Why there is no answer, or not all of it. Without the address, which the caller knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("it takes too long")]
    TooLong,
    #[error("its certificate or its TLS is not accepted: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Connect(io::Error),
    #[error("{}", innermost(.0))]
    Http(#[from] hyper::Error),
    #[error("its name cannot be used for TLS or HTTP")]
    Name,
}

/// The innermost cause of an error, which says what happened.
fn innermost(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// An answer whose head is there.
pub(crate) struct Response {
    head: Parts,
    body: Incoming,
    _connection: Driver,
}

impl Response {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Bytes of the body, where the server says how many.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        loop {
            match std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                // Fields after the body are nothing to us.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The task that moves bytes, for as long as somebody waits for them.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a GET with these headers to one of the addresses and returns once the head of the answer is there.
pub(crate) async fn get(
    url: &Url,
    addresses: &[SocketAddr],
    tls: &Arc<rustls::ClientConfig>,
    headers: HeaderMap,
) -> Result<Response, ConnectionError> {
    let until = Instant::now() + CONNECT;
    let left = Rc::new(Cell::new(BEFORE_HEAD));
    let socket = Metered { socket: connect(addresses, until).await?, turn: 0, left: left.clone() };
    match server_name(url)? {
        None => exchange(url, socket, headers, &left).await,
        Some(name) => {
            let connector = TlsConnector::from(tls.clone());
            let opened = timeout_at(until, connector.connect(name, socket)).await;
            let socket = opened.map_err(|_| ConnectionError::TooLong)?.map_err(ConnectionError::Tls)?;
            exchange(url, socket, headers, &left).await
        }
    }
}

/// The name a certificate has to be for; `None` without TLS.
fn server_name(url: &Url) -> Result<Option<ServerName<'static>>, ConnectionError> {
    if url.scheme() != "https" {
        return Ok(None);
    }
    let name = match url.host() {
        Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).ok(),
        Some(Host::Ipv4(address)) => Some(ServerName::IpAddress(address.into())),
        Some(Host::Ipv6(address)) => Some(ServerName::IpAddress(address.into())),
        None => None,
    };
    name.map(Some).ok_or(ConnectionError::Name)
}

/// Tries one address after the other; one that does not answer leaves time for those after it.
async fn connect(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, ConnectionError> {
    let mut why = ConnectionError::TooLong;
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let others = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = now + until.saturating_duration_since(now) / others;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => why = ConnectionError::Connect(error),
            Err(_) => {}
        }
    }
    Err(why)
}

async fn exchange<S>(
    url: &Url,
    socket: S,
    headers: HeaderMap,
    left: &Cell<usize>,
) -> Result<Response, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let (mut sender, connection) = http.handshake(TokioIo::new(socket)).await?;
    // Its error is the error of the exchange, which is told.
    let driver = Driver(tokio::task::spawn_local(async { drop(connection.await) }));
    let mut request = Request::new(String::new());
    *request.uri_mut() =
        url[Position::BeforePath..Position::AfterQuery].parse().map_err(|_| ConnectionError::Name)?;
    *request.headers_mut() = headers;
    let host = url[Position::BeforeHost..Position::AfterPort].parse().map_err(|_| ConnectionError::Name)?;
    request.headers_mut().insert(header::HOST, host);
    let (head, body) = sender.send_request(request).await?.into_parts();
    left.set(AFTER_HEAD);
    Ok(Response { head, body, _connection: driver })
}

/// A socket that is read in turns, and to a limit.
struct Metered {
    socket: TcpStream,
    /// Bytes read in this turn.
    turn: usize,
    /// Bytes that may still be read.
    left: Rc<Cell<usize>>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.get() == 0 {
            return Poll::Ready(Err(io::Error::other("it sends too much")));
        }
        if self.turn >= TURN {
            self.turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        self.left.set(self.left.get().saturating_sub(count));
        self.turn = if polled.is_pending() { 0 } else { self.turn + count };
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
