//! A main process made of nothing but the wire: starts the real toolhost over a socket pair and speaks to it.
//!
//! It can also speak wrongly ([`Peer::send_raw`]), which the real main never does.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oxibot_proto::codec::{Decoder, frame};
use oxibot_proto::message::{
    CallNumber, CallRequest, CallResult, MainHello, Origin, RunRequest, ToMain, ToToolhost, ToolhostHello,
};
use oxibot_proto::{MAGIC, PROTOCOL_VERSION};

use crate::fixture::{ACCEPT_REDUCED, binary};

/// How long a test waits for anything before it calls it a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The real toolhost and our end of its socket.
pub struct Peer {
    /// The supervisor.
    pub child: Child,
    /// Our end of the socket.
    pub stream: UnixStream,
    decoder: Decoder<ToMain>,
    next: u64,
}

/// Who these tests claim to be.
#[must_use]
pub fn origin() -> Origin {
    Origin { who: "test".into(), channel: "terminal".into(), session: "test".into() }
}

impl Peer {
    /// Starts `oxibot-toolhost serve` for `home` and `workspace` with more arguments, says nothing yet.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(home: &Path, workspace: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(binary("oxibot-toolhost"));
        command.arg0("oxibot-toolhost").env_clear();
        if more.contains(&"--without-namespaces") {
            // On an old kernel the level is `reduced` then.
            command.env(ACCEPT_REDUCED.0, ACCEPT_REDUCED.1);
        }
        Self::start_as(command, home, workspace, more)
    }

    /// As [`Peer::start`], by a command of the caller's that becomes the toolhost, for example one that takes kernel
    /// mechanisms away first.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_as(command: Command, home: &Path, workspace: &Path, more: &[&str]) -> Self {
        Self::spawn(command, home, workspace, more, Stdio::null())
    }

    /// Starts it with a socket to a fetch worker, and exchanges hellos.
    ///
    /// # Panics
    /// When it does not greet.
    #[must_use]
    pub fn with_web(home: &Path, workspace: &Path, worker: OwnedFd) -> Self {
        let mut command = Command::new(binary("oxibot-toolhost"));
        command.arg0("oxibot-toolhost").env_clear();
        Self::spawn(command, home, workspace, &["--fetch-fd", "1"], Stdio::from(worker)).greet().0
    }

    fn spawn(mut command: Command, home: &Path, workspace: &Path, more: &[&str], out: Stdio) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("read timeout");
        let child = command
            .args(["serve", "--socket-fd", "0", "--home"])
            .arg(home)
            .arg("--workspace")
            .arg(workspace)
            .args(more)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(out)
            .spawn()
            .expect("toolhost starts");
        Self { child, stream: ours, decoder: Decoder::new(), next: 1 }
    }

    /// Starts it and exchanges hellos.
    ///
    /// # Panics
    /// When it does not greet.
    #[must_use]
    pub fn greeted(home: &Path, workspace: &Path, more: &[&str]) -> (Self, ToolhostHello) {
        Self::start(home, workspace, more).greet()
    }

    fn greet(mut self) -> (Self, ToolhostHello) {
        self.send(&hello());
        match self.receive() {
            Some(ToMain::Hello(hello)) => (self, hello),
            other => panic!("expected a hello, got {other:?}; toolhost: {:?}", self.child.try_wait()),
        }
    }

    /// Sends one message.
    ///
    /// # Panics
    /// When the toolhost closed the socket.
    pub fn send(&mut self, message: &ToToolhost) {
        match self.stream.write_all(&frame(message).expect("message fits")) {
            // It ended already: what it said before is still to be read.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => panic!("toolhost reads: {error}"),
            Ok(()) | Err(_) => {}
        }
    }

    /// Sends bytes that need not be a message; errors are ignored, because the toolhost may have had enough.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next message, `None` at the end of the stream.
    ///
    /// # Panics
    /// When nothing comes within [`PATIENCE`] or it is not a message.
    pub fn receive(&mut self) -> Option<ToMain> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(message) = self.decoder.next_message().expect("the toolhost speaks the protocol") {
                return Some(message);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.decoder.push(chunk.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer in time: {error}"),
            }
        }
    }

    /// A number no call of this connection had.
    pub fn number(&mut self) -> CallNumber {
        let number = CallNumber(self.next);
        self.next += 1;
        number
    }

    /// Sends a tool call and returns its number.
    pub fn call(&mut self, tool: &str, arguments: &serde_json::Value) -> CallNumber {
        let call = self.number();
        self.send(&ToToolhost::Call(CallRequest {
            call,
            tool: tool.into(),
            arguments: arguments.to_string(),
            workspace: None,
            timeout_ms: None,
            origin: origin(),
            approval: None,
        }));
        call
    }

    /// Sends a run and returns its number.
    pub fn run(&mut self, argv: &[&str]) -> CallNumber {
        let call = self.number();
        self.send(&ToToolhost::Run(RunRequest {
            call,
            argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
            workspace: None,
            timeout_ms: None,
            origin: origin(),
        }));
        call
    }

    /// Waits for the result of `call`, dropping what else comes.
    ///
    /// # Panics
    /// When the connection ends first.
    pub fn result(&mut self, call: CallNumber) -> CallResult {
        loop {
            match self.receive().expect("a result before the end") {
                ToMain::CallResult(result) if result.call == call => return *result,
                _ => {}
            }
        }
    }

    /// A shell command and its result.
    pub fn bash(&mut self, command: &str) -> CallResult {
        let call = self.call("bash", &serde_json::json!({ "command": command }));
        self.result(call)
    }

    /// Whether the toolhost ends within [`PATIENCE`].
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn ends(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.child.try_wait().expect("wait").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if !self.ends() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The hello the real main sends.
#[must_use]
pub fn hello() -> ToToolhost {
    ToToolhost::Hello(MainHello { magic: MAGIC, version: PROTOCOL_VERSION, build: "test".into() })
}
