//! Starts real zygotes and runs real programs behind the wall. No fakes.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::message::Level;
use oxibot_proto::settings::Limits;
use oxibot_toolhost::wall::{Nursery, ReadyInit, RunningInit, Zygote, ZygoteEvent};
use oxibot_toolhost::wire::{
    Ending, FoundSockets, FromInit, Job, Obtained, Profile, Refusal, Sockets, ToZygote, Wanted,
};

/// Longest any single step of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_oxibot-toolhost"))
}

pub fn profile(workspace: &Path) -> Profile {
    Profile {
        workspace: workspace.to_str().unwrap().into(),
        read: vec![],
        write: vec![],
        covered: vec![],
        restrict_to_workspace: true,
        protect: vec![".git/hooks".into(), ".vscode".into(), ".mcp.json".into()],
        wanted: Wanted::Strongest,
        tmp_mb: 32,
        limits: Limits::default(),
        proxy: false,
    }
}

/// A nursery, one zygote and the workspace it is for.
pub struct Wall {
    /// Dropped before the nursery, which waits for zygotes without namespaces to tidy up.
    pub zygote: Zygote,
    pub nursery: Nursery,
    pub workspace: tempfile::TempDir,
}

impl Wall {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Profile)) -> Self {
        Self::below(&std::env::temp_dir(), change)
    }

    pub fn below(parent: &Path, change: impl FnOnce(&mut Profile)) -> Self {
        let workspace = tempfile::tempdir_in(parent).unwrap();
        Self::at(workspace, change)
    }

    pub fn at(workspace: tempfile::TempDir, change: impl FnOnce(&mut Profile)) -> Self {
        let mut profile = profile(&workspace.path().canonicalize().unwrap());
        change(&mut profile);
        let mut nursery = Nursery::start_with(&binary()).unwrap();
        let zygote = nursery.zygote(&profile).unwrap();
        Self { zygote, nursery, workspace }
    }

    pub fn event(&mut self) -> ZygoteEvent {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.zygote.receive().unwrap() {
                return event;
            }
            assert!(Instant::now() < until, "the zygote does not answer");
            readable(self.zygote.socket(), 100);
        }
    }

    pub fn init(&mut self) -> ReadyInit {
        self.zygote.ask(ToZygote::MakeInit).unwrap();
        match self.event() {
            ZygoteEvent::Init(init) => init,
            other => panic!("no init: {other:?}"),
        }
    }

    pub fn bash(&mut self, command: &str) -> Ran {
        self.run(&job(command))
    }

    /// Runs a job to its end and collects its output, stdout and stderr on one pipe.
    pub fn run(&mut self, job: &Job) -> Ran {
        self.start(job).finish()
    }

    pub fn start(&mut self, job: &Job) -> Call {
        let init = self.init();
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let (output, write) = std::io::pipe().unwrap();
        let again = write.try_clone().unwrap();
        let running = init.start(job, [null.into(), write.into(), again.into()]).unwrap();
        Call { running, output: output.into(), refusals: Vec::new(), sockets: None, listener: None }
    }
}

pub struct Call {
    pub running: RunningInit,
    pub output: OwnedFd,
    /// What the filter refused so far.
    pub refusals: Vec<Refusal>,
    /// What a search for sockets found.
    pub sockets: Option<FoundSockets>,
    /// Where the call finds its proxy, if it has one.
    pub listener: Option<OwnedFd>,
}

impl Call {
    pub fn word(&mut self) -> FromInit {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.running.receive().unwrap() {
                Some(FromInit::Refused(refusal)) => self.refusals.push(refusal),
                Some(FromInit::Sockets(found)) => self.sockets = Some(found),
                Some(FromInit::Listening) => self.listener = Some(self.running.take_descriptor().unwrap()),
                Some(word) => return word,
                None => {}
            }
            assert!(Instant::now() < until, "the init does not answer");
            readable(self.running.socket(), 100);
        }
    }

    pub fn finish(mut self) -> Ran {
        let output = std::fs::File::from(self.output.try_clone().unwrap());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // The end of the pipe is the end of the last writer; bounded by the kill when `Call` is dropped.
            let _ = output.take(1 << 20).read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let first = self.word();
        let ending = match &first {
            FromInit::Running => match self.word() {
                FromInit::Ended(ending) => Some(ending),
                other => panic!("unexpected {other:?}"),
            },
            _ => None,
        };
        let (refusals, sockets) = (std::mem::take(&mut self.refusals), self.sockets.take());
        drop(self);
        Ran { first, ending, refusals, sockets, output: reader.join().unwrap() }
    }
}

#[derive(Debug)]
pub struct Ran {
    pub first: FromInit,
    pub ending: Option<Ending>,
    pub refusals: Vec<Refusal>,
    pub sockets: Option<FoundSockets>,
    pub output: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.ending.unwrap_or_else(|| panic!("{self:?}")).exit_code.unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The output of a program that exited with 0.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code(), 0, "{self:?}");
        self.output.trim_end()
    }
}

pub fn job(command: &str) -> Job {
    program(&["/bin/bash", "--norc", "--noprofile", "-c", command])
}

pub fn program(argv: &[&str]) -> Job {
    Job {
        argv: argv.iter().map(|part| part.as_bytes().to_vec()).collect(),
        environment: [
            "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG=C.UTF-8",
            "TERM=dumb",
            "TMPDIR=/tmp",
        ]
        .map(|pair| pair.as_bytes().to_vec())
        .to_vec(),
        directory: vec![],
        limits: Limits::default(),
        umask: 0o022,
        sockets: Sockets::search(),
    }
}

pub fn readable(fd: impl AsFd, milliseconds: u16) -> bool {
    let mut watched = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::from(milliseconds)).unwrap_or(0) > 0
}

/// The level this kernel gives without namespaces: `kernel` takes Landlock's scopes (Linux 6.12).
pub fn without_namespaces(obtained: &Obtained) -> Level {
    if obtained.landlock_abi >= 6 { Level::Kernel } else { Level::Reduced }
}

/// Whether these tests run as root; some promises differ.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs this whole test binary again as an ordinary user (`nobody`), whose wall is built by another path: its own
/// user namespace instead of one made by root.
pub fn again_as_a_user() {
    use std::os::unix::process::CommandExt;
    if !root() {
        return;
    }
    let user = 65_534;
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(home.path(), Some(user), Some(user)).unwrap();
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        // One after the other, as the runner gives each a process of its own: they fork, fill the machine with processes of
        // this one user, and look at what is left of them.
        .arg("--test-threads=1")
        .uid(user)
        .gid(user)
        .env("TMPDIR", home.path())
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "as user {user}:\n{}\n{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// What a cgroup counts for each call here, by the protection's own words: `v1: memory; v1: pids` or `v2: memory, pids`.
pub fn counted(zygote: &Zygote) -> (bool, bool) {
    let found = zygote.obtained().protections.iter().find(|one| one.name == "cgroup").unwrap();
    let state = found.state;
    let by = found.detail.split("; no ").next().unwrap();
    let has = |name| state != oxibot_proto::message::ProtectionState::Unavailable && by.contains(name);
    (has("memory"), has("pids"))
}
