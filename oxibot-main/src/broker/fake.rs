//! A toolhost for tests: the other end of a socket pair, on a thread, speaking the real wire.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{
    CallNumber, CallResult, Level, Outcome, Output, Started, ToMain, ToToolhost, ToolhostHello, Wall,
};
use oxibot_proto::{MAGIC, PROTOCOL_VERSION};

/// The fake's end.
pub(crate) struct Fake {
    stream: UnixStream,
    decoder: Decoder<ToToolhost>,
}

impl Fake {
    /// The next message, `None` when main closed.
    pub(crate) fn receive(&mut self) -> Option<ToToolhost> {
        let mut piece = [0; 4096];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&piece[..read]),
            }
        }
    }

    pub(crate) fn send(&mut self, message: &ToMain) {
        self.stream.write_all(&codec::frame(message).unwrap()).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn started(&mut self, call: CallNumber) {
        self.send(&ToMain::Started(Started { call, call_id: format!("c-{}", call.0), deadline_ms: 60_000 }));
    }

    pub(crate) fn result(&mut self, call: CallNumber, outcome: Outcome, output: &[u8]) {
        self.send(&ToMain::CallResult(Box::new(result(call, outcome, output))));
    }
}

pub(crate) fn result(call: CallNumber, outcome: Outcome, output: &[u8]) -> CallResult {
    CallResult {
        call,
        call_id: format!("c-{}", call.0),
        tool: "bash".into(),
        outcome,
        exit_code: Some(0),
        signal: None,
        output: Output {
            head: output.to_vec(),
            tail: Vec::new(),
            total_bytes: u64::try_from(output.len()).unwrap(),
            passed_bytes: u64::try_from(output.len()).unwrap(),
            file: None,
        },
        violations: Vec::new(),
        notes: Vec::new(),
        level: Level::Full,
        proven: None,
        duration_ms: 1,
        usage: None,
        view: None,
        approval: None,
    }
}

pub(crate) fn hello() -> ToolhostHello {
    ToolhostHello {
        magic: MAGIC,
        version: PROTOCOL_VERSION,
        build: "fake".into(),
        wall: Wall { level: Level::Full, landlock_abi: 7, protections: Vec::new(), proven: None },
        workspaces: vec!["/workspace".into()],
    }
}

/// Starts a fake that says hello and then does as `script` says. Joined by the caller.
pub(crate) fn start(script: impl FnOnce(&mut Fake) + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    start_raw(|fake| {
        assert!(matches!(fake.receive(), Some(ToToolhost::Hello(_))));
        fake.send(&ToMain::Hello(hello()));
        script(fake);
    })
}

/// As [`start`], without the hello.
pub(crate) fn start_raw(script: impl FnOnce(&mut Fake) + Send + 'static) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, std::thread::spawn(move || serve(theirs, script)))
}

/// Plays the fake on a connection that was accepted.
pub(crate) fn serve(stream: UnixStream, script: impl FnOnce(&mut Fake)) {
    let mut fake = Fake { stream, decoder: Decoder::new() };
    script(&mut fake);
}
