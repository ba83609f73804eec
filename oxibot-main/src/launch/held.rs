//! Secrets of the environment, taken out of it.
//!
//! The strings a process is started with stay in its memory and in `/proc/PID/environ`, whatever it does to its variables,
//! and only unsafe code could overwrite them. So a process that finds a secret among them writes it to a file in memory
//! that has no name, and executes itself once more without it. The launcher passes it on to main the same way. Nobody else
//! inherits that file: it is closed before anything but main is started.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};

use super::LaunchError;
use crate::config::Environment;

/// Names the descriptor in whose file they are.
const VARIABLE: &str = "_OXIBOT_HELD";
/// Name of the file, which shows in `/proc/PID/fd` only.
const NAME: &str = "oxibot-held";

/// First thing after memory was hidden: what a former self left is taken up, and what is in the environment leaves it.
/// Returns only if nothing is left there.
///
/// # Errors
/// When the file cannot be made or read, or this program cannot be executed again.
pub fn hold_secrets() -> Result<(), LaunchError> {
    let step = "take secrets out of the environment";
    if let Some(found) = left_behind().map_err(LaunchError::system(step))? {
        Environment::hold(found);
    }
    let environment = Environment::of_process();
    let names = environment.secrets();
    let secrets: Vec<(OsString, OsString)> =
        names.into_iter().filter_map(|name| std::env::var_os(&name).map(|value| (name, value))).collect();
    if secrets.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new("/proc/self/exe");
    again.arg0(arguments.next().unwrap_or_else(|| "oxibot".into())).args(arguments);
    let _kept = give(&mut again, &secrets).map_err(LaunchError::system(step))?;
    Err(LaunchError::system(step)(again.exec()))
}

/// Gives main what this process holds. What is returned must live until main was started, and no longer.
pub(super) fn pass_on(main: &mut Command) -> io::Result<Option<OwnedFd>> {
    match Environment::held() {
        [] => {
            main.env_remove(VARIABLE);
            Ok(None)
        }
        held => give(main, held).map(Some),
    }
}

fn give(command: &mut Command, secrets: &[(OsString, OsString)]) -> io::Result<OwnedFd> {
    let file = memfd_create(NAME, MemfdFlags::empty())?;
    let mut writing = File::from(file);
    for (name, value) in secrets {
        command.env_remove(name);
        for part in [name.as_bytes(), b"=", value.as_bytes(), b"\0"] {
            writing.write_all(part)?;
        }
    }
    command.env(VARIABLE, writing.as_raw_fd().to_string());
    Ok(OwnedFd::from(writing))
}

/// What the process before us left, if it did. A number that stands for anything else is somebody's mistake.
fn left_behind() -> io::Result<Option<Vec<(OsString, OsString)>>> {
    let Some(number) =
        std::env::var(VARIABLE).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
    else {
        return Ok(None);
    };
    let path = format!("/proc/self/fd/{number}");
    let ours = std::fs::read_link(&path).is_ok_and(|target| {
        target.to_str().is_some_and(|target| target.starts_with(&format!("/memfd:{NAME}")))
    });
    if !ours {
        return Ok(None);
    }
    std::fs::read(path).map(|bytes| Some(pairs(&bytes)))
}

fn pairs(bytes: &[u8]) -> Vec<(OsString, OsString)> {
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((text(pair.get(..at)?), text(pair.get(at + 1..)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_what_is_taken() {
        let secrets =
            [("OXIBOT_A__KEY", "s=e\ncret"), ("OXIBOT_B__TOKEN", "")].map(|(n, v)| (n.into(), v.into()));
        let mut command = Command::new("true");
        let file = give(&mut command, &secrets).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(pairs(&std::fs::read(path).unwrap()), secrets);
        let set: Vec<_> = command.get_envs().filter(|(_, value)| value.is_some()).collect();
        assert_eq!(set.len(), 1, "only the number is in the environment: {set:?}");
    }
}
