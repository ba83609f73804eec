//! A conversation that waits for its next line: `oxibot agent` with a model nobody asks, and the whole tree of processes
//! below it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::Fixture;
use crate::processes::tree;

/// How long it may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// It runs until it is told to end.
pub struct Conversation {
    child: Child,
}

impl Conversation {
    /// Starts the program in `directory` and waits until `zygotes` processes of that name are there.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(directory: &Path, fixture: &Fixture, zygotes: usize) -> Self {
        let path = fixture.home().join("config.json");
        let text = json!({
            "agents": {"defaults": {"model": "ollama/none", "workspace": fixture.workspace()}},
            "providers": {"ollama": {"apiBase": "http://127.0.0.1:9/v1"}},
        });
        std::fs::write(&path, text.to_string()).expect("configuration");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let child = Command::new(directory.join("oxibot"))
            .arg("--home")
            .arg(fixture.home())
            .arg("agent")
            .env_clear()
            .env("HOME", fixture.root())
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("oxibot starts");
        let conversation = Self { child };
        let (root, begun) = (conversation.root(), Instant::now());
        while tree(root).iter().filter(|process| process.command.contains("zygote")).count() < zygotes {
            assert!(begun.elapsed() < PATIENCE, "it comes up: {:?}", tree(root));
            std::thread::sleep(Duration::from_millis(50));
        }
        conversation
    }

    /// Its first process.
    ///
    /// # Panics
    /// Never: process ids are positive and small.
    #[must_use]
    pub fn root(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process id")
    }

    /// Says goodbye and waits.
    pub fn end(mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(b"/exit\n");
        }
        let _ = self.child.wait();
    }
}
