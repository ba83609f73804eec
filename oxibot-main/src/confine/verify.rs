//! Trying what must fail. A rule that is in the code and not in the kernel is the usual way sandboxes are lost.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;

use super::{ConfineError, Network, Plan};

/// What has to be opened while it still can be.
pub(super) struct Probes {
    status: File,
}

impl Probes {
    pub(super) fn prepare() -> Result<Self, ConfineError> {
        // Outside of every rule; readable now, so that a refusal later is the rule's doing.
        File::open("/").map_err(ConfineError::step("open the root directory before confinement"))?;
        // `thread-self`: in a test the confined thread is not the first.
        let status = File::open("/proc/thread-self/status")
            .map_err(ConfineError::step("open the process status before confinement"))?;
        Ok(Self { status })
    }

    /// Tries each refusal that is said to hold.
    pub(super) fn verify(mut self, plan: &Plan, landlock: bool, seccomp: bool) -> Result<(), ConfineError> {
        let status = self.status()?;
        must(&status, "NoNewPrivs", "1")?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            must(&status, set, "0000000000000000")?;
        }
        if landlock {
            refused("opening a directory outside", &File::open("/"), &[libc::EACCES])?;
            for workspace in &plan.workspaces {
                refused("opening the workspace", &File::open(workspace), &[libc::EACCES, libc::ENOENT])?;
            }
        }
        if seccomp {
            must(&status, "Seccomp", "2")?;
            exec_is_refused()?;
            refused("making a Unix socket", &UnixDatagram::unbound(), &[libc::EPERM])?;
            if plan.network == Network::None {
                refused("making a socket", &TcpListener::bind(("127.0.0.1", 0)), &[libc::EPERM])?;
            }
        }
        Ok(())
    }

    fn status(&mut self) -> Result<String, ConfineError> {
        let mut text = String::new();
        self.status
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.status.read_to_string(&mut text))
            .map_err(ConfineError::step("read the process status"))?;
        Ok(text)
    }
}

/// Runs ourselves in our place: if that is not refused, the new image says so and ends (see `--confinement-broken`).
fn exec_is_refused() -> Result<(), ConfineError> {
    let program = CString::from(c"/proc/self/exe");
    let arguments = [CString::from(c"oxibot"), CString::from(c"--confinement-broken")];
    let environment: [CString; 0] = [];
    match nix::unistd::execve(&program, &arguments, &environment) {
        Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(ConfineError::Broken {
            what: format!("starting a program was refused for another reason than ours: {errno}"),
        }),
    }
}

fn refused<T>(what: &str, tried: &io::Result<T>, errnos: &[i32]) -> Result<(), ConfineError> {
    match tried {
        Ok(_) => Err(ConfineError::Broken { what: format!("{what} was not refused") }),
        Err(error) if error.raw_os_error().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
        Err(error) => Err(ConfineError::Broken {
            what: format!("{what} was refused for another reason than ours: {error}"),
        }),
    }
}

fn must(status: &str, key: &str, value: &str) -> Result<(), ConfineError> {
    let found = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim)
        .unwrap_or_default();
    if found == value {
        Ok(())
    } else {
        Err(ConfineError::Broken { what: format!("{key} is {found:?}, not {value}") })
    }
}
