//! The attack corpus: what a hostile program would try, and what would show from outside that it worked.
//!
//! One table of [`Attack`]s for each class lives in `tests/tests/attacks_*.rs`; [`crate::corpus!`] turns a table into
//! tests, one for each [`run::Mode`]:
//!
//! | mode | where the program runs | what must be true |
//! |---|---|---|
//! | `control_as_root`, `control_as_user` | without any wall | it works: the named witness is seen, else the attack is broken |
//! | `full_as_root`, `full_as_user` | `oxibot sandbox run` at level `full` | no witness of any kind |
//! | `kernel_as_root`, `kernel_as_user` | the same where user namespaces are refused | none outside the attack's named [`Gap`] |
//! | `tool_call`, `tool_call_as_user` | tool `bash`, all attacks in one long-lived toolhost | no witness, and the toolhost answers the next call |
//!
//! How an attack is judged:
//! - It is never believed where the outside can be looked at. Each attack is given the same prepared surroundings
//!   ([`stage::Stage`]: secrets, files, listeners, a victim process) and after each run ALL of them are examined, not only
//!   the one it aims at. Its own word ([`THROUGH`]) counts only against the wall.
//! - It must have begun: a program that could not even start proves nothing, so each prints [`BEGUN`] first.
//! - Afterwards nothing may be left: processes, mounts, cgroups, System V objects, names in shared directories
//!   ([`remains`]).
//! - What the kernel here does not have is skipped by name, see [`crate::fixture::skip`].
//!
//! Adding one: write the program with the placeholders of [`stage::Stage::fill`], name the witness, run the control.
//! Text only; no I/O here.

use oxibot_proto::message::Level;

pub mod judge;
pub mod listeners;
pub mod remains;
pub mod run;
pub mod stage;

/// First line every program prints.
pub const BEGUN: &str = "attack-begins";
/// What a program prints when it got what it wanted.
pub const THROUGH: &str = "GOT-THROUGH";

/// In what an attack is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// bash.
    Bash(&'static str),
    /// python3, with [`PRELUDE`] before it.
    Python(&'static str),
    /// perl.
    Perl(&'static str),
}

/// What every Python attack may use: `libc` with `errno`, `call(number, ...)` which returns `(result, errno)`, `through()`.
pub const PRELUDE: &str = r"
import ctypes, os, sys, socket, struct, time, signal, errno as E, fcntl, subprocess
print('attack-begins', flush=True)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    words = [a if isinstance(a, (bytes, type(None))) or hasattr(a, '_objects') or type(a).__name__ == 'CArgObject' else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return result, ctypes.get_errno()
def through(*why):
    print('GOT-THROUGH', *why, flush=True)
def tried(function, *arguments, **named):
    try: return function(*arguments, **named)
    except Exception as error: print(type(error).__name__, error, flush=True)
";

/// What shows that an attack worked. Each is looked for after every attack; the control must show the named one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// A secret in the output that only reading what it should not could have put there.
    Leak,
    /// A file outside the workspace changed, appeared or vanished.
    Change,
    /// A listener outside was reached.
    Contact,
    /// The victim process ended, stopped, or runs under other limits.
    Harm,
    /// A process was still there after the call.
    Survivor,
    /// The program said so.
    Word,
    /// It took more than its limits allow, see [`Attack::bound`].
    Excess,
}

/// What level `kernel` is known not to stop (and says so in the design and in `doctor`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// chmod, chown, utime, xattr on files of the same user.
    FileMetadata,
    /// Locks on files of the same user.
    Locks,
    /// Metadata of all paths: existence, size, times.
    PathMetadata,
    /// The list of processes and their command lines.
    ProcessList,
    /// What `/proc` lists for the whole machine besides processes: sockets (`/proc/net`), System V objects
    /// (`/proc/sysvipc`). Landlock cannot take a part of `/proc` out.
    MachineLists,
    /// `/tmp` is a directory of the machine's, not a file system of its own size.
    NoPrivateTmp,
    /// Where no cgroup is delegated (an ordinary user without systemd), memory is bounded by process, at every level.
    NoCgroup,
    /// Signals to processes of the same user, and by them which process numbers are in use, at level `reduced` only: before
    /// Landlock ABI 6 they have no scope, and a filter knows numbers but not whose they are.
    Signals,
}

impl Gap {
    /// Whether a call by that caller at that level has it.
    #[must_use]
    pub const fn open(self, caller: Caller, level: Level) -> bool {
        match self {
            Self::Signals => matches!(level, Level::Reduced),
            Self::FileMetadata
            | Self::Locks
            | Self::PathMetadata
            | Self::ProcessList
            | Self::MachineLists
            | Self::NoPrivateTmp => matches!(level, Level::Kernel | Level::Reduced),
            Self::NoCgroup => matches!(caller, Caller::Ordinary),
        }
    }
}

/// By whom a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// root.
    Root,
    /// Anybody else.
    Ordinary,
}

/// What an attack took, for [`Attack::bound`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Most processes and threads at one time.
    pub tasks: usize,
    /// Most resident memory of all of them together, in MiB.
    pub resident_mb: u64,
    /// Growth of the workspace, in MiB of blocks.
    pub workspace_mb: u64,
    /// Files made in the workspace.
    pub files: usize,
    /// Output, in bytes.
    pub output: usize,
    /// From start to end, in milliseconds.
    pub milliseconds: u128,
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Stable name.
    pub id: &'static str,
    /// What its failure proves.
    pub proves: &'static str,
    /// What runs.
    pub program: Program,
    /// What the control must show.
    pub witness: Witness,
    /// What level `kernel` does not stop.
    pub gap: Option<Gap>,
    /// Works without the wall only for root: no control as an ordinary user.
    pub root: bool,
    /// Not run without the wall at all, because that would hurt the machine; another attack's control covers it.
    pub no_control: Option<&'static str>,
    /// Deadline of the call in seconds.
    pub seconds: u32,
    /// When what it took is too much.
    pub bound: Option<fn(&Taken) -> bool>,
    /// Prepared in the workspace before the call, as bash, as the user of the call, without the wall.
    pub before: &'static str,
    /// Run in the workspace after the call, as bash, without the wall, the way a careless user would: what it prints
    /// counts as the program's output.
    pub after: &'static str,
}

/// An attack with the usual settings.
#[must_use]
pub const fn attack(id: &'static str, proves: &'static str, program: Program, witness: Witness) -> Attack {
    Attack {
        id,
        proves,
        program,
        witness,
        gap: None,
        root: false,
        no_control: None,
        seconds: 10,
        bound: None,
        before: "",
        after: "",
    }
}

impl Attack {
    /// Names what level `kernel` does not stop.
    #[must_use]
    pub const fn gap(mut self, gap: Gap) -> Self {
        self.gap = Some(gap);
        self
    }

    /// Its control needs root.
    #[must_use]
    pub const fn root(mut self) -> Self {
        self.root = true;
        self
    }

    /// It is never run without the wall; `why` says what shows that it would work.
    #[must_use]
    pub const fn no_control(mut self, why: &'static str) -> Self {
        self.no_control = Some(why);
        self
    }

    /// Another deadline.
    #[must_use]
    pub const fn seconds(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    /// When what it took is too much.
    #[must_use]
    pub const fn bound(mut self, bound: fn(&Taken) -> bool) -> Self {
        self.bound = Some(bound);
        self
    }

    /// Prepared in the workspace before the call.
    #[must_use]
    pub const fn before(mut self, script: &'static str) -> Self {
        self.before = script;
        self
    }

    /// Run in the workspace after the call, without the wall.
    #[must_use]
    pub const fn after(mut self, script: &'static str) -> Self {
        self.after = script;
        self
    }
}

/// Makes one test for each mode of a table: `corpus!(ATTACKS)` or `corpus!(ATTACKS, CONFIGURATION)`.
#[macro_export]
macro_rules! corpus {
    ($table:expr) => {
        $crate::corpus!($table, "{}");
    };
    ($table:expr, $configuration:expr) => {
        $crate::corpus!(@modes $table, $configuration,
            control_as_root ControlRoot, control_as_user ControlUser,
            full_as_root FullRoot, full_as_user FullUser,
            kernel_as_root KernelRoot, kernel_as_user KernelUser,
            tool_call ToolCall, tool_call_as_user ToolCallUser);
    };
    (@modes $table:expr, $configuration:expr, $($name:ident $mode:ident),*) => {
        $(
            #[test]
            fn $name() {
                $crate::corpus::judge::judge($table, $configuration, $crate::corpus::run::Mode::$mode);
            }
        )*

        #[test]
        fn every_id_is_used_once() {
            let mut ids: Vec<&str> = $table.iter().map(|attack| attack.id).collect();
            ids.sort_unstable();
            let count = ids.len();
            ids.dedup();
            assert_eq!(ids.len(), count);
        }
    };
}
