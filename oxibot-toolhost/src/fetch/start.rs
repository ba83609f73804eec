//! The start, in one fixed order: arguments, converters, what is read from files, the key, confinement, requests.
//!
//! The converters are made first, so that they never hold anything that follows. Files are read once: afterwards none
//! can be opened. The worker ends when it has been idle, so a change of name servers or authorities is noticed then.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::prctl;
use oxibot_toolhost::notify::Notify;
use oxibot_toolhost::sys;

use crate::confine::{self, Wall};
use crate::convert::Converters;
use crate::resolve::Resolver;
use crate::secret::Search;
use crate::{get, serve};

/// Exit status for arguments that are not ours, and for everything else that went wrong.
const EXIT_USAGE: u8 = 2;
const EXIT_INTERNAL: u8 = 70;

/// Runs the worker until its socket is closed, it has been idle, or it has served enough.
pub(crate) fn run() -> ExitCode {
    // A panic would print what a page made us say.
    std::panic::set_hook(Box::new(|_| {}));
    let served = Options::parse(std::env::args_os().skip(1))
        .map_err(|why| (EXIT_USAGE, why))
        .and_then(|options| work(&options).map_err(|why| (EXIT_INTERNAL, why)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, why)) => {
            // Nobody may be listening; the exit status says it too.
            let _ = writeln!(std::io::stderr().lock(), "oxibot-fetch: {why}");
            ExitCode::from(status)
        }
    }
}

fn work(options: &Options) -> Result<(), String> {
    let requests = inherited(options.socket)?;
    let key = options.key.map(inherited).transpose()?;
    let _ = prctl::set_name(c"oxibot-fetch");
    confine::limits().map_err(|error| error.to_string())?;
    let converters = Converters::start(options.wall).map_err(|error| error.to_string())?;

    let resolver = Resolver::from_system();
    let tls = get::tls_configuration()?;
    let search = match (key, options.accept) {
        (Some(key), _) => Search::peek(&key)?,
        (None, serve::Accept::Listening) => Search::of_service()?,
        (None, serve::Accept::Connected) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;

    let notify = match options.accept {
        serve::Accept::Listening => {
            Notify::of_service().map_err(|error| format!("cannot reach the service manager: {error}"))?
        }
        serve::Accept::Connected => Notify::default(),
    };

    let confined = confine::confine(options.wall).map_err(|error| error.to_string())?;
    let worker = serve::Worker::new(converters, resolver, Arc::new(tls), search);
    let reached = serve::Reached { socket: requests, accept: options.accept, notify };
    runtime.block_on(serve::serve(confined, reached, worker))
}

fn inherited(number: i32) -> Result<OwnedFd, String> {
    sys::take_inherited(number).ok_or_else(|| format!("descriptor {number} is not open"))
}

/// What it is started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    socket: i32,
    accept: serve::Accept,
    key: Option<i32>,
    wall: Wall,
}

/// First descriptor of socket activation (sd_listen_fds(3)).
const LISTEN_FDS_START: i32 = 3;

impl Options {
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments;
        let (mut socket, mut key, mut wall) = (None, None, Wall::Kernel);
        while let Some(argument) = arguments.next() {
            let name = argument.to_string_lossy().into_owned();
            let mut number = || {
                let value = arguments.next().and_then(|value| value.to_str()?.parse::<u8>().ok());
                value.map(i32::from).ok_or_else(|| format!("{name} needs a small number"))
            };
            match name.as_str() {
                "--socket-fd" => socket = Some(number()?),
                "--key-fd" => key = Some(number()?),
                "--unconfined" => wall = Wall::None,
                _ => return Err(format!("cannot accept argument {name:?}: not known")),
            }
        }
        let activated = std::env::var("LISTEN_FDS").is_ok_and(|count| count == "1")
            && std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        match socket {
            Some(socket) => Ok(Self { socket, accept: serve::Accept::Connected, key, wall }),
            None if activated => {
                Ok(Self { socket: LISTEN_FDS_START, accept: serve::Accept::Listening, key, wall })
            }
            None => Err("--socket-fd N or LISTEN_FDS=1 is needed".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn arguments_are_strict_and_the_wall_stands_unless_it_is_waived() {
        let options = parse("--socket-fd 0 --key-fd 1").unwrap();
        assert_eq!((options.socket, options.key, options.wall), (0, Some(1), Wall::Kernel));
        assert_eq!(parse("--socket-fd 0 --unconfined").unwrap().wall, Wall::None);
        for text in ["", "--key-fd 1", "--socket-fd", "--socket-fd x", "--socket-fd 0 --policy y"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
