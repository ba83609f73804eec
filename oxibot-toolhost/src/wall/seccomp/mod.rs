//! Which system calls no call may make: rules as data, compiled for the kernel, explained to people.
//!
//! The rules are in the `*.rules` files beside this one and are meant to be read by an administrator; [`rule`] says what
//! they mean, [`parse`] reads them, [`compile`] makes the kernel's programs of them. The big filter is installed once by
//! the zygote and inherited for free; the small one is installed by each payload after its last mount.
//!
//! A rule that notifies is in both. Below the zygote nobody listens, and the kernel answers ENOSYS: so inits and files
//! workers cannot make the call either. In a payload the newer filter's notification counts, init answers it with the
//! rule's errno, and the supervisor learns what was refused (see `super::refusals`). Were it an errno in the zygote's
//! filter, the kernel would rank that above the notification and nobody would learn.

mod compile;
#[cfg(test)]
mod cost;
#[cfg(test)]
mod execute;
#[cfg(test)]
mod interpret;
mod names;
mod parse;
mod rule;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use seccompiler::BpfProgram;

pub(super) use compile::Telling;
pub(crate) use rule::RuleText;
pub(super) use rule::{Above, Call};

use self::parse::Source;
use self::rule::{Action, Architecture, Filter, Table};
use super::fault::{Step, fault};
use super::orders::Plan;
use crate::sys;
use crate::wire::{Refusal, WallFault};

macro_rules! source {
    ($name:literal) => {
        Source { name: $name, text: include_str!($name) }
    };
}

/// In the order in which they are tried.
const SOURCES: &[Source] = &[
    source!("entry.rules"),
    source!("kernel.rules"),
    source!("processes.rules"),
    source!("mounts.rules"),
    source!("files.rules"),
    source!("sockets.rules"),
    source!("bare.rules"),
];
const NUMBERS: Source = source!("numbers.table");

fn table() -> Result<Table, WallFault> {
    let step = "read the system call rules";
    let architecture = Architecture::named(std::env::consts::ARCH)
        .ok_or_else(|| fault(step, format!("there are no numbers for {}", std::env::consts::ARCH)))?;
    parse::table(SOURCES, NUMBERS, architecture).step(step)
}

/// The big filter, installed by the zygote and inherited by everything below it.
pub(super) fn zygote_filter() -> Result<BpfProgram, WallFault> {
    compile::compile(&table()?, Filter::Zygote, &Above::default(), Telling::Init)
}

/// What the text of a rule says to the person whose program was refused. `None` for an id that is not a rule's.
pub(crate) fn explain_rule(id: &str) -> Option<RuleText<'static>> {
    static TABLE: OnceLock<Option<Table>> = OnceLock::new();
    let table = TABLE.get_or_init(|| table().ok()).as_ref()?;
    table.rules.iter().find(|rule| rule.id == id).map(rule::Rule::text)
}

/// The filter of a zygote's payloads, read and as far as possible compiled once.
#[derive(Debug)]
pub(super) struct PayloadFilter {
    table: Table,
    filter: Filter,
    /// The program, where it is the same for every call.
    compiled: Option<BpfProgram>,
}

impl PayloadFilter {
    pub(super) fn new(plan: Plan) -> Result<Self, WallFault> {
        let table = table()?;
        let filter = Filter::of_payload(plan);
        let compiled = match plan {
            Plan::Full => Some(compile::compile(&table, filter, &Above::default(), Telling::Init)?),
            Plan::Bare | Plan::Off => None,
        };
        Ok(Self { table, filter, compiled })
    }

    /// The program for one call. `above`: processes and process groups a call without a PID namespace must not signal.
    pub(super) fn program(&self, above: &Above, telling: Telling) -> Result<BpfProgram, WallFault> {
        match (&self.compiled, telling) {
            (Some(program), Telling::Init) => Ok(program.clone()),
            (Some(_) | None, Telling::Init | Telling::Nobody) => {
                compile::compile(&self.table, self.filter, above, telling)
            }
        }
    }

    /// What a call that the kernel notified us of is answered, and what may be told about it.
    pub(super) fn refusal(&self, call: &Call, above: &Above) -> (i32, Option<Refusal>) {
        let Some((rule, pattern)) = self.table.judge(self.filter, call, above) else {
            // Only a program that is not of this table could notify of it. Refuse, and invent no reason.
            return (libc::EPERM, None);
        };
        let errno = match rule.action {
            Action::Notify(errno) | Action::Errno(errno) => errno,
            Action::Kill | Action::Allow => libc::EPERM,
        };
        let mut arguments = [0; 3];
        for (index, (to, from)) in arguments.iter_mut().zip(call.arguments).enumerate() {
            if u8::try_from(index).is_ok_and(|index| pattern.shown.contains(&index)) {
                // What the rule compared, and what the kernel looks at.
                *to = from & u64::from(u32::MAX);
            }
        }
        (errno, Some(Refusal { rule: rule.id.clone(), arguments }))
    }
}

/// Installs the filter of a payload in this process. Returns the listener for its notifications, or none where another
/// program listens already; refused calls then answer at once and nobody is told.
pub(super) fn install(filter: &PayloadFilter, above: &Above) -> Result<Option<OwnedFd>, WallFault> {
    if let Ok(listener) = sys::install_filter_with_listener(&filter.program(above, Telling::Init)?) {
        return Ok(Some(listener));
    }
    // EBUSY: a listener above us, as container engines may have. EINVAL: a kernel before 5.0. Whatever it was, what holds
    // without a listener is installed or this fails: there is no way on without a filter.
    sys::install_filter(&filter.program(above, Telling::Nobody)?).step("install the seccomp filter")?;
    Ok(None)
}
