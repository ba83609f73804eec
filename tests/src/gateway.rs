//! A gateway that runs, for tests of channels.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what cannot go on fails its test by panicking"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::Fixture;
use crate::processes::tree;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway; it is killed with everything below it when this is dropped.
pub struct Gateway {
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts it, with more environment.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(fixture: &Fixture, environment: &[(&str, &str)]) -> Self {
        let log = fixture.root().join("gateway.log");
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let child = fixture
            .oxibot()
            .envs(environment.iter().copied())
            .args(["gateway", "-v"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// What it has logged, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its launcher.
    ///
    /// # Panics
    /// Never: an id is a number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Whether its launcher still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends launcher and main at once, as a power cut would; the toolhost ends with its socket.
    pub fn kill(&mut self) {
        for process in tree(self.pid()).into_iter().filter(|process| process.command.contains("gateway")) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(process.pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits for it.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    #[track_caller]
    pub fn eventually(&self, what: &str, holds: impl FnMut() -> bool) {
        self.within(PATIENCE, what, holds);
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn within(&self, patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < patience, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}

/// Writes the configuration of a fixture's home.
///
/// # Panics
/// When it cannot be written.
pub fn configure(fixture: &Fixture, config: &Value) {
    let path = fixture.home().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Puts `from` over `into`, key by key.
pub fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        match (into.get_mut(key), value) {
            (Some(old), Value::Object(_)) if old.is_object() => merge(old, value),
            _ => into[key] = value.clone(),
        }
    }
}

/// A port nobody listens on.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status and body of a plain request to the health port.
#[must_use]
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}
