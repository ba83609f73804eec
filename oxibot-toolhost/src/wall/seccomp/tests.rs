//! The compiled programs say exactly what the rules say, and the rule files say only what can be meant.

use std::collections::BTreeSet;

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_USER_NOTIF};
use proptest::prelude::*;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use super::interpret::{answer, stronger};
use super::parse::{self, ParseError};
use super::rule::{Condition, Pattern, Place, Rule, Selector, X32_BIT};
use super::*;

const ARCHITECTURES: [Architecture; 2] = [Architecture::X86_64, Architecture::Aarch64];
const FILTERS: [Filter; 3] = [Filter::Zygote, Filter::Full, Filter::Bare];
const TELLINGS: [Telling; 2] = [Telling::Init, Telling::Nobody];
/// Beyond every number there is, and beyond the newest this list knows.
const NUMBERS_TRIED: u32 = 1024;

fn table_of(architecture: Architecture) -> Table {
    parse::table(SOURCES, NUMBERS, architecture).unwrap_or_else(|error| panic!("{error}"))
}

fn above() -> Above {
    Above { processes: vec![4711, 4712], groups: vec![4700] }
}

/// What the kernel must be told where this rule decides. Written apart from the compiler's own on purpose.
fn expected(filter: Filter, telling: Telling, rule: Option<&Rule>) -> u32 {
    let Some(rule) = rule else { return SECCOMP_RET_ALLOW };
    match rule.action {
        Action::Allow => SECCOMP_RET_ALLOW,
        Action::Kill => SECCOMP_RET_KILL_PROCESS,
        Action::Errno(errno) => SECCOMP_RET_ERRNO | errno.cast_unsigned(),
        Action::Notify(errno) if filter != Filter::Zygote && telling == Telling::Nobody => {
            SECCOMP_RET_ERRNO | errno.cast_unsigned()
        }
        Action::Notify(_) => SECCOMP_RET_USER_NOTIF,
    }
}

fn decider<'a>(table: &'a Table, filter: Filter, call: &Call) -> Option<&'a Rule> {
    table.judge(filter, call, &above()).map(|(rule, _)| rule)
}

/// Values worth trying against a condition: its own, their neighbours, each bit of its mask, and none.
fn candidates(condition: &Condition) -> Vec<u64> {
    let mut values: BTreeSet<u32> = BTreeSet::from([0, u32::MAX, !condition.mask]);
    for value in condition.values(&above()) {
        values.extend([value, value ^ 1, value | !condition.mask]);
    }
    if condition.mask != u32::MAX {
        values.extend((0..32).map(|bit| 1 << bit).filter(|bit| bit & condition.mask != 0));
    }
    let own = condition.values(&above()).into_iter().next().unwrap_or_default();
    // The kernel ignores the high half, so a filter must (CVE-2019-10063).
    values.into_iter().map(u64::from).chain([u64::from(own) | 0xdead_beef << 32]).collect()
}

/// Arguments for a pattern: every combination of the values worth trying.
fn arguments(pattern: &Pattern) -> Vec<[u64; rule::ARGUMENTS]> {
    let mut all = vec![[0; rule::ARGUMENTS], [u64::MAX; rule::ARGUMENTS]];
    let mut combined = vec![[0; rule::ARGUMENTS]];
    for condition in &pattern.conditions {
        combined = combined
            .iter()
            .flat_map(|arguments: &[u64; rule::ARGUMENTS]| {
                candidates(condition).into_iter().map(|value| {
                    let mut arguments = *arguments;
                    arguments[usize::from(condition.argument)] = value;
                    arguments
                })
            })
            .collect();
    }
    all.extend(combined);
    all
}

/// Every pattern that names a number.
fn patterns(table: &Table, number: u32) -> impl Iterator<Item = &Pattern> {
    table
        .rules
        .iter()
        .flat_map(|rule| &rule.patterns)
        .filter(move |pattern| pattern.selectors.contains(&Selector::Number(number)))
}

#[test]
fn every_number_is_answered_as_the_rules_say_with_every_argument_worth_trying() {
    for architecture in ARCHITECTURES {
        let table = table_of(architecture);
        for (filter, telling) in
            FILTERS.into_iter().flat_map(|filter| TELLINGS.map(|telling| (filter, telling)))
        {
            let program = compile::compile(&table, filter, &above(), telling).unwrap();
            let check = |call: Call| {
                let rule = decider(&table, filter, &call);
                let expected = expected(filter, telling, rule);
                let id = rule.map(|rule| rule.id.as_str());
                assert_eq!(answer(&program, &call), expected, "{filter:?} {telling:?} {call:?} {id:?}");
            };
            for number in 0..=NUMBERS_TRIED {
                let native = architecture.audit();
                let tried = patterns(&table, number).flat_map(arguments).chain([[0; 6], [u64::MAX; 6]]);
                for arguments in tried {
                    check(Call { architecture: native, number, arguments });
                }
                check(Call { architecture: native, number: number | X32_BIT, arguments: [0; 6] });
                for foreign in [0x4000_0003, 0x4000_0028, 0, ARCHITECTURES.map(Architecture::audit)[1]] {
                    check(Call { architecture: foreign, number, arguments: [0; 6] });
                }
            }
        }
    }
}

#[test]
fn foreign_entries_and_unknown_numbers_are_answered_in_every_filter() {
    // Literally, so that a changed rule file is noticed here.
    let table = table().unwrap();
    let native = table.architecture.audit();
    let absent = SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    for filter in FILTERS {
        let program = compile::compile(&table, filter, &above(), Telling::Init).unwrap();
        let number =
            |architecture, number| answer(&program, &Call { architecture, number, arguments: [0; 6] });
        assert_eq!(number(0x4000_0003, 20), SECCOMP_RET_KILL_PROCESS);
        assert_eq!(number(native, 39 | X32_BIT), absent);
        assert_eq!(number(native, 470), absent);
        assert_eq!(number(native, u32::MAX), absent);
        assert_eq!(number(native, 435), if filter == Filter::Zygote { absent } else { SECCOMP_RET_ALLOW });
        assert_eq!(number(native, 437), if filter == Filter::Zygote { SECCOMP_RET_ALLOW } else { absent });
    }
}

/// Calls for which a rule decides, and calls near them for which it does not.
fn matching(table: &Table, filter: Filter, rule: &Rule) -> (Vec<Call>, Vec<Call>) {
    let (mut decided, mut others) = (Vec::new(), Vec::new());
    for pattern in &rule.patterns {
        for selector in &pattern.selectors {
            let Selector::Number(number) = selector else { continue };
            for arguments in arguments(pattern) {
                let call = Call { architecture: table.architecture.audit(), number: *number, arguments };
                match decider(table, filter, &call) {
                    Some(decider) if decider.id == rule.id => decided.push(call),
                    Some(_) | None => others.push(call),
                }
            }
        }
    }
    (decided, others)
}

#[test]
fn every_rule_decides_some_call_and_leaves_its_neighbours_alone() {
    let table = table().unwrap();
    for filter in FILTERS {
        for rule in table.of(filter) {
            if rule.patterns.iter().any(|p| p.selectors.iter().any(|s| !matches!(s, Selector::Number(_)))) {
                continue;
            }
            let (decided, others) = matching(&table, filter, rule);
            // A rule of the zygote may stand behind a broader one of a payload.
            assert!(!decided.is_empty() || filter == Filter::Bare, "{} never decides in {filter:?}", rule.id);
            let unconditional = rule.patterns.iter().all(|pattern| pattern.conditions.is_empty());
            assert_eq!(others.is_empty(), unconditional && !decided.is_empty(), "{} in {filter:?}", rule.id);
        }
    }
}

/// The kernel runs both filters and takes the stronger answer.
#[test]
fn what_a_payload_is_refused_is_told_and_what_others_are_refused_stays_refused() {
    let table = table().unwrap();
    let zygote = compile::compile(&table, Filter::Zygote, &above(), Telling::Init).unwrap();
    for filter in [Filter::Full, Filter::Bare] {
        let told = compile::compile(&table, filter, &above(), Telling::Init).unwrap();
        let untold = compile::compile(&table, filter, &above(), Telling::Nobody).unwrap();
        for rule in table.rules.iter().filter(|rule| matches!(rule.action, Action::Notify(_))) {
            for call in matching(&table, filter, rule).0 {
                let (outer, inner) = (answer(&zygote, &call), answer(&told, &call));
                assert_eq!(inner, SECCOMP_RET_USER_NOTIF, "{} {call:?}", rule.id);
                // Of equal answers the newest filter's counts, and that one has the listener.
                assert_eq!(stronger(inner, outer), SECCOMP_RET_USER_NOTIF, "{} {call:?}", rule.id);
                let errno = SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
                assert_eq!(stronger(answer(&untold, &call), outer), errno, "{} {call:?}", rule.id);
                if rule.place == Place::Zygote {
                    assert_eq!(outer, SECCOMP_RET_USER_NOTIF, "without a payload's filter: ENOSYS");
                }
            }
        }
    }
}

#[test]
fn only_an_answer_that_notifies_is_asked_of_init() {
    // What init would be asked by accident (a hot call) would cost every program; these are made all the time.
    let table = table().unwrap();
    let program = compile::compile(&table, Filter::Full, &above(), Telling::Init).unwrap();
    let open = [0, 0, u64::from(libc::O_CREAT.cast_unsigned() | libc::O_WRONLY.cast_unsigned()), 0o666, 0, 0];
    for (number, arguments) in [
        (libc::SYS_openat, open),
        (libc::SYS_clone, [0x0100_0000 | 17, 0, 0, 0, 0, 0]),
        (libc::SYS_clone, [0x003d_0f00, 0, 0, 0, 0, 0]),
        (libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]),
        (libc::SYS_prctl, [15, 0, 0, 0, 0, 0]),
        (libc::SYS_socket, [1, 0o2_000_001, 0, 0, 0, 0]),
        (libc::SYS_socket, [16, 0o2_000_003, 0, 0, 0, 0]),
        (libc::SYS_socket, [10, 2, 17, 0, 0, 0]),
        (libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]),
        (libc::SYS_fchmodat, [0, 0, 0o755, 0, 0, 0]),
        (libc::SYS_mkdirat, [0, 0, 0o1777, 0, 0, 0]),
        (libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]),
        (libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]),
    ] {
        let call = Call {
            architecture: table.architecture.audit(),
            number: u32::try_from(number).unwrap(),
            arguments,
        };
        assert_eq!(answer(&program, &call), SECCOMP_RET_ALLOW, "{number} {arguments:?}");
    }
}

#[test]
fn programs_are_short_and_every_number_is_found_in_few_steps() {
    let table = table().unwrap();
    for filter in FILTERS {
        let program = compile::compile(&table, filter, &above(), Telling::Init).unwrap();
        assert!(program.len() < 700, "{filter:?}: {}", program.len());
        // Every conditional jump fits its eight bits by its type; what it reaches is inside, as `check` and this walk say.
        for number in 0..=NUMBERS_TRIED {
            let mut at = 0;
            let mut steps = 0;
            loop {
                let step = &program[at];
                steps += 1;
                let jump = match step.code {
                    0x15 if at == 1 => step.jt,
                    0x15 => {
                        if number == step.k {
                            step.jt
                        } else {
                            step.jf
                        }
                    }
                    0x25 => {
                        if number > step.k {
                            step.jt
                        } else {
                            step.jf
                        }
                    }
                    0x35 => {
                        if number >= step.k {
                            step.jt
                        } else {
                            step.jf
                        }
                    }
                    // An answer, or the jump to a comparison of arguments.
                    0x05 | 0x06 => break,
                    _ => 0,
                };
                at += 1 + usize::from(jump);
            }
            assert!(steps <= 16, "{filter:?}: {steps} steps for {number}");
        }
    }
}

/// Said a second time by hand, from the manual pages: a rule that looks at the wrong argument is noticed here.
#[test]
fn arguments_mean_what_the_manual_says() {
    const HERE: u64 = 0xffff_ff9c;
    const MAKE: u64 = 0o100 | 1;
    const ABOVE: u64 = 4711;
    let table = table().unwrap();
    let number = |number: libc::c_long| u32::try_from(number).unwrap();
    let mut said: Vec<(&str, u32, Vec<u64>, Vec<u64>)> = vec![
        ("processes.init", number(libc::SYS_prlimit64), vec![1, 9], vec![9, 1]),
        ("processes.init", number(libc::SYS_sched_setaffinity), vec![1, 8], vec![0, 1]),
        ("processes.init", number(libc::SYS_setpriority), vec![0, 1, 19], vec![1, 1, 19]),
        ("processes.init", number(libc::SYS_setpriority), vec![2, 0, 19], vec![0, 9, 2]),
        ("processes.init", number(libc::SYS_ioprio_set), vec![1, 1, 0], vec![2, 1, 0]),
        ("processes.init", number(libc::SYS_ioprio_set), vec![3, 0, 0], vec![1, 9, 3]),
        ("mounts.namespace-child", number(libc::SYS_clone), vec![0x1000_0011, 0], vec![0x11, 0x1000_0000]),
        ("mounts.namespace-child", number(libc::SYS_clone), vec![0x0002_0011], vec![0x0005_0f00]),
        ("processes.terminal", number(libc::SYS_ioctl), vec![0, 0x5412], vec![0x5412, 0x5413]),
        ("processes.terminal", number(libc::SYS_ioctl), vec![0, 0x541c, 0], vec![0, 0x5401, 0x541c]),
        ("processes.listener", number(libc::SYS_seccomp), vec![1, 8 | 1], vec![1 | 8, 1 | 2]),
        ("processes.loader", number(libc::SYS_prctl), vec![35], vec![38, 35]),
        ("kernel.personality", number(libc::SYS_personality), vec![0x0040_0000], vec![0x0004_0000]),
        ("kernel.personality", number(libc::SYS_personality), vec![0x0014_0000], vec![0xffff_ffff]),
        ("files.device", number(libc::SYS_mknodat), vec![HERE, 1, 0o020_600, 1], vec![HERE, 1, 0o010_600]),
        (
            "files.device",
            number(libc::SYS_mknodat),
            vec![HERE, 1, 0o060_600, 1],
            vec![HERE, 0o060_600, 0o600],
        ),
        ("files.set-id", number(libc::SYS_mknodat), vec![HERE, 1, 0o104_755], vec![HERE, 1, 0o100_755]),
        ("files.set-id", number(libc::SYS_mkdirat), vec![HERE, 1, 0o2755], vec![HERE, 0o2755, 0o1777]),
        ("files.set-id", number(libc::SYS_fchmod), vec![3, 0o4755], vec![0o4755, 0o755]),
        ("files.set-id", number(libc::SYS_fchmodat), vec![HERE, 1, 0o6755], vec![HERE, 0o6755, 0o755]),
        ("files.set-id", 452, vec![HERE, 1, 0o4755, 0], vec![HERE, 1, 0o755, 0o4755]),
        ("files.set-id", number(libc::SYS_openat), vec![HERE, 1, MAKE, 0o4755], vec![HERE, 1, MAKE, 0o755]),
        (
            "files.set-id",
            number(libc::SYS_openat),
            vec![HERE, 1, 0o20_200_002, 0o2755],
            vec![HERE, 1, 2, 0o2755],
        ),
        ("files.lease", number(libc::SYS_fcntl), vec![3, 1024, 1], vec![1024, 1025, 1024]),
        ("sockets.family", number(libc::SYS_socket), vec![40, 1], vec![1, 40]),
        ("sockets.family", number(libc::SYS_socket), vec![17, 3], vec![2, 17, 0]),
        ("sockets.family", number(libc::SYS_socket), vec![38, 5], vec![10, 2, 0]),
        ("sockets.raw", number(libc::SYS_socket), vec![2, 3, 1], vec![2, 2, 1]),
        ("sockets.raw", number(libc::SYS_socket), vec![10, 0x80003, 58], vec![1, 3, 0]),
        ("sockets.transport", number(libc::SYS_socket), vec![2, 1, 262], vec![2, 1, 6]),
        ("sockets.transport", number(libc::SYS_socket), vec![10, 5, 132], vec![10, 2, 17]),
        ("sockets.netlink", number(libc::SYS_socket), vec![16, 3, 12], vec![16, 3, 0]),
        ("sockets.pair-family", number(libc::SYS_socketpair), vec![30, 1], vec![1, 30]),
    ];
    #[cfg(target_arch = "x86_64")]
    said.extend([
        ("files.device", number(libc::SYS_mknod), vec![1, 0o020_600, 1], vec![0o020_600, 0o600, 0o020_600]),
        ("files.set-id", number(libc::SYS_mknod), vec![1, 0o104_755], vec![0o104_755, 0o100_755]),
        ("files.set-id", number(libc::SYS_chmod), vec![1, 0o4755], vec![0o4755, 0o755]),
        ("files.set-id", number(libc::SYS_creat), vec![1, 0o2755], vec![0o2755, 0o755]),
        ("files.set-id", number(libc::SYS_mkdir), vec![1, 0o2755], vec![0o2755, 0o755]),
        ("files.set-id", number(libc::SYS_open), vec![1, MAKE, 0o4755], vec![1, 0o4755 & !MAKE, 0o4755]),
    ]);
    let bare = [
        ("bare.signal", number(libc::SYS_kill), vec![ABOVE, 9], vec![9, ABOVE]),
        ("bare.signal", number(libc::SYS_tkill), vec![ABOVE, 9], vec![9, ABOVE]),
        ("bare.signal", number(libc::SYS_tgkill), vec![ABOVE, ABOVE, 9], vec![9, 9, ABOVE]),
        ("bare.signal", number(libc::SYS_rt_sigqueueinfo), vec![ABOVE, 9], vec![9, ABOVE]),
        ("bare.signal", number(libc::SYS_rt_tgsigqueueinfo), vec![ABOVE, 9, 9], vec![9, 9, ABOVE]),
        ("bare.signal", number(libc::SYS_pidfd_open), vec![ABOVE], vec![9, ABOVE]),
        ("bare.signal-by-owner", number(libc::SYS_fcntl), vec![3, 15, 0], vec![15, 3, 15]),
        ("bare.signal-by-owner", number(libc::SYS_fcntl), vec![3, 8, ABOVE], vec![3, 8, 9]),
        ("bare.signal-by-owner", number(libc::SYS_ioctl), vec![3, 0x8901], vec![3, 0x8903]),
        ("bare.empty", number(libc::SYS_openat), vec![HERE, 1, 0o1000], vec![HERE, 1, 0o1001]),
        ("bare.empty", number(libc::SYS_openat), vec![HERE, 1, 0o1003], vec![HERE, 1, 0o1002]),
        ("bare.others", number(libc::SYS_prlimit64), vec![9, 7], vec![0, 7]),
        ("bare.others", number(libc::SYS_sched_setattr), vec![9, 0], vec![0, 9]),
        ("bare.priority", number(libc::SYS_setpriority), vec![0, 9, 5], vec![0, 0, 5]),
        ("bare.priority", number(libc::SYS_setpriority), vec![2, 0, 5], vec![0, 0, 19]),
        ("bare.priority", number(libc::SYS_ioprio_set), vec![1, 9, 5], vec![1, 0, 5]),
        ("bare.priority", number(libc::SYS_ioprio_set), vec![3, 0, 5], vec![1, 0, 0]),
        ("sockets.unconnected-pair", number(libc::SYS_socketpair), vec![1, 2], vec![1, 5]),
        ("sockets.name-service", number(libc::SYS_socket), vec![1, 0x80801], vec![]),
    ];
    let both =
        said.iter().map(|said| (Filter::Full, said)).chain(bare.iter().map(|said| (Filter::Bare, said)));
    for (filter, (id, number, refused, allowed)) in both {
        let call = |given: &[u64]| {
            let mut arguments = [0; rule::ARGUMENTS];
            arguments[..given.len()].copy_from_slice(given);
            Call { architecture: table.architecture.audit(), number: *number, arguments }
        };
        let named = decider(&table, filter, &call(refused)).map(|rule| rule.id.as_str());
        assert_eq!(named, Some(*id), "{number} {refused:x?}");
        if !allowed.is_empty() {
            let named = decider(&table, filter, &call(allowed)).map(|rule| rule.id.as_str());
            assert_eq!(named, None, "{number} {allowed:x?}");
        }
    }
    let covered: BTreeSet<&str> = said.iter().chain(&bare).map(|said| said.0).collect();
    for rule in &table.rules {
        let by_argument = rule.patterns.iter().any(|pattern| !pattern.conditions.is_empty());
        assert!(!by_argument || covered.contains(rule.id.as_str()), "{} is not said here", rule.id);
    }
}

fn low(call: &mut Call, argument: u8) -> &mut u64 {
    &mut call.arguments[usize::from(argument)]
}

proptest! {
    /// Values near those of the rules, in any combination.
    #[test]
    fn any_call_is_answered_as_the_rules_say(
        number in 0_u32..520,
        arguments in proptest::array::uniform6(prop_oneof![0_u64..64, any::<u64>(), Just(0x5412), Just(0o4755), Just(4711)]),
    ) {
        let table = table().unwrap();
        let call = Call { architecture: table.architecture.audit(), number, arguments };
        for filter in FILTERS {
            let program = compile::compile(&table, filter, &above(), Telling::Init).unwrap();
            let rule = decider(&table, filter, &call);
            prop_assert_eq!(answer(&program, &call), expected(filter, Telling::Init, rule));
        }
    }
}

/// seccompiler's own compiler of whole filters, for the rules it can express, answers the same.
#[test]
fn seccompiler_compiles_a_filter_with_the_same_answers() {
    let table = table().unwrap();
    let native = table.architecture.audit();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    for rule in table.rules.iter().filter(|rule| matches!(rule.action, Action::Notify(_))) {
        for pattern in &rule.patterns {
            for selector in &pattern.selectors {
                let Selector::Number(number) = selector else { continue };
                let chain = match pattern.conditions.as_slice() {
                    [] => vec![],
                    [one] if !one.negated => one
                        .values(&above())
                        .into_iter()
                        .map(|value| {
                            let operator = seccompiler::SeccompCmpOp::MaskedEq(u64::from(one.mask));
                            let width = seccompiler::SeccompCmpArgLen::Dword;
                            let condition = seccompiler::SeccompCondition::new(
                                one.argument,
                                width,
                                operator,
                                value.into(),
                            );
                            SeccompRule::new(vec![condition.unwrap()]).unwrap()
                        })
                        .collect(),
                    _ => continue,
                };
                let whole: BpfProgram = SeccompFilter::new(
                    [(i64::from(*number), chain)].into(),
                    SeccompAction::Allow,
                    SeccompAction::Trap,
                    arch,
                )
                .unwrap()
                .try_into()
                .unwrap();
                let only = Table {
                    architecture: table.architecture,
                    rules: table
                        .rules
                        .iter()
                        .filter(|other| other.id.starts_with("entry."))
                        .cloned()
                        .chain([Rule {
                            patterns: vec![pattern.clone()],
                            place: Place::Payload,
                            ..rule.clone()
                        }])
                        .collect(),
                };
                let ours = compile::compile(&only, Filter::Full, &above(), Telling::Init).unwrap();
                for arguments in arguments(pattern) {
                    let call = Call { architecture: native, number: *number, arguments };
                    let theirs = answer(&whole, &call) == libc::SECCOMP_RET_TRAP;
                    assert_eq!(
                        theirs,
                        answer(&ours, &call) == SECCOMP_RET_USER_NOTIF,
                        "{} {call:?}",
                        rule.id
                    );
                }
            }
        }
    }
}

#[test]
fn processes_above_a_call_without_a_pid_namespace_cannot_be_signalled() {
    let table = table().unwrap();
    let number = |value: i32| u64::from(value.cast_unsigned());
    let mut call = Call {
        architecture: table.architecture.audit(),
        number: u32::try_from(libc::SYS_kill).unwrap(),
        arguments: [0, 9, 0, 0, 0, 0],
    };
    for (target, refused) in
        [(4711, true), (4713, false), (-4700, true), (-4711, false), (-1, true), (0, false)]
    {
        *low(&mut call, 0) = number(target);
        for (filter, refused) in [(Filter::Bare, refused), (Filter::Full, false)] {
            let rule = decider(&table, filter, &call).map(|rule| rule.id.as_str());
            assert_eq!(rule, refused.then_some("bare.signal"), "{filter:?} {target}");
        }
    }
    // With nobody above nothing of this matches, and nothing else is refused by accident.
    let nobody = compile::compile(&table, Filter::Bare, &Above::default(), Telling::Init).unwrap();
    *low(&mut call, 0) = 4711;
    assert_eq!(answer(&nobody, &call), SECCOMP_RET_ALLOW);
}

#[test]
fn what_is_told_holds_no_pointer_and_no_high_half() {
    let filter = PayloadFilter::new(Plan::Full, 7).unwrap();
    let call = |number: libc::c_long, arguments| Call {
        architecture: filter.table.architecture.audit(),
        number: u32::try_from(number).unwrap(),
        arguments,
    };
    let socket = call(libc::SYS_socket, [40 | 1 << 40, 1, 0, 0, 0, 0]);
    let told = Refusal { rule: "sockets.family".into(), arguments: [40, 1, 0] };
    assert_eq!(filter.refusal(&socket, &Above::default()), (libc::EPERM, Some(told)));
    let mount = call(libc::SYS_mount, [0x7fff_1234, 0x7fff_5678, 0x7fff_9abc, 0, 0, 0]);
    let told = Refusal { rule: "mounts.mount".into(), arguments: [0; 3] };
    assert_eq!(filter.refusal(&mount, &Above::default()), (libc::EPERM, Some(told)));
    let read = call(libc::SYS_read, [0; 6]);
    assert_eq!(filter.refusal(&read, &Above::default()), (libc::EPERM, None), "refused, without a reason");
}

#[test]
fn every_rule_explains_itself_and_an_unknown_id_does_not() {
    for rule in table().unwrap().rules {
        let text = explain_rule(&rule.id).unwrap();
        for (name, text) in [("what", text.what), ("why", text.why), ("instead", text.instead)] {
            assert!(text.len() > 8 && text.len() < 240, "{} {name}: {text}", rule.id);
            assert!(!text.ends_with('.'), "{} {name} ends with a full stop", rule.id);
            assert!(text.is_ascii(), "{} {name}", rule.id);
        }
    }
    assert!(explain_rule("processes.trace").unwrap().what.contains("ptrace"));
    assert!(explain_rule("no.such").is_none());
}

#[test]
fn numbers_are_those_of_libc() {
    let numbers = names::numbers(NUMBERS.text, Architecture::named(std::env::consts::ARCH).unwrap()).unwrap();
    let listed: [(&str, libc::c_long); 24] = [
        ("init_module", libc::SYS_init_module),
        ("bpf", libc::SYS_bpf),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("pivot_root", libc::SYS_pivot_root),
        ("umount2", libc::SYS_umount2),
        ("mount", libc::SYS_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("openat", libc::SYS_openat),
        ("openat2", libc::SYS_openat2),
        ("socket", libc::SYS_socket),
        ("socketpair", libc::SYS_socketpair),
        ("seccomp", libc::SYS_seccomp),
        ("mknodat", libc::SYS_mknodat),
        ("shmget", libc::SYS_shmget),
    ];
    for (name, number) in listed {
        assert_eq!(numbers[name].map(libc::c_long::from), Some(number), "{name}");
    }
}

#[test]
fn table_of_numbers_has_no_line_that_no_rule_needs() {
    let words: BTreeSet<&str> = SOURCES
        .iter()
        .flat_map(|source| source.text.lines().filter_map(|line| line.strip_prefix("call ")))
        .flat_map(str::split_whitespace)
        .collect();
    for line in NUMBERS.text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split_whitespace().next().unwrap();
        assert!(words.contains(name), "{name}");
    }
}

const GOOD: &str = "rule a.b
call     socket show arg2 if arg0 in AF_INET AF_INET6 and arg1 & 0xf in SOCK_RAW
filter   zygote
action   notify EPERM
comment  Who needs it and what it would allow,
         on two lines.
what     made a socket
why      because
instead  do not
";

fn parsed(text: &'static str) -> Result<Vec<Rule>, ParseError> {
    let source = Source { name: "test.rules", text };
    parse::table(&[source], NUMBERS, Architecture::X86_64).map(|table| table.rules)
}

#[test]
fn rule_is_read_as_it_is_written() {
    let rules = parsed(GOOD).unwrap();
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!(rule.comment, "Who needs it and what it would allow, on two lines.");
    assert_eq!((rule.place, rule.action), (Place::Zygote, Action::Notify(libc::EPERM)));
    assert_eq!(rule.patterns[0].selectors, [Selector::Number(41)]);
    assert_eq!(rule.patterns[0].conditions.len(), 2);
    assert_eq!(rule.patterns[0].shown, BTreeSet::from([0, 1, 2]));
}

#[test]
fn what_cannot_be_meant_is_an_error_with_its_line() {
    let comment = "comment  Who needs it and what it would allow,\n         on two lines.\n";
    for (old, new, line, says) in [
        (comment, "", 1, "no comment"),
        (comment, "comment  short\n", 1, "who needs it"),
        ("what     made a socket\n", "", 1, "no what"),
        ("action   notify EPERM\n", "action   notify EPREM\n", 4, "EPREM"),
        ("action   notify EPERM\n", "action   refuse\n", 4, "an action is"),
        ("action   notify EPERM\n", "action   kill\naction   kill\n", 5, "second action"),
        ("filter   zygote\n", "filter   everywhere\n", 3, "no filter everywhere"),
        ("filter   zygote\n", "filtre   zygote\n", 3, "no field filtre"),
        ("call     socket", "call     sockte", 2, "sockte has no number"),
        ("AF_INET6", "AF_INET7", 2, "AF_INET7"),
        ("arg0", "arg6", 2, "arg6"),
        ("arg0 in", "arg0 is", 2, "no condition"),
        ("in SOCK_RAW", "in 0x13", 2, "never matches"),
        ("in SOCK_RAW", "in", 2, "without values"),
        (
            "call     socket show arg2 if arg0 in AF_INET AF_INET6 and arg1 & 0xf in SOCK_RAW\n",
            "",
            1,
            "no call",
        ),
        ("call     socket show", "call     x32 show", 2, "only numbered calls"),
        ("rule a.b", "rule A b", 1, "lower case"),
        ("rule a.b\n", "", 1, "before the first rule"),
        ("show arg2", "show arg9", 2, "arg9"),
        ("why      because\n", "why\n", 8, "without a value"),
    ] {
        assert!(GOOD.contains(old), "{old}");
        let text: &'static str = Box::leak(GOOD.replacen(old, new, 1).into_boxed_str());
        let error = parsed(text).expect_err(new).to_string();
        assert!(
            error.starts_with(&format!("test.rules:{line}: ")) && error.contains(says),
            "{new:?}: {error}"
        );
    }
    let twice: &'static str = Box::leak(format!("{GOOD}\n{GOOD}").into_boxed_str());
    assert!(parsed(twice).unwrap_err().to_string().contains("another rule a.b"));
}

#[test]
fn wrong_table_of_numbers_is_an_error_with_its_line() {
    for (text, line) in [("a 1 2\nb 1\n", 2), ("a x 2\n", 1), ("a 1 2\na 1 2\n", 2)] {
        assert_eq!(names::numbers(text, Architecture::X86_64).unwrap_err().0, line, "{text}");
    }
    assert_eq!(names::numbers("# c\na - 2\n", Architecture::X86_64).unwrap()["a"], None);
}
