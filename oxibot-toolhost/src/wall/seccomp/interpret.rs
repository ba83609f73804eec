//! Runs a program as the kernel would: only the instructions that are ever written here.

use seccompiler::sock_filter;

use super::rule::Call;

/// The answer of a program to a call. Panics where a program is wrong: this is for tests.
pub(super) fn answer(program: &[sock_filter], call: &Call) -> u32 {
    let mut data = vec![call.number, call.architecture, 0, 0];
    for argument in call.arguments {
        data.push(u32::try_from(argument & 0xffff_ffff).unwrap());
        data.push(u32::try_from(argument >> 32).unwrap());
    }
    let (mut accumulator, mut at) = (0_u32, 0_usize);
    loop {
        let step = &program[at];
        at += 1;
        let mut branch = |taken: bool| at += usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = data[usize::try_from(step.k).unwrap() / 4],
            0x54 => accumulator &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => branch(accumulator == step.k),
            0x25 => branch(accumulator > step.k),
            0x35 => branch(accumulator >= step.k),
            0x06 => return step.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

/// Which of two answers of stacked filters counts: the kernel takes the lower action, compared as signed numbers.
pub(super) fn stronger(one: u32, other: u32) -> u32 {
    let action = |answer: u32| (answer & libc::SECCOMP_RET_ACTION_FULL).cast_signed();
    if action(one) <= action(other) { one } else { other }
}
