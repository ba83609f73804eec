//! What is compared: the broker with a real toolhost behind it, the same program without a wall, bubblewrap, an echo.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use oxibot_main::broker::{Broker, CallOptions, Connection, greet};
use oxibot_proto::message::{CallResult, Level, Outcome};
use oxibot_tests::fixture::{Fixture, binary};
use oxibot_tests::peer::origin;
use tokio::runtime::Runtime;

/// What a call's environment is, for sides that are no calls.
fn environment(command: &mut Command, workspace: &Path) {
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", workspace)
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("TMPDIR", "/tmp")
        .current_dir(workspace)
        .stdin(Stdio::null());
}

/// Main's side of a running toolhost, warm.
pub struct Warm {
    pub fixture: Fixture,
    pub runtime: Arc<Runtime>,
    pub broker: Broker,
    pub supervisor: u32,
    _connection: Connection,
    child: Child,
}

impl Warm {
    pub fn start() -> Self {
        let fixture = Fixture::new();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new(binary("oxibot-toolhost"))
            .env_clear()
            .args(["serve", "--socket-fd", "0", "--home"])
            .arg(fixture.home())
            .arg("--workspace")
            .arg(fixture.workspace())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let greeted = greet(ours).unwrap();
        assert_eq!(greeted.hello.wall.level, Level::Full, "figures without the wall say nothing");
        let runtime = Arc::new(
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        );
        let (broker, connection) = runtime.block_on(async { Broker::start(greeted) }).unwrap();
        Self { fixture, runtime, broker, supervisor: child.id(), _connection: connection, child }
    }

    /// One call, whole, through the broker.
    pub fn call(&self, tool: &str, arguments: &str) -> Box<CallResult> {
        self.runtime.block_on(call(&self.broker, tool, arguments))
    }

    pub fn bash(&self, command: &str) {
        let result = self.call("bash", &serde_json::json!({ "command": command }).to_string());
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

    /// The same in bubblewrap with an allow-list root.
    pub fn bubblewrap(&self, command: &str) {
        let workspace = self.fixture.workspace();
        let mut bwrap = Command::new("bwrap");
        bwrap.args([
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
        ]);
        for path in ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|path| Path::new(path).exists()) {
            bwrap.args(["--ro-bind", path, path]);
        }
        bwrap.arg("--bind").arg(&workspace).arg(&workspace).arg("--chdir").arg(&workspace);
        bwrap.args(["/bin/bash", "--norc", "--noprofile", "-c", command]);
        environment(&mut bwrap, &workspace);
        let output = bwrap.output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// Proportional set size of the supervisor and everything below it, in KiB.
    pub fn memory_kib(&self) -> u64 {
        family(self.supervisor).iter().map(|pid| proportional(*pid)).sum()
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One call through a broker.
pub async fn call(broker: &Broker, tool: &str, arguments: &str) -> Box<CallResult> {
    broker.start_call(tool, arguments, CallOptions::new(origin())).await.unwrap().result().await
}

fn family(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found
}

fn proportional(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()))
}

/// `oxibot tool call`, a whole process.
pub fn cold(fixture: &Fixture, programs: &Path, command: &str) {
    let output = Command::new(programs.join("oxibot"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", fixture.root())
        .arg("--home")
        .arg(fixture.home())
        .args([
            "tool",
            "call",
            "bash",
            &serde_json::json!({ "command": command }).to_string(),
            "--json",
            "--workspace",
        ])
        .arg(fixture.workspace())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Where the programs of this build are.
pub fn programs() -> PathBuf {
    binary("oxibot").parent().unwrap().to_owned()
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
