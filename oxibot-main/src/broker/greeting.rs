//! The two hellos, synchronously: before main reads a secret, starts a thread or a runtime.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{CloseReason, MainHello, ToMain, ToToolhost, ToolhostHello};
use oxibot_proto::state::Stage;
use oxibot_proto::{MAGIC, PROTOCOL_VERSION};

use super::BrokerError;

/// Longest wait for the toolhost's hello. It builds its wall and attacks it first; without a bound a toolhost that
/// hangs would hang every command.
const GREETING: Duration = Duration::from_secs(60);
/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// A connection on which both sides have said hello.
#[derive(Debug)]
pub struct Greeted {
    pub(super) stream: UnixStream,
    pub(super) decoder: Decoder<ToMain>,
    /// What the toolhost said of itself.
    pub hello: ToolhostHello,
}

/// Says hello and waits for the answer. Blocks, at most a minute.
///
/// # Errors
/// [`BrokerError::Greeting`] when the toolhost went away or took too long, [`BrokerError::Version`] when it is another
/// build, [`BrokerError::Bye`] when it refused.
pub fn greet(stream: UnixStream) -> Result<Greeted, BrokerError> {
    greet_within(stream, GREETING)
}

/// As [`greet`], with another patience.
///
/// # Errors
/// As [`greet`].
pub fn greet_within(mut stream: UnixStream, patience: Duration) -> Result<Greeted, BrokerError> {
    let failed = |error: io::Error| BrokerError::Greeting(error.to_string());
    let deadline = Instant::now().checked_add(patience);
    stream.set_nonblocking(false).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    let hello =
        MainHello { magic: MAGIC, version: PROTOCOL_VERSION, build: env!("CARGO_PKG_VERSION").to_owned() };
    match stream.write_all(&codec::frame(&ToToolhost::Hello(hello))?) {
        // It has ended already; what it said before that can still be read.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }

    let mut decoder = Decoder::<ToMain>::new();
    let mut piece = vec![0_u8; PIECE];
    let message = loop {
        if let Some(message) =
            decoder.next_message().map_err(|error| BrokerError::Greeting(error.to_string()))?
        {
            break message;
        }
        let left = deadline.map_or(patience, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(BrokerError::Greeting(format!("no answer within {} s", patience.as_secs())));
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(BrokerError::Greeting("it ended before it was ready".into())),
            Ok(read) => decoder.push(piece.get(..read).unwrap_or_default()),
            // The loop finds that the time is over, and says so.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    };
    message.check(Stage::Greeting).map_err(|illegal| BrokerError::Greeting(illegal.to_string()))?;
    let hello = accept(message)?;
    stream.set_read_timeout(None).map_err(failed)?;
    stream.set_write_timeout(None).map_err(failed)?;
    Ok(Greeted { stream, decoder, hello })
}

fn accept(message: ToMain) -> Result<ToolhostHello, BrokerError> {
    let hello = match message.into_hello() {
        Ok(hello) => hello,
        Err(other) => {
            return Err(match other.into_bye() {
                Ok(CloseReason::VersionMismatch { ours: theirs }) => {
                    BrokerError::Version { ours: PROTOCOL_VERSION, theirs }
                }
                Ok(reason) => BrokerError::Bye(reason),
                Err(_) => BrokerError::Greeting("it did not say hello first".into()),
            });
        }
    };
    if hello.magic != MAGIC {
        Err(BrokerError::Greeting("what answered is not a toolhost".into()))
    } else if hello.version != PROTOCOL_VERSION {
        Err(BrokerError::Version { ours: PROTOCOL_VERSION, theirs: hello.version })
    } else {
        Ok(hello)
    }
}
