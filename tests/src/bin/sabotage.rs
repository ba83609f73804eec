//! Takes kernel mechanisms away from a program, the way an old kernel, a container engine or a bug would.
//!
//! `sabotage WHAT[,WHAT...] -- CMD [ARG...]` installs a seccomp filter for each and becomes CMD. `pretend-X` answers
//! success without doing anything, so that only a program that verifies notices. `docker` is Docker's whole default
//! profile with its capabilities, see [`oxibot_tests::docker`].

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use oxibot_tests::docker;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

const NEW_USER: u64 = 0x1000_0000;
const NEW_PID: u64 = 0x2000_0000;
const NEW_NET: u64 = 0x4000_0000;
const NEW_NS: u64 = 0x0002_0000;
const ANY_NAMESPACE: [u64; 7] = [NEW_USER, NEW_PID, NEW_NET, NEW_NS, 0x0400_0000, 0x0800_0000, 0x0200_0000];

fn flag(argument: u8, bit: u64) -> SeccompRule {
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit).unwrap();
    SeccompRule::new(vec![condition]).unwrap()
}

fn equal(argument: u8, value: u64) -> SeccompRule {
    let condition =
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
    SeccompRule::new(vec![condition]).unwrap()
}

type Rules = Vec<(i64, Vec<SeccompRule>)>;

fn namespaces(bits: &[u64]) -> Rules {
    let rules: Vec<SeccompRule> = bits.iter().map(|bit| flag(0, *bit)).collect();
    vec![(libc::SYS_clone, rules.clone()), (libc::SYS_unshare, rules)]
}

/// What each word takes away: the errno the program sees, and for which calls. Errno 0 is a lie: success, undone.
fn mechanism(word: &str) -> Option<Vec<(i32, Rules)>> {
    let no_clone3 = (libc::ENOSYS, vec![(libc::SYS_clone3, vec![])]);
    Some(match word {
        "user-namespace" => vec![no_clone3, (libc::EPERM, namespaces(&[NEW_USER]))],
        "pid-namespace" => vec![no_clone3, (libc::EPERM, namespaces(&[NEW_PID]))],
        "network-namespace" => vec![no_clone3, (libc::EPERM, namespaces(&[NEW_NET]))],
        "mount" => vec![(
            libc::EPERM,
            vec![
                (libc::SYS_mount, vec![]),
                (libc::SYS_move_mount, vec![]),
                (libc::SYS_open_tree, vec![]),
                (libc::SYS_pivot_root, vec![]),
                (libc::SYS_mount_setattr, vec![]),
            ],
        )],
        "idmapped-mount" => vec![(libc::EINVAL, vec![(libc::SYS_mount_setattr, vec![])])],
        // What a container engine's default profile refuses.
        "container" => vec![
            no_clone3,
            (libc::EPERM, namespaces(&ANY_NAMESPACE)),
            (
                libc::EPERM,
                vec![
                    (libc::SYS_setns, vec![]),
                    (libc::SYS_mount, vec![]),
                    (libc::SYS_umount2, vec![]),
                    (libc::SYS_move_mount, vec![]),
                    (libc::SYS_open_tree, vec![]),
                    (libc::SYS_pivot_root, vec![]),
                    (libc::SYS_mount_setattr, vec![]),
                    (libc::SYS_fsopen, vec![]),
                    (libc::SYS_keyctl, vec![]),
                    (libc::SYS_ptrace, vec![]),
                ],
            ),
        ],
        "docker" => {
            let refused = docker::REFUSED.iter().map(|call| (*call, vec![]));
            let namespaces: Vec<SeccompRule> = (0..64)
                .map(|bit| 1_u64 << bit)
                .filter(|bit| docker::NAMESPACES & bit != 0)
                .map(|bit| flag(0, bit))
                .collect();
            let other: Vec<SeccompCondition> = docker::PERSONALITIES
                .iter()
                .map(|value| {
                    SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, *value).unwrap()
                })
                .collect();
            let argued = [
                (libc::SYS_clone, namespaces),
                (libc::SYS_personality, vec![SeccompRule::new(other).unwrap()]),
                (libc::SYS_socket, vec![equal(0, libc::AF_VSOCK as u64)]),
            ];
            vec![no_clone3, (libc::EPERM, refused.chain(argued).collect())]
        }
        "landlock" => vec![(
            libc::ENOSYS,
            vec![
                (libc::SYS_landlock_create_ruleset, vec![]),
                (libc::SYS_landlock_add_rule, vec![]),
                (libc::SYS_landlock_restrict_self, vec![]),
            ],
        )],
        "pretend-landlock" => vec![(0, vec![(libc::SYS_landlock_restrict_self, vec![])])],
        // The host's file system stays mounted above the root of the view.
        "pretend-umount" => vec![(0, vec![(libc::SYS_umount2, vec![])])],
        "pretend-capset" => vec![(0, vec![(libc::SYS_capset, vec![])])],
        "pretend-rlimits" => {
            vec![(0, vec![(libc::SYS_prlimit64, vec![]), (libc::SYS_setrlimit, vec![])])]
        }
        // Installed last: it refuses filters.
        "seccomp" => {
            vec![(libc::EINVAL, vec![(libc::SYS_seccomp, vec![]), (libc::SYS_prctl, vec![equal(0, 22)])])]
        }
        "pretend-seccomp" => {
            vec![(0, vec![(libc::SYS_seccomp, vec![]), (libc::SYS_prctl, vec![equal(0, 22)])])]
        }
        _ => return None,
    })
}

fn compile(errno: i32, rules: Rules) -> BpfProgram {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = rules.into_iter().collect();
    let action = SeccompAction::Errno(u32::try_from(errno).unwrap());
    SeccompFilter::new(rules, SeccompAction::Allow, action, TargetArch::x86_64).unwrap().try_into().unwrap()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let words = arguments.next().and_then(|word| word.into_string().ok());
    let (Some(words), Some(_separator), Some(program)) = (words, arguments.next(), arguments.next()) else {
        eprintln!("usage: sabotage WHAT[,WHAT...] -- CMD [ARG...]");
        return ExitCode::from(2);
    };
    let mut last = Vec::new();
    for word in words.split(',') {
        let Some(filters) = mechanism(word) else {
            eprintln!("sabotage: no mechanism named {word}");
            return ExitCode::from(2);
        };
        for (errno, rules) in filters {
            let program = compile(errno, rules);
            if word.ends_with("seccomp") { last.push(program) } else { apply_filter(&program).unwrap() }
        }
    }
    for program in last {
        apply_filter(&program).unwrap();
    }
    let mut command = Command::new(&program);
    if words.split(',').any(|word| word == "docker") && nix::unistd::geteuid().is_root() {
        // No filter of a default container refuses what this needs.
        command = Command::new("setpriv");
        command
            .args(["--bounding-set", docker::CAPABILITIES, "--inh-caps", "-all", "--ambient-caps", "-all"])
            .arg(program);
    }
    let error = command.args(arguments).exec();
    eprintln!("sabotage: {error}");
    ExitCode::from(126)
}
