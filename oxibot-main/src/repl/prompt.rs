//! Asking for a line, on a thread of its own: the line editor blocks, the turn must not.
//!
//! The thread reads only when it is asked, so that the terminal is the turn's while one runs. It is joined when the
//! prompt is dropped, which happens only between lines.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::sync::{mpsc, oneshot};

use crate::agent::hands::BoxFuture;

/// Lines of history that are kept.
const KEPT_LINES: usize = 1000;
/// Longest line read without editing, in bytes.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Editing {
    /// With cursor keys and history.
    Full,
    /// As they come: a pipe, a dumb terminal, `--plain`.
    Plain,
}

/// What came from the prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the end of the input.
    End,
    /// The terminal does not work.
    Broken(String),
}

type Request = (String, oneshot::Sender<Typed>);

/// Whatever lines come from: the terminal, or a test.
pub(super) trait Ask {
    /// Asks for a line; one that ends with a backslash goes on.
    fn line<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Typed>;
    /// The program ends while a line is being read.
    fn abandon(&mut self);
}

/// The prompt.
#[derive(Debug)]
pub(super) struct Prompt {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Prompt {
    /// Starts the thread. With editing, lines are kept in `history`, which is made 0600 if it is absent.
    pub(super) fn start(history: Option<PathBuf>, editing: Editing) -> Result<Self, String> {
        let mut reader = match editing {
            Editing::Plain => Reader::Plain,
            Editing::Full => Reader::Edited(Box::new(editor(history.as_deref())?), history),
        };
        let (requests, mut asked) = mpsc::channel::<Request>(1);
        let thread = std::thread::Builder::new()
            .name("prompt".to_owned())
            .spawn(move || {
                while let Some((text, answer)) = asked.blocking_recv() {
                    let typed = read(&mut reader, &text);
                    // Nobody waits: the program is ending.
                    drop(answer.send(typed));
                }
            })
            .map_err(|error| error.to_string())?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    async fn read_line(&self, text: &str) -> Typed {
        let broken = || Typed::Broken("the prompt's thread ended".to_owned());
        let Some(requests) = &self.requests else { return broken() };
        let (answer, typed) = oneshot::channel();
        if requests.send((text.to_owned(), answer)).await.is_err() {
            return broken();
        }
        typed.await.unwrap_or_else(|_| broken())
    }
}

impl Ask for Prompt {
    fn line<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Typed> {
        Box::pin(self.read_line(text))
    }

    /// The thread sits in a read that nothing ends but the end of the process, which is next.
    fn abandon(&mut self) {
        self.thread = None;
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the prompt's thread panicked");
        }
    }
}

enum Reader {
    Edited(Box<Editor<(), FileHistory>>, Option<PathBuf>),
    Plain,
}

fn editor(history: Option<&Path>) -> Result<Editor<(), FileHistory>, String> {
    let config = Config::builder()
        .max_history_size(KEPT_LINES)
        .map(|builder| builder.history_ignore_space(true).auto_add_history(false).build())
        .map_err(|error| error.to_string())?;
    let mut editor = Editor::with_config(config).map_err(|error| error.to_string())?;
    if let Some(file) = history {
        private(file)?;
        editor.load_history(file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(editor)
}

fn read(reader: &mut Reader, text: &str) -> Typed {
    let mut whole = String::new();
    loop {
        let text = if whole.is_empty() { text } else { "... " };
        let line = match reader {
            Reader::Edited(editor, _) => editor.readline(text),
            Reader::Plain => plain_line(text),
        };
        match line {
            Ok(line) => match line.strip_suffix('\\') {
                Some(part) => {
                    whole.push_str(part);
                    whole.push('\n');
                }
                None => {
                    whole.push_str(&line);
                    break;
                }
            },
            Err(ReadlineError::Interrupted) => return Typed::Interrupted,
            Err(ReadlineError::Eof) if whole.is_empty() => return Typed::End,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Typed::Broken(error.to_string()),
        }
    }
    if let Reader::Edited(editor, history) = reader
        && !whole.trim().is_empty()
    {
        keep(editor, &whole, history.as_deref());
    }
    Typed::Line(whole)
}

/// No editing and no cursor movement: the terminal's own line, or a pipe.
fn plain_line(text: &str) -> Result<String, ReadlineError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
    }
    let mut bytes = Vec::new();
    // A line without end must not fill the memory.
    let read = stdin.lock().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Err(ReadlineError::Eof);
    }
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A line that cannot be kept is a smaller loss than the line.
fn keep(editor: &mut Editor<(), FileHistory>, line: &str, history: Option<&Path>) {
    let kept = editor.add_history_entry(line).and_then(|_| match history {
        Some(file) => editor.append_history(file),
        None => Ok(()),
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the history of the prompt could not be kept");
    }
}

/// Made by us and with its mode from the first byte; the editor's library would do it by changing the umask, which is
/// the whole process's.
fn private(file: &Path) -> Result<(), String> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(file)
        .map(drop)
        .map_err(|error| format!("cannot open {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_file_is_private_and_no_link_is_followed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history");
        private(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(private(&link).is_err());
    }
}
