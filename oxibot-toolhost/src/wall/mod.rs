//! The wall: what a tool call can do, enforced by the kernel.
//!
//! Four processes, each with less than the one before: the **nursery** (may still mount; started before the supervisor
//! shuts itself in), one **zygote** a workspace profile (builds the view once), one ready-made **init** a call (its own
//! PID, mount, network and IPC namespace, used once), and the **payload** (confined, verified, then the program).
//! The supervisor holds a [`Nursery`], asks it for [`Zygote`]s, and sends each [`crate::wire::Job`] straight to a
//! [`ReadyInit`]: the zygote never reads anything a model wrote.
//!
//! Reading order: [`payload`] is the security argument of one call from top to bottom, `verify` proves it took,
//! `init` prepares it, `zygote` and `view` build what it stands on, `nursery` and `handle` are the supervisor's side.
//! Nothing here judges whether a call should run, reads configuration, or looks at what a program printed.

pub mod attack;
mod cgroup;
mod channel;
mod children;
mod facts;
mod family;
mod fault;
mod foundation;
mod grants;
mod handle;
mod identity;
mod init;
mod keeper;
mod limits;
mod nursery;
mod orders;
mod outlet;
mod payload;
mod private;
mod privileges;
mod protections;
mod proxy;
mod refusals;
mod remedy;
mod ruleset;
mod running;
mod seccomp;
mod session;
mod sockets;
mod verify;
mod view;
mod zygote;

pub use crate::wire::WallFault;
pub use cgroup::Members;
pub use facts::view as facts;
pub(crate) use fault::Step;
pub use handle::{FilesWorker, ReadyInit, RunningInit, Zygote, ZygoteEvent};
pub use keeper::keeper_role;
pub use nursery::{Nursery, ShellReader, nursery_role};
pub use orders::OURSELVES;
pub(crate) use outlet::{Outlet, take_order, tell};
pub(crate) use proxy::PROXY_PORT;
pub(crate) use ruleset::SCOPES_ABI;
pub(crate) use seccomp::explain_rule;
pub use zygote::zygote_role;
