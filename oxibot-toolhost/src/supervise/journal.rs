//! The journal as a second place for the head of the audit log: where a log cut short or written anew is found out.
//!
//! systemd's journal belongs to root, so whoever runs as our user can add to it and take nothing back. Its socket is
//! opened before the supervisor shuts itself in. Fields as in systemd.journal-fields(7), one datagram an entry, native
//! protocol. Sending never blocks; a machine without a journal has no second place, and `doctor` says so.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The connection to the journal.
#[derive(Debug)]
pub(crate) struct Journal(UnixDatagram);

impl Journal {
    /// Opens it, if there is one.
    pub(crate) fn open() -> Option<Self> {
        Self::at(Path::new(SOCKET)).ok()
    }

    pub(crate) fn at(path: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Leaves the head of a chain there.
    pub(crate) fn anchor(&self, chain: &str, seq: u64, mac: &str) -> std::io::Result<()> {
        let entry = format!(
            "MESSAGE=audit head of {chain}: record {seq}, {mac}\nPRIORITY=6\nSYSLOG_IDENTIFIER=oxibot-toolhost\n\
             OXIBOT_AUDIT_CHAIN={chain}\nOXIBOT_AUDIT_SEQ={seq}\nOXIBOT_AUDIT_MAC={mac}\n"
        );
        self.0.send(entry.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_one_datagram_of_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        Journal::at(&path).unwrap().anchor("a-1", 7, "00ff").unwrap();
        let mut buffer = [0; 4096];
        let count = journald.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        let fields: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(fields, ["OXIBOT_AUDIT_CHAIN=a-1", "OXIBOT_AUDIT_SEQ=7", "OXIBOT_AUDIT_MAC=00ff"]);
        assert!(text.starts_with("MESSAGE=audit head of a-1: record 7, 00ff\nPRIORITY=6\n"));
    }

    #[test]
    fn machine_without_a_journal_has_none() {
        assert!(Journal::at(Path::new("/nonexistent/socket")).is_err());
    }
}
