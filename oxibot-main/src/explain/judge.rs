//! From a complaint and the facts of a call to what was refused: the policy simulated on paths and addresses.
//!
//! It says nothing where the wall would have let the thing through: a file that is missing in the workspace is missing.

use oxibot_proto::view::{Network, Rest, Temporary, View};

use super::Guess;
use super::access::{Access, wanted};
use super::asked::Asked;
use super::cause::Cause;
use super::complaint::Complaint;
use super::network;
use super::place::{self, Place};
use super::rule::Rule;

/// What the wall refused, if that explains the complaint.
pub(super) fn judge(complaint: &Complaint, view: &View, asked: &Asked<'_>) -> Option<Guess> {
    if let Some(host) = &complaint.host {
        return connection(complaint.cause, host, view);
    }
    if let Some(rule) = machine(complaint, view, asked) {
        return Some(rule);
    }
    match complaint.cause {
        Cause::Missing | Cause::ReadOnly | Cause::Denied | Cause::CrossDevice | Cause::Busy => {
            paths(complaint, view, asked)
        }
        Cause::NotPermitted | Cause::Invalid => owner(complaint, view, asked),
        Cause::NoSpace => {
            let full = |path: &&str| place::of(&resolved(path, view), view) == Place::Temporary;
            // `error writing 'standard output'` names no path; the command does.
            let mut named = complaint.paths.iter().map(String::as_str).chain(asked.output());
            let path = named.find(full)?;
            Some(guess("write", &resolved(path, view), Rule::TmpSize))
        }
        Cause::NoMemory => Some(guess("allocate memory", "", Rule::Memory)),
        // A process, where fork says so; files and sockets answer the same when they would block.
        Cause::NoProcess => {
            let forks = ["fork", "thread", "clone", "vfork", "spawn"];
            let said = complaint.words.as_str();
            (complaint.phrase == "can't start new thread"
                || forks.iter().any(|word| said.contains(word))
                || said == "python")
                .then(|| guess("start a process", "", Rule::Processes))
        }
        Cause::TooManyFiles => Some(guess("open a file", "", Rule::OpenFiles)),
        Cause::TooLarge => Some(guess("write", "", Rule::FileSize)),
        Cause::CpuTime => Some(guess("compute", "", Rule::Cpu)),
        Cause::BadCall => Some(guess("run", "", Rule::SystemCalls)),
        Cause::Unresolved | Cause::Unreachable | Cause::Refused => None,
    }
}

fn guess(what: &'static str, path: &str, rule: Rule) -> Guess {
    Guess { what, path: path.to_owned(), rule }
}

fn connection(cause: Cause, host: &str, view: &View) -> Option<Guess> {
    let what = if cause == Cause::Unresolved { "look up" } else { "connect" };
    let own = match view.network {
        Network::Own | Network::Proxy => network::is_loopback(host),
        Network::None => false,
    };
    match (own, cause) {
        // Its own loopback answers everything else as it would anywhere.
        (true, Cause::Refused) => Some(guess(what, host, Rule::Loopback)),
        (true, _) => None,
        // Only a loopback refuses; who it was is not known.
        (false, Cause::Refused) if host.is_empty() => Some(guess(
            what,
            host,
            match view.network {
                Network::Own | Network::Proxy => Rule::Loopback,
                Network::None => Rule::Network,
            },
        )),
        (false, _) => Some(guess(what, host, Rule::Network)),
    }
}

/// Refusals that are about the machine and not about a path.
fn machine(complaint: &Complaint, view: &View, asked: &Asked<'_>) -> Option<Guess> {
    let words = complaint.words.as_str();
    let program = complaint.program.as_deref().unwrap_or_default();
    let denied = match complaint.cause {
        Cause::NotPermitted => true,
        Cause::Denied => matches!(program, "mount" | "nice" | "renice"),
        Cause::Missing
        | Cause::ReadOnly
        | Cause::CrossDevice
        | Cause::Busy
        | Cause::NoSpace
        | Cause::Invalid
        | Cause::NoMemory
        | Cause::NoProcess
        | Cause::TooManyFiles
        | Cause::TooLarge
        | Cause::CpuTime
        | Cause::BadCall
        | Cause::Unresolved
        | Cause::Unreachable
        | Cause::Refused => false,
    };
    if !denied {
        return None;
    }
    let told = |what, rule| Some(guess(what, "", rule));
    let path = || complaint.paths.first().map(|path| resolved(path, view)).unwrap_or_default();
    match program {
        "mount" | "umount" => return Some(guess("mount", &path(), Rule::Mount)),
        "chroot" => return told("change the root", Rule::Mount),
        "unshare" | "nsenter" => return told("make a namespace", Rule::Namespaces),
        "strace" | "ltrace" | "ptrace" => return told("trace a process", Rule::Ptrace),
        "dmesg" => return told("read the kernel log", Rule::Privileges),
        "date" | "hwclock" => return told("set the clock", Rule::Privileges),
        "hostname" => return told("set the host name", Rule::Privileges),
        "nice" | "renice" => return told("raise a priority", Rule::Privileges),
        "mknod" => return Some(guess("make a device", &path(), Rule::DeviceNode)),
        "socket" => return told("open a socket", Rule::Socket),
        "rtnetlink answers" => return told("change the network", Rule::Network),
        _ => {}
    }
    if words.contains("ptrace") {
        return told("trace a process", Rule::Ptrace);
    }
    if words.contains("kill: (") || program == "kill" {
        return told("signal a process", Rule::Signals);
    }
    if words.contains("ulimit") {
        return told("raise a limit", Rule::Limits);
    }
    if words.contains("netlink") {
        return told("open a socket", Rule::Socket);
    }
    if words == "python" && complaint.paths.is_empty() && asked.command.is_some_and(|c| c.contains(".kill("))
    {
        return told("signal a process", Rule::Signals);
    }
    if words == "python socket" && complaint.paths.is_empty() {
        return told("open a socket", Rule::Socket);
    }
    if words.ends_with("socket") {
        return told("open a socket", Rule::Socket);
    }
    let bits = program == "chmod" && asked.command.is_some_and(sets_id);
    if bits && words.contains("changing permissions") {
        return Some(guess("change", &path(), Rule::SetId));
    }
    None
}

/// Whether a `chmod` of the command asks for a set-ID bit.
fn sets_id(command: &str) -> bool {
    command.split(|c: char| c.is_whitespace() || ";&|\"'".contains(c)).any(|word| {
        let octal = word.len() == 4 && word.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let symbolic = word.split(',').any(|part| {
            part.split_once(['+', '='])
                .is_some_and(|(who, bits)| bits.contains('s') && who.bytes().all(|b| b"ugoa".contains(&b)))
        });
        symbolic || (octal && word.bytes().next().is_some_and(|b| b"24 67".contains(&b)))
    })
}

/// Owners: a call is one user.
fn owner(complaint: &Complaint, view: &View, asked: &Asked<'_>) -> Option<Guess> {
    let words = complaint.words.as_str();
    let path = complaint.paths.first()?;
    let python = words == "python" && asked.command.is_some_and(|command| command.contains("chown"));
    if python || ["changing ownership", "changing group", "chown"].iter().any(|said| words.contains(said)) {
        return Some(guess("change", &resolved(path, view), Rule::Identity));
    }
    // Files of others outside: chmod, utime.
    let outside = matches!(place::of(&resolved(path, view), view), Place::Outside | Place::Above);
    (complaint.cause == Cause::NotPermitted && outside).then(|| paths(complaint, view, asked)).flatten()
}

fn resolved(path: &str, view: &View) -> String {
    place::resolve(path, &place::resolve(&view.directory, &view.workspace))
}

/// The first path of a complaint that the wall explains.
fn paths(complaint: &Complaint, view: &View, asked: &Asked<'_>) -> Option<Guess> {
    // Of `'a' -> 'b'` it is the target that is refused, more often than not.
    let one = |path: &String| {
        let absolute = resolved(path, view);
        let access = wanted(complaint, path, asked);
        let rule = refused(complaint.cause, access, &absolute, view);
        if let Some(rule) = rule {
            return Some(described(access, absolute, rule, complaint.cause));
        }
        // Relative to where the command went, if what is here would not have been refused.
        let elsewhere =
            asked.went_to().filter(|_| !path.starts_with('/') && complaint.cause != Cause::Missing)?;
        let there = place::resolve(path, &resolved(elsewhere, view));
        let rule = refused(complaint.cause, access, &there, view)?;
        Some(described(access, there, rule, complaint.cause))
    };
    complaint.paths.iter().rev().find_map(one).or_else(|| astray(complaint, view, asked))
}

/// A file of the workspace is never on a read-only file system: a name relative to a guarded directory, or a link.
fn astray(complaint: &Complaint, view: &View, asked: &Asked<'_>) -> Option<Guess> {
    let path = resolved(complaint.paths.last()?, view);
    let here = complaint.cause == Cause::ReadOnly && place::of(&path, view) == Place::Inside;
    if !here || view.temporary != Temporary::Own {
        return None;
    }
    let guarded =
        view.guarded.iter().find(|name| asked.command.is_some_and(|text| text.contains(name.as_str())));
    Some(match guarded {
        Some(name) => guess("write", &place::resolve(name, &view.workspace), Rule::Protect),
        None => guess("write", &path, Rule::Link),
    })
}

fn described(access: Access, path: String, rule: Rule, cause: Cause) -> Guess {
    // These reasons, and this rule, are given for changes alone.
    let changed =
        matches!(cause, Cause::ReadOnly | Cause::Busy | Cause::CrossDevice) || rule == Rule::ReadOnly;
    let access = if changed && !access.changes() { Access::Write } else { access };
    let rule = match (rule, access) {
        (Rule::View, Access::Write | Access::Change) => Rule::ViewWrite,
        (Rule::View, Access::Connect) => Rule::Service,
        (rule, _) => rule,
    };
    Guess { what: access.name(), path, rule }
}

/// The rule that refuses `access` to an absolute path with this reason, if one does.
fn refused(cause: Cause, access: Access, path: &str, view: &View) -> Option<Rule> {
    let place = place::of(path, view);
    let mounts = view.temporary == Temporary::Own;
    match (cause, place) {
        (_, Place::Covered) => Some(Rule::Covered),
        (_, Place::Writable | Place::Device) => None,
        (_, Place::OtherDevice) => match (cause, mounts) {
            (Cause::Missing, false) => None,
            _ => Some(Rule::Devices),
        },
        // What is missing where everything is shown is missing.
        (Cause::Missing, place) => match (view.rest, place) {
            (Rest::Absent, Place::Outside | Place::Kernel) => Some(Rule::View),
            (Rest::Absent, Place::Above) if access.changes() => Some(Rule::View),
            (Rest::ReadOnly, Place::Kernel) => Some(Rule::View),
            (Rest::Absent | Rest::ReadOnly, Place::Temporary) if !access.changes() => Some(Rule::PrivateTmp),
            (Rest::Absent | Rest::ReadOnly, Place::Proc) if of_a_process(path) => Some(Rule::Proc),
            _ => None,
        },
        (Cause::ReadOnly, place) if mounts => match place {
            Place::Guarded | Place::Pinned => Some(Rule::Protect),
            Place::Readable => Some(Rule::ReadOnly),
            Place::Outside | Place::Above | Place::Kernel => Some(Rule::View),
            Place::Proc => Some(Rule::Proc),
            Place::Workspace
            | Place::Inside
            | Place::Temporary
            | Place::Writable
            | Place::Covered
            | Place::Device
            | Place::OtherDevice => None,
        },
        // No mount of ours is there.
        (Cause::ReadOnly, _) => None,
        (Cause::Denied | Cause::NotPermitted, place) => match place {
            Place::Outside | Place::Above => (view.rest != Rest::ReadOnly).then_some(Rule::View),
            Place::Kernel => Some(Rule::View),
            Place::Proc => of_a_process(path).then_some(Rule::Proc),
            Place::Temporary => (!mounts && !own_directory(path)).then_some(Rule::PrivateTmp),
            // What all may read is refused to who would change it: by its owner first, and by the wall if not. Of
            // `sandbox.read` its owner may refuse a part.
            Place::Readable => {
                let system = view.system.iter().any(|root| place::within(path, root));
                match access {
                    Access::Write | Access::Change => true,
                    Access::Open => !mounts || system,
                    Access::Read | Access::Execute | Access::Connect => false,
                }
                .then_some(Rule::ReadOnly)
            }
            Place::Workspace
            | Place::Inside
            | Place::Guarded
            | Place::Pinned
            | Place::Writable
            | Place::Covered
            | Place::Device
            | Place::OtherDevice => None,
        },
        (Cause::Busy, place) if mounts => match place {
            Place::Guarded | Place::Pinned => Some(Rule::Protect),
            Place::Workspace => Some(Rule::Workspace),
            Place::Inside
            | Place::Writable
            | Place::Readable
            | Place::Covered
            | Place::Temporary
            | Place::Proc
            | Place::Device
            | Place::OtherDevice
            | Place::Kernel
            | Place::Above
            | Place::Outside => None,
        },
        (Cause::CrossDevice, place) => match place {
            Place::Guarded | Place::Pinned => Some(Rule::Protect),
            Place::Temporary if mounts => Some(Rule::Apart),
            Place::Temporary => Some(Rule::PrivateTmp),
            Place::Readable => Some(Rule::ReadOnly),
            Place::Outside | Place::Above | Place::Kernel | Place::Proc => Some(Rule::View),
            Place::Workspace
            | Place::Inside
            | Place::Writable
            | Place::Covered
            | Place::Device
            | Place::OtherDevice => None,
        },
        (
            Cause::Busy
            | Cause::NoSpace
            | Cause::Invalid
            | Cause::NoMemory
            | Cause::NoProcess
            | Cause::TooManyFiles
            | Cause::TooLarge
            | Cause::CpuTime
            | Cause::BadCall
            | Cause::Unresolved
            | Cause::Unreachable
            | Cause::Refused,
            _,
        ) => None,
    }
}

/// `/proc/NUMBER/...` and kernel settings; what else is unreadable there is the kernel's own business.
fn of_a_process(path: &str) -> bool {
    let below = path.trim_start_matches("/proc").trim_start_matches('/');
    let first = below.split('/').next().unwrap_or_default();
    matches!(first, "sys" | "sysrq-trigger" | "kcore" | "kmsg")
        || (!first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The directory of a call without a `/tmp` of its own.
fn own_directory(path: &str) -> bool {
    path.starts_with("/tmp/oxibot-call-")
}
