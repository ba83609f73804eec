//! Reads bash: characters become a [`Script`]. A recursive descent over the grammar of bash(1), without aliases.
//!
//! It accepts a little more than bash does, never less on purpose: what bash refuses does not run, what we refuse is
//! asked about. Nothing is expanded here. Depth is counted before each recursion; a script that goes deeper, and one
//! that ends in the middle, is an error beside what was read until then, because bash runs each line as it reads it.

use std::cell::OnceCell;
use std::rc::Rc;

use super::tree::{Command, Item, Kind, Pipeline, Redirect, RedirectKind, Script, Word};

/// Constructs inside each other. Each level costs a few hundred bytes of stack in several functions; 8 MiB hold some
/// thousand, and nobody writes twenty.
pub(crate) const MAX_DEPTH: u16 = 100;

/// Why a script cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not bash.
    #[error("it is not bash: {0}")]
    Syntax(&'static str),
    /// Nested deeper than is followed.
    #[error("it is nested too deeply")]
    TooDeep,
    /// Longer than is read.
    #[error("it is longer than 100 KiB")]
    TooLong,
    /// More commands, values or texts than are followed.
    #[error("it takes too many steps to follow")]
    TooMuch,
}

pub(crate) type Read<T> = Result<T, Fault>;

/// A here-document whose body has not come yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) delimiter: String,
    pub(super) quoted: bool,
    pub(super) strip: bool,
    pub(super) body: Rc<OnceCell<Word>>,
}

/// Where we are in a text.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) text: Rc<[char]>,
    pub(super) at: usize,
    pub(super) depth: u16,
    pub(super) pending: Vec<Pending>,
}

/// Reads a whole script. What could be read before an error is returned beside it.
pub(crate) fn script(text: &str, depth: u16) -> (Script, Option<Fault>) {
    let mut reader = Reader::new(text.chars().collect(), depth);
    let mut script = Script::default();
    let fault = reader.items(&mut script, true).err();
    (script, fault)
}

/// Words that end a list.
pub(super) const CLOSING: [&str; 9] = ["then", "do", "done", "elif", "else", "fi", "esac", "}", "in"];

impl Reader {
    pub(super) fn new(text: Rc<[char]>, depth: u16) -> Self {
        Self { text, at: 0, depth, pending: Vec::new() }
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub(super) fn ahead(&self, by: usize) -> Option<char> {
        self.text.get(self.at.saturating_add(by)).copied()
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += 1;
        Some(letter)
    }

    pub(super) fn sees(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(by, letter)| self.ahead(by) == Some(letter))
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let seen = self.sees(text);
        if seen {
            self.at += text.chars().count();
        }
        seen
    }

    pub(super) fn need(&mut self, text: &str, what: &'static str) -> Read<()> {
        self.blanks();
        if self.eat(text) { Ok(()) } else { Err(Fault::Syntax(what)) }
    }

    /// Runs one level deeper.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Spaces, tabs, joined lines and a comment.
    pub(super) fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.ahead(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    // Only ever called between words, where `#` begins a comment.
                    while self.peek().is_some_and(|letter| letter != '\n') {
                        self.at += 1;
                    }
                }
                Some(_) | None => return,
            }
        }
    }

    /// As [`Reader::blanks`], and ends of lines with the here-documents that follow them.
    pub(super) fn lines(&mut self) -> Read<()> {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.at += 1;
            self.here_documents()?;
        }
    }

    fn here_documents(&mut self) -> Read<()> {
        for Pending { delimiter, quoted, strip, body } in std::mem::take(&mut self.pending) {
            let mut text = String::new();
            while self.peek().is_some() {
                let mut line = String::new();
                while let Some(letter) = self.bump() {
                    if letter == '\n' {
                        break;
                    }
                    line.push(letter);
                }
                let kept = if strip { line.trim_start_matches('\t') } else { &line };
                if kept == delimiter {
                    break;
                }
                text.push_str(kept);
                text.push('\n');
            }
            let word = if quoted {
                vec![super::tree::Part::Text { text, quoted: true }]
            } else {
                let letters = text.chars().collect();
                let mut inner = Reader::new(letters, self.depth);
                self.deeper(|_| inner.text_with_expansions())?
            };
            // Each cell is made with its redirection and filled here, once.
            let _ = body.set(word);
        }
        Ok(())
    }

    /// A nested list up to its closing word or bracket, which is left unread.
    pub(super) fn list(&mut self) -> Read<Script> {
        self.deeper(|reader| {
            // Here-documents of the line around are not this list's.
            let outer = std::mem::take(&mut reader.pending);
            let mut script = Script::default();
            let result = reader.items(&mut script, false);
            reader.pending.splice(0..0, outer);
            result.map(|()| script)
        })
    }

    fn items(&mut self, script: &mut Script, whole: bool) -> Read<()> {
        loop {
            self.lines()?;
            match self.peek() {
                None => return self.here_documents(),
                Some(')') if !whole => return Ok(()),
                Some(';') if !whole && matches!(self.ahead(1), Some(';' | '&')) => return Ok(()),
                Some(')') => return Err(Fault::Syntax("a `)` without its `(`")),
                Some(';' | '|') => return Err(Fault::Syntax("an operator without a command")),
                Some('&') if self.ahead(1) != Some('>') => {
                    return Err(Fault::Syntax("an operator without a command"));
                }
                Some(_) => {}
            }
            if self.reserved().is_some_and(|word| CLOSING.contains(&word.as_str()) && word != "in") {
                return if whole { Err(Fault::Syntax("a closing word without its command")) } else { Ok(()) };
            }
            let mut pipelines = vec![self.pipeline()?];
            loop {
                self.blanks();
                if self.eat("&&") || self.eat("||") {
                    self.lines()?;
                    pipelines.push(self.pipeline()?);
                } else {
                    break;
                }
            }
            let background = self.peek() == Some('&');
            script.items.push(Item { pipelines, background });
            match self.peek() {
                Some('&') => self.at += 1,
                Some(';') if !matches!(self.ahead(1), Some(';' | '&')) => self.at += 1,
                Some('\n' | ';' | ')') | None => {}
                Some(_) => return Err(Fault::Syntax("something after the end of a command")),
            }
        }
    }

    /// The unquoted word that begins here, if it could be a reserved one.
    pub(super) fn reserved(&self) -> Option<String> {
        let mut word = String::new();
        for by in 0..12 {
            match self.ahead(by) {
                Some(letter) if letter.is_ascii_lowercase() || matches!(letter, '{' | '}' | '!' | '[') => {
                    word.push(letter);
                }
                None | Some(' ' | '\t' | '\n' | '\r' | ';' | '&' | '|' | '<' | '>' | '(' | ')') => {
                    return (!word.is_empty()).then_some(word);
                }
                Some(_) => return None,
            }
        }
        None
    }

    pub(super) fn eat_reserved(&mut self, word: &str) -> bool {
        let seen = self.reserved().is_some_and(|found| found == word);
        if seen {
            self.at += word.len();
        }
        seen
    }

    pub(super) fn need_reserved(&mut self, word: &'static str) -> Read<()> {
        self.lines()?;
        if self.eat_reserved(word) { Ok(()) } else { Err(Fault::Syntax("a compound command does not end")) }
    }

    pub(super) fn pipeline(&mut self) -> Read<Pipeline> {
        self.blanks();
        loop {
            if self.eat_reserved("!") {
                self.blanks();
            } else if self.eat_reserved("time") {
                self.blanks();
                if self.sees("-p ") {
                    self.at += 2;
                    self.blanks();
                }
                if matches!(self.peek(), None | Some('\n' | ';' | '&' | '|' | ')')) {
                    return Ok(Pipeline { stages: Vec::new() });
                }
            } else {
                break;
            }
        }
        let mut stages = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() == Some('|') && self.ahead(1) != Some('|') {
                self.at += 1;
                let both = self.eat("&");
                self.lines()?;
                let next = self.command()?;
                if both && let Some(last) = stages.last_mut() {
                    last.redirects.push(Redirect {
                        descriptor: Some(2),
                        kind: RedirectKind::Duplicate,
                        target: Vec::new(),
                        here: None,
                    });
                }
                stages.push(next);
            } else {
                return Ok(Pipeline { stages });
            }
        }
    }

    pub(super) fn command(&mut self) -> Read<Command> {
        self.blanks();
        let kind = self.deeper(Self::compound)?;
        match kind {
            Some(kind @ Kind::Function { .. }) => Ok(Command { kind, redirects: Vec::new() }),
            Some(kind) => {
                let redirects = self.redirects()?;
                Ok(Command { kind, redirects })
            }
            None => self.deeper(Self::simple),
        }
    }
}
