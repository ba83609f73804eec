//! Every rule, executed: in a child under the real filters, installed as in a call, and in one without them.
//!
//! A wrong number or a misread argument shows here, because the kernel itself answers. The child keeps root's
//! capabilities, so that EPERM can only come from a filter; arguments are null, -1 or impossible, so that without a filter
//! the kernel refuses them for another reason or does something harmless to the child alone. Left out are
//! `entry.foreign`, which ends the process (the attack `entry-32-bit` does it), and `entry.x32` and `entry.newer`, which a
//! kernel without such calls answers with the same ENOSYS.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;

use super::rule::{Condition, Pattern, Place, Rule, Selector, Value};
use super::*;
use crate::sys::{self, Cloned};
use crate::wall::channel::{Channel, Received, pair, send_message};
use crate::wall::orders::FromPayload;

const LEFT_OUT: [&str; 3] = ["entry.foreign", "entry.x32", "entry.newer"];
/// Larger than any process id of Linux.
const NOBODY: u64 = 4_194_999;
const MINUS_ONE: u64 = u64::MAX;

/// Arguments around those a rule looks at, by call, or by rule and call. A call that is not here has none of its own:
/// null and 0 are harmless.
fn around(rule: &str, call: &str) -> [u64; 6] {
    let clone_sighand = u64::from(libc::CLONE_SIGHAND.cast_unsigned());
    let here = u64::from(libc::AT_FDCWD.cast_unsigned());
    match (rule, call) {
        ("sockets.family", _) => [40, 1, 0, 0, 0, 0],
        ("sockets.netlink", _) => [16, 3, 9, 0, 0, 0],
        ("sockets.name-service", _) => [1, 0o4_004_001, 0, 0, 0, 0],
        ("sockets.none", _) => [2, 1, 0, 0, 0, 0],
        ("sockets.transport", _) => [2, 1, 0, 0, 0, 0],
        ("sockets.unconnected-pair", _) => [1, 2, 0, 0, 0, 0],
        ("sockets.pair-family", _) => [2, 1, 0, 0, 0, 0],
        ("files.set-id", "open") => [0, 0, 0o755, 0, 0, 0],
        ("files.set-id", "openat") => [here, 0, 0, 0o755, 0, 0],
        ("files.set-id", "mknod") => [0, 0o100_644, 0, 0, 0, 0],
        ("files.set-id", "mknodat") => [here, 0, 0o100_644, 0, 0, 0],
        (_, "chmod" | "creat" | "mkdir" | "mknod") => [0, 0o755, 0, 0, 0, 0],
        (_, "fchmod") => [MINUS_ONE, 0o755, 0, 0, 0, 0],
        (_, "fchmodat" | "fchmodat2" | "mkdirat" | "mknodat") => [here, 0, 0o755, 0, 0, 0],
        // Without CLONE_VM this is impossible: no process comes of it.
        (_, "clone") => [clone_sighand, 0, 0, 0, 0, 0],
        (
            _,
            "finit_module" | "setns" | "fsmount" | "fsconfig" | "open_by_handle_at" | "pidfd_send_signal",
        ) => [MINUS_ONE, 0, 0, 0, 0, 0],
        (_, "ioctl" | "fcntl" | "io_uring_enter" | "io_uring_register" | "fanotify_mark" | "openat2") => {
            [MINUS_ONE, 0, 0, 0, 0, 0]
        }
        (_, "kexec_load") => [0, 0, 0, 0xffff, 0, 0],
        (_, "kexec_file_load") => [MINUS_ONE, MINUS_ONE, 0, 0, 0xffff, 0],
        (_, "bpf" | "userfaultfd" | "memfd_secret" | "keyctl" | "fanotify_init") => {
            [MINUS_ONE, 0, 0, 0, 0, 0]
        }
        (_, "quotactl" | "syslog" | "iopl" | "modify_ldt" | "sysfs") => [0xff, 0, 0, 0, 0, 0],
        (_, "quotactl_fd") => [MINUS_ONE, 0xff, 0, 0, 0, 0],
        (_, "acct" | "settimeofday" | "uselib") => [1, 0, 0, 0, 0, 0],
        (_, "clock_settime" | "clock_adjtime") => [99, 0, 0, 0, 0, 0],
        (_, "sethostname" | "setdomainname" | "swapon") => [0, MINUS_ONE, 0, 0, 0, 0],
        (_, "ioperm") => [0x10_0000, 1, 1, 0, 0, 0],
        (_, "mbind") => [0, 4096, 99, 0, 0, 0],
        (_, "set_mempolicy") => [99, 0, 0, 0, 0, 0],
        (_, "set_mempolicy_home_node") => [0, 0, 99_999, 1, 0, 0],
        (_, "personality") => [0x0040_0000, 0, 0, 0, 0, 0],
        (_, "ptrace") => [0x9999, 0, 0, 0, 0, 0],
        (_, "process_vm_readv" | "process_vm_writev") => [0, 0, 0, 0, 0, 1],
        (_, "process_madvise") => [MINUS_ONE, 0, 0, 0, 1, 0],
        (_, "process_mrelease") => [MINUS_ONE, 1, 0, 0, 0, 0],
        (_, "pidfd_getfd") => [MINUS_ONE, MINUS_ONE, 1, 0, 0, 0],
        (_, "kcmp") => [0, 0, 99, 0, 0, 0],
        (_, "move_pages") => [0, 0, 0, 0, 0, 1 << 30],
        (_, "migrate_pages") => [NOBODY, 0, 0, 0, 0, 0],
        (_, "seccomp") => [1, 0, 0, 0, 0, 0],
        (_, "prctl") => [0, 99, 0, 0, 1, 0],
        (_, "unshare") => [1, 0, 0, 0, 0, 0],
        (_, "fsopen") => [0, 99, 0, 0, 0, 0],
        (_, "fspick" | "open_tree") => [MINUS_ONE, 0, 0xffff_ffff, 0, 0, 0],
        (_, "umount2") => [0, 0x4000_0000, 0, 0, 0, 0],
        (_, "move_mount") => [MINUS_ONE, 0, MINUS_ONE, 0, 0xffff_ffff, 0],
        (_, "mount_setattr" | "open_tree_attr") => [MINUS_ONE, 0, 0, 0, 1, 0],
        (_, "shmat" | "shmctl" | "semop" | "semtimedop" | "semctl" | "msgsnd" | "msgrcv" | "msgctl") => {
            [MINUS_ONE, 0, 0, 0, 0, 0]
        }
        (_, "lsm_set_self_attr") => [0, 0, 0, 1, 0, 0],
        (_, "semget") => [0, MINUS_ONE, 0, 0, 0, 0],
        // 0 would be IPC_PRIVATE and make a queue.
        (_, "msgget") => [0x7fff_abcd, 0, 0, 0, 0, 0],
        (_, "prlimit64") => [0, 0xff, 0, 0, 0, 0],
        (_, "sched_setscheduler") => [0, 99, 0, 0, 0, 0],
        (_, "kill" | "tkill") => [NOBODY, 0, 0, 0, 0, 0],
        (_, "tgkill") => [NOBODY, NOBODY, 0, 0, 0, 0],
        _ => [0; 6],
    }
}

/// Numbers as libc has them, and not as the table of the rules has: that is what is tested. `None` for those libc does not
/// have everywhere; of these the answer without a filter tells, which is checked below.
fn number(call: &str) -> Option<u32> {
    macro_rules! of_libc {
        ($($name:ident: $number:ident)*) => {
            match call {
                $(stringify!($name) => Some(libc::$number),)*
                _ => None,
            }
        };
    }
    let everywhere = of_libc! {
        truncate: SYS_truncate acct: SYS_acct add_key: SYS_add_key adjtimex: SYS_adjtimex bpf: SYS_bpf chroot: SYS_chroot
        clock_adjtime: SYS_clock_adjtime clock_settime: SYS_clock_settime clone: SYS_clone clone3: SYS_clone3
        delete_module: SYS_delete_module fanotify_init: SYS_fanotify_init fanotify_mark: SYS_fanotify_mark
        fchmod: SYS_fchmod fchmodat: SYS_fchmodat fcntl: SYS_fcntl finit_module: SYS_finit_module
        fsconfig: SYS_fsconfig fsmount: SYS_fsmount fsopen: SYS_fsopen fspick: SYS_fspick
        init_module: SYS_init_module io_uring_enter: SYS_io_uring_enter
        io_uring_register: SYS_io_uring_register io_uring_setup: SYS_io_uring_setup ioctl: SYS_ioctl
        ioprio_set: SYS_ioprio_set kcmp: SYS_kcmp kexec_file_load: SYS_kexec_file_load
        kexec_load: SYS_kexec_load keyctl: SYS_keyctl kill: SYS_kill lookup_dcookie: SYS_lookup_dcookie
        mbind: SYS_mbind memfd_secret: SYS_memfd_secret migrate_pages: SYS_migrate_pages mkdirat: SYS_mkdirat
        mknodat: SYS_mknodat mount: SYS_mount mount_setattr: SYS_mount_setattr move_mount: SYS_move_mount
        move_pages: SYS_move_pages mq_open: SYS_mq_open mq_unlink: SYS_mq_unlink msgctl: SYS_msgctl
        msgget: SYS_msgget msgrcv: SYS_msgrcv msgsnd: SYS_msgsnd nfsservctl: SYS_nfsservctl
        open_by_handle_at: SYS_open_by_handle_at open_tree: SYS_open_tree openat: SYS_openat
        openat2: SYS_openat2 perf_event_open: SYS_perf_event_open personality: SYS_personality
        pidfd_getfd: SYS_pidfd_getfd pidfd_open: SYS_pidfd_open pidfd_send_signal: SYS_pidfd_send_signal
        pivot_root: SYS_pivot_root prctl: SYS_prctl prlimit64: SYS_prlimit64
        process_madvise: SYS_process_madvise process_mrelease: SYS_process_mrelease
        process_vm_readv: SYS_process_vm_readv process_vm_writev: SYS_process_vm_writev ptrace: SYS_ptrace
        quotactl: SYS_quotactl quotactl_fd: SYS_quotactl_fd reboot: SYS_reboot request_key: SYS_request_key
        rt_sigqueueinfo: SYS_rt_sigqueueinfo rt_tgsigqueueinfo: SYS_rt_tgsigqueueinfo
        sched_setaffinity: SYS_sched_setaffinity sched_setattr: SYS_sched_setattr
        sched_setparam: SYS_sched_setparam sched_setscheduler: SYS_sched_setscheduler seccomp: SYS_seccomp
        semctl: SYS_semctl semget: SYS_semget semop: SYS_semop semtimedop: SYS_semtimedop
        set_mempolicy: SYS_set_mempolicy set_mempolicy_home_node: SYS_set_mempolicy_home_node
        setdomainname: SYS_setdomainname sethostname: SYS_sethostname setns: SYS_setns
        setpriority: SYS_setpriority settimeofday: SYS_settimeofday shmat: SYS_shmat shmctl: SYS_shmctl
        shmget: SYS_shmget socket: SYS_socket socketpair: SYS_socketpair swapoff: SYS_swapoff
        swapon: SYS_swapon syslog: SYS_syslog tgkill: SYS_tgkill tkill: SYS_tkill umount2: SYS_umount2
        unshare: SYS_unshare userfaultfd: SYS_userfaultfd vhangup: SYS_vhangup
    };
    #[cfg(target_arch = "x86_64")]
    let here = of_libc! {
        _sysctl: SYS__sysctl chmod: SYS_chmod creat: SYS_creat ioperm: SYS_ioperm iopl: SYS_iopl
        mkdir: SYS_mkdir mknod: SYS_mknod modify_ldt: SYS_modify_ldt open: SYS_open sysfs: SYS_sysfs
        uselib: SYS_uselib ustat: SYS_ustat
    };
    #[cfg(not(target_arch = "x86_64"))]
    let here: Option<libc::c_long> = None;
    everywhere.or(here).and_then(|number| u32::try_from(number).ok())
}

/// Calls libc does not have everywhere, with what Linux 6.17 answers to the arguments they are tried with.
const NEW: [(&str, Errno); 5] = [
    ("lsm_set_self_attr", Errno::EINVAL),
    ("fchmodat2", Errno::EFAULT),
    ("statmount", Errno::EFAULT),
    ("listmount", Errno::EFAULT),
    ("open_tree_attr", Errno::EINVAL),
];

/// Who is above the child: nobody that exists.
fn above() -> Above {
    let nobody = i32::try_from(NOBODY).unwrap();
    Above { processes: vec![nobody], groups: vec![nobody] }
}

/// One execution.
#[derive(Debug, Clone)]
struct Trial {
    rule: String,
    place: Place,
    name: &'static str,
    call: Call,
    /// The rule's errno, or `None` for arguments it must leave alone.
    refused: Option<(i32, bool)>,
}

fn argument(call: &mut Call, condition: &Condition, value: u32) {
    let argument = &mut call.arguments[usize::from(condition.argument)];
    *argument = (*argument & u64::from(!condition.mask)) | u64::from(value);
}

/// Calls that meet every condition: each value of each in turn.
fn meeting(start: Call, pattern: &Pattern) -> Vec<Call> {
    pattern.conditions.iter().fold(vec![start], |calls, condition| {
        let values: Vec<Option<u32>> = if !condition.negated {
            condition.values(&above()).into_iter().map(Some).collect()
        } else if condition.values == [Value::Fixed(0)] && condition.mask != u32::MAX {
            (0..32).map(|bit| 1 << bit).filter(|bit| bit & condition.mask != 0).map(Some).collect()
        } else {
            // What is around it meets it already, or anything does that is not a value.
            vec![None]
        };
        let mut met = Vec::new();
        for call in &calls {
            for value in &values {
                let mut call = *call;
                match value {
                    Some(value) => argument(&mut call, condition, *value),
                    None => {
                        let at = &mut call.arguments[usize::from(condition.argument)];
                        if condition
                            .values(&above())
                            .iter()
                            .any(|value| u64::from(*value) == *at & u64::from(condition.mask))
                        {
                            *at = NOBODY;
                        }
                    }
                }
                met.push(call);
            }
        }
        met
    })
}

/// The nearest calls that miss one condition.
fn missing(met: Call, pattern: &Pattern) -> Vec<Call> {
    pattern
        .conditions
        .iter()
        .map(|condition| {
            let mut call = met;
            let values = condition.values(&above());
            let value = match (condition.negated, condition.mask) {
                (true, _) => values[0],
                (false, u32::MAX) => values[0] ^ 1,
                (false, _) => 0,
            };
            argument(&mut call, condition, value);
            call
        })
        .collect()
}

fn names() -> BTreeMap<u32, &'static str> {
    names::numbers(NUMBERS.text, Architecture::named(std::env::consts::ARCH).unwrap())
        .unwrap()
        .into_iter()
        .filter_map(|(name, number)| number.map(|number| (number, name)))
        .collect()
}

/// A Landlock ABI under which no rule is left out.
const OLD: u32 = 1;

fn trials(table: &Table, filter: Filter) -> Vec<Trial> {
    let names = names();
    let mut trials = Vec::new();
    let holds = |rule: &&Rule| {
        let others = match filter {
            Filter::Full => [Place::PayloadBare, Place::PayloadOld].as_slice(),
            Filter::Bare => &[Place::PayloadFull],
            Filter::Zygote => &[Place::Payload],
        };
        !others.contains(&rule.place) && !LEFT_OUT.contains(&rule.id.as_str())
    };
    for rule in table.rules.iter().filter(holds) {
        for pattern in &rule.patterns {
            for selector in &pattern.selectors {
                let Selector::Number(number) = selector else { panic!("{} has no number", rule.id) };
                let name = names[number];
                let start = Call {
                    architecture: table.architecture.audit(),
                    number: self::number(name).unwrap_or(*number),
                    arguments: around(&rule.id, name),
                };
                let trial =
                    |call, refused| Trial { rule: rule.id.clone(), place: rule.place, name, call, refused };
                for met in meeting(start, pattern) {
                    let errno = match rule.action {
                        Action::Errno(errno) => (errno, false),
                        Action::Notify(errno) => (errno, true),
                        Action::Allow | Action::Kill => panic!("{}", rule.id),
                    };
                    trials.push(trial(met, Some(errno)));
                    trials.extend(
                        missing(met, pattern)
                            .into_iter()
                            .filter(|call| table.judge(filter, call, &above()).is_none())
                            .map(|call| trial(call, None)),
                    );
                }
            }
        }
    }
    trials
}

/// Which filters a child has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    Nothing,
    /// As inits and files workers before their own.
    Zygote,
    /// As a payload.
    Payload,
    /// As a payload below another listener.
    PayloadUntold,
}

/// A filter that allows everything and has a listener, as a container engine may have installed above us.
fn listener_above() -> OwnedFd {
    let everything = [seccompiler::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    sys::install_filter_with_listener(&everything).unwrap()
}

fn child(trials: &[Trial], under: Under, plan: Plan, status: OwnedFd) -> ! {
    // Its own session: no terminal to hang up.
    nix::unistd::setsid().unwrap();
    nix::sys::prctl::set_no_new_privs().unwrap();
    if under != Under::Nothing {
        sys::install_filter(&zygote_filter().unwrap()).unwrap();
    }
    let other = (under == Under::PayloadUntold).then(listener_above);
    if matches!(under, Under::Payload | Under::PayloadUntold) {
        let listener = install(&PayloadFilter::new(plan, OLD).unwrap(), &above()).unwrap();
        assert_eq!(listener.is_some(), other.is_none(), "told unless another listens");
        if let Some(listener) = listener {
            send_message(status.as_fd(), &FromPayload::Filtered, &[listener.as_fd()]).unwrap();
        }
    }
    for trial in trials {
        let answered = match sys::any_call(trial.call.number, trial.call.arguments) {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        };
        nix::unistd::write(&status, &answered.to_ne_bytes()).unwrap();
    }
    sys::exit_now(0)
}

/// As init answers, without its bounds on what is told. Ends when the child has.
fn answer_all(listener: &OwnedFd, filter: &PayloadFilter) -> Vec<Refusal> {
    let mut told = Vec::new();
    loop {
        let mut watched = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut watched, PollTimeout::NONE).unwrap();
        if !watched[0].revents().unwrap().contains(PollFlags::POLLIN) {
            return told;
        }
        let Ok(notice) = sys::next_refused(listener.as_fd()) else { continue };
        let call =
            Call { architecture: notice.architecture, number: notice.number, arguments: notice.arguments };
        let (errno, refusal) = filter.refusal(&call, &above());
        sys::answer_refused(listener.as_fd(), notice.id, errno).unwrap();
        told.extend(refusal);
    }
}

/// The errno of each trial, 0 for success, and what was told.
fn execute(trials: &[Trial], under: Under, plan: Plan) -> (Vec<i32>, Vec<Refusal>) {
    let (ours, theirs) = pair().unwrap();
    let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
        drop(ours);
        child(trials, under, plan, theirs);
    };
    drop(theirs);
    let mut told = Vec::new();
    let filter = PayloadFilter::new(plan, OLD).unwrap();
    let mut bytes = Vec::new();
    let mut socket = std::os::unix::net::UnixStream::from(ours);
    if under == Under::Payload {
        let mut words = Channel::<FromPayload>::new(socket.try_clone().unwrap().into());
        let Received::Message(FromPayload::Filtered) = words.wait(Some(20_000)).unwrap() else {
            panic!("no listener")
        };
        let listener = words.take_descriptor().unwrap();
        told = answer_all(&listener, &filter);
        socket.read_to_end(&mut bytes).unwrap();
    } else {
        socket.read_to_end(&mut bytes).unwrap();
    }
    let status = waitpid(pid, None).unwrap();
    let answers: Vec<i32> = bytes.chunks(4).map(|one| i32::from_ne_bytes(one.try_into().unwrap())).collect();
    assert_eq!(answers.len(), trials.len(), "{under:?}: the child ended early: {status:?}");
    (answers, told)
}

/// This needs root: without capabilities the kernel's own EPERM looks like a filter's.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let required = std::env::var_os("OXIBOT_TESTS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "SKIPPED {}: needs root", module_path!());
        eprintln!("SKIPPED {}: needs root", module_path!());
    }
    root
}

fn name(errno: i32) -> String {
    if errno == 0 { "success".into() } else { Errno::from_raw(errno).to_string() }
}

fn executed(filter: Filter, plan: Plan) {
    if !root() {
        return;
    }
    let table = table().unwrap();
    let trials = trials(&table, filter);
    for trial in &trials {
        let new = NEW.iter().any(|(name, _)| *name == trial.name);
        assert!(new != number(trial.name).is_some(), "{}", trial.name);
    }
    let covered: std::collections::BTreeSet<&str> = trials.iter().map(|trial| trial.rule.as_str()).collect();
    for rule in table.rules.iter().filter(|rule| match rule.place {
        Place::Zygote | Place::Payload => true,
        Place::PayloadFull => filter == Filter::Full,
        Place::PayloadBare | Place::PayloadOld => filter == Filter::Bare,
    }) {
        assert!(covered.contains(rule.id.as_str()) || LEFT_OUT.contains(&rule.id.as_str()), "{}", rule.id);
    }
    let (without, _) = execute(&trials, Under::Nothing, plan);
    let (zygote, _) = execute(&trials, Under::Zygote, plan);
    let (payload, told) = execute(&trials, Under::Payload, plan);
    let (untold, _) = execute(&trials, Under::PayloadUntold, plan);
    let mut wrong = Vec::new();
    let mut expect = |trial: &Trial, what: &str, fine: bool, got: i32| {
        if !fine {
            wrong.push(format!(
                "{} {} {:x?}: {what}: {}",
                trial.rule,
                trial.name,
                trial.call.arguments,
                name(got)
            ));
        }
    };
    for (at, trial) in trials.iter().enumerate() {
        let (without, zygote, payload, untold) = (without[at], zygote[at], payload[at], untold[at]);
        match trial.refused {
            Some((errno, notifies)) => {
                expect(trial, "without a filter", without != errno, without);
                if let Some((_, own)) = NEW.iter().find(|(name, _)| *name == trial.name) {
                    // ENOSYS: a kernel older than the call.
                    let fine = [*own as i32, libc::ENOSYS].contains(&without);
                    expect(trial, "without a filter, by its number", fine, without);
                }
                expect(trial, "refused in a payload", payload == errno, payload);
                expect(trial, "refused untold", untold == errno, untold);
                if trial.place == Place::Zygote {
                    let there = if notifies { libc::ENOSYS } else { errno };
                    expect(trial, "refused below the zygote", zygote == there, zygote);
                }
                let rule = table.judge(filter, &trial.call, &above()).map(|(rule, _)| rule.id.clone());
                if notifies {
                    expect(trial, "told", told.iter().any(|told| Some(&told.rule) == rule.as_ref()), payload);
                }
            }
            None => {
                expect(trial, "allowed in a payload", payload == without, payload);
                expect(trial, "allowed untold", untold == without, untold);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), trials.len(), wrong.join("\n"));
    eprintln!("{} calls executed under each of four filters", trials.len());
}

/// Init may die before its payload: then nobody answers, and the kernel refuses with ENOSYS.
#[test]
fn without_its_listener_every_call_that_notifies_stays_refused() {
    if !root() {
        return;
    }
    let trials: Vec<Trial> = trials(&table().unwrap(), Filter::Full)
        .into_iter()
        .filter(|trial| matches!(trial.refused, Some((_, true))))
        .collect();
    let (ours, theirs) = pair().unwrap();
    let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
        nix::unistd::setsid().unwrap();
        nix::sys::prctl::set_no_new_privs().unwrap();
        sys::install_filter(&zygote_filter().unwrap()).unwrap();
        drop(install(&PayloadFilter::new(Plan::Full, OLD).unwrap(), &above()).unwrap().unwrap());
        for trial in &trials {
            let answered = sys::any_call(trial.call.number, trial.call.arguments);
            let absent = u8::from(answered == Err(Errno::ENOSYS));
            nix::unistd::write(&theirs, &[absent]).unwrap();
        }
        sys::exit_now(0);
    };
    drop(theirs);
    let mut absent = Vec::new();
    std::os::unix::net::UnixStream::from(ours).read_to_end(&mut absent).unwrap();
    waitpid(pid, None).unwrap();
    assert_eq!(absent, vec![1; trials.len()]);
}

#[test]
fn every_rule_of_a_call_with_namespaces_is_what_the_kernel_does() {
    executed(Filter::Full, Plan::Full);
}

#[test]
fn every_rule_of_a_call_without_namespaces_is_what_the_kernel_does() {
    executed(Filter::Bare, Plan::Bare);
}
