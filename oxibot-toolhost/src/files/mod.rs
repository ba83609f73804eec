//! The files worker: `oxibot-toolhost files`. Reads, writes, edits, lists and searches below one directory handle.
//!
//! Started by the zygote inside the view of its workspace, with descriptor 0 the control socket, 2 standard error and
//! 3 the workspace. It confines itself before the first request ([`confine`]) and refuses to serve when that cannot be
//! verified. It knows no policy, runs nothing, has no network, and needs no path outside the workspace, not even
//! `/proc`. One request is served at a time; the supervisor starts a second worker where that would make others wait.
//!
//! Arguments: `--workspace PATH` (where the directory is, to recognise absolute paths; never opened),
//! `--landlock-abi N` or `--unconfined`, `--protect NAME` for each guarded name, and `--put-back` where no mount makes these
//! read-only, so that what a call does to them has to be undone.
//!
//! Reading order: [`serve`], [`workspace`] (how a path becomes a file), then one file an operation.

mod confine;
mod edit;
mod fault;
mod gitconfig;
mod gitfiles;
mod gitguard;
mod githooks;
mod gitignore;
mod gitimpostor;
mod gitnested;
mod nameguard;
mod read;
mod reinstate;
mod search;
mod serve;
mod spill;
mod text;
mod transfer;
mod tree;
mod walk;
mod workspace;
mod write;

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use confine::Wall;
use nix::sys::stat::{Mode, umask};
use workspace::Workspace;

use crate::sys;

/// Descriptor of the control socket.
const SOCKET: i32 = 0;
/// Descriptor of the workspace directory.
const DIRECTORY: i32 = 3;

/// As for a call: what a tool writes and what a command writes can be read alike. Who started us may have kept a
/// stricter one for its own files.
const UMASK: u32 = 0o022;

/// Exit status for arguments that are not ours.
const EXIT_USAGE: u8 = 2;
/// Exit status when confinement or the socket failed.
const EXIT_INTERNAL: u8 = 70;

/// Runs the worker until its control socket is closed. For the start of a process: takes descriptors 0 and 3, closes
/// those above, and confines the process for good.
#[must_use]
pub fn role() -> ExitCode {
    let status = match Options::parse(std::env::args_os().skip(2)) {
        Ok(options) => run(options),
        Err(why) => Err((EXIT_USAGE, why)),
    };
    match status {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, why)) => {
            // Nobody may be listening; the exit status says it too.
            let _ = writeln!(std::io::stderr().lock(), "oxibot-toolhost files: {why}");
            ExitCode::from(status)
        }
    }
}

fn run(options: Options) -> Result<(), (u8, String)> {
    let internal = |why: String| (EXIT_INTERNAL, why);
    sys::close_from(DIRECTORY.unsigned_abs().saturating_add(1))
        .map_err(|errno| internal(format!("cannot close descriptors: {errno}")))?;
    let (Some(socket), Some(directory)) = (sys::take_inherited(SOCKET), sys::take_inherited(DIRECTORY))
    else {
        return Err((EXIT_USAGE, "descriptors 0 (socket) and 3 (workspace) must be open".into()));
    };
    umask(Mode::from_bits_truncate(UMASK));
    let confined = confine::confine(directory.as_fd(), options.wall, options.put_back)
        .map_err(|error| internal(error.to_string()))?;
    let guarded = if options.put_back { options.protect.clone() } else { Vec::new() };
    let workspace = Workspace::new(directory, options.workspace, options.protect);
    serve::serve(confined, socket, workspace, &guarded).map_err(|error| internal(error.to_string()))
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    workspace: PathBuf,
    wall: Wall,
    protect: Vec<PathBuf>,
    put_back: bool,
}

impl Options {
    /// There is no default wall: who starts a worker says which one it must have.
    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = arguments;
        let (mut workspace, mut wall, mut protect, mut put_back) = (None, None, Vec::new(), false);
        while let Some(argument) = arguments.next() {
            let name = argument.to_string_lossy().into_owned();
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--workspace" => workspace = Some(PathBuf::from(value()?)),
                "--protect" => protect.push(PathBuf::from(value()?)),
                "--landlock-abi" if wall.is_none() => {
                    let landlock_abi = value()?
                        .to_str()
                        .and_then(|number| number.parse::<u8>().ok())
                        .ok_or("--landlock-abi needs a small number")?;
                    wall = Some(Wall::Kernel { landlock_abi: landlock_abi.into() });
                }
                "--put-back" => put_back = true,
                "--unconfined" if wall.is_none() => wall = Some(Wall::None),
                _ => return Err(format!("unexpected argument {name}")),
            }
        }
        Ok(Self {
            workspace: workspace.filter(|path| path.is_absolute()).ok_or("--workspace PATH is needed")?,
            wall: wall.ok_or("one of --landlock-abi N and --unconfined is needed")?,
            protect,
            put_back,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn wall_must_be_chosen_once() {
        let options = parse(&["--workspace", "/w", "--landlock-abi", "7", "--protect", ".envrc"]).unwrap();
        assert_eq!(options.wall, Wall::Kernel { landlock_abi: 7 });
        assert_eq!(options.protect, [PathBuf::from(".envrc")]);
        assert!(!options.put_back);
        assert!(parse(&["--workspace", "/w", "--unconfined", "--put-back"]).unwrap().put_back);
        assert_eq!(parse(&["--workspace", "/w", "--unconfined"]).unwrap().wall, Wall::None);
        for bad in [
            &["--workspace", "/w"][..],
            &["--unconfined"],
            &["--workspace", "w", "--unconfined"],
            &["--workspace", "/w", "--unconfined", "--landlock-abi", "7"],
            &["--workspace", "/w", "--landlock-abi", "x"],
            &["--workspace", "/w", "--landlock-abi"],
            &["--workspace", "/w", "--unconfined", "--help"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
