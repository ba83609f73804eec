//! What a rule is, and what the table of rules says about one system call. Pure: no parsing, no BPF, no kernel.
//!
//! [`Table::judge`] is the meaning of the rules. The compiled programs are tested against it, and init uses it to find out
//! which rule refused a call it was notified of.

use std::collections::BTreeSet;

use crate::wall::orders::Plan;

/// Arguments a system call can have.
pub(in crate::wall) const ARGUMENTS: usize = 6;
/// What x32 adds to the numbers of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Where numbers and the architecture's own mark differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    Aarch64,
}

impl Architecture {
    /// By its name in Rust. `None` for one whose numbers are not in the table: a wall that misreads numbers is none.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_*`, as the kernel names it in `seccomp_data`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

/// Which filter a rule is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Installed once, holds for all below.
    Zygote,
    /// Installed by every payload.
    Payload,
    /// By payloads with namespaces.
    PayloadFull,
    /// By payloads without.
    PayloadBare,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// An exception from rules further down.
    Allow,
    /// This errno.
    Errno(i32),
    /// This errno, and init is told.
    Notify(i32),
    /// The process ends.
    Kill,
}

/// One value of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Fixed(u32),
    /// Any process above this call.
    Above,
    /// Any process group above this call, as `kill` takes it: negative.
    AboveGroups,
}

/// A comparison of the low 32 bits of one argument. The kernel ignores the rest of the arguments that rules look at
/// (CVE-2019-10063).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) mask: u32,
    pub(super) values: Vec<Value>,
    /// Matches when none of the values does.
    pub(super) negated: bool,
}

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selector {
    Foreign,
    X32,
    Newer(u32),
    /// A number of this architecture.
    Number(u32),
}

/// A rule applies where all conditions of one of its patterns match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) selectors: Vec<Selector>,
    pub(super) conditions: Vec<Condition>,
    /// Arguments that may be told: they are numbers, never pointers.
    pub(super) shown: BTreeSet<u8>,
}

/// What is told to the person whose program was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleText<'a> {
    /// What was tried, in the past tense and without a subject: `traced a process (ptrace)`.
    pub(crate) what: &'a str,
    /// Why it is refused.
    pub(crate) why: &'a str,
    /// What to do instead.
    pub(crate) instead: &'a str,
}

/// One reviewed rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) patterns: Vec<Pattern>,
    pub(super) place: Place,
    pub(super) action: Action,
    pub(super) comment: String,
    pub(super) what: String,
    pub(super) why: String,
    pub(super) instead: String,
}

impl Rule {
    pub(super) fn text(&self) -> RuleText<'_> {
        RuleText { what: &self.what, why: &self.why, instead: &self.instead }
    }
}

/// A program that is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wall) enum Filter {
    /// Of the zygote and everything below it.
    Zygote,
    /// Of payloads with namespaces of their own.
    Full,
    /// Of payloads without.
    Bare,
}

impl Filter {
    /// Of a payload. There is none at level `off`; asking for one gives the stricter.
    pub(in crate::wall) fn of_payload(plan: Plan) -> Self {
        match plan {
            Plan::Full => Self::Full,
            Plan::Bare | Plan::Off => Self::Bare,
        }
    }

    /// A filter of a payload says again what the zygote's says where that only notifies: there nobody listens, and of
    /// equal answers the kernel takes the newest filter's. What it answers with an errno outranks every notification
    /// and need not be said again. How the kernel was entered is looked at by each, because numbers mean nothing before.
    fn holds(self, rule: &Rule) -> bool {
        let enters = |pattern: &Pattern| {
            pattern.selectors.iter().any(|selector| !matches!(selector, Selector::Number(_)))
        };
        match (self, rule.place) {
            (Self::Zygote, Place::Zygote)
            | (Self::Full | Self::Bare, Place::Payload)
            | (Self::Full, Place::PayloadFull)
            | (Self::Bare, Place::PayloadBare) => true,
            (Self::Full | Self::Bare, Place::Zygote) => {
                matches!(rule.action, Action::Notify(_)) || rule.patterns.iter().any(enters)
            }
            (Self::Zygote, Place::Payload | Place::PayloadFull | Place::PayloadBare)
            | (Self::Full, Place::PayloadBare)
            | (Self::Bare, Place::PayloadFull) => false,
        }
    }
}

/// The processes above a call without a PID namespace, and their process groups.
#[derive(Debug, Clone, Default)]
pub(in crate::wall) struct Above {
    pub(in crate::wall) processes: Vec<i32>,
    pub(in crate::wall) groups: Vec<i32>,
}

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wall) struct Call {
    pub(in crate::wall) architecture: u32,
    pub(in crate::wall) number: u32,
    pub(in crate::wall) arguments: [u64; ARGUMENTS],
}

impl Condition {
    /// Its values, with the processes that are above this call.
    pub(super) fn values(&self, above: &Above) -> Vec<u32> {
        self.values
            .iter()
            .flat_map(|value| match value {
                Value::Fixed(value) => vec![*value],
                Value::Above => above.processes.iter().map(|pid| pid.cast_unsigned()).collect(),
                Value::AboveGroups => {
                    above.groups.iter().map(|group| group.wrapping_neg().cast_unsigned()).collect()
                }
            })
            .collect()
    }

    fn holds(&self, arguments: &[u64; ARGUMENTS], above: &Above) -> bool {
        let whole = arguments.get(usize::from(self.argument)).copied().unwrap_or_default();
        let low = u32::try_from(whole & u64::from(u32::MAX)).unwrap_or_default() & self.mask;
        self.values(above).contains(&low) != self.negated
    }
}

/// Every rule, for one architecture.
#[derive(Debug, Clone)]
pub(in crate::wall) struct Table {
    pub(super) architecture: Architecture,
    /// In the order in which they are tried.
    pub(super) rules: Vec<Rule>,
}

impl Table {
    pub(super) fn of(&self, filter: Filter) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| filter.holds(rule))
    }

    /// Highest number that is not newer than the list.
    pub(super) fn last_known(&self) -> Option<u32> {
        self.rules.iter().flat_map(|rule| &rule.patterns).flat_map(|pattern| &pattern.selectors).find_map(
            |selector| match selector {
                Selector::Newer(last) => Some(*last),
                Selector::Foreign | Selector::X32 | Selector::Number(_) => None,
            },
        )
    }

    /// The rule that decides about a call, with its pattern that matched. `None` where none does and it is allowed.
    pub(super) fn judge(&self, filter: Filter, call: &Call, above: &Above) -> Option<(&Rule, &Pattern)> {
        let entered = match call {
            _ if call.architecture != self.architecture.audit() => Some(Selector::Foreign),
            _ if call.number & X32_BIT != 0 => Some(Selector::X32),
            _ => self.last_known().filter(|last| call.number > *last).map(Selector::Newer),
        };
        let selector = entered.unwrap_or(Selector::Number(call.number));
        self.of(filter).flat_map(|rule| rule.patterns.iter().map(move |pattern| (rule, pattern))).find(
            |(_, pattern)| {
                pattern.selectors.contains(&selector)
                    && pattern.conditions.iter().all(|condition| condition.holds(&call.arguments, above))
            },
        )
    }
}
