//! Speaking to the toolhosts that run in this home, each at its own socket: `stop` and `approvals`.
//!
//! Needs neither configuration nor toolhost of its own, and so works when both are broken. One that does not answer must
//! not keep the others from being reached.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oxibot_proto::codec::{self, Decoder};
use oxibot_proto::message::{ToMain, ToToolhost};

use crate::broker::greet_within;
use crate::cli::Global;

use super::service;

/// How long one toolhost may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sockets of the toolhosts a command is meant for: the service's, or those below a home.
pub(super) fn sockets(global: &Global, home: &Path) -> Vec<PathBuf> {
    match service::control(global) {
        Some(control) => vec![control],
        None => below(home),
    }
}

/// In order of their names.
pub(super) fn below(home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(home.join("run")) else { return Vec::new() };
    let mut sockets: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}

/// Asks one toolhost one thing. `None` when nobody listens there any more.
pub(super) fn ask<T>(
    path: &Path,
    request: &ToToolhost,
    wanted: impl FnOnce(ToMain) -> Result<T, ToMain>,
) -> io::Result<Option<T>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let greeted = greet_within(stream.try_clone()?, PATIENCE).map_err(other)?;
    let request = codec::frame(request).map_err(other)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&request)?;
    let answer = answer(&mut stream)?;
    drop(greeted);
    wanted(answer).map(Some).map_err(|answer| io::Error::other(format!("it answered {}", answer.name())))
}

fn answer(stream: &mut UnixStream) -> io::Result<ToMain> {
    let begun = Instant::now();
    let mut decoder = Decoder::<ToMain>::new();
    let mut piece = [0_u8; 4096];
    loop {
        if let Some(message) = decoder.next_message().map_err(other)? {
            return Ok(message);
        }
        let left = PATIENCE.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => decoder.push(piece.get(..read).unwrap_or_default()),
        }
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
