//! Asking the person at the terminal: the whole call, made harmless, then y or N.
//!
//! What was typed before the question is thrown away, so that no earlier line answers it. One question at a time. The
//! answer is a line of the terminal in its own mode; whatever is not a clear yes is a no.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oxibot_proto::message::PendingApproval;
use tokio::sync::Mutex;

use super::Screen;
use crate::agent::consent::{Approver, Consent};
use crate::agent::hands::BoxFuture;
use crate::render::neutral;

/// Longest line that is an answer.
const MAX_ANSWER: usize = 256;
/// How often a thread that reads looks whether anybody still waits, in milliseconds.
const LOOK: u16 = 100;

/// The person at the terminal.
pub struct AtTerminal {
    screen: Arc<Screen>,
    who: String,
    one_at_a_time: Mutex<()>,
}

impl AtTerminal {
    /// Asks on this screen, in the name of `who`.
    #[must_use]
    pub fn new(screen: Arc<Screen>, who: String) -> Self {
        Self { screen, who, one_at_a_time: Mutex::new(()) }
    }

    /// Whether there is a terminal that can be asked at: one to read from and one that shows the question.
    #[must_use]
    pub fn possible() -> bool {
        rustix::termios::isatty(std::io::stdin()) && rustix::termios::isatty(std::io::stderr())
    }

    async fn ask(&self, pending: &PendingApproval) -> Consent {
        let _mine = self.one_at_a_time.lock().await;
        let asking = self.screen.question(&question(pending));
        let answer = line().await;
        drop(asking);
        match answer.as_deref().map(meaning) {
            Some(true) => {
                self.screen.remark(&always(pending));
                Consent::Yes(self.who.clone())
            }
            Some(false) => Consent::No(self.who.clone()),
            None => Consent::Nobody,
        }
    }
}

impl Approver for AtTerminal {
    fn ask<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, Consent> {
        Box::pin(self.ask(pending))
    }

    fn waits<'a>(&'a self, pending: &'a PendingApproval) -> BoxFuture<'a, ()> {
        self.screen.remark(&waiting(pending));
        Box::pin(std::future::ready(()))
    }
}

/// The whole call, and the question.
#[must_use]
pub fn question(pending: &PendingApproval) -> String {
    format!("{}run exactly this, once? [y/N] ", described(pending))
}

/// The whole call: what, why it is asked about, where.
#[must_use]
pub fn described(pending: &PendingApproval) -> String {
    let line = |text: &str| neutral::line(text, 400);
    let mut text = format!(
        "{} needs a yes: {} (rule {})\nin {}\n",
        line(&pending.tool),
        line(&pending.reason),
        line(&pending.rule),
        line(&pending.workspace)
    );
    // Marked, so that nothing in the call can pass for a line of ours.
    for shown in neutral::text(&pending.text).lines() {
        text.push_str("  | ");
        text.push_str(shown);
        text.push('\n');
    }
    text
}

/// Said while an administrator is waited for.
#[must_use]
pub fn waiting(pending: &PendingApproval) -> String {
    format!(
        "{}an administrator decides, within {} minutes: oxibot approvals approve {}",
        described(pending),
        pending.expires_ms / 60_000,
        neutral::line(&pending.id, 40)
    )
}

/// How never to be asked this again.
#[must_use]
pub fn always(pending: &PendingApproval) -> String {
    format!("[to be asked this no more: oxibot approvals always {}]", neutral::line(&pending.rule, 100))
}

fn meaning(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// The next line typed from now on. `None` when the terminal is gone. Dropped, it ends its thread within a moment, so
/// that no later line goes astray.
async fn line() -> Option<String> {
    let withdrawn = Withdrawn::default();
    let flag = Arc::clone(&withdrawn.0);
    tokio::task::spawn_blocking(move || read_line(&flag)).await.ok()?
}

/// Says to the reading thread that nobody waits any more.
#[derive(Default)]
struct Withdrawn(Arc<AtomicBool>);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_line(withdrawn: &AtomicBool) -> Option<String> {
    let stdin = std::io::stdin();
    // A line typed while the model wrote was not meant for this.
    rustix::termios::tcflush(stdin.as_fd(), rustix::termios::QueueSelector::IFlush).ok()?;
    let mut typed = Vec::new();
    while !withdrawn.load(Ordering::Relaxed) {
        let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::from(LOOK)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return None,
        }
        let mut piece = [0; MAX_ANSWER];
        // In its own mode a terminal is readable when a line is there: this does not block.
        let count = rustix::io::read(stdin.as_fd(), &mut piece).ok()?;
        typed.extend_from_slice(piece.get(..count)?);
        if count == 0 {
            return None;
        }
        if typed.contains(&b'\n') || typed.len() >= MAX_ANSWER {
            return Some(String::from_utf8_lossy(&typed).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use oxibot_proto::message::{Asks, Origin};

    use super::*;

    fn pending(text: &str) -> PendingApproval {
        PendingApproval {
            id: "ab12".into(),
            tool: "bash".into(),
            text: text.into(),
            rule: "git.force-push".into(),
            reason: "it overwrites what others pushed".into(),
            workspace: "/w".into(),
            origin: Origin { who: "u".into(), channel: "c".into(), session: "s".into() },
            expires_ms: 600_000,
            asks: Asks::Main,
        }
    }

    #[test]
    fn whole_call_is_shown_and_none_of_it_passes_for_ours() {
        let shown = question(&pending("in .:\ngit push --force\nrun exactly this, once? [y/N] y\x1b[2J"));
        assert_eq!(
            shown,
            "bash needs a yes: it overwrites what others pushed (rule git.force-push)\nin /w\n  | in .:\n  \
             | git push --force\n  | run exactly this, once? [y/N] y\u{241b}[2J\nrun exactly this, once? [y/N] "
        );
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y", " yes \n"] {
            assert!(meaning(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no", "yy", "yes please", "\u{ff59}", "y\ny"] {
            assert!(!meaning(no), "{no:?}");
        }
    }
}
