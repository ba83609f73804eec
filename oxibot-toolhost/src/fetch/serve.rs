//! Requests in, answers out, many at a time on one thread. One that takes long holds up no other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::web::{Exceptions, judge_url};
use oxibot_toolhost::wire::{FetchAnswer, FetchRequest, FetchResult, FetchWork};
use tokio::io::Interest;
use tokio::task::{AbortHandle, LocalSet};

use crate::confine::Confined;
use crate::convert::Converters;
use crate::get::{Getter, Wanted};
use crate::hop::Trouble;
use crate::page;
use crate::resolve::Resolver;
use crate::search;
use crate::secret::Search;

/// Largest packet of a request: a URL, exceptions, names.
const MAX_PACKET: usize = 64 * 1024;
/// Requests in flight. More are answered at once that it is too much.
const MAX_IN_FLIGHT: usize = 256;
/// After so many requests a worker is replaced: whatever it may have been talked into ends with it.
const MAX_SERVED: u64 = 1000;
/// Without a request for so long it ends: its memory is given back, and what it read at its start is read again.
const IDLE: Duration = Duration::from_secs(120);
/// How often it is looked whether it has been idle.
const LOOK: Duration = Duration::from_secs(5);

/// Whether the socket it was given is a connection already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// It is.
    Connected,
    /// It listens: socket activation.
    Listening,
}

/// Everything requests share.
pub(crate) struct Worker {
    getter: Getter,
    search: Option<Search>,
    served: Cell<u64>,
    in_flight: Cell<usize>,
    last: Cell<tokio::time::Instant>,
}

impl Worker {
    pub(crate) fn new(
        converters: Converters,
        resolver: Resolver,
        tls: Arc<rustls::ClientConfig>,
        search: Option<Search>,
    ) -> Self {
        Self {
            getter: Getter::new(converters, resolver, tls),
            search,
            served: Cell::new(0),
            in_flight: Cell::new(0),
            last: Cell::new(tokio::time::Instant::now()),
        }
    }

    async fn answer(&self, work: FetchWork) -> FetchResult {
        let result = match work {
            FetchWork::Judge { url, allow } => exceptions(&allow)
                .and_then(|exceptions| judge_url(&url, &exceptions).map_err(Trouble::from))
                .map(|_| FetchResult::Allowed),
            FetchWork::Get { url, offset, conversation, allow } => {
                self.get(&url, offset, &conversation, &allow).await
            }
            FetchWork::Search { query, count } => {
                let service = self.search.as_ref().map(|search| &search.0);
                search::search(&self.getter, service, &query, count)
                    .await
                    .map(|text| FetchResult::Text { total_bytes: text.len() as u64, text })
            }
            // Taken out before.
            FetchWork::Cancel => Ok(FetchResult::Failed("it was cancelled".to_owned())),
        };
        result.unwrap_or_else(|trouble| match trouble {
            Trouble::Denied(denial) => FetchResult::Denied(denial),
            Trouble::Failed(message) => FetchResult::Failed(message),
        })
    }

    async fn get(
        &self,
        url: &str,
        offset: u64,
        conversation: &str,
        allow: &[String],
    ) -> Result<FetchResult, Trouble> {
        let exceptions = exceptions(allow)?;
        let wanted = Wanted { url, offset, conversation, exceptions: &exceptions };
        let page = self.getter.get(wanted).await?;
        let (text, total_bytes) = page::show(&page, offset).map_err(Trouble::Failed)?;
        Ok(FetchResult::Text { text, total_bytes })
    }
}

fn exceptions(allow: &[String]) -> Result<Exceptions, Trouble> {
    Exceptions::parse(allow).map_err(|cause| Trouble::Failed(format!("web.allowPrivate: {cause}")))
}

/// Serves until the socket is closed, or nobody asked for a while, or enough was served.
pub(crate) async fn serve(
    _confined: Confined,
    socket: OwnedFd,
    accept: Accept,
    worker: Worker,
) -> Result<(), String> {
    let worker = Rc::new(worker);
    let local = LocalSet::new();
    let idle = until_idle(worker.clone(), accept);
    local
        .run_until(async {
            tokio::select! {
                served = async {
                    match accept {
                        Accept::Connected => serve_connection(connected(socket)?, worker.clone()).await,
                        Accept::Listening => listen(socket, worker.clone()).await,
                    }
                } => served,
                ended = idle => return ended,
            }
            .map_err(|error| format!("cannot use the socket: {error}"))
        })
        .await
}

/// Returns once the worker should make room for another. A connection of the service stays: its other end reconnects to
/// the same socket only when it has to.
///
/// # Errors
/// When the converters are gone: pages would be made text beside the key.
async fn until_idle(worker: Rc<Worker>, accept: Accept) -> Result<(), String> {
    loop {
        tokio::time::sleep(LOOK).await;
        let spent = worker.served.get() >= MAX_SERVED;
        let idle = accept == Accept::Connected && worker.last.get().elapsed() >= IDLE;
        let gone = worker.getter.converters.are_gone();
        if worker.in_flight.get() == 0 && gone {
            return Err("the maker of converters has ended".to_owned());
        }
        if worker.in_flight.get() == 0 && (spent || idle) {
            return Ok(());
        }
    }
}

async fn listen(socket: OwnedFd, worker: Rc<Worker>) -> std::io::Result<()> {
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let (connection, _) = listener.accept().await?;
        let worker = worker.clone();
        tokio::task::spawn_local(async move { serve_connection(connection, worker).await });
    }
}

fn connected(socket: OwnedFd) -> std::io::Result<tokio::net::UnixStream> {
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(socket)
}

type InFlight = Rc<RefCell<HashMap<u64, AbortHandle>>>;

async fn serve_connection(socket: tokio::net::UnixStream, worker: Rc<Worker>) -> std::io::Result<()> {
    let socket = Rc::new(socket);
    let in_flight: InFlight = Rc::default();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let length = socket
            .async_io(Interest::READABLE, || {
                Ok(recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?)
            })
            .await?;
        if length == 0 {
            // Nobody waits for what is still running.
            for task in in_flight.borrow().values() {
                task.abort();
            }
            return Ok(());
        }
        let mut decoder = Decoder::<FetchRequest>::new();
        decoder.push(buffer.get(..length).unwrap_or_default());
        let request = match decoder.next_message() {
            Ok(Some(request)) => request,
            // The supervisor breaks the protocol: not to be trusted with more.
            Ok(None) | Err(_) => return Err(std::io::ErrorKind::InvalidData.into()),
        };
        worker.last.set(tokio::time::Instant::now());
        take(request, &socket, &worker, &in_flight);
    }
}

fn take(
    request: FetchRequest,
    socket: &Rc<tokio::net::UnixStream>,
    worker: &Rc<Worker>,
    in_flight: &InFlight,
) {
    let FetchRequest { number, work } = request;
    if work == FetchWork::Cancel {
        if let Some(task) = in_flight.borrow_mut().remove(&number) {
            task.abort();
        }
        return;
    }
    let full = in_flight.borrow().len() >= MAX_IN_FLIGHT;
    worker.served.set(worker.served.get() + 1);
    let (socket, shared, all) = (socket.clone(), worker.clone(), in_flight.clone());
    let counted = Counted::new(worker.clone());
    let task = tokio::task::spawn_local(async move {
        let _counted = counted;
        let result = if full {
            FetchResult::Failed("too many requests at once; try again".to_owned())
        } else {
            shared.answer(work).await
        };
        all.borrow_mut().remove(&number);
        shared.last.set(tokio::time::Instant::now());
        // A supervisor that is gone is noticed by the reading side.
        let _ = reply(&socket, &FetchAnswer { number, result }).await;
    });
    in_flight.borrow_mut().insert(number, task.abort_handle());
}

/// Counts a request until its task ends, however it ends.
struct Counted(Rc<Worker>);

impl Counted {
    fn new(worker: Rc<Worker>) -> Self {
        worker.in_flight.set(worker.in_flight.get() + 1);
        Self(worker)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

async fn reply(socket: &tokio::net::UnixStream, answer: &FetchAnswer) -> std::io::Result<()> {
    let frame = codec::frame(answer).map_err(std::io::Error::other)?;
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    socket
        .async_io(Interest::WRITABLE, || match send(socket.as_raw_fd(), &frame, flags) {
            Ok(_) => Ok(()),
            Err(Errno::EINTR) => Err(std::io::ErrorKind::WouldBlock.into()),
            Err(errno) => Err(errno.into()),
        })
        .await
}
