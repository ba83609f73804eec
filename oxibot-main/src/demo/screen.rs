//! What the tour looks like: plain lines that read the same in a terminal and in a pipe, within 80 columns.
//!
//! Everything a program or the model printed is neutralised before it is shown.

use std::io;
use std::sync::{Mutex, PoisonError};

use oxibot_proto::message::{Level, ProtectionState, Wall};

use super::attempts::{self, Verdict};
use super::line;
use crate::agent::hands::{CallEnding, CallProgress};
use crate::agent::runner::Audience;
use crate::agent::turn::{CallKey, Show};
use crate::model::ToolCall;
use crate::render::neutral;
use crate::render::terminal::Terminal;

/// Columns of a line.
const WIDTH: usize = 80;
/// Lines of a program's output that are shown.
const SHOWN_LINES: usize = 3;

/// Writes the tour. The first error is kept and told at the end.
pub(super) struct Screen {
    terminal: Terminal,
    text: Mutex<String>,
    failed: Mutex<Option<io::Error>>,
}

impl Screen {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { terminal, text: Mutex::new(String::new()), failed: Mutex::new(None) }
    }

    /// The first error of writing, if there was one.
    pub(super) fn result(&self) -> io::Result<()> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    pub(super) fn opening(&self, wall: &Wall) {
        self.say("OxiBot demo: a recorded model, real tools, a real wall.");
        self.say("");
        self.level(wall);
        self.say("");
    }

    pub(super) fn question(&self, text: &str) {
        self.wrapped("you:   ", text);
        self.say("");
    }

    /// One call that ended.
    pub(super) fn call(&self, call: &ToolCall, ending: &CallEnding) {
        self.model_text();
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        let main =
            ["command", "path"].iter().find_map(|key| arguments.get(*key)?.as_str()).unwrap_or_default();
        let main = neutral::line(main, 400);
        if let Some(title) = attempts::title(&call.id) {
            self.say(&format!("  ATTEMPT: {title}"));
        }
        self.wrapped(&format!("  {:<10} ", call.name), &main);
        for printed in ending.output.lines().filter(|printed| !printed.trim().is_empty()).take(SHOWN_LINES) {
            self.say(&clip(&format!("           | {}", neutral::line(printed, 200))));
        }
        self.wrapped("           = ", &neutral::line(&ending.summary, 300));
        self.say("");
    }

    /// The closing table.
    pub(super) fn table(&self, verdicts: &[Verdict]) {
        self.model_text();
        self.say("What was tried, and what stopped it");
        self.say(&"-".repeat(WIDTH));
        for verdict in verdicts {
            let state = if verdict.held { "held  " } else { "BROKEN" };
            self.say(&format!("{state}  {}", verdict.title));
            self.wrapped("          ", &neutral::line(&verdict.why, 300));
        }
        self.say(&"-".repeat(WIDTH));
    }

    pub(super) fn closing(&self, wall: &Wall, verdicts: &[Verdict]) {
        let held = verdicts.iter().filter(|verdict| verdict.held).count();
        let all = verdicts.len();
        self.say(&format!("{held} of {all} attempts were stopped."));
        if held < all {
            self.say("Something got through: do not let a model use tools on this machine.");
        }
        self.level(wall);
    }

    fn level(&self, wall: &Wall) {
        self.say(&format!("level: {} (Landlock ABI {})", wall.level.name(), wall.landlock_abi));
        if wall.level == Level::Full {
            return;
        }
        for protection in
            wall.protections.iter().filter(|protection| protection.state != ProtectionState::Active)
        {
            self.wrapped(
                "  not here: ",
                &neutral::line(&format!("{}: {}", protection.name, protection.detail), 300),
            );
        }
        self.wrapped("  to raise it: ", raise());
    }

    /// Says what the model streamed since the last call.
    fn model_text(&self) {
        let text = std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner));
        for paragraph in text.lines().filter(|paragraph| !paragraph.trim().is_empty()) {
            self.wrapped("model: ", &neutral::line(paragraph, 2000));
        }
        if !text.trim().is_empty() {
            self.say("");
        }
    }

    /// A text behind a prefix, broken at words.
    fn wrapped(&self, prefix: &str, text: &str) {
        let mut current = prefix.to_owned();
        let indent = " ".repeat(prefix.chars().count());
        let mut empty = true;
        for word in text.split_whitespace() {
            if !empty && current.chars().count() + 1 + word.chars().count() > WIDTH {
                self.say(&current);
                current.clone_from(&indent);
                empty = true;
            }
            if !empty {
                current.push(' ');
            }
            current.push_str(word);
            empty = false;
        }
        self.say(&current);
    }

    fn say(&self, text: &str) {
        if let Err(error) = line(text.trim_end()) {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

impl Audience for Screen {
    fn text(&self, delta: &str) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(delta);
    }

    fn restarted(&self) {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn reply_ended(&self) {
        self.model_text();
    }

    fn show(&self, show: &Show) {
        match show {
            // Calls are shown with what they printed, by the watched hands.
            Show::ToolBegun { .. } | Show::ToolEnded { .. } => {}
            Show::Note(text) => self.wrapped("note:  ", &neutral::line(text, 500)),
        }
    }

    fn progress(&self, _key: CallKey, tool: &str, progress: CallProgress) {
        if self.terminal.fancy && progress.elapsed.as_secs() >= 1 {
            // Nothing runs longer than two seconds here; a line a second would only scroll the tour away.
            tracing::debug!(target: "oxibot_agent", tool, elapsed = ?progress.elapsed, "running");
        }
    }
}

/// The one command that gives more namespaces on this machine.
fn raise() -> &'static str {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else if read("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "sudo sysctl kernel.unprivileged_userns_clone=1"
    } else if read("/proc/sys/user/max_user_namespaces") == "0" {
        "sudo sysctl user.max_user_namespaces=15000"
    } else {
        "let this container or service create user namespaces, for example docker run --security-opt seccomp=unconfined"
    }
}

fn clip(text: &str) -> String {
    text.chars().take(WIDTH).collect()
}
