//! Starting `oxibot-toolhost serve` over a socket pair, and seeing it end.
//!
//! Its environment is built from nothing, its descriptor 0 is its end of the socket, 1 and 2 are our standard error, and
//! it has its own process group so that Ctrl-C reaches main and not it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::message::Level;

use super::binary::find_toolhost;
use super::fetcher::{self, Ends, Fetcher, SearchDoor};
use super::{LaunchError, children};

/// How long a toolhost may take to end after its socket was closed. It kills what runs and syncs its log; then it is
/// killed itself, and everything below dies with it.
const ENDING: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a killed process.
const REAPING: Duration = Duration::from_secs(5);

/// What the toolhost is started with. Its policy it reads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOptions {
    /// Configuration file, absolute, if there is one.
    pub config: Option<PathBuf>,
    /// OxiBot's home, absolute.
    pub home: PathBuf,
    /// Directories a person typed, absolute: admitted for this process, the first as default.
    pub workspaces: Vec<PathBuf>,
    /// How often `--no-sandbox` was given.
    pub no_sandbox: u8,
    /// What it is started for.
    pub purpose: Purpose,
    /// Whether something of the web may be asked for. What stays always has it.
    pub web: bool,
    /// Only to be looked at: the least level it may start with, whatever the configuration requires.
    pub require: Option<Level>,
}

/// How a level is required through the environment.
const REQUIRE: &str = "OXIBOT_SANDBOX__REQUIRE";

/// What a toolhost is started for, which decides how it proves its wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It stays: the wall is attacked at every start.
    LongLived,
    /// A command that does one thing: a pass recorded within a day may count.
    OneShot,
    /// To be attacked, and for nothing else.
    Attack,
    /// To say what the policy thinks of a call, and for nothing else: no wall is built.
    Judge,
    /// To show the wall: as [`Purpose::OneShot`], with every rule of the policy set aside, so that what is tried reaches it.
    Demonstration,
}

/// How the demonstration sets the policy aside.
const NO_RULES: (&str, &str) = ("OXIBOT_POLICY__OVERRIDES", r#"[{"rule":"*","verdict":"allow"}]"#);

/// A toolhost that was started. Dropping it leaves the process to end by itself when its socket closes.
#[derive(Debug)]
pub struct Toolhost {
    child: Child,
    pidfd: OwnedFd,
    fetcher: Option<Fetcher>,
}

/// What there is after a start.
#[derive(Debug)]
pub struct Started {
    /// Our end of the toolhost's socket.
    pub socket: UnixStream,
    /// The process.
    pub toolhost: Toolhost,
    /// Where the search key is to be left, if there is a web.
    pub search: Option<SearchDoor>,
}

impl Toolhost {
    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when it ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end, which follows when the last copy of the socket to it is closed; kills it when it takes too
    /// long. Blocks, at most 15 seconds.
    ///
    /// # Errors
    /// When even a killed process does not end, or its end cannot be seen.
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        if !ended_within(self.pidfd.as_fd(), ENDING)? {
            tracing::error!(pid = self.child.id(), "the toolhost does not end and is killed");
            self.child.kill()?;
            if !ended_within(self.pidfd.as_fd(), REAPING)? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed toolhost does not end"));
            }
        }
        let status = self.child.wait()?;
        // Its socket to the toolhost is closed now.
        self.fetcher.map_or(Ok(()), Fetcher::finish)?;
        Ok(status)
    }
}

/// Starts the toolhost, and what starts its fetch worker where one may be needed. No secret may have been read yet and no thread started.
///
/// # Errors
/// As [`find_toolhost`], and [`LaunchError::System`] when the process cannot be made.
pub fn start_toolhost(options: &LaunchOptions) -> Result<Started, LaunchError> {
    let program = find_toolhost()?;
    let web = match options.web || options.purpose == Purpose::LongLived {
        true => fetcher::prepare()?,
        false => None,
    };
    let (ends, parts) = web.unzip();
    let (requests, search) = ends.map(|Ends { requests, search }| (requests, search)).unzip();
    let (ours, theirs) = UnixStream::pair().map_err(LaunchError::system("make a socket pair"))?;
    // One thing to write to besides the socket: standard output is for what the person asked.
    let stderr =
        || io::stderr().as_fd().try_clone_to_owned().map_or_else(|_closed| Stdio::null(), Stdio::from);
    let child = Command::new(program.by_descriptor())
        .arg0("oxibot-toolhost")
        .args(arguments(options))
        .args(requests.as_ref().map(|_| ["--fetch-fd", "1"]).into_iter().flatten())
        .env_clear()
        .envs(environment(std::env::vars_os()))
        .envs(options.require.map(|level| (REQUIRE, level.name())))
        .envs((options.purpose == Purpose::Demonstration).then_some(NO_RULES))
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(requests.map_or_else(stderr, Stdio::from))
        .stderr(stderr())
        .process_group(0)
        .spawn()
        .map_err(LaunchError::system("start the toolhost"))?;
    let pidfd = children::watch(&child, "watch the toolhost")?;
    // After the toolhost, which has more to do; before anything else.
    let fetcher = match (parts, &search) {
        (Some(parts), Some(door)) => Some(fetcher::start(&program, parts, door, options.no_sandbox)?),
        (_, _) => None,
    };
    Ok(Started { socket: ours, toolhost: Toolhost { child, pidfd, fetcher }, search })
}

pub(super) fn ended_within(pidfd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now().checked_add(patience);
    loop {
        let left = deadline.map_or(patience, |at| at.saturating_duration_since(std::time::Instant::now()));
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn arguments(options: &LaunchOptions) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--socket-fd".into(), "0".into()];
    if let Some(config) = &options.config {
        arguments.extend(["--config".into(), config.clone().into_os_string()]);
    }
    arguments.extend(["--home".into(), options.home.clone().into_os_string()]);
    for workspace in &options.workspaces {
        arguments.extend(["--workspace".into(), workspace.clone().into_os_string()]);
    }
    match options.purpose {
        Purpose::LongLived => {}
        Purpose::OneShot | Purpose::Demonstration => arguments.push("--one-shot".into()),
        Purpose::Judge => arguments.push("--judge".into()),
        Purpose::Attack => arguments.push("--attack".into()),
    }
    arguments.extend((0..options.no_sandbox).map(|_| "--no-sandbox".into()));
    arguments
}

/// Whole environment of the toolhost: the overrides of what it reads itself, by name. `OXIBOT_TOOLS__WEB__...` holds a
/// search key and belongs to others; a `..._FILE` names a secret.
fn environment(ours: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    const SECTIONS: [&str; 8] = [
        "OXIBOT_TOOLS__EXEC__",
        "OXIBOT_TOOLS__BASH__",
        "OXIBOT_SANDBOX__",
        "OXIBOT_LIMITS__",
        "OXIBOT_POLICY__",
        "OXIBOT_WEB__",
        "OXIBOT_APPROVALS__",
        "OXIBOT_AUDIT__",
    ];
    const NAMES: [&str; 4] = [
        "OXIBOT_AGENTS__WORKSPACE_SCOPE",
        "OXIBOT_TOOLS__RESTRICT_TO_WORKSPACE",
        "OXIBOT_TOOLS__DISABLED",
        "OXIBOT_AGENTS__DEFAULTS__WORKSPACE",
    ];
    let wanted = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            NAMES.contains(&name)
                || (SECTIONS.iter().any(|section| name.starts_with(section)) && !name.ends_with("_FILE"))
        })
    };
    ours.filter(|(name, _)| wanted(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_holds_nothing_but_what_the_toolhost_reads() {
        let ours = [
            ("OXIBOT_SANDBOX__REQUIRE", "full"),
            ("OXIBOT_LIMITS__MEMORY_MB", "100"),
            ("OXIBOT_TOOLS__EXEC__TIMEOUT", "5"),
            ("OXIBOT_AGENTS__DEFAULTS__WORKSPACE", "/w"),
            ("OXIBOT_AGENTS__DEFAULTS__MODEL", "m"),
            ("OXIBOT_TOOLS__WEB__SEARCH__API_KEY", "secret"),
            ("OXIBOT_WEB__ALLOW_PRIVATE", "[]"),
            ("OXIBOT_PROVIDERS__OPENAI__API_KEY", "secret"),
            ("OXIBOT_SANDBOX__ENV_FILE", "/secret"),
            ("OPENAI_API_KEY", "secret"),
            ("LD_PRELOAD", "/evil.so"),
            ("PATH", "/evil"),
            ("HOME", "/root"),
        ];
        let kept = environment(ours.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let names: Vec<_> = kept.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "OXIBOT_SANDBOX__REQUIRE",
                "OXIBOT_LIMITS__MEMORY_MB",
                "OXIBOT_TOOLS__EXEC__TIMEOUT",
                "OXIBOT_AGENTS__DEFAULTS__WORKSPACE",
                "OXIBOT_WEB__ALLOW_PRIVATE"
            ]
        );
    }

    #[test]
    fn arguments_are_those_the_toolhost_knows() {
        let options = LaunchOptions {
            config: Some("/c".into()),
            home: "/h".into(),
            workspaces: vec!["/a".into(), "/b".into()],
            no_sandbox: 2,
            purpose: Purpose::LongLived,
            web: true,
            require: None,
        };
        let written: Vec<_> =
            arguments(&options).iter().map(|argument| argument.to_str().unwrap().to_owned()).collect();
        assert_eq!(
            written.join(" "),
            "serve --socket-fd 0 --config /c --home /h --workspace /a --workspace /b --no-sandbox --no-sandbox"
        );
    }
}
