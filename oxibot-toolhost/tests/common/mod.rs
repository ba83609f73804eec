//! Drives the real supervisor over a socket pair, as main would. Each test starts its own in a directory of its own.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{
    CallNumber, CallRequest, CallResult, CloseReason, MainHello, Origin, Outcome, ToMain, ToToolhost,
    ToolhostHello,
};
use tempfile::TempDir;

/// Longest any answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A supervisor with its home and its workspace.
pub(crate) struct Host {
    pub(crate) child: Child,
    pub(crate) stream: UnixStream,
    pub(crate) decoder: Decoder<ToMain>,
    pub(crate) directory: TempDir,
    next: u64,
}

/// How to start one.
pub(crate) struct Start {
    pub(crate) config: Option<String>,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// Relative to the directory that also holds `work`.
    pub(crate) home: &'static str,
    /// Where that directory is made.
    pub(crate) within: Option<PathBuf>,
    /// A path relative to it that is granted by `sandbox.read`.
    pub(crate) grant: Option<&'static str>,
}

impl Start {
    pub(crate) fn plain() -> Self {
        Self {
            config: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            home: "home",
            within: None,
            grant: None,
        }
    }

    pub(crate) fn config(text: &str) -> Self {
        Self { config: Some(text.to_owned()), ..Self::plain() }
    }

    pub(crate) fn with(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    fn spawn(self) -> (Child, UnixStream, TempDir) {
        let parent = self.within.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::tempdir_in(parent).unwrap();
        std::fs::create_dir(directory.path().join("work")).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_oxibot-toolhost"));
        command
            .args(["serve", "--socket-fd", "0"])
            .arg("--home")
            .arg(directory.path().join(self.home))
            .arg("--workspace")
            .arg(directory.path().join("work"))
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment);
        let granted = self.grant.map(|path| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            format!(r#"{{"sandbox": {{"read": ["{}"]}}}}"#, path.display())
        });
        if let Some(config) = self.config.or(granted) {
            let file = directory.path().join("config.json");
            std::fs::write(&file, config).unwrap();
            command.arg("--config").arg(file);
        }
        let child = command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        (child, ours, directory)
    }

    /// Starts it and does not speak yet.
    pub(crate) fn silent(self) -> Host {
        let (child, stream, directory) = self.spawn();
        Host { child, stream, decoder: Decoder::new(), directory, next: 1 }
    }

    /// Starts it and exchanges greetings.
    pub(crate) fn greeted(self) -> (Host, ToolhostHello) {
        let mut host = self.silent();
        let hello = host.hello();
        host.send(&greeting());
        (host, hello)
    }

    /// Starts it, expecting that it refuses. Answers status and what it told main.
    pub(crate) fn refused(self) -> (ExitStatus, String) {
        let (mut child, mut stream, _directory) = self.spawn();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let mut words = Decoder::<ToMain>::new();
        words.push(&bytes);
        let said = match words.next_message().unwrap() {
            Some(ToMain::Bye(CloseReason::CannotStart { reason, .. })) => reason,
            other => panic!("no reason: {other:?}"),
        };
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!text.contains(&said), "said twice: {text}");
        (child.wait().unwrap(), said)
    }
}

pub(crate) fn greeting() -> ToToolhost {
    ToToolhost::Hello(MainHello {
        magic: oxibot_proto::MAGIC,
        version: oxibot_proto::PROTOCOL_VERSION,
        build: "test".into(),
    })
}

pub(crate) fn origin() -> Origin {
    Origin { who: "tester".into(), channel: "terminal".into(), session: "1".into() }
}

/// Starts a plain supervisor.
/// With every rule of the policy set aside: for what must reach the wall.
#[allow(dead_code, reason = "not every test that includes this needs it")]
pub(crate) fn lawless() -> Host {
    let aside = ("OXIBOT_POLICY__OVERRIDES".to_owned(), r#"[{"rule":"*","verdict":"allow"}]"#.to_owned());
    Start { environment: vec![aside], ..Start::plain() }.greeted().0
}

pub(crate) fn host() -> Host {
    Start::plain().greeted().0
}

impl Host {
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(crate) fn number(&mut self) -> CallNumber {
        self.next += 1;
        CallNumber(self.next)
    }

    pub(crate) fn send(&mut self, message: &ToToolhost) {
        self.stream.write_all(&codec::frame(message).unwrap()).unwrap();
    }

    /// The next message; `None` once the connection is closed.
    pub(crate) fn try_next(&mut self) -> Option<ToMain> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no answer: {error}; {}", self.stderr_after_kill()),
            }
        }
    }

    fn stderr_after_kill(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    pub(crate) fn next(&mut self) -> ToMain {
        match self.try_next() {
            Some(message) => message,
            None => panic!("connection closed: {}", self.stderr_after_kill()),
        }
    }

    pub(crate) fn hello(&mut self) -> ToolhostHello {
        match self.next() {
            ToMain::Hello(hello) => hello,
            other => panic!("expected a hello, got {other:?}"),
        }
    }

    pub(crate) fn request(&mut self, tool: &str, arguments: &serde_json::Value) -> CallRequest {
        CallRequest {
            call: self.number(),
            tool: tool.to_owned(),
            arguments: arguments.to_string(),
            workspace: None,
            timeout_ms: None,
            origin: origin(),
            approval: None,
        }
    }

    pub(crate) fn start(&mut self, tool: &str, arguments: &serde_json::Value) -> CallNumber {
        let request = self.request(tool, arguments);
        let number = request.call;
        self.send(&ToToolhost::Call(request));
        number
    }

    /// The next result, skipping what announces it.
    pub(crate) fn result(&mut self) -> CallResult {
        loop {
            match self.next() {
                ToMain::CallResult(result) => return *result,
                ToMain::Started(_) | ToMain::Progress(_) => {}
                other => panic!("expected a result, got {other:?}"),
            }
        }
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: &serde_json::Value) -> CallResult {
        let number = self.start(tool, arguments);
        let result = self.result();
        assert_eq!(result.call, number);
        result
    }

    pub(crate) fn bash(&mut self, command: &str) -> CallResult {
        self.call("bash", &serde_json::json!({ "command": command }))
    }

    /// Closes the connection and waits for the end.
    pub(crate) fn finish(mut self) -> ExitStatus {
        self.hang_up()
    }

    /// As [`Host::finish`], and the directory stays.
    pub(crate) fn hang_up(&mut self) -> ExitStatus {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the supervisor does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// First files of the audit chains in the home.
    pub(crate) fn chains(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home().join("audit")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).collect()
    }

    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for path in self.chains() {
            let text = std::fs::read_to_string(path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
        }
        lines
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text(result: &CallResult) -> String {
    String::from_utf8_lossy(&result.output.head).into_owned()
}

pub(crate) fn assert_completed(result: &CallResult) {
    assert_eq!(result.outcome, Outcome::Completed, "{result:?}");
}

/// Processes on this machine whose command line contains `marker`.
pub(crate) fn processes_with(marker: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| {
                String::from_utf8_lossy(&line).replace('\0', " ").contains(marker)
                    && entry.file_name().to_string_lossy().parse::<u32>() != Ok(std::process::id())
            })
        })
        .count()
}
