//! The worker: `oxibot-toolhost shell`, descriptor 0 its socket. It confines itself, takes the policy, then judges one
//! script at a time until the socket ends. Started by the nursery for the supervisor; whoever starts it by hand learns
//! nothing, because it can reach nothing.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use bincode::{Decode, Encode};
use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::settings;

use super::confine::{self, Confined};
use super::{Judged, Policy, judge};
use crate::sys;

/// Exit status when the socket or the confinement failed.
const INTERNAL: u8 = 70;
/// Bytes read at once.
const BUFFER: usize = 64 * 1024;

/// Supervisor to reader.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ToReader {
    /// The user's section as JSON; once, first.
    Policy(String),
    /// A script to judge.
    Judge {
        /// Comes back with the answer.
        number: u64,
        /// At most [`super::MAX_SCRIPT`] bytes.
        script: String,
    },
}

/// Reader to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum FromReader {
    /// Confined, verified, and the policy is loaded, or why not.
    Ready(Result<(), String>),
    /// A verdict.
    Judged {
        /// Of the request.
        number: u64,
        /// What the policy says.
        judged: Judged,
    },
}

/// Runs the worker until its socket is closed. For the start of a process: takes descriptor 0, closes those above 2, and
/// confines the process for good.
#[must_use]
pub fn role() -> ExitCode {
    let status = sys::close_from(3)
        .map_err(|errno| errno.to_string())
        .and_then(|()| sys::take_inherited(0).ok_or_else(|| "descriptor 0 must be a socket".to_owned()))
        .and_then(|socket| Ok((socket, confine::confine().map_err(|error| error.to_string())?)))
        .and_then(|(socket, confined)| serve(confined, socket));
    match status {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody may be listening; the exit status says it too.
            let _ = writeln!(std::io::stderr().lock(), "oxibot-toolhost shell: {why}");
            ExitCode::from(INTERNAL)
        }
    }
}

fn serve(_: Confined, socket: OwnedFd) -> Result<(), String> {
    let mut decoder = Decoder::<ToReader>::new();
    let mut buffer = vec![0; BUFFER];
    let mut policy: Option<Policy> = None;
    loop {
        while let Some(message) = decoder.next_message().map_err(|error| error.to_string())? {
            let answer = match (message, &policy) {
                (ToReader::Policy(section), None) => {
                    let loaded = serde_json::from_str::<settings::Policy>(&section)
                        .map_err(|error| error.to_string())
                        .and_then(|section| Policy::load(&section).map_err(|error| error.to_string()));
                    match loaded {
                        Ok(loaded) => {
                            policy = Some(loaded);
                            FromReader::Ready(Ok(()))
                        }
                        Err(why) => FromReader::Ready(Err(why)),
                    }
                }
                (ToReader::Judge { number, script }, Some(policy)) => {
                    FromReader::Judged { number, judged: judge(policy, &script) }
                }
                (ToReader::Policy(_), Some(_)) => return Err("the policy came twice".to_owned()),
                (ToReader::Judge { .. }, None) => return Err("a request came before the policy".to_owned()),
            };
            send(&socket, &answer)?;
        }
        match nix::unistd::read(&socket, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => decoder.push(buffer.get(..count).unwrap_or_default()),
            Err(nix::errno::Errno::EINTR) => {}
            // The supervisor ended without reading the last verdict.
            Err(nix::errno::Errno::ECONNRESET) => return Ok(()),
            Err(errno) => return Err(format!("cannot read a request: {errno}")),
        }
    }
}

fn send(socket: &OwnedFd, answer: &FromReader) -> Result<(), String> {
    let frame = codec::frame(answer).map_err(|error| error.to_string())?;
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        match nix::unistd::write(socket.as_fd(), rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(format!("cannot send an answer: {errno}")),
        }
    }
    Ok(())
}
