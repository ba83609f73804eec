//! What is compared: the broker with a real toolhost behind it, the same program without a wall, an echo.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oxibot_main::broker::{Broker, CallOptions, Connection, greet};
use oxibot_proto::message::{CallResult, Level, Outcome};
use oxibot_tests::fixture::Fixture;
use oxibot_tests::peer::origin;
use oxibot_tests::processes::{memory, tree};
use tokio::runtime::Runtime;

/// What a call's environment is, for sides that are no calls.
pub fn environment(command: &mut Command, workspace: &Path) {
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", workspace)
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("TMPDIR", "/tmp")
        .env("USER", "oxibot")
        .env("SHELL", "/bin/bash")
        .env("TZ", "UTC")
        .env("XDG_CACHE_HOME", "/tmp/cache")
        .current_dir(workspace)
        .stdin(Stdio::null());
}

/// Where the programs that are measured are: `OXIBOT_BENCH_PROGRAMS`, else `target/release`, whatever built this driver.
pub fn programs() -> PathBuf {
    std::env::var_os("OXIBOT_BENCH_PROGRAMS").map_or_else(
        || {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            std::env::var_os("CARGO_TARGET_DIR")
                .map_or_else(|| root.join("target"), PathBuf::from)
                .join("release")
        },
        PathBuf::from,
    )
}

/// Main's side of a running toolhost, warm.
pub struct Warm {
    pub fixture: Fixture,
    pub runtime: Arc<Runtime>,
    pub broker: Broker,
    pub supervisor: i32,
    /// From its exec to its greeting, the attack on itself included.
    pub ready_after: Duration,
    _connection: Connection,
    child: Child,
}

impl Warm {
    pub fn start() -> Self {
        let fixture = Fixture::new();
        let workspace = fixture.workspace();
        Self::start_with(fixture, &[workspace], "{}")
    }

    /// With these workspaces and this configuration file.
    pub fn start_with(fixture: Fixture, workspaces: &[PathBuf], configuration: &str) -> Self {
        let config = fixture.home().join("config.json");
        std::fs::write(&config, configuration).unwrap();
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(programs().join("oxibot-toolhost"));
        command.env_clear().args(["serve", "--socket-fd", "0", "--home"]).arg(fixture.home());
        command.arg("--config").arg(&config);
        for workspace in workspaces {
            command.arg("--workspace").arg(workspace);
        }
        let begun = Instant::now();
        let child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        let greeted = greet(ours).unwrap();
        let ready_after = begun.elapsed();
        assert_eq!(greeted.hello.wall.level, Level::Full, "figures without the wall say nothing");
        let runtime = Arc::new(
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        );
        let (broker, connection) = runtime.block_on(async { Broker::start(greeted) }).unwrap();
        let supervisor = i32::try_from(child.id()).unwrap();
        Self { fixture, runtime, broker, supervisor, ready_after, _connection: connection, child }
    }

    /// One call, whole, through the broker.
    pub fn call(&self, tool: &str, arguments: &str) -> Box<CallResult> {
        self.runtime.block_on(call(&self.broker, tool, arguments, None))
    }

    pub fn bash(&self, command: &str) {
        self.bash_in(None, command);
    }

    /// In one of several workspaces.
    pub fn bash_in(&self, workspace: Option<&Path>, command: &str) {
        let arguments = serde_json::json!({ "command": command }).to_string();
        let result = self.runtime.block_on(call(&self.broker, "bash", &arguments, workspace));
        assert_eq!(
            (&result.outcome, result.exit_code),
            (&Outcome::Completed, Some(0)),
            "{command}: {result:?}"
        );
    }

    /// The same command line without a wall.
    pub fn bare(&self, command: &str) {
        let mut bash = Command::new("/bin/bash");
        bash.args(["--norc", "--noprofile", "-c", command]);
        environment(&mut bash, &self.fixture.workspace());
        let output = bash.output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// Proportional set size of the supervisor and everything below it, in KiB.
    pub fn memory_kib(&self) -> f64 {
        proportional(self.supervisor)
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One call through a broker.
pub async fn call(broker: &Broker, tool: &str, arguments: &str, workspace: Option<&Path>) -> Box<CallResult> {
    let mut options = CallOptions::new(origin());
    options.workspace = workspace.map(|path| path.to_string_lossy().into_owned());
    broker.start_call(tool, arguments, options).await.unwrap().result().await
}

/// Proportional set size of a process and everything below it, in KiB.
pub fn proportional(root: i32) -> f64 {
    tree(root).iter().map(|process| memory(process.pid, "Pss")).sum::<u64>() as f64
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()))
}

/// `oxibot tool call`, a whole process.
pub fn cold(fixture: &Fixture, command: &str) {
    let arguments = serde_json::json!({ "command": command }).to_string();
    let output = Command::new(programs().join("oxibot"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", fixture.root())
        .arg("--home")
        .arg(fixture.home())
        .args(["tool", "call", "bash", &arguments, "--json", "--workspace"])
        .arg(fixture.workspace())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A second process that sends back what it gets.
pub struct Echo {
    socket: UnixStream,
    child: Child,
}

impl Echo {
    pub fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("--echo")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self { socket: ours, child }
    }

    pub fn round(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        self.socket.read_exact(&mut back).unwrap();
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other end of [`Echo`].
pub fn echo() {
    let socket = std::io::stdin();
    let mut socket = UnixStream::from(std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned().unwrap());
    let mut bytes = [0; 65536];
    while let Ok(count @ 1..) = socket.read(&mut bytes) {
        if socket.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
