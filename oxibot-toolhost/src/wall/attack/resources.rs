//! Attacks on limits: more of something than the call was given.
//!
//! They run with small limits, so that exceeding them costs the machine nothing; the number comes as a target.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use oxibot_proto::settings::Limits;

use super::answer::errno_of;
use super::{Answer, Target, Targets};
use crate::sys::{self, Cloned};

const MIB: u64 = 1 << 20;

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Processes of a call.
    Processes,
    /// Open files of a process.
    OpenFiles,
    /// Size of a file.
    FileSize,
    /// Address space of a process.
    Memory,
}

impl Bound {
    pub(super) fn target(self) -> Target {
        match self {
            Self::Processes => Target::Processes,
            Self::OpenFiles => Target::OpenFiles,
            Self::FileSize => Target::FileSizeMb,
            Self::Memory => Target::MemoryMb,
        }
    }

    /// The number tried against.
    pub(super) fn value(self) -> u32 {
        match self {
            Self::Processes => 16,
            Self::OpenFiles => 32,
            Self::FileSize => 1,
            Self::Memory => 192,
        }
    }

    pub(super) fn limits(self, limits: Limits) -> Limits {
        match self {
            Self::Processes => Limits { processes: self.value(), ..limits },
            Self::OpenFiles => Limits { open_files: self.value(), ..limits },
            Self::FileSize => Limits { file_size_mb: self.value(), ..limits },
            Self::Memory => Limits { memory_mb: self.value(), ..limits },
        }
    }
}

/// Exceeds it.
pub(super) fn attempt(bound: Bound, targets: &Targets) -> Answer {
    let Some(most) = targets.get(bound.target()).and_then(|value| value.parse::<u32>().ok()) else {
        return Answer::Skipped;
    };
    match bound {
        Bound::Processes => processes(most),
        Bound::OpenFiles => open_files(most),
        Bound::FileSize => file_size(u64::from(most)),
        Bound::Memory => memory(u64::from(most)),
    }
}

/// As many children at once, each of which ends with the call's namespace or by its own patience.
fn processes(most: u32) -> Answer {
    let mut children: Vec<OwnedFd> = Vec::new();
    // Without a PID namespace those who run beside it count too, so the bound is met early, never late.
    for _ in 0..=most {
        match sys::clone_process(0) {
            Ok(Cloned::Child) => {
                std::thread::sleep(std::time::Duration::from_secs(5));
                sys::exit_now(0)
            }
            Ok(Cloned::Parent { pid: _, pidfd }) => children.push(pidfd),
            Err(errno) => {
                end(&children);
                return Answer::of_call(Err(errno), &[Errno::EAGAIN]);
            }
        }
    }
    // Where the kernel does not count, somebody looks every few milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(300));
    end(&children);
    Answer::Broken
}

fn end(children: &[OwnedFd]) {
    use std::os::fd::AsFd;
    for child in children {
        let _ = sys::pidfd_send_signal(child.as_fd(), Signal::SIGKILL);
    }
}

fn open_files(most: u32) -> Answer {
    let mut open = Vec::new();
    for _ in 0..=most {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => return Answer::of_call(Err(errno_of(&error)), &[Errno::EMFILE]),
        }
    }
    Answer::Broken
}

/// In a child, because the kernel ends who exceeds it.
fn file_size(most_mb: u64) -> Answer {
    let path = scratch().join(format!(".oxibot-attack-size-{}", std::process::id()));
    let Ok(file) = File::create(&path) else { return Answer::Skipped };
    let answer = in_child(|| match file.set_len(most_mb.saturating_mul(MIB).saturating_add(1)) {
        Ok(()) => Answer::Broken,
        Err(error) => Answer::of_call(Err(errno_of(&error)), &[Errno::EFBIG]),
    });
    let _ = fs::remove_file(&path);
    answer
}

/// More than the private `/tmp` holds, in as few files as the limit on a file's size allows. Reserved, not written: what
/// is larger than the whole file system is refused before a page of it is touched.
pub(super) fn fill_tmp(targets: &Targets) -> Answer {
    let Some(most) = targets.get(Target::TmpMb).and_then(|value| value.parse::<u64>().ok()) else {
        return Answer::Skipped;
    };
    let directory = scratch().join(format!(".oxibot-attack-fill-{}", std::process::id()));
    if fs::create_dir(&directory).is_err() {
        return Answer::Skipped;
    }
    let wanted = most.saturating_add(1).saturating_mul(MIB);
    let piece = getrlimit(Resource::RLIMIT_FSIZE).map_or(MIB, |(soft, _)| soft.clamp(MIB, wanted));
    let length = i64::try_from(piece).unwrap_or(i64::MAX);
    let mut answer = Answer::Broken;
    for number in 0..wanted.div_ceil(piece) {
        let reserved = File::create(directory.join(number.to_string()))
            .map_err(|error| errno_of(&error))
            .and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, length));
        if let Err(errno) = reserved {
            answer = Answer::of_call(Err(errno), &[Errno::ENOSPC]);
            break;
        }
    }
    let _ = fs::remove_dir_all(&directory);
    answer
}

/// In a child, and touched, because a limit of the whole call counts only what is.
fn memory(most_mb: u64) -> Answer {
    let chunk = usize::try_from(MIB).unwrap_or(usize::MAX);
    in_child(|| {
        let mut held: Vec<Vec<u8>> = Vec::new();
        for _ in 0..=most_mb {
            let mut bytes: Vec<u8> = Vec::new();
            if bytes.try_reserve_exact(chunk).is_err() {
                return Answer::Held(Some(Errno::ENOMEM));
            }
            bytes.resize(chunk, 1);
            held.push(bytes);
        }
        Answer::Broken
    })
}

/// More than was left, given back by oneself.
pub(super) fn raise_limits(_: &Targets) -> Answer {
    let raised =
        [Resource::RLIMIT_NOFILE, Resource::RLIMIT_FSIZE, Resource::RLIMIT_CPU].into_iter().any(|kind| {
            let hard = getrlimit(kind).map_or(0, |(_, hard)| hard);
            hard < u64::MAX && setrlimit(kind, hard, hard.saturating_add(1)).is_ok()
        });
    if raised { Answer::Broken } else { Answer::Held(Some(Errno::EPERM)) }
}

/// A core file holds whatever a process knew.
pub(super) fn dump_core(_: &Targets) -> Answer {
    let directory = scratch();
    let answer = in_child(|| {
        let _ = std::env::set_current_dir(&directory);
        // Allowed only to somebody whom the limit does not bind.
        let _ = setrlimit(Resource::RLIMIT_CORE, u64::MAX, u64::MAX);
        let _ = nix::sys::signal::raise(Signal::SIGABRT);
        Answer::Skipped
    });
    if answer == Answer::Broken {
        let _ = fs::remove_file(directory.join("core"));
    }
    answer
}

fn scratch() -> std::path::PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| "/tmp".into(), std::path::PathBuf::from)
}

fn in_child(attack: impl FnOnce() -> Answer) -> Answer {
    match sys::clone_process(0) {
        Ok(Cloned::Child) => sys::exit_now(attack().status().into()),
        Ok(Cloned::Parent { pid, pidfd: _ }) => match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, status)) => Answer::from_status(status).unwrap_or(Answer::Broken),
            Ok(WaitStatus::Signaled(_, Signal::SIGXFSZ, _)) => Answer::Held(Some(Errno::EFBIG)),
            Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => Answer::Held(Some(Errno::ENOMEM)),
            Ok(WaitStatus::Signaled(_, Signal::SIGABRT, dumped)) => {
                if dumped {
                    Answer::Broken
                } else {
                    Answer::Held(None)
                }
            }
            Ok(_) | Err(_) => Answer::Skipped,
        },
        Err(_) => Answer::Skipped,
    }
}
