//! Sockets of other programs in the workspace: what listens there acts with its owner's rights, not with a call's.
//!
//! The kernel's own table is read, not the workspace, which main never opens. It lists what is alive, which is all that
//! can be connected to; a socket that was bound by a relative path cannot be placed and is not counted.

use std::path::{Path, PathBuf};

use super::facts::text;
use super::report::Check;

/// Sockets shown by name.
const SHOWN: usize = 3;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketFacts {
    /// Paths of live sockets in the workspace; none when the table cannot be read.
    pub(super) live: Option<Vec<PathBuf>>,
}

impl SocketFacts {
    /// Looks.
    pub(super) fn gather(workspace: &Path) -> Self {
        Self { live: text("/proc/net/unix").map(|table| below(&table, workspace)) }
    }
}

/// Paths of the table that lie below a directory, each once.
fn below(table: &str, workspace: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table
        .lines()
        .skip(1)
        // Seven fields, then the path, which may hold spaces. An abstract name begins with `@`.
        .filter_map(|line| {
            let mut rest = line;
            for _ in 0..7 {
                rest = rest.trim_start().split_once(' ')?.1;
            }
            rest.trim_start().starts_with('/').then(|| PathBuf::from(rest.trim_start()))
        })
        .filter(|path| path.starts_with(workspace))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether there are any.
pub(super) fn sockets(facts: &SocketFacts) -> Vec<Check> {
    let id = "sandbox.sockets";
    let Some(live) = &facts.live else {
        return vec![Check::info(
            id,
            "/proc/net/unix cannot be read",
            "sockets in the workspace are not known",
            "",
        )];
    };
    if live.is_empty() {
        return vec![Check::ok(id, "no program of this machine listens in the workspace")];
    }
    let shown: Vec<String> = live.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    let more = live.len().saturating_sub(shown.len());
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    vec![Check::info(
        id,
        format!("{} in the workspace: {}{rest}", count(live.len()), shown.join(", ")),
        "calls are kept from them: at level full each is covered when a call starts, below it no call can make a \
         socket; one that is bound while a call runs is not",
        "let those programs listen elsewhere; see who: ss -xlp",
    )]
}

fn count(number: usize) -> String {
    if number == 1 { "1 live socket".to_owned() } else { format!("{number} live sockets") }
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    const TABLE: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000031881e0f: 00000003 00000000 00000000 0001 03 8822312\n\
        0000000031881e10: 00000002 00000000 00010000 0001 01  1063 /w/agent sock\n\
        0000000031881e10: 00000002 00000000 00010000 0001 01  1064 /w/agent sock\n\
        0000000031881e11: 00000002 00000000 00010000 0001 01 10631 /workshop\n\
        0000000031881e12: 00000002 00000000 00010000 0001 01 10632 @/w/abstract\n";

    fn one(live: Option<Vec<PathBuf>>) -> Check {
        let checks = sockets(&SocketFacts { live });
        assert_eq!(checks.len(), 1);
        checks.into_iter().next().unwrap()
    }

    #[test]
    fn only_what_lies_in_the_workspace_counts() {
        assert_eq!(below(TABLE, Path::new("/w")), [PathBuf::from("/w/agent sock")]);
        assert!(below("", Path::new("/w")).is_empty());
    }

    #[test]
    fn a_real_socket_is_seen_while_it_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(SocketFacts::gather(directory.path()).live, Some(vec![path]));
        drop(listener);
        assert_eq!(
            SocketFacts::gather(directory.path()).live,
            Some(Vec::new()),
            "the file is left, nobody listens"
        );
    }

    #[test]
    fn live_sockets_are_worth_knowing() {
        assert_eq!(one(Some(Vec::new())).state, State::Ok);
        let many = one(Some((0..5).map(|n| PathBuf::from(format!("/w/{n}"))).collect()));
        assert_eq!(many.state, State::Info);
        assert!(many.found.starts_with("5 live sockets") && many.found.ends_with("and 2 more"), "{many:?}");
        assert_eq!(one(None).state, State::Info);
    }
}
