//! Asking for a line, on a thread of its own: the line editor blocks, the turn must not.
//!
//! The thread reads only when it is asked, so that the terminal is the turn's while one runs. It is joined when the
//! prompt is dropped, which happens only between lines.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::sync::{mpsc, oneshot};

use crate::agent::hands::BoxFuture;

/// Lines of history that are kept.
const KEPT_LINES: usize = 1000;

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
    /// Starts the thread. `history` is made 0600 if it is absent; without it lines are not kept.
    pub(super) fn start(history: Option<PathBuf>) -> Result<Self, String> {
        let config = Config::builder()
            .max_history_size(KEPT_LINES)
            .map(|builder| builder.history_ignore_space(true).auto_add_history(false).build())
            .map_err(|error| error.to_string())?;
        let mut editor: Editor<(), FileHistory> =
            Editor::with_config(config).map_err(|error| error.to_string())?;
        if let Some(file) = &history {
            private(file)?;
            editor.load_history(file).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        let (requests, mut asked) = mpsc::channel::<Request>(1);
        let thread = std::thread::Builder::new()
            .name("prompt".to_owned())
            .spawn(move || {
                while let Some((text, answer)) = asked.blocking_recv() {
                    let typed = read(&mut editor, &text, history.as_deref());
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

fn read(editor: &mut Editor<(), FileHistory>, text: &str, history: Option<&Path>) -> Typed {
    let mut whole = String::new();
    loop {
        match editor.readline(if whole.is_empty() { text } else { "... " }) {
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
    if !whole.trim().is_empty() {
        keep(editor, &whole, history);
    }
    Typed::Line(whole)
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
