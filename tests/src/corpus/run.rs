//! Running one attack: without a wall, by `oxibot sandbox run`, or as a `bash` call in a toolhost that stays.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oxibot_proto::message::{Level, Outcome, Output, ToMain};

use super::stage::{LEAKED_DESCRIPTOR, Stage};
use super::{Attack, BEGUN, PRELUDE, Program, Taken};
use crate::fixture::{Fixture, skip};
use crate::peer::{Peer, hello};
use crate::processes;

/// An id no package uses.
pub const USER: u32 = 48_213;
/// What a walled call may take beyond its deadline before it counts as hung. Generous: machines are busy.
const SLACK: Duration = Duration::from_secs(20);
/// By whom the kernel was set up: the level that a toolhost must obtain on it.
pub const LEVEL_VARIABLE: &str = "OXIBOT_TESTS_LEVEL";
/// Output kept of one run; more is only counted.
const KEPT: usize = 64 << 20;

/// How a table is run, see the table in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table says it")]
pub enum Mode {
    ControlRoot,
    ControlUser,
    FullRoot,
    FullUser,
    KernelRoot,
    KernelUser,
    ToolCall,
    ToolCallUser,
}

impl Mode {
    /// Without a wall.
    #[must_use]
    pub fn control(self) -> bool {
        matches!(self, Self::ControlRoot | Self::ControlUser)
    }

    /// As an ordinary user.
    #[must_use]
    pub fn user(self) -> bool {
        matches!(self, Self::ControlUser | Self::FullUser | Self::KernelUser | Self::ToolCallUser)
    }

    /// In one toolhost that stays.
    #[must_use]
    pub fn stays(self) -> bool {
        matches!(self, Self::ToolCall | Self::ToolCallUser)
    }

    /// Where the tests refuse user namespaces.
    #[must_use]
    pub fn kernel(self) -> bool {
        matches!(self, Self::KernelRoot | Self::KernelUser)
    }
}

/// What came of it.
pub struct Ran {
    /// Both streams.
    pub output: Vec<u8>,
    /// How it ended, for messages.
    pub ended: String,
    /// It did not end by itself in time.
    pub hung: bool,
    /// What it took.
    pub taken: Taken,
}

/// Everything the attacks of one table in one mode share.
pub struct Setting {
    /// Home and workspace.
    pub fixture: Fixture,
    /// How they are run.
    pub mode: Mode,
    /// The user calls are made by.
    pub owner: u32,
    /// The level they are made at; `off` for controls.
    pub level: Level,
    programs: PathBuf,
    peer: Option<Peer>,
}

impl Setting {
    /// Prepares it; `None` where this machine cannot, which is said. `configuration` is that of the OxiBot home.
    ///
    /// # Panics
    /// When the level obtained is not the mode's.
    #[must_use]
    pub fn new(mode: Mode, configuration: &str) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            skip(&format!("{mode:?}"), "needs root to be root and to become another user");
            return None;
        }
        let fixture = Fixture::new();
        let programs = fixture.programs_for_anyone();
        let owner = if mode.user() { USER } else { 0 };
        let file = fixture.home().join("config.json");
        fs::write(&file, configuration).expect("configuration");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
        for path in [fixture.home(), fixture.workspace()] {
            super::stage::own(&path, owner);
        }
        let level = match mode {
            Mode::ControlRoot | Mode::ControlUser => Level::Off,
            Mode::FullRoot | Mode::FullUser => Level::Full,
            Mode::KernelRoot | Mode::KernelUser => match crate::fixture::level_without_namespaces() {
                "kernel" => Level::Kernel,
                _ => Level::Reduced,
            },
            Mode::ToolCall | Mode::ToolCallUser => machine_level(),
        };
        let mut setting = Self { fixture, mode, owner, level, programs, peer: None };
        match mode {
            Mode::ControlRoot | Mode::ControlUser => {}
            Mode::FullRoot | Mode::FullUser | Mode::KernelRoot | Mode::KernelUser => setting.assert_level(),
            Mode::ToolCall | Mode::ToolCallUser => setting.start_toolhost(&file),
        }
        Some(setting)
    }

    fn start_toolhost(&mut self, configuration: &Path) {
        let configuration = configuration.display().to_string();
        let (home, workspace) = (self.fixture.home(), self.fixture.workspace());
        let mut command = if self.mode.user() {
            let id = self.owner.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
            command.arg(self.programs.join("oxibot-toolhost"));
            command
        } else {
            Command::new(crate::fixture::binary("oxibot-toolhost"))
        };
        command.env_clear();
        if self.level == Level::Reduced {
            let (name, value) = crate::fixture::ACCEPT_REDUCED;
            command.env(name, value);
        }
        let mut peer = Peer::start_as(command, &home, &workspace, &["--config", &configuration]);
        peer.send(&hello());
        match peer.receive() {
            Some(ToMain::Hello(hello)) => assert_eq!(hello.wall.level, self.level, "{:?}", hello.wall),
            other => panic!("expected a hello, got {other:?}"),
        }
        self.peer = Some(peer);
    }

    fn assert_level(&self) {
        let level = format!("{:?}", self.level).to_lowercase();
        let mut arguments = self.oxibot();
        arguments
            .extend(["tool", "call", "bash", r#"{"command":":"}"#, "--json", "--workspace"].map(Into::into));
        arguments.push(self.fixture.workspace().into());
        let output = self.command(&arguments).output().expect("oxibot starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("\"level\":\"{level}\"")), "{}", crate::fixture::describe(&output));
    }

    /// `oxibot` with its home, behind whatever makes the level.
    fn oxibot(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if self.mode.kernel() {
            // Only user namespaces are taken away: everything else the wall must refuse itself.
            words.extend([self.programs.join("sabotage").into(), "user-namespace".into(), "--".into()]);
        }
        words.push(self.programs.join("oxibot").into());
        words.extend(["--home".into(), self.fixture.home().into()]);
        words
    }

    /// A command of the calling user's, with a secret in its environment and an open descriptor it should not pass on.
    fn command(&self, argv: &[OsString]) -> Command {
        let mut command = Command::new("/bin/bash");
        command.env_clear();
        if self.mode.kernel() {
            // On an old kernel the level is `reduced`.
            let (name, value) = crate::fixture::ACCEPT_REDUCED;
            command.env(name, value);
        }
        command
            .args(["-c", &format!("[ -r \"$SECRET_FILE\" ] && exec {LEAKED_DESCRIPTOR}<\"$SECRET_FILE\"; unset SECRET_FILE; exec \"$@\""), "x"])
            .args(argv)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.fixture.root())
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", "/tmp")
            .current_dir(self.fixture.workspace())
            .uid(self.owner)
            .gid(self.owner)
            .stdin(Stdio::null());
        command
    }

    /// The `argv` of an attack.
    fn program(attack: &Attack, stage: &Stage) -> Vec<OsString> {
        let (interpreter, flag, text) = source(attack, stage);
        vec![interpreter.into(), flag.into(), text.into()]
    }

    /// Runs it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&mut self, attack: &Attack, stage: &Stage) -> Ran {
        self.script(attack.before, stage);
        let workspace = self.fixture.workspace();
        let used = disk(&workspace);
        let start = Instant::now();
        let mut ran = match self.mode {
            Mode::ToolCall | Mode::ToolCallUser => self.call(attack, stage),
            Mode::ControlRoot | Mode::ControlUser => {
                let argv = Self::program(attack, stage);
                self.process(&argv, attack, stage)
            }
            Mode::FullRoot | Mode::FullUser | Mode::KernelRoot | Mode::KernelUser => {
                let mut argv = self.oxibot();
                argv.extend(["sandbox", "run", "--timeout"].map(Into::into));
                argv.push(attack.seconds.to_string().into());
                argv.push("--workspace".into());
                argv.push(workspace.clone().into());
                argv.push("--".into());
                argv.extend(Self::program(attack, stage));
                self.process(&argv, attack, stage)
            }
        };
        ran.taken.milliseconds = start.elapsed().as_millis();
        let now = disk(&workspace);
        ran.taken.workspace_mb = now.0.saturating_sub(used.0) >> 20;
        ran.taken.files = now.1.saturating_sub(used.1);
        if !attack.after.is_empty() {
            ran.output.extend_from_slice(&self.script(attack.after, stage));
        }
        ran
    }

    /// A script in the workspace, without the wall, by the user of the calls.
    fn script(&self, text: &str, stage: &Stage) -> Vec<u8> {
        if text.is_empty() {
            return Vec::new();
        }
        let argv = ["/bin/bash".into(), "-c".into(), OsString::from(stage.fill(text))];
        let output = self.command(&argv).output().expect("bash");
        [output.stdout, output.stderr].concat()
    }

    fn process(&self, argv: &[OsString], attack: &Attack, stage: &Stage) -> Ran {
        let mut child = self
            .command(argv)
            .env("SECRET_FILE", stage.outside.join("secret"))
            .env("OXIBOT_TEST_TOKEN", &stage.secret)
            .env("AWS_SECRET_ACCESS_KEY", &stage.secret)
            .env("BASH_ENV", "/nonexistent")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("bash");
        let kept = Kept::of(&mut child);
        let sampler = attack.bound.map(|_| Sampler::of(child.id()));
        let deadline = Duration::from_secs(attack.seconds.into())
            + if self.mode.control() { Duration::ZERO } else { SLACK };
        let status = wait(&mut child, deadline);
        let hung = status.is_none();
        if hung {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (output, total) = kept.finish();
        let mut taken = sampler.map(Sampler::finish).unwrap_or_default();
        taken.output = total;
        Ran {
            output,
            ended: status.map_or("killed by the test".into(), |status| status.to_string()),
            hung,
            taken,
        }
    }

    fn call(&mut self, attack: &Attack, stage: &Stage) -> Ran {
        let (interpreter, _, text) = source(attack, stage);
        let script = self.fixture.workspace().join(".attack");
        fs::write(&script, text).expect("script");
        let peer = self.peer.as_mut().expect("toolhost");
        let sampler = attack.bound.map(|_| Sampler::of(peer.child.id()));
        let arguments = serde_json::json!({
            "command": format!("{interpreter} ./.attack"),
            "timeout_s": attack.seconds,
        });
        let call = peer.call("bash", &arguments);
        let result = peer.result(call);
        let mut taken = sampler.map(Sampler::finish).unwrap_or_default();
        let Output { head, tail, total_bytes: _, passed_bytes: _, file: _ } = result.output;
        taken.output = head.len() + tail.len();
        let ended =
            format!("{:?} {:?} {:?} {:?}", result.outcome, result.exit_code, result.signal, result.notes);
        let mut output = [head, tail].concat();
        if let Outcome::Internal { .. } = result.outcome {
            output.extend_from_slice(b"\nGOT-THROUGH internal error made from inside");
        }
        Ran { output, ended, hung: false, taken }
    }

    /// Whether the next call is answered as if nothing had been, `Err` with what came instead. Only a toolhost that
    /// stays can be asked.
    ///
    /// # Errors
    /// What was answered.
    pub fn answers(&mut self) -> Result<(), String> {
        let Some(peer) = self.peer.as_mut() else { return Ok(()) };
        let result = peer.bash("echo alive");
        if result.output.head == b"alive\n" && result.outcome == Outcome::Completed {
            return Ok(());
        }
        Err(format!("the next call was answered {:?} {:?}", result.outcome, result.output))
    }

    /// Empties the workspace for the next attack.
    ///
    /// # Panics
    /// When something in it cannot be removed.
    pub fn clear_workspace(&self) {
        for entry in fs::read_dir(self.fixture.workspace()).expect("workspace").flatten() {
            let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // Attacks take permissions away, and some file systems want empty directories first.
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            removed.unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
        }
    }
}

/// The level of this machine as it is: `full`, if nobody says otherwise who set the machine up. Never what is found.
fn machine_level() -> Level {
    match std::env::var(LEVEL_VARIABLE).as_deref() {
        Err(_) | Ok("full") => Level::Full,
        Ok("reduced") => Level::Reduced,
        Ok(other) => panic!("{LEVEL_VARIABLE} is {other}"),
    }
}

fn source(attack: &Attack, stage: &Stage) -> (&'static str, &'static str, String) {
    match attack.program {
        Program::Bash(text) => ("/bin/bash", "-c", format!("echo {BEGUN}\n{}", stage.fill(text))),
        Program::Python(text) => ("/usr/bin/python3", "-c", format!("{PRELUDE}\n{}", stage.fill(text))),
        Program::Perl(text) => {
            ("/usr/bin/perl", "-e", format!("$|=1; print \"{BEGUN}\\n\";\n{}", stage.fill(text)))
        }
    }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Bytes in blocks and number of files below a directory.
fn disk(path: &Path) -> (u64, usize) {
    let mut total = (0, 0);
    let mut stack = vec![path.to_owned()];
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            total = (total.0 + metadata.blocks() * 512, total.1 + 1);
            if metadata.is_dir() {
                stack.push(entry.path());
            }
        }
    }
    total
}

/// Both streams of a child, read as they come; a descendant that keeps them open holds nobody up.
struct Kept {
    bytes: Arc<Mutex<(Vec<u8>, usize)>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Kept {
    fn of(child: &mut Child) -> Self {
        let bytes = Arc::new(Mutex::new((Vec::new(), 0)));
        let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>),
        ];
        let threads = streams
            .into_iter()
            .flatten()
            .map(|mut stream| {
                let bytes = Arc::clone(&bytes);
                std::thread::spawn(move || {
                    let mut chunk = vec![0; 64 * 1024];
                    while let Ok(n @ 1..) = stream.read(&mut chunk) {
                        let mut kept = bytes.lock().expect("output");
                        kept.1 += n;
                        if kept.0.len() < KEPT {
                            kept.0.extend_from_slice(chunk.get(..n).unwrap_or_default());
                        }
                    }
                })
            })
            .collect();
        Self { bytes, threads }
    }

    fn finish(self) -> (Vec<u8>, usize) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) && !self.threads.iter().all(|t| t.is_finished()) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut kept = self.bytes.lock().expect("output");
        (std::mem::take(&mut kept.0), kept.1)
    }
}

/// Looks again and again at what a process and everything below it take.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Taken>,
}

impl Sampler {
    fn of(root: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let root = i32::try_from(root).unwrap_or_default();
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut most = Taken::default();
                while !stop.load(Ordering::Relaxed) {
                    let (mut tasks, mut pages) = (0, 0);
                    for process in processes::tree(root) {
                        let directory = PathBuf::from(format!("/proc/{}", process.pid));
                        tasks += fs::read_dir(directory.join("task")).map_or(0, Iterator::count);
                        let statm = fs::read_to_string(directory.join("statm")).unwrap_or_default();
                        let field = |n| {
                            statm.split(' ').nth(n).and_then(|v| v.trim().parse::<u64>().ok()).unwrap_or(0)
                        };
                        // Resident without what is shared with files: programs are mapped many times.
                        pages += field(1).saturating_sub(field(2));
                    }
                    most.tasks = most.tasks.max(tasks);
                    most.resident_mb = most.resident_mb.max(pages * 4 / 1024);
                    std::thread::sleep(Duration::from_millis(20));
                }
                most
            })
        };
        Self { stop, thread }
    }

    fn finish(self) -> Taken {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("sampler")
    }
}
