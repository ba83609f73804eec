//! Starting what starts the fetch worker: `oxibot-toolhost fetcher`, beside the toolhost and before any secret is read.
//!
//! It only waits until something of the web is asked for, so it costs next to nothing until then. It gets the checked
//! descriptor of `oxibot-fetch`, one end of a packet socket whose other end the toolhost has, and one end of another on
//! which main leaves the search key. Without `oxibot-fetch` there is no web, and everything else works.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use oxibot_proto::codec;
use oxibot_proto::web::SearchService;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use secrecy::ExposeSecret;

use super::binary::{Program, find_fetch};
use super::control::send_program;
use super::toolhost::ended_within;
use super::{LaunchError, children};
use crate::config::Config;

/// How long it may take to end after the toolhost did: its socket is closed then.
const ENDING: Duration = Duration::from_secs(5);
/// What the worker may be told by the environment: where the certificate authorities are.
const ENVIRONMENT: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The process that starts fetch workers.
#[derive(Debug)]
pub(super) struct Fetcher {
    child: Child,
    pidfd: OwnedFd,
}

impl Fetcher {
    /// Waits for its end. Blocks, at most 5 seconds; one that stays longer is left to the end of its sockets.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if ended_within(self.pidfd.as_fd(), ENDING)? {
            self.child.wait()?;
        }
        Ok(())
    }
}

/// Main's end of the socket on which it leaves what it knows of the search service.
#[derive(Debug)]
pub struct SearchDoor(pub(super) OwnedFd);

impl SearchDoor {
    /// Leaves service and key for the fetch worker, once. The message stays in the kernel until there is one.
    ///
    /// # Errors
    /// When nobody is left at the other end, or the message is longer than a packet.
    pub fn leave(self, config: &Config) -> io::Result<()> {
        self.leave_service(&search_service(config))
    }

    /// As [`Self::leave`], of what was read before.
    ///
    /// # Errors
    /// As [`Self::leave`].
    pub fn leave_service(self, service: &SearchService) -> io::Result<()> {
        let frame = codec::frame(service).map_err(io::Error::other)?;
        rustix::net::send(&self.0, &frame, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// What the fetch worker has to know of the search service.
#[must_use]
pub fn search_service(config: &Config) -> SearchService {
    let search = &config.tools.web.search;
    SearchService {
        provider: search.provider,
        base_url: search.base_url.clone(),
        key: config.search_key.as_ref().map(|key| key.expose_secret().to_owned()),
        max_results: search.max_results,
    }
}

/// The two ends somebody else needs.
pub(super) struct Ends {
    /// For the toolhost.
    pub(super) requests: OwnedFd,
    /// For main.
    pub(super) search: SearchDoor,
}

/// Pairs and program, before anything is started. `None`: there is no `oxibot-fetch` that can be trusted.
pub(super) fn prepare() -> Result<Option<(Ends, Parts)>, LaunchError> {
    let program = match find_fetch() {
        Ok(program) => program,
        // The web tools say that it is missing, and `doctor` says why.
        Err(LaunchError::NotFound { .. } | LaunchError::Untrusted { .. }) => return Ok(None),
        Err(error @ LaunchError::System { .. }) => return Err(error),
    };
    let (requests, their_requests) = pair()?;
    let (search, their_search) = pair()?;
    let ends = Ends { requests, search: SearchDoor(search) };
    Ok(Some((ends, Parts { program, requests: their_requests, search: their_search })))
}

/// What the fetcher is started with.
pub(super) struct Parts {
    program: Program,
    requests: OwnedFd,
    search: OwnedFd,
}

/// Starts it: the same program as the toolhost, in another role.
pub(super) fn start(
    toolhost: &Program,
    parts: Parts,
    door: &SearchDoor,
    no_sandbox: u8,
) -> Result<Fetcher, LaunchError> {
    let step = "start what starts the fetch worker";
    let stderr = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_closed| Stdio::null(), Stdio::from);
    let child = Command::new(toolhost.by_descriptor())
        .arg0("oxibot-toolhost")
        .args(arguments(no_sandbox))
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .current_dir("/")
        .stdin(Stdio::from(parts.requests))
        .stdout(Stdio::from(parts.search))
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(LaunchError::system(step))?;
    let pidfd = children::watch(&child, step)?;
    send_program(door.0.as_fd(), parts.program.descriptor()).map_err(LaunchError::system(step))?;
    Ok(Fetcher { child, pidfd })
}

fn arguments(no_sandbox: u8) -> Vec<OsString> {
    let mut arguments = vec!["fetcher".into()];
    if no_sandbox > 0 {
        arguments.push("--unconfined".into());
    }
    arguments
}

fn pair() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| {
        LaunchError::System { step: "make a socket pair for the fetch worker", cause: errno.into() }
    })
}
