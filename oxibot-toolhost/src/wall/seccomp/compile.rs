//! Rules into a program for the kernel's filter machine.
//!
//! The kernel runs the whole program once for each system call number when it is installed, to learn which numbers need
//! no filter, so what counts is the way to an answer: a balanced search over ranges of numbers with equal answers, and
//! only behind it the comparisons of arguments, which seccompiler makes. A list, as seccompiler writes for a whole
//! filter, costs some five instructions for each rule before the last number is decided.

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_USER_NOTIF};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter};

use super::rule::{Above, Action, Condition, Filter, Rule, Selector, Table, X32_BIT};
use crate::wall::fault::{Step, fault};
use crate::wire::WallFault;

const STEP: &str = "compile the seccomp filter";
/// The kernel's own limit (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;
// struct seccomp_data: the number at offset 0, the architecture at 4.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Whether refusals of a payload can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wall) enum Telling {
    /// The filter is installed with a listener, which init holds.
    Init,
    /// There is none to be had: notifying rules answer with their errno at once.
    Nobody,
}

/// What is answered for one number.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer<'a> {
    /// Always this.
    Always(u32),
    /// The first whose conditions hold, else it is allowed.
    ByArguments(Vec<(&'a [Condition], u32)>),
}

/// Compiles one filter. `above` matters to filters of payloads without namespaces only.
pub(in crate::wall) fn compile(
    table: &Table,
    filter: Filter,
    above: &Above,
    telling: Telling,
) -> Result<BpfProgram, WallFault> {
    let rules: Vec<&Rule> = table.of(filter).collect();
    let returned = |action| answer(filter, action, telling);
    let entered = |wanted: fn(&Selector) -> bool| {
        rules
            .iter()
            .find(|rule| rule.patterns.iter().any(|pattern| pattern.selectors.iter().any(wanted)))
            .map(|rule| returned(rule.action))
            .ok_or_else(|| fault(STEP, "no rule says what to do about other entries of the kernel"))
    };
    let foreign = entered(|selector| matches!(selector, Selector::Foreign))?;
    let newer = entered(|selector| matches!(selector, Selector::Newer(_)))?;
    let x32 = entered(|selector| matches!(selector, Selector::X32))?;
    let last = table.last_known().ok_or_else(|| fault(STEP, "no rule names the newest call"))?;
    if x32 != newer || last >= X32_BIT {
        return Err(fault(STEP, "numbers of x32 are newer numbers, and must be answered as these are"));
    }
    let mut program = vec![
        step(LOAD, 0, 0, ARCHITECTURE),
        step(JUMP_EQUAL, 1, 0, table.architecture.audit()),
        step(RETURN, 0, 0, foreign),
        step(LOAD, 0, 0, NUMBER),
        step(JUMP_GREATER, 0, 1, last),
        step(RETURN, 0, 0, newer),
    ];
    let mut ranges: Vec<(u32, Answer<'_>)> = Vec::new();
    for number in 0..=last {
        let answer = of_number(&rules, number, returned);
        if ranges.last().is_none_or(|(_, before)| *before != answer) {
            ranges.push((number, answer));
        }
    }
    let mut blocks: Vec<(&Answer<'_>, BpfProgram)> = Vec::new();
    for (_, answer) in &ranges {
        if let Answer::ByArguments(alternatives) = answer
            && !blocks.iter().any(|(known, _)| *known == answer)
        {
            blocks.push((answer, block(alternatives, above)?));
        }
    }
    let tree = search(&ranges)?;
    let mut starts = Vec::new();
    let mut next = tree.len();
    for (answer, block) in &blocks {
        starts.push((*answer, next));
        next = next.saturating_add(block.len());
    }
    for (at, node) in tree.iter().enumerate() {
        program.push(match node {
            Node::Step(step) => step.clone(),
            Node::To(answer) => {
                let (_, start) = starts
                    .iter()
                    .find(|(known, _)| known == answer)
                    .ok_or_else(|| fault(STEP, "a comparison of arguments was lost"))?;
                let after = at.saturating_add(1);
                jump(start.checked_sub(after).ok_or_else(|| fault(STEP, "a jump goes backwards"))?)?
            }
        });
    }
    program.extend(blocks.into_iter().flat_map(|(_, block)| block));
    check(&program)?;
    Ok(program)
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn jump(over: usize) -> Result<sock_filter, WallFault> {
    Ok(step(JUMP, 0, 0, u32::try_from(over).step(STEP)?))
}

/// What the kernel is told for an action. A notification that nobody listens to answers ENOSYS, which is what processes
/// below the zygote that have no filter of a payload get.
fn answer(filter: Filter, action: Action, telling: Telling) -> u32 {
    let errno = |errno: i32| SECCOMP_RET_ERRNO | errno.cast_unsigned();
    match (action, filter, telling) {
        (Action::Allow, _, _) => SECCOMP_RET_ALLOW,
        (Action::Kill, _, _) => SECCOMP_RET_KILL_PROCESS,
        (Action::Notify(_), Filter::Zygote, _)
        | (Action::Notify(_), Filter::Full | Filter::Bare, Telling::Init) => SECCOMP_RET_USER_NOTIF,
        (Action::Errno(number), _, _)
        | (Action::Notify(number), Filter::Full | Filter::Bare, Telling::Nobody) => errno(number),
    }
}

fn of_number<'a>(rules: &[&'a Rule], number: u32, returned: impl Fn(Action) -> u32) -> Answer<'a> {
    let mut alternatives: Vec<(&[Condition], u32)> = Vec::new();
    let patterns =
        rules.iter().flat_map(|rule| rule.patterns.iter().map(move |pattern| (pattern, rule.action)));
    for (pattern, action) in patterns {
        if pattern.selectors.contains(&Selector::Number(number)) {
            alternatives.push((&pattern.conditions, returned(action)));
            if pattern.conditions.is_empty() {
                // Nothing gets past it.
                break;
            }
        }
    }
    match alternatives.as_slice() {
        [] => Answer::Always(SECCOMP_RET_ALLOW),
        [([], only)] => Answer::Always(*only),
        _ => Answer::ByArguments(alternatives),
    }
}

/// A step of the search, or a jump to a comparison of arguments whose place is not known yet.
#[derive(Debug, Clone)]
enum Node<'a> {
    Step(sock_filter),
    To(&'a Answer<'a>),
}

/// A balanced binary search; ranges are named by their first number.
fn search<'a>(ranges: &'a [(u32, Answer<'a>)]) -> Result<Vec<Node<'a>>, WallFault> {
    match ranges {
        [] => Err(fault(STEP, "it came out empty")),
        [(_, Answer::Always(answer))] => Ok(vec![Node::Step(step(RETURN, 0, 0, *answer))]),
        [(_, answer @ Answer::ByArguments(_))] => Ok(vec![Node::To(answer)]),
        // One number among others that are answered alike, as most rules are.
        [(_, around), (number, Answer::Always(inside)), (next, behind)]
            if around == behind && number.checked_add(1) == Some(*next) =>
        {
            let mut nodes =
                vec![Node::Step(step(JUMP_EQUAL, 0, 1, *number)), Node::Step(step(RETURN, 0, 0, *inside))];
            nodes.extend(search(ranges.get(..1).unwrap_or_default())?);
            Ok(nodes)
        }
        more => {
            let (low, high) = more.split_at(more.len() / 2);
            let first =
                high.first().map(|(first, _)| *first).ok_or_else(|| fault(STEP, "a range was lost"))?;
            let (low, high) = (search(low)?, search(high)?);
            let mut nodes = match u8::try_from(low.len()) {
                Ok(over) => vec![Node::Step(step(JUMP_NOT_LESS, over, 0, first))],
                // Conditional jumps reach 255 instructions; unconditional ones have no such limit.
                Err(_) => {
                    vec![Node::Step(step(JUMP_NOT_LESS, 0, 1, first)), Node::Step(jump(low.len())?)]
                }
            };
            nodes.extend(low);
            nodes.extend(high);
            Ok(nodes)
        }
    }
}

fn block(alternatives: &[(&[Condition], u32)], above: &Above) -> Result<BpfProgram, WallFault> {
    let mut program = BpfProgram::new();
    for (conditions, answer) in alternatives {
        program.extend(all_hold(conditions, *answer, above)?);
    }
    program.push(step(RETURN, 0, 0, SECCOMP_RET_ALLOW));
    Ok(program)
}

/// Returns `answer` where every condition holds, and goes on behind itself where one does not.
fn all_hold(conditions: &[Condition], answer: u32, above: &Above) -> Result<BpfProgram, WallFault> {
    let mut matched = vec![step(RETURN, 0, 0, answer)];
    for condition in conditions.iter().rev() {
        matched = holds(condition, matched, above)?;
    }
    Ok(matched)
}

/// Runs `matched` where a condition holds, and jumps over it where it does not.
fn holds(condition: &Condition, matched: BpfProgram, above: &Above) -> Result<BpfProgram, WallFault> {
    let values = condition.values(above);
    let tests = values.iter().map(|value| test(condition, *value)).collect::<Result<Vec<_>, _>>()?;
    let mut program = BpfProgram::new();
    if condition.negated {
        // Any of the values leads past the end.
        let mut left: usize = tests.iter().map(|test| test.len().saturating_add(1)).sum();
        for test in tests {
            left = left.saturating_sub(test.len().saturating_add(1));
            program.extend(test);
            program.push(jump(left.saturating_add(matched.len()))?);
        }
    } else {
        // Any of the values leads to `matched`, over the jump past its end.
        let mut left: usize = tests.iter().map(|test| test.len().saturating_add(1)).sum();
        for test in tests {
            left = left.saturating_sub(test.len().saturating_add(1));
            program.extend(test);
            program.push(jump(left.saturating_add(1))?);
        }
        program.push(jump(matched.len())?);
    }
    program.extend(matched);
    Ok(program)
}

/// seccompiler's comparison: goes on with the next instruction where it matches and with the one after it otherwise.
fn test(condition: &Condition, value: u32) -> Result<BpfProgram, WallFault> {
    let operator = match condition.mask {
        u32::MAX => SeccompCmpOp::Eq,
        mask => SeccompCmpOp::MaskedEq(u64::from(mask)),
    };
    let condition =
        SeccompCondition::new(condition.argument, SeccompCmpArgLen::Dword, operator, u64::from(value))
            .step(STEP)?;
    let mut test: BpfProgram = SeccompRule::new(vec![condition]).step(STEP)?.into();
    // Two jumps into and around it come first, which only longer chains of conditions need.
    match test.as_slice() {
        [into, around, ..] if into.code == JUMP && into.k == 1 && around.code == JUMP => {
            Ok(test.split_off(2))
        }
        _ => Ok(test),
    }
}

/// Every jump lands inside and the end is an answer. The kernel checks too, but says only EINVAL.
fn check(program: &[sock_filter]) -> Result<(), WallFault> {
    if program.len() > LONGEST {
        return Err(fault(STEP, format!("{} instructions are too many", program.len())));
    }
    for (at, step) in program.iter().enumerate() {
        let over = match step.code {
            JUMP => usize::try_from(step.k).step(STEP)?,
            JUMP_EQUAL | JUMP_GREATER | JUMP_NOT_LESS => usize::from(step.jt.max(step.jf)),
            _ => 0,
        };
        if step.code != RETURN && at.saturating_add(over).saturating_add(1) >= program.len() {
            return Err(fault(STEP, format!("instruction {at} leads past the end")));
        }
    }
    Ok(())
}
