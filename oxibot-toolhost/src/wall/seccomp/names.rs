//! What the words of rule files mean: numbers of calls from the table beside them, constants from libc.
//!
//! A word that is not here is an error of the rule file, never zero.

use std::collections::BTreeMap;

use super::rule::Architecture;

/// Constants a rule may name. All are the same on every architecture we build for.
const CONSTANTS: &[(&str, u32)] = &[
    ("ADDR_NO_RANDOMIZE", libc::ADDR_NO_RANDOMIZE.cast_unsigned()),
    ("AF_INET", libc::AF_INET.cast_unsigned()),
    ("AF_INET6", libc::AF_INET6.cast_unsigned()),
    ("AF_NETLINK", libc::AF_NETLINK.cast_unsigned()),
    ("AF_UNIX", libc::AF_UNIX.cast_unsigned()),
    ("CLONE_NEWCGROUP", libc::CLONE_NEWCGROUP.cast_unsigned()),
    ("CLONE_NEWIPC", libc::CLONE_NEWIPC.cast_unsigned()),
    ("CLONE_NEWNET", libc::CLONE_NEWNET.cast_unsigned()),
    ("CLONE_NEWNS", libc::CLONE_NEWNS.cast_unsigned()),
    ("CLONE_NEWPID", libc::CLONE_NEWPID.cast_unsigned()),
    ("CLONE_NEWUSER", libc::CLONE_NEWUSER.cast_unsigned()),
    ("CLONE_NEWUTS", libc::CLONE_NEWUTS.cast_unsigned()),
    ("FIOSETOWN", 0x8901),
    ("F_SETLEASE", 1024),
    ("F_SETOWN", libc::F_SETOWN.cast_unsigned()),
    ("F_SETOWN_EX", 15),
    ("IOPRIO_WHO_PROCESS", 1),
    ("IOPRIO_WHO_USER", 3),
    ("IPPROTO_DCCP", libc::IPPROTO_DCCP.cast_unsigned()),
    ("IPPROTO_MPTCP", libc::IPPROTO_MPTCP.cast_unsigned()),
    ("IPPROTO_SCTP", libc::IPPROTO_SCTP.cast_unsigned()),
    ("IPPROTO_UDPLITE", libc::IPPROTO_UDPLITE.cast_unsigned()),
    ("NETLINK_ROUTE", libc::NETLINK_ROUTE.cast_unsigned()),
    ("O_CREAT", libc::O_CREAT.cast_unsigned()),
    ("O_TRUNC", libc::O_TRUNC.cast_unsigned()),
    // The bits of the access mode with it. As a value: opened for neither reading nor writing, and emptied all the same.
    ("O_TRUNC_MODES", (libc::O_TRUNC | libc::O_ACCMODE).cast_unsigned()),
    // O_TMPFILE without the O_DIRECTORY it contains: the bit that is its own.
    ("O_TMPFILE_BIT", (libc::O_TMPFILE & !libc::O_DIRECTORY).cast_unsigned()),
    // All ones asks which personality is set.
    ("PERSONALITY_ASK", u32::MAX),
    ("PER_LINUX32", 0x0008),
    ("PRIO_PROCESS", 0),
    ("PRIO_USER", 2),
    ("PR_SET_MM", libc::PR_SET_MM.cast_unsigned()),
    ("SECCOMP_FILTER_FLAG_NEW_LISTENER", 8),
    ("SIOCSPGRP", 0x8902),
    ("SOCK_CLOEXEC", libc::SOCK_CLOEXEC.cast_unsigned()),
    ("SOCK_NONBLOCK", libc::SOCK_NONBLOCK.cast_unsigned()),
    // The old way to a packet socket, deprecated in libc and still in the kernel.
    ("SOCK_PACKET", 10),
    ("SOCK_RAW", libc::SOCK_RAW.cast_unsigned()),
    ("SOCK_SEQPACKET", libc::SOCK_SEQPACKET.cast_unsigned()),
    ("SOCK_STREAM", libc::SOCK_STREAM.cast_unsigned()),
    ("S_IFBLK", libc::S_IFBLK),
    ("S_IFCHR", libc::S_IFCHR),
    ("S_IFMT", libc::S_IFMT),
    ("S_ISGID", libc::S_ISGID),
    ("S_ISUID", libc::S_ISUID),
    ("TIOCCONS", 0x541d),
    ("TIOCLINUX", 0x541c),
    ("TIOCSETD", 0x5423),
    ("TIOCSTI", 0x5412),
    ("UNAME26", libc::UNAME26.cast_unsigned()),
];

/// A constant by name, or a decimal or hexadecimal number.
pub(super) fn constant(word: &str) -> Option<u32> {
    if let Some(digits) = word.strip_prefix("0x") {
        return u32::from_str_radix(digits, 16).ok();
    }
    if word.starts_with(|first: char| first.is_ascii_digit()) {
        return word.parse().ok();
    }
    CONSTANTS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

/// An errno a rule may answer.
pub(super) fn errno(word: &str) -> Option<i32> {
    match word {
        "EPERM" => Some(libc::EPERM),
        "EACCES" => Some(libc::EACCES),
        "ENOSYS" => Some(libc::ENOSYS),
        _ => None,
    }
}

/// Numbers of one architecture by name; `None` where it has no such call.
pub(super) type Numbers = BTreeMap<&'static str, Option<u32>>;

/// Reads the table of numbers. The line is named that is wrong.
pub(super) fn numbers(table: &'static str, architecture: Architecture) -> Result<Numbers, (usize, String)> {
    let mut numbers = Numbers::new();
    for (index, line) in table.lines().enumerate() {
        let at = index.saturating_add(1);
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let words: Vec<&'static str> = line.split_whitespace().collect();
        let [name, x86_64, aarch64] = words.as_slice() else {
            return Err((at, "a line is a name and two numbers".into()));
        };
        let word = match architecture {
            Architecture::X86_64 => x86_64,
            Architecture::Aarch64 => aarch64,
        };
        let number = match *word {
            "-" => None,
            word => Some(word.parse().map_err(|_| (at, format!("{word} is not a number")))?),
        };
        if numbers.insert(name, number).is_some() {
            return Err((at, format!("{name} is there twice")));
        }
    }
    Ok(numbers)
}
