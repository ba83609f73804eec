//! A turn on a terminal: the reply on standard output, everything else on standard error.
//!
//! Text of models and tools is neutralised before it is written. When standard output is no terminal only the finished
//! reply goes there, because what streamed may be taken back. A progress line is rewritten in place where that is
//! welcome, and otherwise a plain line is written now and then.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::agent::hands::CallProgress;
use crate::agent::runner::Audience;
use crate::agent::turn::{CallKey, Show};
use crate::redaction::{self, Streaming};
use crate::render::neutral;
use crate::render::terminal::Terminal;

/// A call is worth a progress line after so long.
const WORTH_SHOWING: Duration = Duration::from_secs(1);
/// Time between plain progress lines of one call: a log file should not fill up with them.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// Columns of a line about a tool.
const COLUMNS: usize = 78;

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Reply, tools, progress, remarks.
    All,
    /// Nothing but remarks: standard output belongs to a JSON object.
    Remarks,
}

/// The person's screen.
pub struct Screen {
    /// Text streams as it comes.
    streaming: bool,
    /// The cursor may be moved on standard error.
    fancy: bool,
    detail: Detail,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    /// The reply as it streams: the last word waits for its end, which may make it a secret.
    reply: Streaming,
    /// Text was streamed and its line is not ended.
    open_line: bool,
    /// Text of this turn was streamed.
    streamed: bool,
    /// A progress line stands there.
    drawn: bool,
    /// A question stands there and waits: nothing may be drawn over it.
    asking: bool,
    frame: usize,
    alive: BTreeMap<CallKey, (String, CallProgress)>,
    plain_shown: BTreeMap<CallKey, Duration>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("streaming", &self.streaming).finish_non_exhaustive()
    }
}

impl Screen {
    /// The real streams.
    #[must_use]
    pub fn new(terminal: Terminal, detail: Detail) -> Self {
        let fancy = terminal.fancy && terminal.stderr;
        Self::over(Box::new(std::io::stdout()), Box::new(std::io::stderr()), terminal.stdout, fancy, detail)
    }

    pub(super) fn over(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        stdout_is_terminal: bool,
        fancy: bool,
        detail: Detail,
    ) -> Self {
        let state = State {
            out,
            err,
            reply: Streaming::default(),
            open_line: false,
            streamed: false,
            drawn: false,
            asking: false,
            frame: 0,
            alive: BTreeMap::new(),
            plain_shown: BTreeMap::new(),
        };
        let streaming = stdout_is_terminal && detail == Detail::All;
        Self { streaming, fancy, detail, state: Mutex::new(state) }
    }

    /// Whether the cursor may be moved.
    #[must_use]
    pub fn is_fancy(&self) -> bool {
        self.fancy
    }

    /// Writes text of ours to standard output.
    pub fn print(&self, text: &str) {
        let mut state = self.state();
        state.settle();
        state.out(text);
    }

    /// Writes a line to standard error.
    pub fn remark(&self, text: &str) {
        let mut state = self.state();
        state.settle();
        state.err(&format!("{}\n", neutral::text(text)));
    }

    /// Puts a question, whose text is harmless already. Until what comes back is dropped no progress is drawn.
    #[must_use]
    pub fn question(&self, text: &str) -> Question<'_> {
        let mut state = self.state();
        state.settle();
        state.asking = true;
        state.err(text);
        drop(state);
        Question(self)
    }

    /// Ends a turn: what did not stream is printed now.
    pub fn finish(&self, reply: &str) {
        let mut state = self.state();
        state.settle();
        state.alive.clear();
        state.plain_shown.clear();
        let streamed = std::mem::take(&mut state.streamed);
        if self.detail == Detail::All && !streamed && !reply.is_empty() {
            // Not neutralised for a pipe: what reads it is no terminal, and wants the text.
            let text = if self.streaming { neutral::text(reply) } else { reply.to_owned() };
            let end = if text.ends_with('\n') { "" } else { "\n" };
            state.out(&format!("{text}{end}"));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that waits.
pub struct Question<'a>(&'a Screen);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.state().asking = false;
    }
}

impl State {
    /// A reader that went away is no reason to stop: the turn is journalled.
    fn out(&mut self, text: &str) {
        drop(self.out.write_all(redaction::text(text).as_bytes()).and_then(|()| self.out.flush()));
    }

    fn err(&mut self, text: &str) {
        drop(self.err.write_all(redaction::text(text).as_bytes()).and_then(|()| self.err.flush()));
    }

    /// Leaves the cursor at the beginning of an empty line.
    fn settle(&mut self) {
        if std::mem::take(&mut self.drawn) {
            self.err("\r\u{1b}[K");
        }
        let rest = self.reply.finish();
        self.streamed(&rest);
        if std::mem::take(&mut self.open_line) {
            self.out("\n");
        }
    }

    /// Shows a piece of the reply.
    fn streamed(&mut self, piece: &str) {
        if !piece.is_empty() {
            let shown = neutral::text(piece);
            self.open_line = !shown.ends_with('\n');
            drop(self.out.write_all(shown.as_bytes()).and_then(|()| self.out.flush()));
        }
    }
}

impl Audience for Screen {
    fn text(&self, delta: &str) {
        if !self.streaming || delta.is_empty() {
            return;
        }
        let mut state = self.state();
        if state.drawn {
            state.settle();
        }
        state.streamed = true;
        let piece = state.reply.push(delta);
        state.streamed(&piece);
    }

    fn restarted(&self) {
        let mut state = self.state();
        if state.streamed {
            state.settle();
            state.err("[the answer begins again]\n");
        }
        state.streamed = false;
    }

    fn reply_ended(&self) {
        self.state().settle();
    }

    fn show(&self, show: &Show) {
        let mut state = self.state();
        match show {
            Show::Note(text) => {
                state.settle();
                state.err(&format!("[{}]\n", neutral::text(text)));
            }
            Show::ToolBegun { name, arguments } if self.detail == Detail::All => {
                state.settle();
                // What streamed so far was a word on the way; the answer comes later.
                state.streamed = false;
                state.err(&format!("{}\n", begun(name, arguments)));
            }
            Show::ToolEnded { name, outcome, summary } if self.detail == Detail::All => {
                state.settle();
                state.err(&format!("{}\n", ended(name, outcome, summary)));
            }
            Show::ToolBegun { .. } | Show::ToolEnded { .. } => {}
        }
        if matches!(show, Show::ToolEnded { .. }) {
            // Keys are not known here; what still runs reports again within a second.
            state.alive.clear();
        }
    }

    fn progress(&self, key: CallKey, tool: &str, progress: CallProgress) {
        if self.detail != Detail::All || progress.elapsed < WORTH_SHOWING {
            return;
        }
        let mut state = self.state();
        state.alive.insert(key, (tool.to_owned(), progress));
        if state.asking {
            return;
        }
        if self.fancy {
            const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
            if !state.drawn {
                state.settle();
            }
            let frame = FRAMES.get(state.frame % FRAMES.len()).copied().unwrap_or('|');
            state.frame = state.frame.wrapping_add(1);
            let line = alive(tool, progress, state.alive.len());
            state.drawn = true;
            state.err(&format!("\r\u{1b}[K{frame} {line}"));
            return;
        }
        let due = state.plain_shown.get(&key).is_none_or(|last| progress.elapsed >= *last + PLAIN_EVERY);
        if due {
            state.plain_shown.insert(key, progress.elapsed);
            let line = alive(tool, progress, state.alive.len());
            state.settle();
            state.err(&format!("{line}\n"));
        }
    }
}

/// `> bash: ls -l`; the one argument that says most, or all of them.
fn begun(name: &str, arguments: &str) -> String {
    let object = serde_json::from_str::<serde_json::Value>(arguments).ok();
    let telling = ["command", "path", "pattern", "url", "query"].iter().find_map(|key| {
        object.as_ref().and_then(|object| object.get(key)).and_then(serde_json::Value::as_str)
    });
    // Before it is cut: half a secret is not recognised.
    neutral::line(&redaction::text(&format!("> {name}: {}", telling.unwrap_or(arguments))), COLUMNS)
}

fn ended(name: &str, outcome: &str, summary: &str) -> String {
    let said = summary.strip_prefix("outcome: ").unwrap_or(summary);
    let said = if said.starts_with(outcome) { said.to_owned() } else { format!("{outcome}: {said}") };
    neutral::line(&format!("  {name}: {said}"), if outcome == "completed" { COLUMNS } else { 4 * COLUMNS })
}

fn alive(tool: &str, progress: CallProgress, running: usize) -> String {
    let mut line = format!("{tool}: {} s", progress.elapsed.as_secs());
    if let Some(deadline) = progress.deadline {
        line.push_str(&format!(" of at most {} s", deadline.as_secs()));
    }
    if progress.output_bytes > 0 {
        line.push_str(&format!(", {} KB of output", progress.output_bytes.div_ceil(1024)));
    }
    if running > 1 {
        line.push_str(&format!(", {running} calls at once"));
    }
    neutral::line(&line, COLUMNS)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::repl) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(in crate::repl) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    pub(in crate::repl) fn screen(terminal: bool, fancy: bool, detail: Detail) -> (Screen, Page, Page) {
        let (out, err) = (Page::default(), Page::default());
        let screen = Screen::over(Box::new(out.clone()), Box::new(err.clone()), terminal, fancy, detail);
        (screen, out, err)
    }

    fn after(seconds: u64) -> CallProgress {
        CallProgress {
            elapsed: Duration::from_secs(seconds),
            deadline: Some(Duration::from_secs(60)),
            output_bytes: 2048,
        }
    }

    const KEY: CallKey = CallKey { round: 1, index: 0 };

    #[test]
    fn terminal_gets_the_stream_harmless_and_a_pipe_only_the_reply() {
        for (terminal, expected) in [(true, "on the way\nred ␛[31m\n"), (false, "red \u{1b}[31m\n")] {
            let (screen, out, _err) = screen(terminal, false, Detail::All);
            screen.text("on the ");
            screen.text("way");
            screen.reply_ended();
            screen.show(&Show::ToolBegun { name: "bash".into(), arguments: "{}".into() });
            screen.text("red \u{1b}[31m");
            screen.reply_ended();
            screen.finish("red \u{1b}[31m");
            assert_eq!(out.text(), expected);
        }
    }

    #[test]
    fn tool_lines_are_harmless_and_short() {
        let (screen, _out, err) = screen(true, true, Detail::All);
        let arguments = serde_json::json!({"command": format!("echo \u{1b}]0;t\u{7}{}\nx", "y".repeat(500))});
        screen.show(&Show::ToolBegun { name: "bash".into(), arguments: arguments.to_string() });
        screen.show(&Show::ToolEnded {
            name: "bash".into(),
            outcome: "completed".into(),
            summary: "outcome: completed, exit code 0".into(),
        });
        let text = err.text();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.ends_with("  bash: completed, exit code 0\n"), "{text}");
    }

    #[test]
    fn progress_is_redrawn_where_welcome_and_sparse_lines_elsewhere() {
        let (fancy, _out, err) = screen(true, true, Detail::All);
        fancy.progress(KEY, "bash", CallProgress { elapsed: Duration::from_millis(900), ..after(0) });
        assert_eq!(err.text(), "");
        fancy.progress(KEY, "bash", after(2));
        fancy.progress(KEY, "bash", after(3));
        fancy.text("x");
        assert_eq!(
            err.text(),
            "\r\u{1b}[K| bash: 2 s of at most 60 s, 2 KB of output\
             \r\u{1b}[K/ bash: 3 s of at most 60 s, 2 KB of output\r\u{1b}[K"
        );
        let (plain, _out, err) = screen(false, false, Detail::All);
        (1..=25).for_each(|second| plain.progress(KEY, "bash", after(second)));
        let text = err.text();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\r') && !text.contains('\u{1b}'));
    }

    #[test]
    fn json_leaves_standard_output_alone() {
        let (screen, out, err) = screen(true, true, Detail::Remarks);
        screen.text("a");
        screen.progress(KEY, "bash", after(2));
        screen.show(&Show::ToolBegun { name: "bash".into(), arguments: "{}".into() });
        screen.finish("a");
        assert_eq!((out.text(), err.text()), (String::new(), String::new()));
        screen.show(&Show::Note("remark".into()));
        assert_eq!(err.text(), "[remark]\n");
    }

    #[test]
    fn repeated_request_says_so() {
        let (screen, out, err) = screen(true, false, Detail::All);
        screen.restarted();
        screen.text("half");
        screen.restarted();
        screen.text("whole");
        screen.finish("whole");
        assert_eq!(out.text(), "half\nwhole\n");
        assert_eq!(err.text(), "[the answer begins again]\n");
    }
}
