//! Whose workspace a message is worked on in. Pure: who wrote where, and a directory.
//!
//! A person's files, notes and memory are seen in no conversation with more than one human: a group has a workspace of
//! its own, whoever writes there.

use std::path::{Path, PathBuf};

use oxibot_proto::message::PEOPLE;

use crate::channels::Inbound;
use crate::config::WorkspaceScope;

/// Longest name of a directory; what is longer is no id of a vendor.
const MOST: usize = 200;

/// Who shares a workspace.
#[derive(Debug, Clone)]
pub struct Rooms {
    scope: WorkspaceScope,
    base: PathBuf,
}

/// An id that no directory can be named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot make a workspace: the id of the person or the chat is too long")]
pub(super) struct TooLong;

impl Rooms {
    /// Workspaces below `home`, shared as `scope` says.
    #[must_use]
    pub fn new(scope: WorkspaceScope, home: &Path) -> Self {
        // The toolhost knows it by its canonical path.
        let home = home.canonicalize().unwrap_or_else(|_| home.to_path_buf());
        Self { scope, base: home.join(PEOPLE) }
    }

    /// Where the workspaces of people lie.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Absolute path of the workspace for a message; none for the shared one.
    pub(super) fn of(&self, channel: &str, inbound: &Inbound) -> Result<Option<String>, TooLong> {
        let name = match (self.scope, inbound.direct) {
            (WorkspaceScope::Shared, _) => return Ok(None),
            (WorkspaceScope::Sender, true) => format!("{channel}-{}", plain(&inbound.sender.id)),
            (WorkspaceScope::Sender, false) | (WorkspaceScope::Conversation, _) => {
                let thread =
                    inbound.target.thread.as_deref().filter(|_| self.scope != WorkspaceScope::Sender);
                let thread = thread.map_or_else(String::new, |thread| format!("-{}", plain(thread)));
                format!("{channel}-chat-{}{thread}", plain(&inbound.target.chat))
            }
        };
        if name.len() > MOST {
            return Err(TooLong);
        }
        Ok(Some(self.base.join(name).display().to_string()))
    }
}

/// An id as part of a name: two different ones never give the same.
fn plain(id: &str) -> String {
    let mut name = String::new();
    for byte in id.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => name.push(char::from(byte)),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::{Sender, Target};

    fn inbound(who: &str, chat: &str, thread: Option<&str>) -> Inbound {
        Inbound {
            key: "1".into(),
            sender: Sender { id: who.into(), handle: None, name: "x".into() },
            target: Target { chat: chat.into(), thread: thread.map(str::to_owned), reply_to: None },
            direct: who == chat,
            addressed: true,
            text: "hi".into(),
            left_out: Vec::new(),
        }
    }

    fn room(scope: WorkspaceScope, message: &Inbound) -> Option<String> {
        let rooms = Rooms { scope, base: "/h/people".into() };
        rooms.of("telegram", message).unwrap().map(|path| path.trim_start_matches("/h/people/").to_owned())
    }

    #[test]
    fn person_has_one_alone_and_the_groups_in_a_group() {
        use WorkspaceScope::{Conversation, Sender, Shared};
        let alone = inbound("42", "42", None);
        assert_eq!(room(Shared, &alone), None);
        assert_eq!(room(Sender, &alone).as_deref(), Some("telegram-42"));
        assert_eq!(room(Conversation, &alone).as_deref(), Some("telegram-chat-42"));
        for who in ["42", "43"] {
            let group = inbound(who, "-100", Some("7"));
            assert_eq!(room(Sender, &group).as_deref(), Some("telegram-chat-_2d100"), "{who}");
            assert_eq!(room(Conversation, &group).as_deref(), Some("telegram-chat-_2d100-7"), "{who}");
        }
    }

    #[test]
    fn different_ids_never_share_a_directory_and_none_leads_elsewhere() {
        let ids = [
            "ann@example.org",
            "ann_40example.org",
            "Ann@example.org",
            "../42",
            "..",
            "a/b",
            "42",
            "4 2",
            "",
        ];
        let mut names: Vec<_> =
            ids.iter().map(|id| room(WorkspaceScope::Sender, &inbound(id, id, None)).unwrap()).collect();
        assert!(names.iter().all(|name| !name.contains(['/', '.'])), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ids.len());
        let long = "é".repeat(100);
        assert_eq!(
            Rooms::new(WorkspaceScope::Sender, Path::new("/")).of("x", &inbound(&long, &long, None)),
            Err(TooLong)
        );
    }
}
