//! What the filters cost, printed. Run by hand, on a quiet machine, in release mode:
//! `cargo test --release -p oxibot-toolhost --lib cost -- --ignored --nocapture`.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::wait::waitpid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::rule::Selector;
use super::*;
use crate::sys::{self, Cloned};
use crate::wall::channel::pair;
use crate::wall::refusals::Refusals;

const TIMES: usize = 200;
const CALLS: u32 = 2_000;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Median of what `measured` takes in a child of its own, which ends afterwards.
fn in_children(measured: impl Fn() -> Duration) -> Duration {
    let once = || {
        let (ours, theirs) = pair().unwrap();
        let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
            nix::sys::prctl::set_no_new_privs().unwrap();
            let took = u64::try_from(measured().as_nanos()).unwrap();
            UnixStream::from(theirs).write_all(&took.to_ne_bytes()).unwrap();
            sys::exit_now(0);
        };
        drop(theirs);
        let mut bytes = [0; 8];
        UnixStream::from(ours).read_exact(&mut bytes).unwrap();
        waitpid(pid, None).unwrap();
        Duration::from_nanos(u64::from_ne_bytes(bytes))
    };
    median((0..TIMES).map(|_| once()).collect())
}

/// The unconditional rules of a filter as a list, as seccompiler writes it.
fn list(table: &Table, filter: Filter) -> BpfProgram {
    let numbers = table.of(filter).flat_map(|rule| &rule.patterns).flat_map(|pattern| &pattern.selectors);
    let rules = numbers
        .filter_map(|selector| match selector {
            Selector::Number(number) => Some((i64::from(*number), vec![])),
            Selector::Foreign | Selector::X32 | Selector::Newer(_) => None,
        })
        .collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap()
}

fn installing(program: &BpfProgram, below: Option<&BpfProgram>) -> Duration {
    in_children(|| {
        if let Some(below) = below {
            sys::install_filter(below).unwrap();
        }
        let started = Instant::now();
        sys::install_filter(program).unwrap();
        started.elapsed()
    })
}

fn calling(number: libc::c_long, arguments: [u64; 6]) -> Duration {
    let number = u32::try_from(number).unwrap();
    let started = Instant::now();
    for _ in 0..CALLS {
        let _ = sys::any_call(number, arguments);
    }
    started.elapsed() / CALLS
}

#[test]
#[ignore = "measures; prints medians for a person to read"]
fn installing_and_asking() {
    let table = table().unwrap();
    let zygote = zygote_filter().unwrap();
    for filter in [Filter::Zygote, Filter::Full, Filter::Bare] {
        let started = Instant::now();
        let program = compile::compile(&table, filter, &Above::default(), Telling::Init).unwrap();
        let compiling = started.elapsed();
        let list = list(&table, filter);
        let below = (filter != Filter::Zygote).then_some(&zygote);
        println!(
            "{filter:?}: {} instructions, compiled in {compiling:?}, installed in {:?}; its numbers as a list: {} \
             instructions, {:?}",
            program.len(),
            installing(&program, below),
            list.len(),
            installing(&list, below),
        );
    }
    let filter = PayloadFilter::new(Plan::Full).unwrap();
    let keyctl = [u64::MAX, 0, 0, 0, 0, 0];
    let open = [u64::from(libc::AT_FDCWD.cast_unsigned()), 0, 0, 0, 0, 0];
    for (name, number, arguments) in [
        ("keyctl, refused", libc::SYS_keyctl, keyctl),
        ("openat, by argument", libc::SYS_openat, open),
        ("getppid", libc::SYS_getppid, [0; 6]),
    ] {
        let without = in_children(|| calling(number, arguments));
        let untold = in_children(|| {
            sys::install_filter(&zygote).unwrap();
            sys::install_filter(&filter.program(&Above::default(), Telling::Nobody).unwrap()).unwrap();
            calling(number, arguments)
        });
        println!(
            "{name}: {without:?} without, {untold:?} with the filters, {:?} told",
            told(&filter, number, arguments)
        );
    }
}

/// One child under the filters with a listener, answered as by init.
fn told(filter: &PayloadFilter, number: libc::c_long, arguments: [u64; 6]) -> Duration {
    let (ours, theirs) = pair().unwrap();
    let Cloned::Parent { pid, pidfd: _ } = sys::clone_process(0).unwrap() else {
        nix::sys::prctl::set_no_new_privs().unwrap();
        sys::install_filter(&zygote_filter().unwrap()).unwrap();
        let listener = install(filter, &Above::default()).unwrap().unwrap();
        sys::send(theirs.as_fd(), &[0], &[listener.as_fd()]).unwrap();
        drop(listener);
        let took = u64::try_from(calling(number, arguments).as_nanos()).unwrap();
        UnixStream::from(theirs).write_all(&took.to_ne_bytes()).unwrap();
        sys::exit_now(0);
    };
    drop(theirs);
    let mut byte = [0];
    let (_, mut descriptors) =
        sys::receive(ours.as_fd(), &mut byte, nix::sys::socket::MsgFlags::empty()).unwrap();
    let listener: OwnedFd = descriptors.remove(0);
    let mut refusals = Refusals::new(listener, Above::default());
    while let Some(listener) = refusals.listener() {
        let mut watched = [nix::poll::PollFd::new(listener, nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut watched, nix::poll::PollTimeout::NONE).unwrap();
        refusals.answer(filter).unwrap();
    }
    let mut bytes = [0; 8];
    UnixStream::from(ours).read_exact(&mut bytes).unwrap();
    waitpid(pid, None).unwrap();
    Duration::from_nanos(u64::from_ne_bytes(bytes))
}
